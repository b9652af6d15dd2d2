"""The client that runs cells in a kernel and bounds what comes back. Importing it loads nbclient."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
import time
from pathlib import Path
from queue import Empty
from typing import Any, Literal

import nbformat
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from traitlets import Type

from coursekit.grading.run import CellState, Limits
from coursekit.grading.trusted.codec import MAX_BYTES
from coursekit.grading.wire import Wire, WireChannel, read_json

# What a student's kernel dies of stands in the cell; on the grader's screen it would only be noise.
QUIET = logging.getLogger("coursekit.kernel")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False
TIMEOUT_NAME = "CellTimeoutError"
# What jupyter_client and nbclient raise over messages that are none: code in the kernel can send anything.
NO_MESSAGES = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
ANSWER = "__import__('coursekit.grading.trusted.student_side', fromlist=['answer']).answer('{}', globals())"
# Answers are base64 text.
ANSWER_MESSAGE_BYTES, OUTPUT_MESSAGE_BYTES = MAX_BYTES * 4 // 3 + 2**20, 16 * 2**20
SHORT_BYTES = 1000
CELLS_OF_OUTPUT = 4  # a notebook's output in all, in shares of a cell
INTERRUPT_SECONDS, ALIVE_SECONDS, SUBSCRIBED_SECONDS = 0.5, 0.5, 0.1
MOST_EXECUTIONS = 10**6  # an execution count beyond it is no count


class BoundedKernelManager(AsyncKernelManager):
    """Starts and ends a kernel, and does not talk to it: a socket that nobody reads from fills up."""

    def _connect_control_socket(self) -> None:
        """Do nothing: a graded kernel is ended by its keeper, not asked to end."""


class BoundedKernelClient(AsyncKernelClient):
    """The grader's end of a kernel's sockets."""

    shell_channel_class = iopub_channel_class = control_channel_class = Type(WireChannel)  # type: ignore

    def start_channels(self, **_: bool) -> None:
        """Open the channels that grading uses: requests and outputs."""
        self.session.unpack = read_json
        super().start_channels(stdin=False, hb=False, control=False)

    def stop_channels(self) -> None:
        """Close them."""
        self.shell_channel.stop()
        self.iopub_channel.stop()

    def connect_shell(self, identity: bytes | None = None) -> Wire:  # type: ignore[override]
        """Return a connection for requests and answers."""
        path = self._make_url("shell").removeprefix("ipc://")
        return Wire(path, identity=identity or b"", most=ANSWER_MESSAGE_BYTES)

    def connect_iopub(self, identity: bytes | None = None) -> Wire:  # type: ignore[override]
        """Return a connection for outputs."""
        path = self._make_url("iopub").removeprefix("ipc://")
        return Wire(path, identity=None, most=OUTPUT_MESSAGE_BYTES)

    async def wait_for_ready(self, timeout: float = math.inf) -> None:
        """Return once the kernel answers and what it puts out arrives here. Raises: RuntimeError.

        jupyter_client's own form then waits for a fifth of a second in which nothing arrives.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            number = self.kernel_info()
            if await _answer_to(number, self.shell_channel, ALIVE_SECONDS) is not None:
                # It is lost while the subscription is still on its way: then the kernel is asked once more.
                if await _answer_to(number, self.iopub_channel, SUBSCRIBED_SECONDS) is not None:
                    return
            if not await self.is_alive():
                raise RuntimeError("it died before it answered")
        raise RuntimeError(f"no answer in {timeout:g} seconds")


