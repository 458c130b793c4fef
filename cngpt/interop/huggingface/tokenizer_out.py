"""Out: our tokenizer as transformers' tokenizer.json and tokenizer_config.json."""

import json
from typing import Any

from cngpt.interop.huggingface.names import KEY
from cngpt.tokens import Tokenizer
from cngpt.tokens.tokenizer import added_token

HAN = r"\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FAFF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2CEAF}\x{2F800}-\x{2FA1F}"
ALONE = rf"[\n{HAN}[\p{{P}}&&[^\x00-\x7F]]]"  # no space beside it
# where `cngpt.tokens.detokenize` puts no space, between tokens that are joined by one
NO_SPACE = (
    rf"(?<={ALONE}) | (?={ALONE})",
    r""" (?=[!#$%&')*+,\-./:;<=>?@\[\\\]^_`{|}~])""",
    r"(?<=[#$&'(*+\-/<=>@\[\\^_`{|~]) |(?<![A-Za-z0-9,;!?]) (?=\()",
    r"(?<=[0-9][,;!?:.]) (?=[0-9])|(?<=[^A-Za-z]:) |(?<=:) (?![A-Za-z])|(?<=\.) (?![A-Z])",
)


def convert_tokenizer(tokenizer: Tokenizer, n_ctx: int) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """(tokenizer.json, tokenizer_config.json, notes) for transformers' fast tokenizer without a class of its own.

    Its ids are those of `encode`, also where a text spells a control token (split_special_tokens); with add_special_tokens, which is
    the default, `opening_id` stands first. Chinese is decoded without spaces.
    """
    ours, spec, notes = json.loads(tokenizer.to_json()), json.loads(tokenizer.to_json()), []
    hidden = set(tokenizer.control_ids)
    named = {"unk_token": tokenizer.unk_id, "pad_token": tokenizer.pad_id, "bos_token": tokenizer.opening_id}
    if tokenizer.eos_is_text:
        end = tokenizer.token(tokenizer.eos_id)
        notes.append(f"tokenizer: no eos_token, since {end!r} is text as well; generation_config.json ends there")
    else:
        named["eos_token"] = tokenizer.eos_id
        hidden.add(tokenizer.eos_id)
    tokens = {key: tokenizer.token(id) for key, id in named.items() if id in hidden}

    # transformers adds tokens that are named in tokenizer_config.json: with them the file is the same before and after
    present = {token["content"] for token in spec["added_tokens"]}
    added = sorted({(tokenizer.id(token), token) for token in tokens.values() if token not in present})
    spec["added_tokens"] += [added_token(id, token, special=True) for id, token in added]
    spec["added_tokens"].sort(key=lambda token: token["id"])
    opening = tokenizer.opening_id
    spec["post_processor"] = None if opening is None else _opening_first(tokenizer.token(opening), opening)
    if spec["model"]["type"] == "WordPiece" and (spec.get("decoder") or {}).get("type") == "WordPiece":
        spec["decoder"] = {**_decoder(spec["decoder"]), KEY: spec["decoder"].get(KEY, {})}

    config = {"tokenizer_class": "PreTrainedTokenizerFast", **tokens, "split_special_tokens": True, "model_max_length": n_ctx}
    config |= {"padding_side": "left", "clean_up_tokenization_spaces": False}
    # GPT-2 would add token_type_ids to the text
    config["model_input_names"] = ["input_ids", "attention_mask"]
    # what tokenizer_in.py needs to undo the changes above
    config[KEY] = {"fingerprint": tokenizer.fingerprint, **{key: ours.get(key) for key in ("decoder", "post_processor")}}
    config[KEY]["added"] = [token for _, token in added]
    if tokenizer.manner == "gpt2ml":
        notes.append(
            "tokenizer: gpt2-ml's own rules for rare characters (a final sigma, private and unassigned code points) are not in `tokenizers`, where"
            " such ids differ; in the 70 golden strings made by its code, none do"
        )
    return spec, config, notes


def _opening_first(token: str, id: int) -> dict[str, Any]:
    first = [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair, special = [*first, {"Sequence": {"id": "B", "type_id": 1}}], {token: {"id": token, "ids": [id], "tokens": [token]}}
    return {"type": "TemplateProcessing", "single": first, "pair": pair, "special_tokens": special}


def _decoder(word_piece: dict[str, Any]) -> dict[str, Any]:
    """The tokens joined by spaces, then without the spaces that no reader would put."""

    def without(pattern: str) -> dict[str, Any]:
        return {"type": "Replace", "pattern": {"Regex": pattern}, "content": ""}

    plain = {key: word_piece[key] for key in ("type", "prefix", "cleanup")}
    # WordPiece leaves the ## of the first token
    first = without(r"\A##(?=.)")
    return {"type": "Sequence", "decoders": [plain, first, {"type": "Fuse"}, *map(without, NO_SPACE)]}
