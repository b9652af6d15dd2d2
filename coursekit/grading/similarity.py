"""Near-identical submissions: pairs whose code is the same but for names, comments and layout.

It is a hint for a person to read both, not a verdict: a short task has few right answers, so the report says
how alike the class is anyway.
"""

from __future__ import annotations

import textwrap
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coursekit.errors import require

Answers = Mapping[str, Mapping[str, str]]  # student -> grade_id -> the source of a solution cell

# Rows of the table of all pairs that are held at a time: memory stays small for thousands of students.
_ROWS = 256
# Nobody reads more. Where all answers are alike, 300 students have 45,000 pairs, and 10,000 fifty million.
_MOST_PAIRS = 500
# Characters of an answer, and of a line of it, that are compared.
_CODE, _LINE = 50_000, 1000
# From a handful of pairs nobody can tell what is usual.
_PAIRS_TO_JUDGE = 10


@dataclass(frozen=True)
class Pair:
    """Two students whose code is alike.

    percent: of the code's structure that is the same, names and comments left out of account.
    verbatim_percent: of the text as it was written that is the same.
    """

    left: str
    right: str
    percent: int
    verbatim_percent: int


@dataclass(frozen=True)
class Likeness:
    """The pairs that are alike, the most alike first, and how alike pairs are in this class anyway.

    typical_percent: the percentage that half of all pairs do not exceed; None for fewer than 10 pairs.
    left_out: how many more pairs are alike; none of them is more so than those that are named.
    """

    pairs: tuple[Pair, ...]
    typical_percent: int | None
    left_out: int = 0


def near_identical(
    answers: Answers, *, stubs: Mapping[str, str], at_least: int = 90, min_tokens: int = 40
) -> Likeness:
    """Return the pairs of students whose answers are near-identical, at most the 500 most alike.

    Args:
        answers: student -> grade_id -> source.
        stubs: grade_id -> the source that everybody was given; its lines do not count.
        at_least: percentage from which a pair is named.
        min_tokens: answers with fewer tokens of their own are left out: they say nothing.
    """
    import numpy as np

    ratio = require("rapidfuzz.fuzz", extra="grading").ratio
    own = {student: own_text(sources, stubs) for student, sources in sorted(answers.items())}
    codes = {student: code for student, text in own.items() if len(code := structure(text)) >= min_tokens}
    students, texts = list(codes), list(codes.values())
    pairs, counts = [], np.zeros(101, dtype=int)
    for start in range(0, len(texts), _ROWS):
        block = _table(texts[start:], ratio)
        # Each pair once: the columns right of the diagonal.
        later = np.arange(block.shape[1])[None, :] > np.arange(len(block))[:, None]
        counts += np.bincount(block[later], minlength=101)
        least = pairs[-1].percent if len(pairs) == _MOST_PAIRS else at_least
        pairs += _most_alike(np.where(later & (block >= least), block, 0), students[start:], own)
        pairs.sort(key=lambda pair: (-pair.percent, -pair.verbatim_percent, pair.left, pair.right))
        del pairs[_MOST_PAIRS:]
    return Likeness(tuple(pairs), _median(counts), int(counts[at_least:].sum()) - len(pairs))


def _table(texts: list[str], scorer: Any) -> Any:
    """Return how alike, in percent, each of the first `_ROWS` texts and each text are."""
    import numpy as np

    cdist = require("rapidfuzz.process", extra="grading").cdist
    return cdist(texts[:_ROWS], texts, scorer=scorer, dtype=np.uint8, workers=-1)


def _most_alike(percents: Any, students: list[str], own: Mapping[str, str]) -> list[Pair]:
    """Return the most alike pairs of the first students, the rows, with all, the columns; 0 is no pair."""
    import numpy as np

    ratio = require("rapidfuzz.fuzz", extra="grading").ratio
    texts = [own[student] for student in students]
    rows, columns = np.nonzero(percents)
    if len(rows) > _MOST_PAIRS:  # among equals in structure, those whose text is more alike
        verbatim = _table(texts, ratio)
        order = percents[rows, columns].astype(int) * 101 + verbatim[rows, columns]
        best = np.argpartition(order, -_MOST_PAIRS)[-_MOST_PAIRS:]
        rows, columns = rows[best], columns[best]
    return [
        Pair(
            students[row], students[column], int(percents[row, column]), int(ratio(texts[row], texts[column]))
        )
        for row, column in zip(rows, columns, strict=True)
    ]


def own_text(sources: Mapping[str, str], stubs: Mapping[str, str]) -> str:
    r"""Return what a student wrote: the lines that the stub does not have, cell after cell.

    >>> own_text({"a": "def f():\n    return 1"}, {"a": "def f():\n    ..."})
    'return 1'
    """
    parts = []
    for grade_id in sorted(sources):
        given = {line.strip() for line in stubs.get(grade_id, "").splitlines()}
        lines = [line for line in sources[grade_id].splitlines() if line.strip() not in given]
        parts.append(textwrap.dedent("\n".join(lines)))
    return "\n".join(parts)


def structure(source: str) -> str:
    """Return a character for each token of Python source that is neither a comment, a docstring nor space.

    Names of the writer's own are all the same character; keywords, operators, numbers, builtins and
    attributes count as they are. Source that is no Python is split as far as it can be.

    >>> structure("total = 0  # of all") == structure("s=0")
    True
    >>> structure("x.sum()") == structure("x.mean()")
    False
    """
    from pygments.lexers import PythonLexer
    from pygments.token import Comment, Keyword, Name, String, Whitespace

    symbols, before = [], ""
    # Taking code apart can take the square of a line's length, and of the empty lines that follow each other.
    lines = [line[:_LINE] for line in source[:_CODE].splitlines() if line.strip()]
    for kind, text in PythonLexer(stripall=True).get_tokens("\n".join(lines)):
        if kind in Comment or kind in String.Doc or kind in Whitespace or not text.strip():
            continue
        if kind in String:
            text = '"'
        elif kind in Name and kind not in Name.Builtin and kind not in Keyword and before != ".":
            text = "name"
        before = text
        symbols.append(_symbol(text))
    return "".join(symbols)


def _symbol(text: str) -> str:
    """Return one character for a token; two tokens share one too rarely to matter (1 in 60 000)."""
    return chr(0x100 + zlib.crc32(text.encode()) % 0xD000)


def _median(counts: Any) -> int | None:
    """Return the percentage that half of the pairs do not exceed, from the number of pairs at each."""
    total = counts.sum()
    return int((counts.cumsum() * 2 >= total).argmax()) if total >= _PAIRS_TO_JUDGE else None
