"""The grader's end of a kernel's sockets: ZeroMQ's wire protocol (ZMTP 3.0), read within bounds.

libzmq bounds the parts of a message and the number of messages, but not the number of parts: one message that
never ends would fill the memory of whoever reads it. Here what is read and not yet asked for is bounded, and
a connection that says anything else than bounded messages is closed.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from contextlib import suppress
from queue import Empty
from typing import Any

from jupyter_client.channels import ZMQSocketChannel

# A signed message of Jupyter's has an identity, a delimiter, a signature, four dicts, and seldom more.
MAX_PARTS, MAX_WAITING = 64, 50
# Small JSON can make large objects: counted before anything is built.
MAX_ITEMS = 2_000_000
RECONNECT_SECONDS = 0.005
_MORE, _LONG, _COMMAND = 1, 2, 4  # flags of a frame
_NULL = b"NULL".ljust(20, b"\0")  # the security mechanism: none, as messages are signed
# Signature, version 3.0, mechanism, "not the server", filler.
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + _NULL + bytes(32)
_EVERYTHING = b"\x01"  # subscribes to every message


class WireError(ValueError):
    """What came is no bounded message."""


class Wire:
    """One connection to a kernel's socket, made anew when it breaks. Belongs to the running event loop.

    Args:
        path: of the kernel's Unix socket; it need not be there yet.
        identity: by which the kernel knows the sender of requests; None to subscribe to its outputs.
        most: bytes of a message, and of all that waits here to be received.
    """

    def __init__(self, path: str, *, identity: bytes | None, most: int) -> None:
        self._path, self._identity, self._most = path, identity, most
        self._received: deque[list[bytes]] = deque()
        self._unsent: list[bytes] = []
        self._writer: asyncio.StreamWriter | None = None
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._serve())

    async def poll(self, seconds: float | None) -> bool:
        """Return whether a message is there, within so many seconds."""
        if not self._received:
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._news.wait()
        return bool(self._received)

    def receive(self) -> list[bytes]:
        """Return the parts of the oldest message that is there."""
        self._room.set()
        return self._received.popleft()

    def send_multipart(self, parts: list[bytes], copy: bool = True) -> None:
        """Send a message, now or once there is a connection; named as jupyter_client calls it."""
        last = len(parts) - 1
        data = b"".join(_frame(bytes(part), _MORE * (n < last)) for n, part in enumerate(parts))
        if self._writer is None:
            self._unsent.append(data)
        else:
            self._writer.write(data)

    def close(self, linger: int | None = None) -> None:
        """Let go of the connection; what is not sent yet is lost."""
        self._task.cancel()
        if self._writer is not None:
            self._writer.close()

    async def _serve(self) -> None:
        while True:
            # AttributeError, ValueError: a connection that is gone before it is used.
            with suppress(OSError, EOFError, ValueError, AttributeError):
                reader, writer = await asyncio.open_unix_connection(self._path, limit=2**20)
                try:
                    await self._talk(reader, writer)
                finally:
                    self._writer = None
                    writer.close()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind, identity = (b"SUB", b"") if self._identity is None else (b"DEALER", self._identity)
        ready = b"\x05READY" + _property(b"Socket-Type", kind) + _property(b"Identity", identity)
        writer.write(_GREETING + _frame(ready, _COMMAND))
        greeting = await reader.readexactly(len(_GREETING))
        if greeting[0] != 0xFF or greeting[10] < 3 or greeting[12:32] != _NULL:
            raise WireError("no ZeroMQ of our time, or it wants another security mechanism")
        await _read_frame(reader, MAX_PARTS * 2**10)  # its READY
        unsent, self._unsent = self._unsent, []
        first = [_frame(_EVERYTHING, 0)] if self._identity is None else []
        writer.write(b"".join([*first, *unsent]))
        self._writer = writer
        while True:
            message = await self._read_message(reader)
            while self._is_full(message):
                self._room.clear()
                await self._room.wait()
            self._received.append(message)
            self._news.set()

    def _is_full(self, message: list[bytes]) -> bool:
        waiting = sum(len(part) for parts in (*self._received, message) for part in parts)
        return bool(self._received) and (waiting > self._most or len(self._received) >= MAX_WAITING)

    async def _read_message(self, reader: asyncio.StreamReader) -> list[bytes]:
        parts: list[bytes] = []
        left, flags = self._most, _MORE
        while flags & _MORE:
            flags, body = await _read_frame(reader, left)
            left -= len(body)
            if flags & _COMMAND:
                flags = _MORE  # nothing that concerns us
                continue
            parts.append(body)
            if len(parts) > MAX_PARTS:
                raise WireError("a message of too many parts")
        return parts


class WireChannel(ZMQSocketChannel):
    """jupyter_client's channel on such a connection."""

    socket: Any

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:  # type: ignore[override]
        """Return the next message. Raises: Empty if none comes in time; others for what is no message."""
        if not await self.socket.poll(timeout):
            raise Empty
        _, parts = self.session.feed_identities(self.socket.receive())
        return self.session.deserialize(parts)


def read_json(data: bytes) -> Any:
    """Return the value of bounded JSON; for `Session.unpack`. Raises: ValueError."""
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > MAX_ITEMS:
        raise WireError("too many items")
    return json.loads(data.decode("utf-8", "replace"))


def _frame(body: bytes, flags: int) -> bytes:
    if len(body) < 256:
        return bytes([flags, len(body)]) + body
    return bytes([flags | _LONG]) + len(body).to_bytes(8, "big") + body


async def _read_frame(reader: asyncio.StreamReader, most: int) -> tuple[int, bytes]:
    flags = (await reader.readexactly(1))[0]
    length = int.from_bytes(await reader.readexactly(8 if flags & _LONG else 1), "big")
    if length > most:
        raise WireError("a message that is too long")
    return flags, await reader.readexactly(length)


def _property(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value
