"""Vector ALU: one chained operation on a row of V lanes each cycle, and the running sums SUM.

All products end in the same multiplier, shifter and rounder, at fixed distances before stream Z, so one
result a cycle on Z is the only rule a schedule has to keep. Cycles before Z::

    -5  multiplier operands (ROPE: cycle t + 2; GAIN: t + 3; EXP: t + 7; SILU: t + 9)
    -4  multiplier
    -3  product: shifted by a multiple of 8 (ROPE: sum of two products)
    -2  rest of the shift, rounding bit kept (PASS and ADD join here: cycle t + 1; ROPE has a register of its own)
    -1  rounded, clamped to 32 bits

The registers of an operation are zero unless it is at work, so that several can meet in an OR.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import COEF_FRAC, MAX_EXPERTS_PER_TOKEN, PROB_BITS, SCALE_BITS, SOFTMAX_BANKS, WORD, Config
from ..isa import Queue, Source, VxOp
from ..primitives import DSP_BITS, Multiplier, delayed, round_clamp, saturate, shift_coarse, shift_fine, shift_keep
from ..timing import get_timing
from ..uop import run_state_layout, uop_layout
from .function import LATENCY as INTERPOLATION
from .function import Interpolator

SUM_BITS = 40
_A = 5
"""Distance from Z of the last multiplier's operands."""
_AT = {VxOp.GAIN: 3, VxOp.EXP: 3 + INTERPOLATION, VxOp.SILU: 5 + INTERPOLATION}
"""Cycles after t in which they stand there; of ROPE, :func:`_rope_at`."""
_ON = _A - 3
"""An operation is marked until its product is there."""


def _rope_at(cfg: Config) -> int:
    """Likewise of ROPE, whose elements wait for each other where they are rows."""
    return get_timing(cfg).vx_rope - _A


@dataclasses.dataclass(frozen=True)
class _Function:
    """A function's argument and, INTERPOLATION cycles later, its value; ``last``: value of the largest argument."""

    x: Signal
    v: Value
    last: int = 0


