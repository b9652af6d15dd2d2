"""The shape of a GPT, and how many parameters a model of that shape has."""

from __future__ import annotations

import dataclasses
import inspect
import math
import numbers
from typing import Literal, get_args

from coursekit.errors import InputError, check_whole
from coursekit.formulas.parameters import parameters_on_rank
from coursekit.formulas.total import total

Norm = Literal["layernorm", "rmsnorm"]
Activation = Literal["gelu", "swiglu"]
Position = Literal["learned", "rope"]

INIT_STD = 0.02
"""Standard deviation of fresh weights, as GPT-2 has it."""


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """Shape and options of a `GPT`; the defaults are GPT-2's.

    `n_kv_heads` and `d_ff` are filled in where they are None, so that all fields can be read as numbers.
    `dataclasses.replace` therefore keeps them: give them anew when `n_heads` or `d_model` changes.

    Args:
        vocab_size: v, number of token ids.
        max_seq_len: positions of a learned position embedding, and the limit of `generate`. With
            `position="rope"` longer sequences are computed as well.
        d_model: d, width of the hidden states.
        n_layers: number of blocks.
        n_heads: h, query heads; each has head_dim = d / h dimensions.
        n_kv_heads: key and value heads, each shared by h / n_kv_heads query heads (Ainslie et al. 2023);
            None is h, one is multi-query attention.
        d_ff: width inside the feed-forward layer; None is 4 d, and for swiglu 8 d / 3 rounded up to a
            multiple of 256, which keeps the number of parameters (Touvron et al. 2023).
        norm: "layernorm" (Ba et al. 2016) or "rmsnorm" (Zhang and Sennrich 2019), before each layer.
        activation: "gelu", in the approximation by tanh that GPT-2 has, or "swiglu" (Shazeer 2020).
        position: "learned", added to the token embedding, or "rope", which turns queries and keys.
        bias: whether linear layers and layer norms have one; the head never has.
        tie_embeddings: whether the head's weight is the token embedding's.
        dropout: probability, on embeddings, attention weights and what each layer adds.
        rope_theta: θ, base of the wavelengths of "rope".
        norm_eps: ε of the norms.
    Raises: InputError for a number that does not divide, is out of range, or an unknown name.
    Source: Radford et al. 2019 (GPT-2); Touvron et al. 2023, Llama 2 (https://arxiv.org/abs/2307.09288).

    >>> config = GPTConfig(vocab_size=50257, max_seq_len=1024, d_model=768, n_layers=12, n_heads=12)
    >>> config.head_dim, config.n_kv_heads, config.d_ff
    (64, 12, 3072)
    """

    vocab_size: int
    max_seq_len: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int | None = None
    d_ff: int | None = None
    norm: Norm = "layernorm"
    activation: Activation = "gelu"
    position: Position = "learned"
    bias: bool = True
    tie_embeddings: bool = True
    dropout: float = 0.0
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("vocab_size", "max_seq_len", "d_model", "n_layers", "n_heads"):
            check_whole(f"wrong {name}", **{name: getattr(self, name)})
        if self.n_kv_heads is None:
            object.__setattr__(self, "n_kv_heads", self.n_heads)
        if self.d_ff is None:
            d_ff = 4 * self.d_model if self.activation == "gelu" else _round_up(8 * self.d_model / 3, 256)
            object.__setattr__(self, "d_ff", d_ff)
        self._check_ranges()
        self._check_divisions()

    @property
    def head_dim(self) -> int:
        """Dimensions of a head: d_model / n_heads."""
        return self.d_model // self.n_heads

    def _check_ranges(self) -> None:
        for name in ("n_kv_heads", "d_ff"):
            check_whole(f"wrong {name}", **{name: getattr(self, name)})
        for name in ("bias", "tie_embeddings"):  # "false" would be true
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"wrong {name}", expected="True or False", got=repr(getattr(self, name)))
        for name, fits, expected in (
            ("dropout", lambda p: 0 <= p < 1, "a probability from 0 to below 1"),
            ("rope_theta", lambda theta: 0 < theta < math.inf, "a finite number above 0"),
            ("norm_eps", lambda eps: 0 <= eps < math.inf, "a finite number, 0 or more"),
        ):
            value = getattr(self, name)
            if not (isinstance(value, numbers.Real) and fits(value)):
                raise InputError(f"wrong {name}", expected=expected, got=repr(value))
        for name, options in (("norm", Norm), ("activation", Activation), ("position", Position)):
            if getattr(self, name) not in get_args(options):
                raise InputError(
                    f"unknown {name}",
                    expected=" or ".join(map(repr, get_args(options))),
                    got=repr(getattr(self, name)),
                )

    def _check_divisions(self) -> None:
        if self.d_model % self.n_heads:
            raise InputError(
                "the heads do not divide the model's width",
                expected=f"n_heads that divides d_model={self.d_model}",
                got=self.n_heads,
                fix=f"use n_heads={_nearest_divisor(self.d_model, self.n_heads)}",
            )
        if self.n_heads % self.n_kv_heads:
            raise InputError(
                "the query heads do not share the key and value heads evenly",
                expected=f"n_kv_heads that divides n_heads={self.n_heads}",
                got=self.n_kv_heads,
                fix=f"use n_kv_heads={_nearest_divisor(self.n_heads, self.n_kv_heads)}",
            )
        if self.position == "rope" and self.head_dim % 2:
            raise InputError(
                "rope turns pairs of dimensions",
                expected="an even d_model / n_heads",
                got=self.head_dim,
            )


def num_params(config: GPTConfig) -> int:
    """Return the number of parameters of `GPT(config)`, without building it.

    With d = d_model, k = head_dim, and each linear layer a weight and, with `bias`, its output's width:

        embeddings   v d, and with learned positions max_seq_len d
        attention    d (2 h k + 2 n_kv_heads k)    q, o of h heads, k, v of n_kv_heads
        feed-forward 2 d d_ff, with swiglu 3 d d_ff
        norms        d, for layer norm with bias 2 d; two a block and one at the end
        head         v d, with tied embeddings 0

    >>> config = GPTConfig(vocab_size=50257, max_seq_len=1024, d_model=768, n_layers=12, n_heads=12)
    >>> num_params(config)  # GPT-2 small
    124439808
    """
    whole = {"ep_size": 1, "tp_size": 1, "pp_size": 1, "stage": 0, "n_experts": 0, "experts_every": 1}
    whole |= {"expert_d_ff": 0, "n_shared_experts": 0, "first_dense_layers": 0}
    latent = ("q_rank", "kv_rank", "nope_dim", "rope_dim", "v_dim")
    whole |= {name: getattr(config, name, 0) for name in latent}
    names = inspect.signature(parameters_on_rank).parameters.keys() - whole.keys()
    return total(parameters_on_rank(**{name: getattr(config, name) for name in names}, **whole))


def _round_up(value: float, multiple: int) -> int:
    return -int(-value // multiple) * multiple


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((n for n in range(1, number + 1) if number % n == 0), key=lambda n: abs(n - wanted))
