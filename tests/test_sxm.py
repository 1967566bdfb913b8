"""SXM in Amaranth's simulator: the scenarios of its bench at odd sizes, the sum of squares at its limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from amaranth.back import verilog
from amaranth.lib import data
from amaranth.sim import Simulator

from hdl.config import LARGE, TINY, ULX3S_85F
from hdl.sxm import SumOfSquares, Sxm
from verification.bench_sxm import SCENARIOS

SIZES = {
    "tiny": TINY,
    "ulx3s": ULX3S_85F,
    "large": LARGE,
    "v8l8": dataclasses.replace(TINY, lanes=8, columns=8, vlanes=8),
    "v2l16": dataclasses.replace(TINY, lanes=16, columns=16, vlanes=2),
}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("size", SIZES)
def test_scenario(size: str, scenario) -> None:
    cfg = SIZES[size]
    scenario(cfg, np.random.default_rng([2, len(size)])).simulate(Sxm(cfg))


@pytest.mark.parametrize("size", SIZES)
def test_verilog(size: str) -> None:
    assert "module sxm(" in verilog.convert(Sxm(SIZES[size]), name="sxm", emit_src=False)


def test_sum_of_squares_saturates() -> None:
    """All squares of a mantissa are right, and 64 bits saturate instead of wrapping around."""
    dut = SumOfSquares()

    async def bench(ctx) -> None:
        async def block(mant: list[int], exp: int, start: int) -> int:
            ctx.set(dut.valid, 1)
            ctx.set(dut.start, start)
            ctx.set(dut.exp, exp)
            ctx.set(dut.mant.as_value(), data.ArrayLayout(10, 8).const([m & 1023 for m in mant]).as_value())
            await ctx.tick()
            ctx.set(dut.valid, 0)
            await ctx.tick().repeat(SumOfSquares.LATENCY - 1)
            return int(ctx.get(dut.total))

        for m in range(-512, 512, 8):
            assert await block(list(range(m, m + 8)), 0, 1) == sum(i * i for i in range(m, m + 8))
        # 2**51 a block: 2**13 blocks would reach 2**64.
        assert await block([-512] * 8, 15, 1) == 1 << 51
        ctx.set(dut.valid, 1)
        ctx.set(dut.start, 0)
        await ctx.tick().repeat((1 << 13) - 2)
        ctx.set(dut.valid, 0)
        await ctx.tick().repeat(SumOfSquares.LATENCY)
        assert int(ctx.get(dut.total)) == (1 << 64) - (1 << 51)
        assert await block([-512] * 8, 15, 0) == (1 << 64) - 1
        assert await block([1, 0, 0, 0, 0, 0, 0, 0], 0, 0) == (1 << 64) - 1
        assert await block([1, 0, 0, 0, 0, 0, 0, 0], 0, 1) == 1

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
