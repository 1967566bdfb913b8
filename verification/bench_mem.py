"""MEM slices: scale, coefficient and vector memories with their streams, each access in its exact cycle."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.config import SCALE_BITS, Config
from hdl.image import LoadBus, Space
from hdl.isa import Queue, Source
from hdl.mem import LaneWrite, TableSlice, VectorSlice, row_layout, stream_layout
from hdl.timing import get_timing
from hdl.uop import uop_layout
from verification.context import context
from verification.script import Script, pack, uop


class MemSlices(wiring.Component):
    """The three row memories side by side."""

    def __init__(self, cfg: Config):
        self.cfg = cfg
        super().__init__({
            "load": In(LoadBus(cfg)),
            **{q.name.lower(): In(uop_layout(cfg, q)) for q in (Queue.SR, Queue.CR, Queue.XR, Queue.XW)},
            "scale_write": In(LaneWrite(cfg, cfg.scale_depth)),
            "coef_write": In(LaneWrite(cfg, cfg.coef_depth)),
            "y": In(stream_layout(cfg)),
            "z": In(stream_layout(cfg)),
            "scl": Out(row_layout(cfg, SCALE_BITS)),
            "c": Out(row_layout(cfg, SCALE_BITS)),
            "x": Out(stream_layout(cfg)),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.scale = scale = TableSlice(self.cfg, Space.SCALE)
        m.submodules.coef = coef = TableSlice(self.cfg, Space.COEF)
        m.submodules.vector = vector = VectorSlice(self.cfg)
        for table, micro_op, write, out in (
            (scale, self.sr, self.scale_write, self.scl),
            (coef, self.cr, self.coef_write, self.c),
        ):
            wiring.connect(m, wiring.flipped(write), table.write)
            wiring.connect(m, wiring.flipped(self.load), table.load)
            m.d.comb += [table.uop.eq(micro_op), out.eq(table.row)]
        m.d.comb += [
            vector.xr.eq(self.xr),
            vector.xw.eq(self.xw),
            vector.y.eq(self.y),
            vector.z.eq(self.z),
            self.x.eq(vector.x),
        ]
        return m


def tables(cfg: Config, rng: np.random.Generator, steps: int = 400) -> Script:
    """Random loads, lane writes and reads of scale and coef memory, the spaces told apart."""
    s = Script()
    timing = get_timing(cfg)
    layout = row_layout(cfg, SCALE_BITS)
    spaces = {
        Space.SCALE: (Queue.SR, "s", "sr", "scale_write", "scl", cfg.scale_depth),
        Space.COEF: (Queue.CR, "c", "cr", "coef_write", "c", cfg.coef_depth),
    }
    state: dict[Space, dict[int, list[int]]] = {space: {} for space in spaces}
    # Cycle from which on a row is what it is by now; in the one before it, it is being written.
    since: dict[tuple[Space, int], int] = {}
    for t in range(1, steps):
        for space, (queue, field, port, write, out, depth) in spaces.items():
            memory = state[space]
            # Last row and a few others, so that rows meet often.
            addr = int(rng.choice([0, 1, 2, depth // 2, depth - 1]))
            if memory and rng.random() < 0.6:
                read = int(rng.choice(sorted(memory)))
                if since[space, read] <= t:
                    s.drive(t, **{port: uop(cfg, queue, **{field: read})})
                    s.expect(t + timing.mem_read, out, pack(layout, memory[read]), f"row {read} of cycle {t}")
            kind = rng.random()
            if kind < 0.2 and not s.driven(t, "load__valid"):
                row = [int(v) for v in rng.integers(0, 1 << SCALE_BITS, cfg.vlanes)]
                bits = pack(layout, row)
                s.drive(t, load__valid=1, load__space=int(space), load__addr=addr, load__data=bits)
                memory[addr] = row
                since[space, addr] = t + timing.table_write
            elif kind < 0.5 and addr in memory and not s.driven(t, "load__valid"):
                lane, value = int(rng.integers(cfg.vlanes)), int(rng.integers(1 << SCALE_BITS))
                s.drive(t, **{f"{write}__en": 1 << lane, f"{write}__addr": addr, f"{write}__data": value})
                memory[addr] = [value if i == lane else v for i, v in enumerate(memory[addr])]
                since[space, addr] = t + timing.table_write
    for space in Space:
        if space not in spaces:
            s.drive(steps, load__valid=1, load__space=int(space), load__addr=0, load__data=0)
            steps += 1
    steps += timing.table_write
    for space, (queue, field, port, _, out, _) in spaces.items():
        for i, (addr, row) in enumerate(sorted(state[space].items())):
            s.drive(steps + i, **{port: uop(cfg, queue, **{field: addr})})
            s.expect(steps + i + timing.mem_read, out, pack(layout, row), f"{space.name} {addr} in the end")
    return s


def vectors(cfg: Config, rng: np.random.Generator, steps: int = 300) -> Script:
    """XW samples its stream in its cycle; XR reads the new row from ``Timing.xw`` on, the old one before."""
    s = Script()
    timing = get_timing(cfg)
    layout = stream_layout(cfg)
    memory: dict[int, int] = {}
    pending: list[tuple[int, int, int]] = []
    for t in range(steps):
        # A row that is being written in this cycle is not to be relied on.
        written = {addr for at, addr, _ in pending if at == t + 1}
        while pending and pending[0][0] <= t:
            _, addr, bits = pending.pop(0)
            memory[addr] = bits
        rows = [pack(layout, rng.integers(-(1 << 31), 1 << 31, cfg.vlanes)) for _ in range(2)]
        s.drive(t, y=rows[0], z=rows[1])
        write = int(rng.choice([0, 1, 2, cfg.vector_depth - 1])) if rng.random() < 0.6 else None
        if write is not None:
            source = Source(int(rng.choice([int(Source.Y), int(Source.Z)])))
            s.drive(t, xw=uop(cfg, Queue.XW, source=int(source), x=write))
            pending.append((t + timing.xw, write, rows[source is Source.Z]))
        read = int(rng.choice(sorted(memory))) if memory and rng.random() < 0.8 else None
        if read is not None and read not in written:
            s.drive(t, xr=uop(cfg, Queue.XR, x=read))
            s.expect(t + timing.mem_read, "x", memory[read], f"row {read} read in cycle {t}")
    return s


SCENARIOS = (tables, vectors)


async def _play(dut: Any, index: int) -> None:
    ctx = context()
    await SCENARIOS[index](ctx.config, ctx.rng(index)).play(dut)


@cocotb.test()
async def tables_are_read_and_written(dut: Any) -> None:
    await _play(dut, 0)


@cocotb.test()
async def vectors_are_read_and_written(dut: Any) -> None:
    await _play(dut, 1)
