"""The keys and values of the tokens so far, kept so that the next token costs one position."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from coursekit.errors import InputError


class LayerCache:
    """Keys and values of one attention layer, with room for `max_seq_len` positions.

    Room is made at the first `append`, of the dtype, device and number of heads that come.

    Attributes:
        length: positions held.
    """

    def __init__(self, max_seq_len: int) -> None:
        self.max_seq_len = max_seq_len
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(
        self, k: Float[Tensor, "b g t k"], v: Float[Tensor, "b g t k"]
    ) -> tuple[Float[Tensor, "b g s k"], Float[Tensor, "b g s k"]]:
        """Append keys and values; return all that are held, as views.

        Raises: InputError if there is no room left, or what comes has another batch, heads or width.
        """
        end = self.length + k.shape[2]
        if end > self.max_seq_len:
            raise InputError(
                "the cache is full",
                expected=f"up to {self.max_seq_len} positions",
                got=end,
                fix="make it larger",
            )
        if self._keys is None:
            shape = (*k.shape[:2], self.max_seq_len, k.shape[3])
            self._keys, self._values = k.new_empty(shape), v.new_empty(shape)
        elif (*self._keys.shape[:2], self._keys.shape[3]) != (*k.shape[:2], k.shape[3]):
            raise InputError(  # a batch of one would be copied to every row of the cache
                "the cache holds another batch",
                expected="(b, g, k) = " + str((*self._keys.shape[:2], self._keys.shape[3])),
                got=(*k.shape[:2], k.shape[3]),
                fix="make a new cache for each batch of prompts",
            )
        self._keys[:, :, self.length : end] = k
        self._values[:, :, self.length : end] = v
        self.length = end
        return self._keys[:, :, :end], self._values[:, :, :end]

    @property
    def num_bytes(self) -> int:
        """Bytes of the room, used or not."""
        return 0 if self._keys is None else self._keys.nbytes + self._values.nbytes


class KVCache:
    """The cache of a whole model: one `LayerCache` a block, all of one length.

    For inference: what is appended overwrites memory in place, so it belongs under `torch.no_grad`.

    Args:
        n_layers: blocks of the model.
        max_seq_len: room, in positions.
    """

    def __init__(self, n_layers: int, max_seq_len: int) -> None:
        self.layers = [LayerCache(max_seq_len) for _ in range(n_layers)]

    @property
    def length(self) -> int:
        """Positions held."""
        return max(layer.length for layer in self.layers)

    @property
    def num_bytes(self) -> int:
        """Bytes of all layers: 2 n_layers b n_kv_heads max_seq_len head_dim bytes-per-number."""
        return sum(layer.num_bytes for layer in self.layers)
