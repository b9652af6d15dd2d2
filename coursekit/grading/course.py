"""Where things lie in a course folder: nbgrader's own layout, so that both tools work on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coursekit.errors import InputError

CONFIG_NAME = "nbgrader_config.py"


@dataclass(frozen=True)
class Course:
    """A course folder at `root`: source/, release/, submitted/, autograded/, feedback/, gradebook.db."""

    root: Path

    @classmethod
    def open(cls, root: str | Path) -> Course:
        """Return the course at `root`.

        Raises: InputError if `root` holds no nbgrader_config.py.
        """
        root = Path(root).expanduser().resolve()
        if not (root / CONFIG_NAME).is_file():
            raise InputError(
                f"{root} is no course folder",
                expected=f"a folder with {CONFIG_NAME}",
                fix="make one with: coursekit course init DIR --from solutions/SLUG.py",
            )
        return cls(root)

    @property
    def gradebook(self) -> Path:
        """The SQLite file of nbgrader's gradebook."""
        return self.root / "gradebook.db"

    def source(self, assignment: str) -> Path:
        """The instructor's notebook of `assignment`, with solutions and hidden tests."""
        return self.root / "source" / assignment / f"{assignment}.ipynb"

    def release(self, assignment: str) -> Path:
        """The learner's notebook of `assignment`."""
        return self.root / "release" / assignment / f"{assignment}.ipynb"

    def submitted(self, student: str, assignment: str) -> Path:
        """The folder of what `student` handed in."""
        return self.root / "submitted" / student / assignment

    def autograded(self, student: str, assignment: str) -> Path:
        """The executed notebook that the formgrader shows."""
        return self.root / "autograded" / student / assignment / f"{assignment}.ipynb"

    def feedback(self, student: str, assignment: str) -> Path:
        """The HTML page that `student` gets."""
        return self.root / "feedback" / student / assignment / f"{assignment}.html"

    def assignments(self) -> list[str]:
        """Return the names of the assignments that have a source, sorted."""
        found = (self.root / "source").glob("*/*.ipynb")
        return sorted({path.stem for path in found if path.stem == path.parent.name})

    def students(self, assignment: str) -> list[str]:
        """Return the ids of the students with a folder for `assignment`, sorted."""
        # lexists: a link where the folder belongs is looked at (and refused) by intake, not overlooked.
        folder = self.root / "submitted"
        found = folder.iterdir() if folder.is_dir() else []
        return sorted(path.name for path in found if _lexists(path / assignment) and path.name[0] != ".")

    def require(self, assignment: str) -> None:
        """Do nothing if `assignment` has a source here.

        Raises: InputError that lists what there is.
        """
        if assignment not in self.assignments():
            known = ", ".join(self.assignments()) or "none"
            raise InputError(
                f"no assignment '{assignment}' in {self.root}", expected=f"one of: {known}", got=assignment
            )


def _lexists(path: Path) -> bool:
    return path.is_symlink() or path.exists()
