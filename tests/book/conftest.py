"""Small books to build, and the real one in a browser."""

import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The book's extension is no installed package: Jupyter Book finds it by this path as well.
sys.path.append(str(ROOT / "book" / "_ext"))
SITE = ROOT / "build" / "book" / "html"

HEADER = """---
{extra}jupytext:
  text_representation:
    extension: .md
    format_name: myst
    format_version: 0.13
    jupytext_version: 1.19.6
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

"""


def page_text(body, *, extra=""):
    """Return a page with the header that every page with code has."""
    return HEADER.format(extra=extra) + body


def cell(code, *, tags=()):
    """Return a code cell of a page."""
    options = f":tags: [{', '.join(tags)}]\n" if tags else ""
    return f"```{{code-cell}} python3\n{options}{code}\n```\n\n"


@pytest.fixture
def pages(tmp_path):
    """Return a function that writes pages into a folder with a table of contents, and returns the folder."""

    def write(**texts):
        book = tmp_path / "book"
        book.mkdir(exist_ok=True)
        for name, text in texts.items():
            (book / f"{name}.md").write_text(text)
        first, *others = texts
        listed = "".join(f"  - file: {name}\n" for name in others)
        toc = f"format: jb-book\nroot: {first}\n" + (f"chapters:\n{listed}" if others else "")
        (book / "_toc.yml").write_text(toc)
        return book

    return write


def no_browser(reason):
    """Skip the test, saying what to do; in CI, where everything is installed, fail it."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def site():
    """Return the folder of the built book, if it was built from the sources that are there now."""
    done = SITE.with_name("html.built")
    if not done.is_file():
        no_browser("the book is not built; run: make book")
    folders = [ROOT / "book", ROOT / "exercises", ROOT / "solutions"]
    suffixes = {".md", ".py", ".yml", ".css", ".svg", ".bib", ".csv", ".html"}
    sources = [path for folder in folders for path in folder.rglob("*") if path.suffix in suffixes]
    newest = max([*sources, ROOT / "course.yml"], key=lambda path: path.stat().st_mtime)
    if newest.stat().st_mtime > done.stat().st_mtime:
        no_browser(f"the book is older than {newest.relative_to(ROOT)}; run: make book")
    return SITE


@pytest.fixture(scope="module")
def chromium():
    """Return a browser, started once a module: while it lives, no other test can run an event loop."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        no_browser("no Chromium found; on Debian or Ubuntu run: sudo apt-get install chromium")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()
