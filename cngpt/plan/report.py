"""One plan: everything that `task=plan` knows, as plain values and as a table."""

import os
from dataclasses import asdict, dataclass

from cngpt.model.shape import flops_per_token, parameters
from cngpt.plan.advice import FITS, TIGHT, TOO_LARGE, advise, needed, verdict
from cngpt.plan.hardware import Hardware
from cngpt.plan.memory import ERROR, Memory, host_memory, memory
from cngpt.plan.setup import Setup
from cngpt.plan.speed import Speed, speed


@dataclass(frozen=True)
class Plan:
    """What a run needs and costs. Bytes, seconds, dollars; None: not known."""

    name: str  # of model and trainer, as they were chosen
    setup: Setup
    hardware: Hardware
    parameters: int
    flops_per_token: int
    memory: Memory
    host_memory: float
    needed: float  # of hardware.memory
    verdict: str
    advice: list[list[str]]  # overrides to add to the command
    advice_is: str  # the verdict with them: fits, or tight where nothing surely fits
    speed: Speed
    tokens_per_step: int
    max_steps: int
    tokens: int  # seen in all steps
    epochs: float | None

    def as_dict(self) -> dict:
        plain = asdict(self) | {"memory": self.memory.as_dict(), "hardware": self.hardware.model_dump()}
        plain["setup"]["model"] = plain["setup"].pop("shape").as_dict()
        return plain


def plan(
    setup: Setup, hardware: Hardware, tokens_per_step: int, max_steps: int, data_tokens: int | None = None, name: str = ""
) -> Plan:
    """The plan of a setup on a machine; `data_tokens` of the training shards, where they are known."""
    m, tokens = memory(setup), tokens_per_step * max_steps
    says = verdict(setup, m, hardware.memory)
    ways, certain = [], FITS
    for certain in {TIGHT: [FITS], TOO_LARGE: [FITS, TIGHT]}.get(says, []):
        if ways := advise(setup, hardware, hardware.memory, tokens_per_step, enough=certain):
            break
    return Plan(
        name=name,
        setup=setup,
        hardware=hardware,
        parameters=parameters(setup.shape),
        flops_per_token=flops_per_token(setup.shape),
        memory=m,
        host_memory=host_memory(setup, m),
        needed=needed(setup, m),
        verdict=says,
        advice=ways,
        advice_is=certain,
        speed=speed(setup, hardware, tokens_per_step, max_steps),
        tokens_per_step=tokens_per_step,
        max_steps=max_steps,
        tokens=tokens,
        epochs=tokens / data_tokens if data_tokens else None,
    )


def rows(p: Plan) -> list[tuple[str, str, str]]:
    """(what, figure, remark) as a person reads it; an empty line is ("", "", "")."""
    s, h, m, v = p.setup, p.hardware, p.memory, p.speed
    machine = f"{s.devices} x {h.name}" + (f" on {s.hosts} hosts" if s.hosts > 1 else "") + (f" ({h.slice})" if h.slice else "")
    windows = f"{s.micro} windows of {s.shape.n_ctx:,} at once" + (f", {s.accumulate} times" if s.accumulate > 1 else "")
    again = "activations computed again" if s.activation_checkpointing else "activations kept"
    out = [
        ("machine", machine, f"{s.strategy}, {s.precision}, {again}" + (", offloaded" if s.offload else "")),
        ("parameters", f"{p.parameters / 1e6:,.1f} M", f"{p.flops_per_token / 1e9:,.2f} GFLOP a token, forward and backward"),
        ("step", f"{p.tokens_per_step:,} tokens", f"a device reads {windows}"),
        ("", "", ""),
        ("weights", size(m.weights), "GB a device"),
        ("gradients", size(m.gradients), "at the highest moment: " + MOMENTS[m.moment]),
        ("optimizer", size(m.optimizer), s.optimizer),
        ("activations", size(m.activations), ""),
        ("logits", size(m.logits), f"{s.tokens:,} tokens x {s.shape.vocab_size:,} entries, in copies"),
        ("buffers", size(m.buffers), "casts, gathered weights, buckets"),
        (
            "program",
            size(m.program),
            "measured; what the allocator keeps" if s.accelerator == "cpu" else "assumed: context, libraries, fragmentation",
        ),
        ("needed", size(p.needed), room(p)),
        (
            "host",
            size(p.host_memory),
            f"GB of main memory on a host at the start, when each process draws all weights, or later: a checkpoint takes {size(m.checkpoint)}",
        ),
    ]
    if p.advice:
        first = "add" if p.advice_is == FITS else "try"
        out += [(first if i == 0 else "or", "", " ".join(overrides)) for i, overrides in enumerate(p.advice)]
    elif p.verdict in (TIGHT, TOO_LARGE):
        out += [("", "", "nothing that the planner knows makes it fit: more devices, or a smaller model")]
    out += [("", "", "")]
    if v.step_seconds:
        out += [
            ("speed", f"{v.tokens_per_second:,.0f} tokens/s", f"a step takes {v.step_seconds:,.2f} s"),
            ("MFU", f"{h.mfu:.0%}", h.mfu_source or "as given"),
        ]
    else:
        out += [("speed", "not known", "no MFU, or no peak in this precision: hardware.mfu=... trainer.precision=...")]
    if v.moved:
        hidden = f", {v.moving_seconds:,.2f} s if nothing hides it" if v.moving_seconds else ""
        out += [("traffic", f"{size(v.moved)} GB", f"sent by a device in a step{hidden}")]
    if v.days is not None:
        cost = f"{v.cost:,.0f} $" if v.cost else "no price known: hardware.price=<$ an hour and device>"
        out += [
            ("time", f"{days(v.days)}", f"for {p.max_steps:,} steps" + (", if it fitted" if p.verdict == TOO_LARGE else "")),
            ("cost", cost if v.cost else "", "" if v.cost else cost),
        ]
    seen = (
        f"{p.epochs:,.{0 if p.epochs >= 10 else 1}f} passes over the training data"
        if p.epochs
        else "how often that reads data=... is known when they are prepared"
    )
    out += [("tokens", f"{p.tokens / 1e9:,.4g} G", seen)]
    return out


MOMENTS = {"loss": "the loss", "backward": "the backward pass", "update": "the optimizer's update"}


def size(value: float) -> str:
    """Bytes in GB."""
    return f"{value / 1e9:,.2f}"


def days(value: float) -> str:
    hours = value * 24
    if hours < 48:
        return f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:,.1f} minutes"
    return f"{value:,.1f} days"


def room(p: Plan) -> str:
    if p.hardware.memory is None:
        return "GB; how much there is is not known"
    word = {
        FITS: "fits",
        TIGHT: f"may or may not fit: the estimate is off by up to {ERROR[p.setup.accelerator]:.0%}",
        TOO_LARGE: "DOES NOT FIT",
    }[p.verdict]
    return f"of {size(p.hardware.memory)} GB: {word}"


def show(p: Plan, width: int | None = None) -> None:
    """The table, to standard output."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, show_header=False, title=p.name or None, title_justify="left", pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    style = {FITS: "green", TIGHT: "yellow", TOO_LARGE: "red"}.get(p.verdict, "")
    for what, figure, remark in rows(p):
        table.add_row(what, Text(figure), Text(remark, style=style if what in ("needed", "add", "try", "or") else ""))
    console = Console(width=width, highlight=False)
    if not (console.is_terminal or width or "COLUMNS" in os.environ):  # into a pipe or a file: what is to be typed stays whole
        console = Console(width=200, highlight=False)
    console.print(table)
