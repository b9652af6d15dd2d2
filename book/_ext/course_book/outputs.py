"""Pages are read together with the outputs that `coursekit book build` computed before."""

from __future__ import annotations

from pathlib import Path

from myst_nb.core.read import is_myst_markdown_notebook
from nbformat import NotebookNode
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from coursekit.notebooks.pages import load_outputs, read_page

_LOG = logging.getLogger(__name__)


def setup(app: Sphinx) -> None:
    """Put our reader before MyST-NB's, and read again what has other outputs than last time."""
    app.add_config_value("course_drafts", [], "", [list])
    app.connect("config-inited", _use_reader, priority=100)
    app.connect("env-get-outdated", _outdated)


def read(text: str, *, store: str, preview: bool) -> NotebookNode:
    """Return the notebook of a page with its outputs (without, in a preview of another page)."""
    page = read_page(text)
    if not is_myst_markdown_notebook(text):
        # A page without code: it keeps no kernelspec, so the theme offers no notebook of it.
        return page.notebook
    if store and not load_outputs(page, Path(store)) and not preview:
        title = next((line for line in text.split("\n") if line.startswith("# ")), "a page")
        problem = f"{title!r} or code that it imports changed since pages were run: build the book again"
        _LOG.warning(problem, type="course", subtype="outputs")
    return page.notebook


def _use_reader(app: Sphinx, config: Config) -> None:
    options = {"store": config.course_outputs, "preview": config.course_preview}
    config.exclude_patterns = [*config.exclude_patterns, *(f"{name}.md" for name in config.course_drafts)]
    config.nb_custom_formats = {".md": ["course_book.outputs.read", options]}


def _outdated(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Return the pages whose outputs are other ones than last time: the code they import changed."""
    keys: dict[str, str] = getattr(env, "course_page_keys", {})
    env.course_page_keys = {
        name: read_page(Path(env.doc2path(name)).read_text(encoding="utf-8")).key for name in env.found_docs
    }
    return [name for name, key in env.course_page_keys.items() if keys.get(name) != key]
