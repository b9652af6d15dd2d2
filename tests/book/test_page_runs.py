"""Running pages: real kernels, kept outputs, failures that say where."""

import json
import sys

import pytest

from coursekit.notebooks.pages import PageError, execute_pages, load_outputs, read_page
from tests.book.conftest import cell, page_text


def run(book, store, **options):
    lines = []
    return execute_pages(book, store, report=lines.append, **options), lines


def outputs(text, store):
    page = read_page(text)
    assert load_outputs(page, store)
    cells = [cell for cell in page.notebook.cells if cell.cell_type == "code"]
    return "".join(out.get("text", "") for cell in cells for out in cell.outputs)


def test_what_ran_once_does_not_run_again_and_prose_does_not_count(pages, tmp_path):
    code = cell("print(6 * 7)")
    book = pages(index=page_text(f"# One\n\n{code}"))
    assert run(book, tmp_path / "kept")[0] == 1
    book = pages(index=page_text(f"# One, better said\n\nMore words.\n\n{code}"))
    assert run(book, tmp_path / "kept")[0] == 0
    assert outputs((book / "index.md").read_text(), tmp_path / "kept") == "42\n"


def test_what_is_printed_in_pieces_is_kept_as_one(pages, tmp_path):
    # MyST-NB would join the pieces in the outputs that the download is made of, and repeat the last ones.
    code = "import time\nfor i in range(3):\n    print(i, flush=True)\n    time.sleep(0.3)\n"
    text = page_text(
        cell(code + "from IPython.display import HTML, display\ndisplay(HTML('x'))\nprint('after')")
    )
    run(pages(index=text), tmp_path / "kept")
    page = read_page(text)
    assert load_outputs(page, tmp_path / "kept")
    (printing,) = [cell for cell in page.notebook.cells if cell.cell_type == "code"]
    assert [output.get("text") for output in printing.outputs] == ["0\n1\n2\n", None, "after\n"]


def test_another_cell_or_another_version_of_the_package_is_another_key(tmp_path):
    package = tmp_path / "kit"
    package.mkdir()
    (package / "units.py").write_text("one = 1")
    text = page_text(cell("from kit.units import one"))
    before = read_page(text, package=package).key
    assert read_page(text + "\nmore prose", package=package).key == before
    assert read_page(text + cell("1"), package=package).key != before
    (package / "units.py").write_text("one = 1.0")
    assert read_page(text, package=package).key != before


def test_the_kernel_is_this_python_in_an_empty_folder(pages, tmp_path):
    text = page_text(cell("import os, sys, json\nprint(json.dumps([sys.executable, os.listdir()]))"))
    run(pages(index=text), tmp_path / "kept")
    assert json.loads(outputs(text, tmp_path / "kept")) == [sys.executable, []]


def test_a_failing_cell_names_page_line_and_traceback_and_the_others_are_kept(pages, tmp_path):
    bad = page_text("# Bad\n\n" + cell("fine = 1") + cell("assert fine == 2, 'not two'"))
    good = page_text(cell("print('good')"))
    book = pages(index=good, bad=bad)
    with pytest.raises(PageError, match=r"bad\.md:\d+, code cell 2 of 2") as caught:
        run(book, tmp_path / "kept")
    line = int(str(caught.value).split("bad.md:")[1].split(",")[0])
    assert "fine == 2" in (book / "bad.md").read_text().splitlines()[line - 1]
    assert "AssertionError: not two" in str(caught.value)
    assert outputs(good, tmp_path / "kept") == "good\n"
    (book / "bad.md").write_text(page_text(cell("fine = 1")))
    assert run(book, tmp_path / "kept")[0] == 1  # the mended page alone


def test_what_a_kernel_writes_past_python_stays_off_the_terminal(pages, tmp_path, capfd):
    # As a C++ library does before the kernel listens: through a descriptor of its own, at start-up.
    noise = "import os; print('heard', flush=True); os.write(os.dup(2), b'chatter')"
    book = pages(index=page_text(cell(noise)))
    run(book, tmp_path / "kept")
    assert "chatter" not in "".join(capfd.readouterr())


