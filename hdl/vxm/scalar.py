"""Scalar unit (SFU): reciprocal square root, reciprocal and products of the scalar registers R and K."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from .. import tables
from ..config import PROB_BITS, SCALARS, WORD, Config
from ..image import LoadBus, Space
from ..isa import Queue, SfuOp
from ..mem import Rom
from ..primitives import Multiplier, delayed, leading_one
from ..timing import get_timing
from ..uop import uop_layout
from .alu import SUM_BITS

_ONE = 1 << 15
SCALAR = data.StructLayout({"mantissa": unsigned(16), "exponent": signed(8)})
"""A scalar register: mantissa * 2**-15 * 2**-exponent."""


def _product(m: Module, x: Value, exponent: Value, name: str) -> Signal:
    """Normalised scalar of a 32-bit product of mantissas and the (10-bit) sum of exponents."""
    out = Signal(SCALAR, name=name)
    top = x[31]
    e = Signal(signed(11), name=f"{name}_e")
    mantissa = Signal(16, name=f"{name}_m")
    low, high = -128, 127
    clamped = Mux(e < low, low, Mux(e > high, high, e[:8].as_signed()))
    m.d.comb += [
        e.eq(exponent - top),
        mantissa.eq(Mux(top, x[16:32], x[15:31])),
        out.mantissa.eq(mantissa),
        out.exponent.eq(Mux(mantissa == 0, 0, clamped)),
    ]
    return out


class ScalarUnit(wiring.Component):
    """SFU micro-ops -> scalar registers, each after its own ``timing.sfu_*``.

    Sampled at t: ``sumsq`` and ``eps`` (64 bit unsigned, RSQRT), ``sums`` (two banks of 40 bit, RECIP) and
    ``z`` (row of V words, CAPTURE). ``read`` (index) -> ``mantissa``, ``exponent`` is the dequantiser's
    combinational port. ``load`` writes the constants K (:attr:`hdl.image.Space.CONST`).
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        super().__init__({
            "uop": In(uop_layout(cfg, Queue.SFU)),
            "sumsq": In(unsigned(64)),
            "eps": In(unsigned(64)),
            "sums": In(data.ArrayLayout(unsigned(SUM_BITS), 2)),
            "z": In(data.ArrayLayout(signed(WORD), cfg.vlanes)),
            "load": In(LoadBus(cfg)),
            "read": In(range(SCALARS)),
            "mantissa": Out(unsigned(16)),
            "exponent": Out(signed(8)),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        uop = self.uop
        timing = get_timing(self.cfg)
        registers = Array(
            Signal(SCALAR, name=f"r{i}", init={"mantissa": 0 if i else _ONE, "exponent": 0})
            for i in range(SCALARS)
        )
        m.d.comb += [
            self.mantissa.eq(registers[self.read].mantissa),
            self.exponent.eq(registers[self.read].exponent),
        ]

        m.submodules.constants = constants = memory.Memory(shape=unsigned(24), depth=SCALARS, init=[])
        write = constants.write_port()
        m.d.comb += [
            write.addr.eq(self.load.addr),
            write.data.eq(self.load.data),
            write.en.eq(self.load.valid & (self.load.space == Space.CONST)),
        ]
        results = [
            (self._table(m), timing.sfu_rsqrt, (SfuOp.RSQRT, SfuOp.RECIP)),
            (self._mul(m, registers, constants), timing.sfu_mul, (SfuOp.MUL,)),
            (self._prob(m, registers), timing.sfu_prob, (SfuOp.PROB,)),
        ]
        for i, (result, latency, ops) in enumerate(results):
            active = uop.valid & Cat(*(uop.op == op for op in ops)).any() & (uop.dst != 0)
            active = delayed(m, active, latency - 1, reset=True, name=f"on{i}")[-1]
            dst = delayed(m, uop.dst, latency - 1, name=f"dst{i}")[-1]
            with m.If(active):
                m.d.sync += registers[dst].eq(result)
        return m

    def _table(self, m: Module) -> Value:
        """RSQRT and RECIP share one path: the operand's leading one is moved to a fixed place, then a table.

        t: SUMSQ + EPS. t + 1: find the leading one. t + 2: shift. t + 4: table. t + 5: subtract.
        """
        uop = self.uop
        recip = delayed(m, uop.op == SfuOp.RECIP, 5, name="recip")
        operand = Signal(65, reset_less=True)
        total = Mux(uop.bank, self.sums[1], self.sums[0])
        m.d.sync += operand.eq(Mux(recip[0], total, self.sumsq + self.eps))
        # Saturate; at least one.
        clamped = Signal(64)
        m.d.comb += clamped.eq(operand[:64] | operand[64].replicate(64) | (operand == 0))
        n = leading_one(m, clamped, "leading")
        n_reg = Signal(6, reset_less=True)
        value = Signal(64, reset_less=True)
        m.d.sync += [n_reg.eq(n), value.eq(clamped)]
        # 16 bits below the leading one, truncated: 1.16 fixed point for RECIP, 1.15 for RSQRT.
        fraction = Signal(16)
        m.d.comb += fraction.eq((value << ~n_reg)[47:63])
        index = Mux(recip[2], fraction[8:16], Cat(fraction[9:16], n_reg[0]))
        rest = Mux(recip[2], fraction[0:8], fraction[1:9])

        words = tables.packed("RSQRT") + tables.packed("RECIP")
        base_bits, slope_bits = tables.WIDTHS["RECIP"]
        assert tables.WIDTHS["RSQRT"] == (base_bits, slope_bits)
        m.submodules.rom = rom = Rom(width=36, init=words)
        m.d.comb += [rom.a.en.eq(1), rom.a.addr.eq(Cat(index, recip[2]))]
        word = rom.a.data
        rest_reg = delayed(m, rest, 2, name="rest")[-1]
        m.submodules.slope = slope = Multiplier(stages=1)
        m.d.comb += [slope.a.eq(word[base_bits : base_bits + slope_bits]), slope.b.eq(rest_reg)]
        base = delayed(m, word[:base_bits], 1, name="base")[-1]
        mantissa = Signal(17)
        m.d.comb += mantissa.eq(base - slope.p[8 : 8 + slope_bits])
        n_end = delayed(m, n_reg, 3, name="n")[-1]
        out = Signal(SCALAR, name="table_result")
        m.d.comb += [
            out.mantissa.eq(mantissa[:16] | mantissa[16].replicate(16)),
            out.exponent.eq(Mux(recip[5], n_end, n_end >> 1) + 1),
        ]
        return out

    def _mul(self, m: Module, registers: Array, constants: memory.Memory) -> Value:
        """R[a] * K[b]. t: operands. t + 2: normalise."""
        uop = self.uop
        port = constants.read_port(domain="comb")
        m.d.comb += port.addr.eq(uop.b)
        k = data.View(SCALAR, port.data)
        m.submodules.mul = mul = Multiplier(stages=2, signed_a=False, signed_b=False)
        m.d.comb += [mul.a.eq(registers[uop.a].mantissa), mul.b.eq(k.mantissa)]
        exponent = Signal(signed(9))
        m.d.comb += exponent.eq(registers[uop.a].exponent + k.exponent)
        return _product(m, mul.p, delayed(m, exponent, 2, name="mul_e")[-1], "mul_result")

    def _prob(self, m: Module, registers: Array) -> Value:
        """P[b] * R[a]. t: leading one of P[b]. t + 1: shift. t + 3: normalise."""
        uop = self.uop
        lanes = self.cfg.vlanes
        captured = Array(Signal(PROB_BITS + 1, name=f"p{lane}", reset_less=True) for lane in range(lanes))
        with m.If(uop.valid & (uop.op == SfuOp.CAPTURE)):
            m.d.sync += [captured[lane].eq(self.z[lane]) for lane in range(lanes)]
        p = Signal(PROB_BITS + 1)
        m.d.comb += p.eq(captured[uop.b[: (lanes - 1).bit_length()]])
        n = leading_one(m, p, "p_leading")
        n_reg = Signal(5, reset_less=True)
        p_reg = Signal(PROB_BITS + 1, reset_less=True)
        factor = Signal(16, reset_less=True)
        exponent = Signal(signed(8), reset_less=True)
        m.d.sync += [
            n_reg.eq(n),
            p_reg.eq(p),
            factor.eq(registers[uop.a].mantissa),
            exponent.eq(registers[uop.a].exponent),
        ]
        m.submodules.prob = prob = Multiplier(stages=2, signed_a=False, signed_b=False)
        total = Signal(signed(10))
        m.d.comb += [
            # p << 15 >> n, written so that no bit above the leading one is made.
            prob.a.eq((p_reg << (PROB_BITS - n_reg)[:5]) >> 1),
            prob.b.eq(factor),
            total.eq(exponent - n_reg),
        ]
        return _product(m, prob.p, delayed(m, total, 2, name="prob_e")[-1], "prob_result")
