"""Corpora as they lie on disk -> Documents, one at a time, in the same order in every run.

A source is a mapping: `{"reader": "thucnews", "root": folder, ...}`; READERS lists the readers, each with its options. A plugin adds
one: `READERS["toy"] = ToyReader`, a subclass of Reader.
"""

from collections.abc import Mapping

from cngpt.corpus.readers.corpora import Files, NlpChineseCorpus, Reader, Thucnews
from cngpt.errors import ConfigError, nearest
from cngpt.settings import show

READERS: dict[str, type[Reader]] = {"thucnews": Thucnews, "nlp_chinese_corpus": NlpChineseCorpus, "files": Files}
HIGHEST_WEIGHT = 100


def is_weight(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= HIGHEST_WEIGHT


def weight_of(source: Mapping) -> float:
    weight = source.get("weight", 1)
    if not is_weight(weight):
        raise ConfigError(
            f"data.sources: weight={show(weight)} must be a number above 0, at most {HIGHEST_WEIGHT}:"
            " how often this source is read in one pass"
        )
    return weight


def without_weight(source: Mapping) -> dict:
    """What decides the texts of a source."""
    return {key: value for key, value in source.items() if key != "weight"}


def open_source(source: Mapping) -> Reader:
    """The reader for a source. ConfigError for an unknown reader or option, and for a root that is not there."""
    options = dict(source)
    name = options.pop("reader", None)
    if name not in READERS:
        raise ConfigError(f"data.sources: reader {name!r} is none of {', '.join(READERS)}.{nearest(str(name), READERS)}")
    reader = READERS[name]
    for key in options:
        if key not in ("root", *reader.options):
            raise ConfigError(
                f"data.sources: {name} has no option {key!r}, only {', '.join(('root', *reader.options))}."
                f"{nearest(key, reader.options)}"
            )
    return reader(**options)
