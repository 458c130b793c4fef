"""A tiny corpus as shards, and settings for runs of seconds."""

import json
import random
from pathlib import Path

import pytest

from cngpt.tokens import load_tokenizer
from cngpt.tokens.shards import ShardWriter

WORDS = "今天早上双十一中国历史人们在街上看见一只猫它走进店里买了三斤苹果然后回家吃饭睡觉"


@pytest.fixture(scope="session")
def tokenizer():
    return load_tokenizer("hanzi")


@pytest.fixture(scope="session")
def shards(tmp_path_factory, tokenizer) -> Path:
    """train/ and valid/ of made-up sentences."""
    folder, rng = tmp_path_factory.mktemp("shards"), random.Random(0)
    for part, documents in (("train", 120), ("valid", 8)):
        texts = ["".join(rng.choice(WORDS) for _ in range(rng.randint(20, 60))) + "。" for _ in range(documents)]
        options = {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size, "eos_id": tokenizer.eos_id}
        with ShardWriter(folder / part, **options) as writer:
            writer.add(tokenizer.encode_batch(texts), [len(t) for t in texts])
            writer.close({})
    return folder


@pytest.fixture
def settings(tokenizer) -> dict:
    """What `Training` takes: two layers, windows of 16 tokens, 8 windows a step."""
    shape = {
        "block": "preln",
        "vocab_size": tokenizer.vocab_size,
        "n_ctx": 16,
        "n_layer": 2,
        "n_head": 2,
        "width": 16,
        "dropout": 0.1,
        "initializer_range": 0.02,
    }
    trainer = {
        "accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "single", "precision": "32-true", "micro_batch": 4,
        "micro_batch_tokens": 64, "clip_norm": 1.0, "compile": False, "activation_checkpointing": False, "tensor_parallel": 1, "offload": False, "num_workers": 0,
    }  # fmt: skip
    generation = {
        "temperature": 1.0, "top_k": 0, "top_p": 0.9, "repetition_penalty": 1.0, "min_new_tokens": 0,
        "max_new_tokens": 8, "seed": 1,
    }  # fmt: skip
    every = {"validation": {"every": 5, "windows": 4}, "checkpoint": {"every": 5, "keep": -1, "folder": None}, "log_every": 1}
    return {
        "name": "test",
        "seed": 7,
        "max_steps": 12,
        "tokens_per_step": 128,
        "shape": shape,
        "optim": {"name": "adamw", "lr": 1e-2, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1},
        "schedule": {"name": "cosine", "warmup_steps": 2, "total_steps": 12, "final": 0.1},
        "trainer": trainer,
        "generation": generation,
        "callbacks": {**every, "samples": {"every": 5, "new_tokens": 4, "prompts": ["双十一"]}},
        "logger": {"name": "csv"},
    }


def steps_in(lines: list[str]) -> list[int]:
    """The steps of the rows of a samples.jsonl."""
    return [json.loads(line)["step"] for line in lines]
