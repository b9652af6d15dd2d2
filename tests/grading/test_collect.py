"""Collecting an LMS's zip: names understood, hostile entries refused, each with its reason."""

import json
import stat
import tracemalloc
import zipfile

import pytest
from nbgrader.api import Gradebook

from coursekit.errors import InputError
from coursekit.grading import collect as module
from coursekit.grading.collect import Entry, collect, without_submission
from coursekit.grading.intake import MAX_BRACKETS
from coursekit.grading.people import folded
from coursekit.grading.roster import Student, import_roster
from coursekit.grading.show import print_entries


@pytest.fixture
def collected(classroom, tmp_path):
    """Collect an archive of (name or ZipInfo, bytes) and return entry name -> (student, outcome, reason)."""

    def run(*entries, **options):
        with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in entries:
                archive.writestr(name, data)
        found = collect(classroom.course, "toy_adding", archive=tmp_path / "all.zip", **options)
        return {entry.name: (entry.student, entry.outcome, entry.reason) for entry in found}

    return run


@pytest.fixture
def roster(classroom, tmp_path):
    path = tmp_path / "students.csv"
    path.write_text(
        "id,first_name,last_name\nada,Ada,Lovelace\nzoe,Zoë,de la Cruz\n4711,Max,Doe\nbob,Max,Doe\n"
    )
    import_roster(classroom.course, path)


def read(classroom, student):
    return (classroom.course.submitted(student, "toy_adding") / "toy_adding.ipynb").read_bytes()


def test_canvas_names_are_found_in_the_roster_by_name(classroom, roster, collected):
    got = collected(
        ("lovelaceada_12_345_toy_adding.ipynb", b"A"),
        ("delacruzzoë_LATE_13_346_toy_adding-1.ipynb", b"Z"),
    )
    assert got["lovelaceada_12_345_toy_adding.ipynb"] == ("ada", "collected", "")
    assert got["delacruzzoë_LATE_13_346_toy_adding-1.ipynb"] == ("zoe", "collected", "late")
    assert [read(classroom, s) for s in ("ada", "zoe")] == [b"A", b"Z"]


CANVAS_4711 = "lovelaceada_4711_1_toy_adding.ipynb"
MOODLE_4711 = "Zoë de la Cruz_4711_assignsubmission_file_/toy_adding.ipynb"
MINE = "Ada Lovelace_1_assignsubmission_file"  # Moodle 4.1; before, it ended with an underscore
NEWER = {"toy_adding.ipynb": (2026, 11, 1, 9, 0, 0), "toy_adding-Copy1.ipynb": (2026, 11, 2, 9, 0, 0)}
STRANGER_4711 = "Gus van der Berg_4711_assignsubmission_file_/toy_adding.ipynb"


@pytest.mark.parametrize(("name", "student"), [(CANVAS_4711, "ada"), (MOODLE_4711, "zoe")])
def test_a_number_of_the_lms_never_sends_work_to_the_student_with_that_id(
    classroom, roster, collected, name, student
):
    assert collected((name, b"x"))[name] == (student, "collected", "")
    assert not classroom.course.submitted("4711", "toy_adding").exists()


@pytest.mark.parametrize("add_unknown", [False, True])
def test_a_stranger_with_a_roster_number_is_not_that_student(classroom, roster, collected, add_unknown):
    student, outcome, reason = collected((STRANGER_4711, b"x"), add_unknown=add_unknown)[STRANGER_4711]
    assert reason == "not in the roster"
    assert (student, outcome) == (("gusvanderberg_4711", "collected") if add_unknown else ("", "refused"))
    assert not classroom.course.submitted("4711", "toy_adding").exists()


def test_with_lms_ids_a_number_counts_unless_the_name_is_someone_elses(classroom, roster, collected):
    doe = "doemax_4711_1_toy_adding.ipynb"
    got = collected((doe, b"M"), (CANVAS_4711, b"x"), lms_ids=True)
    assert got[doe] == ("4711", "collected", "")
    assert got[CANVAS_4711] == ("", "refused", "the name is that of ada, the number that of 4711")
    alone = collected((STRANGER_4711, b"S"), lms_ids=True)[STRANGER_4711]
    assert alone == ("4711", "updated", "found by number alone: 4711 (Max Doe)")


@pytest.mark.parametrize("add_unknown", [False, True])
def test_a_name_that_two_students_have_is_not_guessed(roster, collected, add_unknown):
    name = "doemax_77_1_toy_adding.ipynb"
    got = collected((name, b"M"), add_unknown=add_unknown)[name]
    assert got == ("", "refused", "2 students have this name: 4711, bob")


