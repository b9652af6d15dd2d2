"""The buttons of the list of pages have names."""

from bs4 import BeautifulSoup
from course_book.sidebar import _named

FOLDED = """<ul><li class="has-children"><a href="api.html">The package</a>
<details><summary><span class="toctree-toggle"></span></summary><ul><li>x</li></ul></details></li>
<li class="has-children"><details><summary><p>With words</p></summary></details></li></ul>"""


def test_a_button_without_words_is_named_after_its_page():
    tree = _named(lambda kind: BeautifulSoup(FOLDED, "html.parser"))("sidebar")
    assert [summary.get("aria-label") for summary in tree.select("summary")] == [
        "Pages below The package",
        None,
    ]


def test_what_is_no_tree_goes_through():
    assert _named(lambda: "")() == ""
