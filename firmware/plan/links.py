"""Links between chips: an estimate from a bandwidth and a latency. No RTL of this project has run one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from hdl.config import WORD

from ..errors import LpuError
from ..layout import ceil_div

NO_RTL = "no RTL here has run a chip-to-chip link"
ROW_BYTES = WORD // 8
"""Bytes of an element between chips: partial sums and residual stream travel as words of the VXM."""
CANDIDATE_BYTES = 8
"""A candidate of the sampler: id and logit."""


@dataclasses.dataclass(frozen=True)
class Links:
    """What is assumed of a chip's links.

    Default bandwidth: 16 links of four lanes of 30 Gb/s (Linley Newsletter, 10 November 2020, of the TSP).
    Default latency: a quarter of the "less than 3 microseconds" that ISCA 2022 states from end to end of 10,440 chips.
    """

    gbps: float = 120.0
    """Gb/s of one link in one direction."""
    ns: float = 750.0
    """From a word in one chip's stream to the same word in its neighbour's, nanoseconds."""
    count: int = 16
    """Links of a chip."""

    def text(self) -> str:
        """In a line."""
        total = self.gbps * self.count / 8
        return f"{self.count} links of {self.gbps:g} Gb/s each way ({total:g} GB/s), {self.ns:g} ns a hop"


@dataclasses.dataclass(frozen=True)
class Network:
    """``stages`` groups of ``chips`` each: a chip is linked to its group, and to a chip of the stage before and behind.

    Raises :class:`LpuError` where the links are too few for that.
    """

    links: Links
    chips: int
    stages: int

    def __post_init__(self) -> None:
        if self.inside < 0 or (self.chips > 1 and not self.hops):
            raise LpuError(f"{self.links.count} links do not connect {self.stages} stages of {self.chips} chips")

    @property
    def inside(self) -> int:
        """Links of a chip to its group."""
        return self.links.count - (2 if self.stages > 1 else 0)

    @property
    def hops(self) -> int:
        """From a chip to any other of its group: the fewest with so many links each (Moore bound); 0: not at all."""
        if self.chips > 2 and self.inside < 2:
            return 0
        reached, hops = 0, 0
        while reached < self.chips - 1 and self.inside > 0:
            hops += 1
            reached += self.inside**hops
        return hops

    @property
    def between(self) -> int:
        """Links of a chip to its neighbour in the next stage."""
        used = (self.chips - 1) * (self.inside // (self.chips - 1)) if self.chips > 1 and self.hops == 1 else 0
        spare = self.links.count - used if self.hops < 2 else 2
        return spare // 2

    def _seconds(self, hops: int, size: float) -> float:
        """``size``: bytes on the busiest link."""
        return hops * self.links.ns * 1e-9 + size * 8 / (self.links.gbps * 1e9)

    def exchange(self, size: float) -> float:
        """Seconds in which each chip of a group sends each other one ``size`` bytes."""
        peers = self.chips - 1
        if not peers:
            return 0.0
        # What passes through chips in between is sent again by each.
        wire = size / (self.inside // peers) if self.hops == 1 else self.hops * peers * size / self.inside
        return self._seconds(self.hops, wire)

    def sum(self, elements: int, lanes: int, clock_hz: float) -> float:
        """Seconds until all chips of a group know the sum of their vectors, additions included.

        The faster of two ways: everybody sends its whole vector to everybody; or each sums a slice, then all gather.
        """
        others, piece = self.chips - 1, ceil_div(elements, self.chips)
        if not others:
            return 0.0
        whole = self.exchange(elements * ROW_BYTES) + others * ceil_div(elements, lanes) / clock_hz
        sliced = 2 * self.exchange(piece * ROW_BYTES) + others * ceil_div(piece, lanes) / clock_hz
        return min(whole, sliced)

    def forward(self, elements: int) -> float:
        """Seconds of a vector that all chips of a stage know, until all of the next one do.

        The faster of two ways: each chip sends all of it, or a slice that the next stage's chips then exchange.
        """
        piece = ceil_div(elements, self.chips) * ROW_BYTES
        whole = self._seconds(1, elements * ROW_BYTES / self.between)
        return min(whole, self._seconds(1, piece / self.between) + self.exchange(piece)) if self.chips > 1 else whole

    def token(self, layers: int, elements: int, lanes: int, candidates: int, clock_hz: float) -> Mapping[str, float]:
        """Seconds of a token between chips: two sums a layer; ways to the next stage, and of the id back to the first;
        the embedding's row and the sampler's candidates.
        """
        between = 0.0
        if self.stages > 1:
            between = (self.stages - 1) * self.forward(elements) + self._seconds(1, ROW_BYTES)
        return {
            "sums": 2 * layers * self.sum(elements, lanes, clock_hz),
            "stages": between,
            "ends": self.exchange(elements * ROW_BYTES) + self.exchange(candidates * CANDIDATE_BYTES),
        }
