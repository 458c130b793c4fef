"""The bundled tokenizer `hanzi`: tokenizer.json, and build.py that makes it."""
