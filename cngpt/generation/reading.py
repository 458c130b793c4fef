"""How a model reads a batch of texts and goes on, a token a row at a time.

Letters: B rows of a batch, T columns read at once, V vocabulary.
"""

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from cngpt.model.cache import Cache
from cngpt.model.gpt import GPT

READ_AT_ONCE = 256  # columns; the logits of a whole batch of long prompts would be gigabytes


class BatchReader:
    """Takes any shape: the cache is as large as the batch needs, and rows that are done leave it."""

    keeps_all_rows = False

    def __init__(self, gpt: GPT):
        self.gpt, self.device = gpt, gpt.tok.weight.device
        self.cache: Cache | None = None

    @property
    def sampling_device(self) -> torch.device:
        """Where the logits are when they come out."""
        return self.device

    @property
    def must_read(self) -> bool:
        """Whether the rows have to be read as a whole: for the first time, or because the cache is full."""
        return self.cache is None or self.cache.length == self.cache.size

    def without_gradients(self) -> AbstractContextManager:
        """Inference mode; with several processes only no_grad, because gloo and sharded weights refuse inference tensors."""
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        return torch.no_grad() if distributed else torch.inference_mode()

    def read(self, rows: list[list[int]], filler_id: int, columns: int) -> Tensor:
        """The logits (B, V) of each row's next token, after all that the rows hold; `columns`: what the batch may need in all."""
        T = self._width(max(map(len, rows)))
        ids = torch.tensor([[filler_id] * (T - len(row)) + row for row in rows], device=self.device)
        self.cache = self._new_cache(columns, [T - len(row) for row in rows])
        for part in ids.split(READ_AT_ONCE, dim=1):
            logits = self.gpt(part, self.cache)[:, -1]
        return logits

    def go_on(self, last_ids: list[int]) -> Tensor:
        """(B, V), after one more token in each row."""
        return self.gpt(torch.tensor(last_ids, device=self.device)[:, None], self.cache)[:, -1]

    def _width(self, longest: int) -> int:
        """Columns to read, where the longest row has `longest` tokens."""
        return longest

    def _new_cache(self, columns: int, padding: list[int]) -> Cache:
        return Cache.for_model(self.gpt, columns, torch.tensor(padding, device=self.device) if any(padding) else None)
