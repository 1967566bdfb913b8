"""Passes behind the MXM, and what they share: accumulators, scalar registers, sums of squares, expert bases.

A pass is accumulators -> dequantise -> vector ALU -> quantise / write, a row a cycle, without a trip through memory
between the steps. Passes of two sequences, or of two layers, may be under way at once; what is kept here is until when
each shared thing is still read, so that none is overwritten sooner.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable
from typing import Any

import numpy as np

from hdl.config import BLOCK, SCALARS, Config
from hdl.isa import AbcOp, Base, Init, Queue, SfuOp, Source, SxmMode, VxOp
from sim.qmodel import QModel

from .layout import Layout, Matrix, Places
from .schedule import Scheduler, Slot, Times

R_NORM = 1
"""First scalar register in use: 1/rms of each sequence; behind them 1/sum of heads in turn. The last ones are the
router's weights and, behind the layers, the LM head's."""
R_LM = SCALARS - 2


@dataclasses.dataclass(frozen=True)
class Offer:
    """A product that could be placed next: when it could begin, and the accumulator sets it needs at once."""

    start: Times
    sets: int = 0


Passes = Generator[Offer | None, None, Times]
"""Passes in turn: before each product what it would be, or None where another sequence has to go on first. Returns when
the last word of the result can be read."""


class Chains:
    """Places passes on a scheduler. ``floor``: least n of the loop counts."""

    def __init__(self, layout: Layout, floor: int):
        self.layout = layout
        self.cfg: Config = layout.cfg
        self.model: QModel = layout.model
        keys = np.arange(1, self.model.shape.window + 1)
        self.sched = Scheduler(self.cfg, np.maximum(keys, floor))
        self.t = self.sched.timing
        self.acc_read: list[Times] = []
        """Last cycle in which a drain reads each accumulator set."""
        self._next_acc = 0
        self._held: set[int] = set()
        """Accumulator sets whose drain is yet to be placed."""
        self._scalar_read: list[Times] = []
        """Last cycle in which each scalar register is read."""
        self._base_read: dict[Base, Times] = {}
        """Last cycle in which a base register of an expert is added to an address, in this layer."""
        self._squares_read = self.sched.start - 1
        """When SUMSQ is read."""
        self.x_behind = self.sched.fetch_gap(Queue.ABC)
        self._tail_accs = min(layout.down.sets, self.cfg.accs)
        """The last accumulator sets: of the product whose rows may be on their way behind a jump. Known from the first
        jump target on, as the loop's first phase is scheduled before that product is."""
        self.jump_target()

    @property
    def sequences(self) -> range:
        return range(len(self.layout.sequences))

    def r_norm(self, sequence: int) -> int:
        """Register of a sequence's 1/rms."""
        return R_NORM + sequence

    def r_expert(self, j: int) -> int:
        """Register of the weight of the j-th chosen expert."""
        return SCALARS - self.model.shape.top_k + j

    def r_head(self, buffer: int) -> int:
        """Register of 1/sum of a head."""
        return R_NORM + len(self.sequences) + buffer

    # Jumps --------------------------------------------------------------------------------------------

    @property
    def _busy(self) -> dict[str, Any]:
        """Until when rows of x may be on their way behind a jump (arguments of ``Scheduler.jump_target``)."""
        z = self.x_behind - self.t.sxm_act
        y = z - self.t.vx(VxOp.ADD)
        last = {
            Queue.SXM: z, Queue.XW: z, Queue.VX: y, Queue.XR: y - self.t.mem_read, Queue.ACC: y - self.t.acc,
            Queue.SR: y - self.t.acc - self.t.mem_read,
        }  # fmt: skip
        return {"busy": last, "z_busy": z}

    @property
    def _acc_busy(self) -> np.ndarray:
        """Until when each accumulator set may be read behind a jump: those of the rows on their way, else before
        anything new can be in it."""
        busy = np.full(self.cfg.accs, self.sched.fetch_gap(Queue.ABC) + self.t.dot - 1)
        tail = busy[self.cfg.accs - self._tail_accs :]
        np.maximum(tail, self._busy["busy"][Queue.ACC], out=tail)
        return busy

    def settled(self) -> list[Times]:
        """When a phase that is entered by a jump may begin."""
        accs = [read - busy for read, busy in zip(self.acc_read, self._acc_busy, strict=True)]
        return [self.sched.settle(**self._busy), *accs]

    def jump_target(self) -> None:
        """The current phase is entered by a jump, with the last rows of x on their way for ``x_behind`` cycles."""
        self.sched.jump_target(**self._busy)
        self._next_acc = 0
        self.acc_read = [self.sched.start + int(busy) for busy in self._acc_busy]
        self._scalar_read = [self.sched.start + max(0, self._busy["busy"][Queue.ACC])] * SCALARS
        self._base_read = {}

    # Accumulators -------------------------------------------------------------------------------------

    def hold(self, accs: Iterable[int]) -> None:
        """Sums go there whose drain is placed later, until :meth:`drained`."""
        self._held |= set(accs)

    def drained(self, acc: int, last: Times) -> None:
        """A set is read, at last in that cycle."""
        self.acc_read[acc] = last
        self._held.discard(acc)

    def room(self, sets: int) -> bool:
        """Whether a product of so many sets finds accumulators."""
        return self._place_for(sets) is not None

    def _place_for(self, sets: int) -> int | None:
        """First accumulator set of the next so many in turn that nobody holds."""
        accs, used = self.cfg.accs, min(sets, self.cfg.accs)
        if not self._held:
            return self._next_acc
        starts = ((self._next_acc + i) % accs for i in range(accs))
        return next((a for a in starts if not self._held & {(a + i) % accs for i in range(used)}), None)

    # Passes -------------------------------------------------------------------------------------------

    def product(
        self, m: Matrix, act: int, base: Base, words_ready: Times, scalar: int, shift: int, chain: list[Slot],
        *after: Times, note: str, last: bool = False,
    ) -> Times:  # fmt: skip
        """Output-major product and its drain, with the slots of ``chain`` (offsets from row 0 on stream Y).

        ``words_ready``: when the last activation word can be read; ``after``: row 0 is on Y no sooner; ``last``: its
        rows may still be on their way behind a jump. Returns the time of row 0 on Y; the others follow ``m.pitch``
        apart. The last set is drained to its end: rows behind the matrix's last go nowhere.
        """
        t, accs = self.t, self.cfg.accs
        if last:
            self._next_acc = accs - self._tail_accs
        first = self._place_for(m.sets)
        assert first is not None, note
        self._next_acc = (first + m.sets) % accs
        drained = min(m.rows, m.slots)  # rows of a set
        period = m.period
        dot = {
            "op": AbcOp.DOT, "width": m.isa_width, "init": Init.INNER, "n1": m.words, "n2": m.sets, "d2": period,
            "w": m.w, "w_sel": base, "w_s1": 1, "w_s2": m.words, "a": act, "a_s1": 1, "acc": first, "acc_s2": 1,
        }  # fmt: skip
        loops = {"n1": drained, "d1": m.pitch, "n2": m.sets, "d2": m.slots * m.pitch}
        acc = {
            "width": m.isa_width, "scalar": scalar, "shift": shift, "acc": first, "acc_s2": 1, "slot_s1": 1, **loops,
        }  # fmt: skip
        scales = {"s": m.s, "s_sel": base, "s_s1": 1, "s_s2": m.slots, **loops}
        drain = [Slot(Queue.SR, -t.mem_read, scales, note), Slot(Queue.ACC, 0, acc, note)]
        drain += [Slot(s.queue, s.offset + t.acc, s.fields, note) for s in chain]
        after = tuple(a - t.acc for a in after)
        # The first sum of a set may not be written before the set's last drain has read it.
        free = [self.acc_read[(first + i) % accs] + 1 - t.dot - i * period for i in range(min(m.sets, accs))]
        if m.sets > accs:
            lead = accs * period + t.dot - (m.slots - 1) * m.pitch - 1
            free.append(self.sched.earliest(drain, *after) - lead)
        start = self.sched.place([Slot(Queue.ABC, 0, dot, note)], words_ready - (m.words - 1), *free)
        # A drain that is faster than the MXM begins so late that the last set is done when its turn comes.
        behind = max(0, (m.sets - 1) * (period - m.slots * m.pitch))
        row = self.sched.place(drain, start + behind + m.words - 1 + t.dot, *after)
        for i in range(m.sets):
            self.acc_read[(first + i) % accs] = row + (i * m.slots + drained - 1) * m.pitch
        self._scalar_read[scalar] = np.maximum(self._scalar_read[scalar], row + self.sched.span(acc))
        self._base_read[base] = np.maximum(self._base_read.get(base, start), row - t.mem_read)
        return row + t.acc

    def act(self, source: Source, rows: int, pitch: int, dst: int, shift: int, sumsq: int = 0) -> dict[str, int]:
        """SXM fields of one plain vector."""
        loop = {"n1": rows, "d1": pitch}
        return {"op": SxmMode.ACT, "source": source, "dst": dst, "shift": shift, "sumsq": sumsq, **loop}

    def add_to_x(
        self, place: Places, m: Matrix, act: int, base: Base, words_ready: Times, scalar: int, shift: int,
        *after: Times, note: str, final: bool, last: bool = False,
    ) -> Times:  # fmt: skip
        """x += product; with ``final`` also quantise the new x and sum its squares. Returns the time of row 0 on Y."""
        t = self.t
        z = t.vx(VxOp.ADD)
        rows = {"n1": m.rows, "d1": m.pitch}
        chain = [
            Slot(Queue.XR, -t.mem_read, {"x": place.x, "x_s1": 1, **rows}),
            Slot(Queue.VX, 0, {"op": VxOp.ADD, "source": Source.Y, **rows}),
            Slot(Queue.XW, z, {"source": Source.Z, "x": place.x, "x_s1": 1, **rows}),
        ]
        if final:
            squares = self.act(Source.Z, m.rows, m.pitch, place.x_act, self.model.shifts.x_act, 1)
            chain.append(Slot(Queue.SXM, z, squares))
            after = (*after, self.squares_free - z)
        return self.product(m, act, base, words_ready, scalar, shift, chain, *after, note=note, last=last)

    # Scalars ------------------------------------------------------------------------------------------

    def scalar(self, fields: dict[str, int], latency: int, *after: Times, note: str) -> Times:
        """A scalar operation; returns when its result may be used. What was in the register is read before."""
        dst = fields["dst"]
        start = self.sched.place([Slot(Queue.SFU, 0, fields, note)], *after, self._scalar_read[dst] + 1 - latency)
        if "a" in fields:
            self.scalar_used(fields["a"], start)
        return start + latency

    def scalar_used(self, register: int, last: Times) -> None:
        """A register is read, at last in that cycle."""
        self._scalar_read[register] = np.maximum(self._scalar_read[register], last)

    def norm(self, sequence: int, x_ready: Times, note: str) -> Times:
        """1/rms from SUMSQ, given when the last word of x can be read; returns when an ACC may use it."""
        squared = x_ready - self.t.sxm_act + self.t.sxm_sumsq
        fields = {"op": SfuOp.RSQRT, "dst": self.r_norm(sequence)}
        ready = self.scalar(fields, self.t.sfu_rsqrt, squared, note=note)
        self._squares_read = ready - self.t.sfu_rsqrt
        return ready

    @property
    def squares_free(self) -> Times:
        """When the first row of another sum of squares may come: SUMSQ changes with its first block, but where a
        block's squares take several cycles, it is anything from then on."""
        block = self.cfg.block_rows - 1
        if self.cfg.square_lanes == BLOCK:
            block += self.t.sxm_sumsq
        return self._squares_read + 1 - block

    def expert_bases_free(self, bases: list[Base]) -> list[Times]:
        """When the first step of an EMIT to these base registers may be, which were used in this layer before."""
        t = self.t
        steps = {base: j * t.top_step + t.top_emit for j, base in enumerate(bases)}
        return [self._base_read[base] + 1 - step for base, step in steps.items() if base in self._base_read]

