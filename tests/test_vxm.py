"""VXM units in Amaranth's simulator: export, multipliers, noise, and that their benches would notice one wrong cycle.

The other units are compared with the numerics by ``verification/bench_vxm_*.py`` in both simulators.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from amaranth.back import verilog
from amaranth.hdl import Elaboratable, Fragment, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.sim import Simulator

from hdl.config import CONFIGS, TINY, Config
from hdl.primitives import (
    Multiplier,
    WideMultiplier,
    highest_one,
    less,
    round_clamp,
    round_sat,
    shift_coarse,
    shift_fine,
    shift_keep,
)
from hdl.timing import Timing, get_timing
from hdl.vxm.alu import VectorAlu
from hdl.vxm.dequant import Dequantiser
from hdl.vxm.function import LATENCY, Interpolator
from hdl.vxm.gumbel import GumbelNoise
from hdl.vxm.scalar import ScalarUnit
from hdl.vxm.topk import SortedList, TopK
from hdl.vxm.vxm import Vxm
from sim import numerics as nx
from verification import runner

TWO_LANES = dataclasses.replace(TINY, name="two-lanes", vlanes=2)
UNITS = [Dequantiser, VectorAlu, ScalarUnit, GumbelNoise, SortedList, TopK]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("cfg", [TINY, TWO_LANES], ids=lambda c: c.name)
def test_units_convert(unit: Callable[[Config], Elaboratable], cfg: Config) -> None:
    """Each unit has a Verilog form."""
    assert "module top" in verilog.convert(unit(cfg), name="top", emit_src=False)


@pytest.mark.parametrize("name", CONFIGS)
def test_vxm_converts(name: str) -> None:
    """In every named size."""
    assert "module vxm" in verilog.convert(Vxm(CONFIGS[name]), name="vxm", emit_src=False)


@pytest.mark.parametrize("name", CONFIGS)
def test_ports_are_those_of_the_units(name: str) -> None:
    """What the VXM only hands on is as wide in its port as in the unit's: a narrower one would cut large values."""
    cfg = CONFIGS[name]
    ports = Vxm(cfg).signature.members
    units = [unit(cfg).signature.members for unit in (Dequantiser, VectorAlu, ScalarUnit, TopK)]
    handed_on = [(port, unit) for port in ports for unit in units if port in unit and unit[port].is_port]
    assert {"sumsq", "eps", "value", "token", "expert_id"} <= {port for port, _ in handed_on}
    for port, unit in handed_on:
        assert ports[port].shape == unit[port].shape, port


def test_interpolators_convert() -> None:
    for names, fraction in ((["EXP2"], 4), (["SIGMOID"], 7), (["EXP2", "SIGMOID"], 7)):
        assert "module top" in verilog.convert(Interpolator(*names, fraction=fraction), name="top", emit_src=False)


def _latency_check(
    dut: wiring.Component, latency: int, operands: list[tuple[int, int]], platform: object = None
) -> None:
    """Feeds a pair a cycle; each product must stand on ``p`` exactly ``latency`` cycles later."""

    async def bench(ctx: Any) -> None:
        for cycle in range(len(operands) + latency):
            a, b = operands[min(cycle, len(operands) - 1)]
            ctx.set(dut.a, a)
            ctx.set(dut.b, b)
            await ctx.delay(1e-9)
            if cycle >= latency:
                x, y = operands[cycle - latency]
                assert ctx.get(dut.p) == x * y, f"cycle {cycle}: {x} * {y}"
            await ctx.tick()

    sim = Simulator(Fragment.get(dut, platform))
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("signs", [(True, True), (True, False), (False, False)])
def test_multiplier(rng: np.random.Generator, stages: int, signs: tuple[bool, bool]) -> None:
    """Products of random and extreme operands, at the stated latency."""
    limits = [(-(1 << 17), (1 << 17) - 1) if s else (0, (1 << 18) - 1) for s in signs]
    pairs = [(a, b) for a in limits[0] for b in limits[1]]
    drawn = [rng.integers(low, high, 60, endpoint=True).tolist() for low, high in limits]
    pairs += list(zip(*drawn, strict=True))
    _latency_check(Multiplier(stages=stages, signed_a=signs[0], signed_b=signs[1]), stages, pairs)


