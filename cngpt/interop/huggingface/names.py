"""Names of files and keys that reading and writing must agree on."""

CONFIG, WEIGHTS, GENERATION = "config.json", "model.safetensors", "generation_config.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
# in tokenizer_config.json, because `tokenizers` keeps nothing in tokenizer.json that it does not know
KEY = "cngpt"
AGAIN = "fetch the whole model again"
