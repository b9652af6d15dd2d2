"""The built book in a real browser, from the disk, with the network watched."""

import csv
import functools
import json
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe

from coursekit.notebooks.course_map import listed_pages
from tests.book.conftest import ROOT

pytestmark = pytest.mark.browser
PAGES = listed_pages(ROOT / "book")
ALLOWED = list(csv.DictReader(Path(__file__).with_name("axe_allowed.csv").read_text("utf-8").splitlines()))


class Visit:
    """A page opened from the disk; remembers what it asked for and complained about."""

    def __init__(self, chromium, address, *, width=1280, mode="light", block=False):
        self.context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=mode)
        setting = f"for (const key of ['mode', 'theme']) localStorage.setItem(key, '{mode}');"
        self.context.add_init_script(
            f"try {{ if (!localStorage.getItem('mode')) {{ {setting} }} }} catch (e) {{}}"
        )
        self.page = self.context.new_page()
        self.outside, self.errors = [], []
        self.page.on("request", lambda request: self._note(request.url))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("requestfailed", lambda request: self.errors.append(f"failed: {request.url}"))
        self.page.goto(address)
        self.page.wait_for_load_state("load")
        # MathJax works after the page has loaded; its promise ends when every formula is set.
        self.page.evaluate(
            "async () => { if (window.MathJax?.startup?.promise) await MathJax.startup.promise }"
        )

    def _note(self, url):
        if urlsplit(url).scheme not in {"file", "data", "blob", "about"}:
            self.outside.append(url)

    def close(self):
        self.context.close()


@pytest.fixture
def visit(chromium, site):
    """Return a function that opens a page of the book."""
    visits = []

    def open_page(name, **options):
        visits.append(Visit(chromium, (site / f"{name}.html").as_uri(), **options))
        return visits[-1]

    yield open_page
    for each in visits:
        each.close()


@pytest.fixture(scope="module")
def opened(request, chromium, site):
    """Return the page that the test is parametrized by, opened once for all tests that only look at it."""
    visit = Visit(chromium, (site / f"{request.param}.html").as_uri())
    yield visit
    visit.close()


def each_page(names=PAGES):
    """Run a test for each page; pytest puts the tests of a page after each other."""
    return pytest.mark.parametrize("opened", names, indirect=True, scope="module")


@each_page()
def test_a_page_opens_from_disk_without_a_request_or_an_error(opened):
    assert opened.outside == []
    assert opened.errors == []


def test_the_watch_sees_a_request_and_an_error(chromium, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        "<title>x</title><img src='http://127.0.0.1:9/a.png'><script>throw Error('planted')</script>".strip()
    )
    opened = Visit(chromium, page.as_uri())
    opened.page.wait_for_timeout(200)
    assert opened.outside == ["http://127.0.0.1:9/a.png"]
    assert any("planted" in error for error in opened.errors)
    opened.close()


def ask_axe(opened, **options):
    """Return what axe finds, one row a node. It takes twice the time if it describes what is well, too."""
    found = Axe().run(opened.page, options={"resultTypes": ["violations"], **options}).response["violations"]
    return [(v["id"], " ".join(map(str, n["target"])), n["html"][:160]) for v in found for n in v["nodes"]]


# An element without others in it looks like an earlier one if its text has the same colour, size and weight
# and if what is behind it, element by element up to the page, has the same colours.
MARK_REPEATED_LOOKS = """() => {
    const seen = new Set();
    for (const element of document.querySelectorAll('body *')) {
        // Of a single letter axe says that it cannot tell.
        if (element.firstElementChild || element.textContent.trim().length < 2) continue;
        if (!element.checkVisibility({ visibilityProperty: true })) continue;
        const { color, fontSize, fontWeight } = getComputedStyle(element);
        let look = `${color} ${fontSize} ${fontWeight}`;
        for (let each = element; each; each = each.parentElement) {
            const { backgroundColor, backgroundImage, opacity, position } = getComputedStyle(each);
            look += ` on ${backgroundColor} ${backgroundImage} ${opacity} ${position}`;
        }
        if (seen.has(look)) element.dataset.repeated = '';
        seen.add(look);
    }
}"""


def faint(opened):
    """Return the elements with too little contrast, asking once for each look.

    This rule takes longer than all others together, and a page has thousands of words in a few dozen looks.
    """
    opened.page.evaluate(MARK_REPEATED_LOOKS)
    hiding = opened.page.add_style_tag(content="[data-repeated] { visibility: hidden }")
    found = ask_axe(opened, runOnly=["color-contrast"])
    hiding.evaluate("style => style.remove()")
    return found


def not_allowed(rows):
    """Return the rows that no row of the committed list allows."""
    return [row for row in rows if not any(a["rule"] == row[0] and a["selector"] in row[1] for a in ALLOWED)]


def violations(opened):
    """Return what axe finds by all its rules, less the rows of the committed list."""
    found = ask_axe(opened, rules={"color-contrast": {"enabled": False}})
    return not_allowed(found + faint(opened))


@each_page()
def test_axe_finds_nothing_that_is_not_on_the_list(opened):
    assert violations(opened) == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_on_a_phone_and_has_enough_contrast_in_dark_colours(visit, name):
    opened = visit(name, width=390, mode="dark")
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
    opened.page.set_viewport_size({"width": 1280, "height": 900})  # a narrow page hides its contents
    assert not_allowed(ask_axe(opened, runOnly=["link-in-text-block"]) + faint(opened)) == []


