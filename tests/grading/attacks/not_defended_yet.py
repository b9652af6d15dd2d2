"""Attacks that the pipeline does not hold off yet. Not a place for new ones."""

NOT_DEFENDED_YET: frozenset[str] = frozenset()
