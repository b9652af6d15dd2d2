"""Building the book: pages run first, then Sphinx reads what they gave."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from coursekit.errors import CoursekitError
from coursekit.notebooks.course_map import listed_pages
from coursekit.notebooks.pages import Report, execute_pages


class BookError(CoursekitError, RuntimeError):
    """Sphinx gave warnings or stopped."""


def build_book(
    book: Path,
    output: Path,
    *,
    names: Sequence[str] = (),
    workers: int = 2,
    solutions: bool = True,
    builder: str = "html",
    report: Report = print,
) -> Path:
    """Run the pages of `book` that need it, build the site, and return its folder.

    Everything made lies below `output`: `pages/` keeps outputs, `html/` is the site. A book without solutions
    goes to `no-solutions/html/`, one of single pages to `preview/html/`, so that none spoils another.

    Args:
        book: the folder of the sources, with `_config.yml` and `_toc.yml`.
        output: the folder for all that is made.
        names: build a preview in which only these pages ("scale/data_parallel") have run.
        workers: pages that run at the same time.
        solutions: False leaves every solution out of everything that is written.
        builder: Sphinx's builder; "gettext" runs no page.
        report: is called with a line of text as each page ends.
    Raises: PageError if a cell raised; BookError if Sphinx warned.
    """
    if builder == "html":
        execute_pages(book, output / "pages", names=names, workers=workers, report=report)
    # MyST-NB writes beside the site, so each kind of site has a folder of its own.
    kind = "preview" if names else "" if solutions else "no-solutions"
    site = output / kind / builder
    options = {
        "nitpicky": True,
        "course_outputs": str((output / "pages").resolve()),
        "course_solutions": solutions,
        # A preview of one page, and what translators get, show other pages without outputs.
        "course_preview": bool(names) or builder != "html",
        # A preview may show a page that the table of contents does not list yet, but not all of the others.
        "external_toc_exclude_missing": not names,
        "course_drafts": sorted(_drafts(book) - set(names)) if names else [],
    }
    done = site.with_name(f"{site.name}.built")
    done.unlink(missing_ok=True)
    _sphinx(book.resolve(), site.resolve(), builder=builder, options=options, strict=not names)
    done.touch()  # its time says which sources the site was made from
    return site


def _drafts(book: Path) -> set[str]:
    """Return the pages that the table of contents does not list."""
    pages = {path.relative_to(book).with_suffix("").as_posix() for path in book.rglob("*.md")}
    return pages - set(listed_pages(book))


def _sphinx(book: Path, site: Path, *, builder: str, options: dict[str, object], strict: bool) -> None:
    from jupyter_book.sphinx import build_sphinx

    # Doctrees of one kind must not be read by another: solutions and outputs stand in them.
    doctrees = site.parent / ".doctrees" / site.name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # the API page imports coursekit.tf
    status = build_sphinx(
        book,
        site,
        noconfig=True,
        path_config=book / "_config.yml",
        confoverrides={"latex_individualpages": False, **options},
        doctreedir=doctrees,
        builder=builder,
        warningiserror=strict,
        keep_going=True,
        quiet=True,
    )
    if isinstance(status, BaseException):
        raise BookError(f"Sphinx stopped: {status}")
    if status:
        raise BookError("Sphinx gave the warnings above; each is an error")