class BoundedClient(NotebookClient):
    """A notebook client that goes on after errors and timeouts and keeps a bounded amount of output."""

    def __init__(self, nb: Any, limits: Limits, **options: Any) -> None:
        super().__init__(nb, **options)
        self.limits = limits
        self._kept: dict[int, list[int]] = {}
        self._kept_in_all = self._run_cells = 0
        self._timed_out = False

    async def run_cell(self, cell: Any, index: int) -> CellState:
        """Execute one code cell and return what became of it; outputs are put into the cell."""
        cell.outputs, cell.execution_count, self._timed_out = [], None, False
        try:
            await self.async_execute_cell(cell, index, execution_count=self.code_cells_executed + 1)
        except DeadKernelError:
            cell.outputs.append(_error("DeadKernelError", "the kernel died in this cell"))
            return "died"
        except CellTimeoutError:
            # Interrupted, and still not answering: nothing after it can run.
            cell.outputs.append(_error(TIMEOUT_NAME, "stopped: it ran too long and could not be interrupted"))
            return "died"
        except NO_MESSAGES as error:
            cell.outputs.append(_error("DeadKernelError", f"no message of a kernel: {str(error)[:200]}"))
            return "died"
        finally:
            # Not the kernel's own: a hidden test may have told it what to show as a number.
            cell.execution_count = self._run_cells = self._run_cells + 1
        _join_streams(cell)
        if self._timed_out:
            cell.outputs.append(_error(TIMEOUT_NAME, f"stopped after {self.timeout} seconds"))
            return "timeout"
        return "error" if any(output.output_type == "error" for output in cell.outputs) else "ok"

    async def ask(self, request: bytes, seconds: float) -> bytes | Literal["timeout", "died"]:
        """Return the student's side's reply to a request of the trusted side, or why there is none.

        What arrives for any other request, such as a second reply to an earlier one, is dropped.
        """
        expression = ANSWER.format(base64.b64encode(request).decode())
        # Not a cell but an expression beside an empty one: its value comes back with the reply itself.
        quiet = {"silent": True, "store_history": False, "allow_stdin": False, "stop_on_error": False}
        number = self.kc.execute("", user_expressions={"answer": expression}, **quiet)
        printed = asyncio.ensure_future(_drop_messages(self.kc.iopub_channel))
        try:
            content = await self._reply(number, seconds)
            if content is not None:
                return _answer_in(content)
            give_up = time.monotonic() + self.limits.drain_seconds
            while time.monotonic() < give_up:
                await self.km.interrupt_kernel()
                if await self._reply(number, INTERRUPT_SECONDS) is not None:
                    return "timeout"
            return "died"
        except DeadKernelError:
            return "died"
        finally:
            printed.cancel()

    async def _reply(self, number: str, seconds: float) -> dict[str, Any] | None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                message = await self.kc.shell_channel.get_msg(timeout=min(left, ALIVE_SECONDS))
                if message["parent_header"].get("msg_id") == number:
                    return message["content"]
            except Empty:
                if not await self.km.is_alive():
                    raise DeadKernelError("the kernel died") from None
            except Exception:  # a message that is none: the student's side sent it
                await asyncio.sleep(0.01)
        return None

    def note_reply(self, *, execute_reply: dict[str, Any], cell: Any, **_: Any) -> None:
        """Make sure that an error the kernel replied with also stands in the cell's outputs."""
        content = execute_reply["content"]
        if content.get("ename") == TIMEOUT_NAME and "traceback" in content and not content["traceback"]:
            self._timed_out = True
        elif content.get("status") == "error" and not any(o.output_type == "error" for o in cell.outputs):
            # A student may switch tracebacks off; the failure still has to be seen.
            name, text = _text(content.get("ename")), _text(content.get("evalue"))
            cell.outputs.append(_error(name[:200], text[:SHORT_BYTES]))

    def output(self, outs: list, msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        """Keep one output unless the cell has used up its share."""
        content = _plain(msg["msg_type"], msg["content"])
        kept, size = self._kept.setdefault(cell_index, [0, 0]), _size(content)
        kept[0] += size
        kept[1] += 1
        self._kept_in_all += size
        fits = kept[0] <= self.limits.output_bytes and kept[1] <= self.limits.output_pieces
        if fits and self._kept_in_all <= CELLS_OF_OUTPUT * self.limits.output_bytes:
            return super().output(outs, {**msg, "content": content}, None, cell_index)
        if msg["msg_type"] == "execute_result" and size < SHORT_BYTES:
            # It may be the points of the cell, whatever else was shown; the last one counts.
            outs[:] = [output for output in outs if output.output_type != "execute_result"]
            return super().output(outs, {**msg, "content": content}, None, cell_index)
        if msg["msg_type"] == "error":
            outs[:] = [output for output in outs if output.output_type != "error"]
            outs.append(_error(content["ename"][:200], content["evalue"][:SHORT_BYTES]))
        elif not any(o.get("name") == "stdout" and o.text == CUT for o in outs):
            outs.append(nbformat.v4.new_output("stream", name="stdout", text=CUT))
        return None

    def handle_comm_msg(self, outs: list, msg: dict, cell_index: int) -> None:
        """Ignore widgets: they carry no points, and their state is not bounded."""

    def _update_display_id(self, display_id: str, msg: dict[str, Any]) -> None:
        """Ignore updates of earlier outputs, for the same reason."""


CUT = "\n... output cut off: too much ...\n"


def make_client(notebook: bytes, limits: Limits, *, box: Path) -> BoundedClient:
    """Return a client with its kernel not started yet; the sockets lie beside `box`, not on TCP ports."""
    nb = nbformat.from_dict(json.loads(notebook))
    # Files instead of ports: no two kernels can be given the same one.
    manager = BoundedKernelManager(
        log=QUIET,
        kernel_name=nb.metadata.get("kernelspec", {}).get("name", "python3"),
        client_factory=BoundedKernelClient,
        transport="ipc",
        connection_file=str(box.parent / "k.json"),
    )
    client = BoundedClient(
        nb,
        limits,
        km=manager,
        log=QUIET,
        allow_errors=True,
        interrupt_on_timeout=True,
        error_on_timeout={"ename": TIMEOUT_NAME, "evalue": "", "traceback": []},
        raise_on_iopub_timeout=True,
        iopub_timeout=round(limits.drain_seconds),
        startup_timeout=round(limits.start_seconds),
        shutdown_kernel="immediate",
        record_timing=False,
        skip_cells_with_tag="",
    )
    client.on_cell_executed = client.note_reply
    return client


def _answer_in(content: dict[str, Any]) -> bytes:
    """Return the bytes of a reply; what is none is left for the trusted side to refuse."""
    try:
        text = content["user_expressions"]["answer"]["data"]["text/plain"]
        return base64.b64decode(text.strip("'"), validate=True)
    except (KeyError, TypeError, AttributeError, ValueError):
        return b""


async def _answer_to(number: str, channel: Any, seconds: float) -> dict[str, Any] | None:
    """Return the first message on a channel that belongs to a request, or None if there is none in time."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            message = await channel.get_msg(timeout=left)
        except Empty:
            break
        if message["parent_header"].get("msg_id") == number:
            return message
    return None


async def _drop_messages(channel: Any) -> None:
    # What a student's function prints while a test calls it is not the test's, and would fill the queue.
    while True:
        try:
            await channel.get_msg(timeout=1)
        except Empty:
            continue
        except Exception:
            await asyncio.sleep(0.01)


def _error(name: str, value: str) -> Any:
    return nbformat.v4.new_output("error", ename=name, evalue=value, traceback=[f"{name}: {value}"])


def _plain(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return what an output of this kind holds, made anew of its texts: a forged one may hold anything."""
    if kind == "stream":
        name = "stderr" if content.get("name") == "stderr" else "stdout"
        return {"name": name, "text": _text(content.get("text"))}
    if kind == "error":
        lines = [_text(line) for line in content.get("traceback") or ()]
        return {**{key: _text(content.get(key)) for key in ("ename", "evalue")}, "traceback": lines}
    shown = {name: value for name, value in (content.get("data") or {}).items() if type(value) is str}
    return {"data": shown, "metadata": {}, "execution_count": _count(content.get("execution_count"))}


def _text(value: Any) -> str:
    return value if type(value) is str else ""


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= MOST_EXECUTIONS else None


_WITHOUT_CONTROLS = dict.fromkeys(set(range(32)) - set(b"\b\t\n\f\r"))


def _size(content: dict[str, Any]) -> int:
    texts = [*content.get("data", {}).items(), content.get("traceback", ())]
    texts.append([value for value in content.values() if type(value) is str])
    return sum(_written(text) for group in texts for text in group)


def _written(text: str) -> int:
    # A control character is six in the notebook's file: an escape's number in hexadecimal.
    return 6 * len(text) - 5 * len(text.translate(_WITHOUT_CONTROLS))


def _join_streams(cell: Any) -> None:
    # nbclient's own joining also plays back \b and \r, in quadratic time: a student's print could stop us.
    joined: list[Any] = []
    for output in cell.outputs:
        same = joined and output.output_type == "stream" == joined[-1][0].output_type
        if same and joined[-1][0].name == output.name:
            joined[-1].append(output)
        else:
            joined.append([output])
    for group in joined:
        if len(group) > 1:
            group[0].text = "".join(output.text for output in group)
    cell.outputs = [group[0] for group in joined]
