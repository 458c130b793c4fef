"""transformers, both ways: what we export it loads and continues as we do; what it saves we read; what cannot be is refused in a line."""

import ast
import json
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import cngpt
from cngpt import checkpoints
from cngpt.errors import UserError
from cngpt.generation import Engine, Sampling
from cngpt.interop.huggingface.architectures import REMOTE
from cngpt.interop.huggingface.card import is_chinese
from cngpt.interop.huggingface.convert import convert
from cngpt.interop.huggingface.export import export
from cngpt.model.gpt import GPT
from cngpt.model.shape import LAYOUTS, PreLNLayout
from cngpt.tokens import Tokenizer, load_tokenizer
from cngpt.tokens.train import train_bpe
from tests.conftest import ROOT, tiny_shape, tiny_tokenizer

PROMPTS = ["双十一", "今天天气不错。\n我们去Linux 7.0的公园", "[SEP]"]
TRICKY = [
    "",
    " ",
    "\n\n",
    "a\r\nb\tc",
    "[SEP]",
    "你好[CLS] [MASK]，[PAD]<T><S>[unused1]",
    "<|endoftext|><|pad|> [UNK]",
    "##好 ## #",
    "“引号”——‘单’…",
    "Hello, WORLD! 3.14 1,234 it's",
    "İıßΣς ﬁ Å é 한국 がガ 😀👩\u200d👧",
    "\u3000全角\u00a0\u2028\ufeff\u200b\x00\x07",
    "x" * 101,
    "长" * 300,
]
texts = st.lists(
    st.one_of(st.sampled_from([*TRICKY[:8], "中", "文", "，", "。", "ab", "9"]), st.text(max_size=5)), max_size=12
).map("".join)


