"""Memory of a training step, on one device and on its host, counted from what this code allocates.

Letters: N tokens of a micro-batch, D width, H heads, T n_ctx, V vocabulary, Vp its rows in memory. How the figures compare with
measurement is in experiments/plan.

Three moments can be the highest: the loss, whose logits are there in up to three copies; the backward pass, with gradients and (with
activation checkpointing) one block computed again; the optimizer's update.
"""

import functools
import math
from dataclasses import asdict, dataclass, replace

from cngpt.plan import mesh, tensors
from cngpt.plan.setup import Setup

# Bytes that the process itself takes: python, torch, Lightning, the allocators' slack. On the CPU as measured in experiments/plan; on an
# accelerator assumed: context, libraries, communication buffers and fragmentation.
PROGRAM = {"cpu": 0.75e9, "mps": 0.75e9, "gpu": 1.5e9, "tpu": 0.5e9}
BUCKET, SMALL_BUCKET = (
    200_000_000,
    5_000_000,
)  # numbers in DeepSpeed's buckets (training/strategies/deepspeed.py), on a CPU the second
LIVE = 1_000_000_000  # numbers of gathered weights that ZeRO-3 keeps at most, DeepSpeed's default

# glibc keeps what training frees (process.keep_freed_memory), in several arenas that do not share: on a CPU so much of what comes
# and goes in a step is added, a mean of what experiments/plan measured
KEPT_BY_ALLOCATOR = {"cpu": 0.4, "mps": 0.0, "gpu": 0.0, "tpu": 0.0}
ONE_FILE = (
    1.5  # a checkpoint in one file is put together in memory, and moved while it grows: so many times its size at the highest
)

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


def memory(setup: Setup) -> Memory:
    """The split at the highest moment of a step."""
    weights, gradients, optimizer = states(setup)
    base = Memory(weights, gradients, optimizer, program=PROGRAM[setup.accelerator])
    bucket = buckets(setup)
    kept = 0 if setup.accumulate == 1 else gradients  # the first micro-batch's backward begins with none
    casts, one_block = autocast_copies(setup), block_activations(setup)
    saved, N, V = activations(setup), setup.tokens, setup.model["vocab_size"]
    Vp, wide = tensors.padded(V), compute_bytes(setup)
    copies = 4 * V if wide < 4 or Vp != V else 0  # float() of bfloat16, or of a view without the padding rows: a copy
    again = one_block if setup.activation_checkpointing else 0
    head = Vp * setup.model["width"] * (4 + (wide if wide < weight_bytes(setup) else 0))
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
        replace(base, buffers=bucket + update_bytes(setup), moment="update"),
    ]
    highest = max(moments, key=lambda m: m.total)
    kept_by_allocator = KEPT_BY_ALLOCATOR[setup.accelerator] * (highest.activations + highest.logits + highest.buffers)
    return replace(
        highest, program=base.program + kept_by_allocator, checkpoint=checkpoint_bytes(setup), offloaded=offloaded(setup)
    )


