"""The memory of a grading run: all its processes together, shared pages counted once."""

import copy
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from coursekit.grading import journal
from coursekit.grading.create import init_course
from coursekit.units import GiB, MiB

from .test_resume import MAIN

ROOT = Path(__file__).parents[2]
SLUG, STUDENTS = "gradient_accumulation", 60

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux divides shared pages among processes"),
]


def proportional_bytes(process):
    """The memory of a process and all below it; a page that several share counts once in the sum."""
    found = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            lines = Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it has ended meanwhile
        found += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return found


@pytest.fixture
def large_class(tmp_path):
    """Sixty right answers to a real exercise, no two the same."""
    course = init_course(tmp_path / "course", sources=[ROOT / "solutions" / f"{SLUG}.py"])
    released, solved = (json.loads(path(SLUG).read_bytes()) for path in (course.release, course.source))
    answers = {cell["id"]: cell["source"] for cell in solved["cells"] if _is_solution(cell)}
    for number in range(STUDENTS):
        notebook = copy.deepcopy(released)
        for cell in filter(_is_solution, notebook["cells"]):
            cell["source"] = [*answers[cell["id"]], f"\n# student {number}"]
        path = course.submitted(f"s{number:02}", SLUG) / f"{SLUG}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(notebook))
    return course


def _is_solution(cell):
    words = cell["metadata"].get("nbgrader", {})
    return cell["cell_type"] == "code" and words.get("solution")


@pytest.mark.timeout(1200)
def test_a_class_of_sixty_takes_less_than_two_gib_with_two_workers(large_class):
    command = [sys.executable, "-c", MAIN, "grade", SLUG, "--course", str(large_class.root), "--workers", "2"]
    seen = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while run.poll() is None:
            seen.append(proportional_bytes(psutil.Process(run.pid)))
            time.sleep(0.25)
    assert run.returncode == 0
    results = [result for _, _, result in journal.read(large_class.gradebook, SLUG).values()]
    lost = [cell.message for result in results for cell in result.cells if cell.status == "failed"]
    assert len(results) == STUDENTS
    assert set(lost) == {"no answer"}  # of the open question; every test passed
    assert 200 * MiB < max(seen) < 2 * GiB


def test_what_a_process_below_takes_is_seen():
    hold = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    block = "block = b'x' * (300 * 2**20); print('ready', flush=True); import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold, block], stdout=subprocess.PIPE) as parent:
        parent.stdout.readline()
        assert proportional_bytes(psutil.Process(parent.pid)) > 300 * MiB
        for child in psutil.Process(parent.pid).children():
            child.kill()