def test_two_of_one_name_are_told_apart_by_the_number_that_canvas_itself_gave_with_the_roster(
    classroom, tmp_path, collected
):
    path = tmp_path / "canvas.csv"
    path.write_text(
        'Student,ID,SIS User ID,Section\n"Doe, Max",77,a,A\n"Doe, Max",78,b,A\n"Li, Ann",79,c,A\n'
    )
    import_roster(classroom.course, path)
    names = ("doemax_78_1_toy_adding.ipynb", "doemax_79_1_toy_adding.ipynb", "liann_78_1_toy_adding.ipynb")
    got = collected(*((name, b"x") for name in names))
    assert [got[name][:2] for name in names] == [("b", "collected"), ("", "refused"), ("c", "collected")]


def test_a_student_who_is_not_in_the_roster_is_refused_with_the_closest_name(classroom, roster, collected):
    names = ("lovelasada_9_1_toy_adding.ipynb", "4712/toy_adding.ipynb", "aada/toy_adding.ipynb")
    got = collected(*((name, b"x") for name in names))
    assert {value[:2] for value in got.values()} == {("", "refused")}
    assert [got[name][2] for name in names] == [
        "not in the roster; the closest is ada (Ada Lovelace)",
        "not in the roster",
        "not in the roster; the closest is ada (Ada Lovelace)",
    ]
    assert not list((classroom.course.root / "submitted").rglob("*.ipynb"))


def test_add_unknown_takes_strangers_in_and_says_who(classroom, roster, collected):
    got = collected(
        ("unknown_99_1_toy_adding.ipynb", b"U"), ("1999/toy_adding.ipynb", b"N"), add_unknown=True
    )
    assert sorted(got.values()) == [
        ("1999", "collected", "not in the roster"),
        ("unknown_99", "collected", "not in the roster"),
    ]
    assert (read(classroom, "unknown_99"), read(classroom, "1999")) == (b"U", b"N")


def test_an_lms_name_needs_a_roster(collected):
    name = "lovelaceada_12_1_toy_adding.ipynb"
    student, outcome, reason = collected((name, b"x"))[name]
    assert (student, outcome) == ("", "refused")
    assert "no roster" in reason


@pytest.mark.parametrize("folder", ["ADA", "Ada", "ada@example.org", "Ada Lovelace", "lovelace, ada"])
def test_other_spellings_of_a_student_are_the_same_student(classroom, tmp_path, collected, folder):
    path = tmp_path / "students.csv"
    path.write_text("id,first_name,last_name,email\nada,Ada,Lovelace,Ada@Example.org\n")
    import_roster(classroom.course, path)
    assert collected((f"{folder}/toy_adding.ipynb", b"A")) == {
        f"{folder}/toy_adding.ipynb": ("ada", "collected", "")
    }
    assert [p.name for p in (classroom.course.root / "submitted").iterdir()] == ["ada"]


def test_without_a_roster_capitals_make_no_second_student(classroom, collected):
    collected(("ada/toy_adding.ipynb", b"1"))
    got = collected(("ADA/toy_adding.ipynb", b"2"), ("Bob/toy_adding.ipynb", b"3"))
    assert {value[:2] for value in got.values()} == {("ada", "updated"), ("Bob", "collected")}
    assert sorted(p.name for p in (classroom.course.root / "submitted").iterdir()) == ["Bob", "ada"]


def test_students_whom_only_grading_met_are_no_roster(classroom, collected):
    with Gradebook(f"sqlite:///{classroom.course.gradebook}") as gradebook:
        gradebook.update_or_create_student("ada")
    assert collected(("bob/toy_adding.ipynb", b"B"))["bob/toy_adding.ipynb"][:2] == ("bob", "collected")


def test_a_roster_of_ids_alone_is_a_roster(classroom, tmp_path, collected):
    (tmp_path / "students.csv").write_text("id\nada\n")
    import_roster(classroom.course, tmp_path / "students.csv")
    got = collected(("ada/toy_adding.ipynb", b"A"), ("bob/toy_adding.ipynb", b"B"))
    assert sorted(value[:2] for value in got.values()) == [("", "refused"), ("ada", "collected")]