class VectorAlu(wiring.Component):
    """VX micro-ops -> stream Z (V lanes, 32 bit signed), ``timing.vx(op)`` cycles later.

    Sampled at t: ``uop``, ``y``, ``x``, ``t`` (rows of V x 32 bit signed), ``c`` (V x 16 bit signed),
    ``maximum`` (banks of MAX) and ``count`` (experts the last EMIT took: elements of T in use). ``sums``: the banks of
    SUM (40 bit unsigned), complete ``timing.vx_sum`` after the last micro-op of an EXP; the first micro-op of an
    EXP begins a new sum. EXP of stream T takes the first element of T as its maximum and ``count`` as its length;
    where T has several rows, the micro-op's index picks one.

    With one lane, ROPE takes pairs of rows, the second one at most ``timing.rope_pitch`` after the first.
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
            "t": In(data.ArrayLayout(signed(WORD), v * cfg.expert_rows)),
            "c": In(data.ArrayLayout(signed(SCALE_BITS), v)),
            "maximum": In(data.ArrayLayout(signed(WORD), SOFTMAX_BANKS)),
            "count": In(range(MAX_EXPERTS_PER_TOKEN + 1)),
            "z": Out(row),
            "sums": Out(data.ArrayLayout(unsigned(SUM_BITS), SOFTMAX_BANKS)),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        cfg, uop, v = self.cfg, self.uop, self.cfg.vlanes
        timing = get_timing(cfg)
        lane_bits = (v - 1).bit_length()
        assert timing.vx_pass == timing.vx_add == 3
        assert all(timing.vx(op) == at + _A for op, at in _AT.items())
        rope_at = _rope_at(cfg)

        # Control: on[op][i] marks the operation i cycles after its micro-op.
        on: dict[VxOp, list[Any]] = {}
        for op, at in ((VxOp.ROPE, rope_at), *_AT.items()):
            active = uop.valid & (uop.op == op)
            if op == VxOp.SILU:
                active = active & uop.idx[0]
            on[op] = delayed(m, active, at + _ON, reset=True, name=f"on_{op.name.lower()}")
        gate = delayed(m, uop.valid & (uop.op == VxOp.SILU) & ~uop.idx[0], 1, reset=True, name="gate")[-1]
        plain = delayed(m, uop.valid & ((uop.op == VxOp.PASS) | (uop.op == VxOp.ADD)), 1, reset=True, name="plain")[-1]
        fshift = delayed(m, uop.fshift, 1, name="fshift")[-1]
        unit = delayed(m, uop.unit, _AT[VxOp.EXP], name="unit")
        # Shift of the product, picked in the cycle of the operands. ROPE's is fixed.
        shift = delayed(m, uop.shift, max(_AT.values()), name="shift")
        product_shift = Signal(6)
        with m.If(on[VxOp.GAIN][_AT[VxOp.GAIN]]):
            m.d.comb += product_shift.eq(shift[_AT[VxOp.GAIN]])
        with m.Elif(on[VxOp.EXP][_AT[VxOp.EXP]]):
            m.d.comb += product_shift.eq(Mux(unit[-1], 0, shift[_AT[VxOp.EXP]]))
        with m.Elif(on[VxOp.SILU][_AT[VxOp.SILU]]):
            m.d.comb += product_shift.eq(shift[_AT[VxOp.SILU]])
        coarse_shift, fine_shift = delayed(m, product_shift, _A - 2, name="product_shift")[-2:]

        # Cycle t: source row, maximum, and which of the elements exist.
        row_t: Any = self.t
        if cfg.expert_rows > 1:
            which = uop.idx[: (cfg.expert_rows - 1).bit_length()]
            row_t = [Array(self.t[row * v + lane] for row in range(cfg.expert_rows))[which] for lane in range(v)]
        source = [Signal(signed(WORD), reset_less=True, name=f"source{lane}") for lane in range(v)]
        for lane in range(v):
            with m.Switch(uop.source):
                rows = ((Source.Y, self.y), (Source.X, self.x), (Source.Z, self.z), (Source.T, row_t))
                for name, row in rows:
                    with m.Case(name):
                        m.d.sync += source[lane].eq(row[lane])
        from_t = uop.source == Source.T
        maximum = Signal(signed(WORD), reset_less=True)
        m.d.sync += maximum.eq(Mux(from_t, self.t[0], self.maximum[uop.bank]))
        inside = Signal(v, reset_less=True)
        for lane in range(v):
            element = Cat(Const(lane, lane_bits), uop.idx)
            taken = lane < self.count if lane < MAX_EXPERTS_PER_TOKEN else Const(0)
            if cfg.expert_rows > 1:
                taken = element < self.count
            m.d.sync += inside[lane].eq(Mux(from_t, taken, element < self.state.keys))
        inside_exp = delayed(m, inside, _AT[VxOp.EXP] - 3, name="inside")[-1]

        # t + 1: its 18-bit form.
        narrowed = [Signal(signed(DSP_BITS), name=f"narrowed{lane}") for lane in range(v)]
        m.d.comb += [n.eq(saturate(s, DSP_BITS)) for n, s in zip(narrowed, source, strict=True)]
        narrow = [delayed(m, n, 1, name=f"narrow{lane}")[-1] for lane, n in enumerate(narrowed)]

        probabilities: list[Value] = []
        for lane in range(v):
            exp2, sigmoid = self._functions(m, lane, on[VxOp.SILU][2])
            coef = delayed(m, self.c[lane], _AT[VxOp.EXP] - 1, name=f"coef{lane}")
            if v > 1:
                cos, sin = (delayed(m, self.c[i], rope_at - j, name=f"c{i}_{lane}")[-1]
                            for i, j in ((lane & ~1, 1), (lane | 1, 0)))  # fmt: skip
                turning, crossing = narrowed[lane], narrow[lane ^ 1]
            else:
                turning, crossing, cos, sin, rope_odd = self._pair_of_rows(m, narrowed[0], on[VxOp.ROPE])
            p = self._exp(m, lane, source[lane], maximum, inside_exp[lane], on[VxOp.EXP], exp2)
            probabilities.append(p)
            silu = self._silu(m, lane, source[lane], fshift, gate, on[VxOp.SILU], sigmoid)
            # SILU's second factor waits for its first.
            u = delayed(m, narrow[lane], _AT[VxOp.SILU] - 3, name=f"u{lane}")[-1]
            exp_on, exp_unit = on[VxOp.EXP][_AT[VxOp.EXP] - 1], unit[_AT[VxOp.EXP] - 1]
            pairs = [
                (self._when(m, on[VxOp.ROPE][rope_at - 1], turning, f"rope_a{lane}"),
                 self._when(m, on[VxOp.ROPE][rope_at - 1], cos, f"rope_b{lane}")),
                (self._gain(m, lane, source[lane], fshift, on[VxOp.GAIN]),
                 self._when(m, on[VxOp.GAIN][2], coef[2], f"gain_b{lane}")),
                (p, self._when(m, exp_on, Mux(exp_unit, 1, coef[-1]), f"exp_b{lane}")),
                (silu, self._when(m, on[VxOp.SILU][_AT[VxOp.SILU] - 1], u, f"silu_b{lane}")),
            ]  # fmt: skip

            # The last multiplier, and ROPE's second one: a cos - b sin, b cos + a sin.
            m.submodules[f"last_{lane}"] = last = Multiplier(stages=2)
            m.submodules[f"cross_{lane}"] = cross = Multiplier(stages=2)
            for port, values in zip((last.a, last.b), zip(*pairs, strict=True), strict=True):
                total: Value = Const(0, DSP_BITS)
                for value in values:
                    wide = Signal(signed(DSP_BITS))
                    m.d.comb += wide.eq(value)
                    total = total | wide.as_unsigned()
                m.d.comb += port.eq(total.as_signed())
            m.d.comb += [cross.a.eq(crossing), cross.b.eq(sin)]
            if v > 1:
                both = last.p - cross.p if lane % 2 == 0 else last.p + cross.p
            else:
                flipped = (cross.p.as_unsigned() ^ (~rope_odd).replicate(len(cross.p))).as_signed()
                both = last.p + flipped + ~rope_odd
            turned = self._when(m, on[VxOp.ROPE][-1], both >> COEF_FRAC - 1, f"turned{lane}")

            addend = Signal(signed(WORD), reset_less=True, name=f"addend{lane}")
            m.d.sync += addend.eq(Mux(uop.op == VxOp.ADD, self.x[lane], 0))
            coarse = Signal(signed(len(last.p) + 1), reset_less=True, name=f"coarse{lane}")
            kept = Signal.like(coarse, name=f"kept{lane}")
            m.d.sync += coarse.eq(Mux(on[VxOp.ROPE][-1], 0, shift_coarse(last.p, coarse_shift)))
            with m.If(plain):
                m.d.sync += kept.eq(Cat(Const(0, 1), source[lane] + addend).as_signed())
            with m.Else():
                m.d.sync += kept.eq(shift_fine(coarse, fine_shift) | turned)
            z = Signal(signed(WORD), reset_less=True, name=f"z{lane}")
            m.d.sync += z.eq(round_clamp(kept, WORD))
            m.d.comb += self.z[lane].eq(z)
        self._sums(m, probabilities, on[VxOp.EXP])
        return m

    @staticmethod
    def _when(m: Module, on: Value, value: Value, name: str) -> Signal:
        """``value`` a cycle later if ``on``, else zero."""
        out = Signal.like(value, reset_less=True, name=name)
        m.d.sync += out.eq(Mux(on, value, 0))
        return out

    def _pair_of_rows(self, m: Module, narrowed: Value, on: list[Any]) -> tuple[Value, Value, Value, Value, Value]:
        """ROPE of one lane: a row's factors of cos and sin, and those, each for the multiplier that it goes to; whether
        the row is a pair's second, in the cycle of the product.

        Elements wait, those of first rows and those of second ones each in a memory of their own, until the first row
        of the pair has its turn.
        """
        at, depth = _rope_at(self.cfg), 16
        assert get_timing(self.cfg).rope_pitch <= at - 3 and at <= 2 * depth + 1
        odd = delayed(m, self.uop.idx[0], at + _ON, name="odd")
        coef = delayed(m, self.c[0], 1, name="rope_c")[-1]
        entry = Cat(narrowed, coef)
        write_at, read_at = (Signal(range(depth), name=f"pair_{name}") for name in ("write", "read"))
        words = []
        for second in range(2):
            m.submodules[f"rows{second}"] = rows = memory.Memory(
                shape=unsigned(len(entry)), depth=depth, init=[], attrs={"ram_style": "distributed"}
            )
            write, read = rows.write_port(), rows.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(on[1] & (odd[1] if second else ~odd[1])), write.addr.eq(write_at), write.data.eq(entry),
                read.addr.eq(read_at),
            ]  # fmt: skip
            words.append(read.data)
        with m.If(on[1] & odd[1]):
            m.d.sync += write_at.eq(write_at + 1)
        with m.If(on[at - 1] & odd[at - 1]):
            m.d.sync += read_at.eq(read_at + 1)
        (a, cos), (b, sin) = ((word[:DSP_BITS].as_signed(), word[DSP_BITS:].as_signed()) for word in words)
        crossing = delayed(m, Mux(odd[at - 1], a, b), 1, name="crossing")[-1]
        return Mux(odd[at - 1], b, a).as_signed(), crossing, cos, delayed(m, sin, 1, name="sin")[-1], odd[at + _ON]

    def _gain(self, m: Module, lane: int, source: Value, fshift: Value, on: list[Any]) -> Value:
        """t + 1: shift. t + 2: round and clamp to 18 bits."""
        shifted = Signal(signed(WORD + 1), reset_less=True, name=f"shifted{lane}")
        m.d.sync += shifted.eq(shift_keep(source, fshift))
        return self._when(m, on[2], round_clamp(shifted, DSP_BITS), f"gain_a{lane}")

    def _functions(self, m: Module, lane: int, silu: Value) -> tuple[_Function, _Function]:
        """EXP2 and SIGMOID of a lane, of one interpolator; ``silu``: the argument of this cycle is SIGMOID's.

        Both are looked up two cycles after their micro-op, so they never meet.
        """
        x_exp, x_silu = Signal(12, name=f"x_exp{lane}"), Signal(15, name=f"x_silu{lane}")
        m.submodules[f"function_{lane}"] = both = Interpolator(
            "EXP2", "SIGMOID", fraction=7, multiplier=self.cfg.spare_multipliers
        )
        m.d.comb += both.x.eq(Mux(silu, Cat(x_silu, 1), Cat(Const(0, 3), x_exp)))
        return _Function(x_exp, both.v), _Function(x_silu, both.v, both.last)

    def _exp(
        self, m: Module, lane: int, source: Value, maximum: Value, inside: Value, on: list[Any], exp2: _Function
    ) -> Value:
        """t + 1: difference. From t + 2: table and interpolation. t + 6: shift by the integer part."""
        below = Signal(signed(WORD + 1), reset_less=True, name=f"below{lane}")
        m.d.sync += below.eq(source - maximum)
        m.d.comb += exp2.x.eq(below[:12])
        # With k = -(below >> 12), at least one where below is negative, p = v >> k: k - 1 is the complement of
        # the integer part, from 16 on nothing is left, and only the maximum itself has bit 16.
        whole = below[12:]
        steps = delayed(m, ~whole[:4], INTERPOLATION, name=f"steps{lane}")[-1]
        rest = Cat(whole[4:].all(), ~whole[-1])
        some, equal = delayed(m, rest, INTERPOLATION - 1, name=f"rest{lane}")[-1]
        working = on[_AT[VxOp.EXP] - 2] & inside
        alive = delayed(m, working & some, 1, name=f"alive{lane}")[-1]
        unity = delayed(m, working & equal, 1, name=f"unity{lane}")[-1]
        return self._when(m, alive | unity, Cat(Mux(unity, 0, exp2.v[1 : PROB_BITS + 1] >> steps), unity), f"p{lane}")

    def _silu(
        self, m: Module, lane: int, source: Value, fshift: Value, gate: Value, on: list[Any], sigmoid: _Function
    ) -> Value:
        """The row of g waits as magnitude and sign for the row of u in cycle t.

        t + 1: magnitude scaled. From t + 2: table and interpolation. t + 6: multiplier by g. t + 8: round.
        """
        magnitude, sign = Signal(WORD, reset_less=True, name=f"magnitude{lane}"), Signal(name=f"sign{lane}")
        with m.If(gate):
            m.d.sync += [magnitude.eq(Mux(source[-1], -source, source)), sign.eq(source[-1])]
        scaled = Signal(15, reset_less=True, name=f"scaled{lane}")
        m.d.sync += scaled.eq((magnitude << 4) >> fshift)
        # The magnitude reaches 16 = 2**15 when a bit from 11 + fshift on is set.
        always = 11 + (1 << len(fshift)) - 1
        reach = [magnitude[bit] & (fshift <= bit - 11) for bit in range(11, always)]
        large = Signal(reset_less=True, name=f"large{lane}")
        m.d.sync += large.eq(Cat(*reach, magnitude[always:]).any())
        m.d.comb += sigmoid.x.eq(scaled)
        s = Mux(delayed(m, large, INTERPOLATION, name=f"large{lane}")[-1], sigmoid.last, sigmoid.v)

        # sat18(g) * sigma is |g| * s, or |g| * (s - 65536) where g is negative: |g| takes 18 bits without a sign.
        limit = Mux(sign, 1 << DSP_BITS - 1, (1 << DSP_BITS - 1) - 1)
        size = Signal(DSP_BITS, reset_less=True, name=f"size{lane}")
        m.d.sync += size.eq(Mux(magnitude[DSP_BITS - 1 :].any(), limit, magnitude[:DSP_BITS]))
        size_in = delayed(m, size, INTERPOLATION - 1, name=f"size{lane}")[-1]
        sign_in = delayed(m, sign, INTERPOLATION + 1, name=f"sign{lane}")[-1]
        m.submodules[f"gate_{lane}"] = product = Multiplier(stages=2, signed_b=False)
        below = sign_in & ~s[PROB_BITS]
        m.d.comb += [
            product.a.eq(Cat(s[:PROB_BITS], Mux(sign_in, below, s[PROB_BITS]), below).as_signed()),
            product.b.eq(self._when(m, on[_AT[VxOp.SILU] - 4], size_in, f"g{lane}")),
        ]
        silu = Signal(signed(DSP_BITS), reset_less=True, name=f"silu_a{lane}")
        m.d.sync += silu.eq(product.p[PROB_BITS:].as_signed() + product.p[PROB_BITS - 1])
        return silu

    def _sums(self, m: Module, probabilities: list[Value], on: list[Any]) -> None:
        """t + 7: pairs of lanes; t + 8: sum of the row; t + 9: added to the bank.

        The rows of an EXP follow each other, so one running sum serves all banks.
        """
        at = get_timing(self.cfg).vx_sum - 1
        assert at == _AT[VxOp.EXP] + 2
        first = delayed(m, self.uop.first, at, name="sum_first")[-1]
        bank = delayed(m, self.uop.bank, at, name="sum_bank")[-1]
        pairs = []
        for i in range(0, len(probabilities), 2):
            pair = Signal(PROB_BITS + 2, reset_less=True, name=f"pair{i}")
            m.d.sync += pair.eq(sum(probabilities[i + 1 : i + 2], probabilities[i]))
            pairs.append(pair)
        row_sum: Value = pairs[0]
        for pair in pairs[1:]:
            row_sum = row_sum + pair
        row = Signal(row_sum.shape(), reset_less=True, name="row_sum")
        m.d.sync += row.eq(row_sum)
        running = Signal(SUM_BITS, reset_less=True)
        total = Signal(SUM_BITS)
        sums = Array(Signal(SUM_BITS, reset_less=True, name=f"sum{i}") for i in range(SOFTMAX_BANKS))
        m.d.comb += total.eq((running & ~first.replicate(SUM_BITS)) + row)
        with m.If(on[at]):
            m.d.sync += [running.eq(total), sums[bank].eq(total)]
        m.d.comb += [self.sums[i].eq(sums[i]) for i in range(SOFTMAX_BANKS)]
