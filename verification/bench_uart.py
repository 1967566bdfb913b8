"""Bench of the UART: cocotbext-uart at the other end of the wires, at its rate and 2 % off, and lines in disorder."""

from __future__ import annotations

import logging
from typing import Any

import cocotb
import numpy as np
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge, Timer
from cocotb.utils import get_sim_time
from cocotbext.uart import UartSink, UartSource

from fpga.uart import FIFO_DEPTH, UartReceiver, UartTransmitter
from verification.context import context

RATES = (1.0, 1.02, 0.98)
"""Of the other end, relative to the design's: two of the usual crystals and dividers differ by less."""


class UartPair(wiring.Component):
    """A receiver and a transmitter."""

    def __init__(self, clock_hz: float, baud: float) -> None:
        self.receiver = UartReceiver(clock_hz, baud)
        self.transmitter = UartTransmitter(clock_hz, baud)
        super().__init__({
            "rx": In(1, init=1),
            "o": Out(stream.Signature(8)),
            "framing": Out(1),
            "overrun": Out(1),
            "i": In(stream.Signature(8)),
            "tx": Out(1, init=1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.receiver = receiver = self.receiver
        m.submodules.transmitter = transmitter = self.transmitter
        wiring.connect(m, receiver.o, wiring.flipped(self.o))
        wiring.connect(m, wiring.flipped(self.i), transmitter.i)
        m.d.comb += [
            receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx),
            self.framing.eq(receiver.framing), self.overrun.eq(receiver.overrun),
        ]  # fmt: skip
        return m


class Line:
    """The design and both its wires. ``stall``: share of the cycles in which nobody takes a byte."""

    def __init__(self, dut: Any, rng: np.random.Generator) -> None:
        params = context().params
        self.dut = dut
        self.rng = rng
        self.baud: float = params["baud"]
        self.clock_ps = round(1e12 / params["clock_hz"])
        self.bit_ps = round(1e12 / self.baud)
        self.stall = 0.0
        self.received = bytearray()
        self.framing = self.overrun = 0

    async def start(self) -> None:
        """Resets the design; from then on bytes are taken and errors counted."""
        dut = self.dut
        dut.rx.value = 1
        dut.o__ready.value = 0
        dut.i__valid.value = 0
        dut.rst.value = 1
        Clock(dut.clk, self.clock_ps, "ps").start()
        for _ in range(3):
            await RisingEdge(dut.clk)
        await FallingEdge(dut.clk)
        dut.rst.value = 0
        cocotb.start_soon(self._take())

    async def _take(self) -> None:
        dut = self.dut
        while True:
            ready = self.stall == 0 or self.rng.random() >= self.stall
            dut.o__ready.value = ready
            await ReadOnly()
            if ready and dut.o__valid.value:
                self.received.append(int(dut.o__payload.value))
            self.framing += int(dut.framing.value)
            self.overrun += int(dut.overrun.value)
            await FallingEdge(dut.clk)

    def source(self, rate: float = 1.0) -> UartSource:
        """A peer that sends, ``rate`` times as fast as it should."""
        source = UartSource(self.dut.rx, baud=self.baud * rate)
        source.log.setLevel(logging.WARNING)
        return source

    def sink(self, rate: float = 1.0) -> UartSink:
        """A peer that receives."""
        sink = UartSink(self.dut.tx, baud=self.baud * rate)
        sink.log.setLevel(logging.WARNING)
        return sink

    async def level(self, value: int, bits: float) -> None:
        """Holds ``rx``."""
        self.dut.rx.value = value
        await Timer(round(bits * self.bit_ps), "ps")

    async def idle(self, bits: float = 3) -> None:
        """Lets what is on its way arrive."""
        await self.level(1, bits)

    async def send(self, byte: int, stop: int = 1) -> None:
        """A byte by hand, with any stop bit."""
        await self.level(0, 1)
        for i in range(8):
            await self.level(byte >> i & 1, 1)
        await self.level(stop, 1)

    async def give(self, data: bytes, pause: float = 0.0) -> None:
        """Offers bytes to the transmitter, each after a random pause of so many bits on average."""
        dut = self.dut
        for byte in data:
            if pause:
                dut.i__valid.value = 0
                await Timer(round(self.rng.exponential(pause) * self.bit_ps), "ps")
                await FallingEdge(dut.clk)
            dut.i__payload.value = byte
            dut.i__valid.value = 1
            await ReadOnly()
            while not dut.i__ready.value:
                await FallingEdge(dut.clk)
                await ReadOnly()
            await FallingEdge(dut.clk)
        dut.i__valid.value = 0


async def start(dut: Any, stream_: int) -> Line:
    """A line, out of reset."""
    line = Line(dut, context().rng(stream_))
    await line.start()
    return line


@cocotb.test()
async def receives_at_any_rate(dut: Any) -> None:
    """Bytes back to back and with pauses of any length, from a peer at the design's rate and 2 % off."""
    line = await start(dut, 1)
    line.stall = 0.5
    for rate in RATES:
        data = bytes([0x00, 0xFF, 0x55, 0xAA]) + line.rng.bytes(60)
        source = line.source(rate)
        source.write_nowait(data)
        await source.wait()
        await line.idle()
        for byte in data[:20]:
            await Timer(int(line.rng.integers(1, 2 * line.bit_ps)), "ps")
            source.write_nowait([byte])
            await source.wait()
        await line.idle()
        assert line.received == data + data[:20], f"rate {rate}"
        line.received.clear()
    assert (line.framing, line.overrun) == (0, 0)


@cocotb.test()
async def transmits_at_any_rate(dut: Any) -> None:
    """A peer at the design's rate, and 2 % off, reads what is sent; a burst keeps the exact rate."""
    line = await start(dut, 2)
    for rate in RATES:
        sink = line.sink(rate)
        data = bytes([0x00, 0xFF, 0x55, 0xAA]) + line.rng.bytes(60)
        await FallingEdge(dut.clk)
        begin = get_sim_time("ps")
        await line.give(data)
        # The last byte is taken when the one before it ends.
        spent = get_sim_time("ps") - begin
        ideal = 10 * (len(data) - 1) * 1e12 / line.baud
        assert abs(spent - ideal) <= 2 * line.clock_ps, f"{len(data)} bytes took {spent} ps, {ideal} are ideal"
        await line.give(data[:20], pause=4)
        await Timer(12 * line.bit_ps, "ps")
        assert bytes(sink.read_nowait()) == data + data[:20], f"rate {rate}"


@cocotb.test()
async def ignores_glitches(dut: Any) -> None:
    """Low for less than half a bit is no start bit."""
    line = await start(dut, 3)
    data = line.rng.bytes(20)
    # The line is looked at once a clock: a glitch one clock shorter than half a bit is never seen as half a bit.
    longest = line.bit_ps // 2 - line.clock_ps
    for byte in data:
        for _ in range(3):
            await line.level(0, int(line.rng.integers(1, longest)) / line.bit_ps)
            await line.level(1, 0.5 + line.rng.random())
        await line.send(byte)
    await line.idle()
    assert line.received == data
    assert (line.framing, line.overrun) == (0, 0)


@cocotb.test()
async def drops_bytes_without_a_stop_bit(dut: Any) -> None:
    """Each is one error; the bytes before and after it arrive. A break is one error, however long."""
    line = await start(dut, 4)
    data = line.rng.bytes(12)
    for i, byte in enumerate(data):
        await line.send(byte)
        await line.send(int(line.rng.integers(256)), stop=0)
        await line.level(0, 50 * line.rng.random())
        # High for a moment only: the next byte may follow at once.
        await line.level(1, 0.5 if i % 2 else 5)
    await line.idle()
    assert line.received == data
    assert (line.framing, line.overrun) == (len(data), 0)
    await line.level(0, 100)
    await line.idle()
    await line.send(0xA5)
    await line.idle()
    assert line.received[len(data) :] == b"\xa5"
    assert (line.framing, line.overrun) == (len(data) + 1, 0)


@cocotb.test()
async def keeps_bytes_for_a_busy_reader(dut: Any) -> None:
    """As many as the FIFO holds; one more is lost, and reported."""
    line = await start(dut, 5)
    line.stall = 1.0
    data = line.rng.bytes(FIFO_DEPTH + 3)
    source = line.source()
    source.write_nowait(data)
    await source.wait()
    await line.idle()
    assert not line.received and line.overrun == 3
    line.stall = 0.0
    await line.idle(10)
    await line.send(0x3C)
    await line.idle()
    assert line.received == data[:FIFO_DEPTH] + b"\x3c"
    assert (line.framing, line.overrun) == (0, 3)
