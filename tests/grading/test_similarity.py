"""Near-identical submissions are found through disguises; different ones, and the stub, are not."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz import fuzz

from coursekit.grading.similarity import near_identical, own_text, structure

STUB = '''def train(model, batches, optimizer):
    """Train the model."""
    raise NotImplementedError
'''
ADA = '''def train(model, batches, optimizer):
    """Train the model."""
    history = []
    for inputs, targets in batches:
        optimizer.zero_grad()
        loss = ((model(inputs) - targets) ** 2).mean()
        loss.backward()
        optimizer.step()
        history.append(float(loss))
    return history
'''
# Renamed, commented, laid out anew: the same work.
COPY = '''def train(model, batches, optimizer):
    """Train the model."""
    # my own idea
    out = list() if False else []
    for x, y in batches:
        optimizer.zero_grad()
        err = (
            (model(x) - y) ** 2
        ).mean()
        err.backward()
        optimizer.step()   # one step
        out.append(float(err))
    return out
'''
OTHER = '''def train(model, batches, optimizer):
    """Train the model."""
    def closure(pair):
        optimizer.zero_grad(set_to_none=True)
        predicted = model.forward(pair[0])
        value = torch.nn.functional.mse_loss(predicted, pair[1], reduction="mean")
        value.backward()
        return value.detach()
    return [optimizer.step(lambda: closure(pair)).item() for pair in batches]
'''


def likeness(*, stub=STUB, **answers):
    return near_identical({who: {"a": text} for who, text in answers.items()}, stubs={"a": stub})


def test_a_disguised_copy_is_found_and_another_answer_is_not():
    found = likeness(ada=ADA, bob=COPY, cyd=OTHER)
    (pair,) = found.pairs
    assert (pair.left, pair.right) == ("ada", "bob")
    assert pair.percent >= 90
    assert pair.verbatim_percent < 90  # the control: letters alone would not tell


def test_what_everybody_was_given_does_not_count():
    given = "\n".join(f"prepare(model, {number}, batches[{number}])" for number in range(40))
    assert likeness(ada=f"{given}\n{ADA}", cyd=f"{given}\n{OTHER}", stub=f"{given}\n{STUB}").pairs == ()
    assert likeness(ada=f"{given}\n{ADA}", cyd=f"{given}\n{OTHER}").pairs != ()  # the control: it would
    assert likeness(ada=STUB, bob=STUB).pairs == ()


def test_answers_too_short_to_say_anything_are_left_out():
    short = "def add(left, right):\n    return left + right"
    found = likeness(ada=short, bob=short, stub="")
    assert (found.pairs, found.typical_percent) == ((), None)


def test_every_pair_is_compared_once_across_blocks_and_half_of_them_reach_the_typical_value():
    answers = {
        f"s{number:03d}": {"a": ADA if number in (3, 299) else f"x = {number}\n" + OTHER}
        for number in range(300)
    }
    found = near_identical(answers, stubs={"a": STUB}, at_least=98)
    assert ("s003", "s299") in {(pair.left, pair.right) for pair in found.pairs}
    assert len(found.pairs) + found.left_out == 298 * 297 // 2 + 1
    assert found.typical_percent >= 98


def test_of_a_class_whose_answers_are_all_alike_the_most_alike_pairs_are_named_and_the_rest_counted():
    # They differ by up to three lines in structure, and to the letter each is alone but for a copy.
    answers = {
        f"s{number:03d}": {"a": (number % 4) * "done = 0\n" + ADA.replace("loss", f"loss_{number:03d}")}
        for number in range(300)
    }
    answers["s299"] = answers["s002"]
    found = near_identical(answers, stubs={"a": STUB})
    assert len(found.pairs) == 500
    assert found.left_out == 300 * 299 // 2 - 500
    (first, *others) = found.pairs
    assert (first.left, first.right, first.percent, first.verbatim_percent) == ("s002", "s299", 100, 100)
    assert all(pair.percent == 100 > pair.verbatim_percent for pair in others)
    own = [own_text(answers[student], {"a": STUB}) for student in sorted(answers)]
    same = [(a, b) for a, b in itertools.combinations(own, 2) if a.count("done") == b.count("done")]
    every = sorted(int(fuzz.ratio(a, b)) for a, b in same)
    assert sorted(pair.verbatim_percent for pair in found.pairs) == every[-500:]


@given(st.text(max_size=300))
def test_any_text_has_a_structure(source):
    assert structure(source) == structure(source)
    own_text({"a": source}, {"a": "x"})


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("a = b + 1", "total = value + 1", True),
        ("a = b + 1", "a = b + 2", False),
        ("f('x')", 'f("another")', True),
        ("def f(:\n  x", "def g(:\n  y", True),
        ("while a: b()", "for a in b: b()", False),
    ],
)
def test_names_strings_and_layout_do_not_count_and_the_rest_does(left, right, same):
    assert (structure(left) == structure(right)) == same


def test_thousands_of_empty_lines_take_no_time_and_say_nothing():
    start = time.process_time()
    assert structure("x = 1\n" + "    \n" * 9000 + "y = 2") == structure("x = 1\ny = 2")
    assert time.process_time() - start < 1
