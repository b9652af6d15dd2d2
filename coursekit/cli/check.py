"""The `coursekit check` command."""


def check() -> None:
    """Not written yet."""
