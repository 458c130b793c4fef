"""gpt2-ml's checkpoints and records become ours: what they compute, what they are recognised by, and what is refused."""

import hashlib
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cngpt import checkpoints
from cngpt.errors import ConfigError, UserError
from cngpt.interop.gpt2ml import mapping, shards, sizes, unindexed
from cngpt.interop.gpt2ml.bundle import layout, read_index
from cngpt.interop.gpt2ml.convert import RELEASES, convert
from cngpt.interop.gpt2ml.vocabulary import doubts, tokenizer_for
from cngpt.model.gpt import GPT
from cngpt.model.shape import Shape, tensors
from cngpt.tokens.shards import Shards
from cngpt.training.assemble import assemble
from cngpt.training.schedule import Gpt2ml
from cngpt.training.settings import Gpt2mlAdafactor
from tests.commands import run
from tests.golden_seed import as_training_checkpoint, load_seed_model, write_vocab
from tests.interop.bundle_writer import write_bundle

SMALL = Shape(block="gpt2ml", vocab_size=40, n_ctx=8, n_layer=2, n_head=2, width=128)


def mega(rows: int) -> Shape:
    """The seed's largest configuration."""
    size = {"n_ctx": 1024, "n_layer": 48, "n_head": 24, "width": 1536}
    return Shape(block="gpt2ml", vocab_size=rows, **size, dropout=0.1, initializer_range=0.014142135623731)


def random_variables(shape: Shape, slots: bool = True, step: int = 7) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    variables = {name: rng.standard_normal(size, np.float32) for name, size in mapping.variables(shape, slots).items()}
    return variables | ({mapping.STEP: np.array(step, np.int64)} if slots else {})


@pytest.fixture
def vocab(tmp_path) -> str:
    return str(write_vocab(tmp_path / "vocab.txt", 40))


@pytest.fixture
def small(tmp_path) -> Path:
    """A small checkpoint that was never TensorFlow's; its prefix."""
    (tmp_path / "small").mkdir()
    write_bundle(tmp_path / "small/model.ckpt-7", random_variables(SMALL))
    return tmp_path / "small/model.ckpt-7"


