"""A stream in, a stream out: the smallest design that exercises a simulator, its harness and the runner."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Echo(wiring.Component):
    """Answers byte i of the input with byte + i (mod 256), one cycle later.

    ``busy`` is high while an answer waits; ``count`` is the number of bytes taken; ``bias`` is added to each
    answer.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "rx": In(stream.Signature(8)),
                "tx": Out(stream.Signature(8)),
                "bias": In(8),
                "busy": Out(1),
                "count": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = Signal(32)
        m.d.comb += [
            self.rx.ready.eq(self.tx.ready | ~self.tx.valid),
            self.busy.eq(self.tx.valid),
            self.count.eq(count),
        ]
        with m.If(self.rx.ready):
            m.d.sync += self.tx.valid.eq(self.rx.valid)
        with m.If(self.rx.ready & self.rx.valid):
            m.d.sync += [
                self.tx.payload.eq(self.rx.payload + count + self.bias),
                count.eq(count + 1),
            ]
        return m
