"""Which slice is at work in which cycle of a token, and what the MXM waits for in the others.

Taken from the program as it is loaded: the RTL equals it to the cycle, as every simulation checks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from hdl.config import Config
from hdl.isa import Count, Instr, Program, Queue
from sim.qmodel import QShape

from ..asm import split_phases
from ..schedule import token_counts, token_phases

SLICES = {
    Queue.ABC: "MXM", Queue.ACC: "VXM drain", Queue.VX: "VXM alu", Queue.SFU: "VXM scalar", Queue.TOP: "VXM top-k",
    Queue.SXM: "SXM", Queue.SR: "MEM scales", Queue.CR: "MEM coefficients", Queue.XR: "MEM vector read",
    Queue.XW: "MEM vector write",
}  # fmt: skip
"""Slice that each queue's micro-ops occupy."""


@dataclasses.dataclass(frozen=True)
class Work:
    """One instruction of a token: ``cycles`` of the token in which its micro-ops are issued."""

    queue: Queue
    layer: int
    phase: str
    note: str
    cycles: np.ndarray


@dataclasses.dataclass(frozen=True)
class Timeline:
    """A token's work, in order of issue."""

    cycles: int
    work: tuple[Work, ...]

    def of(self, queue: Queue) -> Iterator[Work]:
        """The instructions of one queue."""
        return (w for w in self.work if w.queue is queue)

    def busy(self, queue: Queue) -> int:
        """Cycles in which a queue's slice is at work."""
        return sum(len(w.cycles) for w in self.of(queue))

    def waits(self) -> dict[str, int]:
        """Cycles in which the MXM has nothing to do, by what it waits to begin, over all layers."""
        found: dict[str, int] = {}
        free = 0
        for w in sorted(self.of(Queue.ABC), key=lambda w: int(w.cycles[0])):
            first, last = int(w.cycles[0]), int(w.cycles[-1])
            found[w.note] = found.get(w.note, 0) + max(0, first - free) + (last - first + 1 - len(w.cycles))
            free = last + 1
        found["next token"] = self.cycles - free
        return {note: cycles for note, cycles in found.items() if cycles}


def timeline(cfg: Config, program: Program, floor: int, shape: QShape, position: int) -> Timeline:
    """The token at ``position`` (0-based), sampled, of a program with this count floor."""
    counts = token_counts(cfg, shape.window, floor, position)
    phases = split_phases(program)
    start, work = 0, []
    for index, layer in token_phases(program.phases, shape.layers, sampled=True):
        phase = program.phases[index]
        for queue, instructions in phases[index].items():
            for i in instructions:
                work.append(Work(queue, layer, phase.note, i.note or phase.note, start + i.time + _issues(i, counts)))
        start += phase.cycles(counts)
    return Timeline(start, tuple(work))


def _issues(instr: Instr, counts: dict[int, int]) -> np.ndarray:
    """Cycles from an instruction's issue to each of its micro-ops (:func:`firmware.schedule.loop_span`)."""

    def count(name: str) -> int:
        source = instr.get(f"{name}_sel")
        return counts[source] if source != Count.IMM else instr.get(name)

    inner = np.arange(count("n1")) * instr.get("d1")
    step = max(instr.get("d2"), int(inner[-1]) + 1)
    return (np.arange(count("n2"))[:, None] * step + inner).reshape(-1)
