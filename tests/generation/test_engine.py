"""Whole texts: parity with others' generation, independence of the batch, and what the engine leaves behind."""

import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cngpt.generation import Engine, Sampling, fixed_shapes
from cngpt.model.gpt import GPT
from cngpt.tokens import Tokenizer, load_tokenizer
from tests.conftest import tiny_shape, tiny_tokenizer
from tests.golden_seed import load_seed_model
from tests.hugging_face import hugging_face_twins

GREEDY = Sampling(temperature=0.0, max_new_tokens=20)
LIVELY = Sampling(temperature=3.0, top_p=1.0, max_new_tokens=20)
PROMPTS = ["丞一丁", "a", "上下, 丌不与丏丐丑丒专", "", "b c"]


class Numbers:
    """A tokenizer whose texts are the ids themselves: '5 17 3'."""

    control_ids, pad_id, opening_id, eos_is_text = (), 0, None, False

    def __init__(self, vocab_size: int, eos_id: int, control_ids: tuple[int, ...] = ()):
        self.vocab_size, self.eos_id, self.control_ids = vocab_size, eos_id, control_ids

    def encode(self, text: str) -> np.ndarray:
        return np.array(text.split(), np.int32)

    def decode(self, ids) -> str:
        return " ".join(str(id) for id in ids if id != self.eos_id)

    decode_as_gpt2ml = decode


@pytest.fixture
def engine(gpt) -> Engine:
    return Engine(gpt, tiny_tokenizer())


def changed(sampling: Sampling, **changes) -> Sampling:
    return Sampling(**{**sampling.model_dump(), **changes})


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_texts_are_hugging_faces(penalty):
    theirs, ours = hugging_face_twins()
    prompt, length = torch.randint(1, 64, (4, 7)), 20
    settings = {"do_sample": False, "max_new_tokens": length, "repetition_penalty": penalty}
    want = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), pad_token_id=0, eos_token_id=None, **settings)[:, 7:]
    never = Numbers(vocab_size=64, eos_id=-1)  # Hugging Face's eos_token_id=None
    sampling = changed(GREEDY, repetition_penalty=penalty, max_new_tokens=length)
    got = Engine(ours, never).generate([" ".join(map(str, row)) for row in prompt.tolist()], sampling=sampling)
    assert [stories[0].tokens for stories in got] == want.tolist()


def test_greedy_texts_are_gpt2mls(shared):
    golden = shared("golden")
    gpt = load_seed_model(golden)
    runs = [run for run in json.loads((golden / "generation.json").read_text()) if run["eos"] == -1]
    assert len(runs) == 11
    for run in runs:
        prompts = [" ".join(map(str, prompt)) for prompt in run["prompt"]]
        length = min(len(tokens) for tokens in run["tokens"]) - len(run["prompt"][0])  # up to the end of the context
        stories = Engine(gpt, Numbers(300, eos_id=-1)).generate(prompts, sampling=changed(GREEDY, max_new_tokens=length))
        assert [p + s[0].tokens for p, s in zip(run["prompt"], stories, strict=True)] == run["tokens"], run["name"]


def test_texts_end_where_gpt2mls_ended(shared):
    golden = shared("golden")
    gpt = load_seed_model(golden)
    runs = [run for run in json.loads((golden / "generation.json").read_text()) if run["eos"] != -1]
    assert len(runs) == 5
    for run in runs:
        sampling = changed(GREEDY, compat="gpt2ml", min_len=run["min_len"], max_new_tokens=1024)
        prompts = [" ".join(map(str, prompt)) for prompt in run["prompt"]]
        stories = Engine(gpt, Numbers(300, eos_id=run["eos"])).generate(prompts, sampling=sampling)
        for prompt, tokens, (story,) in zip(run["prompt"], run["tokens"], stories, strict=True):
            ours = prompt + story.tokens
            if len(prompts) == 1:
                assert ours == tokens, run["name"]
            else:  # the seed's batch went on until all its rows ended at once; its demo had one row, and so has each of ours
                assert ours == tokens[: len(ours)] and story.finished == (run["eos"] in tokens), run["name"]


def test_gpt2mls_stop_fills_the_context_where_no_end_comes(gpt):
    sampling = changed(GREEDY, compat="gpt2ml", max_new_tokens=999)
    (story,) = Engine(gpt, Numbers(64, eos_id=-1)).generate(["5 6"], sampling=sampling)[0]
    assert len(story.tokens) == gpt.shape.n_ctx + 1 - 2  # one more than it can read, as in the seed
    assert not story.finished


