"""Memory of a training step, on one device and on its host, counted from what this code allocates.

Letters: N tokens of a micro-batch, D width, H heads, T n_ctx, V vocabulary, Vp its rows in memory. How the figures compare with
measurement is in experiments/plan.

Three moments can be the highest: the loss, whose logits are there in up to three copies; the backward pass, with gradients and (with
activation checkpointing) one block computed again; the optimizer's update.
"""

from dataclasses import asdict, dataclass, replace

from cngpt.model.shape import Tensors, count, tensors
from cngpt.plan.optimizers import update_bytes
from cngpt.plan.setup import Setup
from cngpt.plan.strategies import strategy_of

# Bytes that the process itself takes: python, torch, Lightning, the allocators' slack. On the CPU as measured in experiments/plan; on an
# accelerator assumed: context, libraries, communication buffers and fragmentation.
PROGRAM = {"cpu": 0.75e9, "mps": 0.75e9, "gpu": 1.5e9, "tpu": 0.5e9}

# glibc keeps what training frees (process.keep_freed_memory), in several arenas that do not share: on a CPU so much of what comes
# and goes in a step is added, a mean of what experiments/plan measured
KEPT_BY_ALLOCATOR = {"cpu": 0.4, "mps": 0.0, "gpu": 0.0, "tpu": 0.0}

# The prediction may be off by this share: on the CPU about the largest deviation of experiments/plan; elsewhere nothing was measured
ERROR = {"cpu": 0.35, "mps": 0.35, "gpu": 0.2, "tpu": 0.2}


@dataclass(frozen=True)
class Memory:
    """Bytes at the highest moment of a step on one device; `checkpoint` and `offloaded` lie in the host's memory."""

    weights: float = 0
    gradients: float = 0
    optimizer: float = 0
    activations: float = 0
    logits: float = 0
    buffers: float = 0  # casts kept by autocast, gathered weights, buckets, the optimizer's intermediate values
    program: float = 0
    moment: str = ""  # loss, backward or update
    checkpoint: float = 0  # of one host, while a checkpoint is written
    offloaded: float = 0  # of one host: what the devices do not hold

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.buffers + self.program

    def as_dict(self) -> dict:
        return asdict(self) | {"total": self.total}


def memory(s: Setup) -> Memory:
    """The split at the highest moment of a step."""
    strategy = strategy_of(s)
    weights, gradients, optimizer = strategy.states(s)
    base = Memory(weights, gradients, optimizer, program=PROGRAM[s.accelerator])
    bucket = strategy.buffers(s)
    # the first micro-batch's backward begins with none
    kept = 0 if s.accumulate == 1 else gradients
    casts, one_block = autocast_copies(s), block_activations(s)
    saved, N, V, Vp = activations(s), s.tokens, s.shape.vocab_size, s.shape.rows
    wide = s.compute_bytes
    # float() of bfloat16, or of a view without the padding rows, is a copy
    copies = 4 * V if wide < 4 or Vp != V else 0
    again = one_block if s.activation_checkpointing else 0
    head = Vp * s.shape.width * (4 + (wide if wide < s.weight_bytes else 0))
    updated = update_bytes(s.optimizer, tensors(s.shape)) / strategy.update_shares(s)
    moments = [
        replace(base, activations=saved, logits=N * (Vp * wide + copies + 4 * V), buffers=bucket + casts.at_loss, moment="loss"),
        replace(base, gradients=kept, activations=saved, logits=12 * N * V, buffers=bucket + casts.kept, moment="backward"),
        replace(
            base,
            gradients=max(kept, head),
            activations=saved + again,
            buffers=bucket + casts.kept + casts.again,
            moment="backward",
        ),
        replace(base, activations=again, buffers=bucket + casts.again, moment="backward"),
        replace(base, buffers=bucket + updated, moment="update"),
    ]
    highest = max(moments, key=lambda m: m.total)
    kept_by_allocator = KEPT_BY_ALLOCATOR[s.accelerator] * (highest.activations + highest.logits + highest.buffers)
    return replace(
        highest,
        program=base.program + kept_by_allocator,
        checkpoint=strategy.checkpoint_bytes(s),
        offloaded=strategy.offloaded(s),
    )


