"""Pages of the book: their cells run side by side, and what they gave is kept by all that it depends on."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coursekit.errors import CoursekitError, InputError
from coursekit.notebooks.course_map import listed_pages
from coursekit.notebooks.dependencies import installed_versions, package_files

if TYPE_CHECKING:
    from nbformat import NotebookNode

Report = Callable[[str], None]

# Raised by hand when what is stored beside a key changes its form.
_FORM = "2"
_ALONE = "run_alone"
# A page that measures time can fail because something else on the machine was busy. What is wrong with the
# page itself fails every time.
_TRIES_ALONE = 3
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class PageError(CoursekitError, RuntimeError):
    """A cell of one or more pages raised; the message holds page, line, cell and traceback of each."""


@dataclasses.dataclass(frozen=True)
class Page:
    """A page with code cells, and the key under which its outputs are kept.

    `name` is the path below the book's folder without suffix; `alone` says that nothing else may run
    meanwhile, because the page measures time.
    """

    name: str
    notebook: NotebookNode
    key: str
    alone: bool


def read_page(text: str, *, name: str = "", package: Path | None = None) -> Page:
    """Return the page that a MyST text describes, with its key.

    The key covers the code cells, the files of `package` (a folder, by default coursekit's own) that they
    import and what those import, and the versions of the other packages they name. Prose is not in it:
    mending a sentence runs nothing.
    """
    from myst_nb.core.read import read_myst_markdown_notebook
    from myst_parser.config.main import MdParserConfig

    config = MdParserConfig(enable_extensions={"colon_fence", "dollarmath"})
    notebook = read_myst_markdown_notebook(text, config=config, add_source_map=True)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    key = hashlib.sha256()
    folder = package or Path(__file__).parents[1]
    for part in (_FORM, sys.version, json.dumps(sources), *installed_versions(sources)):
        key.update(part.encode() + b"\0")
    for path in package_files(sources, folder):
        key.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return Page(name, notebook, key.hexdigest()[:32], bool(notebook.metadata.get(_ALONE)))


def load_outputs(page: Page, store: Path) -> bool:
    """Fill the page's code cells with the outputs kept for its key; return whether there were any."""
    import nbformat

    code_cells = [cell for cell in page.notebook.cells if cell.cell_type == "code"]
    if not code_cells:
        return True
    kept = store / f"{page.key}.ipynb"
    if not kept.is_file():
        return False
    for cell, done in zip(code_cells, nbformat.read(kept, as_version=4).cells, strict=True):
        cell.outputs, cell.execution_count = done.outputs, done.execution_count
    return True


def execute_pages(
    book: Path, store: Path, *, names: Sequence[str] = (), workers: int = 2, report: Report = print
) -> int:
    """Run every page of `book` whose outputs `store` lacks; return how many ran.

    A page's outputs are stored as soon as its last cell has ended: an interrupted run goes on where it
    stopped. Pages with `run_alone: true` in their header run one by one after the others, and are tried up
    to three times: they measure time, which other work on the machine can spoil.

    Args:
        book: the folder of the sources.
        store: the folder that keeps outputs.
        names: only these pages ("scale/data_parallel"); all that `_toc.yml` lists if empty.
        workers: pages at the same time, each in a process of its own.
        report: is called with a line of text as each page ends.
    Raises: PageError after all pages were tried, if a cell of any of them raised.
    """
    store.mkdir(parents=True, exist_ok=True)
    waiting = [page for page in _pages(book, names) if not load_outputs(page, store)]
    if not waiting:
        report("Every page is up to date; nothing to run.")
        return 0
    failures = asyncio.run(_run_all(waiting, store, workers=workers, report=report))
    if failures:
        raise PageError("\n\n".join(failures))
    return len(waiting)


def _pages(book: Path, names: Sequence[str]) -> Iterable[Page]:
    for name in names or listed_pages(book):
        path = book / f"{name.removesuffix('.md')}.md"
        if not path.is_file():
            raise InputError(
                "no such page", expected="one like part/slug, with its file below book/", got=name
            )
        yield read_page(path.read_text(encoding="utf-8"), name=name.removesuffix(".md"))


async def _run_all(pages: Sequence[Page], store: Path, *, workers: int, report: Report) -> list[str]:
    places = asyncio.Semaphore(workers)
    with tempfile.TemporaryDirectory(prefix="coursekit-pages-") as folder:
        _write_kernel_spec(Path(folder))

        async def one(page: Page) -> str | None:
            async with places:
                return await _run(page, store, Path(folder), report=report)

        failures = await asyncio.gather(*(one(page) for page in pages if not page.alone))
        for page in pages:
            if page.alone:
                failures.append(await one(page))
    return [failure for failure in failures if failure]


async def _run(page: Page, store: Path, folder: Path, *, report: Report) -> str | None:
    """Run one page and keep its outputs; return None, or the text of its last failure."""
    failure = None
    for tries_left in reversed(range(_TRIES_ALONE if page.alone else 1)):
        started = time.monotonic()
        tried = dataclasses.replace(page, notebook=copy.deepcopy(page.notebook))
        failure = await _try(tried, store, folder)
        seconds = time.monotonic() - started
        if failure is None:
            report(f"ran  {page.name}  {seconds:.1f} s")
            return None
        where, why = failure.partition("\n")[0], failure.rstrip().rpartition("\n")[2]
        again = f": {where} ({why}); it measures time, so it is tried again" if tries_left else ""
        report(f"FAILED  {page.name}  after {seconds:.1f} s{again}")
    return failure


async def _try(page: Page, store: Path, folder: Path) -> str | None:
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    try:
        await _execute(page, folder)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return _failure(page, error)
    _keep(page, store)
    return None


async def _execute(page: Page, folder: Path) -> None:
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    specs = KernelSpecManager(kernel_dirs=[str(folder / "kernels")], ensure_native_kernel=False)
    # Files instead of TCP ports: no two kernels, nor a rank of `launch`, can be given the same one.
    sockets = os.path.join(tempfile.mkdtemp(dir=folder), "k.json")
    manager = AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=specs, transport="ipc", connection_file=sockets
    )
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as place:
        client = NotebookClient(
            page.notebook, km=manager, timeout=300, resources={"metadata": {"path": place}}
        )
        # A kernel on this machine's own loopback: its warning about plain TCP is noise here.
        client.extra_arguments = ["--Application.log_level=40"]
        try:
            # What C++ libraries write past Python (TensorFlow's notes) is not for the terminal.
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            environment = _environment(folder, alone=page.alone)
            await client.async_execute(env=environment, cleanup_kc=False, **quiet)
        finally:
            if manager.has_kernel:
                await client._async_cleanup_kernel()


