"""GPT-2 in two sibling blocks: `PreLN` (OpenAI's GPT-2) and `Gpt2ml` (imcaspar/gpt2-ml's, from Grover).

Letters: B batch, T new tokens, S all tokens so far, D width, H heads, K = D/H, V vocabulary.

    PreLN    tok + pos, dropout     x + attn(LN(x)), then x + mlp(LN(x))           tanh GELU   final LN
    Gpt2ml   LN(tok + pos)          h = x + attn(x), then LN1(h + mlp(LN0(h)))     erf GELU    no final LN

Both learn their positions, tie the head to the token embedding, and have a bias in every projection but the head.
The embedding has rows for a multiple of 128 tokens (faster matrix products); logits and files never show the padding.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cngpt.model.cache import Cache
from cngpt.model.shape import Shape

LN_EPS = 1e-5


class Attention(nn.Module):
    def __init__(self, s: Shape, dropout_on_probabilities: bool):
        super().__init__()
        self.n_head = s.n_head
        self.dropout = s.dropout if dropout_on_probabilities else 0.0
        self.qkv = nn.Linear(s.width, 3 * s.width)
        self.out = nn.Linear(s.width, s.width)

    def forward(self, x: Tensor, layer: int, mask: Tensor | None, cache: Cache | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D); each position sees itself and its past. `mask` as in `Cache.mask`."""
        B, T, D = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, D // self.n_head).permute(2, 0, 3, 1, 4)  # each (B, H, T, K)
        if cache is not None:
            k, v = cache.write(layer, k, v)
        p = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p, is_causal=cache is None)
        return self.out(y.transpose(1, 2).reshape(B, T, D))


class MLP(nn.Module):
    def __init__(self, s: Shape, gelu: Callable[[Tensor], Tensor]):
        super().__init__()
        self.up = nn.Linear(s.width, 4 * s.width)
        self.down = nn.Linear(4 * s.width, s.width)
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.down(self.gelu(self.up(x)))


def gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


class Block(nn.Module):
    """One layer, and what the model is before the first and behind the last: all that is particular to a kind of block.

    `shape.LAYOUTS` has its tensors by name and size under the same name.
    """

    def forward(self, x: Tensor, layer: int, positions: Tensor, mask: Tensor | None, cache: Cache | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D). positions: (T,) or (B, T) of the new tokens; `mask` as in `Cache.mask`."""
        raise NotImplementedError

    @staticmethod
    def before(s: Shape) -> dict[str, nn.Module]:
        """Modules between the token embedding and the first block; the model has them under these names."""
        raise NotImplementedError

    @staticmethod
    def after(s: Shape) -> dict[str, nn.Module]:
        """Modules behind the last block."""
        raise NotImplementedError

    @staticmethod
    def embed(gpt: "GPT", ids: Tensor, positions: Tensor) -> Tensor:
        """(B, T) -> (B, T, D)."""
        raise NotImplementedError

    @staticmethod
    def finish(gpt: "GPT", x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D): what the head multiplies."""
        raise NotImplementedError

    def init_weights(self, s: Shape) -> None:
        """Draws the matrices of this layer; biases and norms have been set."""
        raise NotImplementedError

    @staticmethod
    def init_embedding(weight: Tensor, s: Shape) -> None:
        """Draws a table of embeddings: of tokens, of positions."""
        raise NotImplementedError


class PreLN(Block):
    """OpenAI's block: the residual stream is never normalised, each branch is."""

    def __init__(self, s: Shape):
        super().__init__()
        self.ln1 = nn.LayerNorm(s.width, eps=LN_EPS)
        self.attn = Attention(s, dropout_on_probabilities=True)
        self.ln2 = nn.LayerNorm(s.width, eps=LN_EPS)
        self.mlp = MLP(s, gelu_tanh)
        self.drop = nn.Dropout(s.dropout)

    def forward(self, x: Tensor, layer: int, positions: Tensor, mask: Tensor | None, cache: Cache | None = None) -> Tensor:
        x = x + self.drop(self.attn(self.ln1(x), layer, mask, cache))
        return x + self.drop(self.mlp(self.ln2(x)))

    @staticmethod
    def before(s: Shape) -> dict[str, nn.Module]:
        return {"pos": nn.Embedding(s.n_ctx, s.width), "drop": nn.Dropout(s.dropout)}

    @staticmethod
    def after(s: Shape) -> dict[str, nn.Module]:
        return {"ln_final": nn.LayerNorm(s.width, eps=LN_EPS)}

    @staticmethod
    def embed(gpt: "GPT", ids: Tensor, positions: Tensor) -> Tensor:
        return gpt.drop(gpt.tok(ids) + gpt.pos(positions))

    @staticmethod
    def finish(gpt: "GPT", x: Tensor) -> Tensor:
        return gpt.ln_final(x)

    def init_weights(self, s: Shape) -> None:
        """Radford et al. 2019: normal 0.02, the two projections into the residual stream divided by sqrt(2 n_layer)."""
        for linear in (self.attn.qkv, self.mlp.up):
            nn.init.normal_(linear.weight, std=s.initializer_range)
        for linear in (self.attn.out, self.mlp.down):
            nn.init.normal_(linear.weight, std=s.initializer_range / math.sqrt(2 * s.n_layer))

    @staticmethod
    def init_embedding(weight: Tensor, s: Shape) -> None:
        nn.init.normal_(weight, std=s.initializer_range)


