"""Vector ALU: one chained operation on a row of V lanes each cycle, and the running sums SUM.

All products end in the same multiplier, shifter and rounder, at fixed distances before stream Z, so one
result a cycle on Z is the only rule a schedule has to keep. Cycles before Z::

    -4  multiplier operands chosen (ROPE: cycle t; GAIN: t + 1; EXP: t + 3; SILU: t + 4)
    -2  product: shifted, rounding bit kept (ROPE: sum of two products, fixed shift)
    -1  rounded, clamped to 32 bits (PASS and ADD join here)
"""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import COEF_FRAC, MAX_EXPERTS_PER_TOKEN, PROB_BITS, SCALE_BITS, WORD, Config
from ..isa import Queue, Source, VxOp
from ..primitives import Multiplier, delayed, round_sat, saturate, shift_keep
from ..timing import get_timing
from ..uop import run_state_layout, uop_layout
from .function import Interpolator

SUM_BITS = 40
_A, _Q = 4, 2
"""Distances from Z of the last multiplier's operands and of its product."""


class VectorAlu(wiring.Component):
    """VX micro-ops -> stream Z (V lanes, 32 bit signed), ``timing.vx(op)`` cycles later.

    Sampled at t: ``uop``, ``y``, ``x``, ``t`` (rows of V x 32 bit signed), ``c`` (V x 16 bit signed),
    ``maximum`` and ``count`` (experts the last EMIT took: lanes of T in use). ``sums``: the two banks of SUM
    (40 bit unsigned), complete ``timing.vx_sum`` after the last micro-op of an EXP; the first micro-op of an
    EXP begins a new sum. EXP of stream T takes lane 0 of T as its maximum and ``count`` as its length.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        v = cfg.vlanes
        row = data.ArrayLayout(signed(WORD), v)
        super().__init__({
            "uop": In(uop_layout(cfg, Queue.VX)),
            "state": In(run_state_layout(cfg)),
            "y": In(row),
            "x": In(row),
            "t": In(row),
            "c": In(data.ArrayLayout(signed(SCALE_BITS), v)),
            "maximum": In(data.ArrayLayout(signed(WORD), 2)),
            "count": In(range(MAX_EXPERTS_PER_TOKEN + 1)),
            "z": Out(row),
            "sums": Out(data.ArrayLayout(unsigned(SUM_BITS), 2)),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        cfg, uop, v = self.cfg, self.uop, self.cfg.vlanes
        timing = get_timing(cfg)
        lane_bits = (v - 1).bit_length()
        assert timing.vx_pass == timing.vx_add == 2
        at = {op: timing.vx(op) - _A for op in (VxOp.ROPE, VxOp.GAIN, VxOp.EXP, VxOp.SILU)}
        assert [at[op] for op in (VxOp.ROPE, VxOp.GAIN, VxOp.EXP, VxOp.SILU)] == [0, 1, 3, 4]

        # Control: on[op][i] marks the operation i cycles after its micro-op.
        on: dict[VxOp, list[Any]] = {}
        for op in (VxOp.PASS, VxOp.ADD, *at):
            active = uop.valid & (uop.op == op)
            if op == VxOp.SILU:
                active = active & uop.idx[0]
            on[op] = delayed(m, active, timing.vx(op), reset=True, name=f"on_{op.name.lower()}")
        shift = delayed(m, uop.shift, max(at.values()) + _A - _Q, name="shift")
        unit = delayed(m, uop.unit, at[VxOp.EXP] + _A - _Q, name="unit")
        product_shift = Signal(6)
        with m.If(on[VxOp.GAIN][at[VxOp.GAIN] + _A - _Q]):
            m.d.comb += product_shift.eq(shift[at[VxOp.GAIN] + _A - _Q])
        with m.Elif(on[VxOp.EXP][at[VxOp.EXP] + _A - _Q]):
            m.d.comb += product_shift.eq(Mux(unit[-1], 0, shift[at[VxOp.EXP] + _A - _Q]))
        with m.Else():
            m.d.comb += product_shift.eq(shift[at[VxOp.SILU] + _A - _Q])

        # Cycle t: source row, its 18-bit form, and which of its elements exist.
        source = [Signal(signed(WORD), name=f"source{lane}") for lane in range(v)]
        for lane in range(v):
            with m.Switch(uop.source):
                rows = ((Source.Y, self.y), (Source.X, self.x), (Source.Z, self.z), (Source.T, self.t))
                for name, row in rows:
                    with m.Case(name):
                        m.d.comb += source[lane].eq(row[lane])
        narrow = [Signal(signed(18), name=f"narrow{lane}") for lane in range(v)]
        m.d.comb += [n.eq(saturate(s, 18)) for n, s in zip(narrow, source, strict=True)]
        top_row = uop.source == Source.T
        maximum = Signal(signed(WORD))
        m.d.comb += maximum.eq(Mux(top_row, self.t[0], Mux(uop.bank, self.maximum[1], self.maximum[0])))
        inside = Signal(v)
        for lane in range(v):
            element = Cat(Const(lane, lane_bits), uop.idx)
            taken = lane < self.count if lane < MAX_EXPERTS_PER_TOKEN else Const(0)
            m.d.comb += inside[lane].eq(Mux(top_row, taken, element < self.state.keys))
        inside_exp = delayed(m, inside, 3, name="inside")[-1]

        probabilities: list[Value] = []
        for lane in range(v):
            probabilities.append(
                self._lane(m, lane, source[lane], narrow, maximum, inside_exp[lane], on, at, product_shift)
            )
        self._sums(m, probabilities, on[VxOp.EXP])
        return m

    def _lane(
        self, m: Module, lane: int, source: Signal, narrow: list[Signal], maximum: Signal, inside: Value,
        on: dict[VxOp, list[Any]], at: dict[VxOp, int], product_shift: Signal,
    ) -> Value:  # fmt: skip
        """One lane; returns its probability of an EXP, in cycle t + 4."""
        uop = self.uop

        def reg(shape: Any, name: str) -> Signal:
            return Signal(shape, reset_less=True, name=f"{name}{lane}")

        coef = delayed(m, self.c[lane], at[VxOp.EXP], name=f"coef{lane}")

        # PASS, ADD: cycle t sum, t + 1 clamp.
        addend = self.x[lane].as_unsigned() & (uop.op == VxOp.ADD).replicate(WORD)
        total = reg(signed(WORD + 1), "total")
        m.d.sync += total.eq(source + addend.as_signed())

        # GAIN: cycle t shift, t + 1 round and clamp to 18 bits.
        shifted = reg(signed(WORD + 1), "shifted")
        m.d.sync += shifted.eq(shift_keep(source, uop.fshift))

        # EXP: t difference, t + 1 table, t + 2 interpolation, t + 3 shift by the integer part.
        below = reg(signed(WORD + 1), "below")
        m.d.sync += below.eq(source - maximum)
        negative, whole = below[-1], below[12:]
        m.submodules[f"exp2_{lane}"] = exp2 = Interpolator("EXP2", 4)
        m.d.comb += exp2.x.eq(below[:12] & negative.replicate(12))
        # k = -(below >> 12); from 18 on nothing is left.
        steps, gone = reg(5, "steps"), reg(1, "gone")
        m.d.sync += [
            steps.eq(Mux(negative, (-whole[:5])[:5], 0)),
            gone.eq(negative & ~(whole[5:].all() & (whole[:5] >= 32 - 17))),
        ]
        fine = reg(PROB_BITS + 1, "fine")
        m.d.sync += fine.eq(exp2.v)
        steps_2 = delayed(m, steps, 1, name=f"steps{lane}")[-1]
        gone_2 = delayed(m, gone, 1, name=f"gone{lane}")[-1]
        p = Signal(PROB_BITS + 1, name=f"p{lane}")
        m.d.comb += p.eq(Mux(gone_2 | ~inside, 0, fine >> steps_2))
        p_reg = reg(PROB_BITS + 1, "p_reg")
        m.d.sync += p_reg.eq(p)

        # SILU: the row of g waits as magnitude and 18-bit value for the row of u in cycle t. t: scale the
        # magnitude; t + 1 table; t + 2 interpolation into the multiplier by g; t + 4 round.
        magnitude, sign = reg(WORD, "magnitude"), reg(1, "sign")
        held = reg(signed(18), "held")
        with m.If(uop.valid & (uop.op == VxOp.SILU) & ~uop.idx[0]):
            m.d.sync += [
                magnitude.eq(Mux(source[-1], -source, source)),
                sign.eq(source[-1]),
                held.eq(narrow[lane]),
            ]
        point = reg(15, "point")
        # The magnitude reaches 16 = 2**15 when a bit from 11 + fshift on is set.
        always = 11 + (1 << len(uop.fshift)) - 1
        small = [magnitude[bit] & (uop.fshift <= bit - 11) for bit in range(11, always)]
        large = Cat(*small, magnitude[always:]).any()
        scaled = (magnitude << 4) >> uop.fshift
        m.d.sync += point.eq(scaled[:15] | large.replicate(15))
        m.submodules[f"sigmoid_{lane}"] = sigmoid = Interpolator("SIGMOID", 7)
        m.d.comb += sigmoid.x.eq(point)
        g = delayed(m, held, 4, name=f"g{lane}")
        g_sign = delayed(m, sign, 4, name=f"g_sign{lane}")[-1]
        m.submodules[f"gate_{lane}"] = gate = Multiplier(stages=2)
        m.d.comb += [gate.a.eq(sigmoid.v), gate.b.eq(g[2])]
        # g * (65536 - s) = (g << 16) - g * s; the half for rounding sits in the free low bits.
        product = gate.p ^ g_sign.replicate(len(gate.p)).as_signed()
        whole_g = Cat(Const(1 << 15, 16), g[4].as_unsigned() & g_sign.replicate(18)).as_signed()
        silu = Signal(signed(18), name=f"silu{lane}")
        m.d.comb += silu.eq((product + whole_g + Cat(g_sign, Const(0, 1)).as_signed()) >> 16)
        u = delayed(m, narrow[lane], at[VxOp.SILU], name=f"u{lane}")[-1]

        # The last multiplier, and ROPE's second one: a cos - b sin, b cos + a sin.
        m.submodules[f"last_{lane}"] = last = Multiplier(stages=_A - _Q)
        m.submodules[f"cross_{lane}"] = cross = Multiplier(stages=_A - _Q)
        cos, sin = self.c[lane & ~1], self.c[lane | 1]
        m.d.comb += [cross.a.eq(narrow[lane ^ 1]), cross.b.eq(sin)]
        unit = delayed(m, uop.unit, at[VxOp.EXP], name=f"unit{lane}")[-1]
        with m.If(on[VxOp.ROPE][at[VxOp.ROPE]]):
            m.d.comb += [last.a.eq(narrow[lane]), last.b.eq(cos)]
        with m.Elif(on[VxOp.GAIN][at[VxOp.GAIN]]):
            m.d.comb += [last.a.eq(round_sat(shifted, 18)), last.b.eq(coef[at[VxOp.GAIN]])]
        with m.Elif(on[VxOp.EXP][at[VxOp.EXP]]):
            m.d.comb += [last.a.eq(p), last.b.eq(Mux(unit, 1, coef[at[VxOp.EXP]]))]
        with m.Else():
            m.d.comb += [last.a.eq(silu), last.b.eq(u)]

        turned = last.p - cross.p if lane % 2 == 0 else last.p + cross.p
        kept = reg(signed(len(last.p) + 1), "kept")
        with m.If(on[VxOp.ROPE][at[VxOp.ROPE] + _A - _Q]):
            m.d.sync += kept.eq(turned >> COEF_FRAC - 1)
        with m.Else():
            m.d.sync += kept.eq(shift_keep(last.p, product_shift))
        z = reg(signed(WORD), "z")
        with m.If(on[VxOp.PASS][1] | on[VxOp.ADD][1]):
            m.d.sync += z.eq(saturate(total, WORD))
        with m.Else():
            m.d.sync += z.eq(round_sat(kept, WORD))
        m.d.comb += self.z[lane].eq(z)
        return p_reg

    def _sums(self, m: Module, probabilities: list[Value], on: list[Any]) -> None:
        """t + 4: sum of the row; t + 5: added to the bank."""
        at = get_timing(self.cfg).vx_sum - 2
        assert at == 4
        first = delayed(m, self.uop.first, at + 1, name="sum_first")[-1]
        bank = delayed(m, self.uop.bank, at + 1, name="sum_bank")[-1]
        row_sum: Value = probabilities[0]
        for p in probabilities[1:]:
            row_sum = row_sum + p
        row = Signal(row_sum.shape(), reset_less=True, name="row_sum")
        m.d.sync += row.eq(row_sum)
        sums = Array(Signal(SUM_BITS, name=f"sum{i}") for i in range(2))
        with m.If(on[at + 1]):
            m.d.sync += sums[bank].eq(Mux(first, 0, sums[bank]) + row)
        m.d.comb += [self.sums[i].eq(sums[i]) for i in range(2)]
