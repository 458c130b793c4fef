"""Parameters and arithmetic of a model from its shape alone."""


def parameters(block: str, vocab_size: int, n_ctx: int, n_layer: int, width: int, **_) -> int:
    """Trainable numbers, the tied head counted once.

    A layer has 12 D^2 weights (qkv 3, out 1, mlp 4 + 4), 9 D biases and two norms of 2 D; one more norm stands
    after the last layer (preln) or on the embeddings (gpt2ml).
    """
    return (vocab_size + n_ctx) * width + n_layer * (12 * width**2 + 13 * width) + 2 * width


def flops_per_token(block: str, vocab_size: int, n_ctx: int, n_layer: int, width: int, **_) -> int:
    """Floating-point operations of forward and backward for one token, as in PaLM (Chowdhery et al. 2022, appendix B).

    6 a parameter that multiplies (the position table does not, the tied head does), and 12 n_layer width n_ctx for the
    products of attention, counted without the saving that causality allows.
    """
    matmul = parameters(block, vocab_size, n_ctx, n_layer, width) - n_ctx * width
    return 6 * matmul + 12 * n_layer * width * n_ctx
