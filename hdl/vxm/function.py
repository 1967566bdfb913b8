"""Piecewise linear functions of the vector ALUs: a ROM of bases and slopes and a small product."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal, Value, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from .. import tables
from ..mem import Rom

LATENCY = 3
"""Cycles from ``x`` to ``v``: table, parts of the product, their sum."""


class Interpolator(wiring.Component):
    """``v`` = base[i] + (slope[i] * r >> fraction) with ``x`` = (i, r), i in the tables named, one behind the other.

    ``x`` at t; ``v`` comes from a register in cycle t + 3. The product is an explicit sum of shifted slopes, because
    a block multiplier would be spent on it. The ROM is one of two kinds. Of LUTs, read without a clock and its output
    registered: 256 entries are about 400 LUT4, and on an ECP5-85F block RAM is what runs out. Its two halves are
    read at once, and the one that is meant is picked where the slope is gated. With ``block``: in block RAM, without
    its output register.
    """

    def __init__(self, *names: str, fraction: int, block: bool = False):
        self.fraction = fraction
        self.block = block
        self.words = [word for name in names for word in tables.packed(name)]
        self.base_bits, _ = tables.WIDTHS[names[0]]
        assert all(tables.WIDTHS[name][0] == self.base_bits for name in names), "the slopes begin behind the base"
        self.slope_bits = max(tables.WIDTHS[name][1] for name in names)
        base, slope = tables.TABLES[names[-1]]()[-1]
        self.last = base + (slope * ((1 << fraction) - 1) >> fraction)
        """``v`` of the largest ``x``."""
        super().__init__({
            "x": In(unsigned((len(self.words) - 1).bit_length() + fraction)),
            "v": Out(unsigned(self.base_bits + 1)),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        index, rest = self.x[self.fraction :], self.x[: self.fraction]
        rest_1 = Signal(self.fraction, reset_less=True)
        m.d.sync += rest_1.eq(rest)
        # t: the table, or both halves of it. t + 1: its word.
        word = self._from_block(m, index) if self.block else self._from_luts(m, index)

        # t + 1: the base and as many shifted slopes as there are bits, in three parts.
        base, slope = word[: self.base_bits], word[self.base_bits : self.base_bits + self.slope_bits]
        terms: list[Value] = [
            (slope & rest_1[bit].replicate(self.slope_bits)) << bit for bit in range(self.fraction)
        ]
        third = (self.fraction - 1) // 2
        parts: list[Signal] = []
        for i, group in enumerate(([base << self.fraction, terms[0]], terms[1 : 1 + third], terms[1 + third :])):
            total = sum(group[1:], group[0])
            part_sum = Signal(total.shape(), reset_less=True, name=f"part{i}")
            m.d.sync += part_sum.eq(total)
            parts.append(part_sum)

        # t + 2: their sum.
        v = Signal.like(self.v, reset_less=True)
        m.d.sync += v.eq((parts[0] + parts[1] + parts[2]) >> self.fraction)
        m.d.comb += self.v.eq(v)
        return m

    def _from_block(self, m: Module, index: Value) -> Value:
        m.submodules.rom = rom = Rom(width=36, init=self.words, latency=1)
        m.d.comb += [rom.a.en.eq(1), rom.a.addr.eq(index)]
        return rom.a.data

    def _from_luts(self, m: Module, index: Value) -> Value:
        size = len(self.words) // 2
        found = []
        for half in range(2):
            part = self.words[half * size : (half + 1) * size]
            m.submodules[f"rom{half}"] = rom = memory.Memory(shape=unsigned(36), depth=size, init=part)
            port = rom.read_port(domain="comb")
            m.d.comb += port.addr.eq(index[:-1])
            word = Signal(self.base_bits + self.slope_bits, reset_less=True, name=f"word{half}")
            m.d.sync += word.eq(port.data)
            found.append(word)
        upper = Signal(reset_less=True)
        m.d.sync += upper.eq(index[-1])
        return Mux(upper, found[1], found[0])