@pytest.mark.parametrize("width", [18, 36, 40, 46])
@pytest.mark.parametrize("stages", [2, 3])
def test_wide_multiplier(rng: np.random.Generator, width: int, stages: int) -> None:
    """Slices add up to the exact product."""
    top = 1 << width - 1
    pairs = [(a, b) for a in (-top, top - 1, -1, 0) for b in (0, 1, (1 << 18) - 1)]
    pairs += [(int(rng.integers(-top, top)), int(rng.integers(1 << 18))) for _ in range(60)]
    _latency_check(WideMultiplier(width, stages=stages), stages + 1, pairs)


class _Pieces(Elaboratable):
    """The combinational pieces beside the ones they replace."""

    def __init__(self, width: int, bits: int):
        self.bits = bits
        self.value, self.other, self.shift = Signal(signed(width)), Signal(signed(width)), Signal(6)
        self.clamped, self.plain = Signal(signed(bits)), Signal(signed(bits))
        self.below, self.highest = Signal(), Signal(range(width))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += [
            self.clamped.eq(round_clamp(shift_fine(shift_coarse(self.value, self.shift), self.shift), self.bits)),
            self.plain.eq(round_sat(shift_keep(self.value, self.shift), self.bits)),
            self.below.eq(less(self.value, self.other)),
            self.highest.eq(highest_one(self.value)),
        ]
        return m


@pytest.mark.parametrize(("width", "bits"), [(36, 32), (53, 32), (33, 18), (20, 18)])
def test_pieces(rng: np.random.Generator, width: int, bits: int) -> None:
    """Shift in two stages, rounding to a limit, comparison and leading one: random values and those at the limits."""
    top = 1 << bits - 1
    shifts = [int(s) for s in rng.integers(0, 64, 400)]
    values = [int(rng.integers(-(1 << width - 1), 1 << width - 1)) >> int(rng.integers(width)) for _ in shifts]
    for shift in range(width - bits + 1):
        edges = (-top - 1, -top, top - 1, top)
        near = [(edge << shift) + d + h for edge in edges for d in (-1, 0, 1) for h in (0, (1 << shift) >> 1)]
        near = [x for x in near if -(1 << width - 1) <= x < 1 << width - 1]
        values += near
        shifts += [shift] * len(near)
    dut = _Pieces(width, bits)

    async def bench(ctx: Any) -> None:
        for i, (x, shift) in enumerate(zip(values, shifts, strict=True)):
            other = values[i - 1] if i % 3 else x
            ctx.set(dut.value, x)
            ctx.set(dut.other, other)
            ctx.set(dut.shift, shift)
            await ctx.delay(1e-9)
            exact = max(-top, min(top - 1, (x + (1 << shift >> 1)) >> shift))
            assert ctx.get(dut.clamped) == ctx.get(dut.plain) == exact, (x, shift)
            assert ctx.get(dut.below) == (x < other)
            assert ctx.get(dut.highest) == max(0, (x & (1 << width) - 1).bit_length() - 1)

    sim = Simulator(dut)
    sim.add_testbench(bench)
    sim.run()


def test_interpolator_is_the_table(rng: np.random.Generator) -> None:
    """Every argument of EXP2, one a cycle; each value stands four cycles later."""
    dut = Interpolator("EXP2", fraction=4)

    async def bench(ctx: Any) -> None:
        for cycle in range(4096 + LATENCY):
            ctx.set(dut.x, cycle & 4095)
            if cycle >= LATENCY:
                x = cycle - LATENCY
                expected = int(nx.exp2_neg(4096 - x)) if x else 65536
                assert ctx.get(dut.v) >> (1 if x else 0) == expected
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


def test_two_functions_share_an_interpolator() -> None:
    """Every argument of both, in turn: the values are those of the function's own interpolator."""
    both = Interpolator("EXP2", "SIGMOID", fraction=7)
    alone = {"EXP2": Interpolator("EXP2", fraction=4), "SIGMOID": Interpolator("SIGMOID", fraction=7)}
    assert both.last == alone["SIGMOID"].last
    m = Module()
    m.submodules += [both, *alone.values()]

    async def bench(ctx: Any) -> None:
        for cycle in range(2 * (1 << 15) + LATENCY):
            silu, x = cycle & 1, cycle >> 1
            ctx.set(both.x, 1 << 15 | x & 0x7FFF if silu else (x & 4095) << 3)
            ctx.set(alone["EXP2"].x, x & 4095)
            ctx.set(alone["SIGMOID"].x, x & 0x7FFF)
            if cycle >= LATENCY:
                expected = alone["SIGMOID" if (cycle - LATENCY) & 1 else "EXP2"]
                assert ctx.get(both.v) == ctx.get(expected.v), f"cycle {cycle}"
            await ctx.tick()

    sim = Simulator(m)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


