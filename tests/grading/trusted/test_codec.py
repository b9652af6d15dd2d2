"""The codec: an exact round trip, and bytes from a stranger that are refused."""

import json
import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from coursekit.grading.trusted import codec
from coursekit.grading.trusted.codec import CodecError, decode, encode
from coursekit.notebooks.plain import NotPlainError

# Lone surrogates too: a student's text may hold them.
TEXTS = st.text() | st.text(st.characters(categories=["Cs", "Ll"]))
NUMBERS = st.integers() | st.integers(-(2**200), 2**200) | st.floats() | st.complex_numbers()
DTYPES = (
    arrays.boolean_dtypes() | arrays.integer_dtypes(endianness="?") | arrays.floating_dtypes(endianness="?")
)
SHAPES = arrays.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=3)
ARRAYS = arrays.arrays(
    DTYPES | arrays.unicode_string_dtypes(max_len=4) | arrays.complex_number_dtypes(), SHAPES
)
SCALARS = ARRAYS.filter(lambda array: array.size).map(lambda array: array.reshape(-1)[0])
TORCH = st.sampled_from(["float64", "float32", "bfloat16", "float16", "int64", "uint8", "bool", "complex64"])


@st.composite
def tensors(draw):
    shape = draw(SHAPES)
    values = draw(st.lists(st.integers(0, 200), min_size=math.prod(shape), max_size=math.prod(shape)))
    tensor = torch.tensor(values).reshape(shape).to(getattr(torch, draw(TORCH)))
    return tensor.T if tensor.ndim == 2 and draw(st.booleans()) else tensor


LEAVES = st.none() | st.booleans() | NUMBERS | TEXTS | st.binary() | ARRAYS | SCALARS | tensors()
KEYS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
PLAIN = st.recursive(
    LEAVES,
    lambda parts: (
        st.lists(parts, max_size=4)
        | st.lists(parts, max_size=4).map(tuple)
        | st.dictionaries(KEYS, parts, max_size=4)
    ),
    max_leaves=8,
)


