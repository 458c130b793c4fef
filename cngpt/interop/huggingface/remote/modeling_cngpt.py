"""The GPT-2 of imcaspar/gpt2-ml (its modeling.py, after Grover's) for transformers: config and model in one file.

cngpt writes this file beside the weights; it needs torch and transformers alone and is loaded with trust_remote_code=True.
Letters: B batch, T new tokens, S all tokens so far, D width, H heads, K = D/H, V vocabulary.

    x = LN(tok + pos)      a layer: h = x + attn(x), then x = LN1(h + mlp(LN0(h))), erf GELU      logits = x tok^T
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

LN_EPS = 1e-5


class Gpt2mlConfig(PretrainedConfig):
    model_type = "gpt2ml"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012
    attribute_map = {  # noqa: RUF012
        "hidden_size": "width",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_ctx",
    }

    def __init__(
        self,
        vocab_size=8021,
        n_ctx=1024,
        n_layer=24,
        n_head=16,
        width=1024,
        dropout=0.0,
        initializer_range=0.02,
        use_cache=True,
        **kwargs,
    ):
        self.vocab_size, self.n_ctx, self.n_layer, self.n_head, self.width = vocab_size, n_ctx, n_layer, n_head, width
        self.dropout, self.initializer_range, self.use_cache = dropout, initializer_range, use_cache
        super().__init__(**kwargs)


class Attention(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.n_head, self.layer = config.n_head, layer
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x, mask, cache):
        """(B, T, D) -> (B, T, D). `mask` (B or 1, 1, T, S): True, or 0 if it is of numbers, where a token may look; None: at its past."""
        B, T, D = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, D // self.n_head).permute(2, 0, 3, 1, 4)  # each (B, H, T, K)
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        if mask is None and k.shape[2] > T:  # a cache of fixed size has columns that are still empty
            mask = _causal(T, T, x.device)
        if mask is not None and mask.shape[-1] < k.shape[2]:
            nowhere = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
            mask = F.pad(mask, (0, k.shape[2] - mask.shape[-1]), value=nowhere)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.out(y.transpose(1, 2).reshape(B, T, D))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.up = nn.Linear(config.width, 4 * config.width)
        self.down = nn.Linear(4 * config.width, config.width)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))


class Block(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.attn = Attention(config, layer)
        self.ln0 = nn.LayerNorm(config.width, eps=LN_EPS)
        self.mlp = MLP(config)
        self.ln1 = nn.LayerNorm(config.width, eps=LN_EPS)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x, mask, cache):
        h = x + self.drop(self.attn(x, mask, cache))
        return self.ln1(h + self.drop(self.mlp(self.ln0(h))))


class Gpt2mlForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = Gpt2mlConfig
    _no_split_modules = ["Block"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True

    def __init__(self, config):
        super().__init__(config)
        self.tok = nn.Embedding(config.vocab_size, config.width)
        self.pos = nn.Embedding(config.n_ctx, config.width)
        self.ln_embed = nn.LayerNorm(config.width, eps=LN_EPS)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.post_init()

    def get_input_embeddings(self):
        return self.tok  # the head as well

    def set_input_embeddings(self, value):
        self.tok = value

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        use_cache=None,
        logits_to_keep=0,
        return_dict=None,
        **kwargs,
    ):
        """input_ids (B, T) -> logits (B, T, V). attention_mask (B, S), 0 for padding, at the left or the right; labels as input_ids,
        shifted in here, -100 where there is none. Without position_ids, padding at the left is not counted."""
        x = self.tok(input_ids) if inputs_embeds is None else inputs_embeds
        T = x.shape[1]
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if use_cache and past_key_values is None and not self.training:
            past_key_values = DynamicCache()
        past = 0 if past_key_values is None else int(past_key_values.get_seq_length())

        if position_ids is None:
            if attention_mask is not None and attention_mask.ndim == 2:
                position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -T:]
            else:
                position_ids = torch.arange(past, past + T, device=x.device)[None]
        mask = attention_mask if attention_mask is not None and attention_mask.ndim == 4 else None
        if mask is None and (past or attention_mask is not None):
            mask = _causal(T, past + T, x.device)
            if attention_mask is not None:
                # a padding token sees itself: an empty row would be NaN, and 0 x NaN in the next layer is NaN everywhere
                seen = attention_mask.bool()[:, None, None, :]
                mask = mask & (seen | torch.eye(past + T, dtype=torch.bool, device=x.device)[past:])

        x = self.ln_embed(x + self.pos(position_ids))
        for block in self.blocks:
            x = block(x, mask, past_key_values)
        if isinstance(logits_to_keep, int):
            x = x[:, -logits_to_keep:] if logits_to_keep else x
        else:
            x = x[:, logits_to_keep]
        logits = F.linear(x, self.tok.weight)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)
        cache = past_key_values if use_cache else None
        if return_dict is False:
            return tuple(value for value in (loss, logits, cache) if value is not None)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache)


def _causal(T, S, device):
    """(1, 1, T, S) bool: the last T of S tokens see themselves and their past."""
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)[None, None]
