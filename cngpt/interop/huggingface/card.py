"""The model card, README.md: what the model is, how to load it, and where transformers does otherwise than cngpt."""

from typing import TYPE_CHECKING

from cngpt.tokens import Tokenizer

if TYPE_CHECKING:
    from cngpt.model.gpt import GPT

CARD = """---
{language}library_name: transformers
pipeline_tag: text-generation
tags:
{tags}
---

# {title}

A {kind}, exported with cngpt for transformers.

| | |
|---|---|
| parameters | {parameters:,} |
| shape | block `{shape.block}`, {shape.n_layer} layers, {shape.n_head} heads, width {shape.width}, context {shape.n_ctx} tokens |
| tokenizer | `{tokenizer.name}`, {tokenizer.vocab_size:,} entries |
{steps}
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{title}"{trust})
model = AutoModelForCausalLM.from_pretrained("{title}"{trust})
inputs = tokenizer("{prompt}", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True))
```

How it samples is in `generation_config.json`; control tokens never come (`suppress_tokens`).

## What differs from cngpt

{differences}
"""


def model_card(title: str, gpt: "GPT", step: int | None, tokenizer: Tokenizer, trust: bool, notes: list[str]) -> str:
    """Markdown with the YAML header that the Hugging Face hub reads. `title`: the name to load it by; `trust`: its code comes with
    it; `notes`: one line each."""
    chinese = is_chinese(tokenizer)
    tags = ["gpt2", *(["chinese"] if chinese else []), "cngpt", *(["custom_code"] if trust else [])]
    return CARD.format(
        title=title,
        language="language: zh\n" if chinese else "",
        tags="\n".join(f"- {tag}" for tag in tags),
        kind="Chinese GPT-2" if chinese else "GPT-2",
        prompt="双十一" if chinese else "The",
        parameters=gpt.num_parameters(),
        shape=gpt.shape,
        tokenizer=tokenizer,
        steps="" if step is None else f"| trained for | {step:,} steps |\n",
        trust=", trust_remote_code=True" if trust else "",
        differences="\n".join(f"- {line[0].upper()}{line[1:]}." for line in _differences(gpt.shape.n_ctx, tokenizer) + notes),
    )


def is_chinese(tokenizer: Tokenizer) -> bool:
    """Whether most tokens with letters have Chinese ones: what is known of the language of a model that came from anywhere."""
    words = [tokenizer.decode([id]) for id in range(tokenizer.vocab_size) if id in tokenizer]
    words = [word for word in words if any(map(str.isalpha, word))]
    return 2 * sum(any("\u3400" <= c <= "\u9fff" for c in word) for word in words) > len(words)


def _differences(n_ctx: int, tokenizer: Tokenizer) -> list[str]:
    """From cngpt, of every model."""
    opening = (
        "nothing is put before a prompt, since the training rows began with the text itself;"
        " an empty prompt has to be given as the end token's id"
    )
    if tokenizer.opening_id is not None:
        opening = (
            f"a text begins with `{tokenizer.token(tokenizer.opening_id)}`, which the tokenizer puts first by itself, in"
            ' `pipeline("text-generation")` too; with `add_special_tokens=False` the model goes on as in the middle of a text'
        )
    unknown = (
        "decoded text has no spaces in Chinese, but is cruder about those around English punctuation, and shows `[UNK]` or,"
        " with `skip_special_tokens`, nothing where cngpt shows □"
    )
    return [
        opening,
        f"prompt and new tokens together must fit into {n_ctx} tokens; cngpt goes on from the last half of the context",
        "a seed gives other samples than in cngpt; greedy texts are the same (`do_sample=False`), rounding apart",
        "a lone surrogate in a text is an error; cngpt reads it as U+FFFD",
        *([] if tokenizer.unk_id is None else [unknown]),
    ]