def left_behind(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


@pytest.mark.parametrize("source", ["ckpt", "ckpt_snappy"])
def test_the_golden_checkpoint_becomes_a_model_directory_that_computes_the_same(shared, tmp_path, source):
    golden = shared("golden")
    vocab = write_vocab(tmp_path / "vocab.txt")
    notes = convert(golden / source, tmp_path / "model", vocab=str(vocab), config=golden / "tiny_config.json")
    assert "step 5" in notes[0] and "neither of the two releases" in notes[1]
    gpt, tokenizer = checkpoints.load(tmp_path / "model")
    assert gpt.shape.dropout == 0.1 and checkpoints.header(tmp_path / "model").step == 5
    assert (tokenizer.manner, tokenizer.newline_id, tokenizer.opening_id) == ("gpt2ml", None, None)
    recorded = np.load(golden / "forward.npz")
    logits = gpt(torch.from_numpy(recorded["input_ids"]).long()[:, :-1])
    assert_close(logits, torch.from_numpy(recorded["logits"]), atol=5e-5, rtol=0)
    twin = load_seed_model(golden)
    assert all(torch.equal(a, b) for a, b in zip(gpt.state_dict().values(), twin.state_dict().values(), strict=True))


def test_the_released_checkpoints_hold_exactly_what_our_mapping_expects(shared):
    for name, rows in (("model.ckpt-100000", 21_130), ("model.ckpt-220000", 8_021)):
        _, entries = read_index(shared("golden/released_index") / f"{name}.index")
        shape = sizes.shape_of({entry.name: entry.shape for entry in entries}, None, name)
        assert shape == mega(rows)
        expected = mapping.variables(shape)
        assert {entry.name: entry.shape for entry in entries} == expected and len(expected) == 1835
        # and a lone .data file would be read at the right places
        guessed = layout((name, size, "int64" if name == mapping.STEP else "float32") for name, size in expected.items())
        assert [(e.name, e.offset, e.size) for e in guessed] == [(e.name, e.offset, e.size) for e in entries]


def test_our_parameters_are_those_of_the_model_in_its_order():
    with torch.device("meta"):
        state = GPT(SMALL).state_dict()
    want = {name: tuple(tensor.shape) for name, tensor in state.items()}
    want["tok.weight"] = (SMALL.vocab_size, SMALL.width)
    assert list(tensors(SMALL, padding=False).items()) == list(want.items())


def test_a_converted_model_is_the_one_that_saving_it_would_write(small, vocab, tmp_path):
    convert(small, tmp_path / "model", vocab=vocab)
    gpt, tokenizer = checkpoints.load(tmp_path / "model")
    checkpoints.save(tmp_path / "again", gpt, tokenizer, step=7)
    for file in ("model.safetensors", "config.json", "tokenizer.json", "generation.json"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "model" / file).read_bytes()


def test_an_assembled_checkpoint_is_the_one_lightning_wrote(tmp_path):
    """From a real run's weights and slots the same file is made again, apart from what a resumed run sets itself."""
    settings = [
        "model=gpt2ml_base",
        "model.n_layer=1",
        "model.width=32",
        "model.n_head=2",
        "model.n_ctx=64",
        "tokens_per_step=128",
    ]
    settings += ["optim=gpt2ml_adafactor", "schedule=gpt2ml", "logger=csv", "trainer=cpu", "max_steps=3", "name=real"]
    settings += [
        "callbacks.samples.every=0",
        "callbacks.checkpoint.every=3",
        "callbacks.validation.windows=2",
        "schedule.warmup_steps=2",
    ]
    run(*settings, cwd=tmp_path)
    real = torch.load(tmp_path / "runs/real/checkpoints/step_00000003.ckpt", weights_only=True)
    metadata = {key: value for key, value in real["cngpt"].items() if key != "step"}
    weights = {name.removeprefix("gpt."): tensor for name, tensor in real["state_dict"].items()}
    (state,) = real["optimizer_states"]
    shape = Shape(**metadata["shape"])
    order = [n for group in state["param_groups"] for n in group["params"]]
    matrices_first = sorted(weights, key=lambda name: weights[name].ndim < 2)
    slots = {name: state["state"][n] for n, name in zip(order, matrices_first, strict=True)}
    optimizer, schedule = Gpt2mlAdafactor(lr=1e-4, weight_decay=0.01), Gpt2ml(warmup_steps=2, total_steps=800_000)
    made = assemble(shape, weights, slots.__getitem__, optimizer, schedule, 3, metadata)
    for checkpoint in (made, real):
        checkpoint["loops"] = checkpoint["loops"]["fit_loop"]
        checkpoint["loops"].pop("epoch_loop.batch_progress")  # GPTModule.on_load_checkpoint sets it
        for scheduler in checkpoint["lr_schedulers"]:
            scheduler.pop("_last_lr")
        for group in checkpoint["optimizer_states"][0]["param_groups"]:
            group.pop("lr")
    assert_same(made, real, "")


def assert_same(a, b, name: str) -> None:
    if isinstance(a, dict):  # OrderedDict or not
        assert a.keys() == b.keys(), name
        for key in a:
            assert_same(a[key], b[key], f"{name}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), name
        for n, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{name}/{n}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), name
    else:
        assert a == b, name


def test_training_goes_on_from_the_seeds_step_in_one_command(shared, tmp_path):
    as_training_checkpoint(shared("golden"), tmp_path)
    gpt, _ = checkpoints.load(tmp_path / "run")
    assert torch.equal(gpt.pos.weight, load_seed_model(shared("golden")).pos.weight)
    options = ["experiment=gpt2ml_continue", "data=sample", "tokens_per_step=128", "trainer=cpu", "logger=csv", "callbacks=quiet"]
    options += ["callbacks.log_every=1", "callbacks.validation.windows=2", "schedule.warmup_steps=2"]
    done = run(*options, "ckpt=run", "name=on", "max_steps=7", cwd=tmp_path)
    assert "goes on from step 5" in done.stderr and "step 7/7" in done.stderr
    lines = (tmp_path / "runs/on/metrics.csv").read_text().splitlines()
    rates = [float(line.split(",")[3]) for line in lines[1:] if line.split(",")[3]]
    assert rates == pytest.approx([1e-4 * (1 - step / 800_000) for step in (5, 6)])
    after = torch.load(tmp_path / "runs/on/checkpoints/step_00000007.ckpt", weights_only=True)
    before = torch.load(tmp_path / "run/checkpoints/step_00000005.ckpt", weights_only=True)
    a, b = (c["optimizer_states"][0]["state"][0]["rows_0"] for c in (after, before))
    assert b.min() > 0 and (a > b * 0.999**2 * (1 - 1e-6)).all()  # two steps further from the seed's, not begun afresh


def test_heads_come_from_the_json_else_there_is_one_for_64_of_the_width(small, vocab, tmp_path):
    convert(small, tmp_path / "two", vocab=vocab)
    assert checkpoints.header(tmp_path / "two").shape["n_head"] == 2
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 8, "vocab_size": 38, "max_position_embeddings": 8}
    (tmp_path / "own.json").write_text(json.dumps(sizes))
    convert(small, tmp_path / "eight", vocab=vocab, config=tmp_path / "own.json")
    assert checkpoints.header(tmp_path / "eight").shape["n_head"] == 8
    for wrong, message in (
        ({"num_hidden_layers": 3}, "num_hidden_layers=3, but .* has 2"),
        ({"num_attention_heads": 7}, "does not divide"),
        ({"vocab_size": 41}, "vocab_size=41, but .* has 40"),
        ({"intermediate_size": 256}, "intermediate_size=256, but .* has 512"),
        ({"hidden_act": "relu"}, "hidden_act=relu, but .* has gelu"),
        ({"num_attention_heads": 0}, r"config=.*own.json: num_attention_heads=0 must be a whole number from 1"),
        ({"num_attention_heads": "two"}, r"num_attention_heads=two must be a whole number"),
        ({"num_attention_heads": True}, r"num_attention_heads=True must be a whole number"),
        ({"hidden_size": 128.0}, r"hidden_size=128.0 must be a whole number"),
        ({"initializer_range": "small"}, r"initializer_range=small must be a number from 0 to 1"),
        ({"hidden_dropout_prob": 3}, r"hidden_dropout_prob=3 must be a number from 0 to 1"),
    ):
        (tmp_path / "own.json").write_text(json.dumps({**sizes, **wrong}))
        with pytest.raises(UserError, match=message):
            convert(small, tmp_path / "no", vocab=vocab, config=tmp_path / "own.json")


