"""Rosters as Moodle and Canvas export them: their columns turned into ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# The first of these that anybody has a value in is the id: what an institution calls a person by, before
# what the LMS does.
_MOODLE_IDS = ("ID number", "Username", "Email address")
_CANVAS_IDS = ("SIS User ID", "SIS Login ID", "ID")
_CANVAS_TEST_STUDENT = "Student, Test"

Row = Mapping[str, str]


def is_moodle(names: Sequence[str]) -> bool:
    """Return whether a first line is that of Moodle's list of participants or of its grades.

    >>> is_moodle(["First name", "Surname", "Email address", "Groups"]), is_moodle(["id", "email"])
    (True, False)
    """
    return {"First name", "Email address"} <= set(names) and not {"Last name", "Surname"}.isdisjoint(names)


def is_canvas(names: Sequence[str]) -> bool:
    """Return whether a first line is that of Canvas' gradebook.

    >>> is_canvas(["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Homework (17)"])
    True
    """
    return {"Student", "ID", "Section"} <= set(names)


def from_moodle(rows: Sequence[Row]) -> list[dict[str, str] | None]:
    """Return Moodle's rows in our columns."""
    who = _first_used(_MOODLE_IDS, rows)
    return [
        {
            "id": row.get(who, ""),
            "first_name": row["First name"],
            "last_name": row.get("Last name", row.get("Surname", "")),
            "email": row["Email address"],
        }
        for row in rows
    ]


def from_canvas(rows: Sequence[Row]) -> list[dict[str, str] | None]:
    """Return Canvas' rows in our columns; None where one is no student: the points possible, a test student.

    >>> from_canvas([{"Student": "de la Cruz, Zoë", "ID": "7", "SIS User ID": "zoe", "Section": "A"}])
    [{'id': 'zoe', 'first_name': 'Zoë', 'last_name': 'de la Cruz', 'email': '', 'lms_user_id': '7'}]
    """
    people = [row if row["ID"] and row["Student"] != _CANVAS_TEST_STUDENT else None for row in rows]
    who = _first_used(_CANVAS_IDS, [row for row in people if row])
    return [row and _canvas_person(row, who) for row in people]


def _canvas_person(row: Row, who: str) -> dict[str, str]:
    last, _, first = row["Student"].rpartition(", ")  # who has one name has it as the first, as in Moodle
    login = row.get("SIS Login ID", "")
    email = login if "@" in login else ""
    names = {"first_name": first, "last_name": last, "email": email}
    return {"id": row.get(who, ""), **names, "lms_user_id": row["ID"]}


def _first_used(columns: Sequence[str], rows: Sequence[Row]) -> str:
    return next((name for name in columns if any(row.get(name) for row in rows)), columns[-1])
