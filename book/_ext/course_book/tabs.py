"""Code cells tagged `tab-<name>` that follow each other become the tabs of one set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx_design.shared import create_component

_NAMES = {"pytorch": "PyTorch", "tensorflow": "TensorFlow", "numpy": "NumPy", "jax": "JAX"}


def setup(app: Sphinx) -> None:
    """Add the transform."""
    app.add_transform(CellTabs)


class CellTabs(SphinxTransform):
    """Moves the containers of tagged cells, outputs included, into sphinx-design's tabs."""

    default_priority = 400

    def apply(self, **kwargs: object) -> None:
        """Replace each run of tagged cells by a tab set."""
        cells = list(self.document.findall(lambda node: bool(tab_of(node))))
        for run in _runs(cells):
            parent = run[0].parent
            place = parent.index(run[0])
            for cell in run:
                parent.remove(cell)
            parent.insert(place, _tab_set(run))


def tab_of(node: nodes.Node) -> str:
    """Return the name in a code cell's `tab-<name>` tag, or ""."""
    if not isinstance(node, nodes.container) or node.get("nb_element") != "cell_code":
        return ""
    tags = node.get("cell_metadata", {}).get("tags", [])
    return next((tag.removeprefix("tab-") for tag in tags if tag.startswith("tab-")), "")


def _runs(cells: list[nodes.container]) -> Iterator[list[nodes.container]]:
    run: list[nodes.container] = []
    for cell in cells:
        if run and (
            cell.parent is not run[-1].parent or cell.parent.index(cell) != cell.parent.index(run[-1]) + 1
        ):
            yield run
            run = []
        run.append(cell)
    if run:
        yield run


def _tab_set(run: list[nodes.container]) -> nodes.container:
    tab_set = create_component("tab-set", classes=["sd-tab-set"])
    for name, cells in groupby(run, key=tab_of):
        title = _NAMES.get(name, name.replace("-", " ").capitalize())
        label = nodes.rubric(title, title, classes=["sd-tab-label"], sync_id=name, sync_group="tab")
        content = create_component("tab-content", classes=["sd-tab-content"], children=list(cells))
        tab_set += create_component(
            "tab-item", classes=["sd-tab-item"], children=[label, content], selected=False
        )
    return tab_set
