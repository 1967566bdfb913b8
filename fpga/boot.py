"""Bytes a board plays to its core at power-on: what a host would send to start a run."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hdl.mem import Bank

DEPTH = 2048
BYTES_MAX = DEPTH - 1
"""Bytes that fit: one entry ends them."""
PRESENT = 1 << 8
"""Bit of an entry that holds a byte; the first entry without it is the end."""


def boot_words(data: bytes) -> list[int]:
    """The memory's words for ``data``, all of them. Raises ValueError for more than BYTES_MAX bytes."""
    if len(data) > BYTES_MAX:
        raise ValueError(f"{len(data)} boot bytes; the memory holds {BYTES_MAX}")
    return [PRESENT | byte for byte in data] + [0] * (DEPTH - len(data))


class BootRom(wiring.Component):
    """Plays its memory on ``o`` after reset; ``done``: the end is reached. ``skip``: the end is reached at once.

    The memory (submodule ``rom``) has its contents from the bitstream, and is never written: a reset plays
    the same bytes again, and a memory of zeros plays none.
    """

    def __init__(self) -> None:
        super().__init__({"o": Out(stream.Signature(8)), "done": Out(1), "skip": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.rom = rom = Bank(width=9, depth=DEPTH)
        at = Signal(range(DEPTH))
        m.d.comb += [
            rom.r.en.eq(1),
            rom.r.addr.eq(at),
            rom.w.en.eq(0),
            self.o.payload.eq(rom.r.data[:8]),
        ]
        # Four clocks a byte: a UART is slower by far.
        with m.FSM():
            with m.State("READ"):
                m.next = "WAIT"
            with m.State("WAIT"):
                m.next = "LOOK"
            with m.State("LOOK"):
                m.next = "PLAY"
                with m.If(~rom.r.data[8] | (at == BYTES_MAX) | self.skip):
                    m.next = "DONE"
            with m.State("PLAY"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.d.sync += at.eq(at + 1)
                    m.next = "READ"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
        return m