def host_memory(setup: Setup, m: Memory) -> float:
    """Bytes of main memory that one host needs at its highest moment."""
    local = max(1, setup.devices // setup.hosts)
    if setup.accelerator in ("cpu", "mps"):
        resting = m.weights + m.gradients + m.optimizer + m.program
        return max(local * m.total, local * resting + m.checkpoint) + m.offloaded
    # each process draws all weights in float32 on its host, then hands them to the device, where most strategies keep a part
    processes = 1 if setup.accelerator == "tpu" else local
    drawn = processes * 4 * tensors.count(tensors.shapes(**setup.model))
    return processes * PROGRAM["cpu"] + max(drawn, m.checkpoint) + m.offloaded


# ---- weights, gradients, optimizer


def weight_bytes(setup: Setup) -> int:
    """Bytes of one weight as it is stored."""
    return 2 if setup.precision == "bf16-true" else 4


def compute_bytes(setup: Setup) -> int:
    """Bytes of one number that goes into a matrix product."""
    return 4 if setup.precision == "32-true" else 2


def states(setup: Setup) -> tuple[float, float, float]:
    """Bytes of weights, gradients and optimizer state that one device holds between two steps."""
    whole = tensors.shapes(**setup.model)
    n, w = setup.devices, weight_bytes(setup)
    P = tensors.count(whole)
    match setup.strategy:
        case "single" | "ddp":
            return P * w, P * w, optimizer_bytes(whole, setup, w)
        case "fsdp":
            part = cut(whole, n, setup.tensor_parallel)
            return tensors.count(part) * w, tensors.count(part) * w, optimizer_bytes(part, setup, w)
        case "xla":
            part = meshed(tuple(whole.items()), n)
            return tensors.count(part) * w, tensors.count(part) * w, optimizer_bytes(part, setup, w)
        case "deepspeed_zero2" | "deepspeed_zero3":
            c, share = compute_bytes(setup), P / n
            state = share * (4 if c < 4 else 0) + optimizer_bytes(whole, setup, 4) / n  # with bfloat16, float32 weights besides
            held = 0 if setup.offload else 1
            weights = P * c if setup.strategy == "deepspeed_zero2" else share * c * held
            return weights, share * 4 * held, state * held  # gradients are summed in float32
    raise ValueError(setup.strategy)


def cut(whole: dict[str, tuple[int, ...]], devices: int, tensor_parallel: int = 1) -> dict[str, tuple[int, ...]]:
    """FSDP2: the first dimension of every tensor, rounded up; tensor parallelism cuts the MLPs, and copies the rest."""
    others = devices // tensor_parallel
    return {name: (-(-shape[0] // (devices if ".mlp." in name else others)), *shape[1:]) for name, shape in whole.items()}


@functools.lru_cache(maxsize=64)
def meshed(whole: tuple[tuple[str, tuple[int, ...]], ...], devices: int) -> dict[str, tuple[int, ...]]:
    """XLA: each dimension over the sides of the two-dimensional mesh that cut it."""
    shapes = dict(whole)
    grid = mesh.choose(shapes, devices)
    pieces = {shape: [mesh.pieces(axis, grid) for axis in mesh.spec(shape, grid)] for shape in set(shapes.values())}
    return {name: tuple(n // k for n, k in zip(shape, pieces[shape], strict=True)) for name, shape in shapes.items()}


def optimizer_bytes(whole: dict[str, tuple[int, ...]], setup: Setup, w: int) -> float:
    """State of the optimizer for these tensors; `w` bytes a number."""
    name = setup.optimizer
    if name == "adamw":
        return sum(2 * w * math.prod(shape) + 4 for shape in whole.values())
    total = 0
    for tensor, shape in whole.items():
        if len(shape) == 1:
            size = shape[0]
        elif name == "gpt2ml_adafactor" and tensor.endswith("qkv.weight"):
            size = shape[0] + 3 * shape[1]  # three tensors in the seed
        elif name == "gpt2ml_adafactor" and tensor == "tok.weight":
            size = min(shape[0], setup.model["vocab_size"]) + shape[1]
        else:
            size = shape[0] + shape[1]
        total += size * (4 if name == "gpt2ml_adafactor" else w) + (4 if name == "adafactor" else 0)
    return total


def update_bytes(setup: Setup) -> float:
    """What the optimizer holds besides while it updates one tensor after the other."""
    if setup.optimizer == "adamw":
        return 0
    largest = max(math.prod(shape) for shape in tensors.shapes(**setup.model).values())
    shared = setup.devices if setup.strategy in ("fsdp", "xla", "deepspeed_zero2", "deepspeed_zero3") else 1
    return 3 * 4 * largest / shared


def buckets(setup: Setup) -> float:
    """What a strategy keeps for communication: DDP a second copy of all gradients; the others weights gathered for use."""
    whole = tensors.shapes(**setup.model)
    P, block = tensors.count(whole), tensors.count(tensors.block_shapes(setup.model["block"], setup.model["width"]))
    root = P - setup.model["n_layer"] * block  # embeddings and the last norm stay gathered from forward to backward
    match setup.strategy:
        case "ddp":
            return P * weight_bytes(setup)
        case "fsdp":
            return (root + 3 * block) * weight_bytes(setup)  # a block in use, the next one, the gradient of the last
        case "xla":
            return (root + 2 * block) * compute_bytes(setup)
        case "deepspeed_zero2":
            return 2 * min(P, BUCKET if setup.accelerator == "gpu" else SMALL_BUCKET) * compute_bytes(setup)
        case "deepspeed_zero3":
            return (min(P, LIVE) + 2 * min(P, BUCKET if setup.accelerator == "gpu" else SMALL_BUCKET)) * compute_bytes(setup)
    return 0


def offloaded(setup: Setup) -> float:
    """Bytes in one host's memory instead of its devices': gradients, optimizer and float32 weights; with ZeRO-3 weights too."""
    if not setup.offload:
        return 0
    whole = tensors.shapes(**setup.model)
    P, c = tensors.count(whole), compute_bytes(setup)
    state = 4 * P + optimizer_bytes(whole, setup, 4) + P * 4
    return (state + (P * c if setup.strategy == "deepspeed_zero3" else 0)) / setup.hosts


def checkpoint_bytes(setup: Setup) -> float:
    """Main memory that writing a checkpoint takes on one host: Lightning puts one file together before it writes it; strategies that
    cut write what each process holds."""
    whole = tensors.shapes(**setup.model)
    w = weight_bytes(setup)
    size = tensors.count(whole) * w + optimizer_bytes(whole, setup, w)
    return ONE_FILE * size if setup.strategy in ("single", "ddp") else size / setup.hosts


# ---- activations


@dataclass(frozen=True)
class Casts:
    """Bytes of weights that autocast has turned to bfloat16."""

    at_loss: float = 0
    kept: float = 0  # until the backward pass has used them
    again: float = 0  # of the one block that is computed again


def autocast_copies(setup: Setup) -> Casts:
    """bf16-mixed: a product saves its bfloat16 weights for the backward pass; autocast itself keeps all until the loss is there."""
    if setup.precision != "bf16-mixed" or setup.strategy.startswith("deepspeed"):
        return Casts()
    D, L = setup.model["width"], setup.model["n_layer"]
    head, block = 2 * tensors.padded(setup.model["vocab_size"]) * D, 2 * 12 * D**2
    if setup.strategy == "xla" and setup.activation_checkpointing:  # the compiler frees a cast where it has been used
        return Casts(head, head, 0)
    if setup.activation_checkpointing:
        return Casts(head + L * block, head, block)
    return Casts(head + L * block, head + L * block, 0)


def activations(setup: Setup) -> float:
    """Bytes that autograd has saved when the loss is there, without logits and without casts of weights."""
    m, N = setup.model, setup.tokens
    D, L, f, c = m["width"], m["n_layer"], residual_bytes(setup), compute_bytes(setup)
    ends = (
        N * D * (f + c) + 2 * N * f + 2 * 8 * N + 8 * m["n_ctx"]
    )  # last norm (or the embeddings'), its output; ids, targets, positions
    if m.get("dropout") and m["block"] == "preln":
        ends += N * D * (f if setup.accelerator == "cpu" else 1)
    return ends + L * (N * D * f if setup.activation_checkpointing else block_activations(setup))


def block_activations(setup: Setup) -> float:
    """Bytes that one block saves for its backward pass: 2 sums of the residual stream; the inputs of 4 products and of the GELU,
    queries, keys, values and what attention made of them: 14 D numbers a token in all."""
    m, N = setup.model, setup.tokens
    D, H, f, c = m["width"], m["n_head"], residual_bytes(setup), compute_bytes(setup)
    size = N * D * (2 * f + (6 + 8 / setup.tensor_parallel) * c) + 4 * N * f  # tensor parallelism shares out the MLP's 8
    dropped = bool(m.get("dropout"))
    if setup.accelerator == "tpu" or (setup.accelerator == "cpu" and dropped and m["block"] == "preln"):
        # no fused attention there: scores, probabilities and what dropout leaves of them; float32 copies of q, k, v instead of theirs
        size += 3 * 4 * N * H * m["n_ctx"] + 3 * N * D * (4 - c)
    else:
        size += 4 * N * H
    if dropped:
        size += 2 * N * D * (c if setup.accelerator == "cpu" else 1)
    return size


def residual_bytes(setup: Setup) -> int:
    """Bytes of a number in the residual stream: autocast leaves it in float32."""
    return weight_bytes(setup) if not setup.strategy.startswith("deepspeed") else compute_bytes(setup)