def _environment(folder: Path, *, alone: bool) -> dict[str, str]:
    """Return the environment of a page's kernel: without the settings of the person who builds."""
    # A thread of OpenMP that waits for others turns in a loop, on a core that the page beside needs: the
    # same page took seven times the processor time. One that sleeps gives the same numbers.
    wait = {} if alone else {"OMP_WAIT_POLICY": "PASSIVE"}
    return os.environ | {
        **wait,
        "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONHASHSEED": "0",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        # TensorFlow's C++ notes about the machine ("oneDNN is on", "no CUDA") are not part of a page.
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "JUPYTER_PLATFORM_DIRS": "1",
    }


def _write_kernel_spec(folder: Path) -> None:
    """Write a kernel spec whose Python is this one: a registered "python3" may be another environment's."""
    from ipykernel.kernelspec import write_kernel_spec

    (folder / "kernels").mkdir()
    write_kernel_spec(str(folder / "kernels" / "python3"))


def _keep(page: Page, store: Path) -> None:
    """Store the code cells with their outputs under the page's key, all at once or not at all."""
    import nbformat

    cells = [cell for cell in page.notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        cell.outputs = list(_joined(cell.outputs))
    kept = nbformat.v4.new_notebook(cells=cells)
    half = store / f".{page.key}.part"
    half.write_text(nbformat.writes(kept), encoding="utf-8")
    half.replace(store / f"{page.key}.ipynb")


def _joined(outputs: Iterable[NotebookNode]) -> Iterator[NotebookNode]:
    """Yield the outputs with neighbouring pieces of one stream as one.

    A kernel sends what is printed in as many pieces as it likes. MyST-NB would join them later, in place, and
    the notebook that the page offers would repeat the last ones.
    """
    for stream, pieces in itertools.groupby(outputs, key=lambda output: output.get("name")):
        first, *others = pieces
        if stream is None:
            yield from (first, *others)
        else:
            first["text"] += "".join(piece["text"] for piece in others)
            yield first


def _failure(page: Page, error: Exception) -> str:
    cells = page.notebook.cells
    codes = [i for i, cell in enumerate(cells) if cell.cell_type == "code"]
    # The failing cell is the last begun: nbclient leaves a trace of the time in every cell it begins.
    begun = [i for i in codes if cells[i].metadata.get("execution")] or codes[:1]
    line = page.notebook.metadata["source_map"][begun[-1]] + 1
    where = f"{page.name}.md:{line}, code cell {codes.index(begun[-1]) + 1} of {len(codes)}"
    return f"{where} failed\n{_ANSI.sub('', str(error)).strip()}"
