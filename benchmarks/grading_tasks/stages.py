"""Where the time of `coursekit grade` goes, stage by stage."""

from __future__ import annotations

import functools
import inspect
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from coursekit.grading import feedback, record, run, session
from coursekit.grading.course import Course
from coursekit.grading.pipeline import Options, grade_assignment

MOST = 12  # submissions: shares need no more
# Stage -> the functions that it consists of, by where the pipeline looks them up.
STAGES = {
    "intake and rebuild": [(session, "read_submission"), (session, "parse_answers"), (session, "rebuild")],
    "kernel's start": [(run, "_start"), (run, "_trusted_side")],
    "cells and tests": [(run, "_run_cells")],
    "kernel's end": [(run, "_end")],
    "record": [(record.Recorder, name) for name in ("mark_changed_answers", "write_autograded", "record")],
    "feedback": [(feedback, "write_feedback")],
}


def stages(origin: Course, slug: str) -> dict[str, float]:
    """Return each stage's share of the wall time of all stages, with one worker.

    What is written of one submission overlaps with the run of the next, so they may add up to more than time.
    """
    folder = origin.root.with_name("stages")
    shutil.copytree(origin.root, folder)
    course, spent = Course(Path(folder)), Counter()
    first, *others = course.students(slug)[: MOST + 1]
    grade_assignment(course, slug, options=Options(students=[first]))  # what is started once is started
    patches = [
        patch.object(owner, name, _timed(getattr(owner, name), stage, spent))
        for stage, places in STAGES.items()
        for owner, name in places
    ]
    for each in patches:
        each.start()
    grade_assignment(course, slug, options=Options(students=others))
    for each in patches:
        each.stop()
    return {stage: spent[stage] / spent.total() for stage in STAGES}


def _timed(function: Callable, stage: str, spent: Counter) -> Callable:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def timed_async(*args, **options):
            start = time.monotonic()
            try:
                return await function(*args, **options)
            finally:
                spent[stage] += time.monotonic() - start

        return timed_async

    @functools.wraps(function)
    def timed(*args, **options):
        start = time.monotonic()
        try:
            return function(*args, **options)
        finally:
            spent[stage] += time.monotonic() - start

    return timed