def host_memory(s: Setup, m: Memory) -> float:
    """Bytes of main memory that one host needs at its highest moment."""
    local = max(1, s.devices // s.hosts)
    if s.accelerator in ("cpu", "mps"):
        resting = m.weights + m.gradients + m.optimizer + m.program
        return max(local * m.total, local * resting + m.checkpoint) + m.offloaded
    # each process draws all weights in float32 on its host, then hands them to the device, where most strategies keep a part
    processes = 1 if s.accelerator == "tpu" else local
    drawn = processes * 4 * count(tensors(s.shape))
    return processes * PROGRAM["cpu"] + max(drawn, m.checkpoint) + m.offloaded


@dataclass(frozen=True)
class Casts:
    """Bytes of weights that autocast has turned to bfloat16."""

    at_loss: float = 0
    kept: float = 0  # until the backward pass has used them
    again: float = 0  # of the one block that is computed again


def matrices(sizes: Tensors) -> int:
    """Numbers in those tensors that are matrices."""
    return count({name: size for name, size in sizes.items() if len(size) == 2})


def autocast_copies(s: Setup) -> Casts:
    """bf16-mixed: a product saves its bfloat16 weights for the backward pass; autocast itself keeps all until the loss is there."""
    strategy = strategy_of(s)
    if s.precision != "bf16-mixed" or not strategy.autocasts():
        return Casts()
    head, block = 2 * s.shape.rows * s.shape.width, 2 * matrices(s.shape.layout.block(s.shape))
    at_loss, kept = (head + s.shape.n_layer * block if all_blocks else head for all_blocks in strategy.keeps_casts(s))
    return Casts(at_loss, kept, block if at_loss > kept else 0)


def activations(s: Setup) -> float:
    """Bytes that autograd has saved when the loss is there, without logits and without casts of weights."""
    N, D, f, c = s.tokens, s.shape.width, residual_bytes(s), s.compute_bytes
    # the norm outside of the blocks, its output; ids, targets, positions
    ends = N * D * (f + c) + 2 * N * f + 2 * 8 * N + 8 * s.shape.n_ctx
    if s.shape.dropout and s.shape.layout.embedding_dropout:
        ends += N * D * (f if s.accelerator == "cpu" else 1)
    return ends + s.shape.n_layer * (N * D * f if s.activation_checkpointing else block_activations(s))


def block_activations(s: Setup) -> float:
    """Bytes that one block saves for its backward pass: sums of the residual stream, inputs of products and of the MLP's function,
    queries, keys, values and what attention made of them; the statistics of two norms."""
    N, D, H, f, c, layout = s.tokens, s.shape.width, s.shape.n_head, residual_bytes(s), s.compute_bytes, s.shape.layout
    # tensor parallelism shares out the MLP's
    products = layout.saved_by_attention + layout.saved_by_mlp / s.tensor_parallel
    size = N * D * (layout.saved_sums * f + products * c) + 4 * N * f
    dropped = bool(s.shape.dropout)
    if s.accelerator == "tpu" or (s.accelerator == "cpu" and dropped and layout.attention_dropout):
        # no fused attention there: scores, probabilities and what dropout leaves of them; float32 copies of q, k, v instead of theirs
        size += 3 * 4 * N * H * s.shape.n_ctx + 3 * N * D * (4 - c)
    else:
        size += 4 * N * H
    if dropped:
        size += 2 * N * D * (c if s.accelerator == "cpu" else 1)
    return size


def residual_bytes(s: Setup) -> int:
    """Bytes of a number in the residual stream: autocast leaves it in float32."""
    return s.weight_bytes if strategy_of(s).autocasts() else s.compute_bytes
