"""The map, course.yml: titles and addresses are taken from there and from nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config


def setup(app: Sphinx) -> None:
    """Read course.yml as soon as Sphinx knows where the sources are."""
    app.add_config_value("course_map", {}, "env", [dict])
    app.connect("config-inited", _read)
    app.connect("html-page-context", _offer_report)


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
    config.templates_path = [*config.templates_path, str(Path(__file__).parent / "templates")]
    config.html_theme_options = config.html_theme_options | _repository_options(course)


def report_url(course: dict[str, Any], page: str) -> str:
    """Return the address where a reader reports a problem with `page`, or "" while there is no repository."""
    repository = (course.get("repository") or "").rstrip("/")
    if not repository:
        return ""
    title = quote(f"Page {page}")
    if urlsplit(repository).netloc == "gitlab.com":
        return f"{repository}/-/issues/new?issue[title]={title}"
    return f"{repository}/issues/new?title={title}"


def _offer_report(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    context["course_report_url"] = report_url(app.config.course_map, pagename)


def _repository_options(course: dict[str, Any]) -> dict[str, Any]:
    """Return the theme's options for the repository's buttons: none of them while there is no address."""
    # The theme stops the build at hosts that it does not know; the reader's link in the footer works for all.
    known = urlsplit(course["repository"] or "").netloc in {"github.com", "gitlab.com", "bitbucket.org"}
    return {
        "repository_url": course["repository"] if known else "",
        "repository_branch": course["branch"],
        "use_repository_button": known,
        "use_source_button": known,
    }
