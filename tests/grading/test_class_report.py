"""The class report: its numbers against counts by hand, its page against what students write."""

import csv
import os
import re
import shutil
from urllib.parse import unquote

import pytest

from coursekit.cli import app
from coursekit.errors import InputError
from coursekit.grading.class_page import page
from coursekit.grading.class_report import class_report, csv_text, write_class_report
from tests.grading.conftest import copied

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
WRONG = "def add(left, right):\n    return left - right"
EVIL = "def add(left, right):\n    raise ValueError('=<script>document.title=1</script>')"
LONG = "\n".join(f"    total = total + sum(numbers) * {n} - len(numbers)" for n in range(8))
MEAN = "def mean(numbers):\n    total = 0\n" + LONG + "\n    return sum(numbers) / len(numbers)"


@pytest.fixture(scope="module")
def graded(toy_course, tmp_path_factory):
    classroom = copied(toy_course, tmp_path_factory.mktemp("graded"))
    classroom.hand_in("ada", mean=MEAN)
    classroom.hand_in("bob", add=WRONG, mean=MEAN.replace("total", "s"), explain="Because groups differ.")
    classroom.hand_in("cyd", add=WRONG.replace("-", "*"), mean="def mean(numbers):\n    return sum(numbers)")
    classroom.hand_in("eve", add=EVIL)
    classroom.hand_in("gil", b"no notebook")
    classroom.grade()
    classroom.hand_in("late")
    return classroom


@pytest.fixture(scope="module")
def report(graded):
    return class_report(graded.course, graded.slug)


def test_the_numbers_are_those_of_a_count_by_hand(report):
    assert report.scores == {"gil": 0, "cyd": 1, "bob": 3, "eve": 3, "ada": 6}
    assert list(report.scores.values()) == sorted(report.scores.values())
    assert (report.rejected, report.not_graded, report.max_score) == (("gil",), ("late",), 8)
    tasks = {task.grade_id: (task.share, task.full, task.none, task.waiting) for task in report.tasks}
    assert tasks == {
        "test_add": (0.25, 1, 3, 0),
        "test_add_hidden": (0.25, 1, 3, 0),
        "test_mean": (10 / 12, 3, 0, 0),
        "explain": (0, 0, 3, 1),
    }
    assert report.hardest.grade_id == "test_add"  # of the answers to explain only the empty ones have points
    assert report.waiting == 1
    assert sum(report.versions.values()) == 5


def test_the_most_frequent_failure_is_one_whatever_the_wrong_number_was(report):
    first = next(failure for failure in report.failures if failure.grade_id == "test_add")
    assert set(first.students) == {"bob", "cyd"}
    assert "add the two numbers" in first.example
    *written, empty = report.failures
    assert (empty.grade_id, empty.message, len(empty.students)) == ("explain", "no answer", 3)
    assert [len(f.students) for f in written] == sorted((len(f.students) for f in written), reverse=True)


def test_flags_and_near_identical_pairs_name_the_students(report):
    assert report.flags["rejected"][0].startswith("gil: ")
    assert [(pair.left, pair.right) for pair in report.likeness.pairs] == [("ada", "bob")]


def test_the_csv_holds_the_whole_report_and_no_formula(report):
    rows = list(csv.DictReader(csv_text(report).splitlines()))
    assert {row["section"] for row in rows} == {"score", "task", "failure", "flag", "near-identical"}
    assert sum(int(row["students"]) for row in rows if row["section"] == "score") == 5
    assert not any(value[:1] in tuple("=+-@") for row in rows for value in row.values())


def test_the_page_is_one_file_with_two_plots_and_nothing_of_a_students_as_markup(graded, report):
    text = page(report, {})
    assert text.count("<svg") == 2
    assert 'aria-label="Hardest: test_add, 25% of its points earned"' in text
    assert "explain (1 wait)" in text
    assert "<script" not in text
    assert "&lt;script&gt;document.title=1" in text
    outside = (
        text.replace("http://www.w3.org/", "")
        .replace("http://purl.org/", "")
        .replace("http://creativecommons.org/", "")
    )
    outside = outside.replace("https://matplotlib.org/", "")  # names in the metadata of a plot
    assert "http://" not in outside
    assert "https://" not in outside


def test_the_command_writes_both_files(graded, tmp_path):
    from typer.testing import CliRunner

    command = ["course", "report", str(graded.course.root), graded.slug, "--to", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "toy_adding.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    text = (tmp_path / "out" / "toy_adding.html").read_text("utf-8")
    (link,) = re.findall(r'href="([^"]*/ada/[^"]*)"', text)
    assert (tmp_path / "out" / unquote(link)).resolve() == graded.course.feedback(
        "ada", graded.slug
    ).resolve()
    assert (tmp_path / "out" / "toy_adding.csv").read_text("utf-8").startswith("section,what,")


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_on_a_phone_the_page_is_not_wider_than_the_screen_and_names_are_read(graded, tmp_path):
    from playwright.sync_api import sync_playwright

    html, _ = write_class_report(graded.course, graded.slug, tmp_path)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.goto(html.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("td.id").first.bounding_box()["width"] > 40
        page.set_viewport_size({"width": 1280, "height": 800})
        assert page.get_by_text("rejected", exact=True).first.bounding_box()["height"] < 30, "a word is cut"
        browser.close()


def test_a_class_that_nobody_graded_has_no_report(classroom, tmp_path):
    with pytest.raises(InputError, match="nothing of toy_adding is graded yet"):
        write_class_report(classroom.course, classroom.slug, tmp_path)
