"""A bench as a table: what each input is in each cycle, and what outputs must be.

Scenarios are computed beforehand from ``sim/numerics`` and then played, the same way, by cocotb in both
Verilog simulators and by Amaranth's simulator in plain pytest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from amaranth.hdl import Value
from amaranth.lib import data
from amaranth.sim import Simulator
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge, Timer

from hdl.config import Config
from hdl.isa import Queue
from hdl.uop import uop_layout


def pack(layout: data.Layout, values: Mapping[Any, Any] | Iterable[Any]) -> int:
    """Bits of a value of ``layout``; range-checked, unlike Amaranth's constants."""
    items = values.items() if isinstance(values, Mapping) else enumerate(values)
    bits = 0
    for key, value in items:
        field = layout[key]
        if isinstance(field.shape, data.Layout):
            value = pack(field.shape, value)
        else:
            value = int(value)
            low = -(1 << field.width - 1) if getattr(field.shape, "signed", False) else 0
            if not low <= value < low + (1 << field.width):
                raise ValueError(f"{key} = {value} does not fit {field.shape}")
        bits |= (value & (1 << field.width) - 1) << field.offset
    return bits


def uop(cfg: Config, queue: Queue, **fields: int) -> int:
    """Bits of a valid micro-op."""
    return pack(uop_layout(cfg, queue), {"valid": 1, **fields})


class Script:
    """Inputs are zero unless driven; outputs are free unless expected. Ports have their Verilog names."""

    def __init__(self) -> None:
        self._drive: dict[int, dict[str, int]] = defaultdict(dict)
        self._hold: dict[int, dict[str, int]] = defaultdict(dict)
        self._expect: dict[int, dict[str, tuple[int, str]]] = defaultdict(dict)

    @property
    def cycles(self) -> int:
        return max((*self._drive, *self._hold, *self._expect), default=-1) + 1

    def drive(self, cycle: int, **ports: int) -> None:
        """Inputs of one cycle."""
        for name, value in ports.items():
            if name in self._drive[cycle]:
                raise ValueError(f"cycle {cycle}: {name} is driven twice")
            self._drive[cycle][name] = value

    def hold(self, cycle: int, **ports: int) -> None:
        """Inputs from a cycle on, where nothing else drives them."""
        self._hold[cycle].update(ports)

    def driven(self, cycle: int, name: str) -> bool:
        return name in self._drive[cycle]

    def expect(self, cycle: int, name: str, value: int, why: str = "") -> None:
        """An output (its bits, unsigned) in one cycle."""
        if cycle < 0:
            raise ValueError(f"{name}: expected in cycle {cycle}")
        old = self._expect[cycle].get(name)
        if old is not None and old[0] != value:
            raise ValueError(f"cycle {cycle}: {name} expected to be {old[0]:#x} and {value:#x}")
        self._expect[cycle][name] = (value, why)

    def expect_default(self, name: str, value: int) -> None:
        """An output in all cycles of the script with no expectation yet."""
        for cycle in range(self.cycles):
            if name not in self._expect[cycle]:
                self._expect[cycle][name] = (value, "nothing is due")

    def _steps(self) -> Iterable[tuple[int, dict[str, int], dict[str, tuple[int, str]]]]:
        names = {name for ports in (*self._drive.values(), *self._hold.values()) for name in ports}
        held: dict[str, int] = dict.fromkeys(names, 0)
        state: dict[str, int] = {}
        for cycle in range(self.cycles):
            held.update(self._hold.get(cycle, {}))
            new = held | self._drive.get(cycle, {})
            yield cycle, {n: v for n, v in new.items() if state.get(n) != v}, self._expect.get(cycle, {})
            state = new

    @staticmethod
    def _check(cycle: int, name: str, got: int, want: tuple[int, str]) -> None:
        assert got == want[0], f"cycle {cycle}: {name} = {got:#x}, expected {want[0]:#x} {want[1]}"

    async def play(self, dut: Any) -> None:
        """Plays it in cocotb, after a reset."""
        dut.rst.value = 1
        Clock(dut.clk, 10, "ns").start()
        await RisingEdge(dut.clk)
        await RisingEdge(dut.clk)
        for cycle, inputs, outputs in self._steps():
            await FallingEdge(dut.clk)
            dut.rst.value = 0
            for name, value in inputs.items():
                getattr(dut, name).value = value
            if outputs:
                await Timer(4, "ns")  # settled, and just before the edge that ends the cycle
            for name, want in outputs.items():
                bits = getattr(dut, name).value
                assert bits.is_resolvable, f"cycle {cycle}: {name} = {bits}, expected {want[0]:#x} {want[1]}"
                self._check(cycle, name, int(bits), want)

    def simulate(self, component: Any) -> None:
        """Plays it in Amaranth's simulator."""

        def port(name: str) -> Any:
            target = component
            for part in name.split("__"):
                target = getattr(target, part)
            return Value.cast(target)

        async def bench(ctx: Any) -> None:
            for cycle, inputs, outputs in self._steps():
                for name, value in inputs.items():
                    ctx.set(port(name), value)
                for name, want in outputs.items():
                    signal = port(name)
                    self._check(cycle, name, ctx.get(signal) & (1 << len(signal)) - 1, want)
                await ctx.tick()

        sim = Simulator(component)
        sim.add_clock(1e-6)
        sim.add_testbench(bench)
        sim.run()
