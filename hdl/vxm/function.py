"""Piecewise linear functions of the vector ALUs: a ROM of bases and slopes and a small product."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from .. import tables


class Interpolator(wiring.Component):
    """``v`` = base[i] + (slope[i] * r >> fraction) with ``x`` = (i, r): EXP2 or SIGMOID.

    ``x`` at t; ``v`` is valid, combinationally, in cycle t + 1. The ROM is read without a clock and its
    output registered: 256 entries are about 400 LUT4, and on an ECP5-85F block RAM is what runs out.
    The product is an explicit sum of shifted slopes, because a block multiplier would be spent on it.
    """

    def __init__(self, table: str, fraction: int):
        self.table = table
        self.fraction = fraction
        self.base_bits, self.slope_bits = tables.WIDTHS[table]
        super().__init__({
            "x": In(unsigned(8 + fraction)),
            "v": Out(unsigned(self.base_bits + 1)),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        words = tables.packed(self.table)
        m.submodules.rom = rom = memory.Memory(shape=unsigned(36), depth=len(words), init=words)
        port = rom.read_port(domain="comb")
        m.d.comb += port.addr.eq(self.x[self.fraction :])
        base = Signal(self.base_bits, reset_less=True)
        slope = Signal(self.slope_bits, reset_less=True)
        rest = Signal(self.fraction, reset_less=True)
        m.d.sync += [
            base.eq(port.data[: self.base_bits]),
            slope.eq(port.data[self.base_bits : self.base_bits + self.slope_bits]),
            rest.eq(self.x[: self.fraction]),
        ]
        total = base << self.fraction
        for bit in range(self.fraction):
            total = total + ((slope & rest[bit].replicate(self.slope_bits)) << bit)
        m.d.comb += self.v.eq(total >> self.fraction)
        return m
