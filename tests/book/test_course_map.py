"""The tables that are made from course.yml."""

import shutil

import pytest

from coursekit.errors import InputError
from coursekit.notebooks.course_map import listed_pages, read_chapters, read_topics, write_map
from tests.book.conftest import ROOT

COURSE = """
title: A course
author: people
repository: ""
release_repository: ""
branch: main
parts: {early: Early days, late: Late days}
chapters:
  first: {part: early, title: First, modules: [kit.one], minutes: {read: 10, exercise: 20}, device: cpu}
  second: {part: late, title: Second, modules: [kit.two], minutes: {read: 5}, device: gpu}
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout in which the first chapter is whole and the second is a draft."""
    texts = {
        "course.yml": COURSE,
        "README.md": "# Hello\n<!-- course map -->\nold\n<!-- /course map -->\nBye\n",
        "book/_toc.yml": "root: index\nparts:\n- caption: x\n  chapters:\n  - file: early/first\n",
        "book/early/first.md": "# First",
        "book/late/second.md": "# A draft",
        "exercises/first/first.ipynb": "{}",
        "kit/one.py": "",
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_the_table_says_what_is_there_and_what_is_not(checkout):
    write_map(checkout)
    lines = (checkout / "README.md").read_text().splitlines()
    first = "| [First](book/early/first.md) | [notebook](exercises/first/first.ipynb) |"
    assert f"{first} `kit.one` | 10 + 20 | CPU |" in lines
    assert "| Second (not there yet) | notebook (not there yet) | not there yet | 5 + 0 | GPU |" in lines
    assert lines[0] == "# Hello"
    assert lines[-1] == "Bye"
    assert "old" not in lines


def test_writing_twice_changes_nothing_and_check_writes_nothing(checkout):
    before = (checkout / "README.md").read_text()
    assert len(write_map(checkout, check=True)) == 2
    assert (checkout / "README.md").read_text() == before
    assert len(write_map(checkout)) == 2
    assert write_map(checkout) == []
    assert write_map(checkout, check=True) == []


def test_a_readme_without_markers_is_refused(checkout):
    (checkout / "README.md").write_text("# Hello\n")
    with pytest.raises(InputError, match="course map"):
        write_map(checkout)


def test_a_chapter_outside_the_parts_is_refused(checkout):
    (checkout / "course.yml").write_text(COURSE.replace("part: late", "part: never"))
    with pytest.raises(InputError, match="second"):
        read_chapters(checkout)


def test_a_topic_that_is_named_twice_is_refused(tmp_path):
    row = "A01,d,text,chapter,shown,,exercise\n"
    (tmp_path / "c.csv").write_text("id,document,topic,chapter,s,u,e\n" + row + row)
    with pytest.raises(InputError, match="A01"):
        read_topics(tmp_path / "c.csv")


def test_a_module_that_is_a_package_counts_as_there(checkout):
    shutil.rmtree(checkout / "kit")
    assert read_chapters(checkout)[0].modules_there == ()
    (checkout / "kit" / "one").mkdir(parents=True)
    (checkout / "kit" / "one" / "__init__.py").touch()
    assert read_chapters(checkout)[0].modules_there == ("kit.one",)


def test_every_page_of_the_real_book_is_there_and_every_chapter_has_topics():
    assert [
        name for name in listed_pages(ROOT / "book") if not (ROOT / "book" / f"{name}.md").is_file()
    ] == []
    taught = {topic.chapter for topic in read_topics(ROOT / "book" / "reference" / "curriculum.csv")}
    assert {chapter.slug for chapter in read_chapters(ROOT)} <= taught
