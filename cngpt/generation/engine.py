"""Prompts in, texts out: batches with a cache, or one text piece by piece.

Letters: B rows of a batch, T tokens read at once, V vocabulary.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cngpt.generation.sampling import Sampling, choose, generator
from cngpt.model import GPT, Cache, FixedCache
from cngpt.tokens import Tokenizer

READ_AT_ONCE = 256  # columns; the logits of a whole batch of long prompts would be gigabytes
FIXED_STEP = 64  # on XLA a prompt is filled up to a multiple of so many columns: few shapes, each compiled once
STORY = 100  # tokens before an end of text that is a full stop ends it, unless min_new_tokens says otherwise: one sentence is no story
UNFINISHED = "\ufffd"  # how byte-level BPE decodes the first bytes of a character


@dataclass(frozen=True)
class Story:
    prompt: str  # as it was given
    text: str  # prompt and continuation, decoded together
    tokens: list[int]  # the continuation; the EOS that ended it is left out unless it is text, or with stop="gpt2ml"
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

    A prompt is taken for the beginning of a document. Training packs documents one after another, each closed by EOS, so what
    the model knows as a beginning is "EOS, title, ..."; without the EOS it would go on as in the middle of some article.
    Hence the tokenizer's `opening_id`, mostly EOS, is put before every prompt. Only the seed's own models go without: their
    training rows began with the article itself. The empty prompt is EOS alone there.

    `batch_tokens` limits rows x columns of a batch's cache, which takes 8 x n_layer x width bytes a token in float32.
    """

    gpt: GPT
    tokenizer: Tokenizer
    batch_tokens: int = 8192
    _banned: Tensor = field(init=False, repr=False)

    def __post_init__(self):
        V = self.gpt.shape.vocab_size
        self._banned = torch.zeros(V, dtype=torch.bool)
        self._banned[self.tokenizer.vocab_size :] = True  # rows of the embedding that no token has

    def generate(self, prompts: Sequence[str], n: int = 1, sampling: Sampling = Sampling()) -> list[list[Story]]:
        """`n` stories for each prompt.

        Sample i of a prompt is a function of (model, prompt, i, sampling): what else is in the batch, and where, does not matter
        (beyond the rounding of the matrix products, 1e-6 or so, which a draw feels once in a million tokens).
        """
        ids = [self.tokenizer.encode(prompt).tolist() for prompt in prompts]
        rows = [[self._row(prompt, i, sampling) for i in range(n)] for prompt in ids]
        self._warn(sum(self._is_cut(group[0]) for group in rows if group))
        with evaluating(self.gpt):
            for batch in self._batches([row for group in rows for row in group], sampling.max_new_tokens):
                for _ in self._write(batch, sampling):
                    pass
        return [[self._story(prompt, row, sampling) for row in group] for prompt, group in zip(prompts, rows, strict=True)]

    def stream(self, prompt: str, sampling: Sampling = Sampling()) -> Iterator[str]:
        """The text of `generate` in pieces as they come: first the prompt as decoded, then what is certain after each token.

        No later token changes a piece: the space between two Latin words comes with the second one, a character of several
        byte-level tokens when it is whole.
        """
        row = self._row(self.tokenizer.encode(prompt).tolist(), 0, sampling)
        self._warn(self._is_cut(row))
        unfinished = UNFINISHED + "#" if sampling.join == "gpt2ml" else UNFINISHED  # two tokens # and # vanish together
        shown = self._text(row, sampling).rstrip(unfinished)
        yield shown
        with evaluating(self.gpt):
            for _ in self._write([row], sampling):
                text = self._text(row, sampling).rstrip(unfinished)
                if len(text) > len(shown):
                    yield text[len(shown) :]
                    shown = text
        rest = self._text(row, sampling)[len(shown) :]
        if rest:
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
        return self.tokenizer.decode_as_the_seed(ids) if sampling.join == "gpt2ml" else self.tokenizer.decode(ids)

    def _columns(self, rows: list[Row], new_tokens: int) -> int:
        """What a batch needs until it is done or the context is full; the last token is never read."""
        return min(max(len(row.window) for row in rows) + new_tokens - 1, self.gpt.shape.n_ctx)

    def _batches(self, rows: list[Row], new_tokens: int) -> Iterator[list[Row]]:
        """Rows of like length together, as many as `batch_tokens` allows."""
        batch: list[Row] = []
        for row in sorted(rows, key=lambda row: len(row.window)):
            if batch and (len(batch) + 1) * self._columns([row], new_tokens) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _write(self, rows: list[Row], sampling: Sampling) -> Iterator[None]:
        """Adds one token to every row between two yields, until all rows are finished or have `max_new_tokens`."""
        eos, device = self.tokenizer.eos_id, self.gpt.tok.weight.device
        fixed = device.type == "xla"  # what has been compiled serves every token: no shape changes, and the CPU chooses
        place = torch.device("cpu") if fixed else device
        allowed = self._banned.to(place, copy=True)
        allowed[[self.tokenizer.pad_id] if sampling.nucleus == "gpt2ml" else list(self.tokenizer.control_ids)] = True
        before_eos = allowed.clone()
        before_eos[eos] |= not self.tokenizer.eos_is_text  # a text needs its full stops before its end, too
        cache, said = None, None
        for count in range(sampling.max_new_tokens):
            with undifferentiated(device):
                if cache is None or cache.length == cache.size:
                    rows = rows if fixed else [row for row in rows if not row.done]
                    logits, cache = self._read(rows, sampling.max_new_tokens - count)
                    said = self._said(rows, place) if sampling.repetition_penalty != 1 else None
                else:
                    last = torch.tensor([[row.ids[-1]] for row in rows], device=device)
                    logits = self.gpt(last, cache)[:, -1]
                logits = fetched(logits) if fixed else logits
                banned = before_eos if count < sampling.min_new_tokens else allowed
                chosen = choose(logits, sampling, banned, said, [row.generator for row in rows])
                if said is not None:
                    said.scatter_(1, chosen[:, None], True)
            for row, token in zip(rows, chosen.tolist(), strict=True):
                if not row.done:  # who is done stays in the batch for a while, unheard
                    self._add(row, token, sampling)
            yield
            going = [i for i, row in enumerate(rows) if not row.done]
            if not going:
                return
            if (
                2 * len(going) <= len(rows) and not fixed
            ):  # by halves, so that all copies of the cache together are less than one more cache
                rows, keep = [rows[i] for i in going], torch.tensor(going, device=device)
                cache.keep(keep)
                said = None if said is None else said[keep]

    def _add(self, row: Row, token: int, sampling: Sampling) -> None:
        """Puts the token at the row's end, and ends the row where that is its end."""
        ends = token == self.tokenizer.eos_id
        if not ends or self.tokenizer.eos_is_text or sampling.stop == "gpt2ml":
            row.ids.append(token)
        written = len(row.ids) - row.prompt
        if sampling.stop == "gpt2ml":
            row.finished = ends and len(row.ids) - row.opening > sampling.min_len and written >= sampling.min_new_tokens
            row.done = row.finished or len(row.window) > self.gpt.shape.n_ctx  # one more than it can read
        else:
            enough = sampling.min_new_tokens or min(STORY, sampling.max_new_tokens)
            row.finished = row.done = ends and (not self.tokenizer.eos_is_text or written >= enough)

    def _read(self, rows: list[Row], new_tokens: int) -> tuple[Tensor, Cache]:
        """The logits (B, V) of each row's next token, and the cache after all that the rows hold.

        A row that is full goes on from the last half of its context. Rows that are not full are read again as they are, so a
        row's text does not depend on the length of its neighbours.
        """
        n_ctx, device = self.gpt.shape.n_ctx, self.gpt.tok.weight.device
        for row in rows:
            if len(row.window) > n_ctx:
                row.start = len(row.ids) - max(n_ctx // 2, 1)
        lengths = [len(row.window) for row in rows]
        T, fixed = max(lengths), device.type == "xla"
        if fixed:
            step = max(1, min(FIXED_STEP, n_ctx // 4))
            T = min(n_ctx, -(-T // step) * step)
        eos = self.tokenizer.eos_id
        ids = torch.tensor([[eos] * (T - n) + row.window for n, row in zip(lengths, rows, strict=True)], device=device)
        padding = torch.tensor([T - n for n in lengths], device=device) if min(lengths) < T or fixed else None
        if fixed:
            cache = FixedCache.for_model(self.gpt, n_ctx, padding)
        else:
            cache = Cache.for_model(self.gpt, self._columns(rows, new_tokens), padding)
        for piece in ids.split(READ_AT_ONCE, dim=1):
            logits = self.gpt(piece, cache)[:, -1]
        return logits, cache

    def _said(self, rows: list[Row], device) -> Tensor:
        """(B, V) bool: what the repetition penalty falls on; the opening EOS was not said."""
        said = torch.zeros(len(rows), self.gpt.shape.vocab_size, dtype=torch.bool)
        for mine, row in zip(said, rows, strict=True):
            mine[row.ids[row.opening :]] = True
        return said.to(device)


def fetched(logits: Tensor) -> Tensor:
    """From an XLA device to the CPU, after all that is waiting, the cache too: left waiting, it would be compiled with the next token."""
    import torch_xla

    torch_xla.sync()
    return logits.cpu()


@contextmanager
def evaluating(gpt: GPT) -> Iterator[None]:
    """Eval mode inside; afterwards every module is in the mode in which it was."""
    modes = [(module, module.training) for module in gpt.modules()]
    gpt.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        torch.clear_autocast_cache()  # weights cast in inference mode are no use to a training step under the same autocast


def undifferentiated(device: torch.device):
    """Inference mode; where that does not work (gloo, XLA, sharded weights), no gradients."""
    spread = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.no_grad() if spread or device.type == "xla" else torch.inference_mode()
