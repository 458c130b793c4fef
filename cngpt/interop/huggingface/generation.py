"""How to sample: the keys of our generation.json and those of generation_config.json."""

from dataclasses import asdict, fields

from cngpt.generation.sampling import Sampling

WITHOUT_PLACE = ("nucleus", "stop", "min_len", "join")  # what transformers cannot do
BEAMS = ("num_beams", "penalty_alpha", "typical_p", "min_p", "no_repeat_ngram_size", "length_penalty")  # what we cannot do


def to_theirs(generation: dict, n_ctx: int, eos_is_text: bool) -> tuple[dict, list[str]]:
    """(keys for generation_config.json, notes on what has no place there). `generation` may lack any key of Sampling.

    Every key that matters is written, also where it is our default: transformers has others (top_k 50, 20 tokens in all).
    """
    known = {f.name for f in fields(Sampling)}
    ours = asdict(Sampling(**{key: value for key, value in generation.items() if key in known}))
    default = asdict(Sampling())
    new = {"do_sample": ours["temperature"] > 0}
    if new["do_sample"]:
        new |= {key: ours[key] for key in ("temperature", "top_k", "top_p")}
    new["repetition_penalty"] = ours["repetition_penalty"]
    left_out = [key for key in WITHOUT_PLACE if ours[key] != default[key]]
    if ours["max_new_tokens"] < n_ctx:
        new["max_new_tokens"] = ours["max_new_tokens"]
    else:  # prompt and all: transformers goes no further than the last position
        new["max_length"] = n_ctx
    if ours["min_new_tokens"] and eos_is_text:  # there a token that ends the text is only banned where it would end it
        left_out.append("min_new_tokens")
    elif ours["min_new_tokens"]:
        new["min_new_tokens"] = ours["min_new_tokens"]
    notes = []
    if left_out:
        said = ", ".join(f"{key}={ours[key]}" for key in left_out)
        notes.append(f"generation: transformers has nothing like {said}; left out of generation_config.json")
    if ours["repetition_penalty"] != 1:
        notes.append("generation: transformers' repetition_penalty falls on the opening token too, ours only on the text")
    return new, notes


def to_ours(config: dict) -> tuple[dict, list[str]]:
    """(generation.json, notes), from the content of a generation_config.json; what it leaves to transformers' defaults is said
    with their values, but a file that does not speak of sampling at all gives no keys. Raises ConfigError for impossible values."""
    notes = []
    new = {}
    sampling = [key for key in ("temperature", "top_k", "top_p") if config.get(key) is not None]
    if config.get("do_sample"):
        theirs = {"temperature": 1.0, "top_k": 50, "top_p": 1.0}  # GenerationConfig._get_default_generation_params
        new = {key: theirs[key] if config.get(key) is None else config[key] for key in theirs}
    elif config.get("do_sample") is False or sampling:
        new = {"temperature": 0.0}  # do_sample is false by default there
    for key in ("repetition_penalty", "max_new_tokens", "min_new_tokens"):
        if config.get(key) is not None:
            new[key] = config[key]
    if config.get("max_length") is not None and "max_new_tokens" not in new:
        new["max_new_tokens"] = config["max_length"]
        notes.append(f"generation: max_length={config['max_length']} counts the prompt in transformers; taken for max_new_tokens")
    if left_out := [f"{key}={config[key]}" for key in BEAMS if config.get(key) not in (None, 0, 0.0, 1, 1.0)]:
        notes.append(f"generation: nothing here is like {', '.join(left_out)}; left out")
    Sampling(**new)
    return new, notes
