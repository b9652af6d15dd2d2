"""The page a student gets: complete without a network, and nothing that a student wrote runs in it."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coursekit.grading.feedback_page import MAX_FORMULA_CHARACTERS, FeedbackPage, clean_markdown, formula

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PLANT = "document.body.dataset.planted='yes'"
# Each would mark the page, or ask 127.0.0.1:9 for something, if the browser took it for more than text.
MARKDOWN = [
    f"<script>{PLANT}</script>",
    f'<img src="x" onerror="{PLANT}">',
    f'<svg onload="{PLANT}"><script>{PLANT}</script></svg>',
    '<iframe src="http://127.0.0.1:9/frame"></iframe>',
    '<meta http-equiv="refresh" content="0;url=http://127.0.0.1:9/refresh">',
    '<form action="http://127.0.0.1:9/form"><button id="send">ok</button></form>',
    '<link rel="stylesheet" href="http://127.0.0.1:9/style.css">',
    "![picture](http://127.0.0.1:9/picture.png)",
    '![x](y"onerror="' + PLANT + ")",
    "![](attachment:nowhere.png)",
    f"[link](javascript:{PLANT})",
    f"[link](data:text/html,<script>{PLANT}</script>)",
    f"<javascript:{PLANT}>",
    rf"$\text{{<script>{PLANT}</script>}}$ and $$<img src=x onerror={PLANT}>$$",
    f"```html\n<script>{PLANT}</script>\n```",
    f"```mermaid\ngraph<script>{PLANT}</script>\n```",
    f"# <b onclick={PLANT}>heading</b>",
    f"&lt;script&gt;{PLANT}&lt;/script&gt;",
]
DISPLAYS = f"""
from IPython.display import HTML, SVG, Javascript, Markdown, display
evil = "<script>{PLANT}</script><img src=http://127.0.0.1:9/x.png onerror={PLANT}>"
svg = '<svg xmlns="http://www.w3.org/2000/svg" onload="{PLANT}"><script>{PLANT}</script></svg>'
display(HTML(evil), Markdown(evil), Javascript("{PLANT}"), SVG(svg))
display({{"image/png": '"><script>{PLANT}</script>', "text/plain": evil}}, raw=True)
display({{"image/svg+xml": svg, "text/latex": evil, "application/javascript": "{PLANT}"}}, raw=True)
print(evil, "\\x1b[31m" + evil)
import sys; print(evil, file=sys.stderr)
from IPython import get_ipython
session, socket = get_ipython().kernel.session, get_ipython().kernel.iopub_socket
parent = get_ipython().parent_header
session.send(socket, "stream", {{"name": '"><script>{PLANT}</script>', "text": "odd"}}, parent=parent)
raise ValueError(evil)
"""


@pytest.fixture
def watched():
    """Return a function that opens a file in Chromium: (page, what it asked the network for)."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])

        def open_page(path):
            page, asked = browser.new_page(), []
            page.on("request", lambda request: asked.append(request.url))
            page.goto(Path(path).as_uri())
            page.wait_for_load_state("networkidle")
            return page, [url for url in asked if not url.startswith(("file:", "data:"))]

        yield open_page
        browser.close()


def feedback_of(classroom, **answers):
    classroom.hand_in("eve", **answers)
    assert classroom.grade()["eve"].status == "graded"
    return classroom.course.feedback("eve", classroom.slug)


@pytest.mark.slow
@pytest.mark.browser
def test_nothing_that_a_student_wrote_or_displayed_runs_or_loads(classroom, watched):
    path = feedback_of(classroom, add=DISPLAYS, explain="\n\n".join(MARKDOWN))
    page, asked = watched(path)
    links = page.locator("#notebook a[href]").evaluate_all("all => all.map(a => a.href)")
    assert [link for link in links if not re.match(r"(file|https?):", link)] == []
    assert asked == []
    assert page.evaluate("document.body.dataset.planted") is None
    selector = "script, iframe, form, link, object, embed, svg, [onerror], [onload], [onclick]"
    assert page.locator(selector).count() == 0
    assert page.locator("meta[http-equiv]").count() == 1
    assert "odd" in page.locator("body").inner_text()


@pytest.mark.slow
@pytest.mark.browser
def test_the_watch_sees_a_planted_script_and_a_request(tmp_path, watched):
    bad = tmp_path / "bad.html"
    bad.write_text(f"<body><script>{PLANT}</script><img src='http://127.0.0.1:9/x.png'></body>")
    page, asked = watched(bad)
    assert asked == ["http://127.0.0.1:9/x.png"]
    assert page.evaluate("document.body.dataset.planted") == "yes"


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_s_own_policy_stops_what_would_come_through(classroom, tmp_path, watched):
    """The second wall, tried without the first: markup put into a finished page stays dead."""
    page = feedback_of(classroom, explain="HERE").read_text("utf-8")
    assert "HERE" in page
    torn = tmp_path / "torn.html"
    torn.write_text(page.replace("HERE", MARKDOWN[0] + MARKDOWN[1] + MARKDOWN[3]), "utf-8")
    opened, _ = watched(torn)
    assert opened.locator("script").count() == 1
    assert opened.evaluate("document.body.dataset.planted") is None


