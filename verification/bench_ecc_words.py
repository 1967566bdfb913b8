"""Every error of one and of two bits of a word: in a column's weight memory, read by the MXM, and changed by a value.

The words lie in a real column's bank, behind its real decoder, and the real writer changes them. Only how they get
there wrong is the bench's: it writes 72 bits as it likes through the bank's second port.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import cocotb
from amaranth.hdl import Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge, Timer

from hdl.config import Config, address_bits
from hdl.ecc import get_code
from hdl.mxm.column import Column, get_stages
from hdl.mxm.write import CHECKED, MERGE, WordWriter, change_layout, port_layout, request_layout
from verification.context import context
from verification.script import pack


class CodedColumn(wiring.Component):
    """One column and its superlane's writer. ``poke``: drives the column's second port where ``poking``."""

    def __init__(self, cfg: Config):
        self.cfg = cfg
        super().__init__({
            "en": In(1),
            "addr": In(address_bits(cfg.weight_depth)),
            "word": Out(cfg.lanes * 8),
            "corrected": Out(1),
            "uncorrectable": Out(1),
            "poking": In(1),
            "poke": In(port_layout(cfg)),
            "request": In(request_layout(cfg)),
            "change": In(change_layout(cfg)),
            "changed_corrected": Out(1),
            "changed_uncorrectable": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.column = column = Column(self.cfg)
        m.submodules.writer = writer = WordWriter(self.cfg)
        m.d.comb += [
            column.en.eq(self.en), column.addr.eq(self.addr), self.word.eq(column.word),
            self.corrected.eq(column.corrected), self.uncorrectable.eq(column.uncorrectable),
            column.port.eq(Mux(self.poking, self.poke, writer.port[0])),
            *(stored.eq(column.stored) for stored in writer.stored),
            writer.request.eq(self.request), writer.change.eq(self.change),
            self.changed_corrected.eq(writer.corrected), self.changed_uncorrectable.eq(writer.uncorrectable),
        ]  # fmt: skip
        return m


class Words:
    """Drives a :class:`CodedColumn`; words and places are those of one batch, word i at address i."""

    def __init__(self, dut: Any, cfg: Config):
        self.dut, self.cfg = dut, cfg
        self.code = get_code(8 * cfg.lanes)

    async def start(self) -> None:
        """Out of reset, with nothing asked."""
        for name in ("en", "addr", "poking", "poke", "request", "change"):
            getattr(self.dut, name).value = 0
        self.dut.rst.value = 1
        Clock(self.dut.clk, 10, "ns").start()
        await RisingEdge(self.dut.clk)
        await RisingEdge(self.dut.clk)
        await FallingEdge(self.dut.clk)
        self.dut.rst.value = 0

    async def write(self, words: list[int]) -> None:
        """All bits of them, right or wrong."""
        dut = self.dut
        for addr, word in enumerate(words):
            dut.poking.value = 1
            dut.poke.value = pack(port_layout(self.cfg), {"en": 0, "write": 1, "addr": addr, "data": word})
            await FallingEdge(dut.clk)
        dut.poking.value = 0
        await FallingEdge(dut.clk)
        await FallingEdge(dut.clk)

    async def read(self, count: int) -> list[tuple[int, bool, bool]]:
        """(word, corrected, uncorrectable) of each, one a cycle: the latency is the same for all."""
        dut, out, latency = self.dut, [], get_stages(self.cfg).pack
        for cycle in range(count + latency):
            dut.en.value = int(cycle < count)
            dut.addr.value = min(cycle, count - 1)
            await Timer(4, "ns")
            if cycle >= latency:
                out.append((int(dut.word.value), bool(dut.corrected.value), bool(dut.uncorrectable.value)))
            await FallingEdge(dut.clk)
        return out

    async def change(self, places: list[int], values: list[int]) -> list[tuple[bool, bool]]:
        """One byte of each word, at full pace; what was found (corrected, uncorrectable) in each."""
        dut, cfg, out, pace = self.dut, self.cfg, [], 2
        keep = (1 << cfg.lanes) - 1
        # A request goes to the superlane's register, a change to the same one.
        for cycle in range(pace * len(places) + CHECKED + 2):
            asked, merged = divmod(cycle, pace), divmod(cycle - MERGE, pace)
            dut.request.value = (
                pack(request_layout(cfg), {"column": 1, "addr": asked[0]})
                if asked[1] == 0 and asked[0] < len(places) else 0
            )  # fmt: skip
            here = merged[1] == 0 and 0 <= merged[0] < len(places)
            i = merged[0]
            dut.change.value = (
                pack(change_layout(cfg), {"update": 1, "column": 1, "addr": i, "keep": keep & ~(1 << places[i]),
                                          "data": values[i] << 8 * places[i]}) if here else 0
            )  # fmt: skip
            await Timer(4, "ns")
            found = divmod(cycle - MERGE - 1, pace)
            if found[1] == 0 and 0 <= found[0] < len(places):
                out.append((bool(dut.changed_corrected.value), bool(dut.changed_uncorrectable.value)))
            await FallingEdge(dut.clk)
        for _ in range(2):  # through the port's register
            await FallingEdge(dut.clk)
        return out


@cocotb.test()
async def every_single_and_double_error(dut: Any) -> None:
    """Read: the data, corrected, or uncorrectable. Changed in one byte: right again, or uncorrectable for good."""
    ctx = context()
    cfg, rng = ctx.config, ctx.rng(1)
    words = Words(dut, cfg)
    code, lanes = words.code, cfg.lanes
    await words.start()
    flips: list[tuple[int, ...]] = [(), *((i,) for i in range(code.width))]
    flips += list(itertools.combinations(range(code.width), 2))
    for begin in range(0, len(flips), cfg.weight_depth):
        batch = flips[begin : begin + cfg.weight_depth]
        data = [int.from_bytes(rng.bytes(lanes), "little") for _ in batch]
        places = [int(b) for b in rng.integers(0, lanes, len(batch))]
        values = [int(v) for v in rng.integers(0, 256, len(batch))]
        wrong = [w ^ sum(1 << b for b in bits) for w, bits in zip(code.encode(data), batch, strict=True)]
        expected = [(len(bits) == 1, len(bits) == 2) for bits in batch]
        await words.write(wrong)
        for bits, value, (got, *found), want in zip(batch, data, await words.read(len(batch)), expected, strict=True):
            assert tuple(found) == want, f"bits {bits} of {value:#x}: (corrected, uncorrectable) = {found}"
            assert len(bits) == 2 or got == value, f"bits {bits} of {value:#x}: {got:#x}"
        changes = await words.change(places, values)
        for bits, change, want in zip(batch, changes, expected, strict=True):
            assert change == want, f"bits {bits} of a word that is changed: (corrected, uncorrectable) = {change}"
        after = await words.read(len(batch))
        for bits, value, b, byte, (got, *found) in zip(batch, data, places, values, after, strict=True):
            new = value & ~(255 << 8 * b) | byte << 8 * b
            assert tuple(found) == (False, len(bits) == 2), f"bits {bits}: behind the change {found}"
            assert len(bits) == 2 or got == new, f"bits {bits}: byte {b} changed to {byte:#x}: {got:#x}, not {new:#x}"
    singles, doubles = (sum(len(bits) == n for bits in flips) for n in (1, 2))
    dut._log.info("%d single and %d double errors, each read and changed", singles, doubles)
    if path := ctx.params.get("figures"):
        figures = {"single-bit positions, read and changed: corrected": f"{singles} of {code.width}",
                   "double-bit positions, read and changed: reported": f"{doubles:,} of {doubles:,}"}  # fmt: skip
        Path(path).write_text(json.dumps(figures), encoding="utf-8")

