"""Moments as people write them."""

from __future__ import annotations

from datetime import UTC, datetime

from coursekit.errors import InputError


def parse_time(text: str) -> datetime:
    """Return a moment in UTC from "2026-11-20 23:59", of this machine's clock unless it names an offset.

    >>> parse_time("2026-11-20 23:59+01:00")
    datetime.datetime(2026, 11, 20, 22, 59, tzinfo=datetime.timezone.utc)

    Raises: InputError if it is no date and time.
    """
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InputError("no date and time", expected="2026-11-20 23:59", got=repr(text)) from None
