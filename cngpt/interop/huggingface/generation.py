"""How to sample: the keys of our generation.json and those of generation_config.json."""

from cngpt.generation.settings import Sampling, saved_defaults

# keys of Sampling that transformers has nothing like
ONLY_OURS = ("compat", "min_len")
# keys of transformers that Sampling has nothing like
ONLY_THEIRS = ("num_beams", "penalty_alpha", "typical_p", "min_p", "no_repeat_ngram_size", "length_penalty")


def to_transformers(generation: dict, n_ctx: int, eos_is_text: bool) -> tuple[dict, list[str]]:
    """(keys for generation_config.json, notes on what it has no key for). `generation` may lack any key of Sampling.

    Every key that matters is written, also where it is our default: transformers has others (top_k 50, 20 tokens in all).
    """
    defaults = vars(Sampling())
    ours = vars(Sampling(**{key: value for key, value in saved_defaults(generation).items() if key in defaults}))
    left_out = [f"{key}={ours[key]}" for key in ONLY_OURS if ours[key] != defaults[key]]
    config = {"do_sample": ours["temperature"] > 0}
    if config["do_sample"]:
        config |= {key: ours[key] for key in ("temperature", "top_k", "top_p")}
    config["repetition_penalty"] = ours["repetition_penalty"]
    # transformers goes no further than the last position, prompt and all
    fits = ours["max_new_tokens"] < n_ctx
    config |= {"max_new_tokens": ours["max_new_tokens"]} if fits else {"max_length": n_ctx}
    # there an end of text that is text as well would be banned only where it would end it
    if ours["min_new_tokens"] and eos_is_text:
        left_out.append(f"min_new_tokens={ours['min_new_tokens']}")
    elif ours["min_new_tokens"]:
        config["min_new_tokens"] = ours["min_new_tokens"]
    notes = []
    if left_out:
        notes.append(f"generation: transformers has nothing like {', '.join(left_out)}; left out of generation_config.json")
    if ours["repetition_penalty"] != 1:
        notes.append("generation: transformers' repetition_penalty falls on the opening token too, ours only on the text")
    return config, notes


def from_transformers(config: dict) -> tuple[dict, list[str]]:
    """(generation.json, notes), from the content of a generation_config.json. What it leaves to transformers' defaults is written
    with their values, but a file without any key of sampling gives none. Raises ConfigError for impossible values."""
    config = {key: value for key, value in config.items() if value is not None}
    generation, notes = {}, []
    if config.get("do_sample"):
        # GenerationConfig._get_default_generation_params
        defaults = {"temperature": 1.0, "top_k": 50, "top_p": 1.0}
        generation = {key: config.get(key, default) for key, default in defaults.items()}
    elif config.keys() & {"do_sample", "temperature", "top_k", "top_p"}:
        # do_sample is false by default there
        generation = {"temperature": 0.0}
    generation |= {key: config[key] for key in ("repetition_penalty", "max_new_tokens", "min_new_tokens") if key in config}
    if "max_length" in config and "max_new_tokens" not in config:
        generation["max_new_tokens"] = config["max_length"]
        notes.append(f"generation: max_length={config['max_length']} counts the prompt in transformers; taken for max_new_tokens")
    if left_out := [f"{key}={config[key]}" for key in ONLY_THEIRS if config.get(key) not in (None, 0, 0.0, 1, 1.0)]:
        notes.append(f"generation: nothing here is like {', '.join(left_out)}; left out")
    Sampling(**generation)
    return generation, notes