def full_stop_tokenizer():
    """As of gpt2-ml's 15 GB release: 。 ends a text and is a part of it."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "。", "##a", *(chr(0x4E00 + n) for n in range(57))]
    return Tokenizer.from_vocab(tokens, name="tiny", manner="gpt2ml", lowercase=False, eos="。")


def test_an_end_of_text_that_is_text_is_shown_and_does_not_end_it_too_early(gpt):
    tokenizer = full_stop_tokenizer()
    sampling = changed(LIVELY, min_new_tokens=40, max_new_tokens=400)
    stories = Engine(gpt, tokenizer).generate(["丁"], n=8, sampling=sampling)[0]
    assert all(len(story.tokens) >= 40 and story.text.endswith("。") for story in stories if story.finished)
    assert any(story.finished for story in stories)
    assert any(tokenizer.eos_id in story.tokens[:39] for story in stories)


def test_a_full_stop_ends_no_text_before_a_hundred_tokens_unless_asked(gpt):
    engine = Engine(gpt, full_stop_tokenizer())
    for asked, least in ((0, 100), (5, 5)):
        sampling = changed(LIVELY, min_new_tokens=asked, max_new_tokens=400)
        lengths = [len(story.tokens) for story in engine.generate(["丁"], n=12, sampling=sampling)[0] if story.finished]
        assert lengths and least <= min(lengths) < least + 100


def test_as_gpt2ml_prints_it_a_text_has_no_unknowns_and_no_piece_is_taken_back(gpt):
    engine = Engine(gpt, full_stop_tokenizer())
    sampling = changed(LIVELY, compat="gpt2ml", min_len=200, max_new_tokens=200)
    stories = engine.generate(["丁[UNK]丁"], n=10, sampling=sampling)[0]
    tokens = {id for story in stories for id in story.tokens}
    assert {engine.tokenizer.unk_id, engine.tokenizer.id("##a")} <= tokens and engine.tokenizer.pad_id not in tokens
    assert not any(sign in story.text for story in stories for sign in ("□", "##", "[UNK]"))
    pieces = list(engine.stream("丁[UNK]丁", sampling))
    assert "".join(pieces) == stories[0].text


def test_a_text_does_not_depend_on_what_else_is_in_the_batch(engine):
    sampling = changed(LIVELY, max_new_tokens=45, min_new_tokens=40, repetition_penalty=1.2)  # far beyond the context of 32
    together = engine.generate(PROMPTS, n=2, sampling=sampling)
    alone = [engine.generate([prompt], n=2, sampling=sampling)[0] for prompt in PROMPTS]
    small = Engine(engine.gpt, engine.tokenizer, batch_tokens=1).generate(PROMPTS[::-1], n=2, sampling=sampling)[::-1]
    assert together == alone == small
    assert len({story.text for stories in together for story in stories}) == 10


def test_batches_keep_to_their_budget(engine):
    rows = [engine._row([7] * n, 0, LIVELY) for n in (3, 1, 9, 30, 2, 1, 30)]
    batches = list(engine._batches(rows, new_tokens=5))
    assert sorted(map(id, rows)) == sorted(id(row) for batch in batches for row in batch)
    for limit in (1, 40, 64, 10_000):
        engine.batch_tokens = limit
        for batch in engine._batches(rows, new_tokens=5):
            assert len(batch) == 1 or len(batch) * engine._columns(batch, 5) <= limit


def test_the_same_seed_gives_the_same_text_and_another_seed_another(engine):
    first = engine.generate(PROMPTS, sampling=LIVELY)
    assert first == engine.generate(PROMPTS, sampling=LIVELY)
    assert first != engine.generate(PROMPTS, sampling=changed(LIVELY, seed=2))


def test_a_text_ends_at_eos_and_not_before_min_new_tokens(engine):
    stories = engine.generate(PROMPTS, n=20, sampling=changed(LIVELY, temperature=9.0, min_new_tokens=3, max_new_tokens=100))
    lengths = [len(story.tokens) for of_prompt in stories for story in of_prompt if story.finished]
    eos = engine.tokenizer.eos_id
    assert len(lengths) > 50  # of 100, at one chance in about 60 a token
    assert min(lengths) >= 3
    assert all(eos not in story.tokens for of_prompt in stories for story in of_prompt)
    assert all(len(story.tokens) == 100 for of_prompt in stories for story in of_prompt if not story.finished)


def test_control_tokens_and_rows_without_a_token_never_come():
    torch.manual_seed(0)
    gpt = GPT(tiny_shape(vocab_size=90)).init_weights().eval()
    tokenizer = tiny_tokenizer(64)
    stories = Engine(gpt, tokenizer).generate(PROMPTS, n=10, sampling=changed(LIVELY, temperature=100.0, max_new_tokens=60))
    written = {id for of_prompt in stories for story in of_prompt for id in story.tokens}
    assert len(written) > 50
    assert max(written) < 64
    assert not written & {*tokenizer.control_ids, tokenizer.pad_id, tokenizer.unk_id}


def test_every_prompt_opens_a_document_but_for_gpt2mls_models(gpt):
    read = []
    gpt.register_forward_pre_hook(lambda module, args: read.append(args[0].tolist()))
    tokenizer, seeds = tiny_tokenizer(), tiny_tokenizer(manner="gpt2ml")
    eos, (a,) = tokenizer.eos_id, tokenizer.encode("a")
    one = changed(GREEDY, max_new_tokens=1)
    cls = json.loads(tokenizer.to_json())
    cls["decoder"]["cngpt"]["opening"] = "[CLS]"
    classed = Tokenizer.from_json(json.dumps(cls))
    for engine in (Engine(gpt, tokenizer), Engine(gpt, seeds), Engine(gpt, classed)):
        engine.generate(["a"], sampling=one)
        engine.generate([""], sampling=one)
    c = tokenizer.id("[CLS]")
    assert read == [[[eos, a]], [[eos]], [[a]], [[eos]], [[c, a]], [[c]]]


def test_the_opening_eos_is_not_made_less_likely_by_the_repetition_penalty():
    gpt = GPT(tiny_shape()).init_weights().eval()
    eos = tiny_tokenizer().eos_id
    with torch.no_grad():  # whatever is read, EOS is the likeliest by a hair
        gpt.tok.weight.zero_()
        gpt.tok.weight[:, 0], gpt.tok.weight[eos, 0] = 1.0, 1.01
        gpt.ln_final.weight.zero_()
        gpt.ln_final.bias[0] = 1.0
    (story,) = Engine(gpt, tiny_tokenizer()).generate([""], sampling=changed(GREEDY, repetition_penalty=2.0))[0]
    assert story.finished
    assert story.tokens == []


def test_a_text_may_be_longer_than_the_context(engine):
    read = []
    engine.gpt.register_forward_pre_hook(lambda module, args: read.append(args[0].shape[1]))
    sampling = changed(LIVELY, min_new_tokens=100, max_new_tokens=100)
    (story,) = engine.generate(["丞一丁"], sampling=sampling)[0]
    assert len(story.tokens) == 100
    assert not story.cut
    # EOS and 3 tokens, 28 more until 32 are full, then 16 of them again and 16 more, ...
    assert [n for n in read if n > 1] == [4, 16, 16, 16, 16, 16]
    assert len(read) == 100


def test_a_prompt_longer_than_the_context_keeps_its_end_and_says_so(engine):
    long = "丞一" * 20 + "丁" * 10 + "且丕世丗丘丙业丛东丝" * 2 + "ab"
    with pytest.warns(UserWarning, match="1 prompt.* only the last 32 tokens are read"):
        (cut,), (whole,) = engine.generate([long, "丞"], sampling=GREEDY)
    assert cut.cut
    assert not whole.cut
    assert cut.text.startswith(long)
    end = engine.tokenizer.decode(engine.tokenizer.encode(long)[-32:])
    bare = Engine(engine.gpt, tiny_tokenizer(manner="gpt2ml"))
    assert bare.generate([end], sampling=GREEDY)[0][0].tokens == cut.tokens


def test_a_prompt_that_just_fits_is_not_called_cut(engine):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (story,) = engine.generate(["一" * 32], sampling=GREEDY)[0]
    assert not story.cut


def test_pieces_of_a_stream_make_up_the_text_of_generate(engine):
    for prompt in PROMPTS:
        pieces = list(engine.stream(prompt, LIVELY))
        assert pieces[0] == engine.tokenizer.decode(engine.tokenizer.encode(prompt))
        assert all(pieces[1:])
        assert "".join(pieces) == engine.generate([prompt], sampling=LIVELY)[0][0].text


@pytest.fixture(scope="module")
def bpe():
    from cngpt.tokens.train import train_bpe

    return train_bpe(["他说，双十一来了。One day in November", "双十一的夜里"], 270)


@given(st.integers(0, 10_000), st.sampled_from(["双十一", "", "one ", "\ufffd"]))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_of_bytes_are_whole_characters_and_never_taken_back(bpe, seed, prompt):
    torch.manual_seed(0)
    engine = Engine(GPT(tiny_shape(vocab_size=bpe.vocab_size)).init_weights().eval(), bpe)
    sampling = Sampling(temperature=5.0, top_p=1.0, max_new_tokens=30, seed=seed)
    assert "".join(engine.stream(prompt, sampling)) == engine.generate([prompt], sampling=sampling)[0][0].text


def test_the_engine_leaves_mode_and_random_state_as_they_were(gpt):
    gpt = GPT(gpt.shape.model_copy(update={"dropout": 0.5})).init_weights().train()
    gpt.blocks[0].eval()
    modes, state, numpy_state = [m.training for m in gpt.modules()], torch.get_rng_state(), np.random.get_state()[1].tolist()
    engine = Engine(gpt, tiny_tokenizer())
    dropped = engine.generate(PROMPTS, sampling=LIVELY)
    half_read = engine.stream("a", changed(LIVELY, min_new_tokens=20))
    next(half_read)
    next(half_read)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    half_read.close()
    assert [m.training for m in gpt.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == numpy_state
    assert dropped == Engine(gpt.eval(), tiny_tokenizer()).generate(PROMPTS, sampling=LIVELY)


def test_mode_is_restored_after_an_error(engine):
    engine.gpt.train()
    engine.gpt.blocks[-1].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.generate(["a"])
    assert engine.gpt.training


def test_generation_under_autocast_spoils_no_training_step_beside_it(engine):
    gpt = engine.gpt.train()
    with torch.autocast("cpu", torch.bfloat16):
        stories = engine.generate(PROMPTS, n=2, sampling=LIVELY)
        gpt(torch.ones(1, 4, dtype=torch.long)).float().sum().backward()
    assert len(stories) == len(PROMPTS)
    assert all(p.grad is not None for p in gpt.parameters())


def test_a_prompt_read_in_pieces_goes_on_as_one_read_at_once(engine, monkeypatch):
    want = engine.generate(PROMPTS, sampling=LIVELY)
    monkeypatch.setattr("cngpt.generation.reading.READ_AT_ONCE", 4)
    assert engine.generate(PROMPTS, sampling=LIVELY) == want


def test_fixed_shapes_write_the_texts_of_growing_ones(engine, monkeypatch):
    shapes = set()
    engine.gpt.register_forward_pre_hook(lambda module, args: shapes.add(tuple(args[0].shape)))
    sampling = changed(LIVELY, max_new_tokens=60, repetition_penalty=1.2)
    want = engine.generate(PROMPTS, sampling=sampling)
    assert len(shapes) > 5
    shapes.clear()
    monkeypatch.setattr("cngpt.generation.engine.batch_reader", fixed_shapes.FixedShapeReader)
    monkeypatch.setattr(fixed_shapes, "fetch", lambda logits: logits)
    assert engine.generate(PROMPTS, sampling=sampling) == want
    assert shapes <= {(len(PROMPTS), columns) for columns in (1, 8, 16, 24, 32)}


def test_no_prompts_and_no_samples_are_no_error(engine):
    assert engine.generate([]) == []
    assert engine.generate(["a"], n=0) == [[]]


def test_a_model_with_the_bundled_tokenizer_writes_chinese():
    hanzi = load_tokenizer("hanzi")
    torch.manual_seed(0)
    gpt = GPT(tiny_shape(vocab_size=hanzi.vocab_size, n_ctx=64)).init_weights().eval()
    (first, second), (other, _) = Engine(gpt, hanzi).generate(["双十一，Apple 发布了", "天气"], n=2, sampling=LIVELY)
    assert first.text.startswith("双十一，Apple发布了")
    assert first.text != second.text
    assert other.text.startswith("天气")
    assert first.text == hanzi.decode([*hanzi.encode(first.prompt), *first.tokens])
    assert not any(hanzi.token(id) in first.text for id in hanzi.control_ids)
