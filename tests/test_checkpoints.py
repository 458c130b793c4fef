"""Model directories, training checkpoints and run directories: what is written is read, what is wrong is said in one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cngpt import checkpoints
from cngpt.errors import UserError
from cngpt.model.gpt import GPT
from cngpt.model.shape import Shape
from cngpt.tokens import load_tokenizer
from tests.conftest import tiny_shape, tiny_tokenizer

IDS = torch.arange(8, 20)[None]


@pytest.fixture
def folder(gpt, tmp_path) -> Path:
    checkpoints.save(tmp_path / "model", gpt, tiny_tokenizer(), {"top_p": 0.5}, step=7)
    return tmp_path / "model"


@pytest.fixture
def one_folder(tmp_path) -> Path:
    """As `folder`, for tests that need no second block."""
    torch.manual_seed(0)
    checkpoints.save(tmp_path / "model", GPT(tiny_shape()).init_weights(), tiny_tokenizer())
    return tmp_path / "model"


def write_checkpoint(path: Path, gpt: GPT, step: int = 3, **changes) -> Path:
    """What Lightning writes, as far as it matters here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"shape": gpt.shape.as_dict(), "tokenizer": tiny_tokenizer().to_json(), "generation": {"top_k": 5}, "step": step}
    state = {f"gpt.{name}": tensor for name, tensor in gpt.state_dict().items()}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"state_dict": state, "optimizer_states": [optimizer], "global_step": step, "cngpt": about, **changes}, path)
    return path


def refuses(path, *words: str, **how) -> None:
    with pytest.raises(UserError) as caught:
        checkpoints.load(path, **how)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_saved_model_is_loaded_as_it_was(gpt, folder):
    loaded, tokenizer = checkpoints.load(folder)
    assert loaded.shape == gpt.shape
    assert torch.equal(loaded(IDS), gpt(IDS))
    assert tokenizer.fingerprint == tiny_tokenizer().fingerprint
    assert not loaded.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in loaded.parameters())
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "generation.json", "model.safetensors", "tokenizer.json"]


def test_a_loaded_model_trains(folder):
    gpt, _ = checkpoints.load(folder)
    gpt.train()(IDS).square().mean().backward()
    assert gpt.tok.weight.grad[gpt.shape.vocab_size :].abs().sum() == 0
    torch.optim.SGD(gpt.parameters(), 0.1).step()


def test_files_hold_no_padding_rows_and_keep_their_type(gpt, tmp_path):
    from safetensors.torch import load_file

    checkpoints.save(tmp_path / "model", gpt.to(torch.bfloat16), tiny_tokenizer())
    tensors = load_file(tmp_path / "model/model.safetensors")
    assert tensors.keys() == gpt.state_dict().keys()
    assert tensors["tok.weight"].shape == (64, 16)
    assert checkpoints.load(tmp_path / "model")[0].tok.weight.dtype == torch.bfloat16


def test_tensors_of_several_types_are_aligned_and_read_by_the_library(tmp_path):
    from safetensors.torch import load_file

    gpt = GPT(tiny_shape(width=5, n_head=1, vocab_size=63)).init_weights()
    types = [torch.bfloat16, torch.float64, torch.float16, torch.float32]  # 315 numbers of two bytes, then those of eight
    state = {name: tensor.to(types[n % 4]) for n, (name, tensor) in enumerate(gpt.state_dict().items())}
    checkpoints.save_state(tmp_path / "model", gpt.shape.as_dict(), state, tiny_tokenizer(63))
    path = tmp_path / "model/model.safetensors"
    loaded = load_file(path)
    assert loaded.keys() == state.keys()
    for name, tensor in state.items():
        want = tensor[:63] if name == "tok.weight" else tensor
        assert loaded[name].dtype == want.dtype and torch.equal(loaded[name], want), name
    head = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    assert all(head[name]["data_offsets"][0] % tensor.itemsize == 0 for name, tensor in state.items())


def test_the_bundled_tokenizer_survives_a_model_directory(tmp_path):
    hanzi = load_tokenizer("hanzi")
    checkpoints.save(tmp_path / "model", GPT(tiny_shape(vocab_size=hanzi.vocab_size)), hanzi)
    _, tokenizer = checkpoints.load(tmp_path / "model")
    assert tokenizer.encode("双十一，Apple\n来了").tolist() == hanzi.encode("双十一，Apple\n来了").tolist()


