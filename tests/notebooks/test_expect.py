"""What the comparisons let pass and refuse, and what they say."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coursekit.notebooks import WrongAnswer, expect_close, expect_equal, points_for
from coursekit.notebooks.expect import _show

EQUAL = [
    (1, 1.0),
    (1.0, 1),
    (np.float32(0.5), 0.5),
    (torch.tensor(0.5), 0.5),
    ([1.0, 2.0], torch.tensor([1.0, 2.0], dtype=torch.float64)),
    (torch.tensor([1.0, 2.0]), [1, 2]),
    (torch.tensor([1.0, 2.0], dtype=torch.bfloat16), [1.0, 2.0]),
    (np.array([1, 2]), torch.tensor([1, 2])),
    ({"a": [1.0, None], "b": "x"}, {"b": "x", "a": [1.0, None]}),
    ([[1.0], [1.0, 2.0]], [[1.0], [1.0, 2.0]]),
    ([math.nan, math.inf], [math.nan, math.inf]),
    ([], []),
    (np.zeros((0, 3)), np.zeros((0, 3))),
    (True, True),
    (1 + 2j, 1 + 2j),
    (np.str_("adam"), "adam"),
    (np.bool_(True), True),
    (range(2), [0.0, 1.0]),
    ({"a": map(float, "12"), "b": torch.zeros(2, 3).shape}, {"a": [1.0, 2.0], "b": (2, 3)}),
    (Fraction(1, 4), 0.25),
]
DIFFERENT = [
    (0.0, 1e-12, "expected 1e-12, got 0"),
    (2.0, 8 / 6, "expected 1.33333, got 2"),
    ([1.0, 2.0, 3.0], [1.0, 2.0], "expected shape (2,), got shape (3,)"),
    (1.0, [1.0], "expected shape (1,), got a single number"),
    ([1.0], 1.0, "expected a single number, got shape (1,)"),
    (None, 1.0, "expected 1, got None"),
    ("1.0", 1.0, "expected 1, got '1.0'"),
    (math.nan, 1.0, "expected 1, got nan"),
    (1.0, math.nan, "expected nan, got 1"),
    (-math.inf, math.inf, "expected inf, got -inf"),
    (math.inf, 1.0, "expected 1, got inf"),
    (True, 1.0, "expected floats (float64), got bools (bool)"),
    ([1.0, 2.0], np.array([1, 2]), "expected whole numbers (int64), got floats (float64)"),
    ({"a": 1.0}, {"b": 1.0}, "lacks ['b'] and has ['a'] too many"),
    ([1.0], {"a": 1.0}, "expected a dict with keys ['a'], got [1.0]"),
    (
        {"a": [1.0, 2.0]},
        {"a": [1.0, 3.0]},
        "at ['a']: 1 of 2 numbers are off, most at [1]: expected 3, got 2",
    ),
    ([[1.0], [1.0]], [[1.0], [1.0, 2.0]], "at [1]: expected shape (2,), got shape (1,)"),
    (object(), [1.0], "the answer is an object"),
    (torch.tensor(1.0, requires_grad=True), 1.0, "return tensor.detach()"),
    (torch.nn.Parameter(torch.ones(1)), [1.0], "return parameter.detach()"),
    ("sgd", "adam", "expected 'adam', got 'sgd'"),
    (np.str_("sgd"), "adam", "expected 'adam', got 'sgd'"),
    (np.zeros(3), None, "expected None, got array of shape (3,)"),
]


@pytest.mark.parametrize(("got", "want"), EQUAL)
def test_the_same_values_pass_in_any_container(got, want):
    expect_close(got, want)


@pytest.mark.parametrize(("got", "want", "said"), DIFFERENT)
def test_a_difference_is_said_in_one_line_that_ends_with_the_hint(got, want, said):
    with pytest.raises(WrongAnswer) as caught:
        expect_close(got, want, hint="look at the mask")
    message = str(caught.value)
    assert said in message
    assert message.endswith("; look at the mask")
    assert "\n" not in message
    assert len(message) < 300


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5), st.floats(1e-9, 1e-2), st.sampled_from([0.5, 2.0])
)
def test_the_bound_is_relative_to_the_largest_expected_number(want, rtol, share):
    largest = max(map(abs, want))
    got = np.array(want)
    got[0] += share * rtol * largest
    error = abs(got[0] - want[0])  # as floating point has it
    if error <= rtol * largest:
        expect_close(got, want, rtol=rtol)
    else:
        with pytest.raises(WrongAnswer):
            expect_close(got, want, rtol=rtol)


@pytest.mark.parametrize("got", [(0.0, 8e9), [0.0, 8e9], np.array([0.0, 8e9])])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x, x]], ids=["alone", "in_a_list"])
def test_the_small_number_of_a_tuple_is_not_measured_by_the_large_one(got, wrap):
    processors_and_bytes = (2.5, 8e9)
    expect_close(wrap(got), wrap(list(processors_and_bytes)))  # one vector: 2.5 is less than a millionth
    with pytest.raises(WrongAnswer, match=r"\[0\]: expected 2.5, got 0"):
        expect_close(wrap(got), wrap(processors_and_bytes))


def test_zeros_for_tiny_gradients_do_not_pass_as_they_would_in_allclose():
    want = torch.full((4,), 1e-9, dtype=torch.float64)
    zeros = torch.zeros(4, dtype=torch.float64)
    assert torch.allclose(zeros, want)  # the trap: allclose's default atol is 1e-8
    with pytest.raises(WrongAnswer, match="4 of 4 numbers are off"):
        expect_close(zeros, want)
    expect_close(zeros, want, atol=1e-8)


def test_thousands_of_numbers_are_never_printed():
    with pytest.raises(WrongAnswer) as caught:
        expect_close(torch.zeros(100, 100), torch.ones(100, 100))
    assert str(caught.value).startswith("10000 of 10000 numbers are off, most at [0, 0]: expected 1, got 0")
    with pytest.raises(WrongAnswer) as caught:
        expect_equal(list(range(10_000)), "short")
    assert len(str(caught.value)) < 300


class EqualsEverything:
    def __eq__(self, other):
        return True

    __hash__ = object.__hash__


class Lying(float):
    def __sub__(self, other):
        return 0.0

    def __ne__(self, other):
        return False

    __hash__ = float.__hash__


@pytest.mark.parametrize(
    "liar", [EqualsEverything(), Lying(3.0), [Lying(3.0)], type("T", (torch.Tensor,), {})([3.0])]
)
@pytest.mark.parametrize("expect", [expect_close, expect_equal])
def test_objects_that_equal_everything_are_no_answer(expect, liar):
    with pytest.raises(WrongAnswer, match=r"use numbers|is an? \w+|expected (1|a single number), got"):
        expect(liar, 1.0)


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (1, True),
        (True, 1),
        (1.0 + 1e-12, 1.0),
        ([1, 2], [1, 2, 3]),
        ({"a": 1}, {"a": 2}),
        (b"a", "a"),
        (None, 0),
    ],
)
def test_expect_equal_refuses_what_is_only_nearly_equal(got, want):
    with pytest.raises(WrongAnswer):
        expect_equal(got, want)


@pytest.mark.parametrize(
    ("got", "want"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        (torch.tensor([1, 2]), [1, 2]),
        ([1, 2], np.array([1, 2])),
        (math.nan, math.nan),
    ],
)
def test_expect_equal_takes_lists_tuples_and_arrays_for_the_same(got, want):
    expect_equal(got, want)


def test_partial_credit_adds_the_parts_that_pass_and_says_why_others_do_not(capsys):
    def unwritten():
        raise NotImplementedError

    parts = [
        (1, lambda: expect_equal(1, 1)),
        (0.5, lambda: expect_equal(1, 2, hint="count from 1")),
        (2, lambda: [][0]),
        (1, unwritten),
        (3, lambda: None),
    ]
    assert points_for(parts) == 4
    assert capsys.readouterr().out.splitlines() == [
        "missed 0.5 points: expected 2, got 1; count from 1",
        "missed 2 points: IndexError: list index out of range",
        "missed 1 point: not written yet",
    ]


ATOMS = st.none() | st.booleans() | st.integers() | st.binary() | st.text("abc\n\\é", max_size=90)
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text("abc", max_size=9), inner)
    ),
)


@given(VALUES)
def test_a_value_is_shown_as_it_is_written_or_as_that_begins(value):
    written = repr(value)
    shown = _show(value)
    assert shown == written if len(written) <= 80 else shown.startswith(f"{written[:60]}... (")


class Counted:
    """Counts how often it is written."""

    times = 0

    def __repr__(self):
        Counted.times += 1
        return "0"


@pytest.mark.parametrize(
    "many", [lambda zero: [zero] * 10**6, lambda zero: dict.fromkeys(range(10**6), zero)]
)
def test_of_a_large_answer_only_the_beginning_is_written(many):
    Counted.times = 0
    assert re.search(r"^.{60}\.\.\. \((list|dict), 1000000 items\)$", _show(many(Counted())))
    assert Counted.times < 100
