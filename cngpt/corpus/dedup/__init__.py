"""Copies, near copies and repeated lines: fingerprints of documents, then which of them go.

workers     fingerprints(texts, settings).save(unit file)              fingerprints.py
one process decide(unit files, settings, read_texts, ...) -> Decisions   decide.py
workers     without_lines(texts, decisions.lines, settings.min_line_chars)
"""
