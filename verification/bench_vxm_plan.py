"""Plans for the benches of the vector units: what to drive and what to see, cycle by cycle.

Whatever a plan leaves open is random: operands stand on their ports for exactly one cycle with garbage before
and after, so a unit that samples or answers a cycle early or late gives wrong bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from amaranth import Shape
from amaranth.lib import data, wiring
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge, Timer

from hdl.config import Config
from hdl.isa import Queue
from hdl.uop import uop_layout


def port_widths(component: wiring.Component) -> dict[str, int]:
    """Bits of each input port, under the names that the Verilog export gives them."""
    widths: dict[str, int] = {}

    def walk(members: Any, prefix: str) -> None:
        for name, member in members.items():
            if not member.is_port:
                walk(member.signature.members, f"{prefix}{name}__")
            elif member.flow == wiring.In:
                widths[prefix + name] = Shape.cast(member.shape).width

    walk(component.signature.members, "")
    return widths


def pack(layout: data.StructLayout, values: Mapping[str, int]) -> int:
    """Bits of a struct; unlike ``const`` it refuses a value that does not fit."""
    word = 0
    for name, value in values.items():
        field = layout[name]
        width = Shape.cast(field.shape).width
        if not -(1 << width - 1) <= int(value) < 1 << width:
            raise ValueError(f"{name} = {value} does not fit {width} bits")
        word |= (int(value) & (1 << width) - 1) << field.offset
    return word


def micro_op(cfg: Config, queue: Queue, **values: int) -> int:
    """A valid micro-op as bits; fields not named are zero."""
    return pack(uop_layout(cfg, queue), {"valid": 1, **values})


def row(values: Iterable[int], bits: int) -> int:
    """Lanes as one word, lane 0 lowest."""
    word = 0
    for i, value in enumerate(values):
        word |= (int(value) & (1 << bits) - 1) << i * bits
    return word


def corner_ints(rng: np.random.Generator, bits: int, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Signed integers of up to ``bits`` bits: all magnitudes alike, and often a limit or zero."""
    lo, hi = -(1 << bits - 1), (1 << bits - 1) - 1
    size = rng.integers(1, bits, count)
    values = rng.integers(lo, hi, count, endpoint=True) >> size
    corners = rng.choice(np.array([lo, hi, 0, -1, 1, lo + 1]), count)
    wide = rng.integers(lo, hi, count, endpoint=True)
    kind = rng.random(count)
    return np.where(kind < 0.2, corners, np.where(kind < 0.5, wide, values))


@dataclasses.dataclass
class Plan:
    """Inputs and expected outputs of a run. ``quiet``: inputs that are zero, not random, when left open."""

    widths: dict[str, int]
    rng: np.random.Generator
    quiet: tuple[str, ...] = ()
    micro_ops: tuple[str, ...] = ("uop",)
    """Ports whose bit 0 is ``valid``: random otherwise."""

    def __post_init__(self) -> None:
        self._drive: dict[int, dict[str, int]] = {}
        self._expect: dict[int, list[tuple[str, int, int, int, str]]] = {}
        self._holds: dict[str, list[tuple[int, int]]] = {}

    def drive(self, cycle: int, **ports: int) -> None:
        """Values of ports in one cycle."""
        slot = self._drive.setdefault(cycle, {})
        for port, value in ports.items():
            if port in slot:
                raise ValueError(f"cycle {cycle}: {port} is driven twice")
            if value < 0 or value >> self.widths[port]:
                raise ValueError(f"cycle {cycle}: {port} = {value} does not fit {self.widths[port]} bits")
            slot[port] = value

    def hold(self, cycle: int, **ports: int) -> None:
        """Values of ports from a cycle on."""
        for port, value in ports.items():
            self._holds.setdefault(port, []).append((cycle, value))

    def expect(self, cycle: int, port: str, value: int, *, bits: int, lane: int = 0, what: str = "") -> None:
        """``bits`` bits of an output, at ``lane`` times ``bits``, in one cycle."""
        entry = (port, lane * bits, bits, int(value) & (1 << bits) - 1, what)
        self._expect.setdefault(cycle, []).append(entry)

    def expect_row(self, cycle: int, port: str, values: Iterable[int], bits: int, what: str = "") -> None:
        for lane, value in enumerate(values):
            self.expect(cycle, port, int(value), bits=bits, lane=lane, what=what)

    def expect_steps(self, port: str, steps: list[tuple[int, int]], end: int, *, bits: int, lane: int = 0,
                     what: str = "") -> None:  # fmt: skip
        """A register's whole history: (cycle, value) changes in order; nothing is asked before the first."""
        for i, (cycle, value) in enumerate(steps):
            until = steps[i + 1][0] if i + 1 < len(steps) else end
            for at in range(cycle, until):
                self.expect(at, port, value, bits=bits, lane=lane, what=what)

    @property
    def end(self) -> int:
        return max([*self._drive, *self._expect]) + 1

    async def run(self, dut: Any) -> int:
        """Plays the plan; returns the number of comparisons."""
        for port in self.widths:
            getattr(dut, port).value = 0
        dut.rst.value = 1
        Clock(dut.clk, 10, "ns").start()
        for _ in range(2):
            await RisingEdge(dut.clk)
        compared = 0
        nbytes = {port: -(-bits // 8) for port, bits in self.widths.items()}
        for cycle in range(self.end):
            await FallingEdge(dut.clk)
            dut.rst.value = 0
            given = self._drive.get(cycle, {})
            for port, width in self.widths.items():
                if port in given:
                    value = given[port]
                elif port in self._holds:
                    value = max((h for h in self._holds[port] if h[0] <= cycle), default=(0, 0))[1]
                elif port in self.quiet:
                    value = 0
                else:
                    value = int.from_bytes(self.rng.bytes(nbytes[port]), "little") & (1 << width) - 1
                    if port in self.micro_ops:
                        value &= ~1
                getattr(dut, port).value = value
            await Timer(4, "ns")
            for port, low, bits, value, what in self._expect.get(cycle, ()):
                seen = getattr(dut, port).value
                text = str(seen)
                part = text[len(text) - low - bits : len(text) - low]
                assert part == format(value, f"0{bits}b"), (
                    f"cycle {cycle}: {port}[{low}:{low + bits}] = {part}, expected {value:0{bits}b} ({what})"
                )
                compared += 1
        return compared
