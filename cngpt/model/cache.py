"""Keys and values already computed, so that a new token reads its past instead of recomputing it."""

import torch
from torch import Tensor


class Cache:
    """Storage of fixed size for every layer's keys and values; attention writes into it, `GPT.forward` moves it on.

    Letters as in gpt.py. Rows may begin with padding: row b sees nothing before column `padding[b]`, so prompts of
    different lengths share a batch, all ending in the same column. The storage takes type and device of what is
    written first (bfloat16 under autocast).
    """

    def __init__(self, n_layer: int, size: int, padding: Tensor | None = None):
        """`size` columns; padding (B,) counts the unused ones at the left of each row."""
        self.n_layer, self.size, self.padding = n_layer, size, padding
        self.length = 0
        self.storage: Tensor | None = None  # (layers, 2, B, H, size, K)

    @classmethod
    def for_model(cls, gpt, size: int | None = None, padding: Tensor | None = None) -> "Cache":
        """Room for `size` tokens a row, the model's whole context by default."""
        return cls(gpt.shape.n_layer, min(size or gpt.shape.n_ctx, gpt.shape.n_ctx), padding)

    def write(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, T, K) twice -> (B, H, S, K) twice: what came before, and the new at its end."""
        if self.storage is None:
            B, H, _, K = k.shape
            self.storage = k.new_zeros(self.n_layer, 2, B, H, self.size, K)
        end = self.length + k.shape[2]
        self.storage[layer, 0, :, :, self.length : end] = k
        self.storage[layer, 1, :, :, self.length : end] = v
        return self.storage[layer, 0, :, :, :end], self.storage[layer, 1, :, :, :end]

    def advance(self, T: int) -> None:
        """The new tokens are past now."""
        self.length += T

    def keep(self, rows: Tensor) -> None:
        """Forgets all rows but these: (fewer,) indices."""
        self.storage = self.storage[:, :, rows]
        self.padding = None if self.padding is None else self.padding[rows]

    def positions(self, T: int, device) -> Tensor:
        """(T,) or, with padding, (B, T): the position of each new token; padding itself sits at position 0."""
        columns = torch.arange(self.length, self.length + T, device=device)
        return columns if self.padding is None else (columns - self.padding[:, None]).clamp(min=0)

    def mask(self, T: int, device) -> Tensor | None:
        """(T, S) or (B, 1, T, S), True where a new token may look; None where it may look everywhere."""
        if T == 1 and self.padding is None:
            return None
        S = self.length + T
        query, key = torch.arange(self.length, S, device=device)[:, None], torch.arange(S, device=device)
        past = key <= query
        if self.padding is None:
            return past
        # a padding column sees itself: an empty row would be NaN, and 0 x NaN in the next layer is NaN everywhere
        return past & ((key >= self.padding[:, None, None, None]) | (key == query))
