"""Names and shapes of a model's tensors from its settings alone, as `GPT.state_dict()` has them."""

PAD_TO = 128  # the embedding has rows for a multiple of so many tokens, as in cngpt/model/gpt.py


def padded(vocab_size: int) -> int:
    """Rows of the token embedding in memory."""
    return -(-vocab_size // PAD_TO) * PAD_TO


def shapes(block: str, vocab_size: int, n_ctx: int, n_layer: int, width: int, **_) -> dict[str, tuple[int, ...]]:
    """name -> shape of every tensor, padding rows included, in the order of the state dict."""
    D = width
    found: dict[str, tuple[int, ...]] = {"tok.weight": (padded(vocab_size), D), "pos.weight": (n_ctx, D)}
    if block == "gpt2ml":
        found |= norm("ln_embed", D)
    for layer in range(n_layer):
        found |= {f"blocks.{layer}.{name}": shape for name, shape in block_shapes(block, D).items()}
    if block == "preln":
        found |= norm("ln_final", D)
    return found


def block_shapes(block: str, width: int) -> dict[str, tuple[int, ...]]:
    """The tensors of one layer."""
    D = width
    attention = linear("attn.qkv", D, 3 * D) | linear("attn.out", D, D)
    mlp = linear("mlp.up", D, 4 * D) | linear("mlp.down", 4 * D, D)
    if block == "gpt2ml":
        return attention | norm("ln0", D) | mlp | norm("ln1", D)
    return norm("ln1", D) | attention | norm("ln2", D) | mlp


def linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def count(tensors: dict[str, tuple[int, ...]]) -> int:
    """Numbers in all of them."""
    total = 0
    for shape in tensors.values():
        size = 1
        for n in shape:
            size *= n
        total += size
    return total