@pytest.fixture(scope="session", autouse=True)
def modules_cache(tmp_path_factory):
    """Where transformers copies modelling files before it imports them: not into the home folder."""
    from transformers import dynamic_module_utils
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = str(tmp_path_factory.mktemp("modules"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", folder)
        patch.setattr(sys, "path", [*sys.path])
        yield


def facts(tokenizer: Tokenizer, **changes) -> Tokenizer:
    spec = json.loads(tokenizer.to_json())
    spec["decoder"]["cngpt"] |= changes
    return Tokenizer.from_json(json.dumps(spec))


@pytest.fixture(scope="session")
def tokenizers(shared):
    """By name, made once: hanzi, bpe, opened (begins with [CLS]), plain (ends with an entry that is no control), clue, bert, seed."""
    made = {}

    def get(name: str) -> Tokenizer:
        if name not in made:
            made[name] = build(name)
        return made[name]

    def build(name: str) -> Tokenizer:
        clue, bert = "golden/vocab/clue-vocab.txt", "golden/vocab/bert-base-chinese-vocab.txt"
        match name:
            case "hanzi":
                return load_tokenizer("hanzi")
            case "bpe":
                return train_bpe(["今天天气不错，我们去公园吧。" * 3, "the cat sat on the mat. " * 3] * 5, 320)
            case "tiny":
                return tiny_tokenizer()
            case "opened":
                return facts(tiny_tokenizer(), opening="[CLS]")
            case "plain":
                entries = ["[PAD]", "[UNK]", "<T>", *"今天天气不错我们去公园双十一。"]
                return Tokenizer.from_vocab(list(dict.fromkeys(entries)), name="plain", lowercase=False, newline=False, eos="<T>")
            case "clue":
                return load_tokenizer("clue", vocab=shared(clue))
            case "bert":
                return load_tokenizer("bert", vocab=shared(bert), fold_quotes=True)
            case "seed":
                return load_tokenizer("bert", vocab=shared(bert), manner="gpt2ml", eos="。")

    return get


def random_gpt(block: str, vocab_size: int, **changes) -> GPT:
    torch.manual_seed(0)
    gpt = GPT(tiny_shape(block, vocab_size=vocab_size, n_ctx=64, **changes)).init_weights()
    with torch.no_grad():
        for name, p in gpt.named_parameters():
            p += 0.2 * torch.randn_like(p)
            p *= (
                4 if name == "pos.weight" or "attn.qkv.weight" in name else 1
            )  # what stands where matters, else one token repeats
        gpt.tok.weight[vocab_size:] = 0
    return gpt.eval()


@pytest.fixture(scope="session")
def exported(tokenizers, tmp_path_factory):
    """(block, tokenizer's name) -> (ours, our tokenizer, the exported folder, notes), made once; two rows more than tokens."""
    made = {}

    def get(block: str, name: str):
        if (block, name) not in made:
            folder = tmp_path_factory.mktemp(f"{block}_{name}")
            tokenizer = tokenizers(name)
            gpt = random_gpt(block, tokenizer.vocab_size + 2, dropout=0.1)
            with torch.no_grad():  # a token that may not come would win
                best = gpt(torch.tensor([[tokenizer.eos_id, 7, 8]]))[0, -1].argmax()
                gpt.tok.weight[[tokenizer.control_ids[-1], tokenizer.vocab_size + 1]] = 1.5 * gpt.tok.weight[best]
            checkpoints.save(folder / "model", gpt, tokenizer, step=1234)
            notes = export(folder / "model", folder / "theirs")
            made[block, name] = gpt, tokenizer, folder / "theirs", notes
        return made[block, name]

    return get


def load(folder: Path):
    """(model, tokenizer) as transformers loads them, without our code but for the block `gpt2ml`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trust = (folder / REMOTE.name).exists()
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=trust)
    return model, AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)


EACH = pytest.mark.parametrize(
    ("block", "name"),
    [
        ("preln", "hanzi"),
        ("preln", "bpe"),
        ("preln", "clue"),
        ("preln", "opened"),
        ("preln", "plain"),
        ("gpt2ml", "hanzi"),
        ("gpt2ml", "seed"),
    ],
)


# out


@EACH
def test_transformers_computes_the_same_logits(exported, block, name):
    gpt, _, folder, _ = exported(block, name)
    model, _ = load(folder)
    ids = torch.randint(gpt.shape.vocab_size, (3, 40))
    with torch.no_grad():
        assert_close(model(ids).logits, gpt(ids), atol=1e-5, rtol=1e-5)
    assert type(model).__name__ == ("GPT2LMHeadModel" if block == "preln" else "Gpt2mlForCausalLM")
    assert model.num_parameters() == gpt.num_parameters()


@EACH
def test_greedy_texts_are_the_same_alone_and_in_a_padded_batch(exported, block, name):
    gpt, ours, folder, _ = exported(block, name)
    model, theirs = load(folder)
    how = {"do_sample": False, "max_new_tokens": 24}
    want = [story.tokens for (story,) in Engine(gpt, ours).generate(PROMPTS, sampling=Sampling(temperature=0, max_new_tokens=24))]
    assert len({token for tokens in want for token in tokens}) > 6

    def continuation(ids: torch.Tensor, prompt: int) -> list[int]:
        ids = ids[prompt:].tolist()
        end = ids.index(ours.eos_id) if ours.eos_id in ids else len(ids)
        return ids[: end + ours.eos_is_text]

    for prompt, tokens in zip(PROMPTS, want, strict=True):
        inputs = theirs(prompt, return_tensors="pt")
        assert continuation(model.generate(**inputs, **how)[0], inputs["input_ids"].shape[1]) == tokens
    batch = theirs(PROMPTS, return_tensors="pt", padding=True)
    rows = model.generate(**batch, **how)
    assert [continuation(row, batch["input_ids"].shape[1]) for row in rows] == want


def test_without_the_ban_a_control_token_would_have_come(exported):
    gpt, ours, folder, _ = exported("preln", "hanzi")
    model, theirs = load(folder)
    inputs = theirs(PROMPTS, return_tensors="pt", padding=True)
    free = model.generate(**inputs, do_sample=False, max_new_tokens=24, suppress_tokens=None)
    never = {*ours.control_ids, *range(ours.vocab_size, gpt.shape.vocab_size)} - {ours.pad_id}
    assert never & {*free[:, inputs["input_ids"].shape[1] :].flatten().tolist()}


@pytest.mark.parametrize("name", ["hanzi", "bpe", "clue", "bert", "opened", "plain"])
def test_transformers_gives_our_ids_and_a_spelled_control_token_is_text(exported, tokenizers, name):
    ours = tokenizers(name)
    _, theirs = load(exported("preln", name)[2])
    for text in [*TRICKY, *PROMPTS]:
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text).tolist(), ascii(text)
        assert theirs(text)["input_ids"] == [ours.opening_id, *ours.encode(text).tolist()]
    assert theirs(TRICKY, add_special_tokens=False)["input_ids"] == [ids.tolist() for ids in ours.encode_batch(TRICKY)]
    assert set(theirs("你好")) == {"input_ids", "attention_mask"}  # GPT-2 would add token_type_ids to the text


@pytest.mark.parametrize("name", ["hanzi", "bpe", "clue"])
def test_transformers_gives_our_ids_for_any_text(exported, tokenizers, name):
    ours, (_, theirs) = tokenizers(name), load(exported("preln", name)[2])

    @settings(max_examples=150, deadline=None)
    @given(text=texts)
    def same(text):
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text).tolist()

    same()
    with pytest.raises((TypeError, UnicodeEncodeError)):
        theirs("\ud800")


def test_the_seeds_manner_has_the_ids_of_the_golden_strings_and_says_where_it_may_not(exported, shared):
    _, ours, folder, notes = exported("gpt2ml", "seed")
    _, theirs = load(folder)
    items = json.loads(shared("golden/tokenizer.json").read_text(encoding="utf-8"))["items"]
    different = [i["text"] for i in items if theirs(i["text"])["input_ids"] != i["bert-base-chinese"]["ids"]]
    assert (len(items), different) == (70, [])  # and nothing stands before a text
    assert theirs("ΟΔΟΣ")["input_ids"] != ours.encode("ΟΔΟΣ").tolist()
    assert any("gpt2-ml's own rules" in note for note in notes) and "gpt2-ml's own rules" in (folder / "README.md").read_text()


def test_chinese_is_decoded_without_spaces_and_english_with_them(exported):
    _, ours, folder, _ = exported("preln", "hanzi")
    _, theirs = load(folder)
    for text in (
        "今天天气不错，我们去公园吧！\n“第二天”，他说：好。",
        "在Linux 7.0上用hello world（第3章）",
        "The cat sat on the mat, didn't it? Yes (really), 3.14 or 1,234 at 19:00.",
        "",
    ):
        ids = theirs(text)["input_ids"]
        assert theirs.decode(ids, skip_special_tokens=True) == text == ours.decode(ids)
    assert theirs.decode(ours.encode("##好unhappy").tolist()[-2:]).count("#") == 0


def test_the_pipeline_puts_the_opening_token_by_default(exported):
    from transformers import pipeline

    gpt, ours, folder, _ = exported("preln", "hanzi")
    model, theirs = load(folder)
    write = pipeline("text-generation", model=model, tokenizer=theirs)
    (story,) = write("双十一", do_sample=False, max_new_tokens=12)
    assert story["generated_text"] == cngpt.generate(gpt, ours, ["双十一"], temperature=0, max_new_tokens=12)[0]
    (middle,) = write("双十一", do_sample=False, max_new_tokens=12, add_special_tokens=False)
    assert middle != story


def test_padding_at_the_left_changes_no_logits_and_gradients_flow(exported):
    gpt, _, folder, _ = exported("gpt2ml", "hanzi")
    model, _ = load(folder)
    ids = torch.randint(gpt.shape.vocab_size, (2, 10))
    padded = torch.cat([torch.full((2, 4), 3), ids], dim=1)
    mask = (torch.arange(14) >= 4).long().expand(2, -1)
    with torch.no_grad():
        assert_close(model(padded, attention_mask=mask).logits[:, 4:], gpt(ids), atol=1e-5, rtol=1e-5)
        assert_close(model(ids, logits_to_keep=2).logits, gpt(ids)[:, -2:], atol=1e-5, rtol=1e-5)
    loss = model(ids, labels=ids).loss
    want = torch.nn.functional.cross_entropy(gpt(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert_close(loss, want, atol=1e-5, rtol=1e-5)
    loss.backward()
    want.backward()
    assert_close(model.tok.weight.grad, gpt.tok.weight.grad[: gpt.shape.vocab_size], atol=1e-5, rtol=1e-4)
    gpt.zero_grad()


@pytest.mark.parametrize(
    "how", [{"use_cache": False}, {"cache_implementation": "static"}, {"num_beams": 1, "output_logits": True}]
)
def test_every_cache_of_transformers_gives_the_same_text(exported, how):
    _, _, folder, _ = exported("gpt2ml", "hanzi")
    model, theirs = load(folder)
    inputs = theirs(PROMPTS, return_tensors="pt", padding=True)
    once = model.generate(**inputs, do_sample=False, max_new_tokens=12)
    assert torch.equal(model.generate(**inputs, do_sample=False, max_new_tokens=12, **how), once)
    assert model.generate(**inputs, do_sample=False, max_new_tokens=5, num_beams=3).shape[0] == 3


def test_the_weights_are_there_once_in_their_type_and_without_padding(tmp_path):
    from safetensors import safe_open

    gpt = random_gpt("preln", 64).to(torch.bfloat16)
    checkpoints.save(tmp_path / "model", gpt, tiny_tokenizer())
    export(tmp_path / "model", tmp_path / "theirs")
    with safe_open(tmp_path / "theirs" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"} and "lm_head.weight" not in file.keys()  # noqa: SIM118
        assert file.get_slice("transformer.wte.weight").get_shape() == [64, 16]
    model, _ = load(tmp_path / "theirs")
    assert model.dtype == torch.bfloat16 and model.lm_head.weight is model.transformer.wte.weight
    convert(tmp_path / "theirs", tmp_path / "back")
    assert (tmp_path / "back/model.safetensors").read_bytes() == (tmp_path / "model/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("ours", "theirs", "note"),
    [
        ({}, {"do_sample": True, "temperature": 0.9, "top_k": 0, "top_p": 0.9, "max_length": 64}, ""),
        ({"max_new_tokens": 20, "min_new_tokens": 3}, {"max_new_tokens": 20, "min_new_tokens": 3}, ""),
        ({"temperature": 0.0, "repetition_penalty": 1.2}, {"do_sample": False, "repetition_penalty": 1.2}, "opening token"),
        ({"top_k": 40, "temperature": 1.5, "top_p": 1.0}, {"do_sample": True, "top_k": 40, "temperature": 1.5, "top_p": 1.0}, ""),
        ({"compat": "gpt2ml", "min_len": 9}, {"do_sample": True}, "compat=gpt2ml, min_len=9"),
        # as models of before `compat` have it
        ({"nucleus": "gpt2ml", "stop": "gpt2ml", "min_len": 9}, {"do_sample": True}, "compat=gpt2ml, min_len=9"),
    ],
)
def test_sampling_is_mapped_and_what_transformers_lacks_is_noted(tmp_path, ours, theirs, note):
    from transformers import GenerationConfig

    checkpoints.save(tmp_path / "model", random_gpt("preln", 64), tiny_tokenizer(), ours)
    notes = export(tmp_path / "model", tmp_path / "theirs")
    config = GenerationConfig.from_pretrained(tmp_path / "theirs")
    config.validate(strict=True)
    assert {key: getattr(config, key) for key in theirs} == theirs
    assert note in " ".join(notes) and bool(notes) == bool(note)
    assert note in (tmp_path / "theirs/README.md").read_text()
    convert(tmp_path / "theirs", tmp_path / "back")
    back = Sampling(**checkpoints.header(tmp_path / "back").generation)
    same = {k: v for k, v in ours.items() if k not in ("nucleus", "stop", "compat", "min_len")}
    assert {key: getattr(back, key) for key in same} == same


@pytest.mark.parametrize("block", ["preln", "gpt2ml"])
def test_the_card_tells_what_it_is_and_its_code_runs(exported, block, monkeypatch, capsys):
    gpt, _, folder, notes = exported(block, "hanzi")
    card = (folder / "README.md").read_text(encoding="utf-8")
    header = card.split("---\n")[1]
    assert "language: zh" in header and "library_name: transformers" in header and "pipeline_tag: text-generation" in header
    for fact in (f"{gpt.num_parameters():,}", "1,234 steps", "`hanzi`", f"block `{block}`", "`[SEP]`"):
        assert fact in card
    assert any("trust_remote_code=True" in note for note in notes) == ("trust_remote_code=True" in card) == (block == "gpt2ml")
    monkeypatch.chdir(folder.parent)
    code = card.split("```python\n")[1].split("```")[0]
    assert sum(bool(line) for line in code.splitlines()) <= 5
    exec(code, {})
    assert capsys.readouterr().out.startswith("双十一")


def test_the_card_claims_no_language_steps_or_training_that_nobody_knows(tmp_path):
    english = train_bpe(["the cat sat on the mat, and the dog ran to the river. " * 3] * 5, 300)
    checkpoints.save(tmp_path / "model", random_gpt("preln", english.vocab_size), english)
    export(tmp_path / "model", tmp_path / "theirs")
    card = (tmp_path / "theirs/README.md").read_text(encoding="utf-8")
    assert not any(word in card for word in ("language:", "Chinese GPT", "- chinese", "rained with cngpt", "trained for", "双"))
    assert "A GPT-2, exported with cngpt" in card and f"`bpe`, {english.vocab_size} entries |\n\n```python" in card


@pytest.mark.parametrize(("name", "chinese"), [("hanzi", True), ("clue", True), ("seed", True), ("bpe", False)])
def test_a_vocabulary_is_chinese_where_most_of_its_words_are(tokenizers, name, chinese):
    assert is_chinese(tokenizers(name)) == chinese


def test_export_needs_no_transformers(tmp_path, monkeypatch):
    checkpoints.save(tmp_path / "model", random_gpt("gpt2ml", 64), tiny_tokenizer())
    monkeypatch.setitem(sys.modules, "transformers", None)
    export(tmp_path / "model", tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "back")
    assert (tmp_path / "theirs" / REMOTE.name).read_text() == REMOTE.read_text()


def test_the_modelling_file_stands_alone_and_is_in_the_package():
    imported = {node.module for node in ast.walk(ast.parse(REMOTE.read_text())) if isinstance(node, ast.ImportFrom)}
    assert {module.split(".")[0] for module in imported} == {"torch", "transformers"}
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["cngpt"]
    assert any(REMOTE in (ROOT / "cngpt").glob(pattern) for pattern in patterns)


@pytest.mark.parametrize("field", ["block", "model_type"])
def test_a_block_that_transformers_has_no_name_for_is_neither_exported_nor_read(tmp_path, monkeypatch, field):
    """A block that the rest of cngpt knows: nothing may take it for a GPT-2."""
    monkeypatch.setitem(LAYOUTS, "toy", PreLNLayout)
    model, theirs = tmp_path / "model", tmp_path / "theirs"
    checkpoints.save(model, random_gpt("preln", 64), tiny_tokenizer())
    if field == "model_type":
        export(model, theirs)
        edit(theirs / "config.json", model_type="toy")
        refuses(theirs, "model_type=toy", "only gpt2 with GPT2LMHeadModel can be read")
        return
    edit(model / "config.json", shape=checkpoints.header(model).shape | {"block": "toy"})
    with pytest.raises(UserError, match=r"model: a model of block=toy cannot be exported; one of preln, gpt2ml can$"):
        export(model, theirs)
    assert not theirs.exists()


def test_export_destroys_nothing(tmp_path, monkeypatch):
    checkpoints.save(tmp_path / "run/model", random_gpt("preln", 64), tiny_tokenizer())
    source, out = tmp_path / "run/model", tmp_path / "out"

    def refuses(*words, **how):
        with pytest.raises(UserError) as caught:
            export(source, **how)
        assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)

    refuses("give another folder", out=source, overwrite=True)
    refuses("give another folder", out=tmp_path / "run", overwrite=True)
    out.mkdir()
    export(source, out)  # an empty folder is no loss
    refuses("overwrite=true", out=out)
    before = (out / "config.json").stat().st_mtime_ns
    export(source, out, overwrite=True)
    assert (out / "config.json").stat().st_mtime_ns != before
    shutil.copytree(source, tmp_path / "other")
    refuses("no model for transformers", out=tmp_path / "other", overwrite=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    refuses("no space left on the disk of", out=tmp_path / "full")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "out", "run"]


# and back


@pytest.mark.parametrize("stock", [False, True], ids=["directly", "saved again by transformers"])
@EACH
def test_a_round_trip_gives_the_same_weights_and_tokenizer(exported, tmp_path, block, name, stock):
    _, ours, folder, _ = exported(block, name)
    if stock:
        for half in load(folder):
            half.save_pretrained(tmp_path / "theirs")
        assert (tmp_path / "theirs" / REMOTE.name).exists() == (block == "gpt2ml")
        folder = tmp_path / "theirs"
    notes = convert(folder, tmp_path / "back")
    assert not any("tokenizer" in note for note in notes)
    assert (tmp_path / "back/model.safetensors").read_bytes() == (
        exported(block, name)[2].parent / "model/model.safetensors"
    ).read_bytes()
    gpt, back = checkpoints.load(tmp_path / "back")
    assert gpt.shape == exported(block, name)[0].shape
    for fact in ("fingerprint", "name", "manner", "eos_id", "opening_id", "pad_id", "newline_id", "control_ids", "eos_is_text"):
        assert getattr(back, fact) == getattr(ours, fact), fact
    assert back.decode(back.encode(TRICKY[9])) == ours.decode(ours.encode(TRICKY[9]))


def test_a_tokenizer_that_was_changed_since_its_export_is_said(bad):
    path = bad / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"lowercase": false', '"lowercase": true'), encoding="utf-8")
    assert "not as it was exported" in " ".join(convert(bad, bad.parent / "out"))


def test_an_exported_tokenizer_alone_is_ours_too(exported):
    for name in ("hanzi", "bpe", "opened"):
        _, ours, folder, _ = exported("preln", name)
        alone = load_tokenizer(folder / "tokenizer.json")
        assert (alone.fingerprint, alone.opening_id, alone.name) == (ours.fingerprint, ours.opening_id, ours.name)


def save_theirs(folder: Path, vocab_size: int, **changes):
    """A GPT2LMHeadModel of transformers, saved by itself."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    size = {"vocab_size": vocab_size, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**size, **changes)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn_like(p)
    model.save_pretrained(folder)
    return model


def agree(model, folder: Path) -> Tokenizer:
    gpt, tokenizer = checkpoints.load(folder)
    ids = torch.randint(gpt.shape.vocab_size, (2, 20))
    with torch.no_grad():
        assert_close(gpt(ids), model(ids).logits, atol=1e-5, rtol=1e-5)
    return tokenizer


@pytest.fixture
def uer(shared, tmp_path):
    """(model, folder, BertTokenizer): as UER-py's Chinese GPT-2s lie on the hub, pytorch_model.bin, vocab.txt, tokenizer_config.json."""
    from transformers import BertTokenizer

    vocab = shared("golden/vocab/clue-vocab.txt")
    model, folder = save_theirs(tmp_path / "uer", 8021), tmp_path / "uer"
    shutil.copy(vocab, folder / "vocab.txt")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false, "max_len": 1024, "tokenizer_class": "BertTokenizer"}')
    (folder / "generation_config.json").unlink()
    return model, folder, BertTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("files", ["vocab.txt", "tokenizer.json", "vocab="])
def test_a_gpt2_with_berts_vocabulary_is_read_as_its_authors_used_it(uer, tmp_path, files):
    model, folder, bert = uer
    vocab = None
    if files != "vocab.txt":
        (folder / "vocab.txt").rename(tmp_path / "vocab.txt")
    if files == "tokenizer.json":
        bert.save_pretrained(folder)
    if files == "vocab=":
        vocab = tmp_path / "vocab.txt"
    notes = convert(folder, tmp_path / "out", vocab=vocab)
    tokenizer = agree(model, tmp_path / "out")
    for text in (*PROMPTS[:2], TRICKY[9], "Hello\nworld"):
        assert tokenizer.encode(text).tolist() == bert(text, add_special_tokens=False)["input_ids"]
    assert (tokenizer.token(tokenizer.opening_id), tokenizer.token(tokenizer.eos_id)) == ("[CLS]", "[SEP]")
    assert tokenizer.newline_id is None and any("[CLS]" in note and "UER" in note for note in notes)
    assert checkpoints.header(tmp_path / "out").generation == {}

    export(tmp_path / "out", tmp_path / "again")
    _, theirs = load(tmp_path / "again")
    assert theirs("你好")["input_ids"] == bert("你好")["input_ids"][:-1]  # [CLS] 你 好, without [SEP]


def without_prefix(state: dict) -> dict:
    return {name.removeprefix("transformer."): tensor for name, tensor in state.items()}


@pytest.mark.parametrize("kind", ["bin", "old bin", "sharded safetensors", "sharded bin", "no prefix", "buffers and a tied head"])
def test_weights_are_read_however_they_were_saved(uer, tmp_path, kind):
    from safetensors.torch import save_file

    model, folder, _ = uer
    weights, state = folder / "model.safetensors", model.state_dict()
    state.pop("lm_head.weight")
    weights.unlink()
    match kind:
        case "bin":
            torch.save(state | {"lm_head.weight": state["transformer.wte.weight"]}, folder / "pytorch_model.bin")
        case "old bin":
            torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
        case "sharded safetensors":
            model.save_pretrained(folder, max_shard_size="100kB")
            assert len(list(folder.glob("*.safetensors"))) > 1
        case "sharded bin":
            names = [f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
            halves = {name: dict(list(state.items())[n::2]) for n, name in enumerate(names)}
            for name, half in halves.items():
                torch.save(half, folder / name)
            index = {"metadata": {}, "weight_map": {key: name for name, half in halves.items() for key in half}}
            (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        case "no prefix":
            save_file(without_prefix(state), weights)
        case "buffers and a tied head":
            masks = {f"transformer.h.{n}.attn.bias": torch.ones(1, 1, 32, 32, dtype=torch.uint8) for n in range(2)}
            masks |= {f"transformer.h.{n}.attn.masked_bias": torch.tensor(-1e4) for n in range(2)}
            save_file(state | masks | {"lm_head.weight": state["transformer.wte.weight"].clone()}, weights)
    convert(folder, tmp_path / "out")
    agree(model, tmp_path / "out")


@pytest.mark.parametrize("files", ["vocab.json", "tokenizer.json"])
def test_openais_byte_level_tokenizer_is_read(tokenizers, tmp_path, files):
    from transformers import GPT2Tokenizer

    folder = tmp_path / "gpt2"
    spec = json.loads(tokenizers("bpe").to_json())["model"]
    vocab = {token: id for token, id in spec["vocab"].items() if token != "<|pad|>"} | {"!pad": 0}
    model = save_theirs(folder, len(vocab) + 3, activation_function="gelu_pytorch_tanh", resid_pdrop=0.25)
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in spec["merges"]) + "\n")
    theirs = GPT2Tokenizer.from_pretrained(folder)
    if files == "tokenizer.json":
        theirs.save_pretrained(folder)
        (folder / "vocab.json").unlink()
    notes = convert(folder, tmp_path / "out")
    tokenizer = agree(model, tmp_path / "out")
    for text in (*PROMPTS, "the cat\nsat  on 今天天气不错 it's"):
        assert tokenizer.encode(text).tolist() == theirs(text)["input_ids"]
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("<|endoftext|>").tolist() != [tokenizer.eos_id]
    assert tokenizer.token(tokenizer.eos_id) == tokenizer.token(tokenizer.opening_id) == "<|endoftext|>"
    assert checkpoints.header(tmp_path / "out").shape["dropout"] == 0.25 and any("resid_pdrop=0.25" in note for note in notes)


def test_sampling_of_a_foreign_model_is_taken_as_transformers_would(uer, tmp_path):
    _, folder, _ = uer
    for theirs, ours in (
        ({"do_sample": True}, {"temperature": 1.0, "top_k": 50, "top_p": 1.0}),
        (
            {"do_sample": True, "top_k": 0, "top_p": 0.8, "max_new_tokens": 9},
            {"temperature": 1.0, "top_k": 0, "top_p": 0.8, "max_new_tokens": 9},
        ),
        ({"top_p": 0.8, "repetition_penalty": 1.5}, {"temperature": 0.0, "repetition_penalty": 1.5}),
        ({"bos_token_id": 1}, {}),
        ({"max_length": 30, "num_beams": 4}, {"max_new_tokens": 30}),
    ):
        (folder / "generation_config.json").write_text(json.dumps(theirs))
        notes = convert(folder, tmp_path / "out", overwrite=True)
        assert checkpoints.header(tmp_path / "out").generation == ours
    assert any("num_beams=4" in note for note in notes) and any("max_length=30" in note for note in notes)


# what cannot be


@pytest.fixture(scope="session")
def good(exported, tmp_path_factory) -> Path:
    return exported("preln", "tiny")[2]


@pytest.fixture
def bad(good, tmp_path) -> Path:
    """An export, to be spoilt."""
    shutil.copytree(good, tmp_path / "bad")
    return tmp_path / "bad"


def refuses(folder: Path, *words: str, **how) -> None:
    with pytest.raises(UserError) as caught:
        convert(folder, folder.parent / "out", **how)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message
    assert not (folder.parent / "out").exists()


def edit(path: Path, **changes) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value != "absent"}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "llama"),
        ("architectures", ["GPT2DoubleHeadsModel"]),
        ("activation_function", "gelu"),
        ("n_inner", 48),
        ("layer_norm_epsilon", 1e-6),
        ("scale_attn_by_inverse_layer_idx", True),
        ("scale_attn_weights", False),
        ("add_cross_attention", True),
        ("quantization_config", {"load_in_8bit": True}),
        ("n_head", 3),
        ("n_head", "2"),
        ("n_layer", 3),
        ("n_layer", 1 << 30),
        ("n_positions", 32),
        ("n_embd", 32),
        ("vocab_size", 65),
        ("vocab_size", 10),
        ("resid_pdrop", [0.1]),
        ("resid_pdrop", 2),
        ("initializer_range", None),
    ],
)
def test_a_model_that_our_block_does_not_compute_is_refused(bad, key, value):
    edit(bad / "config.json", **{key: value})
    refuses(bad)


