"""Authoring errors are found where the source is read, and say file, line and what to do."""

from __future__ import annotations

import pytest

from coursekit.errors import InputError
from coursekit.notebooks.source import outside_regions, read_source, regions

SOLUTION = """\
# %% nbgrader="solution" grade_id="f"
def f():
    ### BEGIN SOLUTION
    return 1
    ### END SOLUTION

"""
HIDDEN = "### BEGIN HIDDEN TESTS\nassert f()\n### END HIDDEN TESTS\n"
TESTS = '# %% nbgrader="tests" grade_id="test_f" points=1\nassert f() == 1\n'


def test_a_source_is_read_with_kinds_points_and_lines(toy):
    cells = {cell.grade_id: cell for cell in toy.cells if cell.grade_id}
    assert (toy.slug, toy.title, toy.forbidden) == ("toy", "A toy exercise", ("torch.optim", "statistics"))
    assert [cell.kind for cell in toy.cells] == [
        "", "locked", "solution", "tests", "tests", "", "solution", "tests", "answer",
    ]  # fmt: skip
    assert cells["test_token_mean_hidden"].hidden
    assert not cells["test_token_mean"].hidden
    assert cells["explain"].points == 2
    first_lines = toy.path.read_text().split("\n")
    assert all(f'grade_id="{name}"' in first_lines[cell.line - 1] for name, cell in cells.items())


@pytest.mark.parametrize(
    ("cells", "line", "said"),
    [
        (SOLUTION + SOLUTION + TESTS, 12, "duplicate grade_id 'f'"),
        (SOLUTION + TESTS.replace(" points=1", ""), 12, "test_f has no points"),
        (SOLUTION + TESTS.replace("points=1", "points=0"), 12, "test_f has no points"),
        (SOLUTION + TESTS.replace("tests", "test"), 12, "unknown kind of cell"),
        (SOLUTION + TESTS.replace("assert f() == 1", "import math"), 12, "test_f tests nothing"),
        (SOLUTION + TESTS.replace("assert f() == 1", "# nothing"), 12, "test_f tests nothing"),
        (SOLUTION + TESTS.replace("assert f() == 1", "assert f( == 1"), 13, "test_f is not Python"),
        (SOLUTION.replace("    ### END SOLUTION\n", "") + TESTS, 6, "BEGIN SOLUTION without END"),
        (SOLUTION.replace("    ### BEGIN SOLUTION\n", "") + TESTS, 9, "unbalanced marker END SOLUTION"),
        (SOLUTION.replace("### BEGIN SOLUTION", "x = 1 ### BEGIN SOLUTION") + TESTS, 8, "shares its line"),
        (SOLUTION.replace('="solution"', '="locked"') + TESTS, 8, "marker in a cell of kind"),
        (SOLUTION.replace(' nbgrader="solution" grade_id="f"', "") + TESTS, 8, "marker in a cell of kind"),
        (SOLUTION.replace('grade_id="f"', 'grade_id="f g"') + TESTS, 6, "the grade_id is no name"),
        (SOLUTION.replace('grade_id="f"', 'grade_id="f" points=2') + TESTS, 6, "a solution cell earns no"),
        (SOLUTION.replace('grade_id="f"', 'grade_id="f" weight=2') + TESTS, 6, "unknown words ['weight']"),
        ('# %% nbgrader="solution" grade_id="f"\nf = len\n\n' + TESTS, 6, "f marks no solution"),
        (SOLUTION + TESTS.replace("# %%", "# %% [markdown]"), 12, "a tests cell is code"),
        (SOLUTION + TESTS + HIDDEN, 12, "mixes visible and hidden"),
        (SOLUTION, 1, "nothing in this exercise earns points"),
        ("import math\n\n" + SOLUTION + TESTS, 5, "text before the first cell"),
        (SOLUTION + '# %% points=1\n1\n\n' + TESTS, 12, "without a kind"),
    ],
)  # fmt: skip
def test_an_authoring_error_names_its_file_and_line(write_source, cells, line, said):
    path = write_source(cells)
    with pytest.raises(InputError) as caught:
        read_source(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert said in str(caught.value)


def test_a_hidden_cell_shows_one_comment_line_and_nothing_else(write_source):
    hidden = TESTS.replace(
        "assert f() == 1\n", "### BEGIN HIDDEN TESTS\nassert f() == 1\n### END HIDDEN TESTS\n"
    )
    with pytest.raises(InputError, match="one comment line"):
        read_source(write_source(SOLUTION + hidden))
    good = hidden.replace("### BEGIN", "# Graded with a test that you do not see.\n### BEGIN")
    assert read_source(write_source(SOLUTION + good)).cells[1].hidden


@pytest.mark.parametrize("slug", ["tensorflow", "statistics", "numpy"])
def test_a_slug_that_would_shadow_a_package_is_refused(write_source, slug):
    with pytest.raises(InputError, match=f"{slug} is the name of a package"):
        read_source(write_source(SOLUTION + TESTS, slug=slug))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("", "the header is missing"),
        ("# ---\n# coursekit:\n#   title: x\n", "the header has no end"),
        ("# ---\n# coursekit: {forbidden: [torch]}\n# ---\n", "the header says no title"),
        ("# ---\n# coursekit: {title: x, forbidden: torch}\n# ---\n", "forbidden is not a list"),
        ("# ---\n# coursekit: {title: [x}\n# ---\n", "the header is not YAML"),
    ],
)
def test_a_header_that_says_too_little_is_refused(write_source, header, said):
    with pytest.raises(InputError, match=said):
        read_source(write_source(SOLUTION + TESTS, header=header))


def test_regions_and_what_lies_outside_them_make_up_the_text():
    text = "a\n### BEGIN SOLUTION\nb\nc\n### END SOLUTION\nd\n### BEGIN HIDDEN TESTS\ne\n### END HIDDEN TESTS"
    assert regions(text, "SOLUTION") == ["b\nc"]
    assert regions(text, "HIDDEN TESTS") == ["e"]
    assert outside_regions(text) == "a\nd"