@pytest.mark.parametrize(
    ("first", "last", "archived"),
    [
        ("Işıl", "Kırmızı", "kirmiziisil"),
        ("Søren", "Ægir", "aegirsoren"),
        ("Łukasz", "Weiß", "weisslukasz"),
        ("Zoe\u0308", "Cruz", "CRUZZOË"),
        ("Jean-Luc", "O'Neill", "oneilljeanluc"),
    ],
)
def test_names_match_across_accents_and_letters_of_their_own(
    classroom, tmp_path, collected, first, last, archived
):
    path = tmp_path / "students.csv"
    path.write_text(f"id,first_name,last_name\n1,{first},{last}\n2,Other,Person\n")
    import_roster(classroom.course, path)
    name = f"{archived}_2_5_toy_adding.ipynb"
    assert collected((name, b"x"))[name] == ("1", "collected", "")


def test_vowel_signs_and_voicing_marks_tell_names_apart():
    assert len({folded(name) for name in ("राम", "रीम", "रम")}) == 3
    assert folded("か") != folded("が")


def test_a_file_named_as_canvas_does_in_a_students_folder_is_that_students(roster, collected):
    got = collected(("ada/lab_1_2_toy_adding.ipynb", b"A"), ("zoe/lovelaceada_1_2_toy_adding.ipynb", b"?"))
    assert got["ada/lab_1_2_toy_adding.ipynb"][:2] == ("ada", "collected")
    assert got["zoe/lovelaceada_1_2_toy_adding.ipynb"] == (
        "",
        "refused",
        "the folder is zoe's, the name ada's",
    )


def test_the_notebook_of_another_exercise_is_refused_and_does_not_stand_in_for_the_right_one(
    classroom, roster, collected
):
    right = json.dumps(classroom.notebook()).encode()
    wrong = json.dumps({"metadata": {"coursekit": {"slug": "other"}}, "cells": []}).encode()
    got = collected(
        ("lovelaceada_1_2_toy_adding.ipynb", right),
        ("lovelaceada_1_3_toy_adding-1.ipynb", wrong),
    )
    assert got["lovelaceada_1_2_toy_adding.ipynb"][:2] == ("ada", "collected")
    assert got["lovelaceada_1_3_toy_adding-1.ipynb"] == ("ada", "refused", "this is the notebook of other")
    assert read(classroom, "ada") == right


@pytest.mark.parametrize("other", [b"%PDF", b"stub"])
def test_a_newer_file_without_work_does_not_stand_in_for_the_work(classroom, roster, collected, other):
    work = json.dumps(classroom.notebook(mean="def mean(numbers):\n    return 0")).encode()
    other = json.dumps(classroom.notebook()).encode() if other == b"stub" else other
    entries = [zipfile.ZipInfo(f"{MINE}/{name}", when) for name, when in NEWER.items()]
    got = collected((entries[0], work), (entries[1], other))
    assert [got[entry.filename][1] for entry in entries] == ["collected", "refused"]
    assert read(classroom, "ada") == work


@pytest.mark.parametrize("name", ["toy_adding.ipynb.txt", "toy_adding.ipynb.json", "toy_adding (2).IPYNB"])
def test_a_notebook_that_a_browser_took_for_text_is_taken_in(roster, collected, name):
    assert collected((f"{MINE}/{name}", b"A"))[f"{MINE}/{name}"] == ("ada", "collected", "")


def test_of_two_files_with_work_the_newer_counts(classroom, roster, collected):
    works = [json.dumps(classroom.notebook(add=f"def add(a, b):\n    return {n}")).encode() for n in (1, 2)]
    entries = [zipfile.ZipInfo(f"{MINE}/{name}", when) for name, when in NEWER.items()]
    collected(*zip(entries, works, strict=True))
    assert read(classroom, "ada") == works[1]


def test_a_checkpoint_copy_is_refused_and_the_file_that_counts_is_named(classroom, collected):
    copy = "ada/.ipynb_checkpoints/toy_adding-checkpoint.ipynb"
    got = collected(("ada/toy_adding.ipynb", b"A"), (copy, b"old"), ("ada/notes.ipynb", b"n"))
    assert got[copy] == ("", "refused", "a checkpoint copy, not a submission")
    assert got["ada/notes.ipynb"][2] == "an older or another file: ada/toy_adding.ipynb counts"
    assert read(classroom, "ada") == b"A"


def test_what_is_printed_is_what_wants_an_eye_and_who_is_missing(classroom, roster, collected, capsys):
    entries = [
        *(Entry(f"fine {n}", f"s{n}", "collected") for n in range(300)),
        Entry("b", "bob", "unchanged"),
        Entry("notes\x1b[2J.docx", "", "refused", "not a notebook (.ipynb)"),
        Entry("essay.docx", "", "refused", "not a notebook (.ipynb)"),
        Entry("c", "eve", "updated", "late"),
    ]
    classroom.hand_in("ada")
    classroom.hand_in("4711")
    print_entries("toy_adding", entries, without=without_submission(classroom.course, "toy_adding"))
    assert capsys.readouterr().out.splitlines() == [
        "refused: not a notebook (.ipynb)",
        "    notes?[2J.docx",
        "    essay.docx",
        "taken in: late",
        "    eve  c",
        "what belongs in after all: put it at submitted/STUDENT/toy_adding/toy_adding.ipynb",
        "no submission of 2 on the roster: bob (Max Doe), zoe (Zoë de la Cruz)",
        "toy_adding: 302 taken in (300 new, 1 changed, 1 as before), 2 refused",
    ]


def test_of_a_great_many_who_are_missing_some_are_named(capsys):
    print_entries("toy_adding", [], without=[Student(f"s{n}") for n in range(300)])
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("no submission of 300 on the roster: s0, s1, ")
    assert first.endswith(", s39, and 260 more")


def test_moodle_names_are_understood_with_and_without_folders(classroom, roster, collected):
    got = collected(
        ("Ada Lovelace_1234_assignsubmission_file_/toy_adding.ipynb", b"A"),
        ("Zoë de la Cruz_99_assignsubmission_file_toy_adding.ipynb", b"Z"),
        ("Max Doe_99_assignsubmission_files/toy_adding.ipynb", b"?"),
    )
    assert [value[:2] for value in got.values()] == [
        *(("ada", "collected"), ("zoe", "collected"), ("", "refused")),
    ]
    assert (read(classroom, "ada"), read(classroom, "zoe")) == (b"A", b"Z")
    moodle_4_1 = "Ada Lovelace_1234_assignsubmission_file/toy_adding.ipynb"
    assert collected((moodle_4_1, b"4"))[moodle_4_1] == ("ada", "updated", "")


def test_plain_folders_are_understood_at_any_depth(classroom, collected):
    got = collected(
        ("ada/toy_adding.ipynb", b"A"),
        ("submitted/bob/toy_adding/toy_adding.ipynb", b"B"),
        ("class\\cyd\\toy_adding.ipynb", b"C"),
    )
    assert {value[:2] for value in got.values()} == {(s, "collected") for s in ("ada", "bob", "cyd")}
    assert read(classroom, "bob") == b"B"


def test_of_several_attempts_the_newest_counts(classroom, roster, collected):
    got = collected(
        ("lovelaceada_12_345_toy_adding.ipynb", b"old"),
        ("lovelaceada_12_1000_toy_adding-1.ipynb", b"new"),
        ("lovelaceada_12_2000_notes.ipynb", b"other"),
    )
    assert read(classroom, "ada") == b"new"
    assert sorted(outcome for _, outcome, _ in got.values()) == ["collected", "refused", "refused"]


def test_collecting_again_updates_what_changed_and_says_so(classroom, collected):
    assert collected(("ada/toy_adding.ipynb", b"1"))["ada/toy_adding.ipynb"][1] == "collected"
    assert collected(("ada/toy_adding.ipynb", b"1"))["ada/toy_adding.ipynb"][1] == "unchanged"
    assert collected(("ada/toy_adding.ipynb", b"2"))["ada/toy_adding.ipynb"][1] == "updated"
    assert read(classroom, "ada") == b"2"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../eve/toy_adding.ipynb", "out of the folder"),
        ("a/../../eve/toy_adding.ipynb", "out of the folder"),
        ("..\\eve\\toy_adding.ipynb", "out of the folder"),
        ("/etc/toy_adding.ipynb", "out of the folder"),
        ("C:\\eve\\toy_adding.ipynb", "out of the folder"),
        ("eve/report.pdf", "not a notebook"),
        (".eve/toy_adding.ipynb", "cannot be a folder's"),
        ("e v e/toy_adding.ipynb", "cannot be a folder's"),
        ("toy_adding.ipynb", "no student can be told"),
    ],
)
def test_a_bad_name_is_refused_with_its_reason_and_writes_nothing(classroom, collected, name, reason):
    before = {path for path in classroom.course.root.parent.rglob("*") if path.name != "all.zip"}
    got = collected((name, b"x"), ("ada/toy_adding.ipynb", b"good"))
    assert got["ada/toy_adding.ipynb"][1] == "collected"
    (refused,) = [value for key, value in got.items() if not key.startswith("ada")]
    assert refused[1] == "refused"
    assert reason in refused[2]
    after = {path for path in classroom.course.root.parent.rglob("*") if path.name != "all.zip"}
    new = {str(path.relative_to(classroom.course.root)) for path in after - before}
    assert new == {"submitted/ada", "submitted/ada/toy_adding", "submitted/ada/toy_adding/toy_adding.ipynb"}


