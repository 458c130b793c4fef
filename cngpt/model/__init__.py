"""Token ids to logits: the shape of a model without torch (`shape`), the GPT-2 block stack (`gpt`), its cache (`cache`)."""
