"""What an instructor sees in a terminal while a class is graded."""

import os
import pty
import re
import subprocess
import sys

from .test_resume import MAIN, SLOW_ANSWER

# "grading toy_adding (6 graded before): s8 2/3 0:00:04 left about 0:00:02"
BAR = re.compile(r"grading toy_adding(.*?) +(\d+)/(\d+) 0:00:(\d+) left about (\S+)")


def on_a_terminal(course):
    """Grade as in a terminal; return (what, done, of, seconds, left) of each bar that was drawn there."""
    reading, writing = pty.openpty()
    command = [sys.executable, "-c", MAIN, "grade", "toy_adding", "--course", course.root, "--workers", "1"]
    environment = {**os.environ, "COLUMNS": "150", "TERM": "xterm"}
    command.append("--allow-unsandboxed")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=writing, env=environment) as run:
        os.close(writing)
        shown = bytearray()
        while data := _read(reading):
            shown += data
    os.close(reading)
    assert run.returncode == 0, shown.decode()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    return BAR.findall(plain)


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # nobody has it open any more
        return b""


def test_the_time_left_of_a_resumed_run_is_that_of_what_this_run_has_to_grade(classroom):
    for number in range(6):
        classroom.hand_in(f"s{number}")
    classroom.grade()
    for number in range(6, 9):
        classroom.hand_in(f"s{number}", add=SLOW_ANSWER)
    bars = on_a_terminal(classroom.course)
    assert {of for _, _, of, _, _ in bars} <= set("3456789"), "more, until it is known what was graded"
    # Two are begun at once, and either may be the first that is done.
    waited_for = {"0": {"s6"}, "1": {"s6", "s7"}, "2": {"s6", "s7", "s8"}}
    shown = [(what, done) for what, done, of, _, _ in bars if of == "3" and done != "3"]
    assert all(what in {f" (6 graded before): {s}" for s in waited_for[done]} for what, done in shown), shown
    first = next(bar for bar in bars if bar[1] == "1")
    *_, of, seconds, left = first
    assert of == "3", first
    # One of three took this long, with the start; two are left.
    assert abs(int(left[-2:]) - 2 * int(seconds)) <= 2, first


def test_into_a_file_goes_a_line_now_and_then(classroom):
    classroom.hand_in("s0")
    classroom.grade()
    for number in range(1, 4):
        classroom.hand_in(f"s{number}", add=SLOW_ANSWER)
    # Each answer takes half a second: there is time for a line, on any machine.
    often = f"from coursekit.grading import progress; progress.LINE_SECONDS = 0.1\n{MAIN}"
    command = [sys.executable, "-c", often, "grade", "toy_adding", "--course", classroom.course.root]
    command += ["--workers", "1", "--allow-unsandboxed"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in run.stderr.splitlines() if not line.startswith("note: ")]
    line = r"grading toy_adding.* (\d)/\d left about (?:\d:\d\d:\d\d|-:--:--)"
    found = [re.fullmatch(line, each) for each in lines]
    assert all(found), lines
    done = [int(match[1]) for match in found]
    assert done == sorted(done), lines
    assert set(done) & {1, 2}, "no line came between the first result and the last"
