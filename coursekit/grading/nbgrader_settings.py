"""What we set of nbgrader's configuration: for `nbgrader_config.py` of a course folder and of the checkout.

Each function takes the configuration object `c` of such a file. What the file sets below the call holds.
"""

from __future__ import annotations

from typing import Any


def grade_fairly(c: Any) -> None:
    """Have `nbgrader autograde` do as `coursekit grade` does, from a submission's bytes to its points."""
    # nbgrader opens whatever lies there; a preprocessor comes too late to keep it from that.
    c.Autograde.pre_convert_hook = "coursekit.grading.preprocessors.leave_out_what_is_rejected"
    # A submission is rebuilt from the released notebook and the student's answers, whatever else was done.
    c.Autograde.sanitize_preprocessors = [
        "coursekit.grading.preprocessors.RebuildSubmission",
        "nbgrader.preprocessors.ClearOutput",
        "nbgrader.preprocessors.OverwriteKernelspec",
        "nbgrader.preprocessors.OverwriteCells",
        "nbgrader.preprocessors.CheckCellMetadata",
    ]
    # nbgrader's own list, but: forbidden imports say so; a kernel that dies costs what follows, not the whole
    # grade; a warning on stderr costs nothing; and a test cell that did not run earns nothing.
    c.Autograde.autograde_preprocessors = [
        "coursekit.grading.preprocessors.BlockForbidden",
        "coursekit.grading.preprocessors.RunNotebook",
        "coursekit.grading.preprocessors.FailClosed",
        "nbconvert.preprocessors.ClearMetadataPreprocessor",
        "nbgrader.preprocessors.LimitOutput",
        "nbgrader.preprocessors.SaveAutoGrades",
        "nbgrader.preprocessors.AssignLatePenalties",
        "nbgrader.preprocessors.CheckCellMetadata",
    ]


def show_safely(c: Any) -> None:
    """Keep hidden tests from students' pages, and what students wrote from running in anybody's browser."""
    # A student's page shows neither the source nor the output of hidden tests.
    c.GenerateFeedback.preprocessors = [
        "coursekit.grading.feedback.GetGradesOfNow",
        "coursekit.grading.feedback.HideHiddenTests",
        "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
    ]
    # It is one file that loads nothing from the network and holds no script.
    c.GenerateFeedback.exporter_class = "coursekit.grading.feedback_page.FeedbackPage"
    # What students' cells show, and the HTML in what they write, is made harmless for the formgrader.
    c.HTMLExporter.sanitize_html = True
    c.HTMLExporter.filters = {"markdown2html": "coursekit.grading.feedback_page.clean_markdown"}
