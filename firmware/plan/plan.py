"""The plan: for every way to split a model over chips, how many it takes and how fast a token is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hdl.config import Config

from ..bench.rows import clock_of
from ..bench.timeline import SLICES
from ..checkpoint import ModelShape
from ..errors import LpuError
from ..limits import check_shape
from ..simulate import floor_cycles
from .cycles import IN_LAYERS, PARTS, Scheduled, schedule
from .links import Links, Network
from .machine import Machine, need_bytes
from .share import sequences, share, share_layout, stage_needs, stages_of

SPLITS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 15, 16, 20, 24, 28, 32, 48, 64)
"""Chips inside a layer that are tried, up to one a head."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked: a model at a width, keys and values for ``context`` positions, the token at ``position``."""

    shape: ModelShape
    weights: int
    context: int
    position: int
    links: Links


@dataclasses.dataclass(frozen=True)
class Row:
    """One way to split the model. Seconds are of one token of one user."""

    config: str
    tensor: int
    """Chips inside a layer."""
    stages: tuple[int, ...]
    """Layers of each pipeline stage."""
    chip_bytes_used: int
    """Of the fullest chip, as laid out."""
    bytes_laid_out: int
    """Of all chips."""
    clock_hz: float
    scheduled: Scheduled
    link_seconds: Mapping[str, float]
    utilisation: float
    """Useful MACs over the peak of the chips at work, weighted by operand width, links included."""
    users: int
    """Sequences whose keys and values fit."""

    @property
    def chips(self) -> int:
        return self.tensor * len(self.stages)

    @property
    def split(self) -> str:
        """Chips, and how the model lies on them."""
        ways = f"{len(self.stages)} stage{'s' * (len(self.stages) > 1)} of {self.tensor}"
        return f"{self.chips:,} chips ({ways})" if self.chips > 1 else "one chip"

    @property
    def layers(self) -> int:
        return sum(self.stages)

    @property
    def cycles(self) -> int:
        """Cycles of a token in the chips it passes."""
        return self.scheduled.token(self.layers)

    @property
    def seconds(self) -> float:
        """From one token id of a user to the next."""
        return self.cycles / self.clock_hz + sum(self.link_seconds.values())

    @property
    def rate(self) -> float:
        """Tokens/s of one user."""
        return 1 / self.seconds

    @property
    def stage_seconds(self) -> float:
        """The slowest stage: what a full pipeline is paced by."""
        ends = sum(p.cycles for name, p in self.scheduled.parts.items() if name not in IN_LAYERS)
        each = self.scheduled.layer / self.clock_hz + self.link_seconds["sums"] / self.layers
        hop = self.link_seconds["stages"] / len(self.stages)
        return max(self.stages) * each + ends / self.clock_hz + self.link_seconds["ends"] + hop

    @property
    def fill_seconds(self) -> float:
        """From the first token's start until every stage is at work."""
        return (len(self.stages) - 1) * self.stage_seconds

    @property
    def rate_all(self) -> float:
        """Tokens/s of all users together, as many as fit and fill the pipeline."""
        return min(min(self.users, len(self.stages)) * self.rate, max(self.rate, 1 / self.stage_seconds))

    def as_json(self) -> dict[str, Any]:
        s = self.scheduled
        return {
            "config": self.config, "chips": self.chips, "tensor_split": self.tensor, "stages": len(self.stages),
            "layers_per_stage": list(self.stages), "sram_bytes_fullest_chip": self.chip_bytes_used,
            "sram_bytes_laid_out": self.bytes_laid_out, "cycles_per_token": self.cycles,
            "cycles": {n: s.parts[n].cycles * (self.layers if n in IN_LAYERS else 1) for n in PARTS},
            "cycles_evidence": "static schedule", "clock_mhz": self.clock_hz / 1e6,
            "link_seconds": dict(self.link_seconds), "link_evidence": "estimate" if self.chips > 1 else "none used",
            "seconds_per_token": self.seconds, "tokens_per_second": self.rate, "users": self.users,
            "tokens_per_second_all_users": self.rate_all, "pipeline_fill_seconds": self.fill_seconds,
            "mac_utilisation": self.utilisation, "mac_utilisation_all_chips": self.utilisation / len(self.stages),
            "mxm_at_work": s.mxm(self.layers) / self.cycles,
            "busiest_slice": {n: SLICES[s.parts[n].busiest] for n in PARTS},
            "mxm_waits_per_layer": dict(s.waits),
        }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Plan:
    """All the ways for one configuration, and why the others are none."""

    request: Request
    cfg: Config
    clock_evidence: str
    rows: tuple[Row, ...]
    refused: Mapping[int, str]
    """Reason by chips inside a layer."""

    def within(self, chips: int) -> Row | None:
        """The fastest on so many chips at most."""
        return max((r for r in self.rows if r.chips <= chips), key=lambda r: r.rate, default=None)

    def answer(self, target: float) -> Row:
        """The fewest chips that give ``target`` tokens/s to a user, the fastest of those; else the fastest of all."""
        enough = [r for r in self.rows if r.rate >= target]
        fewest = min((r.chips for r in enough), default=0)
        return max((r for r in enough if r.chips == fewest) if enough else self.rows, key=lambda r: r.rate)


