"""Where a run's records go: the screen, a file of JSON lines, TensorBoard."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from coursekit.errors import InputError, require
from coursekit.units import format_bytes, format_count

Record = Mapping[str, float]
_ENCODE = json.JSONEncoder(allow_nan=False).encode  # json.dumps would make an encoder for each line


class Sink(Protocol):
    """What `Monitor` writes to; anything with these three methods is one."""

    def write(self, record: Record) -> None:
        """Take the figures of one step; `record["step"]` is always there."""

    def say(self, step: int, sentence: str) -> None:
        """Take what was noticed at a step, in words."""

    def close(self) -> None:
        """Finish; nothing is written afterwards."""


class JsonLines:
    """Appends one line of JSON a record to a file, flushed, so that a killed run leaves what it wrote.

    A number that JSON does not know (NaN, infinity) is written as a string, and read back by
    `read_json_lines`. A resumed run appends; the steps that it repeats stand there twice, the later counts.

    Args:
        path: the file; its folder is made if need be.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
        self._file = path.open("a", encoding="utf-8")
        if torn:  # else the first line of the resumed run would be lost with the torn one
            self._file.write("\n")

    def write(self, record: Record) -> None:
        """Append the record."""
        self._append({name: _to_json(value) for name, value in record.items()})

    def say(self, step: int, sentence: str) -> None:
        """Append what was noticed, under the key `noticed`."""
        self._append({"step": step, "noticed": sentence})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, record: dict[str, Any]) -> None:
        self._file.write(_ENCODE(record) + "\n")
        self._file.flush()


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """Return the records of a file written by `JsonLines`, in the order of the file.

    A line torn by a kill is left out with a warning that names it.
    """
    records = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            warnings.warn(f"{path}, line {number}: torn, left out (was the run killed?)", stacklevel=2)
            continue
        records.append({name: _from_json(value) for name, value in record.items()})
    return records


class TensorBoard:
    """Writes each figure as a scalar of TensorBoard's event files, and what was noticed as text.

    Where TensorFlow is installed, tensorboard loads it when the first file is made: some seconds, once.

    Args:
        folder: the run's folder; `tensorboard --logdir` shows it.
    Raises: MissingExtraError if tensorboard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        require("tensorboard", extra="tf")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def write(self, record: Record) -> None:
        """Write each figure of the record under its name."""
        for name, value in record.items():
            if name != "step":
                self._writer.add_scalar(name, value, int(record["step"]))

    def say(self, step: int, sentence: str) -> None:
        """Write the sentence under `noticed`."""
        self._writer.add_text("noticed", sentence, step)

    def close(self) -> None:
        """Write what is buffered and close the files."""
        self._writer.close()


class Screen:
    """Shows a run: a progress bar in a terminal or a notebook, plain lines in a file or a pipe.

    Args:
        total_steps: where the bar ends; without it the bar only tells that the run lives.
        bar: draw the bar or write lines; by default the bar where it can be drawn.
        console: where to, by default standard output.
    """

    def __init__(
        self, total_steps: int | None = None, *, bar: bool | None = None, console: Console | None = None
    ) -> None:
        if total_steps is not None and total_steps < 1:
            raise InputError("no run has so many steps", expected="total_steps >= 1", got=total_steps)
        self._console = console or Console()
        self._total_steps = total_steps
        draws = self._console.is_terminal or self._console.is_jupyter
        self._progress = self._make_bar() if (draws if bar is None else bar) else None
        self._last_drawn = -math.inf

    def write(self, record: Record) -> None:
        """Show the record."""
        if self._progress is None:
            self._print(format_record(record, total_steps=self._total_steps))
            return
        figures = format_record(record, total_steps=self._total_steps)
        self._progress.start()
        self._progress.update(self._task, completed=record["step"] + 1, description=figures)
        if time.monotonic() - self._last_drawn > 0.1:  # drawing costs more than a small model's step
            self._progress.refresh()
            self._last_drawn = time.monotonic()

    def say(self, step: int, sentence: str) -> None:
        """Write the sentence on a line of its own."""
        self._print(sentence)

    def close(self) -> None:
        """Draw the bar for the last time."""
        if self._progress is not None:
            self._progress.refresh()
            self._progress.stop()

    def _make_bar(self) -> Progress:
        columns = (
            BarColumn(bar_width=20),
            TextColumn("{task.description}", markup=False),
            TimeRemainingColumn(),
        )
        # No thread that draws: it would take the interpreter from the loop that it watches.
        progress = Progress(*columns, console=self._console, auto_refresh=False)
        self._task = progress.add_task("", total=self._total_steps)
        return progress

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def format_record(record: Record, *, total_steps: int | None = None) -> str:
    """Return a record as one line for people, each figure in its unit.

    >>> format_record({"step": 9, "loss": 2.5, "lr": 3e-4, "tokens_per_second": 12_300.0, "mfu": 0.41})
    'step 9  loss 2.5  lr 0.0003  12.3 K tokens/s  MFU 41.0 %'
    """
    of = f"/{total_steps}" if total_steps else ""
    return "  ".join(
        f"step {value:.0f}{of}" if name == "step" else _format_figure(name, value)
        for name, value in record.items()
    )


def _format_figure(name: str, value: float) -> str:
    if name == "mfu":
        return f"MFU {value:.1%}".replace("%", " %")
    if name.endswith("_per_second"):
        return f"{format_count(value)} {name.removesuffix('_per_second')}/s"
    if name.endswith("_bytes"):
        return f"{name.removesuffix('_bytes')} {format_bytes(value)}"
    if name.endswith("_seconds"):
        return f"{name.removesuffix('_seconds')} {value * 1e3:.3g} ms"
    return f"{name} {value:.4g}"


def _to_json(value: float) -> float | str:
    return value if math.isfinite(value) else str(float(value))


def _from_json(value: Any) -> Any:
    return float(value) if value in ("nan", "inf", "-inf") else value
