"""Scalar unit (SFU): reciprocal square root, reciprocal and products of the scalar registers R and K."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from .. import tables
from ..config import PROB_BITS, SCALARS, SOFTMAX_BANKS, SUMSQ_BITS, WORD, Config
from ..image import LoadBus, Space
from ..isa import Queue, SfuOp
from ..mem import Rom
from ..primitives import Multiplier, delayed, highest_one
from ..timing import get_timing
from ..uop import uop_layout
from .alu import SUM_BITS

_ONE = 1 << 15
SCALAR = data.StructLayout({"mantissa": unsigned(16), "exponent": signed(8)})
"""A scalar register: mantissa * 2**-15 * 2**-exponent."""


def _normalised(m: Module, x: Value, exponent: Value, name: str) -> Signal:
    """Normalised scalar, a cycle later: ``x`` is a 32-bit product of mantissas, ``exponent`` stood a cycle earlier."""
    out = Signal(SCALAR, name=name, reset_less=True)
    exponents = []
    for top in range(2):
        e = Signal(signed(11), name=f"{name}_e{top}")
        clamped = Signal(signed(8), name=f"{name}_exponent{top}", reset_less=True)
        m.d.comb += e.eq(exponent - top)
        m.d.sync += clamped.eq(Mux(e < -128, -128, Mux(e > 127, 127, e[:8].as_signed())))
        exponents.append(clamped)
    mantissa = Signal(16, name=f"{name}_mantissa")
    m.d.comb += mantissa.eq(Mux(x[31], x[16:32], x[15:31]))
    m.d.sync += [
        out.mantissa.eq(mantissa),
        # The mantissa is zero where these bits are.
        out.exponent.eq(Mux(x[15:].any(), Mux(x[31], exponents[1], exponents[0]), 0)),
    ]
    return out


class ScalarUnit(wiring.Component):
    """SFU micro-ops -> scalar registers, each after its own ``timing.sfu_*``.

    Sampled at t: ``sumsq`` (64 bit unsigned and an overflow bit) and ``eps`` (64 bit unsigned, RSQRT), ``sums``
    (banks of 40 bit, RECIP) and ``z`` (row of V words, CAPTURE; of several rows the micro-op's index tells which).
    ``read`` (index) -> ``mantissa``, ``exponent`` is the dequantiser's combinational port. ``load`` writes the
    constants K (:attr:`hdl.image.Space.CONST`).
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        super().__init__({
            "uop": In(uop_layout(cfg, Queue.SFU)),
            "sumsq": In(unsigned(SUMSQ_BITS + 1)),
            "eps": In(unsigned(64)),
            "sums": In(data.ArrayLayout(unsigned(SUM_BITS), SOFTMAX_BANKS)),
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
        if self.cfg.scalar_ram:
            self._in_ram(m)
            return m
        registers = Array(
            Signal(SCALAR, name=f"r{i}", init={"mantissa": 0 if i else _ONE, "exponent": 0})
            for i in range(SCALARS)
        )
        m.d.comb += [
            self.mantissa.eq(registers[self.read].mantissa),
            self.exponent.eq(registers[self.read].exponent),
        ]

        constants = self._constants(m)
        results = [
            (self._table(m), timing.sfu_rsqrt, (SfuOp.RSQRT, SfuOp.RECIP)),
            (self._mul(m, registers, constants), timing.sfu_mul, (SfuOp.MUL,)),
            (self._prob(m, registers), timing.sfu_prob, (SfuOp.PROB,)),
        ]
        # Each result stands in a register, with an enable for each destination, in the cycle before it is due.
        writes = []
        for i, (result, latency, ops) in enumerate(results):
            active = uop.valid & Cat(*(uop.op == op for op in ops)).any()
            active = delayed(m, active, latency - 2, reset=True, name=f"on{i}")[-1]
            dst = delayed(m, uop.dst, latency - 2, name=f"dst{i}")[-1]
            enable = Signal(SCALARS, name=f"enable{i}")
            m.d.sync += enable.eq(Mux(active, 1 << dst, 0))
            writes.append((result, enable))
        for i, register in enumerate(registers):
            for result, enable in writes if i else ():
                with m.If(enable[i]):
                    m.d.sync += register.eq(result)
        return m

    def _constants(self, m: Module) -> memory.Memory:
        """The constants K, which the host loads."""
        m.submodules.constants = constants = memory.Memory(shape=unsigned(24), depth=SCALARS, init=[])
        write = constants.write_port()
        m.d.comb += [
            write.addr.eq(self.load.addr),
            write.data.eq(self.load.data),
            write.en.eq(self.load.valid & (self.load.space == Space.CONST)),
        ]
        return constants

    def _in_ram(self, m: Module) -> None:
        """All results after the same time, so that no two ask for the one write port of the registers' memory.

        Register 0 is never written, and a memory begins with zeros: its one is put in where it is read.
        """
        uop, timing = self.uop, get_timing(self.cfg)
        latency = timing.sfu_rsqrt
        assert {latency} == {timing.sfu_recip, timing.sfu_mul, timing.sfu_prob}
        values = []
        writes: list[Any] = []
        for name, index in (("read", self.read), ("a", uop.a)):
            m.submodules[f"registers_{name}"] = copy = memory.Memory(
                shape=unsigned(SCALAR.size), depth=SCALARS, init=[], attrs={"ram_style": "distributed"}
            )
            port = copy.read_port(domain="comb")
            value = Signal(SCALAR, name=f"value_{name}")
            m.d.comb += [port.addr.eq(index), value.eq(port.data | Mux(index == 0, _ONE, 0))]
            values.append(value)
            writes.append(copy.write_port())
        read, a = values
        m.d.comb += [self.mantissa.eq(read.mantissa), self.exponent.eq(read.exponent)]

        constants = self._constants(m)
        port = constants.read_port(domain="comb")
        m.d.comb += port.addr.eq(uop.b)
        k = Signal(SCALAR)
        m.d.comb += k.eq(port.data)
        table = self._table(m)
        product = self._product(m, a, k, latency)
        table_on = delayed(m, (uop.op == SfuOp.RSQRT) | (uop.op == SfuOp.RECIP), latency - 1, name="table_on")[-1]
        active = delayed(m, uop.valid & (uop.op != SfuOp.CAPTURE) & (uop.dst != 0), latency - 1, reset=True,
                         name="active")[-1]  # fmt: skip
        dst = delayed(m, uop.dst, latency - 1, name="dst")[-1]
        for write in writes:
            m.d.comb += [
                write.en.eq(active), write.addr.eq(dst),
                write.data.eq(Mux(table_on, table.as_value(), product.as_value())),
            ]  # fmt: skip

    def _product(self, m: Module, a: Value, k: Value, latency: int) -> Value:
        """R[a] * K[b] or P[b] * R[a]. t + 1: leading one of P[b]. t + 2: its shift. t + 5: normalise; then it waits."""
        uop = self.uop
        p, n = delayed(m, self._captured(m), 1, name="captured")[-1], Signal(5, reset_less=True)
        factor = delayed(m, a, 3, name="factor")
        constant = delayed(m, k, 2, name="constant")
        prob = delayed(m, uop.op == SfuOp.PROB, 2, name="prob")
        other, exponent = Signal(PROB_BITS, reset_less=True), Signal(signed(10), reset_less=True)
        scaled = (delayed(m, p, 1, name="p")[-1] << (PROB_BITS - n)[:5])[1 : PROB_BITS + 1]
        m.d.sync += [
            n.eq(highest_one(p)),
            other.eq(Mux(prob[2], scaled, constant[2].mantissa)),
            exponent.eq(factor[2].exponent + Mux(prob[2], -n, constant[2].exponent)),
        ]
        m.submodules.product = product = Multiplier(stages=2, signed_a=False, signed_b=False)
        m.d.comb += [product.a.eq(other), product.b.eq(factor[3].mantissa)]
        late = delayed(m, exponent, 1, name="exponent")[-1]
        return delayed(m, _normalised(m, product.p, late, "product_result"), latency - 1 - 6, name="product")[-1]

    def _captured(self, m: Module) -> Value:
        """The element of P that the micro-op names."""
        uop, lanes = self.uop, self.cfg.vlanes
        elements = lanes * self.cfg.expert_rows
        captured = Array(Signal(PROB_BITS + 1, name=f"p{lane}", reset_less=True) for lane in range(elements))
        for row in range(self.cfg.expert_rows):
            mine = uop.valid & (uop.op == SfuOp.CAPTURE)
            if self.cfg.expert_rows > 1:
                mine = mine & (uop.idx == row)
            with m.If(mine):
                m.d.sync += [captured[row * lanes + lane].eq(self.z[lane]) for lane in range(lanes)]
        return captured[uop.b[: (elements - 1).bit_length()]]

    def _table(self, m: Module) -> Value:
        """RSQRT and RECIP share one path: the operand's leading one is moved to a fixed place, then a table.

        t: SUMSQ + EPS. t + 1: which four bits hold the leading one, and where. t + 2: shift by fours.
        t + 3: rest of the shift. t + 5: table. t + 7: subtract.
        """
        uop = self.uop
        recip = delayed(m, uop.op == SfuOp.RECIP, 7, name="recip")
        operand = Signal(65, reset_less=True)
        total = self.sums[uop.bank]
        over = Signal(reset_less=True)
        m.d.sync += [
            operand.eq(Mux(recip[0], total, self.sumsq[:SUMSQ_BITS] + self.eps)),
            over.eq(self.sumsq[SUMSQ_BITS] & ~recip[0]),
        ]
        # Saturate. Zero counts as one: its leading one would be bit 0, and there is nothing below either.
        beyond, clamped = Signal(), Signal(64)
        m.d.comb += [beyond.eq(operand[64] | over), clamped.eq(operand[:64] | beyond.replicate(64))]
        fours = [clamped[i : i + 4] for i in range(0, 64, 4)]
        n_high = Signal(4, reset_less=True)
        n_lows = Signal(2 * len(fours), reset_less=True)
        value = Signal(64, reset_less=True)
        m.d.sync += [
            n_high.eq(highest_one(Cat(*(four.any() for four in fours)))),
            n_lows.eq(Cat(*(highest_one(four) for four in fours))),
            value.eq(clamped),
        ]
        # The four bits with the leading one, and the 16 below them.
        around = Signal(20, reset_less=True)
        n_low = Signal(2, reset_less=True)
        m.d.sync += [
            around.eq((value << Cat(Const(0, 2), ~n_high))[44:64]),
            n_low.eq(n_lows.word_select(n_high, 2)),
        ]
        n = Cat(n_low, delayed(m, n_high, 1, name="n_high")[-1])
        # 16 bits below the leading one, truncated: 1.16 fixed point for RECIP, 1.15 for RSQRT.
        fraction = Signal(16)
        m.d.comb += fraction.eq((around << ~n_low)[3:19])
        index = Mux(recip[3], fraction[8:16], Cat(fraction[9:16], n[0]))
        rest = Mux(recip[3], fraction[0:8], fraction[1:9])

        words = tables.packed("RSQRT") + tables.packed("RECIP")
        base_bits, slope_bits = tables.WIDTHS["RECIP"]
        assert tables.WIDTHS["RSQRT"] == (base_bits, slope_bits)
        m.submodules.rom = rom = Rom(width=36, init=words)
        m.d.comb += [rom.a.en.eq(1), rom.a.addr.eq(Cat(index, recip[3]))]
        word = rom.a.data
        m.submodules.slope = slope = Multiplier(stages=2)
        m.d.comb += [
            slope.a.eq(word[base_bits : base_bits + slope_bits]),
            slope.b.eq(delayed(m, rest, 2, name="rest")[-1]),
        ]
        base = delayed(m, word[:base_bits], 2, name="base")[-1]
        mantissa = Signal(17)
        m.d.comb += mantissa.eq(base - slope.p[8 : 8 + slope_bits])
        n_end = delayed(m, n, 4, name="n")[-1]
        out = Signal(SCALAR, name="table_result", reset_less=True)
        m.d.sync += [
            out.mantissa.eq(mantissa[:16] | mantissa[16].replicate(16)),
            out.exponent.eq(Mux(recip[7], n_end, n_end >> 1) + 1),
        ]
        return out

    def _mul(self, m: Module, registers: Array, constants: memory.Memory) -> Value:
        """R[a] * K[b]. t: operands. t + 1: sum of exponents. t + 3: normalise."""
        uop = self.uop
        port = constants.read_port(domain="comb")
        m.d.comb += port.addr.eq(uop.b)
        a, k = Signal(SCALAR, reset_less=True), Signal(SCALAR, reset_less=True)
        m.d.sync += [a.eq(registers[uop.a]), k.eq(port.data)]
        m.submodules.mul = mul = Multiplier(stages=2, signed_a=False, signed_b=False)
        exponent = Signal(signed(9), reset_less=True)
        m.d.comb += [mul.a.eq(a.mantissa), mul.b.eq(k.mantissa)]
        m.d.sync += exponent.eq(a.exponent + k.exponent)
        return _normalised(m, mul.p, exponent, "mul_result")

    def _prob(self, m: Module, registers: Array) -> Value:
        """P[b] * R[a]. t: operands. t + 1: leading one of P[b]. t + 2: shift. t + 5: normalise."""
        uop = self.uop
        captured = self._captured(m)
        p, n = Signal(PROB_BITS + 1, reset_less=True), Signal(5, reset_less=True)
        scaled = Signal(PROB_BITS, reset_less=True)
        r = Signal(SCALAR, reset_less=True)
        exponent = Signal(signed(10), reset_less=True)
        m.d.sync += [
            p.eq(captured),
            n.eq(highest_one(p)),
            # p << 15 >> n, written so that no bit above the leading one is made.
            scaled.eq((delayed(m, p, 1, name="p")[-1] << (PROB_BITS - n)[:5]) >> 1),
            r.eq(registers[uop.a]),
        ]
        factor = delayed(m, r, 2, name="prob_r")
        m.d.sync += exponent.eq(factor[1].exponent - n)
        m.submodules.prob = prob = Multiplier(stages=2, signed_a=False, signed_b=False)
        m.d.comb += [prob.a.eq(scaled), prob.b.eq(factor[2].mantissa)]
        return _normalised(m, prob.p, delayed(m, exponent, 1, name="prob_e")[-1], "prob_result")
