"""The feedback page: nbgrader's, but as one file that loads nothing from the network and holds no script."""

from __future__ import annotations

import functools
import html
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils.utils.math.latex2mathml import tex2mathml
from jinja2 import pass_context
from nbconvert.exporters import HTMLExporter, TemplateExporter
from nbconvert.filters.highlight import Highlight2HTML
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.filters.widgetsdatatypefilter import WidgetsDataTypeFilter
from traitlets.config import Config

TEMPLATES = Path(__file__).with_name("templates")
# A formula is converted by recursion; nobody writes one this long.
MAX_FORMULA_CHARACTERS = 2000
# Markdown is parsed by searches that can take the square of its length; an essay is shorter.
MAX_MARKDOWN_CHARACTERS = 10_000
MAX_KEPT_CELLS, MAX_CODE_CHARACTERS, MAX_LINE_CHARACTERS = 128, 20_000, 1000
# Code is coloured by searches that start again at each of many empty lines.
_BLANKS = re.compile(r"\s{500}")
_NO_ALT = re.compile(r"<img(?=\s)(?![^>]*\salt=)")
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")


class FeedbackPage(HTMLExporter):
    """Exports a graded notebook as HTML that needs no network; formulas are MathML, which browsers show.

    `c.GenerateFeedback.exporter_class` names it, so that `nbgrader generate_feedback` writes the same pages.
    """

    def __init__(self, **options: Any) -> None:
        self._highlighters: dict[str | None, Callable[..., str]] = {}
        super().__init__(**options)

    @property
    def default_config(self) -> Config:
        """Our template, above nbgrader's; in a section of our own because nbgrader sets HTMLExporter's."""
        spec = importlib.util.find_spec("nbgrader")
        theirs = Path(spec.origin).parent / "server_extensions" / "formgrader" / "templates"
        ours = Config(
            {
                "FeedbackPage": {
                    "template_name": "coursekit_feedback",
                    "extra_template_basedirs": [str(TEMPLATES), str(theirs)],
                    "extra_template_paths": [str(theirs)],
                    "filters": {},  # those of HTMLExporter are the formgrader's
                }
            }
        )
        ours.merge(super().default_config)
        return ours

    def from_notebook_node(
        self, nb: Any, resources: dict[str, Any] | None = None, **options: Any
    ) -> tuple[str, dict[str, Any]]:
        """Return the page and resources.

        HTMLExporter also parses the page that it has made, which takes as long as all the rest, to mark up
        cells of JupyterLab's template; ours has none. What remains is a text for pictures.
        """
        language = nb.metadata.get("language_info", {})
        lexer = language.get("pygments_lexer", language.get("name"))
        resources = self._init_resources(resources)
        self.register_filter("highlight_code", self._highlighter(lexer))
        self.register_filter(
            "filter_data_type",
            WidgetsDataTypeFilter(notebook_metadata=self._nb_metadata, parent=self, resources=resources),
        )
        page, resources = TemplateExporter.from_notebook_node(self, nb, resources, **options)
        return _NO_ALT.sub('<img alt="picture without a description"', page), resources

    def _highlighter(self, lexer: str | None) -> Callable[..., str]:
        """Return a function from code to HTML that remembers: most cells are the same for all students."""
        if lexer not in self._highlighters:
            highlight = Highlight2HTML(pygments_lexer=lexer, parent=self)
            kept = functools.lru_cache(MAX_KEPT_CELLS)(highlight)

            def highlighted(source: str, language: str | None = None, metadata: Any = None) -> str:
                # What colours code searches, too, in the square of a line's length.
                longest = max(map(len, source.split("\n")))
                long = len(source) > MAX_CODE_CHARACTERS or longest > MAX_LINE_CHARACTERS
                if long or _BLANKS.search(source):
                    return f'<div class="highlight"><pre>{html.escape(source)}</pre></div>'
                plain = "magics_language" not in (metadata or {})
                return kept(source, language) if plain else highlight(source, language, metadata)

            self._highlighters[lexer] = highlighted
        return self._highlighters[lexer]

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """Return Markdown as HTML; what a student wrote has no HTML of its own."""
        return _render(PageRenderer, context.get("cell", {}), source)


def given_markdown(source: str) -> str:
    """Return an instructor's Markdown as HTML, its formulas as MathML."""
    return _render(PageRenderer, {}, source)


@pass_context
def clean_markdown(context: Any, source: str) -> str:
    """Return Markdown as HTML for the formgrader, which shows a student's HTML as it is if nothing is done.

    A course's `c.HTMLExporter.filters` names it in the place of `markdown2html`.
    """
    return _render(CleanRenderer, context.get("cell", {}), source)


class CleanRenderer(IPythonRenderer):
    """Markdown to HTML: pictures only from the notebook itself, and nothing that a script would draw."""

    def block_mermaidjs(self, code: str) -> str:
        """Return a diagram's source: nbconvert would put it into the page as HTML, for a script to draw."""
        return f"<pre>{html.escape(code)}</pre>"

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """Return a picture that the notebook holds; of any other only what it is called."""
        held = self.attachments.get(url.removeprefix("attachment:"), {})
        kind = next((kind for kind in _PICTURES if kind in held), None)
        source = f"data:{kind};base64,{held[kind]}" if kind else url
        alt = html.escape(text)
        if source.startswith(tuple(f"data:{kind};base64," for kind in _PICTURES)):
            return f'<img src="{html.escape(source)}" alt="{alt}" />'
        return f"<em>[picture: {alt or html.escape(url)}]</em>"


class PageRenderer(CleanRenderer):
    """The same with formulas as MathML, for a page without scripts."""

    def inline_math(self, body: str) -> str:
        """Return a formula of the text."""
        return formula(body)

    def block_math(self, body: str) -> str:
        """Return a formula of its own line."""
        return formula(body, block=True)

    def latex_environment(self, name: str, body: str) -> str:
        """Return an environment such as `align`."""
        return formula(rf"\begin{{{name}}}{body}\end{{{name}}}", block=True)


def formula(tex: str, *, block: bool = False) -> str:
    r"""Return TeX as MathML, or as the TeX it is where it cannot be converted.

    >>> formula("a<b").replace("\n", "").replace(" ", "")
    '<mathxmlns="http://www.w3.org/1998/Math/MathML"><mi>a</mi><mo>&lt;</mo><mi>b</mi></math>'
    >>> formula(r"\nosuch{<b>}")
    '<code>\\nosuch{&lt;b&gt;}</code>'
    """
    try:
        if len(tex) <= MAX_FORMULA_CHARACTERS:
            return tex2mathml(tex, as_block=block)
    except Exception:  # a student writes what they like, and the converter trips over much of it
        pass
    return f"<code>{html.escape(tex)}</code>"


def _render(kind: type[CleanRenderer], cell: Any, source: str) -> str:
    by_student = bool(cell.get("metadata", {}).get("nbgrader", {}).get("solution"))
    if by_student:  # `HideHiddenTests` escaped it for templates other than ours
        source = source.replace("&lt;", "<")
        if len(source) > MAX_MARKDOWN_CHARACTERS:
            return f"<pre>{html.escape(source)}</pre>"
    renderer = kind(
        escape=by_student,
        allow_harmful_protocols=False,
        exclude_anchor_links=True,
        attachments=cell.get("attachments", {}),
    )
    return MarkdownWithMath(renderer=renderer).render(source)
