"""Does the order that BERT gives mean anything? Held-out sentences against damaged ones, and against what the GPT writes.

python experiments/beside_bert/measure.py <bert> <shards> <model>
"""

import random
import sys
import time
from pathlib import Path

import numpy as np
import torch

import cngpt
from cngpt.generation import Engine, Sampling
from cngpt.interop.bert import Bert
from cngpt.tokens.shards import Shards

rng = random.Random(1)


def sentences(valid: Shards, stop: int, skip: int, count: int) -> list[list[int]]:
    """Ids of held-out sentences of 24 to 52 tokens, without [UNK] (`skip`), each ended by `stop`, the full stop."""
    chosen = []
    for n in range(valid.documents):
        ids, begin = valid.document(n).tolist(), 0
        for end in (i + 1 for i, id in enumerate(ids) if id == stop):
            if 24 <= end - begin <= 52 and skip not in ids[begin:end]:
                chosen.append(ids[begin:end])
            begin = end
    return rng.sample(chosen, count)


def shuffled(ids: list[int]) -> list[int]:
    return rng.sample(ids, len(ids))


def swapped(ids: list[int], pairs: int = 2) -> list[int]:
    """Two pairs of neighbours change places."""
    ids = list(ids)
    for i in rng.sample(range(0, len(ids) - 2, 2), pairs):
        ids[i], ids[i + 1] = ids[i + 1], ids[i]
    return ids


def replaced(ids: list[int], others: list[int], share: float = 0.1) -> list[int]:
    """A tenth of the tokens become others, as frequent as they are in the held-out text."""
    hit = set(rng.sample(range(len(ids)), max(1, round(share * len(ids)))))
    return [rng.choice(others) if i in hit else id for i, id in enumerate(ids)]


def better(a, b) -> str:
    """How often a is above b; ties count half."""
    a, b = np.asarray(a), np.asarray(b)
    return f"{np.mean((a > b) + 0.5 * (a == b)):.3f} of {np.broadcast(a, b).size} pairs"


def spearman(a, b) -> float:
    return float(np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1])


def likelihood(gpt, opening: list[int], ids: list[int], begin: int) -> float:
    """Mean log p of the GPT itself, from token `begin` on."""
    row = torch.tensor([opening + ids])
    with torch.inference_mode():
        log_p = gpt(row)[0, :-1].log_softmax(-1).gather(1, row[0, 1:, None])[:, 0]
    return log_p[len(opening) - 1 + begin :].mean().item()


def main(bert_folder: str, shards: str, model: str) -> None:
    bert, valid = Bert.open(bert_folder), Shards(Path(shards) / "valid")
    gpt, tokenizer = cngpt.load(model)
    assert bert.reads(tokenizer)
    real = sentences(valid, tokenizer.id("。"), tokenizer.unk_id, 150)
    others = [id for s in real for id in s]
    whole = bert.scores([(s, 0) for s in real])
    for name, damage in (
        ("all shuffled", shuffled),
        ("2 pairs swapped", swapped),
        ("10% replaced", lambda s: replaced(s, others)),
    ):
        print(f"real above {name}: {better(whole, bert.scores([(damage(s), 0) for s in real]))}")

    exact = Bert.open(bert_folder, apart=None)
    began = time.time()
    want = exact.scores([(s, 0) for s in real])
    took = time.time() - began
    for apart in (32, 16, 8):
        began = time.time()
        got = Bert.open(bert_folder, apart=apart).scores([(s, 0) for s in real])
        difference = np.abs(np.subtract(got, want)).mean()
        faster = took / (time.time() - began)
        print(
            f"apart={apart}: Spearman {spearman(got, want):.4f} with one mask at a time, {difference:.3f} nats off, {faster:.1f}x as fast"
        )

    engine, prompt, n = Engine(gpt, tokenizer), 10, 10
    prompts = [tokenizer.decode(s[:prompt]) for s in real if len(s) >= 40][:40]
    kept = [s[:40] for s in real if len(s) >= 40 and tokenizer.encode(tokenizer.decode(s[:prompt])).tolist() == s[:prompt]][:40]
    assert len(kept) == len(prompts)
    human = bert.scores([(s, prompt) for s in kept])
    written = {}
    for temperature in (0.8, 1.2):
        sampling = Sampling(temperature=temperature, top_p=1.0, min_new_tokens=30, max_new_tokens=30)
        stories = engine.generate(prompts, n, sampling)
        texts = [s[:prompt] + story.tokens for s, group in zip(kept, stories, strict=True) for story in group]
        scores = np.reshape(bert.scores([(ids, prompt) for ids in texts]), (-1, n))
        own = np.reshape([likelihood(gpt, [tokenizer.eos_id], ids, prompt) for ids in texts], (-1, n))
        variety = np.reshape([len(set(ids[prompt:])) for ids in texts], (-1, n))
        written[temperature] = scores
        first = variety[np.arange(len(kept)), scores.argmax(1)].mean()
        agreement = np.mean([spearman(a, b) for a, b in zip(scores, own, strict=True)])
        print(f"temperature {temperature}: real above a sample: {better(np.array(human)[:, None], scores)}")
        print(f"  real above the best of {n}: {better(human, scores.max(1))}")
        print(f"  Spearman with the GPT's own likelihood, {n} samples of a prompt: {agreement:.2f}")
        print(f"  different tokens of 30: {first:.1f} in the first, {variety.mean():.1f} in all")
    print(f"  in real text: {np.mean([len(set(s[prompt:])) for s in kept]):.1f}")
    print(f"a sample of temperature 0.8 above one of 1.2: {better(written[0.8], written[1.2])}")


if __name__ == "__main__":
    main(*sys.argv[1:])
