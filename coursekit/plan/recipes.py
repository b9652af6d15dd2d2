"""Precision recipes: which copies of a parameter there are, and how many bytes each has.

16, 18 and 20 bytes a parameter are all published for AdamW. None is wrong: they count other copies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from coursekit.errors import InputError


@dataclasses.dataclass(frozen=True)
class PrecisionRecipe:
    """Bytes a parameter of each copy, and of the numbers that flow.

    Args:
        name: of the recipe.
        param_bytes: parameters that forward and backward pass use.
        gradient_bytes: gradients, all copies together.
        master_bytes: parameters in higher precision that the optimizer updates; 0 if those above are they.
        moment_bytes: Adam's two moments together.
        activation_bytes: a number that a matrix product reads or writes.
        residual_bytes: a number of the residual stream, which the norms read.
        gradient_bytes_sent: a gradient as data parallelism sends it.
        source: who counts so.
    """

    name: str
    param_bytes: float
    gradient_bytes: float
    master_bytes: float
    moment_bytes: float
    activation_bytes: float
    residual_bytes: float
    gradient_bytes_sent: float
    source: str

    @property
    def optimizer_bytes(self) -> float:
        """ZeRO's K: master weights and moments."""
        return self.master_bytes + self.moment_bytes

    @property
    def bytes_per_param(self) -> float:
        """All copies together."""
        return self.param_bytes + self.gradient_bytes + self.optimizer_bytes


_MEGATRON = "Megatron-LM, docs on the distributed optimizer"

RECIPES: Mapping[str, PrecisionRecipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            PrecisionRecipe("fp32_16", 4, 4, 0, 8, 4, 4, 4, "all in float32; " + _MEGATRON),
            PrecisionRecipe(
                "mixed_16", 2, 2, 4, 8, 2, 2, 2, "Rajbhandari et al. 2020, ZeRO, section 3.1: K = 12"
            ),
            PrecisionRecipe("mixed_18", 2, 4, 4, 8, 2, 2, 4, "bf16 with float32 gradients; " + _MEGATRON),
            PrecisionRecipe("mixed_20", 2, 6, 4, 8, 2, 2, 4, "gradients in both; Ultra-Scale Playbook, 2025"),
            PrecisionRecipe(
                "autocast_18", 6, 4, 0, 8, 2, 4, 4, "float32 and cast weights; stas00, ML engineering"
            ),
            PrecisionRecipe(
                "bf16_adam32_10", 2, 0, 0, 8, 2, 2, 2, "no gradients counted; the scaling book, 2025"
            ),
            PrecisionRecipe(
                "bf16_only", 2, 2, 0, 4, 2, 2, 2, "all in bf16: updates below 2^-9 of a weight are lost"
            ),
        )
    }
)
"""Recipes by name; `recipe` gives one."""


def recipe(name: str) -> PrecisionRecipe:
    """Return a precision recipe by name.

    Args:
        name: one of `RECIPES`; the number in it is its bytes a parameter.
    Raises: InputError for another name.

    >>> recipe("mixed_16").bytes_per_param, recipe("mixed_16").optimizer_bytes
    (16, 12)
    """
    if name not in RECIPES:
        raise InputError("unknown recipe", expected=", ".join(RECIPES), got=repr(name))
    return RECIPES[name]


def as_recipe(value: str | PrecisionRecipe) -> PrecisionRecipe:
    """Return the recipe itself, or the one of that name."""
    return value if isinstance(value, PrecisionRecipe) else recipe(value)
