"""A BERT beside the GPT: pseudo-log-likelihood against one mask at a time, our ids in its model, and the order of samples."""

import itertools
import json
import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cngpt import checkpoints
from cngpt.errors import ConfigError, UserError
from cngpt.generation import Engine, Sampling
from cngpt.generation.engine import Story
from cngpt.interop.bert import Bert
from cngpt.model.gpt import GPT
from cngpt.tasks.generate import open_reranker
from cngpt.tokens import Tokenizer, load_tokenizer
from cngpt.tokens.shards import ShardWriter
from tests.commands import ROOT, run
from tests.conftest import tiny_shape

transformers = pytest.importorskip("transformers", reason="a BERT is read with transformers: pip install -e '.[bert]'")

TOKENS = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "，", "。", *"abc", "##b", "##c"]
TOKENS += [chr(0x4E00 + n) for n in range(64 - len(TOKENS))]
OURS = Tokenizer.from_vocab(TOKENS, name="ours", lowercase=True)
OTHER = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[SEP]", "\n", *TOKENS[:5:-1]], name="other", lowercase=True)


def make(folder, model="BertForMaskedLM", **config):
    """A random BERT that is sure of itself, so that scores differ."""
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 64}
    torch.manual_seed(0)
    shape |= {"max_position_embeddings": 66, "initializer_range": 0.5, **config}
    getattr(transformers, model)(transformers.BertConfig(**shape)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make(tmp_path_factory.mktemp("bert") / "bert")


@pytest.fixture(scope="module")
def bert(folder) -> Bert:
    return Bert.open(folder)


def one_by_one(bert: Bert, ids: list[int], begin: int = 0, silent=()) -> float:
    """Salazar et al. 2020, equation 1, with transformers alone."""
    row = torch.tensor([3, *ids, 4])
    log_p = []
    for i in range(begin + 1, len(row) - 1):
        if row[i] in silent:
            continue
        masked = row.clone()
        masked[i] = 5
        with torch.no_grad():
            log_p.append(bert.model(masked[None]).logits[0, i].log_softmax(-1)[row[i]].item())
    return sum(log_p) / len(log_p)


def story(prompt: str, text: str) -> Story:
    return Story(prompt, text, OURS.encode(text).tolist()[len(OURS.encode(prompt)) :], True, False)


def random_ids(count: int, seed: int = 0) -> list[int]:
    return torch.randint(6, 64, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def test_a_score_is_that_of_one_mask_at_a_time(bert):
    ids = random_ids(15)
    assert bert.score(ids) == pytest.approx(one_by_one(bert, ids), abs=1e-5)
    assert bert.score(ids, begin=7, silent=[ids[9]]) == pytest.approx(one_by_one(bert, ids, 7, [ids[9]]), abs=1e-5)


def test_a_long_text_takes_fewer_passes_and_every_token_is_still_scored(folder):
    ids = random_ids(60)
    exact, quick = Bert.open(folder, apart=None), Bert.open(folder, apart=20)
    assert exact.score(ids) == pytest.approx(one_by_one(exact, ids), abs=1e-5)
    rows = list(quick._rows(ids, 0, set()))
    assert len(rows) == 20 and sorted(c for _, masked in rows for c, _ in masked) == list(range(1, 61))
    assert all({b - a for (a, _), (b, _) in itertools.pairwise(masked)} == {20} for _, masked in rows)
    assert quick.score(ids) == pytest.approx(exact.score(ids), abs=0.5)


def test_of_a_text_that_is_too_long_the_end_of_the_prompt_and_the_beginning_of_the_rest_are_read(bert):
    ids = random_ids(200)
    assert bert.score(ids) == pytest.approx(bert.score(ids[:64]), abs=1e-5)
    assert bert.score(ids, begin=100) == pytest.approx(bert.score(ids[68:132], begin=32), abs=1e-5)


def test_what_else_is_in_the_batch_does_not_matter(folder):
    texts = [(random_ids(n, seed=n), n // 3) for n in (1, 30, 4, 17, 30, 9)]
    small = Bert.open(folder, batch_tokens=40)
    alone = [small.score(*text) for text in texts]
    assert Bert.open(folder).scores(texts) == pytest.approx(alone, abs=1e-5)
    assert small.scores(texts[::-1]) == pytest.approx(alone[::-1], abs=1e-5)


def test_nothing_to_score_comes_last(bert):
    assert bert.score([]) == -math.inf == bert.score([6, 7], begin=2)
    stories = [story("一", "一"), story("一", "一丁")]
    assert [s.text for s, _ in bert.order(stories, OURS)] == ["一丁", "一"]


def test_our_ids_of_berts_vocabulary_go_in_unchanged_and_the_line_end_as_unused(bert):
    assert bert.reads(OURS) and OURS.newline_id == 1
    text = "丁七\n丂，a b"
    ids = OURS.encode(text).tolist()
    [(_, score)] = bert.order([story("丁", text)], OURS)
    assert score == pytest.approx(one_by_one(bert, ids, begin=1, silent=[1]), abs=1e-5)


def test_texts_of_another_vocabulary_are_tokenized_once_more(bert):
    assert not bert.reads(OTHER)
    text = "丁七丂，cb 丄"
    ours = OTHER.encode(text).tolist()
    [(_, score)] = bert.order([Story("丁七", text, ours[2:], True, False)], OTHER)
    assert score == pytest.approx(one_by_one(bert, OURS.encode(text).tolist(), begin=2), abs=1e-5)
    assert not bert.reads(Tokenizer.from_vocab([*TOKENS, "more"], name="longer", lowercase=True))


def test_stories_come_best_first(bert):
    stories = [story("一丁", "一丁" + "".join(TOKENS[i] for i in random_ids(8, seed) if i > 12)) for seed in range(8)]
    ordered = bert.order(stories, OURS)
    scores = [score for _, score in ordered]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) > 1
    assert {s.text for s, _ in ordered} == {s.text for s in stories}
    assert all(score == pytest.approx(one_by_one(bert, OURS.encode(s.text).tolist(), 2), abs=1e-4) for s, score in ordered)


def test_a_vocabulary_may_be_a_tokenizer_json_and_weights_a_bin(tmp_path, bert):
    folder = make(tmp_path / "bert")
    (folder / "vocab.txt").unlink()
    Tokenizer.from_vocab(TOKENS, name="x", lowercase=True, newline=False).save(folder / "tokenizer.json")
    torch.save(bert.model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    again = Bert.open(folder)
    assert again.reads(OURS) and again.score([7, 8, 9]) == pytest.approx(bert.score([7, 8, 9]), abs=1e-6)


def damaged(folder, part):
    if part == "folder":
        return folder.parent / "nowhere"
    if part == "weights":
        (folder / "model.safetensors").unlink()
    elif part == "config":
        (folder / "config.json").unlink()
    elif part == "json":
        (folder / "config.json").write_text("{", encoding="utf-8")
    elif part == "gpt2":
        (folder / "config.json").write_text('{"model_type": "gpt2", "vocab_size": 64}', encoding="utf-8")
    elif part == "bytes":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    elif part == "rows":
        (folder / "vocab.txt").write_text("\n".join([*TOKENS, "more"]), encoding="utf-8")
    elif part == "mask":
        (folder / "vocab.txt").write_text("\n".join(t for t in TOKENS if t != "[MASK]"), encoding="utf-8")
    elif part == "vocab":
        (folder / "vocab.txt").unlink()
    elif part == "layers":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    return folder


@pytest.mark.parametrize("part, line", [
    ("folder", "no such folder"), ("weights", "has no weights"), ("config", "has no config.json"), ("json", "config.json is damaged"),
    ("gpt2", "is a gpt2"), ("bytes", "damaged?"), ("rows", "64 rows, its vocabulary 65"), ("mask", r"has no \[MASK\]"),
    ("vocab", "vocabulary cannot be read"), ("layers", "missing or of another shape"),
])  # fmt: skip
def test_what_is_missing_or_damaged_is_one_line_that_names_the_folder(tmp_path, part, line):
    path = damaged(make(tmp_path / "bert"), part)
    with pytest.raises(UserError, match=line) as caught:
        Bert.open(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_bert_without_its_head_is_refused_and_so_is_a_machine_without_transformers(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no masked language model"):
        Bert.open(make(tmp_path / "body", model="BertModel"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[bert\]'"):
        Bert.open(tmp_path / "body")


def test_opening_says_nothing_and_leaves_transformers_as_talkative_as_it_was(folder, capsys):
    from transformers.utils import logging

    before = logging.get_verbosity()
    Bert.open(folder)
    assert capsys.readouterr() == ("", "") and logging.get_verbosity() == before and logging.is_progress_bar_enabled()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    make(home / "bert")
    torch.manual_seed(0)
    checkpoints.save(home / "gpt", GPT(tiny_shape()).init_weights(), OURS)
    return home


def test_generate_prints_and_writes_samples_best_first_with_their_scores(home):
    few = ["task=generate", "ckpt=gpt", "n=5", "generation.max_new_tokens=6", 'prompt="一丁"']
    done = run(*few, "generation.rerank=bert", "out=best.jsonl", cwd=home)
    rows = [json.loads(line) for line in (home / "best.jsonl").read_text(encoding="utf-8").splitlines()]
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 5
    assert [f"── {i}   {score:.3f}" in done.stdout for i, score in enumerate(scores, 1)] == [True] * 5
    engine = Engine(*checkpoints.load(home / "gpt"))
    [stories] = engine.generate(["一丁"], 5, Sampling(max_new_tokens=6))
    order = Bert.open(home / "bert").order(stories, engine.tokenizer)
    assert [row["text"] for row in rows] == [story.text for story, _ in order]
    assert scores == pytest.approx([score for _, score in order], abs=1e-5)


def test_generate_refuses_a_wrong_folder_before_the_model_is_read(home):
    (home / "gpt" / "model.safetensors").rename(home / "gpt" / "aside")
    few = ["task=generate", "ckpt=gpt", "n=3", 'prompt="一丁"']
    mistakes = {
        "generation.rerank=nowhere": "error: generation.rerank=nowhere: there is no such folder",
        "generation.rerank=5": "error: generation.rerank=5: there is no such folder",
        "generation.rerank=": "error: generation.rerank=: the folder of a BERT is needed",
        "out=gpt": "error: out=gpt: is a folder; give the name of a file",
        "out=gpt/config.json/a.jsonl": "error: out=gpt/config.json/a.jsonl: ",
        "out=gs://b/a.jsonl": "error: out=gs://b/a.jsonl: is remote",
    }
    done = {mistake: run(*few, mistake, cwd=home, check=False) for mistake in mistakes}
    (home / "gpt" / "aside").rename(home / "gpt" / "model.safetensors")
    for mistake, message in mistakes.items():
        assert done[mistake].returncode == 2 and done[mistake].stderr.startswith(message), done[mistake].stderr


def test_there_must_be_samples_to_put_in_order_and_another_vocabulary_is_said(folder, capsys):
    def keys(n: int, rerank: Path | None = folder):
        return SimpleNamespace(n=n, generation=SimpleNamespace(rerank=str(rerank) if rerank else None))

    for n, prompts in ((1, ["一"]), (5, None)):
        with pytest.raises(ConfigError, match="give a prompt and n=10"):
            open_reranker(keys(n), prompts, OURS)
    assert open_reranker(keys(1, None), ["一"], OURS) is None
    open_reranker(keys(2), ["一"], OURS)
    assert capsys.readouterr().err == ""
    open_reranker(keys(2), ["一"], OTHER)
    assert "tokenized once more" in capsys.readouterr().err


def test_a_models_own_way_of_sampling_never_names_a_bert(home):
    small = ["model.n_layer=1", "model.width=16", "model.n_head=2", "model.n_ctx=32", "tokens_per_step=64", "max_steps=2"]
    small += ["logger=csv", "trainer=cpu", "callbacks.validation.windows=2", "callbacks.samples.new_tokens=2"]
    run(*small, "name=r", "schedule.warmup_steps=1", "generation.rerank=bert", cwd=home)
    assert "rerank" not in json.loads((home / "runs/r/model/generation.json").read_text())
    [checkpoint] = (home / "runs/r/checkpoints").glob("*.ckpt")
    assert "rerank" not in torch.load(checkpoint, weights_only=True)["cngpt"]["generation"]


def test_the_small_bert_of_the_experiment_trains_on_shards_and_reads_their_ids(tmp_path, monkeypatch, capsys):
    vocab = ["[PAD]", *(f"[unused{n}]" for n in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab += [chr(0x4E00 + n) for n in range(40)]
    (tmp_path / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path / "vocab.txt")
    header = {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size, "eos_id": tokenizer.eos_id}
    with ShardWriter(tmp_path / "shards" / "train", **header) as writer:
        writer.add([np.arange(104, 140)] * 9, [36] * 9)
        writer.close()
    few = ["--steps", "2", "--rows", "2", "--layers", "1", "--width", "16", "--positions", "24"]
    monkeypatch.setattr("sys.argv", ["x", *(str(tmp_path / name) for name in ("shards", "vocab.txt", "bert")), *few])
    runpy.run_path(str(ROOT / "experiments/beside_bert/train_bert.py"), run_name="__main__")
    bert = Bert.open(tmp_path / "bert")
    assert bert.reads(tokenizer) and bert.room == 22 and bert.score(tokenizer.encode("一丁丂")) < 0