def test_a_kernel_that_dies_is_reported_with_its_page(pages, tmp_path):
    book = pages(index=page_text(cell("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")))
    with pytest.raises(PageError, match=r"index\.md:\d+, code cell 1 of 1 failed\nKernel died"):
        run(book, tmp_path / "kept")


def test_a_page_that_measures_time_runs_alone(pages, tmp_path):
    code = cell("import time\nbegin = time.time()\ntime.sleep(0.7)\nprint(begin, time.time())")
    texts = {
        "index": page_text(code, extra="run_alone: true\n"),
        "a": page_text(cell("'a'") + code),
        "b": page_text(cell("'b'") + code),
    }
    assert run(pages(**texts), tmp_path / "kept")[0] == 3
    times = {name: [*map(float, outputs(text, tmp_path / "kept").split())] for name, text in texts.items()}
    for other in ("a", "b"):
        assert times["index"][0] >= times[other][1] or times["index"][1] <= times[other][0]


def test_threads_of_a_page_that_has_neighbours_sleep_while_they_wait(pages, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    code = cell("import os\nprint(os.environ.get('OMP_WAIT_POLICY'))")
    texts = {"index": page_text(code), "alone": page_text(code + cell("1"), extra="run_alone: true\n")}
    run(pages(**texts), tmp_path / "kept")
    assert [outputs(text, tmp_path / "kept") for text in texts.values()] == ["PASSIVE\n", "None\n"]


def test_a_page_that_measures_time_is_tried_again_and_says_so(pages, tmp_path):
    # The first try finds no mark and fails, as a disturbed measurement would.
    code = f"import pathlib\nmark = pathlib.Path({str(tmp_path / 'mark')!r})\n"
    code += "disturbed = not mark.exists()\nmark.touch()\nassert not disturbed\nprint('fine')"
    alone = page_text(cell(code), extra="run_alone: true\n")
    ran, lines = run(pages(index=alone), tmp_path / "kept")
    assert (ran, outputs(alone, tmp_path / "kept")) == (1, "fine\n")
    assert "code cell 1 of 1 failed (AssertionError" in lines[0]
    assert "it measures time, so it is tried again" in lines[0]
    (tmp_path / "mark").unlink()
    with pytest.raises(PageError):
        run(pages(index=page_text(cell(code))), tmp_path / "others")


def test_a_claim_that_never_holds_fails_however_often_it_is_tried(pages, tmp_path):
    count = tmp_path / "count"
    code = f"with open({str(count)!r}, 'a') as file:\n    file.write('.')\nassert 1 == 2"
    with pytest.raises(PageError, match="code cell 1 of 1 failed"):
        run(pages(index=page_text(cell(code), extra="run_alone: true\n")), tmp_path / "kept")
    assert count.read_text() == "..."


def test_pages_run_side_by_side(pages, tmp_path):
    # Each waits for the other: one after the other they would never end.
    meet = "import pathlib, time\nhere, there = pathlib.Path({0!r}), pathlib.Path({1!r})\nhere.touch()\n"
    meet += "deadline = time.time() + 30\n"
    meet += "while not there.exists():\n    assert time.time() < deadline\n    time.sleep(0.02)"
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    book = pages(index=page_text(cell(meet.format(one, two))), b=page_text(cell(meet.format(two, one))))
    assert run(book, tmp_path / "kept", workers=2)[0] == 2


def test_a_page_that_is_not_listed_is_a_draft_and_does_not_run(pages, tmp_path):
    book = pages(index=page_text(cell("1")))
    (book / "draft.md").write_text(page_text(cell("raise RuntimeError")))
    assert run(book, tmp_path / "kept")[0] == 1


def test_an_unfinished_page_leaves_no_outputs(pages, tmp_path):
    text = page_text(cell("1") + cell("raise RuntimeError"))
    with pytest.raises(PageError):
        run(pages(index=text), tmp_path / "kept")
    assert not load_outputs(read_page(text), tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []
