"""Collecting an LMS's zip: names understood, hostile entries refused, each with its reason."""

import stat
import zipfile

import pytest

from coursekit.errors import InputError
from coursekit.grading import collect as module
from coursekit.grading.collect import collect
from coursekit.grading.roster import import_roster


@pytest.fixture
def collected(classroom, tmp_path):
    """Collect an archive of (name or ZipInfo, bytes) and return entry name -> (student, outcome, reason)."""

    def run(*entries):
        with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in entries:
                archive.writestr(name, data)
        found = collect(classroom.course, "toy_adding", archive=tmp_path / "all.zip")
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


def test_canvas_names_are_found_in_the_roster_by_name_or_number(classroom, roster, collected):
    got = collected(
        ("lovelaceada_12_345_toy_adding.ipynb", b"A"),
        ("delacruzzoë_LATE_13_346_toy_adding-1.ipynb", b"Z"),
        ("doemax_4711_347_toy_adding.ipynb", b"M"),
        ("unknown_99_348_toy_adding.ipynb", b"U"),
    )
    assert got["lovelaceada_12_345_toy_adding.ipynb"] == ("ada", "collected", "")
    assert got["delacruzzoë_LATE_13_346_toy_adding-1.ipynb"] == ("zoe", "collected", "late")
    assert got["doemax_4711_347_toy_adding.ipynb"] == ("4711", "collected", "")
    assert got["unknown_99_348_toy_adding.ipynb"] == ("99", "collected", "not in the roster")
    assert [read(classroom, s) for s in ("ada", "zoe", "4711", "99")] == [b"A", b"Z", b"M", b"U"]


def test_a_name_that_two_students_have_is_not_guessed(roster, collected):
    name = "doemax_77_1_toy_adding.ipynb"
    assert collected((name, b"M"))[name] == ("77", "collected", "more than one student has this name")


def test_moodle_names_are_understood_with_and_without_folders(classroom, roster, collected):
    got = collected(
        ("Ada Lovelace_1234_assignsubmission_file_/toy_adding.ipynb", b"A"),
        ("Zoë de la Cruz_99_assignsubmission_file_toy_adding.ipynb", b"Z"),
    )
    assert [value[:2] for value in got.values()] == [("ada", "collected"), ("zoe", "collected")]
    assert (read(classroom, "ada"), read(classroom, "zoe")) == (b"A", b"Z")


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
