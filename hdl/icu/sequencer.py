"""Sequencer: walks the phase table, loops over layers, and goes from token to token without a lost cycle."""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config, address_bits
from ..image import LoadBus, Space
from ..isa import PHASE_BITS, PHASE_FIELDS, Count, Queue

MIN_PHASE = 3
"""Shortest phase in cycles: the length is ready two cycles after the phase began."""

_PHASE = data.StructLayout({f.name: f.bits for f in PHASE_FIELDS})


class Sequencer(wiring.Component):
    """Phase timer.

    Inputs: ``go``: pulse in the cycle before the first token's first phase; ``sampled``: the token in work
    is followed by a sampled one; ``more``: another token follows this one; loop counts; ``layers``.
    Outputs: ``now``; ``enter``: per queue, in the last cycle before its phase; pulses ``restart``, ``mark``,
    ``jump`` beside it; ``token_end``: last cycle of a token; ``cycles``: of the token, valid with
    ``token_end``; ``running``.
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
            "now": Out(20),
            "enter": Out(len(Queue)),
            "restart": Out(1),
            "mark": Out(1),
            "jump": Out(1),
            "token_end": Out(1),
            "cycles": Out(32),
            "running": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self.cfg.phase_depth
        m.submodules.table = table = memory.Memory(shape=PHASE_BITS, depth=depth, init=[])
        write, read = table.write_port(), table.read_port(domain="comb")
        m.d.comb += [
            write.addr.eq(self.load.addr),
            write.data.eq(self.load.data),
            write.en.eq(self.load.valid & (self.load.space == Space.PHASE)),
        ]
        following = data.View(_PHASE, read.data)
        phase = Signal(_PHASE)
        index, loop = Signal(address_bits(depth)), Signal(address_bits(depth))
        layer = Signal(8)
        counts = {Count.SETS: self.count_sets, Count.WORDS: self.count_words, Count.ROWS: self.count_rows}
        variable = Signal(6 + self.cfg.position_bits)
        end_at = Signal(20)
        chosen = Array([0, *(counts[c] for c in sorted(counts))])[phase.count]
        last, token_end, again = Signal(), Signal(), Signal()
        m.d.comb += [
            last.eq(self.running & (self.now >= MIN_PHASE - 1) & (self.now == end_at)),
            again.eq(phase.loop_end & (layer + 1 != self.layers)),
            token_end.eq(last & ~again & (phase.final | (phase.prompt_final & ~self.sampled))),
            self.token_end.eq(token_end),
            self.restart.eq(self.go | token_end),
            self.jump.eq(last & again),
        ]
        with m.If(self.restart):
            m.d.comb += read.addr.eq(0)
        with m.Elif(again):
            m.d.comb += read.addr.eq(loop)
        with m.Else():
            m.d.comb += read.addr.eq(index + 1)

        begin = Signal()  # a phase begins in the next cycle
        m.d.comb += begin.eq(self.go | (last & (~token_end | self.more)))
        m.d.comb += self.enter.eq(Mux(begin, following.queues, 0))
        m.d.comb += self.mark.eq(begin & following.loop_begin & ~self.jump)

        m.d.sync += [
            self.now.eq(self.now + 1),
            variable.eq(phase.slope * chosen),
            self.cycles.eq(self.cycles + 1),
        ]
        m.d.sync += end_at.eq(phase.dur + variable - 1)  # two cycles behind ``phase``: see MIN_PHASE
        with m.If(begin):
            m.d.sync += [phase.eq(following), index.eq(read.addr), self.now.eq(0)]
            with m.If(following.loop_begin):
                m.d.sync += [loop.eq(read.addr), layer.eq(Mux(self.jump, layer + 1, 0))]
            with m.If(self.restart):
                m.d.sync += [self.cycles.eq(1), self.running.eq(1)]
        with m.Elif(token_end):
            m.d.sync += self.running.eq(0)
        return m
