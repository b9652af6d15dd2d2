"""Forging the messages by which the kernel tells what became of a cell."""

from .corpus import Family

attack = ATTACKS = Family("protocol")
WRONG = "\ndef double(number):\n    return 0.0\n"


@attack("points")
def execution_is_claimed():
    """Replace the kernel's handler of requests: it replies "ok" and runs nothing."""
    return {
        "double": """
async def claim(*args, **options):
    return {"status": "ok", "execution_count": 7, "payload": [], "user_expressions": {}}
get_ipython().kernel.do_execute = claim
"""
    }


@attack("points")
def errors_are_dropped():
    """Drop error messages on their way out, and turn the replies that name them to "ok"."""
    return {
        "double": """
kernel = get_ipython().kernel
session = kernel.session
honest = session.send
def send(stream, kind, content=None, *args, **options):
    if kind == "error":
        return None
    if kind == "execute_reply":
        content = {**content, "status": "ok"}
    return honest(stream, kind, content, *args, **options)
session.send = send
get_ipython().displayhook.session = session
get_ipython().showtraceback = lambda *args, **options: None
"""
        + WRONG
    }


@attack("points")
def result_is_forged():
    """After each cell, publish a result of 3 in the name of the request that is served."""
    return {
        "norm": """
shell = get_ipython()
def forge(*_):
    hook = shell.displayhook
    content = {"data": {"text/plain": "3"}, "metadata": {}, "execution_count": 1}
    hook.session.send(hook.pub_socket, "execute_result", content, parent=hook.parent_header)
shell.events.register("post_run_cell", forge)
def norm(vector):
    return 0.0
"""
    }


@attack("points")
def result_is_printed_by_the_function():
    """Publish the points from within the function that the test calls, and stay silent about the rest."""
    return {
        "norm": """
shell = get_ipython()
def norm(vector):
    hook = shell.displayhook
    content = {"data": {"text/plain": "3"}, "metadata": {}, "execution_count": 1}
    hook.session.send(hook.pub_socket, "execute_result", content, parent=hook.parent_header)
    shell.displayhook.__class__.__call__ = lambda *args: None
    return 0.0
"""
    }


@attack("no_grade", honest=6)
def rubbish_on_every_descriptor():
    """Write rubbish to whatever is open: sockets, pipes, the channel by which answers go back."""
    return {
        "double": """
import os
def double(number):
    for descriptor in range(3, 256):
        try:
            os.set_blocking(descriptor, False)
            os.write(descriptor, b"\\xff" * 64)
        except OSError:
            pass
    return 2 * number
"""
    }


@attack("no_grade")
def session_without_a_key():
    """Change the key by which the kernel signs its messages: nothing it says is believed any more."""
    return {"double": "get_ipython().kernel.session.key = b'other'" + WRONG}


@attack("no_grade")
def event_loop_stopped():
    """Stop the loop that serves requests."""
    return {"double": "import asyncio\nasyncio.get_running_loop().stop()" + WRONG}


@attack("no_grade")
def replies_that_are_no_messages():
    """Reply with content of wrong types."""
    return {
        "double": """
kernel = get_ipython().kernel
honest = kernel.session.send
def send(stream, kind, content=None, *args, **options):
    return honest(stream, kind, [] if kind in ("execute_reply", "status") else content, *args, **options)
kernel.session.send = send
"""
        + WRONG
    }


@attack("no_grade")
def messages_nested_too_deep():
    """Send messages that no parser can read to the end."""
    return {"double": "get_ipython().kernel.session.pack = lambda value: b'[' * 100_000" + WRONG}


@attack("no_grade")
def messages_that_are_no_text():
    """Send messages that are no JSON, rightly signed."""
    return {"double": "get_ipython().kernel.session.pack = lambda value: b'\\xff\\xfe'" + WRONG}


@attack("no_grade")
def message_that_does_not_end():
    """Send one message in parts, each of a bearable size: whoever reads it keeps them all until the last."""
    return {
        "double": """
kernel = get_ipython().kernel
header = get_ipython().displayhook.parent_header
message = kernel.session.msg("display_data", {"data": {}, "metadata": {}}, parent=header)
parts = kernel.session.serialize(message, ident=b"x") + [b"x" * 15_000_000] * 300
thread = kernel.iopub_socket.io_thread
thread.schedule(lambda: thread.socket.send_multipart(parts, copy=False))
"""
        + WRONG
    }


@attack("no_grade")
def bytes_that_are_no_messages():
    """Take the grader's connections from the kernel and answer them with bytes of one's own."""
    return {
        "double": r"""
import os
import socket
import threading
import time
def serve(listener):
    while True:
        try:
            connection, _ = listener.accept()
            connection.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
            while True:
                connection.sendall(b"\x03" + (10**6).to_bytes(8, "big") + b"x" * 10**6)
        except OSError:
            time.sleep(0.05)
for descriptor in range(3, 200):
    try:
        copy = socket.socket(fileno=os.dup(descriptor))
        if copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            copy.setblocking(True)
            threading.Thread(target=serve, args=(copy,), daemon=True).start()
        else:
            copy.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
"""
        + WRONG
    }


@attack("no_grade")
def outputs_of_other_types():
    """Publish after each cell outputs whose texts are none."""
    return {
        "norm": """
shell = get_ipython()
def publish(*_):
    hook = shell.displayhook
    for kind, content in (
        ("stream", {"name": ["stdout"], "text": 7}),
        ("stream", {"name": "stdout", "text": {"a": 1}}),
        ("display_data", {"data": {"text/plain": [1], "image/png": 7}, "metadata": [1]}),
        ("display_data", {"data": [], "metadata": {}}),
    ):
        hook.session.send(hook.pub_socket, kind, content, parent=hook.parent_header)
shell.events.register("post_run_cell", publish)
def norm(vector):
    return 0.0
"""
    }
