"""Proofs of the addresses that the quantisers write to: activation words, K rows, V columns, their exponents."""

from __future__ import annotations

import dataclasses

from amaranth.hdl import Cat, Module, Mux, Signal

from hdl.sxm import COLLECT, QUANTISE, ActQuantiser, KvQuantiser

from .harness import SMALL, Harness

WIDER = dataclasses.replace(SMALL, columns=4, weight_depth=16, head_max=16)
"""Two columns in a superlane and vectors of more than one word."""


class KvPlaces(Harness):
    """Each row of a K or V vector is written once, in its cycle, to its byte lanes, columns and address; its exponent
    once, with the first row. Vectors follow each other with any pauses between rows; one kind and shape in a run."""

    def build(self, m: Module) -> None:
        cfg = WIDER
        m.submodules.unit = unit = KvQuantiser(cfg)
        value, length = self.fixed("value"), self.fixed("length", len(unit.i1))
        dst, vset, srow = (self.fixed(n, len(getattr(unit, n))) for n in ("dst", "vset", "srow"))
        slot, fresh = self.fixed("slot", len(unit.slot)), self.fixed("fresh")
        valid = self.free("valid")
        row = Signal.like(unit.i1)
        last = Signal()
        self.assume(length != 0)
        m.d.comb += [
            last.eq(valid & (row == length - 1)),
            unit.valid.eq(valid), unit.value.eq(value), unit.i1.eq(row), unit.i1_first.eq(row == 0),
            unit.i1_last.eq(row == length - 1), unit.dst.eq(dst), unit.vset.eq(vset), unit.srow.eq(srow),
            unit.slot.eq(slot), unit.fresh.eq(fresh),
        ]  # fmt: skip
        with m.If(valid):
            m.d.sync += row.eq(Mux(last, 0, row + 1))
        # The last row is in stage COLLECT now; the first one leaves this many cycles later.
        first_out = self.was(last, QUANTISE + 1 - COLLECT, "last")
        leaving, at = Signal(), Signal.like(row)
        index = Signal.like(row)
        m.d.comb += index.eq(Mux(first_out, 0, at))
        m.d.sync += [
            at.eq(index + 1),
            leaving.eq((first_out | leaving) & (index != length - 1)),
        ]
        out = first_out | leaving
        columns, lanes, words = cfg.superlane_columns, cfg.vlanes, cfg.word_rows
        lane, column, byte = slot % lanes, (slot // lanes) % columns, slot % cfg.lanes
        kv = unit.kv
        self.holds((kv.superlane != 0) == out)
        self.holds(~out | (kv.value == value))
        self.holds(~out | (kv.superlane == Mux(value, (1 << lanes) - 1, 1 << lane)))
        self.holds(~out | (kv.column == 1 << Mux(value, index % columns, column)))
        key_bytes = Cat(index % words == b // lanes for b in range(cfg.lanes))
        self.holds(~out | (kv.mask == Mux(value, 1 << byte, key_bytes)))
        self.holds(~out | (kv.fresh == Mux(value, fresh, index % words == 0)))
        place = dst + Mux(value, (index // columns) * vset, index // words)
        self.holds(~out | (kv.addr == place[: len(kv.addr)]))
        for port, mine in ((unit.k_scale, ~value), (unit.v_scale, value)):
            begins = first_out & mine
            self.holds(port.en == Mux(begins, 1 << lane, 0))
            self.holds(~begins | (port.addr == srow[: len(port.addr)]))
        self.reached(value & out & (index == 3) & (vset == 2))
        self.reached(~value & out & (index == 5))
        self.reached(first_out & self.was(out))


class ActPlaces(Harness):
    """An activation word is written when a block is whole or the instruction over, at dst + the word of its row."""

    def build(self, m: Module) -> None:
        cfg = SMALL
        m.submodules.unit = unit = ActQuantiser(cfg)
        self.drive_free(unit.valid, unit.i1, unit.i1_last, unit.dst, unit.first, unit.sumsq)
        late = QUANTISE - COLLECT
        whole = unit.valid & ((unit.i1 % cfg.block_rows == cfg.block_rows - 1) | unit.i1_last)
        place = (unit.dst + unit.i1 // cfg.word_rows)[: len(unit.write.addr)]
        en = self.was(whole, late, "whole")
        self.holds(unit.write.en == en)
        self.holds(~en | (unit.write.addr == self.was(place, late, "place")))
        self.holds(unit.block_valid == self.was(whole & unit.sumsq, late, "counts"))
        self.reached(en & (unit.write.addr == 3))
