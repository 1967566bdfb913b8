"""Boards that carry an LPU: the top of their bitstream, and what it is made of.

:class:`BoardCore` is everything behind the pins in one clock domain, and what simulations run;
:class:`BoardTop` adds a board's pins and its clock.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from amaranth.build import Attrs, Pins, Resource
from amaranth.hdl import Cat, ClockDomain, ClockSignal, Elaboratable, Module, ResetInserter, Signal, Value
from amaranth.lib import io, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from firmware.errors import LpuError
from fpga.boot import BootRom
from fpga.ecp5 import LUT_RAM_BITS
from fpga.pll import Pll
from fpga.uart import UartReceiver, UartTransmitter
from hdl.config import Config, get_config
from hdl.core import Core
from hdl.host.skid import SkidBuffer

DEBOUNCE_S = 0.01
"""A button's level counts when it has been the same for this long."""
STRETCH_S = 0.05
"""A LED that shows an event stays on for this long."""
RESTART_CLOCKS = 16
LEDS = 8


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a device has. ``ebr``: block RAMs of 18 kbit; ``dsp``: 18 x 18 multipliers."""

    lut4: int
    ff: int
    dsp: int
    ebr: int


# The family data sheet's table of devices (FPGA-DS-02012); registers: two for each slice's two LUTs.
_LFE5U_12F = Limits(lut4=12_000, ff=12_000, dsp=28, ebr=32)
_LFE5U_25F = Limits(lut4=24_288, ff=24_288, dsp=28, ebr=56)
_LFE5U_45F = Limits(lut4=43_848, ff=43_848, dsp=72, ebr=108)
_LFE5U_85F = Limits(lut4=83_640, ff=83_640, dsp=156, ebr=208)


@dataclasses.dataclass(frozen=True)
class Board:
    """A board, the LPU it carries, and the model shipped for it."""

    name: str
    platform: str
    """Class in ``amaranth_boards.ulx3s``."""
    config: str
    baud: int
    model: str
    limits: Limits
    seed: int = 1
    """Of place and route, unless told otherwise."""
    dense: bool = False
    """LUTs are what runs out: none are joined to wider ones, which is faster but takes more of them, and levels of
    logic are saved only as far as the clock asks for it."""
    lut_ram_bits: int = LUT_RAM_BITS
    """Banks of so many bits and less are LUT RAM; 0 where block RAMs are left over."""

    @property
    def cfg(self) -> Config:
        """Sizes of its LPU."""
        return get_config(self.config)

    @property
    def clock_hz(self) -> int:
        """What the PLL makes, and timing has to meet."""
        return round(self.cfg.clock_hz)


BOARDS = {
    board.name: board
    for board in (
        Board("ulx3s-12f", "ULX3S_12F_Platform", "ulx3s-12f", 3_000_000, "names-4k", _LFE5U_12F, dense=True,
              lut_ram_bits=0),
        Board("ulx3s-25f", "ULX3S_25F_Platform", "ulx3s-25f", 3_000_000, "names-4k", _LFE5U_25F, dense=True),
        Board("ulx3s-45f", "ULX3S_45F_Platform", "ulx3s-45f", 3_000_000, "names-4k", _LFE5U_45F, seed=2),
        Board("ulx3s-85f", "ULX3S_85F_Platform", "ulx3s-85f", 3_000_000, "stories-500k", _LFE5U_85F, seed=3),
    )
}


def get_board(name: str) -> Board:
    """Named board. Raises LpuError listing the known ones."""
    try:
        return BOARDS[name]
    except KeyError:
        raise LpuError(f"unknown board {name!r}; known: {', '.join(BOARDS)}") from None


class BoardCore(wiring.Component):
    """A core between a UART and a boot memory.

    After reset (``hold``) the boot memory's bytes go to the core; bytes from ``rx`` wait until it is done.
    ``button`` (asynchronous, high while pressed): the core starts anew and the boot memory is played again. What
    lies in the core's banks stays, so once a host has begun to load another image the boot memory does not fit them
    any more and is not played again; INFO then names no image until a host has loaded one.

    ``led``: 0 a second's heartbeat; 1 a run is in progress; 2 the last frame was refused or the program missed
    an issue cycle; 3 the boot memory is being played; 4, 5 bytes received, sent; 6 a byte was lost on the line.
    """

    def __init__(self, cfg: Config, clock_hz: float, baud: float):
        self.cfg = cfg
        self.clock_hz = clock_hz
        self.baud = baud
        super().__init__({
            "rx": In(1, init=1),
            "tx": Out(1, init=1),
            "button": In(1),
            "hold": In(1),
            "led": Out(LEDS),
        })  # fmt: skip

    def _clocks(self, seconds: float) -> int:
        return max(2, round(seconds * self.clock_hz))

    def _stretched(self, m: Module, event: Value, name: str) -> Value:
        """High for STRETCH_S after an event."""
        left = Signal(range(self._clocks(STRETCH_S)), name=f"{name}_left")
        seen = Signal(name=f"{name}_seen")
        m.d.sync += seen.eq(event)
        with m.If(seen):
            m.d.sync += left.eq(self._clocks(STRETCH_S) - 1)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        return left != 0

    def _restart(self, m: Module) -> Signal:
        """High for RESTART_CLOCKS once the button is pressed."""
        button, pressed, before = Signal(), Signal(), Signal()
        m.submodules.button_sync = FFSynchronizer(self.button, button)
        same = Signal(range(self._clocks(DEBOUNCE_S)))
        with m.If(button == pressed):
            m.d.sync += same.eq(0)
        with m.Elif(same == self._clocks(DEBOUNCE_S) - 1):
            m.d.sync += [pressed.eq(button), same.eq(0)]
        with m.Else():
            m.d.sync += same.eq(same + 1)
        left = Signal(range(RESTART_CLOCKS + 1))
        # Straight from a register: it reaches every flip-flop of the core.
        restart = Signal(init=1)
        m.d.sync += [before.eq(pressed), restart.eq((left != 0) | self.hold)]
        with m.If(pressed & ~before):
            m.d.sync += left.eq(RESTART_CLOCKS)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        return restart

    def elaborate(self, platform: object) -> Module:
        m = Module()
        restarting = self._restart(m)
        restart = ResetInserter(restarting)
        core, boot = Core(self.cfg), BootRom()
        receiver = UartReceiver(self.clock_hz, self.baud)
        arrived = SkidBuffer(8)  # the core's end of the line may be far away
        transmitter = UartTransmitter(self.clock_hz, self.baud)
        m.submodules.core = restart(core)
        m.submodules.boot = restart(boot)
        m.submodules.receiver = restart(receiver)
        m.submodules.arrived = restart(arrived)
        m.submodules.transmitter = restart(transmitter)

        m.d.comb += [receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx)]
        wiring.connect(m, core.tx, transmitter.i)
        wiring.connect(m, receiver.o, arrived.i)
        with m.If(boot.done):
            m.d.comb += [
                core.rx.valid.eq(arrived.o.valid), core.rx.payload.eq(arrived.o.payload),
                arrived.o.ready.eq(core.rx.ready),
            ]  # fmt: skip
        with m.Else():
            m.d.comb += [
                core.rx.valid.eq(boot.o.valid), core.rx.payload.eq(boot.o.payload),
                boot.o.ready.eq(core.rx.ready),
            ]  # fmt: skip

        # A host that loads an image takes away the one before it first.
        had_image, replaced = Signal(), Signal()
        m.d.sync += had_image.eq(core.has_image & ~restarting)
        with m.If(had_image & ~core.has_image & ~restarting):
            m.d.sync += replaced.eq(1)
        m.d.comb += boot.skip.eq(replaced)

        beat = Signal()
        clocks = Signal(range(self._clocks(0.5)))
        m.d.sync += clocks.eq(clocks + 1)
        with m.If(clocks == self._clocks(0.5) - 1):
            m.d.sync += [clocks.eq(0), beat.eq(~beat)]
        received = receiver.o.valid & receiver.o.ready
        sent = core.tx.valid & core.tx.ready
        m.d.comb += self.led.eq(Cat(
            beat, core.busy, core.error | core.fault, ~boot.done,
            self._stretched(m, received, "received"), self._stretched(m, sent, "sent"),
            self._stretched(m, receiver.framing | receiver.overrun, "lost"),
        ))  # fmt: skip
        return m


def clocked(m: Module, core: BoardCore, clk_in: Value, input_hz: int) -> None:
    """Adds ``core`` as submodule ``board``, in a domain ``sync`` of its clock made from ``clk_in``.

    It is held until the PLL has locked. The domain has no reset: flip-flops start as the bitstream says.
    """
    m.submodules.pll = pll = Pll(input_hz, round(core.clock_hz))
    m.domains.sync = ClockDomain("sync", reset_less=True)
    m.submodules.lock = FFSynchronizer(~pll.lock, core.hold, init=1)
    m.submodules.board = core
    m.d.comb += [pll.clk_in.eq(clk_in), ClockSignal("sync").eq(pll.clk)]


class ClockedBoard(wiring.Component):
    """A :class:`BoardCore` with its PLL but without a board's pins, for simulation: ``clk_in`` is the crystal."""

    def __init__(self, core: BoardCore, input_hz: int = 25_000_000):
        self.core = core
        self.input_hz = input_hz
        super().__init__({
            "clk_in": In(1),
            "rx": In(1, init=1),
            "tx": Out(1, init=1),
            "button": In(1),
            "led": Out(LEDS),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        clocked(m, self.core, self.clk_in, self.input_hz)
        m.d.comb += [
            self.core.rx.eq(self.rx), self.core.button.eq(self.button),
            self.tx.eq(self.core.tx), self.led.eq(self.core.led),
        ]  # fmt: skip
        return m


class BoardTop(Elaboratable):
    """The top of a board's bitstream: pins, clock, and a :class:`BoardCore` named ``board``."""

    def __init__(self, board: Board):
        self.board = board

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        core = BoardCore(self.board.cfg, self.board.clock_hz, self.board.baud)

        def pin(direction: str, port: Any) -> io.Buffer:
            buffer = io.Buffer(direction, port)
            m.submodules += buffer
            return buffer

        clock = pin("i", platform.request(platform.default_clk, 0, dir="-"))
        clocked(m, core, clock.i, round(platform.default_clk_frequency))
        # Named from the FPGA's side: rx is driven by the FT231X. That chip's TXDEN (uart_tx_enable) is not needed.
        uart = platform.request("uart", 0, dir="-")
        button = pin("i", platform.request("button_fire", 0, dir="-"))
        m.d.comb += [
            core.rx.eq(pin("i", uart.rx).i),
            pin("o", uart.tx).o.eq(core.tx),
            core.button.eq(button.i),
        ]
        m.d.comb += [pin("o", platform.request("led", i, dir="-")).o.eq(core.led[i]) for i in range(LEDS)]
        # GPIO0 of the ESP32, which shares the JTAG lines: low, its program would take the board over. amaranth-boards
        # has the pin only as part of a bundle with the others, of which none is to be driven.
        platform.add_resources([
            Resource("wifi_gpio0", 0, Pins("L2", dir="o"), Attrs(IO_TYPE="LVCMOS33", PULLMODE="UP", DRIVE="4"))
        ])  # fmt: skip
        m.d.comb += pin("o", platform.request("wifi_gpio0", 0, dir="-")).o.eq(1)
        return m
