"""Out: our tokenizer as transformers' tokenizer.json and tokenizer_config.json."""

import copy
import json
from typing import Any

from cngpt.interop.huggingface.names import KEY
from cngpt.tokens import Tokenizer

HAN = r"\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FAFF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2CEAF}\x{2F800}-\x{2FA1F}"
ALONE = rf"[\n{HAN}[\p{{P}}&&[^\x00-\x7F]]]"  # no space beside it
SPACES_TOO_MANY = (  # where `cngpt.tokens.detokenize` puts none, between tokens that are joined by one space
    rf"(?<={ALONE}) | (?={ALONE})",
    r""" (?=[!#$%&')*+,\-./:;<=>?@\[\\\]^_`{|}~])""",
    r"(?<=[#$&'(*+\-/<=>@\[\\^_`{|~]) |(?<![A-Za-z0-9,;!?]) (?=\()",
    r"(?<=[0-9][,;!?:.]) (?=[0-9])|(?<=[^A-Za-z]:) |(?<=:) (?![A-Za-z])|(?<=\.) (?![A-Z])",
)


def to_theirs(tokenizer: Tokenizer, n_ctx: int) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """(tokenizer.json, tokenizer_config.json, notes) for transformers' fast tokenizer without a class of its own.

    Its ids are those of `encode`, also where a text spells a control token (split_special_tokens); with add_special_tokens, which is
    the default, `opening_id` stands first. Chinese is decoded without spaces.
    """
    ours = json.loads(tokenizer.to_json())
    spec = copy.deepcopy(ours)
    notes = []
    named = {"unk_token": tokenizer.unk_id, "pad_token": tokenizer.pad_id}
    if tokenizer.eos_is_text:
        notes.append(
            f"tokenizer: no eos_token, since {tokenizer.token(tokenizer.eos_id)!r} is text as well; generation_config.json ends there"
        )
    else:
        named["eos_token"] = tokenizer.eos_id
    opening = tokenizer.opening_id
    hidden = {*tokenizer.control_ids, *([] if tokenizer.eos_is_text else [tokenizer.eos_id])}
    if opening in hidden:
        named["bos_token"] = opening
    tokens = {key: tokenizer.token(id) for key, id in named.items() if id in hidden}

    # transformers adds what it is told by name; said here, the file is the same before and after
    there = {token["content"] for token in spec["added_tokens"]}
    added = sorted({(tokenizer.id(token), token) for token in tokens.values() if token not in there})
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    spec["added_tokens"] = sorted(
        [*spec["added_tokens"], *({"id": id, "content": token, **flags} for id, token in added)], key=lambda token: token["id"]
    )
    spec["post_processor"] = None if opening is None else _opening_first(tokenizer.token(opening), opening)
    if spec["model"]["type"] == "WordPiece" and (spec.get("decoder") or {}).get("type") == "WordPiece":
        spec["decoder"] = {**_decoder(spec["decoder"]), KEY: spec["decoder"].get(KEY, {})}

    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **tokens,
        "split_special_tokens": True,
        "model_max_length": n_ctx,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],  # GPT-2 would add token_type_ids to the text
        KEY: {
            "fingerprint": tokenizer.fingerprint,
            "decoder": ours.get("decoder"),
            "post_processor": ours.get("post_processor"),
            "added": [token for _, token in added],
        },
    }
    if tokenizer.manner == "gpt2ml":
        notes.append(
            "tokenizer: gpt2-ml's own rules for rare characters (a final sigma, private and unassigned code points) are not in `tokenizers`, where"
            " such ids differ; in the 70 golden strings made by its code, none do"
        )
    return spec, config, notes


def _opening_first(token: str, id: int) -> dict[str, Any]:
    def sequence(name: str, type_id: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": type_id}}

    first = {"SpecialToken": {"id": token, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [first, sequence("A", 0)],
        "pair": [first, sequence("A", 0), sequence("B", 1)],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    }


def _decoder(word_piece: dict[str, Any]) -> dict[str, Any]:
    """The tokens joined by spaces, then without those that no reader would put."""

    def replace(pattern: str) -> dict[str, Any]:
        return {"type": "Replace", "pattern": {"Regex": pattern}, "content": ""}

    plain = {key: word_piece[key] for key in ("type", "prefix", "cleanup")}
    first = replace(r"\A##(?=.)")  # WordPiece leaves the ## of the first token
    return {"type": "Sequence", "decoders": [plain, first, {"type": "Fuse"}, *map(replace, SPACES_TOO_MANY)]}
