"""A small BertForMaskedLM, trained on the shards that `task=prepare` made: what stands in for a real BERT on the page beside this file.

    python experiments/beside_bert/train_bert.py <shards> <vocab.txt> <out>

The ids of the shards go in as they are: [CLS], 62 of them, [SEP]; a [SEP] between two documents is there already, our EOS.
"""

import argparse
import os
import shutil
import time
from pathlib import Path

import torch
from transformers import BertConfig, BertForMaskedLM

from cngpt.tokens.shards import Shards

INIT = float(os.environ.get("INIT", 0.02))
SHARE = float(os.environ.get("SHARE", 0.2))
CLS, SEP, MASK = 101, 102, 103  # in clue's vocabulary as in Google's


def masked(ids: torch.Tensor, vocab_size: int, share: float, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T) -> the ids with `share` of them hidden, and which; Devlin et al. 2018, section 3.1: 80% [MASK], 10% any, 10% as is."""
    hidden = (torch.rand(ids.shape, generator=rng) < share) & (ids != CLS) & (ids != SEP)
    fate = torch.rand(ids.shape, generator=rng)
    anything = torch.randint(106, vocab_size, ids.shape, generator=rng)
    shown = torch.where(hidden & (fate < 0.8), MASK, torch.where(hidden & (fate > 0.9), anything, ids))
    return shown, hidden


def waves(positions: int, width: int) -> torch.Tensor:
    """(positions, width): Vaswani et al. 2017, section 3.5. From random ones it takes a small BERT thousands of steps to see order."""
    angle = torch.arange(positions)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def train(model: BertForMaskedLM, shards: Shards, steps: int, rows: int, lr: float) -> None:
    """`steps` steps of `rows` windows from random places, linear warmup and decay, the loss now and then."""
    rng = torch.Generator().manual_seed(1)
    T, V, began = model.config.max_position_embeddings - 2, model.config.vocab_size, time.time()
    optimizer = torch.optim.AdamW(model.parameters(), lr, betas=(0.9, 0.98), weight_decay=0.01)
    warmup = max(1, steps // 10)
    losses = []
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(step / warmup, (steps - step + 1) / (steps - warmup + 1))
        starts = torch.randint(shards.tokens - T, (rows,), generator=rng).tolist()
        body = torch.stack([torch.from_numpy(shards.read(start, T)) for start in starts])
        ids = torch.cat([torch.full((rows, 1), CLS), body, torch.full((rows, 1), SEP)], dim=1)
        shown, hidden = masked(ids, V, 0.15, rng)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model.cls(model.bert(input_ids=shown).last_hidden_state[hidden])  # of the hidden ones alone
        loss = torch.nn.functional.cross_entropy(logits.float(), ids[hidden])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step % 100 == 0 or step == steps:
            recent = losses[-100:]
            print(f"step {step}: loss {sum(recent) / len(recent):.3f}, {time.time() - began:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("shards", type=Path)
    parser.add_argument("vocab", type=Path)
    parser.add_argument("out", type=Path)
    for name, value in {"steps": 3000, "rows": 32, "layers": 4, "width": 256, "positions": 64}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--lr", type=float, default=1e-3)
    a = parser.parse_args()
    shards = Shards(a.shards / "train")
    torch.manual_seed(1)
    shape = {"hidden_size": a.width, "intermediate_size": 4 * a.width, "num_hidden_layers": a.layers}
    shape |= {"num_attention_heads": max(1, a.width // 64), "max_position_embeddings": a.positions, "type_vocab_size": 2}
    config = BertConfig(
        vocab_size=shards.manifest["vocab_size"], **shape, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    model = BertForMaskedLM(config)
    model.bert.embeddings.position_embeddings.weight.data = 0.03 * waves(a.positions, a.width)
    print(f"{model.num_parameters():,} parameters, {shards.tokens:,} tokens")
    train(model, shards, a.steps, a.rows, a.lr)
    model.save_pretrained(a.out)
    shutil.copy(a.vocab, a.out / "vocab.txt")


if __name__ == "__main__":
    main()
