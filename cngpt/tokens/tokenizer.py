"""The Tokenizer: text to ids and back, kept in one Hugging Face `tokenizer.json`.

The file is what the `tokenizers` library writes and reads. It has no fields for four facts of ours, so they stand in its decoder,
where that library ignores them: `"cngpt": {"name", "manner", "eos", "opening"}`. The line end is an added token "\\n", folded
quotes are Replace steps of the normalizer, so the file gives the same ids in `tokenizers`.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cngpt.errors import UserError
from cngpt.files import write_text
from cngpt.tokens.detokenize import detokenize
from cngpt.tokens.google import WORD_LIMIT, GoogleRules
from cngpt.tokens.wordpiece import FastWordPiece, HuggingFaceRules

MANNERS = ("hf", "gpt2ml")
NAMED_CONTROLS = {"pad": ("[PAD]", "<|pad|>", "<pad>"), "unk": ("[UNK]", "<unk>"), "eos": ("[SEP]", "<|endoftext|>", "</s>")}
# the last alternative: entries that were white space
CONTROL = re.compile(r"\[(PAD|UNK|CLS|SEP|MASK|unused\d+)\]|<[^<>\s]+>|\n|(##)?")
FOLDS = {"“": '"', "”": '"', "‘": "'", "’": "'", "—": "-", "…": "⋯"}  # to what Google's Chinese vocabulary has
UNKNOWN = "□"  # what decode shows for [UNK]: Chinese print puts this sign for a character that it lacks
SURROGATE = re.compile("[\ud800-\udfff]")


class Tokenizer:
    """Text <-> ids.

    `manner` is "hf" (ids as `tokenizers` gives them) or "gpt2ml" (as the code of gpt2-ml gave them). `control_ids` are never to be
    sampled; `eos_id` and `newline_id` are not among them. `unk_id` and `newline_id` are None where the vocabulary has none.
    `opening_id` is the token before each document in training: EOS, which closed the document before; None for the manner "gpt2ml",
    whose rows began with the text itself. The fact "opening", a token or null, overrides that.
    `surrogates` counts the lone surrogates that were replaced by U+FFFD so far.
    """

    def __init__(self, spec: dict[str, Any]):
        """`spec`: the content of a tokenizer.json. Raises UserError where it cannot be used."""
        self._spec, self._facts = spec, (spec.get("decoder") or {}).get("cngpt", {})
        facts = self._facts
        self.surrogates = 0
        self.name: str = facts.get("name", spec["model"]["type"].lower())
        self.manner: str = facts.get("manner", "hf")
        if self.manner not in MANNERS:
            raise UserError(f"manner={self.manner} of a tokenizer is unknown; there are {', '.join(MANNERS)}")

        self._ids: dict[str, int] = dict(spec["model"]["vocab"])
        added = spec.get("added_tokens") or []
        self._ids.update((token["content"], token["id"]) for token in added)
        if not self._ids:
            raise UserError(f"the vocabulary of tokenizer {self.name} is empty; give one with a token a line")
        self._tokens = {id: token for token, id in self._ids.items()}
        self.vocab_size = max(self._tokens) + 1

        byte_level = spec["model"]["type"] == "BPE"
        self.eos_id: int = self._control_id("eos", facts.get("eos"))
        self.unk_id: int | None = None if byte_level else self._control_id("unk", spec["model"].get("unk_token"))
        self.pad_id: int = self._control_id("pad", None, default=self.eos_id)
        # byte-level BPE writes \n as Ċ
        line_end = "Ċ" if byte_level else "\n" if any(t["content"] == "\n" for t in added) else ""
        self.newline_id: int | None = self._ids.get(line_end) if line_end else None

        special = {token["id"] for token in added if token["special"]}
        if not byte_level:
            special |= {id for id, token in self._tokens.items() if CONTROL.fullmatch(token)}
        self.control_ids = tuple(sorted((special | {self.pad_id, self.unk_id}) - {self.eos_id, self.newline_id, None}))
        # true for gpt2-ml's 。, which decode shows
        self.eos_is_text: bool = not byte_level and self.eos_id not in special
        self._left_out_by_decode = {*self.control_ids, *([] if self.eos_is_text else [self.eos_id])} - {self.unk_id}
        if "opening" in facts:
            self.opening_id: int | None = None if facts["opening"] is None else self._control_id("opening", facts["opening"])
        else:
            self.opening_id = None if self.manner == "gpt2ml" else self.eos_id
        self._backend, self._fast = self._build_encoders()

    @classmethod
    def from_vocab(
        cls,
        tokens: Sequence[str],
        *,
        name: str,
        manner: str = "hf",
        lowercase: bool,
        newline: bool | None = None,
        eos: str | None = None,
        fold_quotes: bool = False,
    ) -> "Tokenizer":
        """A WordPiece tokenizer from its entries in the order of their ids.

        `newline`: whether the line end is a token; it takes an entry "\\n", else [unused1] (or the first of its kind), else <T>.
        None: yes for the manner "hf" where there is such an entry, no for "gpt2ml".
        """
        ids = {token: id for id, token in enumerate(tokens)}
        if len(ids) < len(tokens):
            twice = next(token for id, token in enumerate(tokens) if ids[token] != id)
            raise UserError(f"the vocabulary of tokenizer {name} has {twice!r} twice; every entry must differ")
        if ids and "[UNK]" not in ids:
            raise UserError(f"the vocabulary of tokenizer {name} has no [UNK]: is it a BERT vocab.txt, a token a line?")
        wants_newline = newline or (newline is None and manner == "hf")
        if wants_newline:
            unused = (token for token in tokens if re.fullmatch(r"\[unused\d+\]", token))
            entry = next((token for token in ("\n", "[unused1]", *unused, "<T>") if token in ids), None)
            if newline and entry is None:
                raise UserError(f"newline=true, but the vocabulary of tokenizer {name} has no [unusedN] and no <T> to spare")
            ids = {("\n" if token == entry else token): id for token, id in ids.items()}

        bert = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
        bert |= {"strip_accents": None, "lowercase": lowercase}
        replaces = [{"type": "Replace", "pattern": {"String": a}, "content": b} for a, b in FOLDS.items()]
        controls = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(["\n"] if wants_newline else [])]
        added = [added_token(ids[t], t, special=t != "\n") for t in controls if t in ids]
        spec = {"version": "1.0", "truncation": None, "padding": None}
        spec["added_tokens"] = sorted(added, key=lambda token: token["id"])
        spec["normalizer"] = {"type": "Sequence", "normalizers": [*replaces, bert]} if fold_quotes else bert
        spec |= {"pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": None}
        facts = {"name": name, "manner": manner, "eos": eos or "[SEP]"}
        spec["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": False, "cngpt": facts}
        spec["model"] = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
        spec["model"] |= {"max_input_chars_per_word": WORD_LIMIT if manner == "gpt2ml" else 100, "vocab": ids}
        return cls(spec)

    @classmethod
    def from_json(cls, text: str) -> "Tokenizer":
        """The content of a tokenizer.json, ours or another's WordPiece or byte-level BPE. Raises UserError if it is damaged."""
        try:
            return cls(json.loads(text))
        except UserError:
            raise
        # `tokenizers` raises plain Exception
        except Exception as error:
            raise UserError(f"this tokenizer.json is damaged or of another kind: {type(error).__name__}: {error}") from error

    def to_json(self) -> str:
        return json.dumps(self._spec, ensure_ascii=False, indent=1) + "\n"

    def save(self, path: str | Path) -> None:
        write_text(path, self.to_json())

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over everything that ids depend on, and over the opening token, which shards hold."""
        parts = {key: self._spec.get(key) for key in ("added_tokens", "normalizer", "pre_tokenizer", "model")}
        parts |= {"manner": self.manner, "eos": self.eos_id}
        parts |= {key: self._facts[key] for key in ("opening",) if key in self._facts}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def encode(self, text: str) -> np.ndarray:
        """(tokens,) int32, no EOS added."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """(tokens,) int32 for each text, no EOS added."""
        try:
            return self._encode_batch(texts)
        # numpy and `tokenizers` refuse lone surrogates with one and the other
        except (UnicodeEncodeError, TypeError):
            if not any(SURROGATE.search(text) for text in texts):
                raise
            return self._encode_batch([self._without_surrogates(text) for text in texts])

    def decode(self, ids: Iterable[int]) -> str:
        """Text as a reader would print it (see `detokenize`). Control tokens are left out, [UNK] is shown as □."""
        ids = ids.tolist() if hasattr(ids, "tolist") else ids
        shown = [id for id in ids if id not in self._left_out_by_decode]
        if self._fast is None:
            return self._backend.decode([id for id in shown if id in self._tokens], skip_special_tokens=False)
        tokens = (UNKNOWN if id == self.unk_id else self._tokens.get(id, UNKNOWN) for id in shown)
        return detokenize(tokens, self._fast.stands_alone)

    def decode_as_gpt2ml(self, ids: Iterable[int]) -> str:
        """As the demo of gpt2-ml printed a text: its tokens end to end, without [UNK] and ##, without spaces."""
        if self._spec["model"]["type"] == "BPE":
            raise UserError(
                f"generation.compat=gpt2ml: is for WordPiece, and the tokenizer {self.name} is byte-level BPE; leave it out"
            )
        return "".join(self._tokens.get(int(id), "") for id in ids).replace("[UNK]", "").replace("##", "")

    def token(self, id: int) -> str:
        return self._tokens[id]

    def id(self, token: str) -> int | None:
        return self._ids.get(token)

    def __contains__(self, id: int) -> bool:
        """Whether a token has this id; ids may have gaps."""
        return id in self._tokens

    def __repr__(self) -> str:
        return f"Tokenizer({self.name!r}, {self.vocab_size:,} entries, manner {self.manner})"

    def __reduce__(self):
        return Tokenizer, (self._spec,)

    def _encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        if self._fast is not None:
            return self._fast.encode_batch(texts)
        return [np.array(e.ids, np.int32) for e in self._backend.encode_batch(texts, add_special_tokens=False)]

    def _without_surrogates(self, text: str) -> str:
        text, count = SURROGATE.subn("\ufffd", text)
        self.surrogates += count
        return text

    def _control_id(self, role: str, token: str | None, default: int | None = None) -> int:
        """The id of `token`, or of one of the common names of the control token with this role."""
        names = NAMED_CONTROLS[role] if token is None else (token,)
        id = next((self._ids[name] for name in names if name in self._ids), default)
        if id is None:
            raise UserError(f"{role}: the vocabulary of tokenizer {self.name} has no {' or '.join(names)}; name one that it has")
        return id

    def _build_encoders(self):
        """(backend, fast path or None). The backend gets no control tokens, so text that spells one never becomes its id."""
        from tokenizers import Tokenizer as Backend

        added = [t for t in self._spec.get("added_tokens") or [] if not t["special"] and t["content"] != "\n"]
        backend = Backend.from_str(json.dumps({**self._spec, "added_tokens": added}))
        backend.no_truncation()
        backend.no_padding()
        fold = _replaced_characters(self._spec.get("normalizer"))
        bert = (self._spec.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
        if fold is None or not bert or added or self._spec["model"]["type"] != "WordPiece":
            return backend, None
        if self.manner == "gpt2ml":
            rules = GoogleRules(self._ids, self.unk_id, lowercase=_normalizers(self._spec["normalizer"])[-1]["lowercase"])
        else:
            rules = HuggingFaceRules(backend)
        return backend, FastWordPiece(rules, self._ids, self.unk_id, self.newline_id, fold)


def _normalizers(normalizer: dict) -> list[dict]:
    return normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]


def _replaced_characters(normalizer: dict | None) -> dict[str, str] | None:
    """The characters that are replaced before BERT's normalizer; None where a normalizer does anything else."""
    if normalizer is None:
        return None
    *replaces, last = _normalizers(normalizer)
    if last["type"] != "BertNormalizer" or not last["clean_text"] or not last["handle_chinese_chars"]:
        return None
    if any(step["type"] != "Replace" for step in replaces):
        return None
    replaced = {step["pattern"].get("String", ""): step["content"] for step in replaces}
    return replaced if all(len(a) == len(b) == 1 for a, b in replaced.items()) else None


def added_token(id: int, content: str, special: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": id, "content": content, **flags, "special": special}
