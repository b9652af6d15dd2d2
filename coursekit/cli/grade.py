"""The `coursekit grade` command."""


def grade() -> None:
    """Not written yet."""
