"""Before a run writes, the gradebook is copied, whole, and the last copies are kept."""

import sqlite3
from contextlib import closing

from coursekit.grading.backup import KEPT, back_up, backups
from coursekit.grading.course import Course


def graded_in(path):
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {student for (student,) in connection.execute("SELECT student FROM coursekit_journal")}


def test_a_run_that_writes_leaves_the_gradebook_as_it_was_before_and_one_that_does_not_leaves_none(classroom):
    for student in ("ada", "bob"):
        classroom.hand_in(student)
        classroom.grade(student)
    assert [graded_in(path) for path in backups(classroom.course)] == [set(), {"ada"}]
    classroom.grade()
    assert len(backups(classroom.course)) == 2


def test_the_last_copies_are_kept(classroom):
    made = [back_up(classroom.course) for _ in range(KEPT + 2)]
    assert backups(classroom.course) == made[2:]
    assert back_up(classroom.course, kept=1) == backups(classroom.course)[0]
    assert len(backups(classroom.course)) == 1


def test_a_copy_is_whole_while_another_program_is_in_the_middle_of_a_change(classroom):
    classroom.hand_in("ada")
    classroom.grade()
    with closing(sqlite3.connect(classroom.course.gradebook)) as other:
        other.execute("BEGIN")
        other.execute("DELETE FROM coursekit_journal")
        assert graded_in(back_up(classroom.course)) == {"ada"}
        other.rollback()


def test_a_course_without_a_gradebook_has_nothing_to_copy(tmp_path):
    assert back_up(Course(tmp_path)) is None
    assert not (tmp_path / "backups").exists()
