"""The tokenizer of a model of gpt2-ml: ids as its own code gave them, no line ends, its end of text."""

import hashlib
from pathlib import Path

from cngpt.checkpoints.model_directory import SPARE
from cngpt.errors import ConfigError, UserError
from cngpt.tokens import Tokenizer, load_tokenizer
from cngpt.tokens.load import KNOWN

# in both vocabularies of the seed
CONTROLS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
# sha256 of the entries, joined by line ends
DIGESTS = {
    "bert": "22cc7b05d1c6bb919788b621fb1c5833ad3c841ef19bf7f4b30de3a4fc1be217",
    "clue": "a25692ff268cd5d2468a66601ad746c49251bcc0b5a330592708bbe89ef67d02",
}
# rows of an embedding -> vocabulary; the 15 GB release has two rows to spare
SIZES = {known.entries: name for name, known in KNOWN.items()} | {21_130: "bert"}


def tokenizer_for(vocab: str | None, rows: int | None, eos: str | None) -> Tokenizer:
    """vocab: a vocab.txt, `clue` or `bert`; None: the one that goes with an embedding of `rows`, from the Hugging Face hub.

    eos: the token that ends a text; None: as in the seed's demo, 。 with Google's 21,128 entries, else [SEP]. Raises UserError for
    what is missing or does not fit into `rows`.
    """
    if vocab is None and rows not in SIZES:
        raise UserError("vocab=... is needed: the vocab.txt that the model was trained with")
    if vocab is not None and vocab not in KNOWN and (not Path(vocab).is_file() or vocab.endswith(".json")):
        raise UserError(f"vocab={vocab}: must be {', '.join(KNOWN)} or a vocab.txt that is there")
    tokenizer = _load(vocab or SIZES[rows], eos)
    if rows is None:
        return tokenizer
    # a release goes with its own vocabulary, not with any of about as many entries
    known = KNOWN.get(SIZES.get(rows))
    entries = tokenizer.vocab_size
    if entries != known.entries if known else not 0 <= rows - entries <= SPARE:
        part = f", or not all of {SIZES[rows]}'s {known.entries:,}" if known else ""
        raise UserError(
            f"vocab={vocab or SIZES[rows]}: {entries:,} entries, and the model has {rows:,}: it is another model's vocabulary{part}"
        )
    if known and (moved := next((token for token, id in CONTROLS.items() if tokenizer.id(token) != id), None)):
        raise UserError(
            f"vocab={vocab}: as many entries as {SIZES[rows]}'s vocabulary, but {moved} is not number {CONTROLS[moved]}: it is another one"
        )
    return tokenizer


def _load(vocab: str, eos: str | None) -> Tokenizer:
    """A vocab.txt of as many entries as a known vocabulary is read as that one."""
    options = {"manner": "gpt2ml", "newline": False}
    try:
        if vocab not in KNOWN:
            name = SIZES.get(load_tokenizer(vocab, **options).vocab_size)
            options["vocab"] = vocab if name else None
        else:
            name = vocab
        return load_tokenizer(name or vocab, eos=eos or ("。" if name == "bert" else None), **options)
    except UserError as error:
        if "Hugging Face hub failed" in str(error):
            raise UserError(f"vocab=<vocab.txt> is needed: {vocab}'s could not be fetched from the Hugging Face hub") from None
        if eos and f"has no {eos}" in str(error):
            raise ConfigError(f"eos={eos}: {vocab} has no such entry; give the token that ends a text") from None
        raise UserError(f"vocab={vocab}: {error}") from None


def doubts(tokenizer: Tokenizer) -> list[str]:
    """A warning where a vocabulary has the size of a known one and other entries."""
    entries = "\n".join(tokenizer.token(id) for id in range(tokenizer.vocab_size))
    if hashlib.sha256(entries.encode()).hexdigest() == DIGESTS.get(tokenizer.name) or tokenizer.name not in DIGESTS:
        return []
    return [
        f"warning: the vocabulary has as many entries as {tokenizer.name}'s and not the same ones; if the model was not trained with it, it"
        " reads and writes other characters"
    ]
