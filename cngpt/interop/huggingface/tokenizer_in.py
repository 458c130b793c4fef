"""In: a tokenizer as transformers saves it: tokenizer.json with tokenizer_config.json, vocab.json with merges.txt, BERT's vocab.txt."""

import json
from collections.abc import Container
from pathlib import Path
from typing import Any

from cngpt import files
from cngpt.errors import ConfigError, UserError
from cngpt.files import first_line
from cngpt.interop.huggingface.names import AGAIN, KEY, TOKENIZER, TOKENIZER_CONFIG
from cngpt.tokens import Tokenizer, load_tokenizer
from cngpt.tokens.load import KNOWN
from cngpt.tokens.tokenizer import NAMED_CONTROLS


def to_ours(folder: Path, vocab: str | Path | None = None, eos: str | None = None) -> tuple[Tokenizer, list[str]]:
    """(tokenizer, notes) of a folder with a GPT-2 in transformers' files, or of `vocab`: one of those files, a folder of them, or clue,
    bert or mbert, whose vocab.txt is fetched by name. `eos`: the token that ends a text, whatever the files say.

    tokenizer.json (WordPiece or byte-level BPE) comes first, then vocab.json with merges.txt (GPT-2's byte-level BPE), then
    vocab.txt (BERT's WordPiece). What we exported comes back as it was. Raises UserError, one line, for what is missing or another kind.
    """
    where = Path(vocab) if vocab else folder
    config = _config(folder)
    if not where.exists():
        if str(vocab) in KNOWN:
            try:
                spec = json.loads(load_tokenizer(str(vocab), newline=False).to_json())
            except UserError:
                raise ConfigError(f"vocab={vocab}: could not be fetched from the Hugging Face hub; give its vocab.txt") from None
            return _foreign(spec, config, folder, str(vocab), eos)
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
            spec = _bert(where, config, folder)
        elif "model" not in (spec := files.read_object(where, AGAIN)):
            spec = _byte_level(where, spec, config, eos)
        else:
            own = config.get(KEY) if where.parent == folder else None
            if isinstance(own, dict) or KEY in (spec.get("decoder") or {}):
                return _exported(where, spec, own, eos)
            kind, byte_level = (spec["model"] or {}).get("type"), '"ByteLevel"' in json.dumps(spec.get("pre_tokenizer"))
            if not (kind == "WordPiece" or (kind == "BPE" and byte_level)):
                raise UserError(f"{where} is a tokenizer of the kind {kind}; only WordPiece and byte-level BPE can be read")
        return _foreign(spec, config, folder, where, eos)
    except ConfigError:
        raise
    except UserError as error:
        raise error if str(where) in str(error) else UserError(f"{where}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:  # JSON, but of another form
        raise UserError(f"{where} is damaged or of another kind ({type(error).__name__}: {first_line(error)})") from None


def _exported(where: Path, spec: dict[str, Any], own: dict[str, Any] | None, eos: str | None) -> tuple[Tokenizer, list[str]]:
    """What tokenizer_out.py wrote, as it was before: `own` has what transformers was told instead. Without it, it is read as it is."""
    notes = []
    spec |= {"truncation": None, "padding": None}
    if own:
        added = own.get("added") or []
        spec["added_tokens"] = [token for token in spec.get("added_tokens") or [] if token["content"] not in added]
        spec |= {"decoder": own["decoder"], "post_processor": own.get("post_processor")}
    tokenizer = Tokenizer.from_json(json.dumps(spec))
    if own and tokenizer.fingerprint != own.get("fingerprint"):
        notes.append(f"tokenizer: {where} is not as it was exported; its ids may be others")
    if eos is not None:
        spec["decoder"][KEY]["eos"] = _end(_vocabulary(spec), {}, where, eos)
        tokenizer = Tokenizer.from_json(json.dumps(spec))
    return tokenizer, notes


def _byte_level(where: Path, vocab: dict[str, int], config: dict[str, Any], eos: str | None) -> dict[str, Any]:
    merges = where.with_name("merges.txt")
    if not merges.is_file():
        raise UserError(f"{merges} is missing; GPT-2's vocab.json goes with it")
    _no_added_tokens(where)
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    try:
        backend = Backend(models.BPE.from_file(str(where), str(merges)))
    except Exception as error:  # `tokenizers` raises plain Exception
        raise UserError(f"{where} and merges.txt are damaged or do not go together: {first_line(error)}") from None
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(config.get("add_prefix_space", False)))
    backend.decoder = decoders.ByteLevel()
    named = {_token(config, key) for key in ("bos_token", "pad_token", "unk_token")} & vocab.keys()
    backend.add_special_tokens(sorted({_end(vocab, config, where, eos), *named}, key=vocab.__getitem__))
    return json.loads(backend.to_str())


