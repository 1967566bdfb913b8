"""A stream register: everything on either side of it starts or ends at a flip-flop."""

from __future__ import annotations

from amaranth import Module, Mux, ShapeLike, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class SkidBuffer(wiring.Component):
    """``i`` to ``o`` a cycle later, one element a cycle; ``i.ready``, too, is a register.

    A second element is kept for the cycle in which ``o`` waits and ``i`` does not know yet.
    """

    def __init__(self, shape: ShapeLike):
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kept = Signal.like(self.i.payload, reset_less=True)
        waiting, moves = Signal(), Signal()
        m.d.comb += [self.i.ready.eq(~waiting), moves.eq(self.o.ready | ~self.o.valid)]
        with m.If(moves):
            m.d.sync += [
                self.o.valid.eq(self.i.valid | waiting),
                self.o.payload.eq(Mux(waiting, kept, self.i.payload)),
                waiting.eq(0),
            ]
        with m.Elif(self.i.valid):
            m.d.sync += waiting.eq(1)
        with m.If(~waiting):
            m.d.sync += kept.eq(self.i.payload)
        return m
