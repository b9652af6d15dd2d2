"""A class of attackers, graded by the pipeline in one run, and what can be seen of it afterwards.

python -m tests.grading.attacks.defended COURSE REPORT.json [STUDENT ...]

With REFUSE_NAMESPACES in the environment the system grants it none, as in most containers; with ORDINARY_USER
root runs it as somebody else.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from coursekit.grading.course import Course
from coursekit.grading.pipeline import Options, grade_assignment
from coursekit.grading.report import write_report
from coursekit.grading.run import Limits
from coursekit.grading.sandbox.probe import probe

from . import box
from .corpus import SLUG

LIMITS = Limits(cell_seconds=2, notebook_seconds=20, drain_seconds=2)


def main() -> None:
    """Grade the course, write the report; say on stdout which processes were left over, as JSON."""
    if os.environ.pop("ORDINARY_USER", None):
        box.run_as_ordinary_user("defended", Path(sys.argv[2]).parent)
    box.adopt()
    if os.environ.get("REFUSE_NAMESPACES"):
        box.refuse_namespaces()
        assert "files" in probe().refused
    pid = os.fork()
    if pid == 0:
        course, report = Course.open(sys.argv[1]), Path(sys.argv[2])
        results = grade_assignment(course, SLUG, options=Options(sys.argv[3:], workers=3, limits=LIMITS))
        write_report(report, SLUG, results=results)
        return  # and exit as a program does: what it started for itself ends with it
    if status := os.waitpid(pid, 0)[1]:
        sys.exit(f"the grading ended with status {status}")
    print(json.dumps(box.left_over(seconds=30)))


if __name__ == "__main__":
    main()
