"""The bundled tokenizer `hanzi`: tokenizer.json, and build.py that makes it, from english.txt among others."""

from pathlib import Path

FILE = Path(__file__).with_name("tokenizer.json")
SIZE = 8_704  # entries: 68 x 128, so that a model's padded vocabulary has no empty rows
