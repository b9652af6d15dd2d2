"""The grader's end of ZeroMQ's protocol, against libzmq and against those who speak it falsely."""

import asyncio
import json
import socket
import threading

import pytest
import zmq

from coursekit.grading.wire import MAX_PARTS, Wire, WireError, read_json

MOST = 10**6


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "s")


@pytest.fixture
def context():
    with zmq.Context() as context:
        yield context


def bound(context, kind, path):
    made = context.socket(kind)
    made.linger, made.rcvtimeo = 0, 60_000
    made.bind(f"ipc://{path}")
    return made


def in_time(coroutine):
    async def run():
        async with asyncio.timeout(60):
            return await coroutine

    return asyncio.run(run())


@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000])
def test_requests_and_answers_cross_whole(context, path, size):
    parts = [b"x" * size, b"", b"y"]

    async def ask():
        wire = Wire(path, identity=b"me", most=MOST)
        wire.send_multipart(parts)  # before there is a connection
        with bound(context, zmq.ROUTER, path) as kernel:
            identity, *got = await asyncio.to_thread(kernel.recv_multipart)
            kernel.send_multipart([identity, *got[::-1]])
            assert await wire.poll(30)
            wire.close()
            return identity, got, wire.receive()

    assert in_time(ask()) == (b"me", parts, parts[::-1])


async def published(context, path, send, *, wanted):
    """What arrives of what `send` publishes: what is wanted, and what comes in the second after it."""
    wire, received = Wire(path, identity=None, most=MOST), []
    with bound(context, zmq.XPUB, path) as kernel:
        assert await asyncio.to_thread(kernel.recv) == b"\x01"
        await asyncio.to_thread(send, kernel)
        while await wire.poll(30 if len(received) < wanted else 1):
            received.append(wire.receive())
    wire.close()
    return received


def test_outputs_arrive_in_their_order(context, path):
    sent = [[b"topic", str(number).encode()] for number in range(200)]
    publish = published(context, path, lambda kernel: [*map(kernel.send_multipart, sent)], wanted=len(sent))
    assert in_time(publish) == sent


TOO_MUCH = {"long": [b"x" * (MOST + 1)], "sum": [b"x" * 20_000] * 51, "parts": [b""] * (MAX_PARTS + 1)}


@pytest.mark.parametrize("parts", TOO_MUCH.values(), ids=TOO_MUCH)
def test_a_message_beyond_the_bounds_does_not_arrive(context, path, parts):
    assert in_time(published(context, path, lambda kernel: kernel.send_multipart(parts), wanted=0)) == []


def test_what_waits_is_bounded_and_nothing_of_it_is_lost(context, path):
    sent = [[bytes([number]) * 300_000] for number in range(40)]

    async def read_late():
        wire = Wire(path, identity=None, most=MOST)
        with bound(context, zmq.XPUB, path) as kernel:
            await asyncio.to_thread(kernel.recv)
            for parts in sent:
                kernel.send_multipart(parts)
            await asyncio.sleep(0.5)
            waiting = sum(len(part) for parts in wire._received for part in parts)
            got = [wire.receive() for _ in sent if await wire.poll(30)]
        wire.close()
        return waiting, got

    waiting, got = in_time(read_late())
    assert waiting <= MOST
    assert got == sent


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\n" * 10, b"\xff" + bytes(8) + b"\x7f\x01" + bytes(100), b"\xff" * 200]
)
def test_who_speaks_no_zeromq_is_asked_again_and_again(path, said):
    calls = []

    def serve(listener):
        while len(calls) < 3:
            connection, _ = listener.accept()
            with connection:
                calls.append(connection.sendall(said))

    async def listen():
        wire = Wire(path, identity=None, most=MOST)
        while thread.is_alive():
            assert not await wire.poll(0.1)
        wire.close()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        in_time(listen())
    assert len(calls) == 3


def test_json_with_too_many_items_is_not_read():
    assert read_json(b'{"a": [1, {}]}') == {"a": [1, {}]}
    with pytest.raises(WireError):
        read_json(b"[" + b"[]," * 10**6 + b"0]")
    with pytest.raises(json.JSONDecodeError):
        read_json(b"\xff\xfe")
