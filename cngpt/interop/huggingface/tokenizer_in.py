"""In: a tokenizer as transformers saves it: tokenizer.json with tokenizer_config.json, vocab.json with merges.txt, BERT's vocab.txt."""

import json
from collections.abc import Container
from pathlib import Path
from typing import Any

from cngpt import files
from cngpt.errors import ConfigError, UserError, first_line
from cngpt.interop.huggingface.names import AGAIN, KEY, TOKENIZER, TOKENIZER_CONFIG
from cngpt.tokens import Tokenizer, load_tokenizer
from cngpt.tokens.load import KNOWN
from cngpt.tokens.tokenizer import NAMED_CONTROLS

Json = dict[str, Any]


def read_tokenizer(folder: Path, vocab: str | Path | None = None, eos: str | None = None) -> tuple[Tokenizer, list[str]]:
    """(tokenizer, notes) of a folder with a GPT-2 in transformers' files, or of `vocab`: one of those files, a folder of them, or clue,
    bert or mbert, whose vocab.txt is fetched by name. `eos`: the token that ends a text, whatever the files say.

    tokenizer.json (WordPiece or byte-level BPE) comes first, then vocab.json with merges.txt (GPT-2's byte-level BPE), then
    vocab.txt (BERT's WordPiece). What we exported comes back as it was. Raises UserError, one line, for what is missing or another kind.
    """
    config = _read_config(folder)
    if vocab and not Path(vocab).exists():
        if str(vocab) not in KNOWN:
            raise ConfigError(
                f"vocab={vocab}: there is no such file; give a tokenizer.json, a vocab.json with merges.txt or a vocab.txt"
            )
        try:
            spec = json.loads(load_tokenizer(str(vocab), newline=False).to_json())
        except UserError:
            raise ConfigError(f"vocab={vocab}: could not be fetched from the Hugging Face hub; give its vocab.txt") from None
        return _foreign(spec, config, folder, str(vocab), eos)
    path = _find_vocabulary(Path(vocab) if vocab else folder)
    try:
        if path.suffix == ".txt":
            spec = _bert(path, config, folder)
        elif "model" not in (spec := files.read_object(path, AGAIN)):
            spec = _byte_level(path, spec, config, eos)
        else:
            exported = config.get(KEY) if path.parent == folder else None
            if isinstance(exported, dict) or KEY in (spec.get("decoder") or {}):
                return _exported(path, spec, exported, eos)
            kind, byte_level = (spec["model"] or {}).get("type"), '"ByteLevel"' in json.dumps(spec.get("pre_tokenizer"))
            if not (kind == "WordPiece" or (kind == "BPE" and byte_level)):
                raise UserError(f"{path} is a tokenizer of the kind {kind}; only WordPiece and byte-level BPE can be read")
        return _foreign(spec, config, folder, path, eos)
    except ConfigError:
        raise
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from None
    # JSON, but of another form
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{path} is damaged or of another kind ({type(error).__name__}: {first_line(error)})") from None


def _find_vocabulary(path: Path) -> Path:
    """A file with a vocabulary: `path` itself, or the first of those that a folder may have."""
    if not path.is_dir():
        return path
    names = (TOKENIZER, "vocab.json", "vocab.txt")
    for name in names:
        if (path / name).is_file():
            return path / name
    raise UserError(f"{path} has no {', no '.join(names)}; give the vocabulary with vocab=...")


def _exported(path: Path, spec: Json, exported: Json | None, eos: str | None) -> tuple[Tokenizer, list[str]]:
    """What tokenizer_out.py wrote, as it was before: `exported` has what was replaced. Without it, `spec` is read as it is."""
    notes = []
    spec |= {"truncation": None, "padding": None}
    if exported:
        added = exported.get("added") or []
        spec["added_tokens"] = [token for token in spec.get("added_tokens") or [] if token["content"] not in added]
        spec |= {"decoder": exported["decoder"], "post_processor": exported.get("post_processor")}
    tokenizer = Tokenizer.from_json(json.dumps(spec))
    if exported and tokenizer.fingerprint != exported.get("fingerprint"):
        notes.append(f"tokenizer: {path} is not as it was exported; its ids may be others")
    if eos is not None:
        spec["decoder"][KEY]["eos"] = _end_token(_vocabulary(spec), {}, path, eos)
        tokenizer = Tokenizer.from_json(json.dumps(spec))
    return tokenizer, notes


def _byte_level(path: Path, vocab: dict[str, int], config: Json, eos: str | None) -> Json:
    merges = path.with_name("merges.txt")
    if not merges.is_file():
        raise UserError(f"{merges} is missing; GPT-2's vocab.json goes with it")
    _refuse_added_tokens(path)
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    try:
        backend = Backend(models.BPE.from_file(str(path), str(merges)))
    # `tokenizers` raises plain Exception
    except Exception as error:
        raise UserError(f"{path} and merges.txt are damaged or do not go together: {first_line(error)}") from None
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(config.get("add_prefix_space", False)))
    backend.decoder = decoders.ByteLevel()
    named = {_token(config, key) for key in ("bos_token", "pad_token", "unk_token")} & vocab.keys()
    backend.add_special_tokens(sorted({_end_token(vocab, config, path, eos), *named}, key=vocab.__getitem__))
    return json.loads(backend.to_str())


