"""Memory banks of the simulators: Amaranth's own, ``lpu_bank``, and ``lpu_mapped_bank`` in the host's memory, in
lockstep under random traffic, words read while they are written included."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, Timer

from hdl.config import address_bits
from hdl.export import SimulationPlatform
from hdl.mem import Bank
from verification.context import context
from verification.elaborated import ElaboratedFor

KINDS = {"plain": None, "bank": SimulationPlatform(mapped=1 << 40), "mapped": SimulationPlatform(mapped=0)}
"""Versions, and the platform that each is elaborated for."""
BANKS = {
    f"bank_{depth}x{width}_{granularity}_{latency}": (depth, width, granularity, latency)
    for depth, width, granularity, latency in (
        (100, 256, 8, 2),  # weights: bytes
        (64, 64, 8, 2),
        (64, 128, 16, 2),  # scales: lanes
        (32, 336, 336, 2),  # activations: not a whole number of parts of 64 bits
        (33, 36, 36, 1),
        (16, 8, 8, 1),
    )
}
"""Words, bits, bits written together, latency."""


class BankKinds(wiring.Component):
    """Every shape in every kind; inputs of a shape are shared, outputs are named ``SHAPE_KIND``."""

    def __init__(self) -> None:
        members: dict[str, Any] = {}
        for name, (depth, width, granularity, _) in BANKS.items():
            addr = address_bits(depth)
            members |= {f"{name}_r_en": In(1), f"{name}_r_addr": In(addr), f"{name}_w_addr": In(addr),
                        f"{name}_w_en": In(width // granularity), f"{name}_w_data": In(width)}  # fmt: skip
            members |= {f"{name}_{kind}": Out(width) for kind in KINDS}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name, (depth, width, granularity, latency) in BANKS.items():
            for kind, target in KINDS.items():
                unit = Bank(width=width, depth=depth, granularity=granularity, latency=latency)
                m.submodules[f"u_{name}_{kind}"] = ElaboratedFor(unit, target)
                m.d.comb += [
                    unit.r.en.eq(getattr(self, f"{name}_r_en")), unit.r.addr.eq(getattr(self, f"{name}_r_addr")),
                    unit.w.en.eq(getattr(self, f"{name}_w_en")), unit.w.addr.eq(getattr(self, f"{name}_w_addr")),
                    unit.w.data.eq(getattr(self, f"{name}_w_data")),
                    getattr(self, f"{name}_{kind}").eq(unit.r.data),
                ]  # fmt: skip
        return m


def _bits(rng: np.random.Generator, width: int) -> int:
    return int.from_bytes(rng.bytes(-(-width // 8)), "little") & (1 << width) - 1


@cocotb.test()
async def banks_agree(dut: Any) -> None:
    """The same words in every cycle, from those they start with on: zeros."""
    rng = context().rng(1)
    seen: dict[str, set[int]] = {name: set() for name in BANKS}
    collisions = dict.fromkeys(BANKS, 0)
    for name in BANKS:
        for pin in ("r_en", "r_addr", "w_en", "w_addr", "w_data"):
            getattr(dut, f"{name}_{pin}").value = int(pin == "r_en")
    dut.rst.value = 0
    await Timer(10, "ns")
    Clock(dut.clk, 10, "ns").start()
    for _ in range(3):  # until the first words: what Amaranth's memory shows before is unknown
        await FallingEdge(dut.clk)
    for cycle in range(1500):
        for name, (depth, width, granularity, _) in BANKS.items():
            # The first and last words, and few others: they meet often.
            read, write = (int(rng.choice([0, 1, depth // 2, depth - 2, depth - 1])) for _ in range(2))
            enable = _bits(rng, width // granularity) if rng.random() < 0.6 else 0
            read_en = int(rng.random() < 0.7)
            collisions[name] += bool(read_en and enable and read == write)
            for pin, value in (
                ("r_en", read_en), ("r_addr", read), ("w_en", enable), ("w_addr", write), ("w_data", _bits(rng, width)),
            ):  # fmt: skip
                getattr(dut, f"{name}_{pin}").value = value
        await Timer(4, "ns")  # just before the edge that ends the cycle
        for name in BANKS:
            values = {kind: int(getattr(dut, f"{name}_{kind}").value) for kind in KINDS}
            assert len(set(values.values())) == 1, f"cycle {cycle}: {name}: " + ", ".join(
                f"{kind} {value:#x}" for kind, value in values.items()
            )
            seen[name].add(values["plain"])
        await FallingEdge(dut.clk)
    for name in BANKS:
        assert len(seen[name]) > 60 and collisions[name] > 30, f"{name}: {len(seen[name])} words, no test"
