"""Prompts in, texts out: in batches, or one text piece by piece.

Letters: B rows of a batch, V vocabulary.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from cngpt.generation.fixed_shapes import batch_reader
from cngpt.generation.sampling import choose, generator
from cngpt.generation.settings import Sampling
from cngpt.model.gpt import GPT
from cngpt.tokens import Tokenizer

# Tokens before an end of text that is a full stop ends a text, unless min_new_tokens says otherwise: one sentence is no story.
STORY = 100
T = TypeVar("T")
UNFINISHED = "\ufffd"  # how byte-level BPE decodes the first bytes of a character


@dataclass(frozen=True)
class Story:
    prompt: str  # as it was given
    text: str  # prompt and continuation, decoded together
    tokens: list[int]  # the continuation; the EOS that ended it is left out unless it is text, or with compat="gpt2ml"
    finished: bool  # ended by EOS, not by max_new_tokens or the end of the context
    cut: bool  # the prompt was longer than the context, only its end was read


@dataclass
class Row:
    """A text that is being written."""

    ids: list[int]  # the opening EOS if there is one, the prompt, the continuation
    opening: int  # how many of them are the opening EOS
    prompt: int  # how many of them were given
    generator: np.random.Generator
    start: int = 0  # the model sees ids[start:]
    finished: bool = False  # by EOS
    done: bool = False

    @property
    def window(self) -> list[int]:
        return self.ids[self.start :]


@dataclass
class Engine:
    """Writes texts with a model; leaves its mode and the global random state as they were.

    A prompt is taken for the beginning of a document. Training packs documents one after another, each closed by EOS, so the
    model knows "EOS, title, ..." as a beginning; without the EOS it would continue the middle of some article. So the
    tokenizer's `opening_id`, mostly EOS, is put before every prompt. Only gpt2-ml's own models have none: their training
    rows began with the article itself. There the empty prompt is EOS alone.

    `batch_tokens` limits rows x columns of a batch's cache, which takes 8 x n_layer x width bytes a token in float32.
    """

    gpt: GPT
    tokenizer: Tokenizer
    batch_tokens: int = 8192

    def generate(self, prompts: Sequence[str], n: int = 1, sampling: Sampling = Sampling()) -> list[list[Story]]:
        """`n` stories for each prompt.

        Sample i of a prompt is a function of (model, prompt, i, sampling): what else is in the batch, and where, does not matter
        (beyond the rounding of the matrix products, 1e-6 or so, which a draw feels once in a million tokens).
        """
        ids = [self.tokenizer.encode(prompt).tolist() for prompt in prompts]
        rows = [[self._row(prompt, i, sampling) for i in range(n)] for prompt in ids]
        self._warn(sum(self._is_cut(group[0]) for group in rows if group))
        with eval_mode(self.gpt):
            for batch in self._batches([row for group in rows for row in group], sampling.max_new_tokens):
                for _ in self._write(batch, sampling):
                    pass
        return [[self._story(prompt, row, sampling) for row in group] for prompt, group in zip(prompts, rows, strict=True)]

    def stream(self, prompt: str, sampling: Sampling = Sampling()) -> Iterator[str]:
        """The text of `generate` in pieces: first the prompt as decoded, then what is certain after each token.

        No later token changes a piece: the space between two Latin words comes with the second one, a character of several
        byte-level tokens when it is whole.
        """
        row = self._row(self.tokenizer.encode(prompt).tolist(), 0, sampling)
        self._warn(self._is_cut(row))
        # as gpt2-ml prints a text, two tokens # and # vanish together
        unfinished = UNFINISHED + "#" if sampling.as_gpt2ml else UNFINISHED
        shown = self._text(row, sampling).rstrip(unfinished)
        yield shown
        with eval_mode(self.gpt):
            for _ in self._write([row], sampling):
                text = self._text(row, sampling).rstrip(unfinished)
                if len(text) > len(shown):
                    yield text[len(shown) :]
                    shown = text
        if rest := self._text(row, sampling)[len(shown) :]:
            yield rest

    def _row(self, prompt: list[int], sample: int, sampling: Sampling) -> Row:
        first = self.tokenizer.opening_id
        opening = [first] if first is not None else [] if prompt else [self.tokenizer.eos_id]
        ids = opening + prompt
        start = max(0, len(ids) - self.gpt.shape.n_ctx)
        return Row(ids, len(opening), len(ids), generator(sampling.seed, sample, prompt), start)

    def _is_cut(self, row: Row) -> bool:
        return row.prompt - row.opening > self.gpt.shape.n_ctx

    def _warn(self, cut: int) -> None:
        if cut:
            n_ctx = self.gpt.shape.n_ctx
            warnings.warn(f"{cut} prompt(s) longer than the model's context: only the last {n_ctx} tokens are read", stacklevel=3)

    def _story(self, prompt: str, row: Row, sampling: Sampling) -> Story:
        return Story(prompt, self._text(row, sampling), row.ids[row.prompt :], row.finished, self._is_cut(row))

    def _text(self, row: Row, sampling: Sampling) -> str:
        ids = row.ids[row.opening :]
        return self.tokenizer.decode_as_gpt2ml(ids) if sampling.as_gpt2ml else self.tokenizer.decode(ids)

    def _columns(self, rows: list[Row], new_tokens: int) -> int:
        """Columns that a batch needs until it is done or the context is full; the last token is never read."""
        return min(max(len(row.window) for row in rows) + new_tokens - 1, self.gpt.shape.n_ctx)

    def _batches(self, rows: list[Row], new_tokens: int) -> Iterator[list[Row]]:
        by_length = sorted(rows, key=lambda row: len(row.window))
        return batches(by_length, lambda row: self._columns([row], new_tokens), self.batch_tokens)

    def _write(self, rows: list[Row], sampling: Sampling) -> Iterator[None]:
        """Adds one token to every row between two yields, until all rows are finished or have `max_new_tokens`."""
        reader = batch_reader(self.gpt)
        banned, banned_before_end = self._banned_ids(sampling, reader.sampling_device)
        seen_tokens = None
        for count in range(sampling.max_new_tokens):
            with reader.without_gradients():
                if reader.must_read:
                    rows = rows if reader.keeps_all_rows else [row for row in rows if not row.done]
                    for row in rows:
                        # a full row goes on from the last half of its context; the others are read again as they are, so a row's
                        # text does not depend on the length of its neighbours
                        if len(row.window) > self.gpt.shape.n_ctx:
                            row.start = len(row.ids) - max(self.gpt.shape.n_ctx // 2, 1)
                    columns = self._columns(rows, sampling.max_new_tokens - count)
                    logits = reader.read([row.window for row in rows], self.tokenizer.eos_id, columns)
                    seen_tokens = self._seen_tokens(rows, sampling, reader.sampling_device)
                else:
                    logits = reader.go_on([row.ids[-1] for row in rows])
                banned_now = banned_before_end if count < sampling.min_new_tokens else banned
                chosen = choose(logits, sampling, banned_now, seen_tokens, [row.generator for row in rows])
                if seen_tokens is not None:
                    seen_tokens.scatter_(1, chosen[:, None], True)
            for row, token in zip(rows, chosen.tolist(), strict=True):
                # a row that is done stays in the batch for a while; its tokens are ignored
                if not row.done:
                    self._add(row, token, sampling)
            yield
            unfinished = [i for i, row in enumerate(rows) if not row.done]
            if not unfinished:
                return
            # halving, so that all copies of the cache together are less than one more cache
            if 2 * len(unfinished) <= len(rows) and not reader.keeps_all_rows:
                rows = [rows[i] for i in unfinished]
                reader.cache.keep(torch.tensor(unfinished, device=reader.device))
                seen_tokens = None if seen_tokens is None else seen_tokens[unfinished]

    def _banned_ids(self, sampling: Sampling, device: torch.device) -> tuple[Tensor, Tensor]:
        """(V,) bool twice: the ids that never come, and those that do not come before min_new_tokens."""
        # rows of the embedding may have no token
        banned = torch.arange(self.gpt.shape.vocab_size, device=device) >= self.tokenizer.vocab_size
        banned[[self.tokenizer.pad_id] if sampling.as_gpt2ml else list(self.tokenizer.control_ids)] = True
        before_end = banned.clone()
        # an end of text that is a full stop may come earlier, but does not end the text
        before_end[self.tokenizer.eos_id] |= not self.tokenizer.eos_is_text
        return banned, before_end

    def _add(self, row: Row, token: int, sampling: Sampling) -> None:
        """Puts the token at the row's end, and ends the row where that is its end."""
        is_eos = token == self.tokenizer.eos_id
        if not is_eos or self.tokenizer.eos_is_text or sampling.as_gpt2ml:
            row.ids.append(token)
        written = len(row.ids) - row.prompt
        if sampling.as_gpt2ml:
            row.finished = is_eos and len(row.ids) - row.opening > sampling.min_len and written >= sampling.min_new_tokens
            # gpt2-ml wrote one token more than the context holds
            row.done = row.finished or len(row.window) > self.gpt.shape.n_ctx
        else:
            enough = sampling.min_new_tokens or min(STORY, sampling.max_new_tokens)
            row.finished = row.done = is_eos and (not self.tokenizer.eos_is_text or written >= enough)

    def _seen_tokens(self, rows: list[Row], sampling: Sampling, device: torch.device) -> Tensor | None:
        """(B, V) bool: the tokens that the repetition penalty makes less likely, without the opening EOS; None without a penalty."""
        if sampling.repetition_penalty == 1:
            return None
        seen_tokens = torch.zeros(len(rows), self.gpt.shape.vocab_size, dtype=torch.bool)
        for of_row, row in zip(seen_tokens, rows, strict=True):
            of_row[row.ids[row.opening :]] = True
        return seen_tokens.to(device)


def batches(rows: list[T], columns: Callable[[T], int], batch_tokens: int) -> Iterator[list[T]]:
    """Rows that ascend in length, as many together as `batch_tokens` (rows x columns) allows."""
    batch: list[T] = []
    for row in rows:
        if batch and (len(batch) + 1) * columns(row) > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@contextmanager
def eval_mode(gpt: GPT) -> Iterator[None]:
    """Eval mode inside; afterwards every module is in the mode in which it was."""
    modes = [(module, module.training) for module in gpt.modules()]
    gpt.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        # a training step under the same autocast cannot use weights that were cast in inference mode
        torch.clear_autocast_cache()
