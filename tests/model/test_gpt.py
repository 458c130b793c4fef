"""The block stacks: parity with their originals, causality, the cache, both initialisations."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cngpt.model.cache import Cache
from cngpt.model.gpt import GPT
from tests.conftest import tiny_shape
from tests.golden_seed import load_seed_model
from tests.hugging_face import hugging_face_twins


def test_preln_agrees_with_hugging_face():
    theirs, ours = hugging_face_twins()
    ids = torch.randint(64, (3, 32))
    assert_close(ours(ids), theirs(ids).logits, atol=1e-5, rtol=1e-5)


def test_gpt2ml_agrees_with_the_seed(shared):
    golden = shared("golden")
    gpt, want = load_seed_model(golden), np.load(golden / "forward.npz")
    logits = gpt(torch.from_numpy(want["input_ids"][:, :-1]).long())
    assert_close(logits, torch.from_numpy(want["logits"]), atol=5e-5, rtol=0)


def test_gpt2ml_hidden_states_agree_with_the_seed(shared):
    golden = shared("golden")
    gpt, want, seen = load_seed_model(golden), np.load(golden / "forward.npz"), []
    gpt.ln_embed.register_forward_hook(lambda m, i, o: seen.append(o))
    for block in gpt.blocks:
        block.register_forward_hook(lambda m, i, o: seen.append(o))
    gpt(torch.from_numpy(want["input_ids"][:2, :-1]).long())
    for n, hidden in enumerate(seen):
        assert_close(hidden, torch.from_numpy(want[f"hidden_{n}"]), atol=5e-5, rtol=0)


def test_no_position_sees_its_future(gpt):
    ids = torch.randint(64, (2, 20))
    changed = ids.clone()
    changed[:, 12:] = torch.randint(64, (2, 8))
    assert torch.equal(gpt(ids)[:, :12], gpt(changed)[:, :12])


def test_reading_in_pieces_equals_reading_at_once(gpt):
    ids = torch.randint(64, (3, 20))
    cache = Cache.for_model(gpt)
    pieces = [gpt(p, cache) for p in ids.split([7, 1, 1, 11], dim=1)]
    assert_close(torch.cat(pieces, dim=1), gpt(ids), atol=1e-5, rtol=1e-5)


def test_left_padding_changes_nothing(gpt):
    ids, padding = torch.randint(64, (3, 12)), torch.tensor([0, 5, 11])
    padded = torch.stack([torch.cat([torch.full((n,), 9), row[: 12 - n]]) for row, n in zip(ids, padding.tolist(), strict=True)])
    cache = Cache.for_model(gpt, padding=padding)
    got = torch.cat([gpt(padded[:, :8], cache), gpt(padded[:, 8:9], cache), gpt(padded[:, 9:], cache)], dim=1)
    for row, n, g in zip(ids, padding.tolist(), got, strict=True):
        assert_close(g[n:], gpt(row[None, : 12 - n])[0], atol=1e-5, rtol=1e-5)


def test_more_tokens_than_the_context_are_refused(gpt):
    with pytest.raises(ValueError, match="33 tokens, and the context holds 32"):
        gpt(torch.zeros(1, 33, dtype=torch.long))


def test_logits_and_count_never_show_the_padding(gpt):
    assert gpt(torch.zeros(1, 4, dtype=torch.long)).shape == (1, 4, 64)
    assert gpt.tok.num_embeddings == 128
    assert gpt.num_parameters() == sum(p.numel() for p in gpt.parameters()) - 64 * 16


def test_activation_checkpointing_changes_no_gradient(gpt):
    gpt.train()
    ids, gradients = torch.randint(64, (2, 16)), []
    for switch in (False, True):
        gpt.activation_checkpointing = switch
        gpt.zero_grad()
        gpt(ids).square().mean().backward()
        gradients.append([p.grad.clone() for p in gpt.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert_close(a, b)


def test_initialisations_are_the_originals():
    torch.manual_seed(0)
    preln = GPT(tiny_shape("preln", width=256, n_layer=8, vocab_size=1000)).init_weights()
    assert preln.blocks[0].attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert preln.blocks[0].mlp.down.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    seed = GPT(tiny_shape("gpt2ml", width=256, n_layer=8, initializer_range=0.014)).init_weights()
    assert seed.blocks[0].attn.out.weight.abs().max().item() <= 0.028
    assert 0.028 < seed.blocks[0].mlp.up.weight.abs().max().item() <= 0.04
    assert preln.tok.weight[1000:].abs().sum() == 0