def test_links_in_the_archive_are_refused(collected):
    link = zipfile.ZipInfo("eve/toy_adding.ipynb")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert collected((link, b"/etc/passwd"))[link.filename][1:] == ("refused", "a link or a special file")


def test_a_link_on_the_disk_is_not_written_through(classroom, collected, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (classroom.course.root / "submitted" / "eve").symlink_to(tmp_path / "elsewhere")
    got = collected(("eve/toy_adding.ipynb", b"x"))["eve/toy_adding.ipynb"]
    assert got[1:] == ("refused", "a link stands where the submission belongs")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_bomb_is_refused_by_its_size_and_by_what_it_unpacks_to(classroom, collected, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 2**20)
    declared = collected(("eve/toy_adding.ipynb", bytes(2**20 + 1)))["eve/toy_adding.ipynb"]
    assert declared[1:] == ("refused", "larger than 1 MiB")
    monkeypatch.setattr(module, "_refusal", lambda info, name: "")  # as if its declared size had lied
    lying = collected(("eve/toy_adding.ipynb", bytes(4 * 2**20)))["eve/toy_adding.ipynb"]
    assert lying[1:] == ("refused", "cannot be read: larger than 1 MiB")
    assert not classroom.course.submitted("eve", "toy_adding").exists()


def test_a_notebook_that_takes_thirty_times_its_size_is_not_unfolded_to_ask_whose_it_is(classroom, collected):
    brackets = b'{"cells":[' + b"[]," * MAX_BRACKETS + b"0]}"
    tracemalloc.start()
    try:
        got = collected(("mallory/toy_adding.ipynb", brackets))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert got["mallory/toy_adding.ipynb"] == ("mallory", "collected", "")
    assert peak < 10 * len(brackets)


def test_system_clutter_is_passed_over_in_silence(collected):
    assert collected(("__MACOSX/ada/._toy_adding.ipynb", b""), ("ada/.DS_Store", b""), ("ada/", b"")) == {}


def test_a_damaged_entry_is_refused_and_the_others_are_collected(classroom, tmp_path):
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("eve/toy_adding.ipynb", b"DAMAGE ME")
        archive.writestr("ada/toy_adding.ipynb", b"good")
    path.write_bytes(path.read_bytes().replace(b"DAMAGE ME", b"damaged!!"))
    got = {entry.student: entry for entry in collect(classroom.course, "toy_adding", archive=path)}
    assert (got["eve"].outcome, got["ada"].outcome) == ("refused", "collected")
    assert "CRC" in got["eve"].reason


def test_what_is_no_zip_is_refused(classroom, tmp_path):
    (tmp_path / "all.zip").write_bytes(b"not a zip")
    with pytest.raises(InputError, match="cannot be read as a zip"):
        collect(classroom.course, "toy_adding", archive=tmp_path / "all.zip")


@pytest.mark.parametrize(
    "inside",
    [
        "Zoë de la Cruz_2_assignsubmission_file_/toy_adding.ipynb",
        "Zoë de la Cruz_2_assignsubmission_file/toy_adding.ipynb",
        "zoe/toy_adding.ipynb",
        "week 3/delacruzzoë_2_3_toy_adding.ipynb",
        "week 3/code/toy_adding.ipynb",
    ],
)
@pytest.mark.parametrize("wrapper", ["", "toy_adding/", "Zoë de la Cruz/"])
@pytest.mark.parametrize("mine", [MINE, f"{MINE}_"])
def test_folders_that_a_student_made_in_moodle_are_that_students(
    classroom, roster, collected, wrapper, mine, inside
):
    name = f"{wrapper}{mine}/{inside}"
    assert collected((name, b"A"))[name] == ("ada", "collected", "")
    assert not classroom.course.submitted("zoe", "toy_adding").exists()


@pytest.mark.parametrize("inside", ["zoe/toy_adding.ipynb", "code/delacruzzoë_2_3_toy_adding.ipynb"])
def test_a_plain_folder_in_which_another_student_is_named_is_refused(classroom, roster, collected, inside):
    name = f"class/ada/{inside}"
    student, outcome, reason = collected((name, b"A"))[name]
    assert (student, outcome) == ("", "refused")
    assert "ada" in reason
    assert "zoe" in reason
