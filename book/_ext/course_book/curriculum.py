"""The curriculum map: where every topic is taught, shown, coded and graded, or that it is not yet."""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from course_book.course import root_of
from coursekit.notebooks.course_map import Chapter, Topic, read_chapters, read_topics

_DOCUMENTS = {
    "what-is-a-model": "What is a model",
    "components": "Components of a large model",
    "knowledge-architecture": "Knowledge architecture of large models",
}
# Column and its share of the width.
_COLUMNS = {"Topic": 34, "Taught": 20, "Shown there": 26, "Coded": 12, "Graded": 8}
_NOT_YET = "not there yet"


def setup(app: Sphinx) -> None:
    """Register the directives of the curriculum page and of the map on the first page."""
    app.add_directive("curriculum-map", CurriculumMap)
    app.add_directive("chapter-map", ChapterMap)


class CurriculumMap(SphinxDirective):
    """A table for each document that the course follows."""

    def run(self) -> list[nodes.Node]:
        """Return the count, then a section with a table for each document."""
        root = root_of(self.env)
        table = root / "book" / "reference" / "curriculum.csv"
        for path in (table, root / "course.yml"):
            self.env.note_dependency(str(path))
        topics = read_topics(table)
        chapters = {chapter.slug: chapter for chapter in read_chapters(root)}
        there = sum(topic.chapter in chapters and chapters[topic.chapter].has_page for topic in topics)
        count = f"Today {there} of {len(topics)} topics have their chapter."
        result: list[nodes.Node] = [nodes.paragraph("", count)]
        for document in dict.fromkeys(topic.document for topic in topics):
            rows = [topic for topic in topics if topic.document == document]
            result.append(self._section(document, rows, chapters))
        return result

    def _section(self, document: str, topics: list[Topic], chapters: dict[str, Chapter]) -> nodes.Node:
        title = _DOCUMENTS.get(document, document)
        section = nodes.section("", nodes.title("", title), ids=[f"document-{document}"], names=[])
        body = nodes.tbody()
        for topic in topics:
            body += self._row(topic, chapters.get(topic.chapter))
        section += _table(body)
        return section

    def _row(self, topic: Topic, chapter: Chapter | None) -> nodes.Node:
        here = chapter is not None and chapter.has_page
        name = nodes.paragraph(
            "", "", nodes.strong("", topic.id, ids=[topic.label]), nodes.Text(f" {topic.text}")
        )
        std = self.env.get_domain("std")
        std.anonlabels[topic.label] = self.env.docname, topic.label
        std.labels[topic.label] = self.env.docname, topic.label, topic.id
        cells = [
            name,
            self._taught(topic, chapter),
            nodes.paragraph("", topic.shown, classes=[] if here else ["not-yet"]),
            self._coded(topic, chapter),
            self._graded(topic, chapter),
        ]
        return nodes.row("", *(nodes.entry("", cell) for cell in cells))

    def _taught(self, topic: Topic, chapter: Chapter | None) -> nodes.Node:
        if chapter is None or not chapter.has_page:
            return nodes.paragraph("", f"{topic.chapter}: {_NOT_YET}", classes=["not-yet"])
        return nodes.paragraph("", "", page_link(self.env.docname, chapter, chapter.title))

    def _coded(self, topic: Topic, chapter: Chapter | None) -> nodes.Node:
        if not topic.utility:
            return nodes.paragraph("", "in the page itself" if chapter and chapter.has_page else "")
        modules = chapter.modules_there if chapter else ()
        inside = [name for name in modules if name.startswith(topic.utility)]
        if not inside:
            return nodes.paragraph("", f"{topic.utility}: {_NOT_YET}", classes=["not-yet"])
        parts: list[nodes.Node] = []
        for name in inside:
            parts += [nodes.literal("", name), nodes.Text(" ")]
        return nodes.paragraph("", "", *parts)

    def _graded(self, topic: Topic, chapter: Chapter | None) -> nodes.Node:
        if chapter is None or not (chapter.has_exercise and chapter.has_page):
            return nodes.paragraph("", _NOT_YET if topic.exercise else "", classes=["not-yet"])
        return nodes.paragraph("", "", page_link(self.env.docname, chapter, "exercise"))


def _table(body: nodes.tbody) -> nodes.Node:
    group = nodes.tgroup("", cols=len(_COLUMNS))
    for width in _COLUMNS.values():
        group += nodes.colspec(colwidth=width)
    head = nodes.row("", *(nodes.entry("", nodes.paragraph("", name)) for name in _COLUMNS))
    group += nodes.thead("", head)
    group += body
    return nodes.table("", group, classes=["curriculum"])


class ChapterMap(SphinxDirective):
    """The chapters that are there, part by part, and how much of the curriculum they cover."""

    def run(self) -> list[nodes.Node]:
        """Return a list for each part that has a chapter, then a sentence about the rest."""
        root = root_of(self.env)
        for path in ("course.yml", "book/_toc.yml", "book/reference/curriculum.csv"):
            self.env.note_dependency(str(root / path))
        there = [chapter for chapter in read_chapters(root) if chapter.has_page]
        result: list[nodes.Node] = []
        for part in dict.fromkeys(chapter.part_title for chapter in there):
            result.append(nodes.paragraph("", "", nodes.strong("", part), classes=["part-title"]))
            items = [
                _chapter_item(self.env.docname, chapter) for chapter in there if chapter.part_title == part
            ]
            result.append(nodes.bullet_list("", *items, classes=["chapter-map"]))
        return [*result, self._rest(root, {chapter.slug for chapter in there})]

    def _rest(self, root: Path, there: set[str]) -> nodes.Node:
        topics = read_topics(root / "book" / "reference" / "curriculum.csv")
        covered = sum(topic.chapter in there for topic in topics)
        text = f"These chapters cover {covered} of the {len(topics)} topics of the curriculum. The "
        link = _doc_link(self.env.docname, "/reference/curriculum", "curriculum map")
        return nodes.paragraph(
            "", text, link, nodes.Text(" says of every topic where it is, or that it is not yet.")
        )


def _chapter_item(docname: str, chapter: Chapter) -> nodes.Node:
    link = page_link(docname, chapter, chapter.title)
    exercise = f" + {chapter.exercise_minutes} with its exercise" if chapter.has_exercise else ""
    facts = f" {chapter.read_minutes} minutes{exercise}, {chapter.device_name}"
    return nodes.list_item(
        "", nodes.paragraph("", "", link, nodes.inline("", facts, classes=["chapter-minutes"]))
    )


def page_link(docname: str, chapter: Chapter, text: str) -> nodes.Node:
    """Return a link to a chapter's page."""
    return _doc_link(docname, f"/{chapter.part}/{chapter.slug}", text)


def _doc_link(docname: str, target: str, text: str) -> nodes.Node:
    return addnodes.pending_xref(
        "", nodes.inline("", text), refdomain="std", reftype="doc", refexplicit=True,
        reftarget=target, refdoc=docname, refwarn=True,
    )  # fmt: skip
