"""Tokenizer files, both ways: tokenizer.json with tokenizer_config.json, vocab.json with merges.txt, BERT's vocab.txt."""

import copy
import json
from pathlib import Path
from typing import Any

from cngpt import files
from cngpt.errors import ConfigError, UserError
from cngpt.tokens import Tokenizer, load_tokenizer
from cngpt.tokens.load import KNOWN

TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"
KEY = "cngpt"  # in tokenizer_config.json, because `tokenizers` keeps nothing in tokenizer.json that it does not know
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


def from_theirs(folder: Path, vocab: str | Path | None = None) -> tuple[Tokenizer, list[str]]:
    """(tokenizer, notes) of a folder with a GPT-2 in transformers' files, or of `vocab`: one of those files, a folder of them, or clue,
    bert or mbert, whose vocab.txt is fetched by name.

    tokenizer.json (WordPiece or byte-level BPE) comes first, then vocab.json with merges.txt (GPT-2's byte-level BPE), then
    vocab.txt (BERT's WordPiece). What we exported comes back as it was. Raises UserError, one line, for what is missing or another kind.
    """
    where = Path(vocab) if vocab else folder
    config = _config(folder)
    if not where.exists() and str(vocab) in KNOWN:
        return _foreign(json.loads(load_tokenizer(str(vocab), newline=False).to_json()), config, folder)
    if not where.exists():
        raise ConfigError(
            f"vocab={vocab}: there is no such file; give a tokenizer.json, a vocab.json with merges.txt or a vocab.txt"
        )
    if where.is_dir():
        names = (TOKENIZER, "vocab.json", "vocab.txt")
        where = next((where / name for name in names if (where / name).is_file()), where)
        if where.is_dir():
            raise UserError(f"{where} has no {', no '.join(names)}; give the vocabulary with vocab=...")
    try:
        if where.suffix == ".txt":
            return _bert(where, config, folder)
        content = _json(where)
        if "model" not in content:
            return _byte_level(where, content, config, folder)
        return _tokenizer_json(where, content, config, folder)
    except UserError as error:
        raise error if str(where) in str(error) else UserError(f"{where}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:  # JSON, but of another form
        raise UserError(f"{where} is damaged or of another kind ({type(error).__name__}: {_first_line(error)})") from None


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


def _tokenizer_json(where: Path, spec: dict[str, Any], config: dict[str, Any], folder: Path) -> tuple[Tokenizer, list[str]]:
    spec |= {"truncation": None, "padding": None}
    own = config.get(KEY) if where.parent == folder else None
    if isinstance(own, dict) and isinstance(own.get("decoder"), dict):
        added = own.get("added") or []
        spec["added_tokens"] = [token for token in spec.get("added_tokens") or [] if token["content"] not in added]
        spec |= {"decoder": own["decoder"], "post_processor": own.get("post_processor")}
        tokenizer = Tokenizer.from_json(json.dumps(spec))
        same = tokenizer.fingerprint == own.get("fingerprint")
        return tokenizer, [] if same else [f"tokenizer: {where} is not as it was exported; its ids may be others"]
    if KEY in (decoder := spec.get("decoder") or {}):  # ours, alone
        if decoder["type"] == "Sequence":
            spec["decoder"] = {**decoder["decoders"][0], KEY: decoder[KEY]}
            spec["post_processor"] = None
        return Tokenizer.from_json(json.dumps(spec)), []

    kind = (spec["model"] or {}).get("type")
    byte_level = '"ByteLevel"' in json.dumps(spec.get("pre_tokenizer"))
    if not (kind == "WordPiece" or (kind == "BPE" and byte_level)):
        raise UserError(f"{where} is a tokenizer of the kind {kind}; only WordPiece and byte-level BPE can be read")
    return _foreign(spec, config, folder)


def _byte_level(where: Path, vocab: dict[str, int], config: dict[str, Any], folder: Path) -> tuple[Tokenizer, list[str]]:
    merges = where.with_name("merges.txt")
    if not merges.is_file():
        raise UserError(f"{merges} is missing; GPT-2's vocab.json goes with it")
    _no_added_tokens(where)
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    try:
        backend = Backend(models.BPE.from_file(str(where), str(merges)))
    except Exception as error:  # `tokenizers` raises plain Exception
        raise UserError(f"{where} and merges.txt are damaged or do not go together: {_first_line(error)}") from None
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(config.get("add_prefix_space", False)))
    backend.decoder = decoders.ByteLevel()
    eos = _token(config, "eos_token") or "<|endoftext|>"
    if eos not in vocab:
        raise UserError(f"{where} has no {eos}, which ends a text; name one that it has as eos_token in {CONFIG}")
    named = {eos, *(token for key in ("bos_token", "pad_token", "unk_token") if (token := _token(config, key)) in vocab)}
    backend.add_special_tokens(sorted(named, key=vocab.__getitem__))
    return _foreign(json.loads(backend.to_str()), config, folder)


