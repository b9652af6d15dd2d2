"""The pipeline on whole submissions: scores to the point, nothing fatal to others, nothing done twice."""

import dataclasses
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from nbgrader.api import Gradebook

from coursekit.errors import InputError
from coursekit.grading import record
from coursekit.grading.mishaps import MISHAPS
from coursekit.grading.pipeline import grade_assignment
from coursekit.grading.report import write_report
from coursekit.grading.sandbox.policy import Policy

WARNS = "import warnings\ndef add(left, right):\n    warnings.warn('careful')\n    return left + right"


@pytest.fixture
def gradebook(classroom):
    def open_book():
        return Gradebook(f"sqlite:///{classroom.course.gradebook}")

    return open_book


def test_a_class_of_every_kind_gets_its_scores_and_statuses(classroom):
    good = json.dumps(classroom.notebook(**classroom.good)).encode()
    classroom.hand_in("perfect")
    classroom.hand_in("stub", classroom.notebook())
    classroom.hand_in("wrong", add="def add(left, right):\n    return abs(left) + abs(right)")
    classroom.hand_in("partial", mean="def mean(numbers):\n    return sum(numbers)")
    classroom.hand_in("warns", add=WARNS)
    classroom.hand_in("crashes", add="raise ValueError('no')")
    classroom.hand_in("exits", add="import sys\nsys.exit(1)")
    classroom.hand_in("hard_exit", mean="import os\nos._exit(1)")
    classroom.hand_in("dies_in_call", add="def add(left, right):\n    import os\n    os._exit(1)")
    classroom.hand_in("syntax", add="def add(left, right:\n")
    classroom.hand_in("duplicated", MISHAPS["duplicated_cells"](good))
    classroom.hand_in("no_tests", MISHAPS["deleted_tests"](good))
    classroom.hand_in("cheats", MISHAPS["changed_tests"](json.dumps(classroom.notebook()).encode()))
    classroom.hand_in("pdf", MISHAPS["not_a_notebook"](good))
    classroom.hand_in("other", {"cells": [{"metadata": {"nbgrader": {"grade_id": "x"}}, "source": ""}]})
    results = classroom.grade()
    full, none = classroom.full, classroom.none
    expected = {
        "perfect": full,
        "stub": none,
        "wrong": {**full, "test_add_hidden": 0},
        "partial": {**full, "test_mean": 1},
        "warns": full,
        "crashes": {**none, "test_mean": 3},
        "exits": {**none, "test_mean": 3},
        "hard_exit": {**full, "test_mean": 0},
        "dies_in_call": none,
        "syntax": {**none, "test_mean": 3},
        "duplicated": full,
        "no_tests": full,
        "cheats": none,
        "pdf": none,
        "other": none,
    }
    assert {student: classroom.auto_scores(result) for student, result in results.items()} == expected
    statuses = {student: result.status for student, result in results.items()}
    assert {s for s, status in statuses.items() if status == "rejected"} == {"pdf", "other"}
    assert {s for s, status in statuses.items() if status == "graded"} == set(expected) - {"pdf", "other"}
    assert "kernel_died:mean" in results["hard_exit"].flags
    assert {"changed_cell:test_add", "changed_cell:test_mean"} <= set(results["cheats"].flags)


def test_the_report_has_exactly_the_agreed_form(classroom, tmp_path):
    classroom.hand_in("ada", add="def add(left, right):\n    return left - right")
    classroom.hand_in("bob", b"")
    write_report(tmp_path / "deep" / "report.json", "toy_adding", results=list(classroom.grade().values()))
    report = json.loads((tmp_path / "deep" / "report.json").read_text())
    assert list(report) == ["assignment", "submissions"]
    ada, bob = report["submissions"]
    keys = ["student", "status", "score", "max_score", "seconds", "flags", "cells"]
    assert list(ada) == list(bob) == keys
    assert (ada["student"], ada["status"], ada["score"], ada["max_score"]) == ("ada", "graded", 3, 8)
    assert (bob["student"], bob["status"], bob["score"], bob["max_score"]) == ("bob", "rejected", 0, 8)
    assert ada["seconds"] > 0
    assert ada["cells"][0] == {
        "grade_id": "test_add",
        "score": 0,
        "max_score": 2,
        "status": "failed",
        "message": "expected 5, got -1 (off by 6, allowed 5e-06); add the two numbers",
    }
    assert ada["cells"][3]["message"] == "no answer"


def test_an_endless_loop_costs_its_own_points_and_not_the_batch(classroom):
    classroom.hand_in("loop", add="def add(left, right):\n    while True: pass")
    classroom.hand_in("good")
    results = classroom.grade(cell_seconds=1)
    assert classroom.auto_scores(results["loop"]) == {**classroom.none, "test_mean": 3}
    assert {"timeout:test_add", "timeout:test_add_hidden"} <= set(results["loop"].flags)
    assert classroom.auto_scores(results["good"]) == classroom.full


