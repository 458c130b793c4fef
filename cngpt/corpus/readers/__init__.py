"""Corpora as they lie on disk -> Documents, one at a time, in the same order in every run.

A source is a mapping: `{"reader": "thucnews", "root": folder, ...}`; READERS lists the readers, each with its options.
"""

from collections.abc import Mapping

from cngpt.corpus.readers.corpora import Files, NlpChineseCorpus, Reader, Thucnews
from cngpt.errors import ConfigError, nearest

READERS: dict[str, type[Reader]] = {"thucnews": Thucnews, "nlp_chinese_corpus": NlpChineseCorpus, "files": Files}


def open_source(source: Mapping) -> Reader:
    """The reader for a source. ConfigError for an unknown reader or option, and for a root that is not there."""
    options = dict(source)
    name = options.pop("reader", None)
    if name not in READERS:
        raise ConfigError(f"data.sources: reader {name!r} is none of {', '.join(READERS)}.{nearest(str(name), READERS)}")
    kind = READERS[name]
    for key in options:
        if key not in ("root", *kind.options):
            raise ConfigError(
                f"data.sources: {name} has no option {key!r}, only {', '.join(('root', *kind.options))}."
                f"{nearest(key, kind.options)}"
            )
    return kind(**options)