def _bert(where: Path, config: dict[str, Any], folder: Path) -> tuple[Tokenizer, list[str]]:
    kind = str(config.get("tokenizer_class") or "BertTokenizer")
    if kind.removesuffix("Fast") != "BertTokenizer":
        raise UserError(f"{where} is the vocabulary of a {kind}; a vocab.txt can be read as BertTokenizer's only")
    _no_added_tokens(where)
    lowercase = config.get("do_lower_case", True)
    if not config.get("tokenize_chinese_chars", True) or config.get("strip_accents") not in (None, lowercase):
        raise UserError(
            f"{folder / CONFIG}: only tokenize_chinese_chars=true and strip_accents=null can be read with a vocab.txt"
        )
    tokenizer = load_tokenizer(where, lowercase=bool(lowercase), newline=False)
    return _foreign(json.loads(tokenizer.to_json()), config, folder)


def _foreign(spec: dict[str, Any], config: dict[str, Any], folder: Path) -> tuple[Tokenizer, list[str]]:
    """The tokenizer of somebody else's model: in the form that `tokenizers` writes, with the facts that we need."""
    from tokenizers import Tokenizer as Backend

    spec = {**spec, "truncation": None, "padding": None}
    opening = _first_of_template(spec.get("post_processor"))
    spec["post_processor"] = None
    try:
        spec = json.loads(Backend.from_str(json.dumps(spec)).to_str())
    except Exception as error:
        raise UserError(f"this tokenizer.json is damaged or of another kind: {_first_line(error)}") from None
    vocab = {*spec["model"]["vocab"], *(token["content"] for token in spec["added_tokens"])}
    bert = spec["model"]["type"] == "WordPiece"
    eos = next((t for key in ("eos_token", "sep_token") if (t := _token(config, key)) in vocab), "[SEP]" if bert else None)
    facts = {"name": folder.resolve().name, "manner": "hf", **({"eos": eos} if eos else {})}
    if opening is None and bert:
        opening = _token(config, "cls_token") or "[CLS]"
    if opening in vocab and opening != eos:
        facts["opening"] = opening
    spec["decoder"] = {**(spec["decoder"] or {"type": "WordPiece", "prefix": "##", "cleanup": False}), KEY: facts}
    tokenizer = Tokenizer.from_json(json.dumps(spec))
    first, last = tokenizer.token(tokenizer.opening_id), tokenizer.token(tokenizer.eos_id)
    notes = [f"tokenizer: a document is taken to begin with {first} and to end with {last}"]
    if bert and opening == "[CLS]":
        notes[0] += ", as the Chinese GPT-2s of UER-py were trained"  # its uer/utils/dataset.py, LmDataset
    return tokenizer, notes


def _first_of_template(processor: dict[str, Any] | None) -> str | None:
    """The token that a post-processor puts before a text."""
    match (processor or {}).get("type"):
        case "TemplateProcessing" if processor["single"]:
            return processor["single"][0].get("SpecialToken", {}).get("id")
        case "BertProcessing" | "RobertaProcessing":
            return processor["cls"][0]
        case "Sequence":
            found = (_first_of_template(inner) for inner in processor["processors"])
            return next((token for token in found if token), None)
    return None


def _no_added_tokens(where: Path) -> None:
    beside = where.with_name("added_tokens.json")
    if beside.exists():
        raise UserError(
            f"{beside}: tokens added to a {where.name} cannot be read; save it with AutoTokenizer.save_pretrained first"
        )


def _config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json with what special_tokens_map.json adds to it; {} where there is neither."""
    merged = {}
    for name in ("special_tokens_map.json", CONFIG):
        path = folder / name
        if path.exists():
            merged |= _json(path)
    return merged


def _token(config: dict[str, Any], key: str) -> str | None:
    token = config.get(key)
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = files.read_json(path)
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({_first_line(error)}); fetch it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (no JSON object); fetch it again")
    return content


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]
