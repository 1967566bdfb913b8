"""Registered multipliers and the small combinational pieces that several slices share.

Data registers have no reset: what they hold before the first valid operand is never used, and an ECP5 block
multiplier packs its registers only without one.
"""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Const, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

DSP_BITS = 18
"""Operand width of the FPGA's multiplier block."""


def delayed(m: Module, value: Any, cycles: int, *, reset: bool = False, name: str = "d") -> list[Any]:
    """``[value, value one cycle later, ... cycles later]``; ``reset=True`` for control bits."""
    out = [value]
    for i in range(cycles):
        shape = value.shape()
        reg = Signal(shape, reset_less=not reset, name=f"{name}_{i + 1}")
        m.d.sync += reg.eq(out[-1])
        out.append(reg)
    return out


def shift_keep(value: Value, shift: Value | int) -> Value:
    """Arithmetic right shift that keeps the bit below: bit 0 of the result is the rounding bit.

    One pipeline stage of 2:1 multiplexers; :func:`round_sat` is the stage behind it.
    """
    return Cat(Const(0, 1), value).as_signed() >> shift


def shift_coarse(value: Value, shift: Value) -> Value:
    """:func:`shift_keep` in two stages: here by the multiple of 8 in ``shift``, then :func:`shift_fine`."""
    return Cat(Const(0, 1), value).as_signed() >> Cat(Const(0, 3), shift[3:])


def shift_fine(kept: Value, shift: Value) -> Value:
    """The rest of a shift that :func:`shift_coarse` began."""
    return kept.as_signed() >> shift[:3]


def saturate(value: Value, bits: int) -> Value:
    """Clamp a signed value to ``bits`` bits."""
    if len(value) <= bits:
        return value
    sign = value[-1]
    fits = (value[bits - 1 :] == sign.replicate(len(value) - bits + 1))
    limit = Cat((~sign).replicate(bits - 1), sign)
    return Mux(fits, value[:bits], limit).as_signed()


def round_sat(kept: Value, bits: int) -> Value:
    """Round half up and clamp to ``bits`` bits what :func:`shift_keep` gave.

    Overflow is decided on the truncated value while the carry chain runs. Truncated values one below the
    range would round back into it, onto the very limit that they are clamped to.
    """
    up, x = kept[0], kept[1:].as_signed()
    if len(x) < bits:
        return (x + Cat(up, Const(0, 1)).as_signed())[:bits].as_signed()
    low, sign = x[:bits].as_signed(), x[-1]
    total = (low + Cat(up, Const(0, 1)).as_signed())[: bits + 1]
    fits = x[bits - 1 :] == sign.replicate(len(x) - bits + 1)
    limit = Cat((~sign).replicate(bits - 1), sign)
    carried = total[bits] != total[bits - 1]
    return Mux(fits & ~carried, total[:bits], limit).as_signed()


def round_clamp(kept: Value, bits: int) -> Value:
    """:func:`round_sat` with one multiplexer behind the carry chain.

    Rounding overflows from the positive limit only, and that is then the result: whether the value is there is
    read from the bits that go into the chain, not from what comes out.
    """
    up, x = kept[0], kept[1:].as_signed()
    low, sign = x[:bits].as_signed(), x[-1]
    total = (low + Cat(up, Const(0, 1)).as_signed())[:bits]
    fits = x[bits - 1 :] == sign.replicate(len(x) - bits + 1)
    at_limit = low[: bits - 1].all() & ~sign
    limit = Cat((~sign).replicate(bits - 1), sign)
    return Mux(fits & ~at_limit, total, limit).as_signed()


def less(a: Value, b: Value) -> Value:
    """``a < b`` of signed values as the sign of their difference: a carry chain with no logic behind it."""
    return (a - b)[-1]


def highest_one(value: Value) -> Value:
    """Index of the highest set bit (0 for 0), four bits a level: half as deep as :func:`leading_one`."""
    if len(value) <= 4:
        x = Cat(value, Const(0, 4 - len(value)))
        return Cat(x[3] | (x[1] & ~x[2]), x[3] | x[2])
    groups = [value[i : i + 4] for i in range(0, len(value), 4)]
    top = highest_one(Cat(*(g.any() for g in groups)))
    return Cat(Array(highest_one(g) for g in groups)[top], top)


def leading_one(m: Module, value: Value, name: str) -> Signal:
    """Index of the highest set bit (0 for 0), as a tree of halvings."""
    width = 1 << max(1, (len(value) - 1).bit_length())
    part: Value = Cat(value, Const(0, width - len(value)))
    index: list[Value] = []
    while width > 1:
        width //= 2
        high = Signal(name=f"{name}_{width}")
        m.d.comb += high.eq(part[width:].any())
        rest = Signal(width, name=f"{name}_rest{width}")
        m.d.comb += rest.eq(Mux(high, part[width:], part[:width]))
        index.insert(0, high)
        part = rest
    out = Signal(len(index), name=name)
    m.d.comb += out.eq(Cat(*index))
    return out


