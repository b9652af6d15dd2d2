"""The `coursekit course` commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, help="Make and fill a course folder that coursekit grade and nbgrader share."
)
Folder = Annotated[Path, typer.Argument(help="The course folder.")]


@app.command()
def init(
    folder: Folder,
    source: Annotated[
        list[Path] | None,
        typer.Option("--from", help="An exercise's source, or a folder of them; again for more."),
    ] = None,
    course_id: Annotated[str, typer.Option(help="nbgrader's course id; by default the folder's name.")] = "",
) -> None:
    """Make a course folder with exercises released; or add exercises to one, keeping what is there."""
    from coursekit.grading.create import init_course

    files = [
        file for path in source or [] for file in (sorted(path.glob("*.py")) if path.is_dir() else [path])
    ]
    course = init_course(folder, sources=files, course_id=course_id)
    typer.echo(
        f"{course.root}: {', '.join(course.assignments()) or 'no exercises yet (--from solutions/SLUG.py)'}"
    )
    typer.echo("next: coursekit course roster, coursekit course collect, coursekit grade")


@app.command()
def roster(
    folder: Folder,
    file: Annotated[
        Path, typer.Argument(help="CSV: id,first_name,last_name,email; or as Moodle or Canvas export it.")
    ],
) -> None:
    """Import students; those who are known are updated, nobody is deleted."""
    from coursekit.grading.course import Course
    from coursekit.grading.roster import import_roster

    added, updated = import_roster(Course.open(folder), file)
    typer.echo(f"{added} students added, {updated} updated")


@app.command()
def collect(
    folder: Folder,
    assignment: Annotated[str, typer.Argument(help="Name of the exercise.")],
    archive: Annotated[
        Path, typer.Argument(help="Zip of submissions from Canvas, Moodle, or <student>/<name>.ipynb.")
    ],
    add_unknown: Annotated[
        bool, typer.Option("--add-unknown", help="Take in people who are not in the roster, too.")
    ] = False,
    lms_ids: Annotated[
        bool,
        typer.Option("--lms-ids", help="The numbers in Canvas's or Moodle's names are the roster's ids."),
    ] = False,
    handed_in: Annotated[
        str | None,
        typer.Option(
            help='When what is new or changed was handed in, as "2026-11-27 12:00"; of what Canvas names, '
            "only what it marks as late."
        ),
    ] = None,
) -> None:
    """Put an LMS's zip of submissions into submitted/, found by name; what is refused says why."""
    from coursekit.grading.collect import collect as collect_zip
    from coursekit.grading.collect import without_submission
    from coursekit.grading.course import Course
    from coursekit.grading.handed_in import may_be_late
    from coursekit.grading.moments import parse_time
    from coursekit.grading.show import print_entries, print_may_be_late

    course = Course.open(folder)
    entries = collect_zip(
        course,
        assignment,
        archive=archive,
        add_unknown=add_unknown,
        lms_ids=lms_ids,
        handed_in=parse_time(handed_in) if handed_in else None,
    )
    print_entries(assignment, entries, without=without_submission(course, assignment))
    print_may_be_late(may_be_late(course, assignment, entries))


@app.command()
def status(folder: Folder) -> None:
    """Show how far each exercise is: released, submitted, graded, waiting for a person."""
    from coursekit.grading.course import Course
    from coursekit.grading.show import print_status
    from coursekit.grading.status import course_status

    print_status(course_status(Course.open(folder)))


