"""An answer in named parts that add up to the total."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from coursekit.errors import InputError
from coursekit.units import format_bytes, format_count


@dataclasses.dataclass(frozen=True)
class Breakdown:
    """Named parts of one quantity; `total` is their sum, by construction.

    Args:
        parts: name to number, in the order to show.
        unit: "bytes", "parameters", "FLOPs", ...; bytes are written in binary units.

    >>> answer = Breakdown({"weights": 2 * 2**30, "gradients": 2**30}, unit="bytes")
    >>> print(answer)
    weights    2.00 GiB   67%
    gradients  1.00 GiB   33%
    total      3.00 GiB  100%
    >>> answer.total == sum(answer.parts.values()), answer["weights"]
    (True, 2147483648)
    """

    parts: Mapping[str, float]
    unit: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", MappingProxyType(dict(self.parts)))

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return sum(self.parts.values())

    def __getitem__(self, name: str) -> float:
        """Return one part.

        Raises: InputError for a name that is no part.
        """
        if name not in self.parts:
            raise InputError("no such part", expected=", ".join(self.parts), got=repr(name))
        return self.parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __str__(self) -> str:
        write = format_bytes if self.unit == "bytes" else format_count
        whole = self.total or 1
        rows = [(name, write(value), f"{value / whole:.0%}") for name, value in self.parts.items() if value]
        rows.append(("total", write(self.total), "100%"))
        wide = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(f"{name:<{wide[0]}}  {value:>{wide[1]}}  {share:>4}" for name, value, share in rows)