class _OneLater(wiring.Component):
    """A unit whose outputs all come one cycle late."""

    def __init__(self, unit: wiring.Component):
        self.unit = unit
        super().__init__(unit.signature)

    def elaborate(self, platform: Any) -> Any:
        m = Module()
        m.submodules.unit = self.unit
        for name, member in self.signature.members.items():
            if not member.is_port:
                wiring.connect(m, getattr(self.unit, name), wiring.flipped(getattr(self, name)))
            elif member.flow == wiring.In:
                m.d.comb += getattr(self.unit, name).eq(getattr(self, name))
            else:
                late = Signal.like(getattr(self, name))
                m.d.sync += late.eq(getattr(self.unit, name))
                m.d.comb += getattr(self, name).eq(late)
        return m


@pytest.mark.bench
@pytest.mark.parametrize(
    ("bench", "unit"),
    [("dequant", Dequantiser), ("alu", VectorAlu), ("scalar", ScalarUnit), ("topk", TopK)],
)
def test_benches_notice_one_cycle(bench: str, unit: Callable[[Config], wiring.Component]) -> None:
    """Right results that stand there a cycle late fail the bench."""
    module = f"verification.bench_vxm_{bench}"
    with pytest.raises(runner.BenchFailure, match="expected"):
        runner.run_bench(f"vxm_{bench}_late", component_factory=lambda cfg: _OneLater(unit(cfg)),
                         module=module, sim="icarus", config="tiny")  # fmt: skip


def test_latencies_are_stated_once() -> None:
    """The numbers that the schedule of a token rests on."""
    timing = Timing(TINY)
    assert timing.acc == max(TINY.vlanes, 4) + 6
    assert timing.max - timing.acc == 3
    assert Timing(dataclasses.replace(TINY, vlanes=8, columns=8)).max == 8 + 6 + 5


class _NoBlocks:
    """A platform that has no multiplier left."""

    def multiplier(self, multiplier: Multiplier) -> None:
        return None


@pytest.mark.parametrize("signs", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_multiplier_of_luts(stages: int, signs: tuple[bool, bool], rng: np.random.Generator) -> None:
    """Without a block: the same products at the same latency."""
    tops = [(-(1 << 17), (1 << 17) - 1) if s else (0, (1 << 18) - 1) for s in signs]
    pairs = [(x, y) for x in (*tops[0], 0, 1, tops[0][0] + 1) for y in (*tops[1], 0, 1, tops[1][0] + 1)]
    (low_a, high_a), (low_b, high_b) = tops
    pairs += [(int(rng.integers(low_a, high_a + 1)), int(rng.integers(low_b, high_b + 1))) for _ in range(100)]
    unit = Multiplier(stages=stages, signed_a=signs[0], signed_b=signs[1])
    _latency_check(unit, stages, pairs, _NoBlocks())


@pytest.mark.parametrize("single", [False, True], ids=["ids", "ranks"])
@pytest.mark.parametrize("cfg", [TINY, TWO_LANES], ids=lambda c: c.name)
def test_noise_is_the_numerics_bit_for_bit(cfg: Config, single: bool, rng: np.random.Generator) -> None:
    """Every row's noise, with gaps between rows, from row 0 again behind the last one; not only the ids that win by
    it."""
    dut = GumbelNoise(cfg)
    lanes = 1 if single else cfg.vlanes
    wait = get_timing(cfg).top_noise

    async def bench(ctx: Any) -> None:
        ctx.set(dut.single, int(single))
        for _ in range(4):
            seed, position = int(rng.integers(1 << 32)), int(rng.integers(cfg.context_max))
            ctx.set(dut.seed, seed)
            ctx.set(dut.position, position)
            for _ in range(2):  # the second time behind `last`
                await ctx.tick().repeat(wait)
                rows = int(rng.integers(30, 60))
                for row in range(rows):
                    for _ in range(int(rng.integers(3)) if rng.random() < 0.3 else 0):
                        await ctx.tick()
                    ctx.set(dut.advance, 1)
                    ctx.set(dut.last, int(row == rows - 1))
                    await ctx.tick()
                    ctx.set(dut.advance, 0)
                    ctx.set(dut.last, 0)
                    got = [ctx.get(dut.noise[lane]) for lane in range(lanes)]
                    want = nx.gumbel(seed, position, row * lanes + np.arange(lanes)).tolist()
                    assert got == want, f"seed {seed}, position {position}, row {row}"

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
