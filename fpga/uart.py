"""The UART of a board: 8 data bits, no parity, one stop bit, at any bit rate that a quarter of the clock can carry.

Bits are timed by a phase accumulator: 3 Mbaud from 100 MHz is 33 1/3 clocks a bit, and the third is not lost. Every
edge sent and every sample taken lies within one clock of its ideal place, however long a byte or a burst is.
"""

from __future__ import annotations

import math

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

CLOCKS_PER_BIT_MIN = 4
"""Below this the middle of a bit is too uncertain for clocks that differ by 2 %."""
FIFO_DEPTH = 16
"""Bytes a receiver keeps for a reader that is busy."""
DATA_BITS = 8


def bit_period(clock_hz: float, baud: float) -> tuple[int, int]:
    """Clocks of a bit as a fraction (p, q), p even: the phase advances q a clock, p is a bit.

    Raises ValueError where a bit is shorter than CLOCKS_PER_BIT_MIN clocks.
    """
    if baud <= 0 or clock_hz < CLOCKS_PER_BIT_MIN * baud:
        raise ValueError(f"{baud:g} baud from a {clock_hz:g} Hz clock: a bit needs {CLOCKS_PER_BIT_MIN} clocks or more")
    clocks, bits = round(clock_hz), round(baud)
    common = math.gcd(clocks, bits)
    clocks, bits = clocks // common, bits // common
    return (clocks, bits) if clocks % 2 == 0 else (2 * clocks, 2 * bits)


class UartTransmitter(wiring.Component):
    """Bytes of ``i`` onto ``tx``, which is high between bytes. No pause between two bytes that wait."""

    def __init__(self, clock_hz: float, baud: float):
        self.period, self.step = bit_period(clock_hz, baud)
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = DATA_BITS + 2
        phase = Signal(range(self.period))
        rest = Signal(bits - 1)  # bits to come, low first
        left = Signal(range(bits + 1))  # bits until idle, that on the line included
        tick = Signal()
        m.d.comb += [
            tick.eq(phase >= self.period - self.step),
            self.i.ready.eq((left == 0) | ((left == 1) & tick)),
        ]
        m.d.sync += phase.eq(phase + self.step)
        with m.If(tick):
            m.d.sync += phase.eq(phase - (self.period - self.step))
        with m.If(left == 0):
            m.d.sync += phase.eq(0)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [self.tx.eq(0), rest.eq(Cat(self.i.payload, Const(1, 1))), left.eq(bits)]
        with m.Elif(tick & (left != 0)):
            m.d.sync += [self.tx.eq(rest[0]), rest.eq(Cat(rest[1:], Const(1, 1))), left.eq(left - 1)]
        return m


class UartReceiver(wiring.Component):
    """Bytes from ``rx`` (asynchronous) to ``o``, behind a FIFO of FIFO_DEPTH bytes.

    A low level shorter than half a bit is no start bit. ``framing``: pulse, a byte without its stop bit was
    dropped; then the line must be high once before a byte can begin, so that a break is one such byte.
    ``overrun``: pulse, a byte found the FIFO full and was lost.
    """

    def __init__(self, clock_hz: float, baud: float):
        self.period, self.step = bit_period(clock_hz, baud)
        super().__init__({
            "rx": In(1, init=1),
            "o": Out(stream.Signature(8)),
            "framing": Out(1),
            "overrun": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        line = Signal(init=1)
        m.submodules.sync = FFSynchronizer(self.rx, line, init=1)
        m.submodules.fifo = fifo = SyncFIFO(width=8, depth=FIFO_DEPTH)

        phase = Signal(range(self.period))
        tick = Signal()
        bits = Signal(8)
        left = Signal(range(DATA_BITS + 1))
        m.d.comb += [
            fifo.w_data.eq(bits),
            self.o.payload.eq(fifo.r_data), self.o.valid.eq(fifo.r_rdy), fifo.r_en.eq(self.o.ready),
            # The clock in which the middle of a bit lies.
            tick.eq(phase >= self.period - self.step),
        ]  # fmt: skip
        m.d.sync += phase.eq(phase + self.step)
        with m.If(tick):
            m.d.sync += phase.eq(phase - (self.period - self.step))
        with m.FSM():
            with m.State("IDLE"):
                with m.If(~line):
                    # One clock of the start bit is over at the next one; its middle is half a bit in.
                    m.d.sync += [phase.eq(self.period // 2 + self.step), left.eq(DATA_BITS)]
                    m.next = "START"
            with m.State("START"):
                with m.If(tick):
                    m.next = "DATA"
                    with m.If(line):
                        m.next = "IDLE"
            with m.State("DATA"):
                with m.If(tick):
                    m.d.sync += [bits.eq(Cat(bits[1:], line)), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.next = "STOP"
            with m.State("STOP"):
                with m.If(tick):
                    m.next = "IDLE"
                    m.d.comb += [
                        fifo.w_en.eq(line),
                        self.framing.eq(~line),
                        self.overrun.eq(line & ~fifo.w_rdy),
                    ]
                    with m.If(~line):
                        m.next = "BREAK"
            with m.State("BREAK"):
                with m.If(line):
                    m.next = "IDLE"
        return m
