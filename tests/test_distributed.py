"""Checkpoints that lie in pieces: read as one file would be, whole or refused in one line."""

import os
import pickle
import re

import pytest
import torch
from torch.distributed.checkpoint import save
from torch.testing import assert_close

from cngpt import checkpoints
from cngpt.checkpoints import distributed, training_checkpoint
from cngpt.checkpoints.distributed_write import Planner, flat_parts
from cngpt.errors import UserError
from cngpt.model.gpt import GPT
from cngpt.training import optim
from cngpt.training.settings import AdamW
from tests.conftest import tiny_shape, tiny_tokenizer

ADAMW = AdamW(lr=1e-3, weight_decay=0.1)


@pytest.fixture
def trained() -> tuple[GPT, torch.optim.Optimizer]:
    torch.manual_seed(0)
    gpt = GPT(tiny_shape()).init_weights()
    optimizer = optim.build(gpt, ADAMW)
    gpt(torch.randint(64, (2, 8))).square().mean().backward()
    optimizer.step()
    return gpt, optimizer


def write(path, gpt, optimizer, flat: bool):
    """A folder as FSDP writes it, or (flat) as ZeRO does: each tensor in two parts of unlike size."""

    def cut(tensor):
        if not flat or tensor.ndim == 0:
            return tensor
        line = tensor.detach().flatten()
        at = line.numel() // 3
        return flat_parts(line.numel(), {0: line[:at], at: line[at:]})

    weights = {f"gpt.{name}": p for name, p in gpt.named_parameters()}
    names = {id(p): name for name, p in weights.items()}
    slots = {names[id(p)]: {k: cut(v) for k, v in state.items()} for p, state in optimizer.state.items()}
    groups = [{**group, "params": [names[id(p)] for p in group["params"]]} for group in optimizer.param_groups]
    state = {
        "state_dict": {k: cut(v) for k, v in weights.items()},
        "optimizer_0": {"state": slots, "param_groups": groups},
    }
    save(state, checkpoint_id=path, planner=Planner(), no_dist=True)
    about = {"shape": gpt.shape.as_dict(), "tokenizer": tiny_tokenizer().to_json(), "generation": {"top_p": 0.9}, "step": 7}
    rest = {"global_step": 7, "cngpt": about} | ({"flat": {k: list(v.shape) for k, v in weights.items()}} if flat else {})
    torch.save(rest, path / "meta.pt")
    return path


@pytest.fixture(params=[False, True], ids=["cut by rows", "cut flattened"])
def folder(request, trained, tmp_path):
    return write(tmp_path / "run/checkpoints/step_00000007.ckpt", *trained, flat=request.param)


def test_a_folder_reads_as_a_file_does(folder, trained):
    gpt, optimizer = trained
    whole = distributed.read(folder)
    distributed.verify(folder)
    assert whole["global_step"] == 7 and "flat" not in whole
    assert_close(dict(whole["state_dict"]), {f"gpt.{k}": v for k, v in gpt.state_dict().items()}, rtol=0, atol=0)
    (made,), wanted = whole["optimizer_states"], optimizer.state_dict()
    assert made["param_groups"] == wanted["param_groups"]
    assert_close({k: made["state"][k] for k in made["state"]}, wanted["state"], rtol=0, atol=0)
    fresh = optim.build(gpt, ADAMW)
    fresh.load_state_dict(made)
    assert_close(fresh.state_dict()["state"], wanted["state"], rtol=0, atol=0)


def test_it_is_loaded_by_its_path_and_by_its_runs(folder, trained):
    for path in (folder, folder.parents[1]):
        gpt, tokenizer = checkpoints.load(path)
        assert_close(gpt.state_dict(), trained[0].state_dict(), rtol=0, atol=0)
        assert tokenizer.fingerprint == tiny_tokenizer().fingerprint
        head = checkpoints.header(path)
        assert (head.kind, head.step, head.generation) == ("checkpoint", 7, {"top_p": 0.9})
    assert checkpoints.newest_run(folder.parents[2]) == folder.parents[1]


FILES = ["meta.pt", ".metadata", "__0_0.distcp"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other"])
def test_what_is_damaged_is_named_with_the_checkpoint_before_it(folder, name, damage):
    path, before = folder / name, folder.with_name("step_00000003.ckpt")
    before.mkdir()
    whole = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "other": b"PK" + bytes(len(whole))}[damage])
    for look in (checkpoints.load, lambda p: training_checkpoint.verify(p)):
        with pytest.raises(UserError, match=re.escape(f"the one before it is {before}")) as error:
            look(folder)
        assert "\n" not in str(error.value) and name in str(error.value)


def test_a_changed_byte_is_found(folder):
    path = folder / "__0_0.distcp"
    distributed.verify(folder)
    data = bytearray(path.read_bytes())
    place = next(iter(distributed.Reader(folder).storage.values()))
    data[place.offset + place.length // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"__0_0.distcp is damaged"):
        checkpoints.load(folder)


def test_an_index_that_would_run_something_does_not(folder, tmp_path):
    class Bad:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    (folder / ".metadata").write_bytes(pickle.dumps(Bad()))
    with pytest.raises(UserError, match=r"mkdir does not belong into it"):
        checkpoints.load(folder)
    assert not (tmp_path / "owned").exists()


def test_a_missing_tensor_is_said(trained, tmp_path):
    gpt, optimizer = trained
    path = write(tmp_path / "step_00000007.ckpt", gpt, optimizer, flat=False)
    rest = torch.load(path / "meta.pt")
    torch.save({**rest, "cngpt": {**rest["cngpt"], "shape": {**gpt.shape.as_dict(), "n_layer": 3}}}, path / "meta.pt")
    with pytest.raises(UserError, match=r"tensor blocks.2.* is absent"):
        checkpoints.load(path)
