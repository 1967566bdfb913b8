"""Proofs of the arithmetic: packed products, products of rows, rounding, bit search."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned

from hdl.config import ACT_BITS
from hdl.mxm.column import LaneMultiplier, add_carry, add_tree, pack, shift_up, unpack_high, unpack_low
from hdl.primitives import (
    DSP_BITS,
    Multiplier,
    highest_one,
    leading_one,
    less,
    product_of_rows,
    round_clamp,
    round_sat,
    saturate,
    shift_coarse,
    shift_fine,
    shift_keep,
)

from .harness import Harness


def clamp(value: Value, bits: int) -> Value:
    """The specification of a saturation: comparisons, nothing else."""
    top, bottom = (1 << bits - 1) - 1, -(1 << bits - 1)
    return Mux(value > top, top, Mux(value < bottom, bottom, value))


class Packing(Harness):
    """Both products of a packed weight, and the product of an int8 weight, for every weight and every activation.

    The weights are 256 constants, not a variable: a product with a constant is a few additions, which is what lets
    a solver finish.
    """

    def build(self, m: Module) -> None:
        a = self.free("a", signed(ACT_BITS))
        for weight in range(256):
            for int8 in (0, 1):
                w = Const(weight, 8)
                low_weight, high_weight = w[:4].as_signed(), w[4:].as_signed()
                if not int8 and 8 in (weight & 15, weight >> 4):
                    continue  # an int4 weight of -8 is excluded by the format
                operand = Signal(signed(DSP_BITS), name=f"operand{weight}_{int8}")
                product = Signal(signed(DSP_BITS + ACT_BITS), name=f"product{weight}_{int8}")
                m.d.comb += [operand.eq(pack(w, Const(int8, 1))), product.eq(operand * a)]
                low = unpack_low(product, Const(int8, 1))
                if int8:
                    self.holds(low == w.as_signed() * a)
                    continue
                high, carry = unpack_high(product)
                self.holds(low == low_weight * a)
                self.holds(high + carry == high_weight * a)


class Registers(Harness):
    """A multiplier's ``p`` is the product of its operands ``stages`` cycles ago."""

    def build(self, m: Module) -> None:
        lane = LaneMultiplier()
        units: list[tuple[Multiplier, int]] = [(lane, lane.stages)]
        units += [(Multiplier(stages=n, signed_a=sign, signed_b=sign), n) for n in (1, 2, 3) for sign in (True, False)]
        age = Signal(3)
        m.d.sync += age.eq(Mux(age == 7, age, age + 1))
        for i, (unit, stages) in enumerate(units):
            m.submodules[f"unit{i}"] = unit
            self.drive_free(unit.a, unit.b, prefix=f"unit{i}_")
            a, b = self.was(unit.a, stages, f"a{i}"), self.was(unit.b, stages, f"b{i}")
            self.holds((age < stages) | (unit.p == a * b))


class Rows(Harness):
    """``product_of_rows`` is the product, in every signedness, for operands of 7 and 5 bits."""

    def build(self, m: Module) -> None:
        for i, (sign_a, sign_b) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
            a = self.free(f"a{i}", signed(7) if sign_a else unsigned(7))
            b = self.free(f"b{i}", signed(5) if sign_b else unsigned(5))
            self.holds(product_of_rows(a, b) == a * b)


class Column(Harness):
    """The adders of an MXM column that carry a product's missing one: each equals plain arithmetic."""

    def build(self, m: Module) -> None:
        values = [self.free(f"v{i}", signed(14)) for i in range(8)]
        carries = [self.free(f"c{i}") for i in range(8)]
        self.holds(add_carry(values[0], values[1], carries[0]) == values[0] + values[1] + carries[0])
        total, carry = add_tree(list(zip(values, carries, strict=True)))
        plain: Value = Const(0, 1)
        for value, c in zip(values, carries, strict=True):
            plain = plain + value + c
        self.holds(total + carry == plain)
        exponent = self.free("exponent", 4)
        self.holds(shift_up(values[0], carries[0], exponent) + carries[0] == (values[0] + carries[0]) << exponent)


class Rounding(Harness):
    """Shift, round half up, clamp: each way of doing it equals the text of docs/numerics.md."""

    def build(self, m: Module) -> None:
        x = self.free("x", signed(32))
        shift = self.free("shift", 6)
        kept = shift_keep(x, shift)
        self.holds(shift_fine(shift_coarse(x, shift), shift) == kept)
        # Half of the last place added, then the floor.
        half = Signal(signed(66))
        m.d.comb += half.eq(Mux(shift == 0, x, (((x << 1) + (Const(1, 1) << shift)) >> shift) >> 1))
        for bits in (8, 10, 18, 25):
            self.holds(round_sat(kept, bits) == clamp(half, bits))
            self.holds(round_clamp(kept, bits) == clamp(half, bits))
            self.holds(saturate(x, bits) == clamp(x, bits))
        y = self.free("y", signed(32))
        self.holds(less(x, y) == (x < y))


class BitSearch(Harness):
    """``highest_one`` and ``leading_one`` name a bit that is set and has none set above it; 0 for 0."""

    def build(self, m: Module) -> None:
        for width in (3, 9, 16, 21, 36):
            x = self.free(f"x{width}", width)
            found = [highest_one(x), leading_one(m, x, f"lead{width}")]
            for index in found:
                self.holds(Mux(x == 0, index == 0, (x >> index) == 1))
                self.reached(Cat(x).any() & (index == width - 1))
