"""Network: nothing outside the box answers; inside, processes talk over the loopback."""

import os
import socket

import pytest

CONNECT = "import socket; socket.create_connection(('127.0.0.1', {port}), 3)"
ABSTRACT = "import socket; socket.socket(socket.AF_UNIX).connect({name!r})"


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_listener_on_the_machine_is_not_reached(attempt, port):
    if attempt.refused("network"):
        return
    attempt.fails_with("network", code=CONNECT.format(port=port))
    attempt.works_without("network", "system_calls", code=CONNECT.format(port=port))


def test_where_networks_cannot_be_divided_there_are_no_internet_sockets(attempt, port):
    if attempt.refused("system_calls"):
        return
    attempt.fails_with("system_calls", code=CONNECT.format(port=port))


def test_an_abstract_socket_of_the_machine_is_not_reached(attempt):
    name = f"\0coursekit-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        for layer in ("network", "landlock"):
            if not attempt.refused(layer):
                attempt.fails_with(layer, code=ABSTRACT.format(name=name))
        attempt.works_without("network", "landlock", code=ABSTRACT.format(name=name))


def test_the_loopback_of_the_box_works(attempt):
    listen = "import socket; listener = socket.create_server(('127.0.0.1', 0))\n"
    code = listen + "socket.create_connection(listener.getsockname(), 3)"
    if not attempt.refused("network"):
        states, outputs = attempt.run(code, attempt.granted)
        assert states == ("ok",), outputs


HELD = """
import socket
listener = socket.create_server(('127.0.0.1', 0))
ends = (socket.create_connection(listener.getsockname(), 3), listener.accept()[0])
pairs = [ends, socket.socketpair()]
held = 0
for end, other in pairs:
    other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**24)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**24)
    end.settimeout(0.2)
    try:
        while True: held += end.send(bytes(2**16))
    except TimeoutError:
        pass
assert held < 2**20, held
"""


def test_a_connection_holds_no_more_than_a_megabyte(attempt):
    if attempt.refused("network", "system_calls"):
        return
    states, outputs = attempt.run(HELD, attempt.granted)
    assert states == ("ok",), outputs
    # Without the filter the buffers grow as far as the machine lets them, without the network by themselves.
    states, outputs = attempt.run(HELD, attempt.granted - {"network", "system_calls"})
    assert states == ("error",), outputs
