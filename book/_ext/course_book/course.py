"""The map, course.yml: titles and addresses are taken from there and from nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from sphinx.application import Sphinx
from sphinx.config import Config


def setup(app: Sphinx) -> None:
    """Read course.yml as soon as Sphinx knows where the sources are."""
    app.add_config_value("course_map", {}, "env", [dict])
    app.connect("config-inited", _read)


def root_of(app_or_env: Any) -> Path:
    """Return the checkout that the book's sources stand in."""
    return Path(app_or_env.srcdir).parent


def colab_url(course: dict[str, Any], path: str) -> str:
    """Return the address that opens a file of the release repository in Colab, or "" if there is none."""
    address = urlsplit(course.get("release_repository") or "")
    if address.netloc != "github.com":
        return ""
    return (
        f"https://colab.research.google.com/github{address.path.rstrip('/')}/blob/{course['branch']}/{path}"
    )


def binder_url(course: dict[str, Any], path: str) -> str:
    """Return the address that opens a file of the release repository in Binder, or "" if there is none."""
    address = urlsplit(course.get("release_repository") or "")
    if address.netloc != "github.com":
        return ""
    return f"https://mybinder.org/v2/gh{address.path.rstrip('/')}/{course['branch']}?labpath={path}"


def _read(app: Sphinx, config: Config) -> None:
    course = yaml.safe_load((root_of(app) / "course.yml").read_text(encoding="utf-8"))
    config.course_map = course
    config.project, config.author = course["title"], course["author"]
    config.html_title = course["title"]
    config.html_theme_options = config.html_theme_options | _repository_options(course)


def _repository_options(course: dict[str, Any]) -> dict[str, Any]:
    """Return the theme's options for the repository's buttons: none of them while there is no address."""
    known = bool(course["repository"])
    return {
        "repository_url": course["repository"],
        "repository_branch": course["branch"],
        "use_repository_button": known,
        "use_source_button": known,
        "use_issues_button": False,  # ours stands in the footer of each page, in words
    }