def test_a_page_says_whose_it_is_and_which_cells_have_which_points(classroom):
    path = feedback_of(classroom, explain="Groups differ.", add="def add(left, right):\n    return 0")
    words = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", path.read_text("utf-8"))).split())
    assert "Student: eve" in words
    for line in ("test_add (Score: 0.0 / 2.0)", "test_mean (Score: 3.0 / 3.0)", "explain (Score: 0.0 / 2.0)"):
        assert line in words
    classroom.hand_in("eve", b"no notebook")
    classroom.grade()
    assert "Student: eve" in path.read_text("utf-8")


@pytest.mark.slow
@pytest.mark.browser
def test_on_a_phone_the_points_of_a_cell_do_not_push_its_code_aside(classroom, watched):
    page, _ = watched(feedback_of(classroom))
    page.set_viewport_size({"width": 390, "height": 800})
    gaps = page.locator(".nbgrader_cell").evaluate_all(
        "all => all.map(cell => cell.querySelector('.panel-body').getBoundingClientRect().top"
        " - cell.querySelector('.pull-right').getBoundingClientRect().bottom)"
    )
    assert len(gaps) > 4
    assert min(gaps) >= 0


def test_pictures_and_formulas_of_an_honest_answer_are_shown(classroom):
    plot = (
        "import struct, zlib\nfrom IPython.display import Image, display\n"
        "def chunk(kind, data):\n    body = kind + data\n"
        "    return struct.pack('>I', len(data)) + body + struct.pack('>I', zlib.crc32(body))\n"
        "png = b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 1, 1, 8, 0, 0, 0, 0))"
        " + chunk(b'IDAT', zlib.compress(b'\\0\\0')) + chunk(b'IEND', b'')\n"
        "display(Image(png))\ndef add(left, right):\n    return left + right"
    )
    page = feedback_of(classroom, add=plot, explain=r"As $a<b$ says: `a <b` and $$\frac{a}{b}$$").read_text()
    assert 'src="data:image/png;base64,' in page
    assert page.count("<math") == 2
    assert "<mfrac>" in page
    assert "<code>a &lt;b</code>" in page
    assert "http://" not in page.replace("http://www.w3.org/1998/Math/MathML", "")
    assert "https://" not in page


@pytest.mark.slow
def test_nbgraders_own_command_writes_the_same_page_and_old_folders_get_it_from_ours(classroom):
    # Whichever page is the second is written with what was kept from the first.
    classroom.hand_in("abe", add="def add(left, right):\n    return 0")
    path = feedback_of(classroom, explain="$x$")
    pages = [path, classroom.course.feedback("abe", classroom.slug)]
    ours = [page.read_text("utf-8") for page in pages]
    for page in pages:
        page.unlink()
    command = [sys.executable, "-m", "nbgrader", "generate_feedback", classroom.slug, "--force"]
    done = subprocess.run(command, cwd=classroom.course.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [page.read_text("utf-8") for page in pages] == ours
    config = classroom.course.root / "nbgrader_config.py"
    config.write_text(config.read_text() + "del c.GenerateFeedback['exporter_class']\n")
    assert classroom.grade(force=True)["eve"].status == "graded"
    assert "<math" in path.read_text("utf-8")
    assert "MathJax" not in path.read_text("utf-8")


def test_an_outputs_forged_fields_do_not_reach_the_template(classroom):
    """What no kernel of ours would send, but a student's may: odd types and odd names."""
    from nbformat import from_dict

    from coursekit.grading.feedback import _plain

    odd = [
        {"output_type": "stream", "name": "<b>", "text": ["a"]},
        {"output_type": "error", "ename": 3, "evalue": None, "traceback": ["line", {"x": 1}]},
        {
            "output_type": "display_data",
            "metadata": {"image/png": {"width": "<b>"}},
            "data": {"text/html": "<b>"},
        },
        {"output_type": "<b>", "data": {"text/plain": 7}},
    ]
    kept = json.dumps([plain for output in odd for plain in _plain(from_dict(output))])
    assert "<b>" not in kept
    assert "line" in kept


def test_a_formula_that_cannot_be_converted_is_shown_as_it_was_written():
    assert formula(r"\frac{a}{b}").startswith("<math")
    for tex in (
        r"\nosuch",
        "{",
        r"\left(",
        r"\begin{x}",
        "a" * (MAX_FORMULA_CHARACTERS + 1),
        "{" * 1999,
        "_",
        "^^",
        r"1\limits",
    ):
        assert formula(tex).startswith(("<code>", "<math"))
    assert formula("<b>" + r"\nosuch") == r"<code>&lt;b&gt;\nosuch</code>"


@pytest.mark.parametrize(
    "pattern", [r"\begin{a}", "[a](", "*a ", "$a ", "<a ", "@a.", "'\\N{a", "..", "?", "("]
)
def test_an_answer_of_any_length_is_on_its_page_in_no_time(pattern):
    text = pattern * (100_000 // len(pattern))
    start = time.monotonic()
    words = {"metadata": {"nbgrader": {"solution": True}}}
    prose = clean_markdown({"cell": words}, text)
    code = FeedbackPage()._highlighter("ipython3")(text)
    assert time.monotonic() - start < 5
    assert html.unescape(prose) == html.unescape(re.sub("</?(div|pre)[^>]*>", "", code)).join(
        ["<pre>", "</pre>"]
    )


@pytest.mark.parametrize("blank", ["\t\n", "    \n", "\f\n"])
def test_code_with_thousands_of_empty_lines_is_on_its_page_in_no_time(blank):
    text = blank * (19_000 // len(blank)) + "x = 1"
    start = time.process_time()
    page = FeedbackPage()._highlighter("python")(text)
    assert time.process_time() - start < 1
    assert "x = 1" in page