def make_plan(request: Request, cfg: Config, progress: Callable[[str], None] = lambda _: None) -> Plan:
    """Schedules every split of a model on a configuration. Raises :class:`LpuError` where there is none."""
    shape = dataclasses.replace(request.shape, context=request.context)
    check_shape(shape, cfg)
    if request.context > cfg.context_max:
        raise LpuError(f"context of {request.context} positions: config {cfg.name} holds up to {cfg.context_max}")
    rows, refused = [], {}
    for tensor in SPLITS:
        if tensor > min(shape.heads, shape.ffn, shape.vocab):
            break
        progress(f"{cfg.name}: {tensor} chips a layer")
        try:
            rows.append(_row(request, shape, cfg, tensor))
        except LpuError as error:
            refused[tensor] = str(error)
    if not rows:
        last = max(refused)
        raise LpuError(f"no split fits, the last one tried has {last} chips a layer (see --context):\n{refused[last]}")
    clock = "clock as published of the TSP" if isinstance(cfg, Machine) else clock_of(cfg).evidence
    return Plan(request, cfg, clock, tuple(rows), refused)


def _row(request: Request, shape: ModelShape, cfg: Config, tensor: int) -> Row:
    weights = request.weights
    stages = stages_of(share_layout(share(shape, tensor, 1), cfg, weights), cfg, shape.layers)
    held = share(shape, tensor, max(s.layers for s in stages))
    layout, scheduled = share_layout(held, cfg, weights), schedule(held, cfg, weights, request.position)
    each = {s: need_bytes(cfg, stage_needs(layout, s)) for s in set(stages)}
    used = [each[s] for s in stages]
    clock = clock_of(cfg).pll * 1e6
    links = link_seconds(request, cfg, tensor, len(stages), clock)
    seconds = scheduled.token(shape.layers) / clock + sum(links.values())
    useful = peak_cycles(shape, cfg, weights, request.position) / tensor / clock
    layers = tuple(s.layers for s in stages)
    users = sequences(cfg, layout, stages)
    return Row(
        cfg.name, tensor, layers, max(used), tensor * sum(used), clock, scheduled, links, useful / seconds, users
    )  # fmt: skip


def peak_cycles(shape: ModelShape, cfg: Config, weights: int, position: int) -> float:
    """Cycles of a token's useful MACs at the peak of one chip, each operation at its operands' width."""
    return floor_cycles(shape.macs_by_kind(position), cfg, weights)


def link_seconds(request: Request, cfg: Config, tensor: int, stages: int, clock: float) -> Mapping[str, float]:
    """Seconds of a token between chips (:meth:`Network.token`)."""
    shape, network = request.shape, Network(request.links, tensor, stages)
    return network.token(shape.layers, shape.d, cfg.vlanes, cfg.topk_max, clock)


def slowest_hop(request: Request, cfg: Config, row: Row, target: float) -> float:
    """Nanoseconds of a hop with which a row just gives ``target`` tokens/s to a user; 0: not even without latency."""
    spare = 1 / target - row.cycles / row.clock_hz
    low, high = 0.0, 1e9 / target
    for _ in range(60):
        ns = (low + high) / 2
        slower = dataclasses.replace(request, links=dataclasses.replace(request.links, ns=ns))
        taken = sum(link_seconds(slower, cfg, row.tensor, len(row.stages), row.clock_hz).values())
        low, high = (ns, high) if taken <= spare else (low, ns)
    return low


def best_curve(rows: Sequence[Row]) -> list[Row]:
    """Rows that no row with as many chips or fewer beats, by chips."""
    curve: list[Row] = []
    for row in sorted(rows, key=lambda r: (r.chips, -r.rate)):
        if not curve or row.rate > curve[-1].rate:
            curve.append(row)
    return curve
