"""The roster: students come in from a CSV file, line by line, and never get lost."""

import pytest
from nbgrader.api import Gradebook

from coursekit.errors import InputError
from coursekit.grading.export import export_grades
from coursekit.grading.roster import Student, import_roster, parse_roster, read_roster, read_students

HEADER = b"id,first_name,last_name,email\n"


def roster(tmp_path, text):
    path = tmp_path / "students.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("delimiter", [b",", b";", b"\t"])
def test_any_spreadsheets_csv_is_read(mark, delimiter):
    text = (HEADER + "ada, Ada ,Lovelace,ada@example.org\r\n\r\nbob,Jürgen,,\r\n".encode()).replace(
        b",", delimiter
    )
    assert parse_roster(mark + text) == [
        Student("ada", "Ada", "Lovelace", "ada@example.org"),
        Student("bob", "Jürgen"),
    ]


def test_columns_may_be_fewer_and_in_another_order():
    assert parse_roster(b"last_name,id\nLovelace,ada\n") == [Student("ada", last_name="Lovelace")]


def test_every_faulty_line_is_named_and_nothing_is_imported(classroom, tmp_path):
    lines = "ada,Ada\n../eve,Eve,Eve,\nbob,Bob,B,nowhere\nada,Ada,Again,\n,No,Id,\nok,Ok,Ok,o@example.org\n"
    lines += "x,a,b,c,d\n"
    with pytest.raises(InputError) as raised:
        import_roster(classroom.course, roster(tmp_path, HEADER.decode() + lines))
    message = str(raised.value)
    for fault in (
        "line 2: 4 columns expected",
        "line 3: id '../eve'",
        "line 4: 'nowhere' is no e-mail",
        "line 6: no id",
        "line 8: 4 columns expected",
    ):
        assert fault in message
    assert "line 7" not in message
    assert read_students(classroom.course) == []


def test_a_second_line_for_the_same_id_is_a_fault():
    with pytest.raises(InputError, match="line 3: id 'ada' stands in line 2 already"):
        parse_roster(HEADER + b"ada,A,B,\nada,C,D,\n")


def test_ids_that_differ_in_capitals_alone_would_share_a_folder_and_are_a_fault():
    with pytest.raises(InputError, match="line 3: id 'ADA' stands in line 2 already"):
        parse_roster(HEADER + b"ada,A,B,\nADA,C,D,\n")


def test_the_roster_is_told_from_students_whom_only_grading_met(classroom, tmp_path):
    course = classroom.course
    with Gradebook(f"sqlite:///{course.gradebook}") as gradebook:
        gradebook.update_or_create_student("eve")
        gradebook.update_or_create_student("bob")
    assert read_roster(course) == []
    import_roster(course, roster(tmp_path, b"id\nada\nbob\n"))
    assert [student.id for student in read_roster(course)] == ["ada", "bob"]
    assert [student.id for student in read_students(course)] == ["ada", "bob", "eve"]


@pytest.mark.parametrize("header", [b"name,email\n", b"id,colour\n", b""])
def test_other_columns_are_refused(header):
    with pytest.raises(InputError, match="first line"):
        parse_roster(header + b"a,b\n")


def test_text_that_is_not_utf8_is_refused_with_the_fix():
    with pytest.raises(InputError, match="save it as UTF-8"):
        parse_roster(HEADER + "ada,Zoë,Z,".encode("latin-1"))


def test_importing_again_updates_and_never_deletes(classroom, tmp_path):
    course = classroom.course
    first = roster(tmp_path, HEADER + b"ada,Ada,Byron,ada@example.org\nbob,Bob,B,\n")
    assert import_roster(course, first) == (2, 0)
    assert import_roster(course, first) == (0, 0)
    second = roster(tmp_path, HEADER + b"ada,,Lovelace,\ncyd,Cyd,C,\n")
    assert import_roster(course, second) == (1, 1)
    assert read_students(course) == [
        Student("ada", "Ada", "Lovelace", "ada@example.org"),
        Student("bob", "Bob", "B"),
        Student("cyd", "Cyd", "C"),
    ]


MOODLE = (
    "\ufeff"
    + """First name,Surname,"ID number","Email address",Groups
Zoë,"de la Cruz",007,zoe@uni.example,A
Madonna,,12,m@uni.example,
"""
)
CANVAS = (
    "\ufeff"
    + """Student,ID,SIS User ID,SIS Login ID,Section,Homework (17)
,,,,,Manual Posting
    Points Possible,,,,,20
"de la Cruz, Zoë",501,007,zoe@uni.example,LM,
Madonna,502,12,mad,LM,19
"Student, Test",599,,3fa9c2,LM,
"""
)


def test_moodles_list_of_participants_is_a_roster():
    assert parse_roster(MOODLE.encode()) == [
        Student("007", "Zoë", "de la Cruz", "zoe@uni.example"),
        Student("12", "Madonna", "", "m@uni.example"),
    ]


def test_canvas_gradebook_is_a_roster_without_its_points_and_its_test_student(classroom, tmp_path):
    students = [
        Student("007", "Zoë", "de la Cruz", "zoe@uni.example", "501"),
        Student("12", "Madonna", lms_user_id="502"),
    ]
    assert parse_roster(CANVAS.encode()) == students
    assert import_roster(classroom.course, roster(tmp_path, CANVAS)) == (2, 0)
    assert read_roster(classroom.course) == students
    assert import_roster(classroom.course, roster(tmp_path, CANVAS)) == (0, 0)
    export_grades(classroom.course, tmp_path / "out.csv", format="canvas")
    assert '"de la Cruz, Zoë",501,007,007,' in (tmp_path / "out.csv").read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (MOODLE.replace("007", "").replace(",12,", ",,"), ["zoe@uni.example", "m@uni.example"]),
        (CANVAS.replace("007", "").replace(",12,", ",,"), ["zoe@uni.example", "mad"]),
    ],
)
def test_where_nobody_has_an_id_number_the_next_best_name_is_the_id(text, ids):
    assert [student.id for student in parse_roster(text.encode())] == ids


@pytest.mark.parametrize(("text", "line"), [(MOODLE.replace("007", ""), 2), (CANVAS.replace("007", ""), 4)])
def test_a_student_without_the_id_that_others_have_is_a_fault(text, line):
    with pytest.raises(InputError, match=f"line {line}: no id"):
        parse_roster(text.encode())
