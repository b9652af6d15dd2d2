"""The two boxes of a chapter: `chapter-box` at its top, `exercise-notebook` near its end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from course_book.course import binder_url, colab_url, root_of
from course_book.solutions import solution_page
from coursekit.notebooks.course_map import Chapter, read_chapters, read_topics

_LOG = logging.getLogger(__name__)
_SOLUTION_NOTE = "The reference solution. Try first: the visible tests tell you more than a look at it does."


def setup(app: Sphinx) -> None:
    """Register the directives."""
    app.add_directive("chapter-box", ChapterBox)
    app.add_directive("exercise-notebook", ExerciseNotebook)
    app.add_directive("when-released", WhenReleased)


class _ChapterDirective(SphinxDirective):
    required_arguments = 1
    has_content = True

    @property
    def root(self) -> Path:
        """The checkout."""
        return root_of(self.env)

    def chapter(self) -> Chapter:
        """Return the chapter that the argument names; an unknown slug is an error of the page."""
        self.env.note_dependency(str(self.root / "course.yml"))
        slug = self.arguments[0].strip()
        for chapter in read_chapters(self.root):
            if chapter.slug == slug:
                return chapter
        raise self.error(f"course.yml has no chapter {slug!r}")

    def parse(self, lines: Iterable[str], parent: nodes.Element) -> None:
        """Parse MyST lines into `parent`."""
        text = StringList(list(lines), source=self.get_source_info()[0])
        self.state.nested_parse(text, self.content_offset, parent)

    def warn(self, message: str) -> None:
        """Warn at the directive's line."""
        _LOG.warning(message, location=self.get_location(), type="course", subtype="exercise")


class ChapterBox(_ChapterDirective):
    """What the reader will be able to do and needs first, then minutes, device and topics from the map."""

    def run(self) -> list[nodes.Node]:
        """Return the box."""
        chapter = self.chapter()
        box = nodes.container(classes=["chapter-box"])
        self.state.nested_parse(self.content, self.content_offset, box)
        facts = nodes.container(classes=["chapter-facts"])
        facts += _fact("Reading", nodes.Text(f"{chapter.read_minutes} minutes"))
        if chapter.exercise_minutes:
            facts += _fact("Exercise", nodes.Text(f"{chapter.exercise_minutes} minutes"))
        facts += _fact("Runs on", nodes.Text(chapter.device_name))
        table = self.root / "book" / "reference" / "curriculum.csv"
        self.env.note_dependency(str(table))
        topics = [topic for topic in read_topics(table) if topic.chapter == chapter.slug]
        if topics:
            links = [
                label_link(self.env.docname, topic.id, topic.label, title=topic.text) for topic in topics
            ]
            facts += _fact("Topics", *_spaced(links))
        box += facts
        return [box]


class ExerciseNotebook(_ChapterDirective):
    """The exercise: download it, open it, launch it; the solution behind a click."""

    def run(self) -> list[nodes.Node]:
        """Return the box, or nothing but a warning while there is no notebook."""
        chapter = self.chapter()
        if not chapter.has_exercise:
            self.warn(f"the exercise {chapter.exercise} does not exist yet")
            return []
        box = nodes.container(classes=["exercise-box"], ids=[f"exercise-{chapter.slug.replace('_', '-')}"])
        box += nodes.paragraph(
            "", "", nodes.strong("", f"Exercise: {chapter.title}"), classes=["exercise-title"]
        )
        self.state.nested_parse(self.content, self.content_offset, box)
        facts = nodes.container(classes=["chapter-facts"])
        facts += _fact("Time", nodes.Text(f"{chapter.exercise_minutes} minutes"))
        facts += _fact("Notebook", *_spaced(self._links(chapter)))
        box += facts
        self.parse(_how_to_open(chapter), box)
        if self.config.course_solutions:
            self._add_solution(chapter, box)
        return [box]

    def _links(self, chapter: Chapter) -> list[nodes.Node]:
        path = chapter.exercise.as_posix()
        download = addnodes.download_reference("", "", nodes.Text("download"))
        download["reftarget"], download["refdoc"] = f"/../{path}", self.env.docname
        course: dict[str, Any] = self.config.course_map
        launch = {"open in Colab": colab_url, "open in Binder": binder_url}
        urls = {text: url(course, path) for text, url in launch.items()}
        return [download, *(_outside(text, url) for text, url in urls.items() if url)]

    def _add_solution(self, chapter: Chapter, box: nodes.Element) -> None:
        source = self.root / "solutions" / f"{chapter.slug}.py"
        self.env.note_dependency(str(source))
        if not source.is_file():
            self.warn(f"the solution {source.name} does not exist yet")
            return
        lines = ["::::::{dropdown} Solution", ":class-container: solution", "", _SOLUTION_NOTE, ""]
        self.parse([*lines, *solution_page(source), "::::::"], box)


def label_link(docname: str, text: str, label: str, *, title: str = "") -> nodes.Node:
    """Return a link to a label of the book."""
    link = addnodes.pending_xref(
        "", nodes.inline("", text, classes=["xref", "std", "std-ref"]),
        refdomain="std", reftype="ref", refexplicit=True, reftarget=label, refdoc=docname, refwarn=True,
    )  # fmt: skip
    link["reftitle"] = title
    return link


def _how_to_open(chapter: Chapter) -> list[str]:
    copy = f"{chapter.slug}/{chapter.slug}.ipynb"
    return [
        f"`make lab` opens your own copy, `{copy}`, in JupyterLab; `coursekit check work/{copy}` runs the "
        "visible tests and counts your points.",
        "",
    ]


def _fact(name: str, *value: nodes.Node) -> nodes.Node:
    return nodes.paragraph("", "", nodes.strong("", name), nodes.Text(" "), *value)


def _spaced(parts: list[nodes.Node]) -> list[nodes.Node]:
    spaced: list[nodes.Node] = []
    for part in parts:
        spaced += [nodes.Text(", "), part] if spaced else [part]
    return spaced


def _outside(text: str, url: str) -> nodes.Node:
    return nodes.reference("", text, refuri=url, internal=False)


class WhenReleased(SphinxDirective):
    """Text that is true only once course.yml has a release repository; it starts with its own heading."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the text as a section, or nothing."""
        if not self.config.course_map.get("release_repository"):
            return []
        title = self.content[0].lstrip("# ")
        section = nodes.section("", nodes.title("", title), ids=[nodes.make_id(title)])
        self.state.nested_parse(self.content[1:], self.content_offset + 1, section)
        return [section]
