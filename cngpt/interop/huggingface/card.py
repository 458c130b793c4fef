"""The model card, README.md: what the model is, how to load it, and where transformers does otherwise than cngpt."""

from cngpt.tokens import Tokenizer

HEADER = """---
language: zh
library_name: transformers
pipeline_tag: text-generation
tags:
{tags}
---
"""

BODY = """
# {title}

A Chinese GPT-2, trained with cngpt and exported for transformers.

| | |
|---|---|
| parameters | {parameters:,} |
| shape | block `{block}`, {n_layer} layers, {n_head} heads, width {width}, context {n_ctx} tokens |
| tokenizer | `{tokenizer}`, {vocab:,} entries |
| trained for | {steps} |

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}"{trust})
model = AutoModelForCausalLM.from_pretrained("{folder}"{trust})
inputs = tokenizer("双十一", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True))
```

How it samples is in `generation_config.json`; control tokens never come (`suppress_tokens`).

## What differs from cngpt

{differences}
"""


def model_card(
    folder: str, shape: dict, parameters: int, step: int | None, tokenizer: Tokenizer, trust: bool, notes: list[str]
) -> str:
    """Markdown with the YAML header that the Hugging Face hub reads. `folder`: the name to load it by; `notes`: one line each."""
    tags = ["gpt2", "chinese", "cngpt", *(["custom_code"] if trust else [])]
    return HEADER.format(tags="\n".join(f"- {tag}" for tag in tags)) + BODY.format(
        title=folder,
        folder=folder,
        parameters=parameters,
        tokenizer=tokenizer.name,
        vocab=tokenizer.vocab_size,
        steps="an unknown number of steps" if step is None else f"{step:,} steps",
        trust=", trust_remote_code=True" if trust else "",
        differences="\n".join(f"- {note[0].upper()}{note[1:]}." for note in [*_always(shape["n_ctx"], tokenizer), *notes]),
        **{key: shape[key] for key in ("block", "n_layer", "n_head", "width", "n_ctx")},
    )


def _always(n_ctx: int, tokenizer: Tokenizer) -> list[str]:
    lines = []
    if tokenizer.opening_id is None:
        lines.append(
            "nothing is put before a prompt, since the training rows began with the text itself;"
            " an empty prompt has to be given as the end token's id"
        )
    else:
        lines.append(
            f"a text begins with `{tokenizer.token(tokenizer.opening_id)}`, which the tokenizer puts first by itself, in"
            ' `pipeline("text-generation")` too; with `add_special_tokens=False` the model goes on as in the middle of a text'
        )
    lines += [
        f"prompt and new tokens together must fit into {n_ctx} tokens; cngpt goes on from the last half of the context",
        "a seed gives other samples than in cngpt; greedy texts are the same (`do_sample=False`), rounding apart",
        "a lone surrogate in a text is an error; cngpt reads it as U+FFFD",
    ]
    if tokenizer.unk_id is not None:
        lines.append(
            "decoded text has no spaces in Chinese, but is cruder about those around English punctuation, and shows `[UNK]` or,"
            " with `skip_special_tokens`, nothing where cngpt shows □"
        )
    return lines
