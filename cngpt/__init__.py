"""Chinese GPT-2: raw corpora in; trained models, stories and shareable checkpoints out.

    gpt, tokenizer = cngpt.load("runs/tiny/model")
    print(cngpt.generate(gpt, tokenizer, ["双十一"], top_p=0.95)[0])
    logits = gpt(ids)   # (B, T) int64 -> (B, T, V)

Everything is imported when it is first needed: `import cngpt` alone takes milliseconds.
"""

__version__ = "0.1.0"
__all__ = ["generate", "load", "load_tokenizer"]


def load(path, device="cpu"):
    """(model, tokenizer) from a model directory, a training checkpoint or a run directory; see `cngpt.checkpoints.load`."""
    from cngpt.checkpoints import load

    return load(path, device)


def load_tokenizer(name_or_path, **how):
    """A tokenizer: "hanzi", which is bundled, another name, or a file; see `cngpt.tokens.load_tokenizer`."""
    from cngpt.tokens import load_tokenizer

    return load_tokenizer(name_or_path, **how)


def generate(model, tokenizer, prompts, n: int = 1, **sampling) -> list[str]:
    """`n` texts for each prompt, one after another, prompts included; `sampling` as in `cngpt.generation.Sampling`."""
    from cngpt.generation import Engine, Sampling

    prompts, how = [prompts] if isinstance(prompts, str) else prompts, Sampling(**sampling)
    stories = Engine(model, tokenizer).generate(prompts, n, how)
    return [story.text for of_prompt in stories for story in of_prompt]
