"""What a model is made of, without torch: its shape, its tensors by name and size, its parameters and arithmetic.

Letters: D width, V vocabulary, Vp rows of the token embedding in memory, T n_ctx.
"""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import model_validator

from cngpt.settings import Field, Hints, OneOf, Positive, Settings

Tensors = dict[str, tuple[int, ...]]  # name -> size, in the order of `GPT.state_dict()`

# the embedding has rows for a multiple of so many tokens: faster matrix products
PAD_TO = 128
EMBEDDING = "tok.weight"


def linear(name: str, inputs: int, outputs: int) -> Tensors:
    """A projection with a bias."""
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def layer_norm(name: str, width: int) -> Tensors:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


class Layout:
    """What is particular to a block, for whoever reckons without torch; `gpt.py` has the module of the same name."""

    attention_dropout: ClassVar[bool]  # dropout on the probabilities of attention
    embedding_dropout: ClassVar[bool]
    # numbers a token that the backward pass needs, as multiples of D: in the type of the products, in attention and in the MLP ...
    saved_by_attention: ClassVar[int]
    saved_by_mlp: ClassVar[int]
    # ... and in the type of the residual stream
    saved_sums: ClassVar[int]
    # matrices that tensor parallelism cuts: by their outputs, and by their inputs
    cut_by_columns: ClassVar[tuple[str, ...]]
    cut_by_rows: ClassVar[tuple[str, ...]]
    # tensors that multiply nothing, such as a table of positions: they cost no arithmetic
    looked_up: ClassVar[tuple[str, ...]]

    @staticmethod
    def before(shape: "Shape") -> Tensors:
        """The tensors between the token embedding and the first block."""
        raise NotImplementedError

    @staticmethod
    def block(shape: "Shape") -> Tensors:
        """The tensors of one block."""
        raise NotImplementedError

    @staticmethod
    def after(shape: "Shape") -> Tensors:
        """The tensors behind the last block."""
        raise NotImplementedError

    @staticmethod
    def mlp_width(shape: "Sizes") -> int:
        """Numbers a token inside the MLP: what tensor parallelism must divide."""
        raise NotImplementedError


class _Gpt2Layout(Layout):
    """What both GPT-2 blocks share: queries, keys and values in one matrix, an MLP of 4 D, biases everywhere."""

    saved_by_attention, saved_by_mlp, saved_sums = 6, 8, 2
    cut_by_columns, cut_by_rows = ("mlp.up",), ("mlp.down",)
    looked_up = ("pos.weight",)

    @staticmethod
    def mlp_width(shape: "Sizes") -> int:
        return 4 * shape.width


class PreLNLayout(_Gpt2Layout):
    attention_dropout, embedding_dropout = True, True

    @staticmethod
    def before(shape: "Shape") -> Tensors:
        return {"pos.weight": (shape.n_ctx, shape.width)}

    @staticmethod
    def block(shape: "Shape") -> Tensors:
        D = shape.width
        attention = linear("attn.qkv", D, 3 * D) | linear("attn.out", D, D)
        mlp = linear("mlp.up", D, 4 * D) | linear("mlp.down", 4 * D, D)
        return layer_norm("ln1", D) | attention | layer_norm("ln2", D) | mlp

    @staticmethod
    def after(shape: "Shape") -> Tensors:
        return layer_norm("ln_final", shape.width)


class Gpt2mlLayout(_Gpt2Layout):
    attention_dropout, embedding_dropout = False, False

    @staticmethod
    def before(shape: "Shape") -> Tensors:
        return {"pos.weight": (shape.n_ctx, shape.width)} | layer_norm("ln_embed", shape.width)

    @staticmethod
    def block(shape: "Shape") -> Tensors:
        D = shape.width
        attention = linear("attn.qkv", D, 3 * D) | linear("attn.out", D, D)
        mlp = linear("mlp.up", D, 4 * D) | linear("mlp.down", 4 * D, D)
        return attention | layer_norm("ln0", D) | mlp | layer_norm("ln1", D)

    @staticmethod
    def after(shape: "Shape") -> Tensors:
        return {}


