"""The plan's picture: tokens/s of a user against chips. Needs the extra ``bench``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..bench.plots import available
from ..errors import LpuError
from .links import NO_RTL
from .plan import Plan, best_curve
from .published import TIER, Figure

_COLOURS = ("#1b6ca8", "#c8553d", "#2a9d8f", "#7b6d8d")


def check(path: Path) -> None:
    """Raises :class:`LpuError` where no picture can be made or put there."""
    if not available():
        raise LpuError("--plot needs matplotlib: pip install 'open-lpu[bench]'")
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise LpuError(f"{path}: cannot be written: no such folder, or a folder itself")


def tokens_against_chips(
    plans: Sequence[Plan], model: str, target: float, published: Sequence[Figure], path: Path
) -> None:
    """A point for each split (stages x chips a layer); the fastest with so many chips or fewer as a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(figsize=(10, 6.5), layout="constrained")
    most = max(r.chips for plan in plans for r in plan.rows)
    for colour, plan in zip(_COLOURS * len(plans), plans, strict=False):
        curve = best_curve(plan.rows)
        label = f"{plan.cfg.name}, int{plan.request.weights}"
        chips, rates = [r.chips for r in curve], [r.rate for r in curve]
        axes.plot([*chips, most], [*rates, rates[-1]], drawstyle="steps-post", color=colour, label=label)
        for r in plan.rows:
            axes.plot(r.chips, r.rate, "o", color=colour, alpha=1 if r in curve else 0.35)
            text = f"{len(r.stages)} x {r.tensor}"
            axes.annotate(text, (r.chips, r.rate), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.axhline(target, color="#888888", linewidth=0.8, label=f"target: {target:g}")
    for f in published:
        text = f"{f.what}: {f.rate:g}, {TIER}" if f.rate else ""
        if f.rate and f.chips:
            axes.plot(f.chips, f.rate, "k*", markersize=11, label=f"{text}, {f.chips} chips")
        elif f.rate:
            axes.axhline(f.rate, color="black", linestyle="--", linewidth=0.8, label=f"{text}, chips not stated")
    request = plans[0].request
    for scale, axis in ((axes.set_xscale, axes.xaxis), (axes.set_yscale, axes.yaxis)):
        scale("log")
        for which in (axis.set_major_formatter, axis.set_minor_formatter):
            which(ticker.StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("chips (stages x chips inside a layer)")
    axes.set_ylabel("tokens/s of one user")
    axes.set_title(
        f"{model}, position {request.position} of {request.context}. Cycles: static schedule.\n"
        f"Links: estimate ({request.links.text()}): {NO_RTL}",
        fontsize=9,
    )
    axes.legend(fontsize=7)
    figure.savefig(path, format="svg")
    pyplot.close(figure)
