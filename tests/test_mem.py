"""MEM slices in Amaranth's simulator, and the bank beneath them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from amaranth.back import verilog
from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hdl.config import TINY, ULX3S_85F
from hdl.export import SimulationPlatform
from hdl.image import Space
from hdl.mem import ActMemory, Bank, TableSlice, VectorSlice, register_write
from verification.bench_mem import SCENARIOS, MemSlices

SIZES = {"tiny": TINY, "ulx3s": ULX3S_85F, "v8": dataclasses.replace(TINY, columns=8, vlanes=8)}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("size", SIZES)
def test_scenario(size: str, scenario) -> None:
    cfg = SIZES[size]
    scenario(cfg, np.random.default_rng([3, len(size)])).simulate(MemSlices(cfg))


@pytest.mark.parametrize(
    "unit",
    [
        TableSlice(TINY, Space.SCALE),
        TableSlice(TINY, Space.COEF),
        VectorSlice(TINY),
        ActMemory(TINY),
        Bank(width=64, depth=100, granularity=8),
        Bank(width=36, depth=16),
    ],
    ids=lambda u: type(u).__name__,
)
def test_verilog(unit) -> None:
    assert "module unit(" in verilog.convert(unit, name="unit", emit_src=False)


@pytest.mark.parametrize("granularity", [None, 8])
def test_bank(granularity: int | None, rng: np.random.Generator) -> None:
    """Random byte-enabled writes against a plain array, a read each cycle, data two cycles later."""
    width, depth = 32, 24
    parts = width // (granularity or width)
    dut = Bank(width=width, depth=depth, granularity=granularity)
    memory = np.zeros((depth, parts), dtype=object)

    async def bench(ctx) -> None:
        due: list[int] = []
        for _ in range(400):
            en, w_addr, r_addr = (int(rng.integers(n)) for n in (1 << parts, depth, depth))
            if w_addr == r_addr:  # not to be relied on
                en = 0
            words = [int(v) for v in rng.integers(0, 1 << (width // parts), parts)]
            ctx.set(dut.w.en, en)
            ctx.set(dut.w.addr, w_addr)
            ctx.set(dut.w.data, sum(v << i * (width // parts) for i, v in enumerate(words)))
            ctx.set(dut.r.en, 1)
            ctx.set(dut.r.addr, r_addr)
            due.append(sum(int(v) << i * (width // parts) for i, v in enumerate(memory[r_addr])))
            if len(due) > 2:
                assert ctx.get(dut.r.data) == due.pop(0)
            for i in range(parts):
                if en >> i & 1:
                    memory[w_addr, i] = words[i]
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


class _Written(wiring.Component):
    """A bank that is written through registers."""

    def __init__(self) -> None:
        super().__init__({"en": In(1), "addr": In(4), "data": In(8), "row": In(4), "out": Out(8)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.bank = bank = Bank(width=8, depth=16)
        register_write(m, bank.w, self.en, self.addr, self.data)
        m.d.comb += [bank.r.en.eq(1), bank.r.addr.eq(self.row), self.out.eq(bank.r.data)]
        return m


@pytest.mark.parametrize("reset", [False, True])
def test_a_reset_ends_a_registered_write(reset: bool) -> None:
    """A row is written a cycle after it is given, but not behind a reset; and no other row instead."""
    dut = _Written()
    rst = Signal()
    found = []

    async def bench(ctx) -> None:
        for row in range(16):
            ctx.set(dut.en, 1)
            ctx.set(dut.addr, row)
            ctx.set(dut.data, 100 + row)
            await ctx.tick()
        ctx.set(dut.addr, 5)
        ctx.set(dut.data, 255)
        ctx.set(rst, reset)
        await ctx.tick()
        ctx.set(dut.en, 0)
        ctx.set(rst, 0)
        await ctx.tick()
        for row in range(16):
            ctx.set(dut.row, row)
            await ctx.tick().repeat(2)
            found.append(ctx.get(dut.out))

    sim = Simulator(ResetInserter(rst)(dut))
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert found == [255 if row == 5 and not reset else 100 + row for row in range(16)]


def test_large_banks_lie_in_the_hosts_memory() -> None:
    """From ``mapped`` bits on, in a simulation."""
    bank = Bank(width=16, depth=64)
    chosen = {mapped: SimulationPlatform(mapped).bank(bank).type for mapped in (1023, 1024, 1025)}
    assert chosen == {1023: "lpu_mapped_bank", 1024: "lpu_mapped_bank", 1025: "lpu_bank"}
