"""Raw corpora -> clean documents -> shards. Nothing here imports torch."""

from cngpt.corpus.clean import Cleaner
from cngpt.corpus.document import Document
from cngpt.corpus.prepare import clean_texts, inspect, prepare
from cngpt.corpus.readers import open_source

__all__ = ["Cleaner", "Document", "clean_texts", "inspect", "open_source", "prepare"]