def same(left, right):
    """Whether two values are the same to the bit: type, dtype, shape, sign of zero, order of keys."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, torch.Tensor):
        # Through repr-free bits: NaN is not equal to itself.
        same_kind = left.dtype == right.dtype and left.shape == right.shape
        return same_kind and torch.equal(bits(left), bits(right))
    if isinstance(left, np.ndarray | np.generic):
        return (left.dtype, left.shape) == (right.dtype, right.shape) and left.tobytes() == right.tobytes()
    if isinstance(left, complex):
        return repr((left.real, left.imag)) == repr((right.real, right.imag))
    return repr(left) == repr(right)


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


@given(PLAIN)
def test_what_is_written_is_read_back_to_the_bit(value):
    assert same(decode(encode(value)), value)


def test_the_comparison_sees_a_lost_bit():
    assert not same(0.0, -0.0)
    assert not same([1], (1,))
    assert not same(np.float32(1), np.float64(1))
    assert not same(torch.zeros(2), torch.zeros(2, 1))
    assert not same({"a": 1, "b": 2}, {"b": 2, "a": 1})


class Celsius(float):
    """A subclass of a plain type; it could carry code."""


@pytest.mark.parametrize(
    "value",
    [torch.ones(2, requires_grad=True), {1, 2}, len, object(), np.array([None]), Celsius(1.0)],
)
def test_what_is_not_plain_is_not_written(value):
    with pytest.raises(NotPlainError):
        encode([value])


def test_what_is_read_can_be_changed_and_shares_nothing():
    row = np.zeros(2)
    first, second = decode(encode([row, row]))
    first += 1
    assert second.tolist() == [0, 0]
    tensor = decode(encode(torch.zeros(2)))
    tensor += 1  # a read-only buffer would warn, and warnings are errors


def test_too_much_is_refused_on_the_way_out(monkeypatch):
    monkeypatch.setattr(codec, "MAX_BYTES", 100)
    with pytest.raises(CodecError, match="too much data"):
        encode(np.zeros(13))
    assert encode(np.zeros(5))


@pytest.mark.parametrize(
    "value",
    [
        "x" * 2**20,
        [0] * 2**16,
        [np.float64(0)] * 2**12,
        torch.zeros(1).expand(2**20),
        np.broadcast_to(0.0, 2**17),
    ],
    ids=["text", "items", "arrays", "a tensor", "an array"],
)
def test_what_is_too_much_is_refused_before_it_is_made_into_anything(value, monkeypatch):
    for most in ("MAX_BYTES", "MAX_ITEMS", "MAX_ARRAYS"):
        monkeypatch.setattr(codec, most, 100)
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match="too much data"):
            encode(value)
        assert tracemalloc.get_traced_memory()[1] < 2**17
    finally:
        tracemalloc.stop()


def packed(tree, rest=b"", length=None):
    """Bytes with this structure, well formed or not."""
    structure = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    return (len(structure) if length is None else length).to_bytes(8, "big") + structure + rest


def test_the_forger_can_also_write_what_is_well_formed():
    assert decode(packed({"array": ["<f8", [1]]}, np.float64(2).tobytes())).tolist() == [2.0]


FORGED = {
    "nothing": b"",
    "a short header": b"\0\0",
    "a length that is not there": packed([], length=2**63),
    "no JSON": packed(b"{'a'"),
    "no UTF-8": packed(b'"\xff"'),
    "deep": packed(b"[" * 100_000 + b"]" * 100_000),
    "deeper than plain data": packed(b"[" * 30 + b"]" * 30),
    "deep in dicts": packed(b'{"dict":[["a",' * 30 + b"1" + b"]]}" * 30),
    "many items": packed(b"[" + b"0," * codec.MAX_ITEMS + b"0]"),
    "many arrays": packed([{"tensor": ["int8", [0]]}] * (codec.MAX_ARRAYS + 1)),
    "many numbers of numpy": packed([{"number": ["<U0", []]}] * (codec.MAX_ARRAYS + 1)),
    "two kinds": packed({"tuple": [], "bytes": 0}),
    "an unknown kind": packed({"pickle": "gASVHAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAR0cnVllIWUUpQu"}),
    "more numbers than come": packed({"array": ["<f8", [2]]}, b"\0" * 8),
    "fewer numbers than come": packed({"array": ["<f8", [1]]}, b"\0" * 16),
    "a huge shape": packed({"array": ["<f8", [2**62, 2**62]]}),
    "a huge empty shape": packed({"array": ["<f8", [0, 2**62, 2**62]]}),
    "a huge shape of nothing": packed({"array": ["<U0", [2**40]]}),
    "huge text items": packed({"array": ["<U999999999", [1]]}),
    "a negative size": packed({"array": ["<f8", [-1, -1]]}, b"\0" * 8),
    "a size that is a bool": packed({"array": ["<f8", [True]]}, b"\0" * 8),
    "many dimensions": packed({"array": ["<f8", [1] * 5000]}, b"\0" * 8),
    "objects": packed({"array": ["|O8", [1]]}, b"\0" * 8),
    "records": packed({"array": ["f8,O", [1]]}, b"\0" * 16),
    "dates": packed({"array": ["<M8[s]", [1]]}, b"\0" * 8),
    "no dtype": packed({"array": [["f8"], [1]]}, b"\0" * 8),
    "text beyond unicode": packed({"array": ["<U1", [1]]}, b"\xff" * 4),
    "a number with a shape": packed({"number": ["<f8", [2]]}, b"\0" * 16),
    "no tensor dtype": packed({"tensor": ["save", [1]]}, b"\0" * 8),
    "a tensor's huge shape": packed({"tensor": ["float64", [2**62]]}),
    "a negative byte count": packed({"bytes": -1}),
    "no whole number": packed({"int": "0x_"}),
    "a very long whole number": packed({"int": "0x" + "f" * 10**6}),
    "more digits than Python reads": packed(b"9" * 10_000),
    "a large whole number that is not written as one": packed(b"%d" % 2**63),
    "more large whole numbers than have different hashes": packed([{"int": hex(2**64)}] * 5001),
    "rows of nothing": packed({"array": ["<f8", [2**40, 0]]}),
    "a tensor's rows of nothing": packed({"tensor": ["float64", [0, 2**40]]}),
    "no complex number": packed({"complex": [1.0]}),
    "a complex number of text": packed({"complex": ["1", "2"]}),
    "a key twice": packed({"dict": [["a", 1], ["a", 2]]}),
    "keys that are one": packed({"dict": [[1, 1], [True, 2]]}),
    "a NaN key": packed(b'{"dict":[[NaN,1]]}'),
    "a list as key": packed({"dict": [[[1], 1]]}),
    "a tuple as key": packed({"dict": [[{"tuple": []}, 1]]}),
    "no pairs": packed({"dict": [[1, 2, 3]]}),
    "no dict": packed({"dict": 5}),
    "no body": packed({"array": None}),
}  # fmt: skip


@pytest.mark.parametrize("data", FORGED.values(), ids=FORGED)
def test_forged_bytes_are_refused(data):
    with pytest.raises(CodecError):
        decode(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_plain_data_or_refused(data):
    for candidate in (data, packed(data)):
        try:
            encode(decode(candidate))
        except CodecError:
            pass


@given(PLAIN, st.data())
def test_a_damaged_message_is_plain_data_or_refused(value, data):
    good = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        encode(decode(bytes(good[: data.draw(st.integers(0, len(good)))])))
    except CodecError:
        pass


def test_bytes_that_are_no_bools_become_bools():
    array = decode(packed({"array": ["|b1", [2]]}, b"\x02\x00"))
    assert array.view(np.uint8).tolist() == [1, 0]
    tensor = decode(packed({"tensor": ["bool", [2]]}, b"\x02\x00"))
    assert tensor.view(torch.uint8).tolist() == [1, 0]