def test_a_lone_data_file_converts_to_the_same_model(small, vocab, tmp_path):
    convert(small, tmp_path / "whole", vocab=vocab)
    small.with_name(small.name + ".index").unlink()
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40, "max_position_embeddings": 8}
    (tmp_path / "own.json").write_text(json.dumps(sizes))
    data = small.with_name(small.name + ".data-00000-of-00001")
    named = small.parent / "checkpoint"
    named.write_text(f'model_checkpoint_path: "{small.name}"')
    (meta := small.with_name(small.name + ".meta")).write_bytes(b"graph")
    again = data.with_name(data.name + " (1)")  # as browsers call it
    for n, path in enumerate((data, small, small.parent, named, meta, again)):
        if path == again:
            data.rename(again)
        notes = convert(path, tmp_path / f"alone{n}", vocab=vocab, config=tmp_path / "own.json")
        assert any(note.startswith("warning: ") and "no .index" in note for note in notes)
        for file in ("model.safetensors", "config.json"):
            assert (tmp_path / f"alone{n}" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    again.rename(data)
    with pytest.raises(UserError, match=r"none of the .* sizes"):
        convert(data, tmp_path / "no", vocab=vocab)  # of no configuration of the seed
    (tmp_path / "less.json").write_text(json.dumps({"hidden_size": 128, "num_hidden_layers": 2, "vocab_size": 40}))
    with pytest.raises(ConfigError, match=r"config=.*less.json: has no num_attention_heads and no max_position_embeddings"):
        convert(data, tmp_path / "no", vocab=vocab, config=tmp_path / "less.json")
    (tmp_path / "less.json").write_text(json.dumps({**sizes, "hidden_size": "128"}))
    with pytest.raises(ConfigError, match="hidden_size=128 must be a whole number"):
        convert(data, tmp_path / "no", vocab=vocab, config=tmp_path / "less.json")
    data.write_bytes(data.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"none of the .* sizes"):
        convert(data, tmp_path / "no", vocab=vocab, config=tmp_path / "own.json")


def test_a_lone_data_file_of_numbers_that_no_training_leaves_is_refused(small, vocab, tmp_path):
    small.with_name(small.name + ".index").unlink()
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40, "max_position_embeddings": 8}
    (tmp_path / "own.json").write_text(json.dumps(sizes))
    data = small.with_name(small.name + ".data-00000-of-00001")
    whole = data.read_bytes()
    for damaged in (
        bytes(len(whole)),
        whole[:4000] + b"\xff" * 400 + whole[4400:],
        whole[: len(whole) // 2] + bytes(len(whole) // 2),
    ):
        data.write_bytes(damaged)
        with pytest.raises(UserError, match="numbers that no training leaves there"):
            convert(data, tmp_path / "no", vocab=vocab, config=tmp_path / "own.json")
        assert not (tmp_path / "no").exists()


def test_a_vocabulary_of_a_release_that_is_cut_off_or_shuffled_is_noticed(shared, tmp_path):
    entries = shared("golden/vocab/clue-vocab.txt").read_text(encoding="utf-8").splitlines()
    (tmp_path / "cut.txt").write_text("\n".join(entries[:-1]), encoding="utf-8")
    with pytest.raises(UserError, match=r"8,020 entries, and the model has 8,021: .* or not all of clue's 8,021"):
        tokenizer_for(str(tmp_path / "cut.txt"), 8_021, None)
    (tmp_path / "shuffled.txt").write_text("\n".join([*entries[50:], *entries[:50]]), encoding="utf-8")
    with pytest.raises(UserError, match=r"as many entries as clue's vocabulary, but \[PAD\] is not number 0"):
        tokenizer_for(str(tmp_path / "shuffled.txt"), 8_021, None)
    (tmp_path / "changed.txt").write_text("\n".join([*entries[:-1], "龘龘"]), encoding="utf-8")
    assert "not the same ones" in doubts(tokenizer_for(str(tmp_path / "changed.txt"), 8_021, None))[0]
    assert doubts(tokenizer_for(str(shared("golden/vocab/clue-vocab.txt")), 8_021, None)) == []
    with pytest.raises(ConfigError, match=r"^eos=xyz: .*clue-vocab.txt has no such entry"):
        tokenizer_for(str(shared("golden/vocab/clue-vocab.txt")), 8_021, "xyz")


def test_the_releases_are_recognised_by_what_their_readme_says(small, vocab, tmp_path, monkeypatch):
    digest = hashlib.sha256((small.parent / "model.ckpt-7.data-00000-of-00001").read_bytes()).hexdigest()
    assert sorted(RELEASES.values()) == ["gpt2-ml's 15 GB release", "gpt2-ml's 30 GB release"]
    assert RELEASES["4a6e5124df8db7ac2bdd902e6191b807a6983a7f5d09fb10ce011f9a073b183e"] == "gpt2-ml's 15 GB release"
    assert RELEASES["e698cc97a7f5f706f84f58bb469d614e51d3c0ce5f9ab9bf77e01e3fcb41d482"] == "gpt2-ml's 30 GB release"
    monkeypatch.setitem(RELEASES, digest, "gpt2-ml's smallest release")
    notes = convert(small, tmp_path / "model", vocab=vocab)
    assert f"sha256 {digest}: gpt2-ml's smallest release" in notes


@pytest.mark.parametrize("rows, size", [(21_130, 5_585_033_776), (8_021, 5_504_439_644)])
def test_a_lone_file_of_a_releases_size_is_read_as_that_release(tmp_path, rows, size):
    with open(tmp_path / "model.ckpt.data-00000-of-00001", "wb") as file:
        file.truncate(size)  # takes no space
    with unindexed.open_data_file(tmp_path / "model.ckpt.data-00000-of-00001", None, None) as bundle:
        shapes = {name: entry.shape for name, entry in bundle.entries.items()}
    assert sizes.shape_of(shapes, None, "it") == mega(rows)


def test_a_web_page_instead_of_the_data_file_is_called_one(tmp_path, vocab):
    (tmp_path / "model.ckpt.data-00000-of-00001").write_text(
        "<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning"
    )
    with pytest.raises(UserError, match="a web page"):
        convert(tmp_path / "model.ckpt.data-00000-of-00001", tmp_path / "out", vocab=vocab)


def test_the_vocabulary_of_another_model_is_refused(small, tmp_path, shared):
    for entries in (30, 41):
        vocab = write_vocab(tmp_path / f"{entries}.txt", entries)
        if entries == 30:
            continue  # some rows to spare are usual
        with pytest.raises(UserError, match=r"vocab=.*41 entries, and the model has 40"):
            convert(small, tmp_path / "out", vocab=str(vocab))
    with pytest.raises(UserError, match=r"8,021 entries, and the model has 21,130"):
        tokenizer_for(str(shared("golden/vocab/clue-vocab.txt")), 21_130, None)


def test_texts_end_as_in_the_seeds_demo(shared):
    bert = str(shared("golden/vocab/bert-base-chinese-vocab.txt"))
    clue = str(shared("golden/vocab/clue-vocab.txt"))
    fifteen, thirty = tokenizer_for(bert, 21_130, None), tokenizer_for(clue, 8_021, None)
    assert (fifteen.name, fifteen.eos_id, fifteen.token(511)) == ("bert", 511, "。")
    assert (thirty.name, thirty.eos_id, thirty.token(102)) == ("clue", 102, "[SEP]")
    assert fifteen.newline_id is None and thirty.newline_id is None
    text = "他说：“好。”\n第二天，他走了。"
    assert fifteen.decode(fifteen.encode(text)).count("。") == 2  # the end of text is text
    assert tokenizer_for(bert, 21_130, "[SEP]").eos_id == 102
    with pytest.raises(UserError, match=r"21,128 entries, and the model has 8,021"):
        tokenizer_for(bert, 8_021, None)


def test_a_document_that_ends_with_the_full_stop_gets_no_second_one(shared, tmp_path):
    from cngpt.tokens.shards import ShardWriter

    tokenizer = tokenizer_for(str(shared("golden/vocab/bert-base-chinese-vocab.txt")), None, None)
    header = {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size, "eos_id": tokenizer.eos_id}
    with ShardWriter(tmp_path / "s", **header) as writer:
        writer.add(tokenizer.encode_batch(["天晴。", "下雨"]), [3, 2])
        writer.close()
    written = Shards(tmp_path / "s")
    assert tokenizer.decode(written.read(0, written.tokens)) == "天晴。下雨。"


CORRUPTIONS = 200


def corrupted(prefix: Path, n: int) -> None:
    """Makes the checkpoint wrong in place, each n in its own way."""
    rng = random.Random(n)
    index, data = (prefix.with_name(prefix.name + end) for end in (".index", ".data-00000-of-00001"))
    file = rng.choice([index, data])
    blob = bytearray(file.read_bytes())
    kind = n % 5
    if kind == 0:
        blob = blob[: rng.randrange(len(blob))]
    elif kind == 1:
        blob[rng.randrange(len(blob))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        blob += bytes(rng.randrange(1, 100))
    elif kind == 3:  # names, shapes or types that do not go together, in a file that is sound by itself
        wrong = random_variables(SMALL)
        names = [name for name in wrong if name != mapping.STEP]
        a, b = rng.sample(names, 2)
        while wrong[a].shape == wrong[b].shape:  # the same tensor by another name would be another model
            a, b = rng.sample(names, 2)
        change = rng.randrange(5)
        if change == 0:
            wrong[a], wrong[b] = wrong[b], wrong[a]
        elif change == 1:
            wrong[a] = wrong[a].astype(np.float16)
        elif change == 2:
            wrong["newslm/strange"] = wrong.pop(a)
        elif change == 3:
            wrong[a] = wrong[a].reshape(-1, 1)
        else:
            wrong[mapping.STEP] = wrong[mapping.STEP].astype(np.int32)
        write_bundle(prefix, wrong, compress=bool(n % 2))
        return
    else:
        start = rng.randrange(max(1, len(blob) - 64))
        blob[start : start + 64] = rng.randbytes(64)
    file.write_bytes(blob)


def test_two_hundred_corrupted_checkpoints_end_in_one_clear_line_each(small, vocab, tmp_path):
    for n in range(CORRUPTIONS):
        folder = tmp_path / "case"
        shutil.copytree(small.parent, folder)
        corrupted(folder / small.name, n)
        with pytest.raises(UserError) as caught:
            convert(folder / small.name, tmp_path / "out/model", vocab=vocab, optimizer=bool(n % 3 == 0))
        message = str(caught.value)
        assert "\n" not in message and len(message) > 20, n
        assert "small" in message or "case" in message or "newslm" in message, message
        assert not (tmp_path / "out").exists() or not left_behind(tmp_path / "out"), n
        shutil.rmtree(folder)


@pytest.mark.parametrize("optimizer", [False, True])
def test_a_damage_anywhere_is_found_whatever_is_converted(small, vocab, tmp_path, optimizer):
    _, entries = read_index(small.with_name(small.name + ".index"))
    data = small.with_name(small.name + ".data-00000-of-00001")
    whole = data.read_bytes()
    for entry in (next(e for e in entries if e.name.endswith(end)) for end in ("adafactor_vr", "adafactor_v", "kernel")):
        data.write_bytes(whole[: entry.offset] + bytes([whole[entry.offset] ^ 1]) + whole[entry.offset + 1 :])
        with pytest.raises(UserError, match=f"checksum of tensor '{entry.name}' does not match"):
            convert(small, tmp_path / "out", vocab=vocab, optimizer=optimizer)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("optimizer", [False, True])
def test_the_source_is_never_replaced(small, vocab, tmp_path, optimizer):
    (small.parent / "config.json").write_text('{"hidden_size": 128}')  # the seed's, kept beside
    (small.parent / "checkpoints").mkdir()
    before = left_behind(tmp_path)
    for out in (small.parent, tmp_path):
        with pytest.raises(UserError, match="is or holds what is read"):
            convert(small, out, vocab=vocab, optimizer=optimizer, overwrite=True)
    assert left_behind(tmp_path) == before


def test_a_converted_run_gives_way_until_it_was_trained_on(small, vocab, tmp_path):
    for _ in range(2):
        convert(small, tmp_path / "run", vocab=vocab, optimizer=True, overwrite=True)
    (tmp_path / "run/checkpoints/step_00000009.ckpt").touch()
    with pytest.raises(UserError, match="is no converted run, and overwrite=true replaces nothing else"):
        convert(small, tmp_path / "run", vocab=vocab, optimizer=True, overwrite=True)
    (tmp_path / "run/checkpoints/step_00000009.ckpt").rename(tmp_path / "run/metrics.csv")
    with pytest.raises(UserError, match="is no converted run"):
        convert(small, tmp_path / "run", vocab=vocab, optimizer=True, overwrite=True)


def test_where_nothing_can_be_written_is_said_before_anything_is_read_through(small, vocab, tmp_path, monkeypatch):
    from cngpt.interop.gpt2ml import convert as module

    monkeypatch.setattr(module, "_origin", None)  # the pass for the sha256
    with pytest.raises(UserError, match="/dev/null/x cannot be written"):
        convert(small, "/dev/null/x", vocab=vocab)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(UserError, match=r"no space left on the disk of .*2 MB are needed, 1 MB are free"):
        convert(small, tmp_path / "out", vocab=vocab)


def test_what_is_no_checkpoint_of_gpt2ml_is_refused(small, vocab, tmp_path):
    write_bundle(tmp_path / "other", {"bert/embeddings": np.zeros((3, 4), np.float32)})
    with pytest.raises(UserError, match="holds no GPT of gpt2-ml"):
        convert(tmp_path / "other", tmp_path / "out", vocab=vocab)
    bare = random_variables(SMALL, slots=False)
    write_bundle(tmp_path / "bare", bare)
    with pytest.raises(UserError, match=r"optimizer=true: .* holds no state of the optimizer"):
        convert(tmp_path / "bare", tmp_path / "out", vocab=vocab, optimizer=True)
    convert(tmp_path / "bare", tmp_path / "out", vocab=vocab)
    assert checkpoints.header(tmp_path / "out").step is None
    with pytest.raises(UserError, match="exists already"):
        convert(small, tmp_path / "out", vocab=vocab)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/novel.txt").write_text("mine")
    for optimizer in (False, True):
        with pytest.raises(UserError, match="replaces nothing else"):
            convert(small, tmp_path / "mine", vocab=vocab, optimizer=optimizer, overwrite=True)
    assert (tmp_path / "mine/novel.txt").exists()


@pytest.mark.parametrize("lengths", ["len1024", "len128_folds2", "len128"])
def test_the_seeds_records_become_shards_id_for_id(shared, tmp_path, lengths):
    folder = tmp_path / "records"
    folder.mkdir()
    expected = json.loads(shared("golden/tfrecord/expected.json").read_text())["files"]
    files = sorted(name for name in expected if name.startswith(f"{lengths}_train") or name.startswith(f"{lengths}_"))
    files = [name for name in files if lengths != "len128" or "folds" not in name]
    for name in files:
        shutil.copy(shared(f"golden/tfrecord/{name}"), folder)
    vocab = str(shared("golden/vocab/clue-vocab.txt"))
    report = shards.convert(folder, tmp_path / "shards", vocab, valid_fraction=0.2)
    want = sorted(ids for name in files for ids in expected[name]["ids_without_trailing_pad"])
    parts = [Shards(tmp_path / "shards" / part) for part in ("train", "valid")]
    assert sorted(part.document(i).tolist() for part in parts for i in range(part.documents)) == want
    assert all(part.documents for part in parts) and report["records"] == len(want)
    assert report["full"] == sum(
        len(ids) >= expected[name]["record_length"][0] - 1 for name in files for ids in expected[name]["ids_without_trailing_pad"]
    )


def test_old_records_train_in_two_commands(shared, tmp_path):
    vocab = shared("golden/vocab/clue-vocab.txt")
    records = shared("golden/tfrecord")
    done = run("task=convert", "from=gpt2ml_tfrecord", f"path={records}", f"vocab={vocab}", "out=old", cwd=tmp_path)
    assert "54 articles of 4 file(s)" in done.stderr
    options = ["model.n_layer=1", "model.width=32", "model.n_head=2", "model.n_ctx=64", "tokens_per_step=128", "logger=csv"]
    options += ["trainer=cpu", "callbacks=quiet", "max_steps=2", "schedule.warmup_steps=1", "name=again"]
    run(*options, "data=shards", "data.root=old", cwd=tmp_path)
    assert checkpoints.header(tmp_path / "runs/again").tokenizer.manner == "gpt2ml"
    done = run(*options, "data=shards", "data.root=old", "tokenizer=hanzi", "name=other", cwd=tmp_path, check=False)
    assert done.returncode == 2 and "another tokenizer than hanzi" in done.stderr and "Traceback" not in done.stderr


def test_wrong_uses_of_convert_are_one_line_before_anything_slow(tmp_path):
    for options, message in (
        ([], "from=... is needed"),
        (["from=gpt2ml"], "path=... is needed"),
        (["from=null", "path=."], "from=null"),
        (["from=gpt2ml", "path=null"], "path=null"),
        (["from=gpt3", "path=."], "from=gpt3: one of gpt2ml, gpt2ml_tfrecord, huggingface"),
        (["from=gpt2ml", "path=nowhere"], "path=nowhere: there is nothing of this name"),
        (["from=gpt2ml", "path=.", "eos=[SEP]"], "a text is needed"),
        (["from=huggingface", "path=.", "optimizer=true"], "optimizer=true: goes with from=gpt2ml"),
        (["from=gpt2ml_tfrecord", "path=."], "vocab=... is needed"),
        (["from=gpt2ml_tfrecord", "path=.", "vocab=5"], "holds no *.tfrecord"),
        (["from=gpt2ml", "path=.", "config=5"], "config=5"),
        (["from=gpt2ml", "path=.", "out=gs://b/x"], "out=gs://b/x: is remote"),
        (["from=gpt2ml", "path=gs://b/x"], "gs://b/x is remote"),
        (["from=huggingface", "path=uer/gpt2"], "hf download uer/gpt2 --local-dir"),
        (["from=checkpoint", "path=nowhere"], "path=nowhere: there is nothing of this name"),
    ):
        done = run("task=convert", *options, cwd=tmp_path, check=False)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        assert message in done.stderr
    assert not list(tmp_path.iterdir())
