"""The tokenizer of a model of gpt2-ml: ids as its own code gave them, no line ends, its end of text."""

from cngpt.errors import UserError
from cngpt.tokens import Tokenizer, load_tokenizer
from cngpt.tokens.load import KNOWN

SIZES = {of.entries: name for name, of in KNOWN.items()} | {21_130: "bert"}  # the 15 GB release has two rows to spare


def tokenizer_for(vocab: str | None, rows: int | None, eos: str | None) -> Tokenizer:
    """vocab: a vocab.txt, `clue` or `bert`; None: the one that goes with an embedding of `rows`, from the Hugging Face hub.

    eos: the token that ends a text; None: as in the seed's demo, 。 with Google's 21,128 entries, else [SEP]. Raises UserError for
    what is missing or does not fit into `rows`.
    """
    if vocab is None and rows not in SIZES:
        raise UserError("vocab=... is needed: the vocab.txt that the model was trained with")
    how = {"manner": "gpt2ml", "newline": False}
    if vocab is None or vocab in KNOWN:
        name, path = vocab or SIZES[rows], None
    else:
        name, path = SIZES.get(load_tokenizer(vocab, **how).vocab_size, vocab), vocab
    if eos is None and name == "bert":
        eos = "。"
    tokenizer = load_tokenizer(name, vocab=path if name in KNOWN else None, eos=eos, **how)
    if rows is not None and tokenizer.vocab_size > rows:
        raise UserError(
            f"vocab={vocab or name}: {tokenizer.vocab_size:,} entries, and the model has {rows:,}: it is another model's vocabulary"
        )
    return tokenizer
