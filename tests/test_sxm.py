"""SXM in Amaranth's simulator: the scenarios of its bench at odd sizes, the sum of squares at its limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from amaranth.back import verilog
from amaranth.lib import data
from amaranth.sim import Simulator

from hdl.config import LARGE, TINY, ULX3S_25F, ULX3S_45F, ULX3S_85F
from hdl.sxm import SumOfSquares, Sxm
from verification.bench_sxm import SCENARIOS

SIZES = {
    "tiny": TINY,
    "ulx3s": ULX3S_85F,
    "large": LARGE,
    "v8l8": dataclasses.replace(TINY, lanes=8, columns=8, vlanes=8),
    "ulx3s-45f": ULX3S_45F,
    "ulx3s-25f": ULX3S_25F,
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


@pytest.mark.parametrize("lanes", [8, 4, 2])
def test_sum_of_squares_overflows(lanes: int) -> None:
    """All squares of a mantissa are right, and a sum of more than 64 bits says so until the next begins."""
    dut = SumOfSquares(lanes)

    async def bench(ctx) -> None:
        async def block(mant: list[int], exp: int, start: int) -> int:
            ctx.set(dut.valid, 1)
            ctx.set(dut.start, start)
            ctx.set(dut.exp, exp)
            ctx.set(dut.mant.as_value(), data.ArrayLayout(10, 8).const([m & 1023 for m in mant]).as_value())
            await ctx.tick()
            ctx.set(dut.valid, 0)
            await ctx.tick().repeat(dut.latency - 1)
            return int(ctx.get(dut.total))

        for m in range(-512, 512, 8):
            assert await block(list(range(m, m + 8)), 0, 1) == sum(i * i for i in range(m, m + 8))
        # 2**51 a block: 2**13 blocks would reach 2**64.
        assert await block([-512] * 8, 15, 1) == 1 << 51
        ctx.set(dut.start, 0)
        for _ in range((1 << 13) - 2):
            ctx.set(dut.valid, 1)
            await ctx.tick()
            ctx.set(dut.valid, 0)
            if dut.beats > 1:
                await ctx.tick().repeat(dut.beats - 1)
        await ctx.tick().repeat(dut.latency)
        assert int(ctx.get(dut.total)) == (1 << 64) - (1 << 51)
        assert await block([-512] * 8, 15, 0) == 1 << 64
        assert await block([-512] * 8, 15, 0) >> 64 == 1
        assert await block([1, 0, 0, 0, 0, 0, 0, 0], 0, 1) == 1

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


@pytest.mark.parametrize("lanes", [4, 2])
def test_a_short_last_block_waits_for_the_one_before(lanes: int) -> None:
    """Blocks a beat less apart than they take; then one in the very next cycle: each counts at its latency."""
    dut = SumOfSquares(lanes)
    rng = np.random.default_rng(lanes)

    async def bench(ctx) -> None:
        for blocks in range(1, 6):
            expected = 0
            for i in range(blocks):
                mant, exp = [int(v) for v in rng.integers(-512, 512, 8)], int(rng.integers(16))
                expected += sum(v * v for v in mant) << 2 * exp
                ctx.set(dut.valid, 1)
                ctx.set(dut.start, int(i == 0))
                ctx.set(dut.exp, exp)
                ctx.set(dut.mant.as_value(), data.ArrayLayout(10, 8).const([v & 1023 for v in mant]).as_value())
                await ctx.tick()
                ctx.set(dut.valid, 0)
                if i < blocks - 2:
                    await ctx.tick().repeat(dut.beats - 1)
            await ctx.tick().repeat(dut.latency - 1)
            assert int(ctx.get(dut.total)) == expected

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
