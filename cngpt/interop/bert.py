"""Texts scored by a BERT: which of several samples reads best.

Our `bert` and `clue` ids are BERT's own, so what the model wrote goes into BERT as it is; texts of another vocabulary are
tokenized once more. The score is the pseudo-log-likelihood of Salazar et al. 2020 (Masked Language Model Scoring, eq. 1): mask a
token, take log p of what stood there given all the rest, do so for every token. Here it is the mean, so that length does not decide.

Letters: R rows of a batch, C columns, M masked tokens of a batch, V vocabulary.
"""

import importlib.util
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from cngpt.errors import UserError, first_line
from cngpt.generation.engine import Story, batches
from cngpt.progress import Bar
from cngpt.tokens import Tokenizer, load_tokenizer

# the first two: whole, the others: an index of shards
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json")
FRAME = ("[CLS]", "[SEP]", "[MASK]")


@dataclass
class Bert:
    """A masked language model from a directory as Hugging Face keeps one; a score is in nats a token, 0 the best.

    `apart`: tokens so far from each other are masked in one pass, so a text costs at most `apart` passes. A text of no more
    tokens is scored one mask at a time, exactly as in the paper, every text with apart=None. `batch_tokens`: rows x columns at once.
    """

    model: Any  # transformers' BertForMaskedLM
    tokenizer: Tokenizer  # BERT's own
    apart: int | None = 16
    batch_tokens: int = 8192

    @classmethod
    def open(cls, path: str | Path, device="cpu", **options) -> "Bert":
        """config.json, the weights of a BertForMaskedLM, and vocab.txt or tokenizer.json. UserError, "<path>: ...", where
        something is missing, damaged or of another kind."""
        path = Path(path)
        if importlib.util.find_spec("transformers") is None:
            raise UserError(f"{path}: reading a BERT needs transformers, which is not installed: pip install -e '.[bert]'")
        config, tokenizer = _read_config(path), _read_tokenizer(path)
        if tokenizer.vocab_size > config["vocab_size"]:
            raise UserError(
                f"{path}: the model has {config['vocab_size']:,} rows, its vocabulary {tokenizer.vocab_size:,} entries:"
                " they do not go together"
            )
        return cls(_read_model(path).to(device).eval(), tokenizer, **options)

    @property
    def room(self) -> int:
        """Tokens of a text that go in at once, between [CLS] and [SEP]."""
        return self.model.config.max_position_embeddings - 2

    def reads(self, tokenizer: Tokenizer) -> bool:
        """Whether ids of `tokenizer` are this BERT's, the line end apart, which took an entry that BERT never used."""
        ids = set(range(tokenizer.vocab_size)) - {tokenizer.newline_id}
        own, entry = self.tokenizer, lambda of, id: of.token(id) if id in of else None
        return tokenizer.vocab_size <= own.vocab_size and all(entry(tokenizer, id) == entry(own, id) for id in ids)

    def score(self, ids: Sequence[int], begin: int = 0, silent: Sequence[int] = ()) -> float:
        """Mean log p of the tokens from `begin` on, each masked; those of the ids `silent` are read, but not scored.
        -inf where there is nothing to score."""
        return self.scores([(ids, begin)], silent)[0]

    def scores(
        self, texts: Sequence[tuple[Sequence[int], int]], silent: Sequence[int] = (), progress: bool = False
    ) -> list[float]:
        """`score` of each (ids, begin), batched; `progress` shows a bar on a terminal."""
        rows = [(n, *row) for n, (ids, begin) in enumerate(texts) for row in self._rows(list(ids), begin, set(silent))]
        total, count = [0.0] * len(texts), [0] * len(texts)
        with Bar(len(rows), progress, title="BERT reads", counted="passes") as bar:
            rows.sort(key=lambda row: len(row[1]))
            for batch in batches(rows, lambda row: len(row[1]), self.batch_tokens):
                for (n, _, masked), log_p in zip(batch, self._read(batch), strict=True):
                    total[n] += sum(log_p)
                    count[n] += len(masked)
                bar(len(batch))
        return [t / c if c else -math.inf for t, c in zip(total, count, strict=True)]

    def order(self, stories: Sequence[Story], tokenizer: Tokenizer, progress: bool = False) -> list[tuple[Story, float]]:
        """(story, score) best first; `tokenizer` is the one of the model that wrote them.

        The continuation is scored. The prompt is only read: it is the same in all, and would favour the short ones. Line ends are
        only read, too: BERT has never seen that entry."""
        silent = [] if tokenizer.newline_id is None else [tokenizer.newline_id]
        if self.reads(tokenizer):
            prompts = [tokenizer.encode(story.prompt).tolist() for story in stories]
            texts = [(prompt + story.tokens, len(prompt)) for prompt, story in zip(prompts, stories, strict=True)]
        else:
            texts, silent = [self._retokenize(story, tokenizer) for story in stories], []
        scored = zip(stories, self.scores(texts, silent, progress), strict=True)
        return sorted(scored, key=lambda pair: -pair[1])

    def _retokenize(self, story: Story, tokenizer: Tokenizer) -> tuple[list[int], int]:
        """(the text in BERT's ids, how many of them it shares with the prompt)."""
        whole = self.tokenizer.encode(story.text).tolist()
        prompt = self.tokenizer.encode(tokenizer.decode(tokenizer.encode(story.prompt))).tolist()
        return whole, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(whole, prompt, strict=False)))

    def _rows(self, ids: list[int], begin: int, silent: set[int]) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
        """(row, columns that are masked in it with their ids) for each pass over a text. Of one that is too long, the end of the
        prompt and the beginning of the continuation are read."""
        cls, sep, mask = (self.tokenizer.id(token) for token in FRAME)
        first = max(0, min(begin - self.room // 2, len(ids) - self.room))
        row = [cls, *ids[first : first + self.room], sep]
        masked = [i for i in range(max(begin - first, 0) + 1, len(row) - 1) if row[i] not in silent]
        passes = len(masked) if self.apart is None else min(self.apart, len(masked))
        for i in range(passes):
            hidden = {column: row[column] for column in masked[i::passes]}
            yield [mask if c in hidden else id for c, id in enumerate(row)], list(hidden.items())

    def _read(self, batch: list) -> list[list[float]]:
        """log p of the ids that were masked, for each row."""
        device = self.model.device
        C = max(len(row) for _, row, _ in batch)
        ids = torch.tensor([row + [0] * (C - len(row)) for _, row, _ in batch], device=device)
        attention = torch.tensor([[1] * len(row) + [0] * (C - len(row)) for _, row, _ in batch], device=device)
        hidden_tokens = [(r, c, id) for r, (_, _, masked) in enumerate(batch) for c, id in masked]
        rows, columns, targets = torch.tensor(hidden_tokens, device=device).T
        with torch.inference_mode():
            hidden = self.model.bert(input_ids=ids, attention_mask=attention).last_hidden_state[rows, columns]  # (M, D)
            pairs = zip(hidden.split(512), targets.split(512), strict=True)
            log_p = torch.cat([self.model.cls(h).float().log_softmax(-1).gather(1, t[:, None])[:, 0] for h, t in pairs])
        return [piece.tolist() for piece in log_p.cpu().split([len(masked) for _, _, masked in batch])]


def _read_config(path: Path) -> dict:
    """config.json, checked before `transformers` is imported."""
    if not path.is_dir():
        raise UserError(f"{path}: there is no such folder; a BERT's, with config.json, weights and vocab.txt, is needed")
    if not any((path / name).exists() for name in WEIGHTS):
        raise UserError(f"{path}: has no weights, {' or '.join(WEIGHTS[:2])}; give a BERT's folder as Hugging Face keeps one")
    if not (path / "config.json").exists():
        raise UserError(f"{path}: has no config.json; give a BERT's folder as Hugging Face keeps one")
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        kind, _ = config.get("model_type"), config["vocab_size"]
    except (ValueError, KeyError, AttributeError, OSError) as error:
        raise UserError(f"{path}: config.json is damaged, or no BERT's ({type(error).__name__}: {error})") from None
    if kind != "bert":
        raise UserError(f"{path}: is a {kind or 'model without model_type'}, and a masked language model of type bert is needed")
    return config


def _read_tokenizer(path: Path) -> Tokenizer:
    """BERT's own; of a vocab.txt alone, tokenizer_config.json says whether it keeps case."""
    try:
        if (path / "vocab.txt").exists():
            config = path / "tokenizer_config.json"
            lowercase = json.loads(config.read_text(encoding="utf-8")).get("do_lower_case") if config.exists() else None
            tokenizer = load_tokenizer(path / "vocab.txt", newline=False, lowercase=lowercase)
        else:
            tokenizer = load_tokenizer(path / "tokenizer.json")
    except (UserError, ValueError) as error:
        raise UserError(f"{path}: the vocabulary cannot be read: {error}") from None
    if missing := [token for token in FRAME if tokenizer.id(token) is None]:
        raise UserError(f"{path}: its vocabulary has no {', '.join(missing)}, which a BERT's has")
    return tokenizer


def _read_model(path: Path):
    """transformers' BertForMaskedLM, in float32."""
    from transformers import BertForMaskedLM

    options = {"local_files_only": True, "output_loading_info": True, "dtype": torch.float32}
    with _quiet():
        try:
            model, report = BertForMaskedLM.from_pretrained(path, **options)
        # safetensors, pickle and transformers raise what they like
        except Exception as error:
            raise UserError(f"{path}: cannot be read, damaged? ({type(error).__name__}: {first_line(error)})") from None
    if any(name.startswith("cls.predictions") for name in report["missing_keys"]):
        raise UserError(f"{path}: has no weights cls.predictions.*: it is no masked language model, only its body")
    bad = sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])})
    if bad:
        raise UserError(f"{path}: {len(bad)} tensors are missing or of another shape, {bad[0]} for one: damaged?")
    return model


@contextmanager
def _quiet():
    """Without transformers' progress bar and its table of unused weights (the pooler's); afterwards as it was."""
    from transformers.utils import logging

    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()