def test_axe_finds_a_planted_fault(chromium, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text("<html lang='en'><title>x</title><main><h1>x</h1><img src='a.png'>"
                    "<p style='color:#999;background:#fff'>faint</p></main>")  # fmt: skip
    opened = Visit(chromium, page.as_uri())
    assert {row[0] for row in violations(opened)} >= {"image-alt", "color-contrast"}
    opened.close()


@pytest.mark.parametrize(
    "planted",  # what only the last words of the page have
    [
        "pre + pre .k { color: #bbb }",
        "pre + pre { background: #333 }",
        "pre + pre { opacity: 0.3 }",
        "pre .k { color: #888; font-size: 30px } pre + pre .k { font-size: 12px }",
    ],
)
def test_faint_words_are_found_behind_many_that_look_alike_but_for_one_thing(chromium, tmp_path, planted):
    page = tmp_path / "code.html"
    code = "<pre><span class='n'>one</span> <span class='n'>two</span> <span class='k'>for</span></pre>"
    style = f"body {{ background: #fff; color: #000 }} {planted}"
    page.write_text(f"<html lang='en'><title>x</title><style>{style}</style>{code}{code}")
    opened = Visit(chromium, page.as_uri())
    assert {row[0] for row in faint(opened)} == {"color-contrast"}
    opened.close()


def test_every_row_of_the_list_is_still_needed(visit):
    found = set()
    for name in ("index", "reference/bibliography"):
        found |= {row[0] for row in ask_axe(visit(name))}
    assert [row["rule"] for row in ALLOWED if row["rule"] not in found] == []
    assert all(len(row["reason"]) > 20 for row in ALLOWED)


@each_page()
def test_every_picture_says_what_it_shows(opened):
    pictures = opened.page.eval_on_selector_all(
        ".bd-article img", "all => all.map(i => [i.getAttribute('src'), i.getAttribute('alt') || ''])"
    )
    for source, alt in pictures:
        file_name = Path(urlsplit(source).path).name
        assert len(alt.split()) >= 3, f"{file_name}: alt text {alt!r} says too little"
        assert file_name not in alt
        assert not re.search(r"\.(png|svg|jpe?g)$", alt)


def has_formulas(name):
    text = (ROOT / "book" / f"{name}.md").read_text()
    return "$" in re.sub(r"(?s)```\{code-cell\}.*?```", "", text)


@each_page([name for name in PAGES if has_formulas(name)])
def test_formulas_are_set_by_mathjax(opened):
    page = opened.page
    page.wait_for_function("document.querySelectorAll('mjx-container').length > 0")
    assert page.locator("mjx-container mjx-math").count() > 0
    assert page.locator("mjx-merror").count() == 0
    raw = "all => all.filter(m => !m.querySelector('mjx-container')).map(m => m.textContent)"
    assert page.eval_on_selector_all("span.math, div.math", raw) == []


def test_the_search_finds_a_word(chromium, site):
    opened = Visit(chromium, (site / "search.html").as_uri() + "?q=perplexity")
    opened.page.wait_for_selector("#search-results li a")
    assert any("Glossary" in text for text in opened.page.locator("#search-results li").all_inner_texts())
    assert opened.outside == []
    opened.close()


def test_the_dark_mode_button_changes_the_page(visit):
    page = visit("index").page
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    modes = {page.evaluate("document.documentElement.dataset.theme")}
    for _ in range(3):
        page.locator(".theme-switch-button:visible").first.click()
        modes.add(page.evaluate("document.documentElement.dataset.theme"))
    assert {"light", "dark"} <= modes
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before


@functools.cache
def anchors(path):
    return set(re.findall(r'\b(?:id|name)="([^"]+)"', path.read_text()))


@pytest.mark.parametrize("name", PAGES)
def test_every_link_inside_the_book_leads_somewhere(site, name):
    page = site / f"{name}.html"
    dead = []
    for link in re.findall(r'<a\b[^>]*\bhref="([^"]*)"', page.read_text()):
        parts = urlsplit(link.replace("&amp;", "&"))
        if parts.scheme or parts.netloc or link == "#":
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        target = target / "index.html" if target.is_dir() else target
        if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors(target)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("name", PAGES)
def test_no_element_loads_anything_from_elsewhere(site, name):
    html = (site / f"{name}.html").read_text()
    loads = re.findall(r'<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"', html)
    assert [tag for tag in loads if 'rel="canonical"' not in tag] == []


def test_each_page_with_code_is_offered_as_a_notebook_that_opens(site):
    for name in PAGES:
        if "{code-cell}" not in (ROOT / "book" / f"{name}.md").read_text():
            continue
        notebook = json.loads((site / "_sources" / f"{name}.ipynb").read_text())
        assert any(cell.get("outputs") for cell in notebook["cells"] if cell["cell_type"] == "code")
        assert f"{Path(name).name}.ipynb" in (site / f"{name}.html").read_text()


def test_the_api_pages_hold_every_public_name(site):
    import importlib

    from course_book.api import public_names

    html = "".join(path.read_text() for path in sorted((site / "reference" / "api").glob("*.html")))
    package = ROOT / "coursekit"
    rooms = {path.parent.name for path in package.glob("*/__init__.pyi")} | {"errors", "units"}
    modules = [f"coursekit.{room}" for room in sorted(rooms)]
    modules += [f"coursekit.formulas.{path.stem}" for path in (package / "formulas").glob("[a-z]*.py")]
    names = [
        f"{module}.{name}" for module in modules for name in public_names(importlib.import_module(module))
    ]
    assert len(names) > 200
    assert [name for name in names if f'id="{name}"' not in html] == []
