"""`book/references.bib` can be followed: each entry is cited, dated as its key, and says where it is."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CITED = re.compile(r"\{cite[^}]*\}`([^`]+)`")
FIELD = re.compile(r"\b(\w+)\s*=\s*\{(.+?)\}[,\s]*$", re.M)


def faults(bib: str, cited: set[str]) -> list[str]:
    """Return what is wrong with a list of references of which pages cite `cited`."""
    parts = re.split(r"^@\w+\{", bib, flags=re.M)[1:]
    keys = [part.split(",")[0] for part in parts]
    found = [] if keys == sorted(set(keys)) else ["not sorted by key, or a key twice"]
    found += [f"{key}: no page cites it" for key in keys if key not in cited]
    found += [f"{key}: cited, and not in the list" for key in sorted(cited) if key not in keys]
    for key, part in zip(keys, parts, strict=True):
        field = dict(FIELD.findall(re.sub(r"\},\s*(?=\w+\s*=)", "},\n", part.rstrip().removesuffix("}"))))
        if field.get("year") not in re.findall("[0-9]{4}", key):
            found.append(f"{key}: of the year {field.get('year')}")
        if not field.keys() & {"doi", "eprint", "url"}:
            found.append(f"{key}: says not where it is")
        number = field.get("url", "").partition("arxiv.org/abs/")[2]
        if number and number != field.get("eprint"):
            found.append(f"{key}: arXiv number and address differ")
    return found


def test_every_reference_is_cited_dated_as_its_key_and_says_where_it_is():
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "book").rglob("*.md")]
    cited = {key.strip() for page in pages for keys in CITED.findall(page) for key in keys.split(",")}
    assert len(cited) > 90
    assert faults((ROOT / "book/references.bib").read_text(encoding="utf-8"), cited) == []


GOOD = """@misc{ada2020one,
  title = {{One} of two}, year = {2020},
  eprint = {2001.00001}, url = {https://arxiv.org/abs/2001.00001},
}
"""


@pytest.mark.parametrize(
    ("bib", "cited", "fault"),
    [
        (GOOD, set(), "ada2020one: no page cites it"),
        (GOOD, {"ada2020one", "bob2021two"}, "bob2021two: cited, and not in the list"),
        (GOOD + GOOD, {"ada2020one"}, "not sorted by key, or a key twice"),
        (GOOD.replace("{2020}", "{2021}"), {"ada2020one"}, "ada2020one: of the year 2021"),
        (
            re.sub("eprint|url", "note", GOOD),
            {"ada2020one"},
            "ada2020one: says not where it is",
        ),
        (GOOD.replace("/2001.", "/2002."), {"ada2020one"}, "ada2020one: arXiv number and address differ"),
    ],
)
def test_a_faulty_list_is_found_out(bib, cited, fault):
    assert faults(GOOD, {"ada2020one"}) == []
    assert faults(bib, cited) == [fault]
