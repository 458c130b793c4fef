"""Copies, near copies and repeated lines: fingerprints of documents, then which of them go.

workers     fingerprints(texts, settings).save(unit file)              fingerprints.py
one process decide(unit files, settings, read_texts, ...) -> Decisions   decide.py
workers     without_lines(texts, decisions.lines, settings.min_line_chars)
"""

from cngpt.corpus.dedup.decide import Decisions, decide
from cngpt.corpus.dedup.fingerprints import Fingerprints, FingerprintWriter, fingerprints, without_lines
from cngpt.corpus.dedup.settings import EXACT, KEEP, NEAR, Dedup

__all__ = [
    "EXACT",
    "KEEP",
    "NEAR",
    "Decisions",
    "Dedup",
    "FingerprintWriter",
    "Fingerprints",
    "decide",
    "fingerprints",
    "without_lines",
]
