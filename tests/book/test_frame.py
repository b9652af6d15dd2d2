"""A small book built as the real one is: its boxes, tabs, notebooks, addresses, and solutions left out."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from coursekit.notebooks.book import BookError, build_book
from tests.book.conftest import ROOT, cell, page_text

SOURCE = '''# ---
# coursekit:
#   title: Gradient accumulation
# ---

# %% [markdown]
# # Gradient accumulation

# %% nbgrader="solution" grade_id="double"
def double(x):
    """Return twice x."""
    ### BEGIN SOLUTION
    return x + x  # canary-code
    ### END SOLUTION

# %% nbgrader="tests" grade_id="test_double" points=1
assert double(2) == 4

# %% nbgrader="tests" grade_id="test_double_hidden" points=1
# Graded with other numbers.
### BEGIN HIDDEN TESTS
assert double(77) == 154  # canary-hidden
### END HIDDEN TESTS

# %% [markdown] nbgrader="answer" grade_id="why" points=2
# Say why.
#
# ### BEGIN SOLUTION
# Because of canary-answer.
# ### END SOLUTION
'''
PAGE = page_text(
    "# Gradient accumulation\n\n```{chapter-box} gradient_accumulation\nYou will be able to **add**.\n```\n\n"
    "Text with $x^2$.\n\n"
    + cell("print('from torch')", tags=["tab-pytorch"])
    + cell("print('also torch')", tags=["tab-pytorch"])
    + cell("print('from tf')", tags=["tab-tensorflow"])
    + "## Exercise\n\n```{exercise-notebook} gradient_accumulation\n```\n"
)
TOC = """format: jb-book
root: index
parts:
- caption: Chapters
  chapters:
  - file: scale/gradient_accumulation