@app.command()
def late(
    folder: Folder,
    assignment: Annotated[str, typer.Argument(help="Name of the exercise.")],
    due: Annotated[
        str | None,
        typer.Option(help='The deadline, as "2026-11-20 23:59" by this machine\'s clock, or with an offset.'),
    ] = None,
    student: Annotated[
        list[str] | None, typer.Option(help="Whom --until or --handed-in is about; again for more.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="When the students' extension ends.")] = None,
    handed_in: Annotated[
        str | None, typer.Option(help="When the students handed in what came without a time.")
    ] = None,
) -> None:
    """Set the deadline or give an extension; show who is late and what it costs, and renew their pages."""
    from coursekit.grading.course import Course
    from coursekit.grading.handed_in import note_time, unstamped
    from coursekit.grading.late import change_and_read
    from coursekit.grading.moments import parse_time
    from coursekit.grading.pipeline import unchanged
    from coursekit.grading.show import print_late, print_unstamped

    course, students = Course.open(folder), student or ()
    course.require(assignment)
    if bool(students) != bool(until or handed_in):
        raise typer.BadParameter("--student belongs to --until or --handed-in")
    if handed_in:
        note_time(course, assignment, students=students, moment=parse_time(handed_in))
    read = change_and_read(course, assignment, due=due, students=students, until=until)
    submitted = course.students(assignment)
    to_grade = len(submitted) - len(unchanged(course, assignment, students=submitted))
    print_late(assignment, *read, to_grade=to_grade)
    print_unstamped(unstamped(course, assignment), of=len(submitted))


@app.command()
def answers(
    folder: Folder,
    assignment: Annotated[str, typer.Argument(help="Name of the exercise.")],
    question: Annotated[
        str | None, typer.Option(help="The answer cell's grade_id, if there are several.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 for any free one.")] = 0,
) -> None:
    """Grade written answers on one page: the rubric beside each, points stored as you type them."""
    from functools import partial

    from coursekit.grading.by_hand_server import serve_answers
    from coursekit.grading.course import Course

    course = Course.open(folder)
    graded = serve_answers(course, assignment, grade_id=question, port=port, said=partial(print, flush=True))
    who = "1 student" if graded == 1 else f"{graded} students"
    typer.echo(f"points of {who} stored in {course.gradebook}, their feedback pages renewed")


@app.command()
def feedback(
    folder: Folder,
    assignment: Annotated[str, typer.Argument(help="Name of the exercise.")],
    destination: Annotated[Path, typer.Argument(help="The zip to write.")],
) -> None:
    """Pack the feedback pages into a zip for Moodle or Canvas, named as it named the submissions."""
    from coursekit.grading.course import Course
    from coursekit.grading.feedback_zip import pack_feedback
    from coursekit.grading.show import print_packed

    packed = pack_feedback(Course.open(folder), assignment, destination)
    print_packed(destination, packed)


@app.command()
def report(
    folder: Folder,
    assignment: Annotated[str, typer.Argument(help="Name of the exercise.")],
    to: Annotated[Path | None, typer.Option(help="Folder to write into; by default FOLDER/reports.")] = None,
) -> None:
    """Write how the class did: scores, hardest task, frequent failures, flags, near-identical submissions."""
    from coursekit.grading.class_report import write_class_report
    from coursekit.grading.course import Course

    course = Course.open(folder)
    for path in write_class_report(course, assignment, to or course.root / "reports"):
        typer.echo(path)


@app.command()
def changes(folder: Folder, assignment: Annotated[str, typer.Argument(help="Name of the exercise.")]) -> None:
    """Show whose points are others since they were last graded, in which cells, and why."""
    from coursekit.grading.changes import entries, find_changes, replaced_entries
    from coursekit.grading.course import Course
    from coursekit.grading.show import print_changes

    course = Course.open(folder)
    course.require(assignment)
    found = find_changes(replaced_entries(course, assignment), entries(course, assignment))
    print_changes(assignment, found)


@app.command()
def sample(
    folder: Folder,
    class_file: Annotated[
        Path, typer.Option("--class", help="Who handed in what, and the scores it must get.")
    ] = Path("tests/grading/sample_class/class.yml"),
    solutions: Annotated[Path, typer.Option(help="Folder of the exercises' sources.")] = Path("solutions"),
    answers: Annotated[Path, typer.Option(help="Folder of the recorded answers.")] = Path("tests/exercises"),
    workers: Annotated[int, typer.Option(min=1, help="Notebooks that run at the same time.")] = 2,
) -> None:
    """Make the sample class in a course folder, grade it and compare with the known scores."""
    from coursekit.grading.sample import SampleClass, grade_sample
    from coursekit.grading.show import print_sample

    sample_class = SampleClass(class_file, solutions, answers)
    outcomes = grade_sample(folder, sample_class, workers=workers)
    print_sample(outcomes, folder)
    if not all(outcome.as_expected for outcome in outcomes):
        raise typer.Exit(1)
