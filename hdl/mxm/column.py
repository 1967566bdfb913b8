"""One MXM column: weight SRAM, ``lanes`` multipliers, block-exponent shift and accumulators.

int4 weights share a multiplier in pairs: the operand ``(w_high << 14) + w_low`` times an activation mantissa
a holds both products, ``w_low * a`` as the signed low 14 bits and ``w_high * a`` above, one too small when
the low product is negative. That missing one is not added lane by lane: it enters as the carry of an adder
that is there anyway. An int4 weight of -8 would not fit the 18-bit operand and is excluded by the format
(-7..7).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import ACT_BITS, ACT_EXP_BITS, BLOCK, Config, address_bits
from ..ecc import Decoder, get_code
from ..mem import Bank, DualBank, WritePort, register_write
from ..primitives import DSP_BITS, Multiplier
from ..timing import get_timing
from .write import port_layout

SPACING = 14
"""Bits between two packed products: an int4 x int10 product fits 14 bits."""
INT8_PRODUCT = 8 + ACT_BITS
assert SPACING + 4 == DSP_BITS
MULTIPLY = 2
"""Cycles of a multiplier: input and output registers. Its pipeline register is left out: a cycle less for
every dependent operation, and the bare array is well above 125 MHz without it."""

READ = 2
"""Cycle in which a weight word comes out of its memory, counted from the micro-op's at the superlane."""


@dataclasses.dataclass(frozen=True)
class Stages:
    """Cycles, counted like READ, in which the inputs of a stage are valid."""

    pack: int
    """The weight word at the multipliers. The way from block RAM to multiplier is long: one register between them, or
    the two of an error correction."""
    product: int
    sum: int
    shift: int
    accumulate: int
    """The sum is added to the accumulator, which was read a cycle before."""


@functools.cache
def get_stages(cfg: Config) -> Stages:
    pack = READ + (Decoder.LATENCY if cfg.ecc else 1)
    product = pack + MULTIPLY
    shift = product + 2
    return Stages(pack, product, product + 1, shift, shift + 1 + (1 if cfg.blocks > 1 else 0))


def pack(weight: Value, int8: Value) -> Value:
    """Weight byte -> signed multiplier operand: int8 extended, or both int4 packed ``SPACING`` apart."""
    low, high = weight[:4], weight[4:]
    packed = Cat(low, low[3].replicate(SPACING - 4), (high - low[3])[:4]).as_signed()
    return Mux(int8, weight.as_signed(), packed).as_signed()


def unpack_low(product: Value, int8: Value) -> Value:
    """Product -> signed low (int4) or only (int8) product."""
    return Mux(int8, product[:INT8_PRODUCT].as_signed(), product[:SPACING].as_signed())


def unpack_high(product: Value) -> tuple[Value, Value]:
    """Product -> (v, c): the high product is v + c."""
    return product[SPACING : SPACING + 14].as_signed(), product[SPACING - 1]


def add_carry(a: Value, b: Value, carry: Value | int = 0) -> Value:
    """Signed ``a + b + carry`` in a single carry chain."""
    return (Cat(Const(1, 1), a).as_signed() + Cat(carry, b).as_signed())[1:].as_signed()


def add_tree(leaves: Sequence[tuple[Value, Value]]) -> tuple[Value, Value]:
    """Sum of v + c over the leaves (v, c), as such a pair: n - 1 adders take n - 1 of the carries in."""
    if len(leaves) == 1:
        return leaves[0]
    half = len(leaves) // 2
    (a, carry_a), (b, carry_b) = add_tree(leaves[:half]), add_tree(leaves[half:])
    return add_carry(a, b, carry_a), carry_b


