"""The benchmark's pictures: which slice is at work when, and the roofline. Needs the extra ``bench``."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hdl.config import Config
from hdl.isa import Queue

from .rows import Row
from .timeline import SLICES, Timeline

_COLOURS = {
    Queue.ABC: "#1b6ca8", Queue.ACC: "#2a9d8f", Queue.VX: "#58b09c", Queue.SFU: "#8ab17d", Queue.TOP: "#b5c689",
    Queue.SXM: "#e9c46a", Queue.SR: "#bbbbbb", Queue.CR: "#bbbbbb", Queue.XR: "#bbbbbb", Queue.XW: "#bbbbbb",
}  # fmt: skip


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def gantt(token: Timeline, title: str, path: Path) -> None:
    """A row for each slice, a bar for each instruction while its micro-ops are issued."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(24, 5), layout="constrained")
    queues = list(SLICES)
    for work in token.work:
        first, last = int(work.cycles[0]), int(work.cycles[-1])
        # A bar as dark as the instruction's micro-ops are dense.
        dense = len(work.cycles) / (last - first + 1)
        axes.broken_barh(
            [(first, last - first + 1)], (queues.index(work.queue) - 0.4, 0.8), facecolor=_COLOURS[work.queue],
            alpha=0.35 + 0.65 * dense, edgecolor="white", linewidth=0.3,
        )  # fmt: skip
        if work.queue is Queue.ABC and last - first > 6 * len(work.note):
            axes.text((first + last) / 2, 0, work.note, ha="center", va="center", fontsize=6, color="white")
    axes.set_yticks(range(len(queues)), [f"{SLICES[q]}  {token.busy(q) / token.cycles:.0%}" for q in queues])
    axes.invert_yaxis()
    axes.set_xlim(0, token.cycles)
    axes.set_xlabel("cycle of the token")
    axes.set_title(title)
    figure.savefig(path)
    pyplot.close(figure)


def roofline(cfg: Config, weights: int, rows: Sequence[Row], path: Path) -> None:
    """Useful MACs a cycle over useful MACs per byte moved, under the peak of MXM and SRAM ports."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 6), layout="constrained")
    bandwidth, peak = rows[0].sram_bytes_per_cycle_available, cfg.macs_per_cycle(weights)
    x = np.geomspace(0.1, 8, 100)
    axes.loglog(x, np.minimum(x * bandwidth, peak), color="black", label=f"{peak} MACs, {bandwidth} bytes a cycle")
    for r in rows:
        speed = r.macs / r.cycles
        axes.plot(speed / r.sram_bytes_per_cycle, speed, "o", label=f"{r.model}, position {r.position}")
    axes.set_xlabel("useful MACs per byte moved")
    axes.set_ylabel("useful MACs per cycle")
    axes.set_title(f"{cfg.name}, int{weights}")
    axes.legend(fontsize=7)
    figure.savefig(path)
    pyplot.close(figure)
