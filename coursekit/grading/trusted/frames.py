"""Messages between the grader and its trusted process: a kind, a length, and so many bytes."""

from __future__ import annotations

import asyncio
import socket

HEADER_BYTES = 9

# From the grader: RUN a cell (JSON), ANSWER to a question (codec bytes), NONE came (JSON: name, text).
RUN, ANSWER, NONE = b"R", b"A", b"N"
# From the trusted process: READY (process id), ASK the student's side (codec bytes), DONE (JSON: outputs).
READY, ASK, DONE = b"P", b"Q", b"D"


def frame(kind: bytes, body: bytes) -> bytes:
    r"""Return the bytes of a message.

    >>> frame(RUN, b"{}")
    b'R\x00\x00\x00\x00\x00\x00\x00\x02{}'
    """
    return kind + len(body).to_bytes(HEADER_BYTES - 1, "big") + body


def receive(channel: socket.socket) -> tuple[bytes, bytes]:
    """Return the next message's kind and body. Raises: EOFError if the other end is gone."""
    header = _exactly(channel, HEADER_BYTES)
    return header[:1], _exactly(channel, int.from_bytes(header[1:], "big"))


async def receive_async(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return the next message's kind and body. Raises: EOFError if the other end is gone."""
    header = await reader.readexactly(HEADER_BYTES)
    return header[:1], await reader.readexactly(int.from_bytes(header[1:], "big"))


def _exactly(channel: socket.socket, count: int) -> bytes:
    parts, missing = [], count
    while missing:
        part = channel.recv(min(missing, 2**20))
        if not part:
            raise EOFError("the other end is gone")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
