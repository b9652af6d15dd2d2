"""One slug joins page, source, notebook, module and tests; course.yml is the map."""

import csv
import importlib.util
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COURSE = yaml.safe_load((ROOT / "course.yml").read_text())
CHAPTERS = COURSE["chapters"]
with (ROOT / "book/reference/curriculum.csv").open(newline="") as file:
    TOPICS = list(csv.DictReader(file))
SLUGS = sorted(CHAPTERS)


@pytest.mark.parametrize("slug", SLUGS)
def test_a_chapter_has_page_source_notebook_and_wrong_answers(slug):
    part = CHAPTERS[slug]["part"]
    expected = [
        f"book/{part}/{slug}.md",
        f"solutions/{slug}.py",
        f"exercises/{slug}/{slug}.ipynb",
        f"tests/exercises/{slug}/warns.py",
        f"tests/exercises/{slug}/crashes.py",
    ]
    assert [name for name in expected if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("slug", SLUGS)
def test_a_chapters_modules_exist_and_have_tests(slug):
    for module in CHAPTERS[slug]["modules"]:
        path = ROOT / (module.replace(".", "/") + ".py")
        _, *folders, name = module.split(".")
        assert path.exists(), f"course.yml names {module}"
        assert (ROOT / "tests" / Path(*folders) / f"test_{name}.py").exists(), f"no test of {module}"


@pytest.mark.parametrize("slug", SLUGS)
def test_a_chapters_part_is_declared_and_its_topics_are_in_the_curriculum(slug):
    assert CHAPTERS[slug]["part"] in COURSE["parts"]
    assert any(topic["chapter"] == slug for topic in TOPICS)


@pytest.mark.parametrize("folder", ["solutions", "exercises", "book"])
def test_no_page_or_exercise_is_off_the_map(folder):
    pages = {
        "solutions": {path.stem for path in (ROOT / "solutions").glob("*.py")},
        "exercises": {path.parent.name for path in (ROOT / "exercises").glob("*/*.ipynb")},
        "book": {path.stem for part in COURSE["parts"] for path in (ROOT / "book" / part).glob("*.md")},
    }[folder]
    assert pages == set(SLUGS)


@pytest.mark.parametrize("slug", SLUGS)
def test_no_slug_shadows_a_package(slug):
    assert re.fullmatch(r"[a-z][a-z0-9_]*", slug)
    assert importlib.util.find_spec(slug) is None


def test_every_package_folder_mirrors_into_tests():
    # A test file of a module stands where the module stands.
    rooms = {path.parent.name for path in (ROOT / "coursekit").glob("*/__init__.py")} - {"cli"}
    assert {room for room in rooms if not list((ROOT / "tests" / room).glob("test_*.py"))} == set()


def test_topics_have_unique_ids():
    ids = [topic["id"] for topic in TOPICS]
    assert len(ids) == len(set(ids)) == 71
