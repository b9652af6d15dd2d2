"""Each page with code is offered as a notebook: its text in plain Markdown, its cells, their outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from sphinx.application import Sphinx

from course_book.plain_markdown import plain_notebook


def setup(app: Sphinx) -> None:
    """Put the notebook beside the page's source before the theme makes its download menu (priority 501)."""
    app.connect("html-page-context", _offer, priority=400)


def _offer(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Write the notebook made from what MyST-NB read, and name it for the download menu."""
    if "kernelspec" not in app.env.metadata.get(pagename, {}):
        return
    read = nbformat.read(Path(app.outdir).parent / "jupyter_execute" / f"{pagename}.ipynb", as_version=4)
    offered = Path(app.outdir) / "_sources" / f"{pagename}.ipynb"
    offered.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(app.env.doc2path(pagename)).parent
    nbformat.write(plain_notebook(read, folder=folder, book=Path(app.srcdir)), offered)
    context["ipynb_source"] = f"{pagename}.ipynb"