def sum_tree(values: Sequence[Value]) -> Value:
    """Balanced signed sum."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return sum_tree(values[:half]) + sum_tree(values[half:])


def shift_up(value: Value, carry: Value, exponent: Value) -> Value:
    """(x, carry) with x + carry = (value + carry) << exponent, the exponent being 4 bits.

    Filling with the carry instead of zeros leaves its weight at one: (v << e) + (2**e - 1) + 1.
    """
    fill = (1 << ACT_EXP_BITS) - 1
    return Cat(carry.replicate(fill), value).as_signed() >> ~exponent[:ACT_EXP_BITS]


class LaneMultiplier(Multiplier):
    """A multiplier with a port just as wide as an activation.

    Operand bits that repeat a sign would cross the module boundary under a name of their own, and no two
    multipliers would have the same text (``hdl.export`` makes modules with the same text one).
    """

    def __init__(self) -> None:
        self.stages = MULTIPLY
        wiring.Component.__init__(self, {
            "a": In(signed(DSP_BITS)),
            "b": In(signed(ACT_BITS)),
            "p": Out(signed(DSP_BITS + ACT_BITS)),
        })  # fmt: skip


CONTROL = data.StructLayout({"pack_int8": 1, "sum_int8": 1, "clear": 1, "forward": 1, "acc": 1})
"""What a superlane tells its columns, each member in the cycle of the stage that wants it: how to unpack
the weight word (``pack``) and the products (``product``); start from zero, or from the sum that is being written
(accumulate - 1); write the accumulator (accumulate)."""


class Column(wiring.Component):
    """One column. It does not know its place: the superlane decodes writes and delays control.

    ``en``, ``addr``: weight word to read, cycle 0 of the stage count; ``word``: that word in stage ``pack``, together
    with ``mant``. ``exp`` (one exponent a block) belongs to stage ``shift``, ``acc_addr`` to the cycle before
    accumulation; for ``control`` see there. ``low`` and ``high`` are the accumulators at ``drain_addr`` in the same
    cycle.

    ``w``: byte-enabled write port of the weight SRAM, written a cycle later. With error correction instead ``port``:
    its second port, a cycle later; ``stored``: what that has read, three cycles after it was asked; and, beside
    ``word``, what its correction found: ``corrected``, ``uncorrectable``.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        acc_addr = address_bits(cfg.accs)
        memory_ports: dict[str, object] = {"w": In(WritePort(cfg.lanes * 8, cfg.weight_depth, 8))}
        if cfg.ecc:
            memory_ports = {
                "port": In(port_layout(cfg)),
                "stored": Out(get_code(cfg.lanes * 8).width),
                "corrected": Out(1),
                "uncorrectable": Out(1),
            }
        super().__init__({
            **memory_ports,
            "en": In(1),
            "addr": In(address_bits(cfg.weight_depth)),
            "word": Out(cfg.lanes * 8),
            "mant": In(data.ArrayLayout(signed(ACT_BITS), cfg.lanes)),
            "exp": In(data.ArrayLayout(ACT_EXP_BITS, cfg.blocks)),
            "control": In(CONTROL),
            "acc_addr": In(acc_addr),
            "drain_addr": In(acc_addr),
            "low": Out(signed(cfg.acc_bits)),
            "high": Out(signed(cfg.acc_bits)),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg = self.cfg
        control = self.control
        assert get_timing(cfg).mem_read == READ

        def reg(value: Value, name: str) -> Signal:
            r = Signal(value.shape(), name=name, reset_less=True)
            m.d.sync += r.eq(value)
            return r

        if cfg.ecc:
            self._coded_memory(m)
        else:
            m.submodules.bank = bank = Bank(width=cfg.lanes * 8, depth=cfg.weight_depth, granularity=8)
            register_write(m, bank.w, self.w.en, self.w.addr, self.w.data)
            m.d.comb += [bank.r.en.eq(self.en), bank.r.addr.eq(self.addr), self.word.eq(reg(bank.r.data, "word_reg"))]

        products: list[Value] = []
        for lane in range(cfg.lanes):
            m.submodules[f"mul{lane}"] = mul = LaneMultiplier()
            m.d.comb += [
                mul.a.eq(pack(self.word.word_select(lane, 8), control.pack_int8 if cfg.int4 else Const(1))),
                mul.b.eq(self.mant[lane]),
            ]
            products.append(mul.p)

        # Stage PRODUCT: sums of two lanes. Stage SUM: of the block. Stage SHIFT: times its power of two.
        shifted_low: list[Value] = []
        shifted_high: list[tuple[Value, Value]] = []
        for block in range(cfg.blocks):
            low_pairs, high_pairs = [], []
            for at in range(block * BLOCK, (block + 1) * BLOCK, 2):
                pair = products[at : at + 2]
                low = sum_tree([unpack_low(p, control.sum_int8 if cfg.int4 else Const(1)) for p in pair])
                high, carry = add_tree([unpack_high(p) for p in pair])
                low_pairs.append(reg(low, f"low_l{at}"))
                high_pairs.append((reg(high, f"high_l{at}"), reg(carry, f"carry_l{at}")))
            low = reg(sum_tree(low_pairs), f"low_b{block}")
            high, carry = add_tree(high_pairs)
            high, carry = reg(high, f"high_b{block}"), reg(carry, f"carry_b{block}")
            exp = self.exp[block]
            shifted_low.append(reg(low << exp, f"low_s{block}"))
            shifted_high.append((reg(shift_up(high, carry, exp), f"high_s{block}"), reg(carry, f"carry_s{block}")))

        sum_low = sum_tree(shifted_low)
        sum_high, sum_carry = add_tree(shifted_high)
        if cfg.blocks > 1:
            sum_low, sum_high = reg(sum_low, "sum_low"), reg(sum_high, "sum_high")
            sum_carry = reg(sum_carry, "sum_carry")

        zero: Value = Const(0, 1)
        write_addr = reg(self.acc_addr, "write_addr")
        for name, out, value, carry in (
            ("low", self.low, sum_low, zero),
            ("high", self.high, sum_high, sum_carry),
        )[: 2 if cfg.int4 else 1]:
            array = memory.Memory(shape=signed(cfg.acc_bits), depth=cfg.accs, init=[])
            m.submodules[f"acc_{name}"] = array
            wp = array.write_port()
            old = array.read_port(domain="comb")
            drain = array.read_port(domain="comb")
            # The sum under way is taken from the adder: it is written only at the end of this cycle.
            total = Signal(signed(cfg.acc_bits), name=f"total_{name}")
            base = Signal(signed(cfg.acc_bits), name=f"base_{name}", reset_less=True)
            m.d.sync += base.eq(Mux(control.clear, 0, Mux(control.forward, total, old.data)))
            m.d.comb += [
                old.addr.eq(self.acc_addr),
                wp.addr.eq(write_addr),
                wp.en.eq(control.acc),
                total.eq(add_carry(base, value, carry)),
                wp.data.eq(total),
                drain.addr.eq(self.drain_addr),
                out.eq(drain.data),
            ]
        return m

    def _coded_memory(self, m: Module) -> None:
        """The weight SRAM with words of :mod:`hdl.ecc`; a read's two stages of correction are the registers before
        the multipliers."""
        cfg, code = self.cfg, get_code(self.cfg.lanes * 8)
        m.submodules.bank = bank = DualBank(width=code.width, depth=cfg.weight_depth, full=cfg.value_words)
        m.submodules.decoder = decoder = Decoder(code.data_bits)
        port = Signal(port_layout(cfg))
        m.d.sync += port.eq(self.port)
        m.d.comb += [
            bank.r.en.eq(self.en), bank.r.addr.eq(self.addr), decoder.word.eq(bank.r.data),
            bank.u.en.eq(port.en), bank.u.write.eq(port.write), bank.u.addr.eq(port.addr),
            bank.u.data.eq(port.data), self.stored.eq(bank.u.q), self.word.eq(decoder.data),
            self.corrected.eq(decoder.corrected), self.uncorrectable.eq(decoder.uncorrectable),
        ]  # fmt: skip


@functools.cache
def check_latency(cfg: Config) -> None:
    """The stages above must add up to what the schedule relies on."""
    assert get_timing(cfg).dot == get_stages(cfg).accumulate + 1
