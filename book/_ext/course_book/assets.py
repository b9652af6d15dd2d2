"""Everything that a page loads lies in the site: it opens from a disk with the network off."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError

# Not in _static: Jupyter Book would load each of MathJax's files as a script on every page.
_MATHJAX = "../mathjax/tex-mml-chtml.js"


def setup(app: Sphinx) -> None:
    """Bring MathJax and the book's style sheet into the site."""
    app.connect("config-inited", _use_mathjax)
    app.add_css_file("course.css", priority=900)


def mathjax_folder() -> Path:
    """Return the folder of the installed sphinx-mathjax-offline that holds `mathjax/`."""
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None or not spec.submodule_search_locations:
        raise ExtensionError(
            "sphinx-mathjax-offline is not installed; it comes with: pip install 'coursekit[book]'"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "static"


def _use_mathjax(app: Sphinx, config: Config) -> None:
    config.mathjax_path = _MATHJAX
    config.html_extra_path = [*config.html_extra_path, str(mathjax_folder())]