def _bert(path: Path, config: Json, folder: Path) -> Json:
    kind = str(config.get("tokenizer_class") or "BertTokenizer")
    if kind.removesuffix("Fast") != "BertTokenizer":
        raise UserError(f"{path} is the vocabulary of a {kind}; a vocab.txt can be read as BertTokenizer's only")
    _refuse_added_tokens(path)
    lowercase = config.get("do_lower_case", True)
    if not config.get("tokenize_chinese_chars", True) or config.get("strip_accents") not in (None, lowercase):
        raise UserError(
            f"{folder / TOKENIZER_CONFIG}: only tokenize_chinese_chars=true and strip_accents=null can be read with a vocab.txt"
        )
    # `_foreign` finds the token that ends a text
    return json.loads(load_tokenizer(path, lowercase=bool(lowercase), newline=False, eos="[UNK]").to_json())


def _foreign(spec: Json, config: Json, folder: Path, source: str | Path, eos: str | None) -> tuple[Tokenizer, list[str]]:
    """The tokenizer of somebody else's model: in the form that `tokenizers` writes, with the facts that we need."""
    from tokenizers import Tokenizer as Backend

    opening = _first_token(spec.get("post_processor"))
    spec = {**spec, "truncation": None, "padding": None, "post_processor": None}
    try:
        spec = json.loads(Backend.from_str(json.dumps(spec)).to_str())
    except Exception as error:
        raise UserError(f"this tokenizer.json is damaged or of another kind: {first_line(error)}") from None
    vocab = _vocabulary(spec)
    bert = spec["model"]["type"] == "WordPiece"
    facts = {"name": folder.resolve().name, "manner": "hf", "eos": _end_token(vocab, config, source, eos)}
    if opening is None and bert:
        opening = _token(config, "cls_token") or "[CLS]"
    if opening in vocab and opening != facts["eos"]:
        facts["opening"] = opening
    spec["decoder"] = {**(spec["decoder"] or {"type": "WordPiece", "prefix": "##", "cleanup": False}), KEY: facts}
    tokenizer = Tokenizer.from_json(json.dumps(spec))
    first, last = tokenizer.token(tokenizer.opening_id), tokenizer.token(tokenizer.eos_id)
    notes = [f"tokenizer: a document is taken to begin with {first} and to end with {last}"]
    if bert and opening == "[CLS]":
        # its uer/utils/dataset.py, LmDataset
        notes[0] += ", as the Chinese GPT-2s of UER-py were trained"
    return tokenizer, notes


def _vocabulary(spec: Json) -> set[str]:
    return {*spec["model"]["vocab"], *(token["content"] for token in spec.get("added_tokens") or [])}


def _end_token(vocab: Container[str], config: Json, source: str | Path, eos: str | None) -> str:
    """The token of `vocab` that ends a text: `eos`, else what the config names, else one of the common ones."""
    if eos is not None:
        if eos not in vocab:
            raise ConfigError(f"eos={eos}: is no token of {source}; give one that it has")
        return eos
    for token in (_token(config, "eos_token"), _token(config, "sep_token"), *NAMED_CONTROLS["eos"]):
        if token in vocab:
            return token
    raise UserError(
        f"{source} has no {', no '.join(NAMED_CONTROLS['eos'])}, and nothing says which token ends a text; name it with eos=<token>"
    )


def _first_token(processor: Json | None) -> str | None:
    """The token that a post-processor puts before a text."""
    match (processor or {}).get("type"):
        case "TemplateProcessing" if processor["single"]:
            return processor["single"][0].get("SpecialToken", {}).get("id")
        case "BertProcessing" | "RobertaProcessing":
            return processor["cls"][0]
        case "Sequence":
            tokens = (_first_token(inner) for inner in processor["processors"])
            return next((token for token in tokens if token), None)
    return None


def _refuse_added_tokens(vocab: Path) -> None:
    path = vocab.with_name("added_tokens.json")
    if path.exists():
        raise UserError(
            f"{path}: tokens added to a {vocab.name} cannot be read; save it with AutoTokenizer.save_pretrained first"
        )


def _read_config(folder: Path) -> Json:
    """tokenizer_config.json with what special_tokens_map.json adds to it; {} where there is neither."""
    paths = (folder / "special_tokens_map.json", folder / TOKENIZER_CONFIG)
    return {key: value for path in paths if path.exists() for key, value in files.read_object(path, AGAIN).items()}


def _token(config: Json, key: str) -> str | None:
    token = config.get(key)
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None
