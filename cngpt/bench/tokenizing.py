"""Our tokenizer beside its peers: the same ids, and how much faster."""

import json
import os
import time
from collections.abc import Callable, Sequence
from unittest import mock

import numpy as np

from cngpt.bench.measure import interleaved, spread
from cngpt.corpus.document import batches
from cngpt.tokens import Tokenizer
from cngpt.tokens.google import GoogleRules
from cngpt.tokens.tokenizer import SURROGATE

OURS, HF, HF_FAST, PLAIN = "ours", "tokenizers encode_batch", "tokenizers encode_batch_fast", "plain BERT, a document at a time"
SAMPLES = {OURS: 20.0, HF: 1.5, HF_FAST: 1.5, PLAIN: 0.7}  # MB at most in one turn: one to two seconds each
COMPARED = 4_000_000  # characters tokenized at once when ids are compared: HF keeps some 300 bytes of each


def peer(tokenizer: Tokenizer):
    """The same tokenizer in the hands of `tokenizers`, without the control tokens that text could spell."""
    from tokenizers import Tokenizer as Backend

    spec = json.loads(tokenizer.to_json())
    spec["added_tokens"] = [token for token in spec.get("added_tokens") or [] if not token["special"]]
    return Backend.from_str(json.dumps(spec))


def plain_rules(tokenizer: Tokenizer) -> GoogleRules | None:
    """What the seed did, per document and in Python; None for a tokenizer that is no WordPiece."""
    spec = json.loads(tokenizer.to_json())
    if spec["model"]["type"] != "WordPiece":
        return None
    normalizer = spec["normalizer"] or {}
    lowercase = (normalizer.get("normalizers") or [normalizer])[-1].get("lowercase", False)
    return GoogleRules(spec["model"]["vocab"], tokenizer.unk_id, lowercase)


def compare_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> dict:
    """{"documents", "differing"}: how many of the texts have other ids than its manner's own rules give."""
    rules = plain_rules(tokenizer) if tokenizer.manner == "gpt2ml" else None
    backend, differing = peer(tokenizer), 0
    with mock.patch.dict(os.environ, TOKENIZERS_PARALLELISM="true"):  # all cores; it is looked at in each call
        for batch in batches(texts, COMPARED):
            if rules:
                expected = [[i for word in rules.words(text) for i in rules.pieces(word)] for text in batch]
            else:
                whole = [SURROGATE.sub("\ufffd", text) for text in batch]  # as ours reads them
                expected = [encoding.ids for encoding in backend.encode_batch_fast(whole, add_special_tokens=False)]
            differing += sum(not np.array_equal(a, b) for a, b in zip(tokenizer.encode_batch(batch), expected, strict=True))
    return {"documents": len(texts), "differing": differing, "with": "cngpt/tokens/google.py" if rules else "tokenizers"}


def compare_speed(tokenizer: Tokenizer, texts: Sequence[str], repeats: int) -> dict:
    """MB a second of processor time, which other work on the machine disturbs least: of ours, with an empty cache of words each
    time, and of its peers; how many times faster ours is."""
    backend, rules = peer(tokenizer), plain_rules(tokenizer)

    runs = {
        OURS: lambda sample, fresh: [len(fresh.encode_batch(batch)) for batch in batches(sample, 1 << 20)],  # as `prepare` does
        HF: lambda sample, _: backend.encode_batch(sample, add_special_tokens=False),
        HF_FAST: lambda sample, _: backend.encode_batch_fast(sample, add_special_tokens=False),
    }
    if rules:
        runs[PLAIN] = lambda sample, _: [len([i for word in rules.words(text) for i in rules.pieces(word)]) for text in sample]

    def timed(name: str) -> Callable[[], float]:
        sample = sample_of(texts, SAMPLES[name])
        size = sum(len(text.encode()) for text in sample)

        def run() -> float:
            fresh = Tokenizer.from_json(tokenizer.to_json()) if name == OURS else tokenizer
            began = time.process_time()
            runs[name](sample, fresh)
            return size / 1e6 / (time.process_time() - began)

        return run

    with mock.patch.dict(os.environ, TOKENIZERS_PARALLELISM="false"):
        speeds = interleaved({name: timed(name) for name in runs}, repeats)
    faster = {name: spread(a / b for a, b in zip(speeds[OURS], speeds[name], strict=True)) for name in runs if name != OURS}
    return {"megabytes_per_second": {name: spread(of) for name, of in speeds.items()}, "times_faster": faster}


def sample_of(texts: Sequence[str], megabytes: float) -> list[str]:
    """Evenly out of all of them, so many MB; without lone surrogates, which `tokenizers` refuses."""
    size = sum(len(text.encode(errors="replace")) for text in texts)
    step = max(1.0, size / (megabytes * 1e6))
    chosen = [texts[int(n * step)] for n in range(int(len(texts) / step) or 1)]
    return [SURROGATE.sub("\ufffd", text) for text in chosen]
