"""A GPT: token ids in, logits of the next token out. GPT-2 and Llama are settings of it."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coursekit.errors import InputError
from coursekit.models.attention import Attention
from coursekit.models.config import INIT_STD, GPTConfig
from coursekit.models.experts import Experts
from coursekit.models.feed_forward import FeedForward
from coursekit.models.kv_cache import KVCache, LayerCache
from coursekit.models.norms import make_norm
from coursekit.models.rotary import Rotary


class Block(nn.Module):
    """Attention, then feed-forward: each reads the normalised hidden states and adds to them."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = Attention(config)
        self.feed_forward_norm = make_norm(config)
        self.feed_forward = FeedForward(config)

    def forward(
        self, x: Float[Tensor, "b t d"], *, rotary: Rotary | None = None, cache: LayerCache | None = None
    ) -> Float[Tensor, "b t d"]:
        """Return the hidden states after this block; see `Attention.forward` for the arguments."""
        x = x + self.attention(self.attention_norm(x), rotary=rotary, cache=cache)
        return x + self.feed_forward(self.feed_forward_norm(x))


class GPT(nn.Module):
    """A decoder-only transformer with norms before the layers.

    A stage of a pipeline is a GPT of the same `config` with parts taken out: set `token_embedding`,
    `position_embedding`, `final_norm`, `lm_head` or an entry of `blocks` to None and it is skipped, while
    what stays keeps its name in the state dict.

    Under `with torch.device("meta")` no memory is used; after `to_empty(device=...)`, `init_weights` fills
    the model and ties its embeddings again, which `to_empty` takes apart.

    Args:
        config: shape and options.
    Raises: InputError for anything but a config.
    Source: Radford et al. 2019, Language Models are Unsupervised Multitask Learners, section 2.3.

    >>> model = GPT(GPTConfig(vocab_size=11, max_seq_len=8, d_model=4, n_layers=2, n_heads=2))
    >>> model(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 11])
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        if not isinstance(config, GPTConfig):
            fix = "preset(name) has published shapes"
            raise InputError("no shape of a model", expected="a GPTConfig", got=repr(config)[:80], fix=fix)
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        has_table = config.position == "learned"
        self.position_embedding = nn.Embedding(config.max_seq_len, config.d_model) if has_table else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.final_norm = make_norm(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew, and tie the embeddings where the config says so.

        Weights are normal with standard deviation 0.02; those that write into the residual stream
        (`o_proj`, `down_proj`) 0.02 / √(2 n_layers), so that the sum of all layers keeps its variance.
        Biases are 0, norms 1.

        Args:
            generator: of the model's device; None is torch's own.
        Source: Radford et al. 2019, section 2.3; the number 0.02 from openai/gpt-2, src/model.py.
        """
        if self.config.tie_embeddings and None not in (self.token_embedding, self.lm_head):
            self.lm_head.weight = self.token_embedding.weight
        for name, module in self.named_modules():
            if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
                module.reset_parameters()
            elif isinstance(module, Experts):
                module.init_weights(generator)
            elif isinstance(module, (nn.Linear, nn.Embedding)):
                is_residual = name.endswith(("o_proj", "down_proj"))
                std = INIT_STD / math.sqrt(2 * self.config.n_layers) if is_residual else INIT_STD
                nn.init.normal_(module.weight, std=std, generator=generator)
                if getattr(module, "bias", None) is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self,
        input_ids: Int[Tensor, "b t"] | Float[Tensor, "b t d"],
        *,
        positions: Int[Tensor, " t"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "b t v"] | Float[Tensor, "b t d"]:
        """Return logits (b, t, v), or the hidden states (b, t, d) if there is no `lm_head`.

        Args:
            input_ids: token ids (b, t); hidden states (b, t, d) if there is no `token_embedding`.
            positions: of the t tokens in their sequence; None counts on from the cache's length. Give them
                where this process holds a part of the sequence.
            cache: keys and values of the tokens before these; these are appended. Under `torch.no_grad`.
        Raises: InputError if the sequence has more positions than a learned embedding, an id is none of the
            vocabulary (on a CPU: a GPU is not waited for), or arguments have other shapes or are of another
            model.
        """
        self._check_shapes(input_ids, positions, cache)
        if positions is None:
            positions = self._count_positions(input_ids, cache)
        x = input_ids if self.token_embedding is None else self._embed(input_ids)
        if self.position_embedding is not None:
            x = x + self.position_embedding(positions)
        if self.token_embedding is not None:
            x = self.dropout(x)
        rotary = self._rotary(positions, x.dtype)
        for index, block in enumerate(self.blocks):
            if block is not None:
                x = block(x, rotary=rotary, cache=None if cache is None else cache.layers[index])
        x = x if self.final_norm is None else self.final_norm(x)
        return x if self.lm_head is None else self.lm_head(x)

    def _check_shapes(self, input_ids: Tensor, positions: Tensor | None, cache: KVCache | None) -> None:
        expected = "token ids (b, t)" if self.token_embedding is not None else "hidden states (b, t, d)"
        got = tuple(input_ids.shape) if isinstance(input_ids, Tensor) else type(input_ids).__name__
        if not isinstance(input_ids, Tensor) or input_ids.dim() != expected.count(",") + 1:
            raise InputError("a batch of another shape", expected=expected, got=got)
        # One position would be broadcast to all tokens, in silence.
        if positions is not None and positions.shape != input_ids.shape[1:2]:
            expected = f"shape ({input_ids.shape[1]},), one position a token"
            raise InputError("positions do not fit the tokens", expected=expected, got=tuple(positions.shape))
        if cache is not None and len(cache.layers) != len(self.blocks):
            expected = f"KVCache({len(self.blocks)}, ...), a layer a block"
            raise InputError("the cache is of another model", expected=expected, got=len(cache.layers))

    def _embed(self, input_ids: Tensor) -> Tensor:
        try:
            return self.token_embedding(input_ids)
        except IndexError as error:  # of a CPU, which says "index out of range in self"
            least, most = input_ids.min().item(), input_ids.max().item()
            expected, got = f"ids from 0 to {self.config.vocab_size - 1}", f"{least} to {most}"
            fix = "labels have IGNORE_INDEX, ids have not; or vocab_size is not the tokenizer's"
            raise InputError("no such token", expected=expected, got=got, fix=fix) from error

    def _count_positions(self, input_ids: Tensor, cache: KVCache | None) -> Tensor:
        start = 0 if cache is None else cache.length
        end = start + input_ids.shape[1]
        if self.position_embedding is not None and end > self.config.max_seq_len:
            raise InputError(
                "the sequence is longer than the position embedding",
                expected=f"up to max_seq_len={self.config.max_seq_len} tokens",
                got=end,
                fix='cut the sequence, or use position="rope"',
            )
        return torch.arange(start, end, device=input_ids.device)

    def _rotary(self, positions: Tensor, dtype: torch.dtype) -> Rotary | None:
        if self.config.position != "rope":
            return None
        # Once a forward pass and not once a layer; in half precision far positions would fall together.
        wide = torch.promote_types(dtype, torch.float32)
        return Rotary(positions, self.config.head_dim, theta=self.config.rope_theta, dtype=wide)
