"""The `coursekit release` command."""


def release() -> None:
    """Not written yet."""
