"""Whom a name means: LMS names, numbers and folder names looked up in the roster, never guessed."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from coursekit.grading.roster import Student

# Letters that Unicode does not decompose, as LMSs and spreadsheets write them in ASCII. ("ß" is casefold's.)
_LETTERS = str.maketrans(
    {"ı": "i", "ø": "o", "ł": "l", "æ": "ae", "œ": "oe", "đ": "d", "ð": "d", "þ": "th", "ħ": "h", "ŧ": "t"}
)
# Combining classes from here on are accents; those below (vowel signs, voicing marks) tell words apart.
_FIRST_ACCENT = 200


def folded(name: str) -> str:
    """Return a name in lower case without accents, spaces and punctuation.

    >>> folded("Łukasz Sørensen-Weiß"), folded("IŞIK"), folded("ışık")
    ('lukaszsorensenweiss', 'isik', 'isik')
    """
    letters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())
    bare = "".join(c for c in letters if unicodedata.combining(c) < _FIRST_ACCENT)
    return "".join(c for c in bare.translate(_LETTERS) if c.isalnum() or unicodedata.category(c)[0] == "M")


def same_id(student: str) -> str:
    """Return what two spellings of one id share: case and the way accents are stored do not count."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", student).casefold())


@dataclass(frozen=True)
class Match:
    """The roster's id of a person, or "" and the reason; a found person may come with a note."""

    student: str
    reason: str = ""
    unknown: bool = False


def by_folder(folder: str, roster: Sequence[Student]) -> Match:
    """Return whom the name of a plain folder means: an id, else an e-mail address, else a full name."""
    if any(student.id == folder for student in roster):
        return Match(folder)
    for found in (
        [student.id for student in roster if same_id(student.id) == same_id(folder)],
        _named(folder, roster),
    ):
        if found:
            return _only(found)
    return Match("", _not_there(folder, roster), unknown=True)


def by_lms(name: str, number: str, roster: Sequence[Student], *, lms_ids: bool = False) -> Match:
    """Return whom an LMS's name and number mean.

    An LMS numbers people by itself, so the number is used only if `lms_ids` says that it is the roster's id,
    and to tell two of one name apart if the roster came from Canvas with its numbers.
    """
    named = _named(name, roster)
    if len(named) > 1:
        named = [s.id for s in roster if s.id in named and s.lms_user_id == number] or named
    numbered = [student for student in roster if lms_ids and student.id == number]
    if not numbered:
        return _only(named) if named else Match("", _not_there(name, roster), unknown=True)
    if named and number not in named:
        return Match("", f"the name is that of {', '.join(named)}, the number that of {number}")
    return Match(number, "" if named else f"found by number alone: {label(numbered[0])}")


def _named(name: str, roster: Sequence[Student]) -> list[str]:
    wanted = folded(name)
    return [
        s.id for s in roster if wanted in _spellings(s) or (s.email and same_id(s.email) == same_id(name))
    ]


def _spellings(student: Student) -> set[str]:
    first, last = folded(student.first_name), folded(student.last_name)
    # Of a student without a name the id is all there is: it may be the login that the LMS shows.
    return ({first + last, last + first} if first + last else {folded(student.id)}) - {""}


def _only(found: Sequence[str]) -> Match:
    if len(found) == 1:
        return Match(found[0])
    return Match("", f"{len(found)} students have this name: {', '.join(found)}")


def _not_there(name: str, roster: Sequence[Student]) -> str:
    if not roster:
        return "there is no roster to find this name in (coursekit course roster)"
    logins = [(folded(student.id), student) for student in roster if not student.id.isdigit()]
    names = [(spelling, student) for student in roster for spelling in _spellings(student)]
    spelled = dict(logins + names)  # numbers are left out: one that is near another is nobody's name
    near = [] if name.isdigit() else difflib.get_close_matches(folded(name), sorted(spelled), n=1, cutoff=0.7)
    return "not in the roster" + (f"; the closest is {label(spelled[near[0]])}" if near else "")


def label(student: Student) -> str:
    """Return a student's id, with the name where there is one."""
    full = f"{student.first_name} {student.last_name}".strip()
    return f"{student.id} ({full})" if full else student.id