CROWD = """
import threading, time
def add(left, right):
    for _ in range(100): threading.Thread(target=time.sleep, args=[60], daemon=True).start()
    time.sleep(30)
"""


class Narrow(ThreadPoolExecutor):
    """Runs jobs in a box of sixty tasks."""

    def submit(self, run, job):
        policy = Policy(layers=frozenset({"limits"}), tasks=60, preload=())
        return super().submit(run, dataclasses.replace(job, sandbox=policy))


def test_what_a_kernel_was_ended_for_is_flagged_and_said_to_the_student(classroom):
    classroom.hand_in("crowd", add=CROWD)
    classroom.hand_in("dies", add="def add(left, right):\n    import os\n    os._exit(1)")
    with Narrow(2) as executor:
        results = classroom.grade(executor=executor)
    said = "stopped: it used more than 60 processes and threads; start fewer processes and threads"
    crowd = results["crowd"]
    # Once in the visible test and, in a kernel of its own, once in the hidden one.
    assert {"used_up_tasks:test_add", "used_up_tasks:test_add_hidden"} <= set(crowd.flags)
    assert next(cell.message for cell in crowd.cells if cell.grade_id == "test_add").startswith(said)
    page = classroom.course.feedback("crowd", "toy_adding").read_text()
    assert page.count(said) == 1, "of a hidden test a student sees the points alone"
    assert {"kernel_died:test_add", "kernel_died:test_add_hidden"} <= set(results["dies"].flags)
    assert "stopped:" not in classroom.course.feedback("dies", "toy_adding").read_text()


def test_a_forbidden_import_is_named_and_flagged(classroom):
    classroom.hand_in(
        "ada", mean="import statistics\ndef mean(numbers):\n    return statistics.mean(numbers)"
    )
    result = classroom.grade()["ada"]
    assert classroom.auto_scores(result) == {**classroom.full, "test_mean": 0}
    assert "forbidden:statistics:mean" in result.flags
    assert "without statistics" in next(c.message for c in result.cells if c.grade_id == "test_mean")


def test_unchanged_submissions_are_not_graded_again(classroom):
    for student in ("ada", "bob"):
        classroom.hand_in(student)
    first = classroom.grade()
    seen = []
    again = classroom.grade(on_result=lambda result, kept: seen.append((result.student, kept)))
    assert seen == [("ada", True), ("bob", True)]
    assert [r.to_dict() for r in again.values()] == [r.to_dict() for r in first.values()]
    classroom.hand_in("bob", add="def add(left, right):\n    return 0")
    seen.clear()
    changed = classroom.grade(on_result=lambda result, kept: seen.append((result.student, kept)))
    assert seen == [("ada", True), ("bob", False)]
    assert changed["bob"].score == 3
    seen.clear()
    classroom.grade("ada", force=True, on_result=lambda result, kept: seen.append((result.student, kept)))
    assert seen == [("ada", False)]


def test_a_changed_exercise_makes_old_grades_stale(classroom):
    classroom.hand_in("ada", add="def add(left, right):\n    return 5")
    assert classroom.grade()["ada"].score == 5
    source = classroom.course.source("toy_adding")
    source.write_text(source.read_text().replace("expect_close(add(2, 3), 5", "expect_close(add(2, 4), 6"))
    assert classroom.grade()["ada"].score == 3
    assert "add(2, 4), 6" in classroom.course.release("toy_adding").read_text()


def test_a_broken_resubmission_loses_the_old_points_and_the_old_page(classroom, gradebook):
    path = classroom.hand_in("ada")
    classroom.grade()
    path.write_bytes(b"not json")
    assert classroom.grade()["ada"].status == "rejected"
    assert not classroom.course.autograded("ada", "toy_adding").exists()
    assert "not valid JSON" in classroom.course.feedback("ada", "toy_adding").read_text()
    with gradebook() as book:
        assert book.find_submission("toy_adding", "ada").score == 0


def test_hand_grades_and_comments_are_kept_when_regrading(classroom, gradebook):
    classroom.hand_in("ada", explain="Because groups differ.")
    classroom.hand_in("bob", explain="No idea.")
    assert classroom.grade()["ada"].score == 6
    with gradebook() as book:
        grade = book.find_grade("explain", "toy_adding", "toy_adding", "ada")
        grade.manual_score, grade.extra_credit, grade.needs_manual_grade = 1.5, 0.5, False
        book.find_comment("explain", "toy_adding", "toy_adding", "ada").manual_comment = "Good."
        book.find_grade("test_add", "toy_adding", "toy_adding", "ada").manual_score = 1
        book.db.commit()
    for force in (False, True):
        result = classroom.grade(force=force)["ada"]
        assert result.score == 1 + 1 + 3 + 1.5 + 0.5
        assert {c.grade_id: c.score for c in result.cells}["explain"] == 2.0
    with gradebook() as book:
        assert book.find_submission("toy_adding", "ada").score == 7
        assert book.find_comment("explain", "toy_adding", "toy_adding", "ada").comment == "Good."
        grade = book.find_grade("test_add", "toy_adding", "toy_adding", "ada")
        assert (grade.auto_score, grade.manual_score, grade.needs_manual_grade) == (2, 1, True)


