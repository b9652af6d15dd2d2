"""The solution in the book shows every word of the model answer."""

import pytest
from course_book.solutions import solution_page
from myst_parser.config.main import MdParserConfig
from myst_parser.mdit_to_docutils.base import DocutilsRenderer
from myst_parser.parsers.mdit import create_md_parser

SOURCE = """# ---
# coursekit:
#   title: Shares
# ---

# %% [markdown] nbgrader="answer" grade_id="explain" points=1
# How sure?
#
# ### BEGIN SOLUTION
{answer}
# ### END SOLUTION
"""


def shown(lines):
    """Return the text that MyST makes of the lines."""
    parser = create_md_parser(MdParserConfig(enable_extensions={"dollarmath"}), DocutilsRenderer)
    leaves = []
    for token in parser.parse("\n".join(lines)):
        if token.type in ("inline", "fence", "math_block"):
            leaves += [child.content for child in token.children or []] or [token.content]
    return " ".join(leaves)


@pytest.mark.parametrize(
    "answer",
    [
        ["The error is 0.9", "% of the images, so the second system is not better."],
        ["1. The error is 0.9", "   % of the images, so the second system is not better."],
        ["- % of the images, so the second system is not better."],
    ],
)
def test_a_line_that_begins_with_per_cent_is_not_lost(tmp_path, answer):
    source = tmp_path / "shares.py"
    source.write_text(SOURCE.format(answer="\n".join(f"# {line}" for line in answer)))
    want = "of the images, so the second system is not better."
    assert want in shown(solution_page(source))
    assert want not in shown(answer)  # the control: MyST does drop it


def test_code_and_formulas_keep_their_per_cent(tmp_path):
    answer = ["```", "%timeit f()", "```", "", "$$", "% note", "a = b", "$$"]
    source = tmp_path / "shares.py"
    source.write_text(SOURCE.format(answer="\n".join(f"# {line}".rstrip() for line in answer)))
    page = solution_page(source)
    assert [line for line in page if "%" in line] == ["%timeit f()", "% note"]
