"""The group `tokenizer` of the configuration: which tokenizer, and how its vocabulary is used."""

from typing import Annotated, Literal

from cngpt.settings import Field, Hints, Settings, Text

Vocab = Annotated[
    Text | None, Field(description="its vocab.txt; null: from the Hugging Face hub"), Hints("path", "file", "vocab_file")
]
Path = Annotated[
    Text | None,
    Field(description="the folder or tokenizer.json that task=tokenizer wrote; with tokenizer=wordpiece also a vocab.txt"),
    Hints("vocab", "file", "folder", "vocab_file"),
]
Manner = Annotated[
    Literal["hf", "gpt2ml"],
    Field(description="hf: ids as `tokenizers` gives them; gpt2ml: as the code of gpt2-ml"),
    Hints("compat", "mode"),
]
Lowercase = Annotated[
    bool | None,
    Field(description="null: as the vocabulary is known to want, else if it has no entry A"),
    Hints("lower", "lower_case", "do_lower_case", "uncased"),
]
Newline = Annotated[
    bool | None,
    Field(
        description="whether the line end is a token; null: yes where the vocabulary has room for it, but no with manner=gpt2ml,"
        " whose models never saw one"
    ),
    Hints("line_end", "newlines"),
]
FoldQuotes = Annotated[
    bool, Field(description="“ ” — … ‘ ’ become what Google's Chinese vocabulary has"), Hints("quotes", "fold")
]


class Hanzi(Settings, group="tokenizer"):
    name: Literal["hanzi"] = Field("hanzi", description="bundled: GB 2312's characters, punctuation, Latin pieces; keeps case")


class Clue(Settings, group="tokenizer"):
    name: Literal["clue"] = Field("clue", description="CLUE's 8,021 WordPiece entries, lower case")
    vocab: Vocab = None
    manner: Manner = "hf"
    newline: Newline = None


class Bert(Clue):
    name: Literal["bert"] = Field("bert", description="bert-base-chinese, 21,128 WordPiece entries, lower case")
    lowercase: Lowercase = True
    fold_quotes: FoldQuotes = True


class Mbert(Settings, group="tokenizer"):
    name: Literal["mbert"] = Field(
        "mbert", description="bert-base-multilingual-cased, 119,547 WordPiece entries of 104 languages"
    )
    vocab: Vocab = None
    newline: Newline = True


class Wordpiece(Settings, group="tokenizer"):
    name: Literal["wordpiece"] = Field("wordpiece", description="any BERT vocab.txt, or what task=tokenizer wrote")
    path: Path = None
    manner: Manner = "hf"
    lowercase: Lowercase = None
    newline: Newline = None
    fold_quotes: FoldQuotes = False


class Bpe(Settings, group="tokenizer"):
    name: Literal["bpe"] = Field("bpe", description="one of your own, trained by task=tokenizer")
    path: Path = None


# by the key `name`
TOKENIZERS: dict[str, type[Settings]] = {
    kind.model_fields["name"].default: kind for kind in (Hanzi, Clue, Bert, Mbert, Wordpiece, Bpe)
}
