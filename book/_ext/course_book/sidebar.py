"""The list of pages: a button that unfolds the pages below one says so to those who cannot see its arrow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def setup(app: Sphinx) -> None:
    """Take over what the theme offers its templates, once it is there."""
    app.connect("html-page-context", _name_buttons, priority=900)


def _name_buttons(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    if theirs := context.get("generate_toctree_html"):
        context["generate_toctree_html"] = _named(theirs)


def _named(generate: Callable[..., Any]) -> Callable[..., Any]:
    def generate_toctree_html(*arguments: Any, **options: Any) -> Any:
        tree = generate(*arguments, **options)
        if hasattr(tree, "select"):  # text where there are no pages
            for summary in tree.select("li.has-children > details > summary"):
                link = summary.find_parent("li").find("a")
                if not summary.get_text(strip=True) and link:
                    summary["aria-label"] = f"Pages below {link.get_text(strip=True)}"
        return tree

    return generate_toctree_html