class Gpt2ml(Block):
    """The seed's block (its modeling.py): no norm before attention, the MLP's sum normalised before and after."""

    def __init__(self, s: Shape):
        super().__init__()
        self.attn = Attention(s, dropout_on_probabilities=False)
        self.ln0 = nn.LayerNorm(s.width, eps=LN_EPS)
        self.mlp = MLP(s, F.gelu)
        self.ln1 = nn.LayerNorm(s.width, eps=LN_EPS)
        self.drop = nn.Dropout(s.dropout)

    def forward(self, x: Tensor, layer: int, positions: Tensor, mask: Tensor | None, cache: Cache | None = None) -> Tensor:
        h = x + self.drop(self.attn(x, layer, mask, cache))
        return self.ln1(h + self.drop(self.mlp(self.ln0(h))))

    @staticmethod
    def before(s: Shape) -> dict[str, nn.Module]:
        return {"pos": nn.Embedding(s.n_ctx, s.width), "ln_embed": nn.LayerNorm(s.width, eps=LN_EPS)}

    @staticmethod
    def after(s: Shape) -> dict[str, nn.Module]:
        return {}

    @staticmethod
    def embed(gpt: "GPT", ids: Tensor, positions: Tensor) -> Tensor:
        return gpt.ln_embed(gpt.tok(ids) + gpt.pos(positions))

    @staticmethod
    def finish(gpt: "GPT", x: Tensor) -> Tensor:
        return x

    def init_weights(self, s: Shape) -> None:
        """Truncated normal: `initializer_range` in attention, 0.02 in the MLP whatever the range."""
        for linear in (self.attn.qkv, self.attn.out):
            truncated_normal_(linear.weight, s.initializer_range)
        for linear in (self.mlp.up, self.mlp.down):
            truncated_normal_(linear.weight, 0.02)

    @staticmethod
    def init_embedding(weight: Tensor, s: Shape) -> None:
        truncated_normal_(weight, s.initializer_range)


@torch.no_grad()
def truncated_normal_(weight: Tensor, std: float) -> None:
    """As TensorFlow's: values beyond two standard deviations are drawn again. Here and not by torch.nn.init, which makes other
    weights of the same seed in torch 2.9 than in 2.13."""
    weight.normal_(std=std)
    while (beyond := weight.abs() > 2 * std).any():
        weight.copy_(torch.where(beyond, torch.empty_like(weight).normal_(std=std), weight))


# name of a block -> its module; `shape.LAYOUTS` has its layout
BLOCKS: dict[str, type[Block]] = {"preln": PreLN, "gpt2ml": Gpt2ml}


class GPT(nn.Module):
    """Token ids to logits of the next token. `activation_checkpointing` trades a second forward pass for memory."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = s = shape
        self.activation_checkpointing = False
        # a strategy may have one of its own
        self.checkpoint = partial(checkpoint, use_reentrant=False)
        self.kind = BLOCKS[s.block]
        self.tok = nn.Embedding(s.rows, s.width)
        for name, module in self.kind.before(s).items():
            self.add_module(name, module)
        self.blocks = nn.ModuleList(self.kind(s) for _ in range(s.n_layer))
        for name, module in self.kind.after(s).items():
            self.add_module(name, module)

    def init_weights(self) -> "GPT":
        """Fresh weights as the block's authors drew them; biases and the padding rows are zero, norms one."""
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
            if isinstance(module, nn.LayerNorm | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            block.init_weights(self.shape)
        for module in self.children():
            if isinstance(module, nn.Embedding):
                self.kind.init_embedding(module.weight, self.shape)
        with torch.no_grad():
            self.tok.weight[self.shape.vocab_size :].zero_()
        return self

    def forward(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """(B, T) int64 -> (B, T, V); with a cache, `ids` continue what it holds."""
        T, past = ids.shape[1], 0 if cache is None else cache.length
        limit = self.shape.n_ctx if cache is None else cache.size
        if past + T > limit:
            raise ValueError(f"{past + T} tokens, and the {'context' if cache is None else 'cache'} holds {limit}")
        positions = torch.arange(T, device=ids.device) if cache is None else cache.positions(T, ids.device)
        mask = None if cache is None else cache.mask(T, ids.device)
        x = self.kind.embed(self, ids, positions)
        for layer, block in enumerate(self.blocks):
            if self.activation_checkpointing and self.training:
                x = self.checkpoint(block, x, layer, positions, mask, cache)
            else:
                x = block(x, layer, positions, mask, cache)
        if cache is not None:
            cache.advance(T)
        return F.linear(self.kind.finish(self, x), self.tok.weight)[..., : self.shape.vocab_size]

    def num_parameters(self) -> int:
        """Trainable numbers, the tied head counted once, the padding not at all."""
        padding = (self.tok.num_embeddings - self.shape.vocab_size) * self.shape.width
        return sum(p.numel() for p in self.parameters()) - padding
