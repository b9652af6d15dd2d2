"""A probe that could not travel is refused where it is written."""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict, defaultdict, deque
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
import torch

from coursekit.notebooks import NotPlainError, ProbeError, WrongAnswer, check_plain, probe, probe_source
from coursekit.notebooks.plain import as_plain


def gradient_of_square(value):
    import torch

    x = torch.tensor(value, requires_grad=True)
    (x * x).backward()
    return x.grad


def returns_graph(value):
    import torch

    return torch.tensor(value, requires_grad=True) * 2


def with_default(value=1):
    return value


@functools.cache
def decorated(value):
    return value


def test_a_probe_returns_what_the_function_returns():
    assert probe(gradient_of_square, 3.0).item() == 6.0


def test_the_source_of_a_probe_runs_in_another_namespace():
    namespace = {}
    exec(probe_source(gradient_of_square), namespace)
    assert namespace["gradient_of_square"](3.0).item() == 6.0


def test_a_result_on_its_graph_is_the_learners_to_mend():
    with pytest.raises(
        WrongAnswer, match=r"the result of returns_graph is a tensor still on its autograd graph"
    ):
        probe(returns_graph, 1.0)


@pytest.mark.parametrize("argument", [lambda: 1, {1, 2}, torch.nn.Linear(1, 1), object(), (1, [map])])
def test_arguments_that_are_not_plain_are_the_tests_fault(argument):
    with pytest.raises(ProbeError, match=r"argument 2 of probe\(gradient_of_square"):
        probe(gradient_of_square, 1.0, argument)


def make_closure():
    hidden = 3

    def closure():
        return hidden

    return closure


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda: 1, "written with def"),
        (functools.partial(with_default, 2), "written with def"),
        (len, "written with def"),
        (make_closure(), "closure over"),
        (with_default, "default values"),
    ],
)
def test_functions_that_cannot_travel_as_source_are_refused(function, said):
    with pytest.raises(ProbeError, match=said):
        probe(function)


def test_a_decorated_function_and_one_without_source_are_refused():
    with pytest.raises(ProbeError, match="written with def"):
        probe(decorated, 1)
    namespace = {}
    exec("def made():\n    return 1", namespace)
    with pytest.raises(ProbeError, match="source of probe made cannot be read"):
        probe(namespace["made"])


PLAIN = [
    None,
    True, 1, 1.5, 1j, "a", b"a", [1, (2, {"a": None})], {1: 2, "b": [3]}, np.zeros(2), np.float32(1),
    np.array(["a"]), torch.zeros(2), torch.zeros(2, dtype=torch.int64), torch.zeros(0),
]  # fmt: skip
NOT_PLAIN = [
    {1},
    object(), print, int, range(3), (n for n in [1]), {(1, 2): 3}, np.array([object()]), np.ma.array([1]),
    torch.ones(1, requires_grad=True), torch.nn.Parameter(torch.ones(1)), torch.eye(2).to_sparse(),
    torch.float32,
    type("L", (list,), {})(), type("I", (int,), {})(1), [[object()]],
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_data_is_let_through(value):
    assert check_plain(value) is None


@pytest.mark.parametrize("value", NOT_PLAIN, ids=lambda value: type(value).__name__)
def test_everything_else_is_not(value):
    with pytest.raises(NotPlainError):
        check_plain(value)


class Grid(NamedTuple):
    rows: int
    cols: int


class Stage(IntEnum):
    WEIGHTS = 3


AS_PLAIN = [
    (range(3), [0, 1, 2]),
    ((n for n in (1, 2)), [1, 2]),
    ({4}, [4]),
    (deque([1, (2,)]), [1, (2,)]),
    ({"a": 1}.items(), [("a", 1)]),
    (Grid(2, 4), (2, 4)),
    (torch.zeros(2, 3).shape, (2, 3)),
    (OrderedDict(a=iter("xy")), {"a": ["x", "y"]}),
    (defaultdict(list, {np.int64(3): [1]}), {3: [1]}),
    ({np.str_("a"): Stage.WEIGHTS}, {"a": 3}),
    (Fraction(1, 2), 0.5),
    (Decimal("0.5"), 0.5),
]


@pytest.mark.parametrize(("value", "plain"), AS_PLAIN, ids=lambda value: type(value).__name__)
def test_what_means_the_same_becomes_plain(value, plain):
    got = as_plain(value)
    check_plain(got)
    assert repr(got) == repr(plain)


def test_what_is_plain_is_returned_itself_and_the_rest_is_refused():
    values = [1.5, [np.float64(1)], torch.zeros(2)]
    assert as_plain(values) is values
    for value in (object(), [print], torch.ones(1, requires_grad=True), {(1, 2): 3}, np.ma.array([1])):
        with pytest.raises(NotPlainError):
            as_plain(value)


def test_an_iterator_without_end_and_a_list_in_itself_end():
    with pytest.raises(NotPlainError, match="more than 2,000,000 items"):
        as_plain(itertools.count())
    knot = deque()
    knot += [knot] * 10
    with pytest.raises(NotPlainError, match="nested more than"):
        as_plain(knot)


def test_depth_is_bounded_so_that_a_list_in_itself_ends():
    knot = []
    knot.append(knot)
    with pytest.raises(NotPlainError, match="nested more than"):
        check_plain(knot)


def test_the_place_of_what_is_not_plain_is_named():
    with pytest.raises(NotPlainError, match=r"result\['grads'\]\[1\] is a set"):
        check_plain({"grads": [1, {2}]}, "result")
