"""The class report as one HTML page with its plots inside: it loads nothing and runs nothing."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coursekit.errors import require
from coursekit.grading.class_report import ClassReport

# Okabe and Ito's blue and orange: apart in every kind of colour vision.
BLUE, ORANGE = "#0072B2", "#E69F00"


def page(report: ClassReport, pages: Mapping[str, str]) -> str:
    """Return the page; `pages` holds the address of each student's feedback.

    Raises: MissingExtraError if matplotlib is not installed.
    """
    jinja2 = require("jinja2", extra="grading")
    loader = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))
    # Everything in the report may hold what a student wrote; only the plots, which we draw, are markup.
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    plots = {"scores": _svg(score_plot(report)), "tasks": _svg(task_plot(report))}
    return environment.get_template("class_report.html.j2").render(
        report=report,
        pages=pages,
        plots=plots,
        titles={"scores": score_title(report), "tasks": task_title(report)},
    )


def score_title(report: ClassReport) -> str:
    """Return what the distribution of scores shows, in a sentence."""
    scores = list(report.scores.values())
    middle = scores[(len(scores) - 1) // 2]
    return f"Half of {len(scores)} submissions have {middle:g} of {report.max_score:g} points or fewer"


def task_title(report: ClassReport) -> str:
    """Return which task was the hardest, in a sentence."""
    hardest = report.hardest
    if hardest is None:
        return "No task is wholly graded yet"
    return f"Hardest: {hardest.grade_id}, {hardest.share:.0%} of its points earned"


def score_plot(report: ClassReport) -> Any:
    """Return a figure of how many students have how many points."""
    figure, axes = _figure(3.0)
    # A bar a point, at most 20, each around its middle, so that full marks have one of their own.
    bars = max(1, min(20, round(report.max_score)))
    width = (report.max_score or 1.0) / bars
    edges = [width * (number - 0.5) for number in range(bars + 2)]
    axes.hist(list(report.scores.values()), bins=edges, color=BLUE, rwidth=0.9)
    axes.set(xlabel="score [points]", ylabel="students")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_title(score_title(report), loc="left")
    return figure


def task_plot(report: ClassReport) -> Any:
    """Return a figure of the share of points earned in each task, the hardest marked."""
    tasks = [task for task in report.tasks if task.share is not None][::-1]
    figure, axes = _figure(1.2 + 0.3 * len(tasks))
    colours = [ORANGE if task == report.hardest else BLUE for task in tasks]
    names = [f"{task.grade_id} ({task.waiting} wait)" if task.waiting else task.grade_id for task in tasks]
    bars = axes.barh(names, [100 * task.share for task in tasks], color=colours)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set(xlabel="points earned [%]", xlim=(0, 110))
    axes.set_title(task_title(report), loc="left")
    return figure


def _figure(height: float) -> tuple[Any, Any]:
    require("matplotlib", extra="plots")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
