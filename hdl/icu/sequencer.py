"""Sequencer: walks the phase table, loops over layers, and goes from token to token without a lost cycle."""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config, address_bits
from ..image import LoadBus, Space
from ..isa import PHASE_BITS, PHASE_FIELDS, Count, Queue
from ..mem import Bank
from ..timing import get_timing

_PHASE = data.StructLayout({f.name: f.bits for f in PHASE_FIELDS})

_SETTLED = 6
"""Cycle of a phase from which on its length is known, its last cycle but one at the earliest."""


class Sequencer(wiring.Component):
    """Phase timer.

    Inputs: ``go``: pulse in the cycle before the first token's first phase, at least three cycles after the
    last one ended; ``sampled``: the token in work is followed by a sampled one; ``more``: another token follows
    this one; loop counts; ``layers``. Outputs: ``begin``: a phase begins in the next cycle; ``upcoming``: else,
    number of the next cycle in its phase; ``enter``: per queue, with ``begin``; pulses ``restart`` and ``jump``
    beside it; ``divert``, with ``jump``: to the tail; ``mark``: in its first cycle, a loop begins with this phase;
    ``token_end``: last cycle of a token; ``cycles``: of the token, valid with ``token_end``; ``running``.

    What comes after a phase is worked out while it lasts, with a register behind each step; that takes
    ``Timing.phase_min`` cycles, the shortest phase.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        super().__init__({
            "load": In(LoadBus(cfg)),
            "go": In(1),
            "sampled": In(1),
            "more": In(1),
            "layers": In(8),
            "count_sets": In(cfg.position_bits),
            "count_words": In(cfg.position_bits),
            "count_rows": In(cfg.position_bits),
            "begin": Out(1),
            "upcoming": Out(20),
            "enter": Out(len(Queue)),
            "restart": Out(1),
            "mark": Out(1),
            "jump": Out(1),
            "divert": Out(1),
            "token_end": Out(1),
            "cycles": Out(32),
            "running": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self.cfg.phase_depth
        assert get_timing(self.cfg).phase_min == _SETTLED + 1
        if self.cfg.phase_bank:
            m.submodules.table = bank = Bank(width=PHASE_BITS, depth=depth, latency=1)
            write, read = bank.w, bank.r
            m.d.comb += read.en.eq(1)
        else:
            m.submodules.table = table = memory.Memory(shape=PHASE_BITS, depth=depth, init=[])
            write, read = table.write_port(), table.read_port(domain="comb")
        m.d.comb += [
            write.addr.eq(self.load.addr),
            write.data.eq(self.load.data),
            write.en.eq(self.load.valid & (self.load.space == Space.PHASE)),
        ]
        phase, following = Signal(_PHASE), Signal(_PHASE)
        index, loop, tail = (Signal(address_bits(depth), name=name) for name in ("index", "loop", "tail"))
        layer = Signal(8)

        # The tail is known from the table's rows, which come in order.
        has_tail = Signal()
        with m.If(write.en & (data.View(_PHASE, write.data).tail | (write.addr == 0))):
            m.d.sync += [tail.eq(write.addr), has_tail.eq(data.View(_PHASE, write.data).tail)]

        # Cycle 0 of a phase: how does it end? Cycle 1: which phase follows? Cycle 2: that phase.
        again, ends, more_layers = Signal(), Signal(), Signal()
        after = Signal.like(index)
        m.d.comb += more_layers.eq(phase.loop_end & (layer + 1 != self.layers))
        m.d.sync += [
            again.eq(more_layers),
            self.divert.eq(has_tail & ~self.sampled & (layer + 2 == self.layers)),
            ends.eq(~more_layers & (phase.final | (phase.prompt_final & ~self.sampled))),
        ]
        with m.If(~self.running | ends):
            m.d.sync += after.eq(0)
        with m.Elif(again):
            m.d.sync += after.eq(Mux(self.divert, tail, loop))
        with m.Else():
            m.d.sync += after.eq(index + 1)
        m.d.comb += read.addr.eq(after)
        if self.cfg.phase_bank:
            m.d.comb += following.eq(data.View(_PHASE, read.data))
        else:
            m.d.sync += following.eq(data.View(_PHASE, read.data))

        # Cycle 2 of a token's first phase: the counts. 3: the one meant. 4: times slope. 5: the last cycle.
        counts = {Count.SETS: self.count_sets, Count.WORDS: self.count_words, Count.ROWS: self.count_rows}
        chosen = Signal(self.cfg.position_bits)
        variable = Signal(len(phase.slope) + self.cfg.position_bits)
        last_but_one = Signal(20)
        upcoming, settled, last = Signal.like(self.upcoming, init=1), Signal(), Signal()
        m.d.sync += [
            chosen.eq(Array([0, *(counts[c] for c in sorted(counts))])[phase.count]),
            variable.eq(phase.slope * chosen),
            last_but_one.eq(phase.dur + variable - 1),  # as ``upcoming`` counts: from one
            settled.eq(settled | (upcoming == _SETTLED - 1)),
            last.eq(self.running & settled & (upcoming == last_but_one)),
            upcoming.eq(upcoming + 1),
            self.cycles.eq(self.cycles + 1),
        ]

        begin = Signal()
        m.d.comb += [
            self.token_end.eq(last & ends),
            self.restart.eq(self.go | self.token_end),
            self.jump.eq(last & again),
            begin.eq(self.go | (last & (~ends | self.more))),
            self.begin.eq(begin),
            self.upcoming.eq(upcoming),
            self.enter.eq(following.queues & begin.replicate(len(Queue))),
        ]
        m.d.sync += self.mark.eq(begin & following.loop_begin & ~self.jump)
        with m.If(begin):
            m.d.sync += [phase.eq(following), index.eq(after), upcoming.eq(1), settled.eq(0), last.eq(0)]
            with m.If(following.loop_begin):
                m.d.sync += [loop.eq(after), layer.eq(Mux(self.jump, layer + 1, 0))]
            with m.If(self.restart):
                m.d.sync += [self.cycles.eq(1), self.running.eq(1)]
        with m.Elif(self.token_end):
            m.d.sync += [self.running.eq(0), last.eq(0)]
        return m
