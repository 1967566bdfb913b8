"""The static scheduler: places instructions in phases so that they are right at every position.

Time in the LPU depends on one run-time number, n (keys in the cache). Every time here is therefore a
vector over all n the context allows, and an instruction's issue cycle within its phase is the smallest
constant that satisfies its dependencies and queue for *all* of them. The length of a phase is a constant
plus a multiple of one of three counts; the sum over a token's phases is the exact cycle count of a token
as a function of position.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from hdl.config import Config
from hdl.isa import Count, Instr, Isa, Phase, Program, Queue, get_isa, tail_of
from hdl.timing import get_timing

from .errors import LpuError

Times = np.ndarray
"""int64 [number of n]: a cycle since the start of the token, for each n."""


@dataclasses.dataclass(frozen=True)
class Slot:
    """One instruction of a bundle: its issue is ``offset`` cycles from the bundle's reference time."""

    queue: Queue
    offset: int
    fields: Mapping[str, int]
    note: str = ""


@dataclasses.dataclass
class _Placed:
    time: int
    instr: Instr


class Scheduler:
    """Builds a program phase by phase. ``keys``: all values n can take."""

    def __init__(self, cfg: Config, keys: np.ndarray):
        self.cfg = cfg
        self.isa: Isa = get_isa(cfg)
        self.timing = get_timing(cfg)
        self.keys = keys
        self.counts = key_counts(cfg, keys)
        self.start: Times = np.zeros(len(keys), np.int64)
        self.free: dict[Queue, Times] = {}
        self.last: dict[Queue, Times] = {}
        """Last micro-op so far."""
        self.phases: list[Phase] = []
        self.code: dict[Queue, list[Instr]] = {q: [] for q in Queue}
        self._open: dict[Queue, list[_Placed]] = {}
        self._z_busy = self.start - 1
        self.jump_target()

    def jump_target(self, busy: Mapping[Queue, int] = MappingProxyType({}), z_busy: int = -1) -> None:
        """The current phase is entered by a jump: queues have to fetch their first instruction.

        ``busy``: queues that may be at work until that cycle of the phase; ``z_busy``: the last one in which Z may
        carry a result of before. Both must suit every way into the phase (:meth:`settle`).
        """
        for q in Queue:
            first = self.start + max(self.fetch_gap(q), busy.get(q, -1) + 1)
            self.free[q] = np.maximum(self.free.get(q, first), first)
        self._z_busy = np.maximum(self._z_busy, self.start + z_busy)

    def fetch_gap(self, queue: Queue) -> int:
        """Least distance of two issues of a queue; also its first issue behind a jump."""
        return self.timing.fetch_gap(self.isa.formats[queue])

    def count(self, fields: Mapping[str, int], name: str) -> Times | int:
        """Loop count of an instruction: vector where a count register gives it."""
        sel = fields.get(f"{name}_sel", Count.IMM)
        return fields.get(name, 1) if sel == Count.IMM else self.counts[sel]

    def span(self, fields: Mapping[str, int]) -> Times:
        """Cycles from an instruction's first micro-op to its last."""
        n1, n2 = (np.zeros(len(self.keys), np.int64) + self.count(fields, n) for n in ("n1", "n2"))
        return loop_span(n1, fields.get("d1", 1), n2, fields.get("d2", 1))

    @staticmethod
    def latest(*times: Times) -> Times:
        """For each n the latest."""
        return np.maximum.reduce(times)

    @property
    def issued(self) -> Times:
        """When all instructions placed so far are issued."""
        return self.start + max((placed[-1].time + 1 for placed in self._open.values()), default=0)

    def earliest(self, bundle: Sequence[Slot], *after: Times | int) -> Times:
        """Where :meth:`place` would put a bundle."""
        return self.start + self._earliest(bundle, after)

    def place(self, bundle: Sequence[Slot], *after: Times | int) -> Times:
        """Place a bundle at the earliest reference time not before any of ``after``; returns that time."""
        x = self._earliest(bundle, after)
        for slot in bundle:
            self._put(slot, x + slot.offset)
        return self.start + x

    def _earliest(self, bundle: Sequence[Slot], after: Sequence[Times | int]) -> int:
        x = 0
        for t in after:
            x = max(x, int(np.max(t - self.start)))
        for slot in bundle:
            x = max(x, int(np.max(self.free[slot.queue] - slot.offset - self.start)), -slot.offset)
        return max(x, self._z_order(bundle))

    def _z_order(self, bundle: Sequence[Slot]) -> int:
        """Stream Z carries results in issue order: a short operation waits for a long one before it."""
        x = 0
        for slot in bundle:
            if slot.queue is Queue.VX:
                latency = self.timing.vx(slot.fields["op"])  # type: ignore[arg-type]
                x = max(x, int(np.max(self._z_busy + 1 - latency - slot.offset - self.start)))
        return x

    def _put(self, slot: Slot, time: int) -> None:
        instr = Instr(slot.queue, dict(slot.fields), slot.note)
        self._open.setdefault(slot.queue, []).append(_Placed(time, instr))
        issue = self.start + time
        last = issue + self.span(slot.fields)
        self.last[slot.queue] = last
        self.free[slot.queue] = np.maximum(issue + self.fetch_gap(slot.queue), last + 1)
        if slot.queue is Queue.VX:
            self._z_busy = np.maximum(self._z_busy, last + self.timing.vx(slot.fields["op"]))  # type: ignore[arg-type]

    def close(
        self, note: str, *until: Times | int, slope: int = 0, count: Count = Count.IMM, last: Queue | None = None,
        loop_begin: int = 0, loop_end: int = 0, prompt_final: int = 0, final: int = 0, tail: int = 0,
    ) -> None:  # fmt: skip
        """End the phase: after the issue of all its instructions and not before any of ``until``.

        ``last``: only after the issues of this queue; the next phase begins with what is left. (The phase is as long
        for all n then: only so are issue times relative to the next one constant, too.)
        """
        assert last is None or not slope
        variable = slope * self.counts[count] if count != Count.IMM else np.zeros(len(self.keys), np.int64)
        need = np.full(len(self.keys), self.timing.phase_min, np.int64)
        for t in until:
            need = np.maximum(need, t - self.start)
        for q, placed in self._open.items():
            if last in (None, q):
                need = np.maximum(need, placed[-1].time + 1)
        dur = max(0, int(np.max(need - variable)))
        queues, left = 0, {}
        for q, placed in self._open.items():
            times = [p.time for p in placed]
            assert times == sorted(times), f"{q.name}: instructions out of order in phase {note}"
            inside = [p for p in placed if last is None or p.time < dur]
            if inside:
                queues |= 1 << q
            for p in inside:
                values = dict(p.instr.values) | {"time": p.time, "end": int(p is inside[-1])}
                self.code[q].append(Instr(q, values, p.instr.note))
            if len(inside) < len(placed):
                left[q] = [_Placed(p.time - dur, p.instr) for p in placed[len(inside) :]]
        flags = {
            "loop_begin": loop_begin, "loop_end": loop_end, "prompt_final": prompt_final, "final": final, "tail": tail,
        }  # fmt: skip
        self.phases.append(Phase(dur, slope, int(count), queues, note=note, **flags))
        self.start = self.start + dur + variable
        self._open = left

    def settle(self, busy: Mapping[Queue, int] = MappingProxyType({}), z_busy: int = -1) -> Times:
        """Earliest next phase start that :meth:`jump_target` with these arguments is true of."""
        t = self._z_busy - z_busy
        for q in Queue:
            t = np.maximum(t, self.free[q] - max(self.fetch_gap(q), busy.get(q, -1) + 1))
        return t

    def program(self) -> Program:
        """The finished program. Raises :class:`LpuError` when it does not fit the instruction memories."""
        program = Program(tuple(self.phases), {q: tuple(v) for q, v in self.code.items()})
        for q in Queue:
            words, available = program.words(self.cfg, q)
            if words > available:
                raise LpuError(
                    f"the program needs {words} words in queue {q.name}, config {self.cfg.name} has {available}"
                )
        if len(self.phases) > self.cfg.phase_depth:
            raise LpuError(
                f"the program needs {len(self.phases)} phases, config {self.cfg.name} has {self.cfg.phase_depth}"
            )
        return program