def test_the_end_of_a_text_can_be_given(bad, tokenizers, tmp_path):
    out = tmp_path / "given"
    convert(bad, out, eos="。")
    assert checkpoints.load(out)[1].token(checkpoints.load(out)[1].eos_id) == "。"
    refuses(bad, "eos=<end>: is no token of", eos="<end>")
    (bad / "tokenizer_config.json").unlink()
    (bad / "tokenizer.json").unlink()
    (bad / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n<end>\na\n")
    refuses(bad, "vocab.txt has no [SEP]", "eos=<token>")
    convert(bad, out, eos="<end>", overwrite=True)
    assert checkpoints.load(out)[1].eos_id == 3
    refuses(bad, "eos=[SEP]: is no token of", eos="[SEP]")
    (bad / "vocab.txt").unlink()
    spec = json.loads(tokenizers("bpe").to_json())["model"]
    vocab = {token: id for token, id in spec["vocab"].items() if not token.startswith("<|")}
    (bad / "vocab.json").write_text(json.dumps({token: id for id, token in enumerate([*vocab][:256])}))
    (bad / "merges.txt").write_text("#version: 0.2\n")
    edit(bad / "config.json", vocab_size=300)
    refuses(bad, "vocab.json has no [SEP], no <|endoftext|>", "eos=<token>")


def test_what_is_no_model_folder_is_refused_with_the_remedy(bad, tmp_path):
    refuses(tmp_path / "uer/gpt2-chinese", "there is no such folder")
    with pytest.raises(UserError, match="hf download uer/gpt2-chinese-cluecorpussmall --local-dir"):
        convert("uer/gpt2-chinese-cluecorpussmall", tmp_path / "out")
    refuses(bad / "config.json", "is a file")
    refuses(bad, "vocab=nowhere.txt", vocab="nowhere.txt")
    checkpoints.save(tmp_path / "ours", random_gpt("preln", 64), tiny_tokenizer())
    refuses(tmp_path / "ours", "model directory of cngpt already")
    with pytest.raises(UserError, match="give another folder"):
        convert(bad, bad, overwrite=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes").touch()
    for overwrite, word in ((False, "overwrite=true"), (True, "no model directory")):
        with pytest.raises(UserError, match=word):
            convert(bad, tmp_path / "out", overwrite=overwrite)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(bad, name):
    (bad / name).unlink()
    refuses(bad, name)


def spoil_weights(folder: Path, change) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)


def test_tensors_that_do_not_fit_are_named(bad, good):
    def spoil(change) -> Path:
        shutil.copy(good / "model.safetensors", bad)
        spoil_weights(bad, change)
        return bad

    refuses(spoil(lambda s: s.pop("transformer.h.1.ln_2.bias")), "h.1.ln_2.bias is absent")
    refuses(spoil(lambda s: s.update({"score.weight": torch.zeros(2, 16)})), "score.weight is 2 x 16", "absent")
    turned = lambda s: s.update({"transformer.h.0.mlp.c_fc.weight": torch.zeros(64, 16)})  # noqa: E731
    refuses(spoil(turned), "h.0.mlp.c_fc.weight is 64 x 16", "wants 16 x 64")
    refuses(spoil(lambda s: s.update({"lm_head.weight": torch.ones(66, 16)})), "lm_head.weight is not the token embedding")
    eights = lambda s: s.update({"transformer.wpe.weight": torch.zeros(64, 16, dtype=torch.int8)})  # noqa: E731
    refuses(spoil(eights), "wpe.weight is of int8", "quantized")


class Evil:
    def __reduce__(self):
        return (print, ("run!",))


def test_a_pickle_that_would_run_something_is_refused(bad, capsys):
    (bad / "model.safetensors").unlink()
    torch.save({"transformer.wte.weight": Evil()}, bad / "pytorch_model.bin")
    refuses(bad, "pytorch_model.bin")
    torch.save([1, 2], bad / "pytorch_model.bin")
    refuses(bad, "no plain state_dict")
    (bad / "pytorch_model.bin").unlink()
    for weights, words in (
        ({"wte.weight": "../secret.bin"}, "damaged"),
        ({"wte.weight": "a.bin"}, "a.bin is missing"),
        (7, "damaged"),
    ):
        (bad / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weights}))
        refuses(bad, words)
    assert "run!" not in capsys.readouterr().out


