"""A tokenizer by name or by path."""

import socket
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from cngpt.errors import ConfigError, UserError, nearest
from cngpt.settings import Settings
from cngpt.tokens import hanzi
from cngpt.tokens.tokenizer import Tokenizer


class Known(NamedTuple):
    hub: str  # the repository on the Hugging Face hub whose vocab.txt it is
    entries: int
    lowercase: bool


KNOWN = {
    "clue": Known("clue/roberta_chinese_clue_tiny", 8_021, lowercase=True),
    "bert": Known("google-bert/bert-base-chinese", 21_128, lowercase=True),
    "mbert": Known("google-bert/bert-base-multilingual-cased", 119_547, lowercase=False),
}
TRAINED = ("bpe", "wordpiece")


def known_vocab_size(name: str) -> int | None:
    """The entries of a tokenizer that is known by name, without opening its file; None of any other."""
    return hanzi.SIZE if name == "hanzi" else KNOWN[name].entries if name in KNOWN else None


def load_tokenizer(
    name_or_path: str | Path,
    *,
    vocab: str | Path | None = None,
    manner: str = "hf",
    lowercase: bool | None = None,
    newline: bool | None = None,
    eos: str | None = None,
    fold_quotes: bool = False,
) -> Tokenizer:
    """A tokenizer that is bundled (`hanzi`), known (`clue`, `bert`, `mbert`) or in a file.

    `clue`, `bert` and `mbert` are read from `vocab`, a vocab.txt; without one it is fetched by name from the Hugging Face hub.
    Any other name is a path, unless `vocab` is one: a tokenizer.json, a folder that holds one, or a vocab.txt. A tokenizer.json
    says for itself how it is used, so the other arguments are for a vocab.txt: `manner` "hf" or "gpt2ml"; `lowercase` (None: as
    the vocabulary is known to want, else if it has no entry A); `newline` and `eos` as in Tokenizer.from_vocab; `fold_quotes`
    replaces “ ” ‘ ’ — … by what Google's Chinese vocabulary has. Raises UserError in one line for what is missing or damaged.
    """
    name = str(name_or_path)
    path = _path_of(name, vocab)
    if path.is_dir():
        path /= "tokenizer.json"
    text = _read(path, name)

    if path.suffix == ".json":
        if manner != "hf" or lowercase is not None or newline is not None or eos is not None or fold_quotes:
            raise UserError(
                f"{path} says for itself how it is used; manner, lowercase, newline, eos and fold_quotes go with a vocab.txt"
            )
        try:
            return Tokenizer.from_json(text)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    tokens = [line.rstrip() for line in text.removesuffix("\n").split("\n")] if text.strip() else []
    known = KNOWN.get(name)
    if known and tokens and len(tokens) != known.entries:
        raise UserError(
            f"{path} has {len(tokens):,} entries, the vocabulary of tokenizer {name} {known.entries:,}: it is another one;"
            " a vocabulary of your own goes with tokenizer=wordpiece tokenizer.path=<vocab.txt>"
        )
    if lowercase is None:
        lowercase = known.lowercase if known else "A" not in tokens
    options = {"manner": manner, "lowercase": lowercase, "newline": newline, "eos": eos, "fold_quotes": fold_quotes}
    try:
        return Tokenizer.from_vocab(tokens, name=name if known else path.stem, **options)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _path_of(name: str, vocab: str | Path | None) -> Path:
    if name == "hanzi":
        if vocab:
            raise UserError(f"tokenizer hanzi is bundled and needs no vocab={vocab}; leave it out, or name another tokenizer")
        return hanzi.FILE
    if vocab:
        return Path(vocab)
    if name in KNOWN:
        return _from_hub(name)
    if name in TRAINED and not Path(name).exists():
        raise UserError(
            f"tokenizer {name} is one of your own: train it with task=tokenizer, then tokenizer={name} tokenizer.path=<its folder>"
        )
    return Path(name)


def _read(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        names = ", ".join(["hanzi", *KNOWN]) + "." + nearest(name, ["hanzi", *KNOWN])
        raise UserError(f"tokenizer {name}: there is no {path}; known by name are {names}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"tokenizer {name}: {path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise UserError(f"tokenizer {name}: {path} cannot be read ({error.strerror})") from None


def _from_hub(name: str) -> Path:
    repository = KNOWN[name].hub
    try:
        from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

        cached = try_to_load_from_cache(repository, "vocab.txt")
        if isinstance(cached, str):
            return Path(cached)
        # a connection is tried first, because hf_hub_download tries for half a minute where there is no network
        host = urlsplit(constants.ENDPOINT)
        socket.create_connection((host.hostname, host.port or 443), timeout=5).close()
        return Path(hf_hub_download(repository, "vocab.txt"))
    except Exception as error:
        raise UserError(
            f"tokenizer {name} needs a vocabulary: tokenizer.vocab=<vocab.txt>"
            f" (fetching {repository} from the Hugging Face hub failed: {type(error).__name__})"
        ) from None


def from_settings(settings: Settings) -> Tokenizer:
    """The tokenizer that one of TOKENIZERS describes. Raises ConfigError where a path is missing, UserError as load_tokenizer does."""
    options = settings.model_dump()
    name = options.pop("name")
    if "path" in options:
        name = options.pop("path")
        if not name:
            raise ConfigError(
                "tokenizer.path=... is needed: the folder that task=tokenizer wrote, or with tokenizer=wordpiece a vocab.txt"
            )
    return load_tokenizer(name, **options)
