"""Proof of the weight memories' code: any data, written, flipped in one bit or two, and read."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal

from hdl.ecc import Decoder

from .harness import Harness


class Secded(Harness):
    """In every cycle any data get their check bits as the writers make them, none, one or two bits of the word flip,
    and the word goes into the decoder. Two cycles later it has the data, or says that it has not.

    Nothing is assumed, linearity neither: the solver has encoder, flips and decoder before it, and all data.
    """

    BITS = 64

    def build(self, m: Module) -> None:
        m.submodules.unit = unit = Decoder(self.BITS)
        code = unit.code
        data = self.free("data", self.BITS)
        place_bits = code.width.bit_length()
        first, second = self.free("first", place_bits), self.free("second", place_bits)
        one, two = self.free("one"), self.free("two")
        flips = Signal(code.width)
        m.d.comb += [
            flips.eq(Mux(one, Const(1, code.width) << first, 0) ^ Mux(two, Const(1, code.width) << second, 0)),
            unit.word.eq(Cat(data, code.check(data)) ^ flips),
        ]
        # A place outside of the word flips nothing, and the same place twice neither.
        here, there = one & (first < code.width), two & (second < code.width)
        same = here & there & (first == second)

        age = Signal(2)
        m.d.sync += age.eq(Mux(age == 3, age, age + 1))
        early = age < unit.LATENCY
        written = self.was(data, unit.LATENCY, "written")
        single = self.was(here ^ there, unit.LATENCY, "single")
        double = self.was(here & there & ~same, unit.LATENCY, "double")
        self.holds(early | double | (unit.data == written))
        self.holds(early | (unit.corrected == single))
        self.holds(early | (unit.uncorrectable == double))
        self.reached(~early & unit.corrected)
        self.reached(~early & unit.uncorrectable)
        self.reached(~early & ~unit.corrected & ~unit.uncorrectable)