def _bert(where: Path, config: dict[str, Any], folder: Path) -> dict[str, Any]:
    kind = str(config.get("tokenizer_class") or "BertTokenizer")
    if kind.removesuffix("Fast") != "BertTokenizer":
        raise UserError(f"{where} is the vocabulary of a {kind}; a vocab.txt can be read as BertTokenizer's only")
    _no_added_tokens(where)
    lowercase = config.get("do_lower_case", True)
    if not config.get("tokenize_chinese_chars", True) or config.get("strip_accents") not in (None, lowercase):
        raise UserError(
            f"{folder / TOKENIZER_CONFIG}: only tokenize_chinese_chars=true and strip_accents=null can be read with a vocab.txt"
        )
    tokenizer = load_tokenizer(where, lowercase=bool(lowercase), newline=False, eos="[UNK]")  # `_foreign` finds the end
    return json.loads(tokenizer.to_json())


def _foreign(
    spec: dict[str, Any], config: dict[str, Any], folder: Path, where: str | Path, eos: str | None
) -> tuple[Tokenizer, list[str]]:
    """The tokenizer of somebody else's model: in the form that `tokenizers` writes, with the facts that we need."""
    from tokenizers import Tokenizer as Backend

    opening = _first_of_template(spec.get("post_processor"))
    spec = {**spec, "truncation": None, "padding": None, "post_processor": None}
    try:
        spec = json.loads(Backend.from_str(json.dumps(spec)).to_str())
    except Exception as error:
        raise UserError(f"this tokenizer.json is damaged or of another kind: {first_line(error)}") from None
    vocab = _vocabulary(spec)
    bert = spec["model"]["type"] == "WordPiece"
    facts = {"name": folder.resolve().name, "manner": "hf", "eos": _end(vocab, config, where, eos)}
    if opening is None and bert:
        opening = _token(config, "cls_token") or "[CLS]"
    if opening in vocab and opening != facts["eos"]:
        facts["opening"] = opening
    spec["decoder"] = {**(spec["decoder"] or {"type": "WordPiece", "prefix": "##", "cleanup": False}), KEY: facts}
    tokenizer = Tokenizer.from_json(json.dumps(spec))
    first, last = tokenizer.token(tokenizer.opening_id), tokenizer.token(tokenizer.eos_id)
    notes = [f"tokenizer: a document is taken to begin with {first} and to end with {last}"]
    if bert and opening == "[CLS]":
        notes[0] += ", as the Chinese GPT-2s of UER-py were trained"  # its uer/utils/dataset.py, LmDataset
    return tokenizer, notes


def _vocabulary(spec: dict[str, Any]) -> set[str]:
    return {*spec["model"]["vocab"], *(token["content"] for token in spec.get("added_tokens") or [])}


def _end(vocab: Container[str], config: dict[str, Any], where: str | Path, eos: str | None) -> str:
    """The token of `vocab` that ends a text: `eos`, else what the config names, else a usual one."""
    if eos is not None:
        if eos not in vocab:
            raise ConfigError(f"eos={eos}: is no token of {where}; give one that it has")
        return eos
    named = [_token(config, key) for key in ("eos_token", "sep_token")]
    if found := next((token for token in (*named, *NAMED_CONTROLS["eos"]) if token in vocab), None):
        return found
    usual = ", no ".join(NAMED_CONTROLS["eos"])
    raise UserError(f"{where} has no {usual}, and nothing says which token ends a text; name it with eos=<token>")


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
    for name in ("special_tokens_map.json", TOKENIZER_CONFIG):
        path = folder / name
        if path.exists():
            merged |= files.read_object(path, AGAIN)
    return merged


def _token(config: dict[str, Any], key: str) -> str | None:
    token = config.get(key)
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None
