"""The search for leaks finds what is planted, in every form, and cries no wolf."""

from __future__ import annotations

import gzip
import json
import zipfile

import pytest

from coursekit.notebooks.build import notebook_text
from coursekit.notebooks.leaks import check_search, find_leaks, leaks_below, secrets_of
from coursekit.notebooks.source import read_source

SOLUTION = "total_of_the_losses = sum(loss_sums)"
HIDDEN = 'expect_close(token_mean([2.0, 0.0], [4, 0]), 0.5, hint="an empty micro-batch adds nothing")'
MODEL = "Because it weighs each micro-batch the same however many tokens it holds."


def test_the_secrets_are_the_distinctive_lines_and_whole_regions(toy):
    found = {(secret.grade_id, secret.what) for secret in secrets_of(toy)}
    assert found == {
        ("token_mean", "solution"),
        ("append_squares", "solution"),
        ("test_token_mean_hidden", "hidden tests"),
        ("explain", "model answer"),
    }
    texts = {secret.text.strip() for secret in secrets_of(toy) if not secret.whole}
    assert {SOLUTION, HIDDEN} <= texts
    assert "return count" not in texts  # too common to say where it comes from


def test_the_released_notebook_is_clean_and_the_instructors_is_not(toy, instructor, student, tmp_path):
    (tmp_path / "student.ipynb").write_text(notebook_text(student))
    assert leaks_below(tmp_path, [toy.path]) == []
    (tmp_path / "instructor.ipynb").write_text(notebook_text(instructor))
    leaks = leaks_below(tmp_path, [toy.path])
    assert {(leak.where, leak.secret.grade_id) for leak in leaks} == {
        ("instructor.ipynb", name)
        for name in ("token_mean", "append_squares", "test_token_mean_hidden", "explain")
    }


@pytest.mark.parametrize("secret", [SOLUTION, HIDDEN, MODEL])
@pytest.mark.parametrize(
    "form", ["markdown", "comment", "reflowed", "output", "metadata", "html", "zip", "zip in zip"]
)
def test_a_planted_canary_is_found_in_every_form(toy, tmp_path, secret, form):
    plant(tmp_path, form, secret)
    leaks = find_leaks(tmp_path, secrets_of(toy))
    assert [leak.secret.text.strip() for leak in leaks] == [secret], form
    assert secret[:40] in str(leaks[0])


def plant(folder, form, secret):
    output = {"cells": [{"source": [], "outputs": [{"data": {"text/plain": [f"x {secret}\n", "y"]}}]}]}
    inner = folder / "inner.zip"
    if form == "markdown":
        (folder / "notes.md").write_text(f"Some text\n> {secret}\nmore")
    elif form == "comment":
        (folder / "tool.py").write_text(f"def f():\n    #    {secret}\n    pass")
    elif form == "reflowed":
        (folder / "notes.txt").write_text(secret.replace(" ", "\n   "))
    elif form == "output":
        (folder / "run.ipynb").write_text(json.dumps(output))
    elif form == "metadata":
        (folder / "run.ipynb").write_text(json.dumps({"metadata": {"a": {"b": [secret, 1]}}}))
    elif form == "html":
        (folder / "page.html").write_text(
            "<i>" + secret.replace('"', "&quot;").replace("[", "<b>[</b>") + "</i>"
        )
    else:
        with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("deep/run.ipynb", json.dumps(output))
        if form == "zip in zip":
            with zipfile.ZipFile(folder / "outer.zip", "w") as archive:
                archive.write(inner, "inner.zip")
            inner.unlink()


def test_the_search_proves_itself_before_it_is_believed(toy, monkeypatch):
    check_search(secrets_of(toy))
    monkeypatch.setattr(
        "coursekit.notebooks.leaks._readings", lambda name, data: [data.decode(errors="ignore")]
    )
    with pytest.raises(AssertionError, match="the search misses a"):
        check_search(secrets_of(toy))


def test_a_region_of_short_lines_is_found_as_a_whole(write_source, tmp_path):
    source = '# %% nbgrader="solution" grade_id="f"\ndef f(x):\n    ### BEGIN SOLUTION\n'
    source += "    x += 1\n    y = x * 3\n    z = y - 2 * x\n    return z % 7\n    ### END SOLUTION\n\n"
    source += '# %% nbgrader="tests" grade_id="test_f" points=1\nassert f(1) == 4\n'
    secrets = secrets_of(read_source(write_source(source)))
    # No line of it is long enough to be a secret.
    assert [secret.whole for secret in secrets] == [True]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.py").write_text(
        "def g(x):\n  x += 1\n  y = x * 3\n  z = y - 2 * x\n\n  return z % 7\n"
    )
    assert len(find_leaks(tmp_path / "out", secrets)) == 1
    (tmp_path / "out" / "a.py").write_text("def g(x):\n  x += 1\n  return z % 7\n")
    assert find_leaks(tmp_path / "out", secrets) == []


def test_what_the_learner_is_shown_anyway_is_no_leak(write_source, tmp_path):
    shown = "expected_gradient_of_the_first_layer = loss_sum / num_valid"
    source = f'# %% [markdown]\n# Write `{shown}` first.\n\n# %% nbgrader="solution" grade_id="f"\n'
    source += f"### BEGIN SOLUTION\n{shown}\n### END SOLUTION\n\n"
    source += (
        '# %% nbgrader="tests" grade_id="test_f" points=1\nassert expected_gradient_of_the_first_layer\n'
    )
    assert secrets_of(read_source(write_source(source))) == []


def test_the_package_may_hold_a_line_of_a_solution_but_no_hidden_test_and_no_whole_solution(toy, tmp_path):
    module = tmp_path / "coursekit" / "train" / "mean.py"
    module.parent.mkdir(parents=True)
    module.write_text(f"{SOLUTION}\n")
    assert find_leaks(tmp_path, secrets_of(toy)) == []
    module.write_text(f"{HIDDEN}\n")
    assert [leak.secret.what for leak in find_leaks(tmp_path, secrets_of(toy))] == ["hidden tests"]
    module.write_text(f"{SOLUTION}\nreturn total_of_the_losses / sum(num_valid)\n")
    assert [leak.secret.what for leak in find_leaks(tmp_path, secrets_of(toy))] == ["solution"]


def test_bytes_that_are_no_text_are_read_past(toy, tmp_path):
    (tmp_path / "data.bin").write_bytes(gzip.compress(b"x" * 1000) + b"\xff\xfe" + HIDDEN.encode())
    assert len(find_leaks(tmp_path, secrets_of(toy))) == 1