def test_loading_touches_no_random_state(folder):
    state = torch.get_rng_state()
    checkpoints.load(folder)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_training_checkpoint_is_loaded_without_its_optimizer(gpt, tmp_path):
    path = write_checkpoint(tmp_path / "step_00000003.ckpt", gpt)
    loaded, tokenizer = checkpoints.load(path)
    path.unlink()  # as training does when newer ones come
    assert torch.equal(loaded(IDS), gpt(IDS))
    assert tokenizer.fingerprint == tiny_tokenizer().fingerprint
    assert not loaded.training


def test_a_run_directory_means_its_model_else_its_newest_checkpoint(tmp_path):
    gpts = [GPT(tiny_shape()).init_weights().eval() for _ in range(3)]
    run = tmp_path / "run"
    write_checkpoint(run / "checkpoints/step_00000200.ckpt", gpts[1])
    write_checkpoint(run / "checkpoints/step_00000090.ckpt", gpts[0])
    assert torch.equal(checkpoints.load(run)[0](IDS), gpts[1](IDS))
    checkpoints.save(run / "model", gpts[2], tiny_tokenizer())
    assert torch.equal(checkpoints.load(run)[0](IDS), gpts[2](IDS))


def test_newest_is_the_run_that_was_written_last_among_those_that_hold_something(tmp_path):
    gpt = GPT(tiny_shape())
    assert checkpoints.newest_run(tmp_path / "runs") is None
    (tmp_path / "runs/empty").mkdir(parents=True)
    early = write_checkpoint(tmp_path / "runs/b/checkpoints/step_00000001.ckpt", gpt)
    checkpoints.save(tmp_path / "runs/a/model", gpt, tiny_tokenizer())
    os.utime(early, (1, 1))
    assert checkpoints.newest_run(tmp_path / "runs") == tmp_path / "runs/a"
    os.utime(tmp_path / "runs/a/model/config.json", (0, 0))
    assert checkpoints.newest_run(tmp_path / "runs") == tmp_path / "runs/b"


def test_header_tells_shape_step_and_tokenizer_of_all_three_kinds(gpt, folder, tmp_path):
    path = write_checkpoint(tmp_path / "run/checkpoints/step_00000003.ckpt", gpt)
    known = {"shape": gpt.shape.as_dict(), "training": {}}
    of_model = {"kind": "model", "path": str(folder), "step": 7, "generation": {"top_p": 0.5}, **known}
    of_checkpoint = {"kind": "checkpoint", "path": str(path), "step": 3, "generation": {"top_k": 5}, **known}
    for place, want in ((folder, of_model), (path, of_checkpoint), (tmp_path / "run", of_checkpoint)):
        header = vars(checkpoints.header(place)).copy()
        assert header.pop("tokenizer").fingerprint == tiny_tokenizer().fingerprint
        assert {**header, "path": str(header["path"])} == want
    assert Shape(**checkpoints.header(path).shape) == gpt.shape


