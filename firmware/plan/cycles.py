"""Cycles of a share's program by part of the token, taken from the phases that the scheduler placed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from hdl.config import Config
from hdl.isa import Program, Queue

from ..bench.timeline import SLICES, Timeline, timeline
from ..checkpoint import ModelShape
from ..layout import Layout
from ..program import build_program
from ..schedule import token_counts, token_phases
from .share import share_layout

EMBEDDING, ATTENTION, EXPERTS, HEAD = PARTS = ("embedding", "attention", "experts", "LM head")
IN_LAYERS = (ATTENTION, EXPERTS)
"""Parts that run once a layer."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the token on one chip: once, or once a layer."""

    cycles: int
    busy: Mapping[Queue, int]
    """Cycles in which each slice is at work during this part."""

    @property
    def busiest(self) -> Queue:
        """The slice that is at work longest."""
        return max(self.busy, key=lambda q: self.busy[q])


@dataclasses.dataclass(frozen=True)
class Scheduled:
    """A share's token at one position."""

    parts: Mapping[str, Part]
    waits: Mapping[str, int]
    """Cycles of one layer in which the MXM waits, by what it waits to begin."""

    def token(self, layers: int) -> int:
        """Cycles of a token that passes ``layers`` layers, all of them of this share."""
        return sum(part.cycles * (layers if name in IN_LAYERS else 1) for name, part in self.parts.items())

    @property
    def layer(self) -> int:
        """Cycles of a layer."""
        return sum(self.parts[name].cycles for name in IN_LAYERS)

    def mxm(self, layers: int) -> int:
        """Cycles of such a token in which the MXM is at work."""
        return sum(p.busy[Queue.ABC] * (layers if name in IN_LAYERS else 1) for name, p in self.parts.items())


@functools.lru_cache(maxsize=256)
def build(held: ModelShape, cfg: Config, weights: int) -> tuple[Layout, Program, int]:
    """Layout, program and count floor of what a chip holds, as for an image."""
    layout = share_layout(held, cfg, weights)
    return layout, *build_program(layout)


def schedule(held: ModelShape, cfg: Config, weights: int, position: int) -> Scheduled:
    """The token at ``position`` of what a chip holds."""
    layout, program, floor = build(held, cfg, weights)
    part_of, shape = _parts(program), layout.model.shape
    counts = token_counts(cfg, shape.window, floor, position)
    cycles = dict.fromkeys(PARTS, 0)
    for index, _ in token_phases(program.phases, 1, sampled=True):
        cycles[part_of[index]] += program.phases[index].cycles(counts)
    one, two = (timeline(cfg, program, floor, dataclasses.replace(shape, layers=n), position) for n in (1, 2))
    before = one.waits()
    waits = {note: n - before.get(note, 0) for note, n in two.waits().items()}
    parts, start = {}, 0
    for name in PARTS:
        end = one.cycles if name == PARTS[-1] else start + cycles[name]
        parts[name] = Part(cycles[name], _busy(one, start, end))
        start = end
    return Scheduled(parts, {note: n for note, n in waits.items() if n > 0})


def _busy(token: Timeline, start: int, end: int) -> dict[Queue, int]:
    """Cycles from ``start`` to before ``end`` in which each slice is at work."""
    busy = dict.fromkeys(SLICES, 0)
    for work in token.work:
        busy[work.queue] += int(np.count_nonzero((work.cycles >= start) & (work.cycles < end)))
    return busy


def _parts(program: Program) -> list[str]:
    """Part of each phase."""
    begin = next(i for i, p in enumerate(program.phases) if p.loop_begin)
    end = next(i for i, p in enumerate(program.phases) if p.loop_end)
    before, behind = [EMBEDDING] * begin, [HEAD] * (len(program.phases) - end - 1)
    return [*before, *[ATTENTION] * (end - begin), EXPERTS, *behind]
