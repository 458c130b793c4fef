"""Pages and plots that stand alone: HTML and SVG that any browser shows, without scripts and without links to elsewhere."""

import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

STYLE = """
body { font: 15px/1.6 system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif; max-width: 72rem; margin: 2rem auto;
       padding: 0 1rem; color: #222; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse } td, th { padding: .15rem .9rem .15rem 0; text-align: left; vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
tr + tr td { border-top: 1px solid #eee } th { font-weight: 500; color: #777; font-size: .85rem }
.facts { display: flex; flex-wrap: wrap; gap: .8rem } .facts div { border: 1px solid #ddd; border-radius: .4rem; padding: .4rem .9rem }
.facts b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0 1rem; margin-bottom: 1rem } .pair .id { grid-column: 1 / 3; margin: 0; color: #777 }
.pair .head { margin: 0; font-size: .8rem; color: #777 } .pair pre { overflow: auto; max-height: 24rem }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f6; padding: .5rem .8rem; margin: 0; font: inherit }
del { background: #ffd7d5; text-decoration: none } ins { background: #d5f5d9; text-decoration: none }
details { margin: .2rem 0 } summary { cursor: pointer } svg { max-width: 100%; height: auto }
"""


def document(title: str, parts: Sequence[str]) -> str:
    """A whole page of pieces of HTML."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{STYLE}</style>'
    body = "\n".join([f"<h1>{escape(title)}</h1>", *parts, "</body></html>\n"])
    return f"<!DOCTYPE html>\n<html lang='zh'><head>{head}</head><body>{body}"


def facts(items: Sequence[tuple[str, str]]) -> str:
    """A few numbers that are seen first."""
    return '<div class="facts">' + "".join(f"<div><b>{escape(value)}</b>{escape(name)}</div>" for name, value in items) + "</div>"


def table(head: Sequence[str], rows: Sequence[Sequence]) -> str:
    """Numbers are right-aligned, with thousands separated."""
    if not rows:
        return "<p>none</p>"
    kinds = [' class="number"' if isinstance(value, int | float) else "" for value in rows[0]]
    top = "".join(f"<th{kind}>{escape(name)}</th>" for name, kind in zip(head, kinds, strict=True))
    shown = [[f"{value:,}" if isinstance(value, int | float) else str(value) for value in row] for row in rows]
    cells = ("".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)) for row in shown)
    return f"<table><tr>{top}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _figure(width: float, height: float):
    """(figure, axes), in inches; the same plot is the same SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "cngpt"
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def bars(items: Sequence[tuple[str, float]], xlabel: str, ylabel: str) -> str:
    """A histogram as inline SVG."""
    if not items:
        return "<p>none</p>"
    figure, axes = _figure(8, 3)
    axes.bar([name for name, _ in items], [number for _, number in items], color="#4c78a8")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.tick_params(axis="x", labelsize=8, rotation=30)
    axes.grid(axis="y", alpha=0.25)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return out.getvalue().partition("?>")[2].partition(">")[2]  # without the XML and DOCTYPE lines


def loss_curve(rows: list[dict[str, float]], path: Path, title: str) -> None:
    """Loss in nats a token over steps, training and validation, from rows as `read_metrics` gives them; writes an SVG."""
    figure, axes = _figure(7.2, 4.2)
    train = [(r["step"], r["loss"]) for r in rows if "loss" in r]
    valid = [(r["step"], r["val_loss"]) for r in rows if "val_loss" in r]
    if train:
        axes.plot(*zip(*train, strict=True), color="#4c78a8", linewidth=1, label="training")
    if valid:
        axes.plot(*zip(*valid, strict=True), color="#e45756", linewidth=1.5, marker="o", markersize=4, label="validation")
        axes.annotate(f"{valid[-1][1]:.3f}", valid[-1], textcoords="offset points", xytext=(4, 6), color="#e45756", fontsize=9)
    axes.set(xlabel="step", ylabel="loss, nats a token", title=title)
    axes.grid(alpha=0.25)
    if train or valid:
        axes.legend(frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})