def product_of_rows(a: Value, b: Value) -> Value:
    """``a`` * ``b`` as a tree of adders over ``a`` gated by each bit of ``b``, each adder a single carry chain.

    For LUTs: Yosys makes compressors of plain sums, which take twice as many. A place below
    the lowest, for a carry in, keeps it from doing so.
    """

    if not a.shape().signed:
        a = Cat(a, Const(0, 1)).as_signed()

    def add(x: Value, y: Value, ones: int = 0) -> Value:
        return (Cat(Const(1, 1), x).as_signed() + Cat(Const(ones, 1), y).as_signed())[1:].as_signed()

    def gated(bit: int) -> Value:
        return (a.as_unsigned() & b[bit].replicate(len(a))).as_signed()

    def rows(first: int, count: int) -> Value:
        if count == 1:
            return gated(first)
        low = count // 2
        x, y = rows(first, low), rows(first + low, count - low)
        # The lowest bits of x meet nothing.
        return Cat(x[:low], add(x[low:].as_signed(), y)).as_signed()

    if not b.shape().signed:
        return rows(0, len(b))
    # The row of the sign is subtracted.
    n = len(b) - 1
    rest, sign_row = rows(0, n), ~gated(n)
    return Cat(rest[:n], add(rest[n:].as_signed(), sign_row, ones=1)).as_signed()


class Multiplier(wiring.Component):
    """18 x 18 multiplier with the registers of a DSP block: ``p`` = ``a`` * ``b`` after ``stages`` cycles.

    stages 3: input, pipeline and output register; 2: input and output; 1: output only, for operands that
    come from registers. Operands are signed or unsigned as the flags say (MULT18X18D: SIGNEDA, SIGNEDB).
    """

    def __init__(self, *, stages: int = 3, signed_a: bool = True, signed_b: bool = True):
        if not 1 <= stages <= 3:
            raise ValueError(f"stages = {stages}: a DSP block has one to three registers in its path")
        self.stages = stages
        kind = signed if signed_a or signed_b else unsigned
        super().__init__({
            "a": In(_operand(signed_a)),
            "b": In(_operand(signed_b)),
            "p": Out(kind(2 * DSP_BITS)),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        # The platform may have blocks of its own (same registers), and some left.
        block = platform.multiplier(self) if hasattr(platform, "multiplier") else None
        if block is not None:
            m.submodules.block = block
            return m
        a: Value = self.a
        b: Value = self.b
        if self.stages >= 2:
            a_reg, b_reg = Signal.like(self.a, reset_less=True), Signal.like(self.b, reset_less=True)
            m.d.sync += [a_reg.eq(a), b_reg.eq(b)]
            a, b = a_reg, b_reg
        product: Value = product_of_rows(a, b) if hasattr(platform, "multiplier") else a * b
        if self.stages == 3:
            pipe = Signal.like(self.p, reset_less=True)
            m.d.sync += pipe.eq(product)
            product = pipe
        out = Signal.like(self.p, reset_less=True)
        m.d.sync += out.eq(product)
        m.d.comb += self.p.eq(out)
        return m


def _operand(is_signed: bool) -> Shape:
    return signed(DSP_BITS) if is_signed else unsigned(DSP_BITS)


class WideMultiplier(wiring.Component):
    """``width``-bit signed x unsigned of up to 18 bits: one block per 18 bits of ``a``, and an adder stage.

    ``p`` (width + 18 bits, signed) after ``stages + 1`` cycles.
    """

    def __init__(self, width: int, *, stages: int = 3):
        self.width = width
        self.latency = stages + 1
        self._stages = stages
        super().__init__({
            "a": In(signed(width)),
            "b": In(unsigned(DSP_BITS)),
            "p": Out(signed(width + DSP_BITS)),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        total: Value | None = None
        for i, at in enumerate(range(0, self.width, DSP_BITS)):
            top = at + DSP_BITS >= self.width
            mul = Multiplier(stages=self._stages, signed_a=top, signed_b=False)
            m.submodules[f"slice{i}"] = mul
            part = self.a[at : at + DSP_BITS]
            m.d.comb += [mul.a.eq(part.as_signed() if top else part), mul.b.eq(self.b)]
            term = mul.p << at
            total = term if total is None else total + term
        out = Signal.like(self.p, reset_less=True)
        m.d.sync += out.eq(total)
        m.d.comb += self.p.eq(out)
        return m