def test_header_of_a_model_directory_needs_no_torch(one_folder):
    code = f"import sys; from cngpt import checkpoints; checkpoints.header({str(one_folder)!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_existing_model_is_replaced_only_on_request(gpt, folder):
    with pytest.raises(UserError, match="exists already; overwrite=true replaces it"):
        checkpoints.save(folder, gpt, tiny_tokenizer())
    checkpoints.save(folder, gpt, tiny_tokenizer(), step=8, overwrite=True)
    assert checkpoints.header(folder).step == 8
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_overwrite_replaces_nothing_but_a_model(gpt, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("years of work")
    with pytest.raises(UserError, match="is no model directory"):
        checkpoints.save(tmp_path / "thesis", gpt, tiny_tokenizer(), overwrite=True)
    assert (tmp_path / "thesis/chapter.txt").exists()
    for theirs in ('{"model_type": "gpt2"}', '{"hidden_size": 128}', "no JSON"):
        (tmp_path / "thesis/config.json").write_text(theirs)
        with pytest.raises(UserError, match="is no model directory"):
            checkpoints.save(tmp_path / "thesis", gpt, tiny_tokenizer(), overwrite=True)


def test_an_error_while_saving_leaves_the_old_model_and_nothing_else(gpt, folder):
    with pytest.raises(TypeError):
        checkpoints.save(folder, gpt, tiny_tokenizer(), generation={"not": object()}, overwrite=True)
    assert checkpoints.header(folder).step == 7
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_model_may_have_more_rows_than_its_tokenizer_but_not_fewer(tmp_path):
    checkpoints.save(tmp_path / "more", GPT(tiny_shape(vocab_size=66)), tiny_tokenizer(64))
    assert checkpoints.load(tmp_path / "more")[0].shape.vocab_size == 66
    with pytest.raises(UserError, match="the model has 63 rows, its tokenizer 64 tokens"):
        checkpoints.save(tmp_path / "fewer", GPT(tiny_shape(vocab_size=63)), tiny_tokenizer(64))
    assert not (tmp_path / "fewer").exists()


def test_what_is_no_model_is_refused(tmp_path):
    refuses(tmp_path / "nowhere", "there is no", "nowhere", "step_*.ckpt")
    refuses(tmp_path, "is no model")
    refuses("gs://bucket/model", "gs://bucket/model", "copy it here")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    refuses(tmp_path, "config.json", "not written by cngpt")
    (tmp_path / "notes.txt").write_text("hello")
    refuses(tmp_path / "notes.txt", "notes.txt", "no checkpoint")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    refuses(tmp_path / "other.ckpt", "other.ckpt", "not written by cngpt's training")
    torch.save([1, 2], tmp_path / "list.ckpt")
    refuses(tmp_path / "list.ckpt", "not written by cngpt's training")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(one_folder, name):
    (one_folder / name).unlink()
    refuses(one_folder, name, "missing", "copy the model directory again")


@pytest.mark.parametrize("verify", [True, False])
def test_truncated_weights_are_refused(one_folder, verify):
    path = one_folder / "model.safetensors"
    for size in (path.stat().st_size - 1, 100, 0):
        os.truncate(path, size)
        refuses(one_folder, "model.safetensors is damaged", "copy the model directory again", verify=verify)


@given(data=st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_in_the_weights_is_refused(one_folder, data):
    path = one_folder / "model.safetensors"
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(flipped)
    refuses(one_folder, "model.safetensors is damaged or changed", "sha256")
    path.write_bytes(whole)


@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_json_file_is_a_users_error_or_none(one_folder, data):
    """Never a traceback, and never a tokenizer that gives other ids."""
    path = one_folder / data.draw(st.sampled_from(["config.json", "tokenizer.json"]))
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + 1 :])
    try:
        _, tokenizer = checkpoints.load(one_folder)
        assert tokenizer.fingerprint == tiny_tokenizer().fingerprint
    except UserError as error:
        assert "\n" not in str(error)
    path.write_bytes(whole)


def test_another_models_files_are_refused(one_folder, tmp_path):
    checkpoints.save(tmp_path / "wide", GPT(tiny_shape(width=32)), tiny_tokenizer(63))
    shutil.copy(tmp_path / "wide/model.safetensors", one_folder)
    refuses(one_folder, "model.safetensors", "sha256")
    refuses(one_folder, "tensor blocks.0.attn.out.bias is 32", "wants 16", verify=False)
    shutil.copy(tmp_path / "wide/tokenizer.json", one_folder)
    refuses(one_folder, "tokenizer.json is not the one", verify=False)


def test_a_missing_or_surplus_tensor_is_named(one_folder):
    config = json.loads((one_folder / "config.json").read_text())
    edit(one_folder / "config.json", shape={**config["shape"], "n_layer": 3})
    refuses(one_folder, "tensor blocks.2.attn.out.bias is absent", "wants 16")
    edit(one_folder / "config.json", shape={**config["shape"], "n_layer": 1})
    refuses(one_folder, "tensor blocks.1.attn.out.bias is 16", "wants absent")


def test_older_and_newer_formats_say_what_to_do(one_folder):
    edit(one_folder / "config.json", format=2)
    refuses(one_folder, "config.json has format 2", "reads format 1", "update cngpt")
    edit(one_folder / "config.json", format=0)
    refuses(one_folder, "config.json has format 0", "with the cngpt that wrote it")
    edit(one_folder / "config.json", format=1, shape={"block": "preln", "wings": 2})
    refuses(one_folder, "no model that this cngpt knows", "wings")


def test_a_damaged_checkpoint_names_the_one_before_it(tmp_path):
    gpt = GPT(tiny_shape())
    first = write_checkpoint(tmp_path / "checkpoints/step_00000090.ckpt", gpt)
    second = write_checkpoint(tmp_path / "checkpoints/step_00000200.ckpt", gpt)
    whole = second.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:200] + b"\0" * (len(whole) - 200)):
        second.write_bytes(damaged)
        refuses(tmp_path, "step_00000200.ckpt is damaged", f"the one before it is {first}")
    first.write_bytes(b"PK")
    refuses(first, "step_00000090.ckpt is damaged", "there is none before it")


def test_a_checkpoint_with_foreign_objects_is_not_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = write_checkpoint(tmp_path / "step_00000001.ckpt", GPT(tiny_shape()), callbacks=Trap())
    refuses(path, "step_00000001.ckpt is damaged or no checkpoint")
    assert not (tmp_path / "sprung").exists()
