"""Piecewise linear functions of the vector ALUs: a ROM of bases and slopes and a small product."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import tables
from ..mem import Rom
from ..primitives import Multiplier, delayed

LATENCY = 4
"""Cycles from ``x`` to ``v``: array and output register of the table, parts of the product, their sum."""


class Interpolator(wiring.Component):
    """``v`` = base[i] + (slope[i] * r >> fraction) with ``x`` = (i, r), i in the tables named, one behind the other.

    ``x`` at t; ``v`` comes from a register in cycle t + 4. The product is an explicit sum of shifted slopes, because
    a block multiplier would be spent on it; with ``multiplier`` one is, and ``v`` is a sum behind its register.
    """

    def __init__(self, *names: str, fraction: int, multiplier: bool = False):
        self.fraction = fraction
        self.multiplier = multiplier
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
        # t and t + 1: the table.
        m.submodules.rom = rom = Rom(width=36, init=self.words)
        m.d.comb += [rom.a.en.eq(1), rom.a.addr.eq(self.x[self.fraction :])]
        word = rom.a.data
        rest_1, rest = Signal(self.fraction, reset_less=True), Signal(self.fraction, reset_less=True)
        m.d.sync += [rest_1.eq(self.x[: self.fraction]), rest.eq(rest_1)]

        # t + 2: the base and as many shifted slopes as there are bits, in three parts.
        base, slope = word[: self.base_bits], word[self.base_bits : self.base_bits + self.slope_bits]
        if self.multiplier:
            m.submodules.product = product = Multiplier(stages=2, signed_a=False, signed_b=False)
            m.d.comb += [
                product.a.eq(slope), product.b.eq(rest),
                self.v.eq(delayed(m, base, 2, name="base")[-1] + (product.p >> self.fraction)),
            ]  # fmt: skip
            return m
        terms: list[Value] = [(slope & rest[bit].replicate(self.slope_bits)) << bit for bit in range(self.fraction)]
        third = (self.fraction - 1) // 2
        parts: list[Signal] = []
        for i, group in enumerate(([base << self.fraction, terms[0]], terms[1 : 1 + third], terms[1 + third :])):
            total = sum(group[1:], group[0])
            part_sum = Signal(total.shape(), reset_less=True, name=f"part{i}")
            m.d.sync += part_sum.eq(total)
            parts.append(part_sum)

        # t + 3: their sum.
        v = Signal.like(self.v, reset_less=True)
        m.d.sync += v.eq((parts[0] + parts[1] + parts[2]) >> self.fraction)
        m.d.comb += self.v.eq(v)
        return m
