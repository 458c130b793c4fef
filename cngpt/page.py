"""Plots that stand alone: SVG files that any browser and any code host shows."""

from pathlib import Path


def loss_curve(rows: list[dict[str, float]], path: Path, title: str) -> None:
    """Loss in nats a token over steps, training and validation, from rows as `read_metrics` gives them; writes an SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "cngpt"  # the same curve is the same file
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
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
