"""All that generation does otherwise on XLA devices (TPUs), which compile a program for each new shape and each new constant.

So shapes and constants must not change between tokens: the cache is as long as the context from the start, no row leaves a
batch, prompts are filled up to a few lengths, and the next tokens are chosen on the CPU.
"""

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from cngpt.generation.reading import BatchReader
from cngpt.model.cache import Cache
from cngpt.model.gpt import GPT

WIDTH_STEP = 64  # columns; prompts are filled up to a multiple of so many


def batch_reader(gpt: GPT) -> BatchReader:
    """The reader for the device on which the model is."""
    return FixedShapeReader(gpt) if gpt.tok.weight.device.type == "xla" else BatchReader(gpt)


class FixedShapeReader(BatchReader):
    keeps_all_rows, sampling_device = True, torch.device("cpu")

    def without_gradients(self) -> AbstractContextManager:
        return torch.no_grad()

    def read(self, rows: list[list[int]], filler_id: int, columns: int) -> Tensor:
        return fetch(super().read(rows, filler_id, columns))

    def go_on(self, last_ids: list[int]) -> Tensor:
        return fetch(super().go_on(last_ids))

    def _width(self, longest: int) -> int:
        n_ctx = self.gpt.shape.n_ctx
        step = max(1, min(WIDTH_STEP, n_ctx // 4))
        return min(n_ctx, -(-longest // step) * step)

    def _new_cache(self, columns: int, padding: list[int]) -> Cache:
        return FixedCache.for_model(self.gpt, self.gpt.shape.n_ctx, torch.tensor(padding, device=self.device))


def fetch(logits: Tensor) -> Tensor:
    """The logits on the CPU, after all pending work, that of the cache too: else it would be compiled with the next token."""
    import torch_xla

    torch_xla.sync()
    return logits.cpu()


class FixedCache(Cache):
    """Attention sees all columns, those to come masked; where to write is a tensor."""

    def __init__(self, n_layer: int, size: int, padding: Tensor | None = None):
        super().__init__(n_layer, size, padding)
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}  # (B, H, size, K) twice
        self.end: Tensor | None = None  # (), `length` on the device

    def write(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, T, K) twice -> (B, H, size, K) twice: what came before, the new, and zeros."""
        if layer not in self.layers:
            B, H, _, K = k.shape
            self.layers[layer] = tuple(k.new_zeros(B, H, self.size, K) for _ in range(2))
        columns = self._columns(k.shape[2], k.device)
        old_k, old_v = self.layers[layer]
        self.layers[layer] = old_k.index_copy(2, columns, k), old_v.index_copy(2, columns, v)
        return self.layers[layer]

    def advance(self, T: int) -> None:
        super().advance(T)
        self.end = self.end + T

    def keep(self, rows: Tensor) -> None:
        raise NotImplementedError("fewer rows are another shape")

    def positions(self, T: int, device) -> Tensor:
        columns = self._columns(T, device)
        return columns if self.padding is None else (columns - self.padding[:, None]).clamp(min=0)

    def mask(self, T: int, device) -> Tensor:
        """(T, size) or (B, 1, T, size), True where a new token may look."""
        query, key = self._columns(T, device)[:, None], torch.arange(self.size, device=device)
        past = key <= query
        return past if self.padding is None else past & ((key >= self.padding[:, None, None, None]) | (key == query))

    def tensors(self) -> list[Tensor]:
        return [self.end, *(t for pair in self.layers.values() for t in pair)]

    def _columns(self, T: int, device) -> Tensor:
        """(T,): where the new tokens go."""
        if self.end is None:
            self.end = torch.zeros((), dtype=torch.int64, device=device)
        return self.end + torch.arange(T, device=device)