def test_the_gradebook_says_what_the_report_says(classroom, gradebook):
    classroom.hand_in("ada", mean="def mean(numbers):\n    return sum(numbers)")
    classroom.hand_in("bob", b"x")
    results = classroom.grade()
    with gradebook() as book:
        for student, result in results.items():
            submission = book.find_submission("toy_adding", student)
            assert (submission.score, submission.max_score) == (result.score, result.max_score)
            for cell in result.cells:
                grade = book.find_grade(cell.grade_id, "toy_adding", "toy_adding", student)
                assert grade.auto_score == cell.score
                assert grade.needs_manual_grade == (cell.score is None)
        assert book.find_comment("explain", "toy_adding", "toy_adding", "ada").auto_comment == "No response."


def test_feedback_shows_hints_and_nothing_of_hidden_tests(classroom):
    classroom.hand_in("ada", add="print('<b>mine</b>')\ndef add(left, right):\n    return 0")
    classroom.grade()
    page = classroom.course.feedback("ada", "toy_adding").read_text()
    assert "add the two numbers" in page
    assert "hidden tests: 0 of 1 points" in page
    assert "negative numbers as well" not in page
    assert "BEGIN HIDDEN" not in page
    executed = classroom.course.autograded("ada", "toy_adding").read_text()
    assert "negative numbers as well" in executed  # the control: it is there to be hidden


def test_a_students_html_does_not_reach_the_feedback_page(classroom):
    evil = "from IPython.display import HTML, display\ndisplay(HTML('<script>steal()</script>'))"
    classroom.hand_in("eve", add=evil, explain="<script>steal()</script><img src=x onerror=steal()>")
    classroom.grade()
    page = classroom.course.feedback("eve", "toy_adding").read_text()
    assert "<script>steal()" not in page
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def test_a_kernel_that_cannot_start_fails_the_submission_and_the_next_run_tries_again(classroom):
    classroom.hand_in("ada")
    release = classroom.course.release("toy_adding")
    good = release.read_text()
    release.write_text(good.replace('"name": "python3"', '"name": "no_such_kernel"'))
    failed = classroom.grade()["ada"]
    assert (failed.status, failed.score, failed.max_score) == ("failed", None, 8)
    assert "no kernel started" in failed.cells[0].message
    release.write_text(good)
    assert classroom.grade()["ada"].score == 6


def test_a_missing_student_is_rejected_and_an_unknown_assignment_refused(classroom, gradebook):
    with gradebook() as book:
        book.add_student("idle")
    result = classroom.grade("idle")["idle"]
    assert result.status == "rejected"
    assert "missing" in result.flags[0]
    with pytest.raises(InputError, match="no assignment 'nothing'"):
        grade_assignment(classroom.course, "nothing")


def test_any_executor_can_carry_the_runs(classroom):
    class Counting(ThreadPoolExecutor):
        carried = 0

        def submit(self, *args, **kwargs):
            Counting.carried += 1
            return super().submit(*args, **kwargs)

    for student in ("ada", "bob", "cyd"):
        classroom.hand_in(student)
    with Counting(1) as pool:
        results = classroom.grade(executor=pool)
    assert Counting.carried == 3
    assert [result.score for result in results.values()] == [6, 6, 6]


def test_late_penalties_of_nbgrader_are_kept(classroom, gradebook):
    config = classroom.course.root / "nbgrader_config.py"
    config.write_text(config.read_text() + 'c.LateSubmissionPlugin.penalty_method = "zero"\n')
    for student, stamp in (("late", "2030-01-02 00:00:00 UTC"), ("early", "2029-12-31 00:00:00 UTC")):
        (classroom.hand_in(student).parent / "timestamp.txt").write_text(stamp)
    with gradebook() as book:
        book.update_or_create_assignment("toy_adding", duedate="2030-01-01 00:00:00 UTC")
    classroom.grade()
    with gradebook() as book:
        assert book.find_submission("toy_adding", "late").late_submission_penalty == 6
        assert not book.find_submission("toy_adding", "early").late_submission_penalty


def test_a_bad_timestamp_is_flagged_and_fatal_to_nobody(classroom):
    (classroom.hand_in("ada").parent / "timestamp.txt").write_text("yesterday at noon-ish")
    result = classroom.grade()["ada"]
    assert (result.status, result.score) == ("graded", 6)
    assert "bad_timestamp" in result.flags


def test_scores_and_journal_are_one_transaction(classroom, monkeypatch):
    """The control of resuming: what is noted as graded has its scores."""
    classroom.hand_in("ada")
    monkeypatch.setattr(record.Recorder, "_write_penalty", lambda *_: 1 / 0)
    assert classroom.grade()["ada"].status == "failed"
    with closing(sqlite3.connect(classroom.course.gradebook)) as connection:
        assert connection.execute("SELECT count(*) FROM coursekit_journal").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM grade WHERE auto_score > 0").fetchone() == (0,)
