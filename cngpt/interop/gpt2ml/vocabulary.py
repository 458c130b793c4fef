"""The tokenizer of a model of gpt2-ml: ids as its own code gave them, no line ends, its end of text."""

from pathlib import Path

from cngpt.errors import UserError
from cngpt.tokens import Tokenizer, load_tokenizer
from cngpt.tokens.load import KNOWN

SPARE = 128  # rows of an embedding that may have no token: some trainers round up
SIZES = {of.entries: name for name, of in KNOWN.items()} | {21_130: "bert"}  # the 15 GB release has two rows to spare


def tokenizer_for(vocab: str | None, rows: int | None, eos: str | None) -> Tokenizer:
    """vocab: a vocab.txt, `clue` or `bert`; None: the one that goes with an embedding of `rows`, from the Hugging Face hub.

    eos: the token that ends a text; None: as in the seed's demo, 。 with Google's 21,128 entries, else [SEP]. Raises UserError for
    what is missing or does not fit into `rows`.
    """
    if vocab is None and rows not in SIZES:
        raise UserError("vocab=... is needed: the vocab.txt that the model was trained with")
    how = {"manner": "gpt2ml", "newline": False}
    if vocab is not None and vocab not in KNOWN and (not Path(vocab).is_file() or vocab.endswith(".json")):
        raise UserError(f"vocab={vocab}: must be {', '.join(KNOWN)} or a vocab.txt that is there")
    try:
        name = vocab or SIZES[rows]
        path = None if name in KNOWN else vocab
        if path:
            name = SIZES.get(load_tokenizer(path, **how).vocab_size, path)
        tokenizer = load_tokenizer(
            name, vocab=path if name in KNOWN else None, eos=eos or ("。" if name == "bert" else None), **how
        )
    except UserError as error:
        if "Hugging Face hub failed" in str(error):
            raise UserError(f"vocab=<vocab.txt> is needed: {name}'s could not be fetched from the Hugging Face hub") from None
        raise UserError(f"vocab={vocab}: {error}") from None
    if rows is not None and not 0 <= rows - tokenizer.vocab_size <= SPARE:
        raise UserError(
            f"vocab={vocab or name}: {tokenizer.vocab_size:,} entries, and the model has {rows:,}: it is another model's vocabulary"
        )
    return tokenizer