def loop_span(n1: Times | int, d1: int, n2: Times | int, d2: int) -> Times:
    """Cycles from the first micro-op of two nested loops to the last (``hdl.isa``)."""
    inner = (n1 - 1) * d1
    return inner + (n2 - 1) * np.maximum(d2, inner + 1)


def key_counts(cfg: Config, keys: np.ndarray) -> dict[int, np.ndarray]:
    """Loop counts for n keys."""
    return {
        Count.SETS: -(-keys // cfg.columns),
        Count.WORDS: -(-keys // cfg.lanes),
        Count.ROWS: -(-keys // cfg.vlanes),
    }


def token_cycles(
    cfg: Config, phases: Sequence[Phase], layers: int, window: int, floor: int, position: int, sampled: bool
) -> int:
    """Exact cycles of one token: from its first phase to the next token's.

    phases: the program's, in order; layers, window, floor: as in :class:`hdl.image.Param`; position: of the
    token (0-based); sampled: whether a token is sampled after it.
    """
    counts = token_counts(cfg, window, floor, position)
    return sum(phases[index].cycles(counts) for index, _ in token_phases(phases, layers, sampled))


def token_counts(cfg: Config, window: int, floor: int, position: int) -> dict[int, int]:
    """Loop counts of the token at ``position``."""
    n = np.array([max(floor, min(position + 1, window))])
    return {k: int(v[0]) for k, v in key_counts(cfg, n).items()}


def token_phases(phases: Sequence[Phase], layers: int, sampled: bool) -> Iterator[tuple[int, int]]:
    """(phase, layer) of a token, in order."""
    index, loop, layer, tail = 0, 0, 0, tail_of(phases)
    while True:
        phase = phases[index]
        yield index, layer
        if phase.loop_begin:
            loop = index
        if phase.loop_end and layer + 1 < layers:
            layer += 1
            index = tail if layer + 1 == layers and not sampled and tail < len(phases) else loop
        elif phase.final or (phase.prompt_final and not sampled):
            return
        else:
            index += 1