def test_tokenizers_of_other_kinds_are_refused(bad):
    (bad / "tokenizer_config.json").unlink()
    path = bad / "tokenizer.json"
    spec = json.loads(path.read_text())
    unigram = {"type": "Unigram", "unk_id": 0, "vocab": [["[UNK]", 0.0]]}
    path.write_text(json.dumps(spec | {"model": unigram, "decoder": None}))
    refuses(bad, "Unigram")
    path.write_text(json.dumps(spec | {"model": 3, "decoder": None}))
    refuses(bad, "tokenizer.json")
    path.unlink()
    (bad / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\na\n")
    refuses(bad, "[SEP]")
    (bad / "tokenizer_config.json").write_text('{"tokenizer_class": "JumanTokenizer"}')
    refuses(bad, "JumanTokenizer")
    (bad / "vocab.txt").rename(bad / "vocab.json")
    refuses(bad, "vocab.json")
    (bad / "vocab.json").write_text('{"a": 0, "<|endoftext|>": 1}')
    refuses(bad, "merges.txt")
    (bad / "merges.txt").write_text("#version: 0.2\nx y\n")
    refuses(bad, "merges.txt")


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "pytorch_model.bin",
    ],
)
def test_a_file_that_was_cut_off_is_noticed(bad, name):
    path = bad / name
    if name == "pytorch_model.bin":
        from safetensors.torch import load_file

        torch.save(load_file(bad / "model.safetensors"), path)
        (bad / "model.safetensors").unlink()
    whole = path.read_bytes().rstrip()
    for part in (0.0, 0.001, 0.3, 0.9, 1.0):
        path.write_bytes(whole[: min(int(len(whole) * part), len(whole) - 1)])
        refuses(bad, name)


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "model.safetensors",
        "pytorch_model.bin",
    ],
)
def test_a_flipped_bit_is_refused_in_one_line_or_harmless_to_the_reader(bad, name):
    path, out = bad / name, bad.parent / "out"
    if name == "pytorch_model.bin":
        from safetensors.torch import load_file

        torch.save(load_file(bad / "model.safetensors"), path)
        (bad / "model.safetensors").unlink()
    whole = path.read_bytes()
    refused = 0
    for n in range(40):
        at = (
            (n * 7919 + 13) % len(whole) if name != "model.safetensors" else n * 61 % 2000
        )  # its header: the rest has no checksum
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << n % 8)]) + whole[at + 1 :])
        try:
            convert(bad, out, overwrite=True)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused >= (30 if name == "pytorch_model.bin" else 1)
