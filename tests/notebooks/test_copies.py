"""A learner's copies: nothing of theirs is ever lost."""

from __future__ import annotations

import pytest

from coursekit.errors import InputError
from coursekit.notebooks.copies import RECORD, copy_exercises


@pytest.fixture
def exercises(tmp_path):
    folder = tmp_path / "exercises"
    for slug in ("one", "two"):
        (folder / slug).mkdir(parents=True)
        (folder / slug / f"{slug}.ipynb").write_text(f"{slug}, version 1")
    (folder / "README.md").write_text("not an exercise")
    return folder


def statuses(copies):
    return [(copied.slug, copied.status, copied.path.name) for copied in copies]


def release(exercises, version):
    (exercises / "one" / "one.ipynb").write_text(f"one, version {version}")


def files(work):
    return {path.name: path.read_text() for path in work.glob("one/*")}


def test_the_first_time_everything_is_copied_and_the_second_time_nothing(exercises, tmp_path):
    work = tmp_path / "work"
    assert statuses(copy_exercises(exercises, work)) == [
        ("one", "new", "one.ipynb"),
        ("two", "new", "two.ipynb"),
    ]
    (work / "one" / "one.ipynb").write_text("my answers")
    assert statuses(copy_exercises(exercises, work)) == [
        ("one", "kept", "one.ipynb"),
        ("two", "kept", "two.ipynb"),
    ]
    assert files(work) == {"one.ipynb": "my answers"}


def test_a_new_version_is_offered_beside_the_work_once(exercises, tmp_path):
    work = tmp_path / "work"
    copy_exercises(exercises, work)
    (work / "one" / "one.ipynb").write_text("my answers")
    release(exercises, 2)
    offered = copy_exercises(exercises, work, slugs=["one"])
    assert statuses(offered) == [("one", "offered", "one.updated.ipynb")]
    assert "move your answers over" in str(offered[0])
    assert files(work) == {"one.ipynb": "my answers", "one.updated.ipynb": "one, version 2"}
    (work / "one" / "one.updated.ipynb").unlink()  # seen, not wanted
    assert statuses(copy_exercises(exercises, work, slugs=["one"])) == [("one", "kept", "one.ipynb")]
    assert files(work) == {"one.ipynb": "my answers"}


def test_work_in_an_earlier_offer_is_not_overwritten_by_the_next(exercises, tmp_path):
    work = tmp_path / "work"
    copy_exercises(exercises, work)
    (work / "one" / "one.ipynb").write_text("my answers")
    release(exercises, 2)
    copy_exercises(exercises, work)
    release(exercises, 3)
    copy_exercises(exercises, work)
    assert files(work) == {"one.ipynb": "my answers", "one.updated.ipynb": "one, version 3"}
    (work / "one" / "one.updated.ipynb").write_text("my answers, moved over")
    release(exercises, 4)
    copy_exercises(exercises, work)
    assert files(work) == {
        "one.ipynb": "my answers",
        "one.updated.ipynb": "my answers, moved over",
        "one.updated-2.ipynb": "one, version 4",
    }


def test_a_copy_without_work_follows_the_release(exercises, tmp_path):
    work = tmp_path / "work"
    copy_exercises(exercises, work)
    release(exercises, 2)
    assert statuses(copy_exercises(exercises, work, slugs=["one"])) == [("one", "followed", "one.ipynb")]
    assert files(work) == {"one.ipynb": "one, version 2"}


def test_without_the_record_work_is_still_kept(exercises, tmp_path):
    work = tmp_path / "work"
    copy_exercises(exercises, work)
    (work / "one" / "one.ipynb").write_text("my answers")
    (work / RECORD).unlink()
    copy_exercises(exercises, work)
    assert files(work) == {"one.ipynb": "my answers", "one.updated.ipynb": "one, version 1"}


def test_a_copy_that_was_deleted_is_made_anew(exercises, tmp_path):
    work = tmp_path / "work"
    copy_exercises(exercises, work)
    (work / "one" / "one.ipynb").unlink()
    assert statuses(copy_exercises(exercises, work, slugs=["one"])) == [("one", "new", "one.ipynb")]


def test_a_name_that_is_no_exercise_and_a_broken_record_are_said(exercises, tmp_path):
    with pytest.raises(InputError, match="no exercise 'three'"):
        copy_exercises(exercises, tmp_path / "work", slugs=["three"])
    (tmp_path / "work").mkdir(exist_ok=True)
    (tmp_path / "work" / RECORD).write_text("{")
    with pytest.raises(InputError, match="your notebooks are not touched"):
        copy_exercises(exercises, tmp_path / "work")