- caption: Reference
  chapters:
  - file: reference/curriculum
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout with one chapter and its exercise, and the real frame around it."""
    book = tmp_path / "book"
    shutil.copytree(ROOT / "book" / "_ext", book / "_ext", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "book" / "_static", book / "_static", ignore=shutil.ignore_patterns("diagrams"))
    shutil.copy(ROOT / "course.yml", tmp_path / "course.yml")
    exercise = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("the learner's notebook", id="a")]
    )
    texts = {
        "book/_toc.yml": TOC,
        "book/index.md": "# Start\n\n```{chapter-map}\n```\n",
        "book/references.bib": "",
        "book/scale/gradient_accumulation.md": PAGE,
        "book/reference/curriculum.md": "# Curriculum map\n\n```{curriculum-map}\n```\n",
        "solutions/gradient_accumulation.py": SOURCE,
        "exercises/gradient_accumulation/gradient_accumulation.ipynb": nbformat.writes(exercise),
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    shutil.copy(ROOT / "book" / "_config.yml", book)
    shutil.copy(ROOT / "book" / "reference" / "curriculum.csv", book / "reference")
    return tmp_path


def build(checkout, **options):
    return build_book(checkout / "book", checkout / "build", report=lambda line: None, **options)


def read(site, name="scale/gradient_accumulation"):
    return (site / f"{name}.html").read_text()


def files_with(folder: Path, word: str) -> list[str]:
    """Return the files below a folder that hold the word, in any place where a reader could find it."""
    return [
        str(p.relative_to(folder))
        for p in folder.rglob("*")
        if p.is_file() and word.encode() in p.read_bytes()
    ]


def test_a_page_has_its_box_its_tabs_and_its_exercise(checkout):
    site = build(checkout)
    html = read(site)
    assert "35 minutes" in html
    assert '<a class="reference internal" href="../reference/curriculum.html#topic-a14"' in html
    assert 'id="topic-a14"' in read(site, "reference/curriculum")
    # Two cells of one name are one tab; the label belongs to a radio button, so it works without a script.
    labels = re.findall(r'<label [^>]*for="([\w-]+)"[^>]*>\s*(\w+)</label>', html)
    assert [name for _, name in labels] == ["PyTorch", "TensorFlow"]
    assert all(f'id="{target}"' in html for target, _ in labels)
    panels = html.split('<div class="sd-tab-content')[1:]
    assert "also torch" in panels[0]
    assert "from tf" not in panels[0]
    download = re.search(r'href="\.\./(_downloads/[^"]+/gradient_accumulation\.ipynb)"', html)
    assert json.loads((site / download[1]).read_text())["cells"][0]["source"] == ["the learner's notebook"]


def test_the_solution_is_behind_a_click_and_hidden_tests_are_nowhere(checkout):
    site = build(checkout)
    details = read(site).split("<details")[1].split("</details>")[0]
    assert "Solution" in details.split("</summary>")[0]
    assert "canary-code" in details
    assert "canary-answer" in details
    assert "BEGIN SOLUTION" not in details
    assert files_with(checkout / "build", "canary-hidden") == []


def test_a_book_without_solutions_holds_nothing_of_them(checkout):
    with_them = build(checkout)
    without = build(checkout, solutions=False)
    assert without != with_them
    for canary in ("canary-code", "canary-answer", "x + x", "canary-hidden"):
        assert files_with(without, canary) == []
    # The control: the same search finds them where they are, in the page and in what a search reads.
    assert "scale/gradient_accumulation.html" in files_with(with_them, "canary-code")
    assert "searchindex.js" in files_with(with_them, "canari")
    assert "gradient_accumulation.ipynb" in read(without)


def test_the_environment_variable_leaves_solutions_out_as_well(checkout, monkeypatch):
    from typer.testing import CliRunner

    from coursekit.cli import app

    monkeypatch.setenv("COURSE_SOLUTIONS", "0")
    arguments = ["book", "build", "--book", str(checkout / "book"), "--output", str(checkout / "build")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert files_with(checkout / "build", "canary-code") == []


def test_a_missing_exercise_a_dead_link_and_an_unknown_chapter_stop_the_build(checkout, capfd):
    page = checkout / "book" / "scale" / "gradient_accumulation.md"
    shutil.rmtree(checkout / "exercises")
    page.write_text(PAGE + "\n[nowhere](never.md)\n\n```{chapter-box} unknown_slug\nx\n```\n")
    with pytest.raises(BookError):
        build(checkout)
    warnings = capfd.readouterr().err
    assert "gradient_accumulation.ipynb does not exist yet" in warnings
    assert "never.md" in warnings
    assert "course.yml has no chapter 'unknown_slug'" in warnings


def test_what_a_page_writes_to_stderr_stops_the_build(checkout):
    (checkout / "book" / "index.md").write_text(
        page_text("# Start\n\n" + cell("import sys\nprint('!', file=sys.stderr)"))
    )
    with pytest.raises(BookError):
        build(checkout)


def test_addresses_show_only_once_the_map_has_them(checkout):
    html = read(build(checkout))
    assert "Report a problem" not in html
    assert "olab" not in html
    course = (checkout / "course.yml").read_text()
    for key, name in {"\nrepository": "models", "\nrelease_repository": "learners"}.items():
        course = course.replace(f'{key}: ""', f'{key}: "https://github.com/someone/{name}"')
    (checkout / "course.yml").write_text(course)
    html = read(build(checkout))
    issue = "https://github.com/someone/models/issues/new?title=Page%20scale/gradient_accumulation"
    assert f'<a href="{issue}">Report a problem with this page</a>' in html
    notebook = "exercises/gradient_accumulation/gradient_accumulation.ipynb"
    assert f"https://colab.research.google.com/github/someone/learners/blob/main/{notebook}" in html
    assert f"https://mybinder.org/v2/gh/someone/learners/main?labpath={notebook}" in html
    assert "someone/models/blob/main/solutions" not in html


def test_a_page_is_offered_as_a_notebook_that_opens(checkout):
    site = build(checkout)
    assert 'href="../_sources/scale/gradient_accumulation.ipynb"' in read(site)
    notebook = nbformat.read(site / "_sources" / "scale" / "gradient_accumulation.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert code[0].outputs[0].text == "from torch\n"
    assert not any("{chapter-box}" in c.source for c in notebook.cells)
    # A page without code offers none.
    assert "_sources/index.ipynb" not in read(site, "index")


def test_new_outputs_reach_the_page_although_its_text_stayed(checkout):
    from coursekit.notebooks.pages import read_page

    site = build(checkout)
    page = checkout / "book" / "scale" / "gradient_accumulation.md"
    kept = checkout / "build" / "pages" / f"{read_page(page.read_text()).key}.ipynb"
    assert "from torch" in read(site)
    kept.write_text(kept.read_text().replace("from torch", "from thirch"))
    build(checkout)
    assert "from torch" in read(site)  # the control: the key stayed, nothing is read again
    page.write_text(PAGE.replace("print('from torch')", "print('from ' + 'tarch')"))
    build(checkout)
    assert "from tarch" in read(site)


def test_translators_get_every_page_and_no_page_is_run(checkout):
    pots = build(checkout, builder="gettext")
    text = (pots / "scale" / "gradient_accumulation.pot").read_text()
    assert 'msgid "You will be able to **add**."' in text
    assert 'msgid "Text with $x^2$."' in text
    assert not (checkout / "build" / "pages").exists()


def test_a_second_build_writes_no_page(checkout):
    # Processes of their own, as `make book` has them: Jupyter Book keeps state within one.
    program = [Path(sys.executable).with_name("coursekit"), "book", "build", "--output", "build"]
    subprocess.run(program, cwd=checkout, check=True, capture_output=True)
    before = {path: path.stat().st_mtime_ns for path in (checkout / "build" / "html").rglob("*.html")}
    second = subprocess.run(program, cwd=checkout, check=True, capture_output=True, text=True)
    assert "nothing to run" in second.stdout
    assert {path.name for path in before if path.stat().st_mtime_ns != before[path]} == set()
