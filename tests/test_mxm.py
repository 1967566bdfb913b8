"""MXM in Amaranth's simulator: the scenarios of its bench at odd sizes, and the int4 packing exhaustively."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from amaranth.back import verilog
from amaranth.hdl import Module, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import Out
from amaranth.sim import Simulator

from hdl.config import TINY, ULX3S_85F
from hdl.mxm import Mxm
from hdl.mxm.column import MULTIPLY, LaneMultiplier, add_carry, pack, shift_up, unpack_high, unpack_low
from hdl.mxm.tile import sum_of
from verification.bench_mxm import SCENARIOS, shallow

# No size is special: fewer vlanes than a block and as many, one block a word and several.
SIZES = {
    "tiny": TINY,
    "plain": dataclasses.replace(TINY, ecc=False),
    "ulx3s": ULX3S_85F,
    "v8l16": dataclasses.replace(TINY, lanes=16, columns=8, vlanes=8),
    "v2l32": dataclasses.replace(TINY, lanes=32, columns=4, vlanes=2, acc_bits=44),
}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("size", SIZES)
def test_scenario(size: str, scenario) -> None:
    cfg = shallow(SIZES[size])
    scenario(cfg, np.random.default_rng([1, len(size)])).simulate(Mxm(cfg))


@pytest.mark.parametrize("size", SIZES)
def test_verilog(size: str) -> None:
    """The tile converts, and the text does not grow with the depth of its memories alone."""
    text = verilog.convert(Mxm(shallow(SIZES[size])), name="mxm", emit_src=False)
    assert "module mxm(" in text


class PackingCheck(wiring.Component):
    """Every weight byte times every activation through packed multipliers, compared with plain products.

    ``wrong`` stays high after the first mismatch. Sixteen multipliers, one for each low nibble.
    """

    CYCLES = 2 * 16 * 1024 + MULTIPLY + 1

    def __init__(self) -> None:
        super().__init__({"wrong": Out(1), "checked": Out(32)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = Signal(32)
        m.d.sync += count.eq(count + 1)
        mant, nibble, int8 = count[:10].as_signed(), count[10:14], count[14]
        checks = []
        for low in range(16):
            m.submodules[f"mul{low}"] = mul = LaneMultiplier()
            byte = Signal(8, name=f"byte{low}")
            m.d.comb += [byte.eq(low | nibble << 4), mul.a.eq(pack(byte, int8)), mul.b.eq(mant)]
            past = [mant, byte, int8]
            for i in range(MULTIPLY):
                regs = [Signal(v.shape(), name=f"past{low}_{i}_{k}") for k, v in enumerate(past)]
                m.d.sync += [r.eq(v) for r, v in zip(regs, past, strict=True)]
                past = regs
            a, w, wide = past
            high, carry = unpack_high(mul.p)
            got_low, got_high = unpack_low(mul.p, wide), add_carry(high, 0, carry)
            halves = (got_low == w[:4].as_signed() * a) & (got_high == w[4:].as_signed() * a)
            legal = (w[:4] != 8) & (w[4:] != 8)
            ok = (got_low == w.as_signed() * a) & wide | (halves | ~legal) & ~wide
            checks.append(ok)
        due = (count >= MULTIPLY) & (count < self.CYCLES - 1)
        with m.If(due):
            m.d.sync += self.checked.eq(self.checked + 1)
            with m.If(~sum_all(checks)):
                m.d.sync += self.wrong.eq(1)
        return m


def sum_all(checks: list[Value]) -> Value:
    total = checks[0]
    for check in checks[1:]:
        total = total & check
    return total


@pytest.mark.parametrize("count", range(1, 8))
def test_sums_of_errors(count: int) -> None:
    """As many errors as there are, of any number of columns."""
    flags = Signal(count)
    m = Module()
    total = Signal(8)
    m.d.comb += total.eq(sum_of(list(flags)))

    async def bench(ctx) -> None:
        for value in range(1 << count):
            ctx.set(flags, value)
            assert ctx.get(total) == value.bit_count()

    sim = Simulator(m)
    sim.add_testbench(bench)
    sim.run()


def test_packing_is_exact() -> None:
    """All int4 pairs and all int8 weights with all 1024 mantissas."""
    dut = PackingCheck()

    async def bench(ctx) -> None:
        await ctx.tick().repeat(PackingCheck.CYCLES)
        assert ctx.get(dut.checked) == 2 * 16 * 1024
        assert not ctx.get(dut.wrong)

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


def test_shift_with_carry() -> None:
    """(value + carry) << exponent, for each exponent and both carries."""
    value, carry, exponent, out = Signal(signed(18)), Signal(), Signal(4), Signal(signed(40))
    m = Module()
    m.d.comb += out.eq(add_carry(shift_up(value, carry, exponent), 0, carry))

    async def bench(ctx) -> None:
        for v, c, e in itertools.product((-(1 << 17), -5, -1, 0, 1, (1 << 17) - 1), (0, 1), range(16)):
            ctx.set(value, v)
            ctx.set(carry, c)
            ctx.set(exponent, e)
            assert ctx.get(out) == (v + c) << e

    sim = Simulator(m)
    sim.add_testbench(bench)
    sim.run()
