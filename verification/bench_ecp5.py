"""ECP5 block RAMs and multipliers: primitive, twin and the plain component in lockstep, under random traffic."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import cocotb
import numpy as np
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge, Timer

from fpga.ecp5 import Ecp5, tiling
from fpga.netlist import Primitives
from hdl.config import address_bits
from hdl.mem import Bank, DualBank, Rom
from hdl.primitives import DSP_BITS, Multiplier
from verification.context import context
from verification.elaborated import ElaboratedFor

KINDS: dict[str, object] = {"plain": None, "twin": Ecp5(), "primitive": Primitives()}
"""Versions, and the platform that each is elaborated for."""

BANKS = {
    f"bank_{depth}x{width}_{granularity}_{latency}": (depth, width, granularity, latency)
    for depth, width, granularity, latency in (
        (2560, 32, 16, 2),
        (2560, 16, 8, 2),
        (2048, 16, 16, 2),
        (512, 128, 128, 2),
        (512, 84, 84, 2),
        (512, 36, 36, 1),
        (1024, 8, 8, 1),
        (2048, 9, 9, 2),
        (1536, 24, 24, 1),  # two slices behind one register
    )
}
"""The board's memories, some of them narrower: tests/test_ecp5.py divides them all."""
DUALS = {
    f"dual_{depth}x{width}_{full}": (depth, width, full)
    for depth, width, full in (
        (2560, 36, 2048),  # its last slice is written through the second port and not read
        (3072, 18, 3072),
        (1024, 18, 1024),
    )
}
"""Banks with two ports: words, bits, words that the second port reads."""
ROMS = {
    "rom_512x36_a": (512, 36, "a", 2),
    "rom_512x36_a_direct": (512, 36, "a", 1),
    "rom_1024x36_ab": (1024, 36, "ab", 2),
}
"""The shapes of the function tables: words, bits, ports, latency."""
MULTIPLIERS = {
    f"mul_{stages}_{kind}": (stages, kind[0] == "s", kind[1] == "s")
    for stages, kinds in ((1, ("uu", "ss")), (2, ("us", "su")), (3, ("ss", "su")))
    for kind in kinds
}
"""Each register with each kind of sign; not each with each: an instance has 350 pins, all visible to cocotb."""


def rom_words(name: str) -> list[int]:
    """Random contents, the same in every process."""
    depth, width, *_ = ROMS[name]
    rng = np.random.default_rng([36, depth])
    return [int(v) & (1 << width) - 1 for v in rng.integers(0, 1 << 62, depth)]


