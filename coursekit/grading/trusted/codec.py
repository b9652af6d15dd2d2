"""Plain data to bytes and back. The bytes may come from anybody: reading them runs no code and is bounded.

The bytes are a length, JSON for the structure, then the raw numbers of arrays and tensors in the order in
which the structure names them. How many bytes an array takes follows from its dtype and shape, so there is no
size to lie about.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from coursekit.errors import CoursekitError
from coursekit.notebooks.plain import MAX_DEPTH, check_plain, is_tensor

MAX_BYTES = 32 * 2**20
MAX_STRUCTURE_BYTES = 8 * 2**20
MAX_ITEMS = 2_000_000
# An envelope of a dict and a list around the value that crosses.
_DEPTH = MAX_DEPTH + 3
_NATIVE_INT = 2**63
_MAX_INT_DIGITS = 2**16
# Whole numbers beyond 64 bits: any number of them can have one hash, and a dict or set of such takes the
# square of the time.
MAX_LARGE_INTS = 5_000
# Each takes as long as thirty numbers, and longer in a test that compares them.
MAX_ARRAYS = 50_000
# Rows of nothing take no bytes; what is made of them does.
_MAX_SHAPE = MAX_BYTES
_NUMPY_DTYPE = re.compile(r"[<>|][biufcSU][0-9]{1,9}")
_TORCH_DTYPE = re.compile(r"(bool|u?int(8|16|32|64)|b?float(16|32|64)|complex(32|64|128)|float8_\w{1,20})")


class CodecError(CoursekitError, ValueError):
    """Bytes that are no plain data, or too much of it."""


def encode(value: Any) -> bytes:
    """Return the bytes of a value of plain data (`coursekit.notebooks.check_plain`).

    Kept are exact types, dtypes, shapes and bits; not kept are aliasing, strides and a tensor's device.

    >>> decode(encode({"loss": (0.5, None)}))
    {'loss': (0.5, None)}

    Raises: NotPlainError for anything else; CodecError if it is more than `MAX_BYTES`.
    """
    check_plain(value, depth=_DEPTH)
    writer = _Writer()
    tree, buffers = writer.write(value), writer.buffers
    structure = json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    size = len(structure) + sum(map(len, buffers))
    if len(structure) > MAX_STRUCTURE_BYTES or structure.count(b",") >= MAX_ITEMS or size > MAX_BYTES:
        raise CodecError(f"too much data to pass on: {size / 2**20:.1f} MiB")
    return b"".join([len(structure).to_bytes(8, "big"), structure, *buffers])


def decode(data: bytes) -> Any:
    """Return the value that `encode` wrote.

    Raises: CodecError for bytes that `encode` cannot have written.
    """
    try:
        return _decode(data)
    except CodecError:
        raise
    # RecursionError: nested too deep for the parser. The others: numbers, shapes and texts that are none.
    except (ValueError, TypeError, OverflowError, RecursionError, RuntimeError, MemoryError) as error:
        raise CodecError(f"no plain data: {type(error).__name__}") from None


def _decode(data: bytes) -> Any:
    if not 8 <= len(data) <= MAX_BYTES + 8:
        raise CodecError(f"{len(data)} bytes")
    length = int.from_bytes(data[:8], "big")
    if length > min(MAX_STRUCTURE_BYTES, len(data) - 8):
        raise CodecError("a length that is not there")
    structure = data[8 : 8 + length]
    # Counted before anything is built: small JSON can make large objects.
    if structure.count(b",") >= MAX_ITEMS:
        raise CodecError("too many items")
    reader = _Reader(memoryview(data)[8 + length :])
    value = reader.read(json.loads(structure.decode("utf-8", "surrogatepass")), _DEPTH)
    if len(reader.rest):
        raise CodecError("numbers that belong to nothing")
    return value


class _Writer:
    """Makes a value into what JSON has, the numbers of arrays into `buffers`; ends once it is too much."""

    def __init__(self) -> None:
        self.buffers: list[bytes] = []
        self._most = {"items": MAX_ITEMS, "bytes": MAX_BYTES, "arrays": MAX_ARRAYS}
        self._used = dict.fromkeys(self._most, 0)

    def write(self, value: Any) -> Any:
        """Return `value` as JSON has it; what JSON lacks is an object of one key that says what it is."""
        kind = type(value)
        if kind in (type(None), bool, float):
            return value
        if kind is str:
            self._spend("bytes", len(value))
            return value
        if kind is int:
            return value if -_NATIVE_INT < value < _NATIVE_INT else {"int": _hex(value)}
        if kind is list:
            return self._parts(value)
        if kind is tuple:
            return {"tuple": self._parts(value)}
        if kind is dict:
            self._spend("items", len(value))
            return {"dict": [[self.write(key), self.write(part)] for key, part in value.items()]}
        if kind is complex:
            return {"complex": [value.real, value.imag]}
        if kind is bytes:
            self._spend("bytes", len(value))
            self.buffers.append(value)
            return {"bytes": len(value)}
        return self._tensor(value) if is_tensor(value) else self._array(value)

    def _spend(self, what: str, count: int) -> None:
        self._used[what] += count
        if self._used[what] > self._most[what]:
            most = f"{MAX_BYTES / 2**20:g} MiB" if what == "bytes" else f"{self._most[what]:,} {what}"
            raise CodecError(f"too much data to pass on: more than {most}")

    def _parts(self, value: list | tuple) -> list:
        self._spend("items", len(value))
        return [self.write(part) for part in value]

    def _array(self, value: Any) -> Any:
        import numpy as np

        array = np.asarray(value)
        self._spend("arrays", 1)
        self._spend("bytes", array.nbytes)
        self.buffers.append(array.tobytes())
        what = "array" if type(value) is np.ndarray else "number"
        return {what: [array.dtype.str, list(array.shape)]}

    def _tensor(self, value: Any) -> Any:
        import torch

        if value.is_meta:
            raise CodecError("a tensor on the meta device holds no numbers to pass on")
        name = str(value.dtype).removeprefix("torch.")
        if not _TORCH_DTYPE.fullmatch(name):
            raise CodecError(f"a tensor of dtype {name} cannot be passed on")
        self._spend("arrays", 1)
        # Before it is copied: a row that is shown a billion times takes no memory yet.
        self._spend("bytes", value.numel() * value.element_size())
        flat = value.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        self.buffers.append(flat.view(torch.uint8).numpy().tobytes())
        return {"tensor": [name, list(value.shape)]}


def _hex(value: int) -> str:
    if value.bit_length() > 4 * _MAX_INT_DIGITS:
        raise CodecError("a whole number of too many digits to pass on")
    return hex(value)


class _Reader:
    """Builds values from parsed JSON and takes the numbers of arrays from the bytes after it."""

    def __init__(self, rest: memoryview) -> None:
        self.rest, self.large_ints, self.arrays = rest, 0, 0
        self.kinds: dict[str, Callable[[Any, int], Any]] = {
            "int": self._int,
            "tuple": lambda body, depth: tuple(self._list(body, depth)),
            "dict": self._dict,
            "complex": self._complex,
            "bytes": lambda body, depth: bytes(self._take(_size(body))),
            "array": lambda body, depth: self._array(*body),
            "number": lambda body, depth: self._number(*body),
            "tensor": lambda body, depth: self._tensor(*body),
        }

    def read(self, tree: Any, depth: int) -> Any:
        if type(tree) is list:
            return self._list(tree, depth)
        if type(tree) is not dict:
            if type(tree) is int and not -_NATIVE_INT < tree < _NATIVE_INT:
                raise CodecError("a large whole number that is not written as one")
            return tree
        if len(tree) != 1:
            raise CodecError("an object of several kinds")
        ((kind, body),) = tree.items()
        if kind not in self.kinds:
            raise CodecError("an object of an unknown kind")
        return self.kinds[kind](body, depth)

    def _list(self, body: Any, depth: int) -> list:
        if type(body) is not list or depth <= 0:
            raise CodecError("nested too deep, or no list")
        return [self.read(part, depth - 1) for part in body]

    def _dict(self, body: Any, depth: int) -> dict:
        pairs = [(self.read(key, 0), self.read(part, depth - 1)) for key, part in body]
        result = dict(pairs)
        # 1, 1.0 and True are one key; NaN is as many keys as there are.
        if depth <= 0 or len(result) != len(pairs) or any(not _is_key(key) for key in result):
            raise CodecError("keys that no dict of plain data has")
        return result

    def _int(self, body: Any, depth: int) -> int:
        if type(body) is not str or len(body) > _MAX_INT_DIGITS + 3:
            raise CodecError("no whole number")
        self.large_ints += 1
        if self.large_ints > MAX_LARGE_INTS:
            raise CodecError("too many large whole numbers")
        return int(body, 16)

    def _complex(self, body: Any, depth: int) -> complex:
        real, imag = body
        if not type(real) is type(imag) is float:
            raise CodecError("no complex number")
        return complex(real, imag)

    def _count_array(self) -> None:
        self.arrays += 1
        if self.arrays > MAX_ARRAYS:
            raise CodecError("too many arrays")

    def _take(self, count: int) -> bytearray:
        if count > len(self.rest):
            raise CodecError("fewer numbers than promised")
        taken, self.rest = self.rest[:count], self.rest[count:]
        return bytearray(taken)

    def _array(self, name: Any, shape: Any) -> Any:
        import numpy as np

        self._count_array()
        if not (type(name) is str and _NUMPY_DTYPE.fullmatch(name)):
            raise CodecError("an array of another dtype")
        dtype = np.dtype(name)
        if not dtype.itemsize:
            raise CodecError("an array of nothing")  # numpy would allocate a byte or more an item
        raw = self._take(dtype.itemsize * math.prod(_shape(shape)))
        if not raw:
            return np.empty(shape, dtype)
        if dtype.kind == "b":
            # Another byte than 0 or 1 would be a bool that is neither.
            return (np.frombuffer(raw, np.uint8) != 0).reshape(shape)
        if dtype.kind == "U":
            points = np.frombuffer(raw, np.dtype(np.uint32).newbyteorder(dtype.byteorder))
            if points.max() > 0x10FFFF:
                raise CodecError("text that is none")
        return np.frombuffer(raw, dtype).reshape(shape)

    def _number(self, name: Any, shape: Any) -> Any:
        if shape != []:
            raise CodecError("no single number")
        return self._array(name, [])[()]

    def _tensor(self, name: Any, shape: Any) -> Any:
        import torch

        self._count_array()
        if not (type(name) is str and _TORCH_DTYPE.fullmatch(name) and hasattr(torch, name)):
            raise CodecError("a tensor of another dtype")
        dtype = getattr(torch, name)
        raw = self._take(dtype.itemsize * math.prod(_shape(shape)))
        if not raw:
            return torch.empty(shape, dtype=dtype)
        numbers = torch.frombuffer(raw, dtype=torch.uint8)
        return (numbers != 0 if dtype is torch.bool else numbers.view(dtype)).reshape(shape)


def _is_key(key: Any) -> bool:
    return type(key) in (bool, int, float, str, type(None)) and key == key


def _size(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise CodecError("no size")
    return number


def _shape(shape: Any) -> list[int]:
    if type(shape) is not list or len(shape) > 32:
        raise CodecError("no shape")
    sizes = [_size(part) for part in shape]
    if math.prod(max(1, size) for size in sizes) > _MAX_SHAPE:
        raise CodecError("an array of too many rows")
    return sizes
