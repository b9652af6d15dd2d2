"""What learners get: the course without solutions, as a folder or an archive."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path

from coursekit.errors import CoursekitError, InputError
from coursekit.notebooks.build import build_exercise, find_sources
from coursekit.notebooks.course_file import release_address
from coursekit.notebooks.leaks import leaks_below

MARK = ".coursekit-release"
# The package's own project file stays whole: Colab and Binder install from it.
FILES = (
    "pyproject.toml",
    "constraints.txt",
    "environment.yml",
    "LICENSE",
    "LICENSE-content",
    "CITATION.cff",
    "course.yml",
)
FOLDERS = ("coursekit", "exercises")
_SKIPPED = ("__pycache__", ".ipynb_checkpoints", ".pytest_cache", ".DS_Store", "*.pyc", "*.egg-info")
_README = """\
# {title}: exercises

{title} is a course; these are its exercises. Each is a notebook: read, write the missing code, run the
tests below it.

## Start

    python3 -m venv .venv
    . .venv/bin/activate
    pip install -c constraints.txt -e ".[lab]"
    jupyter lab exercises

With conda: `conda env create -f environment.yml`, then `conda activate` the environment it names.
Python 3.11 to 3.13, Linux or macOS (Windows: inside WSL). No GPU is needed.

## Where am I?

Save the notebook, then

    coursekit check exercises/{first}/{first}.ipynb

runs it from the top and shows the points so far, with a hint for what fails. In a notebook, the same is
`from coursekit.notebooks import check; check()`. Some tests and the written answers are decided at grading.

## The exercises

{table}
"""


class ReleaseError(CoursekitError, RuntimeError):
    """A release that would give something away."""


def make_release(root: Path | str, destination: Path | str, *, archive: bool = False) -> Path:
    """Write a release of the checkout `root` and return its folder, or the archive beside it
    (`<destination>.zip`).

    It holds the learners' notebooks, the package, the environment files and a README; no solutions, tests or
    book. A release that stands there already is replaced.

    Raises: InputError if `destination` is a non-empty folder that is no release, or a notebook is stale;
        ReleaseError if anything of a solution or hidden test was found in it (nothing is left behind then).
    """
    root, destination = Path(root), Path(destination)
    sources = find_sources(root / "solutions")
    _check_fresh(root, sources)
    _make_room(root, destination)
    draft = destination.with_name(destination.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        _fill(root, draft, [path.stem for path in sources])
        _refuse_leaks(draft, sources)
        if archive:
            target = destination.with_name(destination.name + ".zip")
            write_archive(draft, target, top=destination.name)
            return target
        shutil.rmtree(destination, ignore_errors=True)
        draft.rename(destination)
        return destination
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_archive(folder: Path, target: Path, *, top: str) -> None:
    """Write a zip of a folder below the name `top`: sorted, with fixed times and modes, the same bytes
    every time.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(
                f"{top}/{path.relative_to(folder).as_posix()}", date_time=(1980, 1, 1, 0, 0, 0)
            )
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            entry.create_system = 3  # Unix, whatever system packs it
            archive.writestr(entry, path.read_bytes())


def _check_fresh(root: Path, sources: list[Path]) -> None:
    if not sources:
        raise InputError("nothing to release", expected="sources in solutions/", got=root / "solutions")
    repository, branch = release_address(root / "course.yml")
    for source in sources:
        changed = build_exercise(
            source, solutions=root / "solutions", exercises=root / "exercises", repository=repository,
            branch=branch, write=False,
        )  # fmt: skip
        stale = [path for path in changed if path.is_relative_to(root / "exercises")]
        if stale:
            raise InputError(f"{stale[0]} is not what its source gives", fix="run: coursekit notebooks build")


def _make_room(root: Path, destination: Path) -> None:
    """Raise unless the destination is absent, empty or an older release, and outside what is released."""
    resolved = destination.resolve()
    if any(resolved.is_relative_to((root / name).resolve()) for name in (*FOLDERS, "solutions")):
        raise InputError(
            "the release would lie inside its own sources", got=destination, fix="choose another folder"
        )
    if destination.is_file():
        raise InputError("the release's folder is a file", got=destination)
    if destination.is_dir() and any(destination.iterdir()) and not (destination / MARK).is_file():
        raise InputError(
            "the folder holds other things", expected="no folder, an empty one or an older release",
            got=destination, fix="choose another folder; nothing was changed",
        )  # fmt: skip
    destination.parent.mkdir(parents=True, exist_ok=True)


def _fill(root: Path, draft: Path, slugs: list[str]) -> None:
    draft.mkdir(parents=True)
    for name in FILES:
        if (root / name).is_file():
            shutil.copyfile(root / name, draft / name)
    shutil.copytree(root / "coursekit", draft / "coursekit", ignore=shutil.ignore_patterns(*_SKIPPED))
    for slug in slugs:
        # Only the notebook: whatever else an author left in the folder stays there.
        (draft / "exercises" / slug).mkdir(parents=True)
        shutil.copyfile(
            root / "exercises" / slug / f"{slug}.ipynb", draft / "exercises" / slug / f"{slug}.ipynb"
        )
    if (root / "exercises" / "README.md").is_file():
        shutil.copyfile(root / "exercises" / "README.md", draft / "exercises" / "README.md")
    (draft / "README.md").write_text(_readme(root, slugs), encoding="utf-8", newline="\n")
    (draft / MARK).write_text("made by: coursekit release\n", encoding="utf-8", newline="\n")


def _readme(root: Path, slugs: list[str]) -> str:
    import yaml

    course = yaml.safe_load((root / "course.yml").read_text(encoding="utf-8"))
    chapters = course["chapters"]
    ordered = [slug for slug in chapters if slug in slugs] + [slug for slug in slugs if slug not in chapters]
    rows = [_row(slug, chapters.get(slug, {})) for slug in ordered]
    table = "\n".join(["| exercise | minutes | device |", "|---|---|---|", *rows])
    return _README.format(title=course["title"], first=ordered[0], table=table)


def _row(slug: str, chapter: dict) -> str:
    minutes = chapter.get("minutes", {}).get("exercise", "")
    title = chapter.get("title", slug)
    return f"| [{title}](exercises/{slug}/{slug}.ipynb) | {minutes} | {chapter.get('device', 'cpu')} |"


def _refuse_leaks(draft: Path, sources: Iterable[Path]) -> None:
    leaks = leaks_below(draft, sources)
    if leaks:
        listed = "\n  ".join(str(leak) for leak in leaks[:10])
        raise ReleaseError(f"not released: {len(leaks)} places give an answer away\n  {listed}")