class HardBlocks(wiring.Component):
    """Every shape in every kind; inputs of a shape are shared, outputs are named ``SHAPE_KIND``."""

    def __init__(self) -> None:
        members: dict[str, Any] = {"a": In(DSP_BITS), "b": In(DSP_BITS)}
        for name, (depth, width, granularity, _) in BANKS.items():
            addr = address_bits(depth)
            members |= {f"{name}_r_en": In(1), f"{name}_r_addr": In(addr), f"{name}_w_addr": In(addr),
                        f"{name}_w_en": In(width // granularity), f"{name}_w_data": In(width)}  # fmt: skip
            members |= {f"{name}_{kind}": Out(width) for kind in KINDS}
        for name, (depth, width, _) in DUALS.items():
            addr = address_bits(depth)
            members |= {f"{name}_r_en": In(1), f"{name}_r_addr": In(addr), f"{name}_u_en": In(1),
                        f"{name}_u_write": In(1), f"{name}_u_addr": In(addr), f"{name}_u_data": In(width)}  # fmt: skip
            members |= {f"{name}_{port}_{kind}": Out(width) for kind in KINDS for port in ("r", "u")}
        for name, (depth, width, ports, _) in ROMS.items():
            for port in ports:
                members |= {f"{name}_{port}_en": In(1), f"{name}_{port}_addr": In(address_bits(depth))}
                members |= {f"{name}_{port}_{kind}": Out(width) for kind in KINDS}
        members |= {f"{name}_{kind}": Out(2 * DSP_BITS) for name in MULTIPLIERS for kind in KINDS}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()

        def add(name: str, make: Callable[[], Any]) -> list[tuple[str, Any]]:
            """One of each kind, and their names."""
            made = {f"{name}_{kind}": make() for kind in KINDS}
            for (title, unit), target in zip(made.items(), KINDS.values(), strict=True):
                m.submodules[f"u_{title}"] = ElaboratedFor(unit, target)
            return list(zip(KINDS, made.values(), strict=True))

        for name, (depth, width, granularity, latency) in BANKS.items():

            def bank(d: int = depth, w: int = width, g: int = granularity, n: int = latency) -> Bank:
                return Bank(width=w, depth=d, granularity=g, latency=n)

            for kind, unit in add(name, bank):
                m.d.comb += [
                    unit.r.en.eq(getattr(self, f"{name}_r_en")), unit.r.addr.eq(getattr(self, f"{name}_r_addr")),
                    unit.w.en.eq(getattr(self, f"{name}_w_en")), unit.w.addr.eq(getattr(self, f"{name}_w_addr")),
                    unit.w.data.eq(getattr(self, f"{name}_w_data")),
                    getattr(self, f"{name}_{kind}").eq(unit.r.data),
                ]  # fmt: skip
        for name, (depth, width, full) in DUALS.items():

            def dual(d: int = depth, w: int = width, f: int = full) -> DualBank:
                return DualBank(width=w, depth=d, full=f)

            for kind, unit in add(name, dual):
                m.d.comb += [
                    unit.r.en.eq(getattr(self, f"{name}_r_en")), unit.r.addr.eq(getattr(self, f"{name}_r_addr")),
                    *(getattr(unit.u, pin).eq(getattr(self, f"{name}_u_{pin}"))
                      for pin in ("en", "write", "addr", "data")),
                    getattr(self, f"{name}_r_{kind}").eq(unit.r.data), getattr(self, f"{name}_u_{kind}").eq(unit.u.q),
                ]  # fmt: skip
        for name, (_, width, ports, latency) in ROMS.items():

            def rom(n: str = name, w: int = width, p: str = ports, c: int = latency) -> Rom:
                return Rom(width=w, init=rom_words(n), ports=p, latency=c)

            for kind, unit in add(name, rom):
                for port in ports:
                    own = getattr(unit, port)
                    m.d.comb += [
                        own.en.eq(getattr(self, f"{name}_{port}_en")),
                        own.addr.eq(getattr(self, f"{name}_{port}_addr")),
                        getattr(self, f"{name}_{port}_{kind}").eq(own.data),
                    ]
        for name, (stages, signed_a, signed_b) in MULTIPLIERS.items():

            def mul(s: int = stages, a: bool = signed_a, b: bool = signed_b) -> Multiplier:
                return Multiplier(stages=s, signed_a=a, signed_b=b)

            for kind, unit in add(name, mul):
                m.d.comb += [unit.a.eq(self.a), unit.b.eq(self.b), getattr(self, f"{name}_{kind}").eq(unit.p)]
        return m


async def _start(dut: Any) -> None:
    for name, member in HardBlocks().signature.members.items():
        if member.flow == In:
            getattr(dut, name).value = 0
    dut.rst.value = 1
    await Timer(10, "ns")
    Clock(dut.clk, 10, "ns").start()
    await RisingEdge(dut.clk)
    await RisingEdge(dut.clk)
    await FallingEdge(dut.clk)
    dut.rst.value = 0


async def _settle() -> None:
    await Timer(4, "ns")  # just before the edge that ends the cycle


def _same(dut: Any, name: str, cycle: int) -> int:
    """The value on which all kinds agree."""
    values = {kind: getattr(dut, f"{name}_{kind}").value for kind in KINDS}
    for kind, value in values.items():
        assert value.is_resolvable, f"cycle {cycle}: {name}_{kind} = {value}"
    numbers = {kind: int(value) for kind, value in values.items()}
    assert len(set(numbers.values())) == 1, f"cycle {cycle}: {name}: " + ", ".join(
        f"{kind} {number:#x}" for kind, number in numbers.items()
    )
    return numbers["plain"]


def _bits(rng: np.random.Generator, width: int) -> int:
    return int.from_bytes(rng.bytes(-(-width // 8)), "little") & (1 << width) - 1


def _places(rng: np.random.Generator, depth: int, count: int = 12, full: int = 0) -> list[int]:
    """Addresses that meet often: the first and last of each slice, and random ones."""
    edges, at = {0, depth - 1}, 0
    for mode in tiling(depth, 8, full):
        at += mode.depth
        edges |= {a for a in (at - 1, at) if a < depth}
    return sorted(edges | {int(a) for a in rng.integers(0, depth, count)})


@cocotb.test()
async def banks_and_roms_agree(dut: Any) -> None:
    """Reads with gaps, writes of single parts; a word is never read while it is written."""
    rng = context().rng(1)
    places = {name: _places(rng, depth) for name, (depth, *_) in BANKS.items()}
    ports = [(name, port, depth) for name, (depth, _, ports, _) in ROMS.items() for port in ports]
    seen: dict[str, set[int]] = {name: set() for name in BANKS}
    await _start(dut)
    for name in BANKS:
        getattr(dut, f"{name}_r_en").value = 1
    for name, port, _ in ports:
        getattr(dut, f"{name}_{port}_en").value = 1
    for _ in range(2):  # until the first words: a memory's output is unknown before
        await FallingEdge(dut.clk)
    for cycle in range(700):
        for name, (_, width, granularity, _) in BANKS.items():
            read_en, read = int(rng.random() < 0.7), int(rng.choice(places[name]))
            write = int(rng.choice(places[name]))
            parts = width // granularity
            enable = _bits(rng, parts) if rng.random() < 0.6 else 0
            if read_en and read == write:
                enable = 0
            getattr(dut, f"{name}_r_en").value = read_en
            getattr(dut, f"{name}_r_addr").value = read
            getattr(dut, f"{name}_w_en").value = enable
            getattr(dut, f"{name}_w_addr").value = write
            getattr(dut, f"{name}_w_data").value = _bits(rng, width)
        for name, port, depth in ports:
            getattr(dut, f"{name}_{port}_en").value = int(rng.random() < 0.7)
            getattr(dut, f"{name}_{port}_addr").value = int(rng.integers(depth))
        await _settle()
        for name in BANKS:
            seen[name].add(_same(dut, name, cycle))
        for name, port, _ in ports:
            _same(dut, f"{name}_{port}", cycle)
        await FallingEdge(dut.clk)
    for name, values in seen.items():
        assert len(values) > 60, f"{name}: {len(values)} different words are no test"


@cocotb.test()
async def two_ports_agree(dut: Any) -> None:
    """Reads with gaps through the one, writes and reads through the other, also in the cycle before and behind each
    other; never a word that the other port writes. What the second port shows two cycles behind a read is compared."""
    rng = context().rng(4)
    places = {name: _places(rng, depth, full=full) for name, (depth, _, full) in DUALS.items()}
    words: dict[str, dict[int, int]] = {name: {} for name in DUALS}
    expected: dict[str, list[int | None]] = {name: [None, None] for name in DUALS}
    seen: dict[str, set[int]] = {name: set() for name in DUALS}
    await _start(dut)
    for name in DUALS:
        getattr(dut, f"{name}_r_en").value = 1
    for _ in range(2):
        await FallingEdge(dut.clk)
    for cycle in range(1200):
        for name, (_, width, full) in DUALS.items():
            read_en, read = int(rng.random() < 0.7), int(rng.choice(places[name]))
            at, data, kind = int(rng.choice(places[name])), _bits(rng, width), rng.random()
            write, en = int(kind < 0.4 and not (read_en and at == read)), int(kind > 0.6)
            for pin, value in (
                ("r_en", read_en), ("r_addr", read), ("u_en", en), ("u_write", write), ("u_addr", at), ("u_data", data),
            ):  # fmt: skip
                getattr(dut, f"{name}_{pin}").value = value
            expected[name].append(words[name].get(at, 0) if en and at < full else None)
            if write:
                words[name][at] = data
        await _settle()
        for name in DUALS:
            seen[name].add(_same(dut, f"{name}_r", cycle))
            want = expected[name][cycle]
            if want is not None:
                got = _same(dut, f"{name}_u", cycle)
                assert got == want, f"cycle {cycle}: {name}: {got:#x}, {want:#x} was written"
        await FallingEdge(dut.clk)
    for name, values in seen.items():
        assert len(values) > 60, f"{name}: {len(values)} different words are no test"


@cocotb.test()
async def a_rom_holds_its_words(dut: Any) -> None:
    """Every address through every port, against the list it was made of."""
    ports = [(name, port, latency) for name, (_, _, ports, latency) in ROMS.items() for port in ports]
    words = {name: rom_words(name) for name in ROMS}
    await _start(dut)
    for cycle in range(1024 + 2):
        for i, (name, port, _) in enumerate(ports):
            getattr(dut, f"{name}_{port}_en").value = 1
            getattr(dut, f"{name}_{port}_addr").value = (cycle + i) % len(words[name])
        await _settle()
        if cycle >= 2:
            for i, (name, port, latency) in enumerate(ports):
                got = _same(dut, f"{name}_{port}", cycle)
                assert got == words[name][(cycle - latency + i) % len(words[name])], f"{name}_{port}, cycle {cycle}"
        await FallingEdge(dut.clk)


@cocotb.test()
async def a_word_being_written_is_unknown(dut: Any) -> None:
    """The primitive's model does not give what nothing may rely on, in each of its widths."""
    rng = context().rng(3)
    names = [name for name, (*_, latency) in BANKS.items() if latency == 1 or "2048x9" in name]
    await _start(dut)
    for name in names:
        _, width, granularity, latency = BANKS[name]
        for step in range(2 + latency):
            getattr(dut, f"{name}_w_en").value = int(step < 2) * ((1 << width // granularity) - 1)
            getattr(dut, f"{name}_w_addr").value = 5
            getattr(dut, f"{name}_w_data").value = _bits(rng, width)
            getattr(dut, f"{name}_r_en").value = int(step == 1)
            getattr(dut, f"{name}_r_addr").value = 5
            await FallingEdge(dut.clk)
        plain, primitive = getattr(dut, f"{name}_plain").value, getattr(dut, f"{name}_primitive").value
        if primitive.is_resolvable:
            assert int(primitive) == ~int(plain) & (1 << width) - 1, f"{name}: {primitive}, {plain} before"


@cocotb.test()
async def products_agree(dut: Any) -> None:
    """All extremes, then random operands, against Python's product."""
    rng = context().rng(2)
    top = 1 << DSP_BITS
    extremes = [0, 1, 2, top // 2 - 1, top // 2, top // 2 + 1, top - 2, top - 1]
    operands = list(itertools.product(extremes, extremes))
    operands += [(int(a), int(b)) for a, b in rng.integers(0, top, (300, 2))]
    await _start(dut)
    for cycle in range(len(operands) + 3):
        dut.a.value, dut.b.value = operands[min(cycle, len(operands) - 1)]
        await _settle()
        for name, (stages, signed_a, signed_b) in MULTIPLIERS.items():
            got = _same(dut, name, cycle)
            if 0 <= cycle - stages < len(operands):
                a, b = operands[cycle - stages]
                a -= top if signed_a and a >= top // 2 else 0
                b -= top if signed_b and b >= top // 2 else 0
                assert got == a * b % (top * top), f"cycle {cycle}: {name}: {a} * {b} = {got:#x}"
        await FallingEdge(dut.clk)
