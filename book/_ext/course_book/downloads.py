"""Each page with code is offered as a notebook: its source and the outputs of the build."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def setup(app: Sphinx) -> None:
    """Put the notebook beside the page's source before the theme makes its download menu (priority 501)."""
    app.connect("html-page-context", _offer, priority=400)


def _offer(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Copy the notebook that MyST-NB wrote, and name it for the download menu."""
    if "kernelspec" not in app.env.metadata.get(pagename, {}):
        return
    made = Path(app.outdir).parent / "jupyter_execute" / f"{pagename}.ipynb"
    offered = Path(app.outdir) / "_sources" / f"{pagename}.ipynb"
    offered.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(made, offered)
    context["ipynb_source"] = f"{pagename}.ipynb"
