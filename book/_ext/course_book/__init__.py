"""What the book needs beyond Jupyter Book: outputs run before, our directives, one place for addresses."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

from course_book import (
    api,
    assets,
    course,
    curriculum,
    directives,
    downloads,
    outputs,
    planner,
    sidebar,
    tabs,
)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the parts; each module says what it adds."""
    app.add_config_value("course_outputs", "", "")
    app.add_config_value("course_solutions", True, "env", [bool])
    app.add_config_value("course_preview", False, "", [bool])
    # Jupyter Book always sets it; the extension that it belongs to is left out on purpose.
    app.add_config_value("comments_config", {}, "")
    for part in (api, course, outputs, assets, directives, curriculum, tabs, downloads, planner, sidebar):
        part.setup(app)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True, "env_version": 1}
