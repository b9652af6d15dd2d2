"""A page downloaded as a notebook shows text, not directives."""

import nbformat
import pytest
from course_book.plain_markdown import plain_markdown, plain_notebook


@pytest.mark.parametrize(
    ("myst", "plain"),
    [
        ("(a-label)=\n## Title", "## Title"),
        ("a {term}`rank`, {eq}`eq-one`, {cite}`li2020`", "a rank, (eq-one), [li2020]"),
        ("{ref}`the map <topic-a14>` {doc}`/scale/data_parallel`", "the map data parallel"),
        ("$$ a = b $$ (eq-one)", "$$ a = b $$"),
        ("```{chapter-box} slug\nYou need *this*.\n```", "> You need *this*."),
        (":::{note}\nMind.\n:::", "> **Note**\n>\n> Mind."),
        ("```{dropdown} Answer\nFour.\n```", "<details>\n<summary>Answer</summary>\n\nFour.\n\n</details>"),
        ("```{figure} a.svg\n:alt: Ring.\n\nA {term}`ring`.\n```", "![Ring.](a.svg)\n\nA ring."),
        ("```python\nx = {term}  # `kept`\n{eq}`x`\n```", "```python\nx = {term}  # `kept`\n{eq}`x`\n```"),
        ("::::{grid} 2\n:::{grid-item}\nin\n:::\n::::", "in"),
    ],
)
def test_myst_becomes(myst, plain):
    assert plain_markdown(myst) == plain


def test_pictures_travel_inside_the_notebook(tmp_path):
    (tmp_path / "x.svg").write_text("<svg/>")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("![A ring](/x.svg)")])
    notebook.metadata["source_map"] = [0]
    changed = plain_notebook(notebook, folder=tmp_path / "elsewhere", book=tmp_path)
    nbformat.validate(changed)
    assert changed.cells[0].source == "![A ring](attachment:x.svg)"
    assert changed.cells[0].attachments["x.svg"]["image/svg+xml"] == "PHN2Zy8+"
    assert "source_map" not in changed.metadata