# name of a block -> its layout; `gpt.BLOCKS` has its module
LAYOUTS: dict[str, type[Layout]] = {"preln": PreLNLayout, "gpt2ml": Gpt2mlLayout}


class Sizes(Settings, group="model"):
    """What is chosen of a model, the vocabulary apart, which comes with the tokenizer."""

    block: Annotated[str, OneOf(LAYOUTS)] = Field(description="the kind of block that the model is a stack of")
    n_ctx: Annotated[Positive, Hints("context", "block_size", "seq_len", "n_positions")] = Field(
        description="tokens that it sees at once"
    )
    n_layer: Annotated[Positive, Hints("layers", "num_layers", "depth")] = Field(description="blocks")
    n_head: Annotated[Positive, Hints("heads", "num_heads")] = Field(description="heads of attention in a block")
    width: Annotated[Positive, Hints("n_embd", "hidden_size", "d_model", "dim")] = Field(
        description="numbers a token between blocks"
    )
    dropout: float = Field(0.0, ge=0, le=0.99, description="share of activations that a training step drops")
    initializer_range: float = Field(0.02, gt=0, description="standard deviation of fresh weights")

    @property
    def layout(self) -> type[Layout]:
        return LAYOUTS[self.block]

    @model_validator(mode="after")
    def _heads_divide_the_width(self):
        if self.width % self.n_head:
            dividing = [n for n in range(1, self.width + 1) if self.width % n == 0]
            nearest_two = sorted(sorted(dividing, key=lambda n: abs(n - self.n_head))[:2])
            raise ValueError(
                f"{self.key('width')}={self.width} does not divide into {self.key('n_head')}={self.n_head} heads;"
                f" nearest n_head: {', '.join(map(str, nearest_two))}"
            )
        return self


class Shape(Sizes):
    """What decides the tensors and the arithmetic of a model; saved as `config.json`."""

    vocab_size: Positive = Field(description="entries of the vocabulary")

    def as_dict(self) -> dict:
        return self.model_dump()

    @property
    def rows(self) -> int:
        """Vp: rows of the token embedding in memory."""
        return padded(self.vocab_size)


def padded(vocab_size: int) -> int:
    """Rows of the token embedding in memory for so many entries."""
    return -(-vocab_size // PAD_TO) * PAD_TO


def tensors(shape: Shape, padding: bool = True) -> Tensors:
    """Every tensor of the model, in the order of the state dict; `padding`: with the padding rows, as in memory, not as in a file."""
    rows = shape.rows if padding else shape.vocab_size
    layers = {f"blocks.{n}.{name}": size for n in range(shape.n_layer) for name, size in shape.layout.block(shape).items()}
    return {EMBEDDING: (rows, shape.width)} | shape.layout.before(shape) | layers | shape.layout.after(shape)


def count(sizes: Mapping[str, tuple[int, ...]]) -> int:
    """Numbers in all of these tensors."""
    return sum(math.prod(size) for size in sizes.values())


def parameters(shape: Shape) -> int:
    """Trainable numbers, the tied head counted once, the padding not at all."""
    return count(tensors(shape, padding=False))


def flops_per_token(shape: Shape) -> int:
    """Floating-point operations of forward and backward for one token, as in PaLM (Chowdhery et al. 2022, appendix B).

    6 a parameter that multiplies (a table of positions does not, the tied head does), and 12 n_layer width n_ctx for the
    products of attention, counted without the saving that causality allows.
    """
    sizes = tensors(shape, padding=False)
    multiplies = count(sizes) - count({name: sizes[name] for name in shape.layout.looked_up})
    return 6 * multiplies + 12 * shape.n_layer * shape.width * shape.n_ctx


def cut_axis(shape: Shape, name: str) -> int | None:
    """Along which dimension tensor parallelism cuts a tensor of the model; None where each device has all of it.

    A matrix cut by its inputs has a whole bias: it is added once, to the sum.
    """
    module, _, kind = name.rpartition(".")
    module = module.partition(".")[2].partition(".")[2] if name.startswith("blocks.") else ""
    if module in shape.layout.cut_by_columns:
        return 0
    return 1 if module in shape.layout.cut_by_rows and kind == "weight" else None
