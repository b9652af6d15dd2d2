"""Files that stay readable after a kill, lines and bars for people, TensorBoard's own reader as the judge."""

import io
import json
import math
import os
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from coursekit.errors import InputError, MissingExtraError
from coursekit.train import JsonLines, Screen, TensorBoard, format_record, read_json_lines

RECORD = {"step": 9, "loss": 2.5, "lr": 3e-4, "tokens_per_second": 12_300.0, "peak_memory_bytes": 3 * 2**30}


def test_records_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "new folder" / "run.jsonl"
    sink = JsonLines(path)
    sink.write(RECORD)
    sink.say(9, "something")
    sink.close()
    assert read_json_lines(path) == [RECORD, {"step": 9, "noticed": "something"}]


def test_numbers_that_json_does_not_know_come_back_and_the_file_is_strict_json(tmp_path):
    sink = JsonLines(tmp_path / "run.jsonl")
    sink.write({"step": 0, "loss": math.nan, "grad_norm": -math.inf})
    sink.close()

    def refuse(constant):
        raise AssertionError(constant)

    json.loads((tmp_path / "run.jsonl").read_text(), parse_constant=refuse)
    (record,) = read_json_lines(tmp_path / "run.jsonl")
    assert math.isnan(record["loss"])
    assert record["grad_norm"] == -math.inf


KILLED = """
import os, signal, sys
from coursekit.train import JsonLines
sink = JsonLines(sys.argv[1])
for step in range(3):
    sink.write({"step": step, "loss": 1.0})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_leaves_every_line_it_wrote(tmp_path):
    path = tmp_path / "run.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], env={**os.environ}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [record["step"] for record in read_json_lines(path)] == [0, 1, 2]


def test_a_torn_line_is_named_and_costs_no_other(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text('{"step": 0}\n{"step": 1, "lo')
    sink = JsonLines(path)  # the resumed run
    sink.write({"step": 1})
    sink.close()
    with pytest.warns(UserWarning, match=r"run\.jsonl, line 2: torn"):
        assert [record["step"] for record in read_json_lines(path)] == [0, 1]


def shown(screen_options, records, **console_options):
    text = io.StringIO()
    screen = Screen(console=Console(file=text, width=40, **console_options), **screen_options)
    for record in records:
        screen.write(record)
    screen.say(9, "step 9: something [is] wrong")
    screen.close()
    return text.getvalue()


def test_a_file_gets_one_plain_line_a_record_however_narrow():
    lines = shown({"total_steps": 10}, [RECORD, {**RECORD, "step": 10}]).splitlines()
    assert lines[0] == "step 9/10  loss 2.5  lr 0.0003  12.3 K tokens/s  peak_memory 3.00 GiB"
    assert len(lines) == 3
    assert lines[2] == "step 9: something [is] wrong"
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_a_bar_that_ends_full_and_what_was_noticed_stays():
    text = shown({"total_steps": 10}, [{"step": 9, "loss": 2.5}], force_terminal=True)
    assert "━━" in text
    assert "step 9/10" in text
    assert "something [is] wrong" in text.replace("\r", "")


def test_bar_or_lines_can_be_forced():
    assert "━━" not in shown({"bar": False}, [RECORD], force_terminal=True)


def test_a_run_of_no_steps_is_an_error():
    with pytest.raises(InputError, match="total_steps >= 1, got 0"):
        Screen(0)


def test_figures_are_shown_in_their_units():
    record = {"step": 3, "mfu": 0.4123, "forward_seconds": 0.0123, "steps_per_second": 2.0}
    assert format_record(record) == "step 3  MFU 41.2 %  forward 12.3 ms  2 steps/s"


def test_without_tensorboard_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"coursekit\[tf\]"):
        TensorBoard(tmp_path)


# In a process of its own: tensorboard loads TensorFlow where it finds it.
WRITTEN = """
import sys
from coursekit.train import TensorBoard
sink = TensorBoard(sys.argv[1])
sink.write({"step": 3, "loss": 2.5, "lr": 0.125})
sink.write({"step": 7, "loss": 1.5, "lr": 0.125})
sink.say(7, "something")
sink.close()
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1]).Reload()
print(sorted(events.Tags()["scalars"]), [(e.step, e.value) for e in events.Scalars("loss")])
print([e.tensor_proto.string_val[0] for e in events.Tensors("noticed/text_summary")])
"""


@pytest.mark.slow
def test_tensorboards_own_reader_finds_the_figures(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WRITTEN, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["['loss', 'lr'] [(3, 2.5), (7, 1.5)]", "[b'something']"]
