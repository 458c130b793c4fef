"""What to change so that a configuration fits, tried out by the planner itself: nothing is advised that it has not reckoned."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from cngpt.plan.hardware import Hardware
from cngpt.plan.memory import ERROR, Memory, host_memory, memory
from cngpt.plan.setup import Setup
from cngpt.plan.strategies import Spread, refusal

FITS, TIGHT, TOO_LARGE, UNKNOWN = "fits", "tight", "does not fit", "unknown"


def verdict(setup: Setup, m: Memory, room: float | None) -> str:
    """Whether a step fits into `room` bytes a device: surely, within the planner's own error, or not. On a CPU the processes of
    a host share its memory, and a checkpoint is put together there."""
    if room is None:
        return UNKNOWN
    need = needed(setup, m)
    error = 1 + ERROR[setup.accelerator]
    return FITS if need * error <= room else TIGHT if need / error <= room else TOO_LARGE


def needed(setup: Setup, m: Memory) -> float:
    """Bytes that must fit into what `Hardware.memory` says: of a device, or of all processes of a CPU's host."""
    return host_memory(setup, m) if setup.accelerator in ("cpu", "mps") else m.total


def breaks_a_rule(s: Setup) -> bool:
    """Whether `train` would refuse it."""
    mlp_width = s.shape.layout.mlp_width(s.shape)
    spread = Spread(s.accelerator, s.devices, s.optimizer, mlp_width, s.offload, s.tensor_parallel)
    return refusal(s.strategy, spread) is not None


@dataclass(frozen=True)
class Change:
    """One thing to change: the group it belongs to (one of a group is enough), what to type, what it does."""

    group: str
    overrides: tuple[str, ...]
    apply: Callable[[Setup], Setup]


def advise(
    setup: Setup,
    hardware: Hardware,
    room: float | None,
    tokens_per_step: int,
    more: bool | int = True,
    enough: str = FITS,
    most: int = 3,
) -> list[list[str]]:
    """The first `most` sets of overrides whose verdict is `enough`, fewest changes first; `more`: whether more devices
    may be had, or how many there are."""
    fitting: list[tuple[frozenset, list[str]]] = []
    for changes in combinations(setup, hardware, tokens_per_step, more):
        groups = frozenset(c.group for c in changes)
        if any(earlier <= groups for earlier, _ in fitting):
            continue
        changed = setup
        for change in changes:
            changed = change.apply(changed) if changed.devices else changed
        if not changed.devices or breaks_a_rule(changed):
            continue
        if verdict(changed, memory(changed), room) == enough:
            fitting.append((groups, list(dict.fromkeys(o for c in changes for o in c.overrides))))
            if len(fitting) == most:
                break
    return [overrides for _, overrides in fitting]


def combinations(setup: Setup, hardware: Hardware, tokens_per_step: int, more: bool | int) -> Iterator[tuple[Change, ...]]:
    """Sets of changes, one of a group at most, fewest first."""
    groups: dict[str, list[Change | None]] = {}
    for change in changes(setup, hardware, tokens_per_step, more):
        groups.setdefault(change.group, [None]).append(change)
    products = [tuple(c for c in chosen if c) for chosen in itertools.product(*groups.values())]
    return iter(sorted((p for p in products if p), key=len))


def changes(setup: Setup, hardware: Hardware, tokens_per_step: int, more: bool | int) -> Iterator[Change]:
    """Single changes, the cheapest in speed first."""
    share = setup.micro * setup.accumulate
    if not setup.activation_checkpointing:
        yield Change(
            "activations", ("trainer.activation_checkpointing=true",), lambda s: replace(s, activation_checkpointing=True)
        )
    for micro in (m for m in range(setup.micro - 1, 0, -1) if share % m == 0):
        yield Change("micro", (f"trainer.micro_batch={micro}",), smaller_batch(micro))
    if setup.optimizer == "adamw":
        yield Change("optimizer", ("optim=adafactor",), lambda s: replace(s, optimizer="adafactor"))
    if setup.accelerator == "gpu":
        counts = [setup.devices] + ([n for n in (2, 4, 8, 16, 32, 64) if n > setup.devices] if more is True else [])
        counts += [more] if more is not True and more > setup.devices else []
        for n in counts:
            windows = tokens_per_step // setup.shape.n_ctx
            if n > 1 and setup.strategy != "fsdp" and windows % n == 0:
                nodes = -(-n // hardware.per_host)
                each = (f"trainer.devices={n // nodes}", *((f"trainer.num_nodes={nodes}",) if nodes > 1 else ()))
                yield Change("devices", ("trainer=fsdp", *each), sharded(n, nodes, windows))
        if not setup.offload and setup.optimizer == "adamw":
            yield Change("devices", ("trainer=deepspeed_zero3", "trainer.offload=true"), offloading)
    if setup.accelerator == "tpu" and more is True and hardware.slice:
        kind = hardware.slice.rpartition("-")[0]
        cores = int(hardware.slice.rpartition("-")[2])
        for times in (2, 4, 8, 16, 32, 64):
            if (tokens_per_step // setup.shape.n_ctx) % (setup.devices * times) == 0:
                yield Change("devices", (f"hardware.slice={kind}-{cores * times}",), larger(times))


def smaller_batch(micro: int) -> Callable[[Setup], Setup]:
    def apply(s: Setup) -> Setup:
        share = s.micro * s.accumulate
        return (
            replace(s, micro=micro, accumulate=share // micro) if share % micro == 0 else replace(s, devices=0)
        )  # 0: not possible

    return apply


def sharded(devices: int, hosts: int, windows: int) -> Callable[[Setup], Setup]:
    def apply(s: Setup) -> Setup:
        share = windows // devices
        micro = max(m for m in range(1, share + 1) if share % m == 0 and m <= max(1, s.micro))
        return replace(
            s, strategy="fsdp", devices=devices, hosts=hosts, micro=micro, accumulate=share // micro, activation_checkpointing=True
        )  # fmt: skip

    return apply


def offloading(s: Setup) -> Setup:
    return replace(s, strategy="deepspeed_zero3", offload=True, activation_checkpointing=True)


def larger(times: int) -> Callable[[Setup], Setup]:
    def apply(s: Setup) -> Setup:
        share = s.micro * s.accumulate // times
        if share == 0 or s.micro * s.accumulate % times:
            return replace(s, devices=0)
        micro = max(m for m in range(1, share + 1) if share % m == 0 and m <= s.micro)
        return replace(s, devices=s.devices * times, hosts=s.hosts * times, micro=micro, accumulate=share // micro)

    return apply
