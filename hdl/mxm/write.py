"""Writes into weight memories with error correction: whole words with their check bits.

Rows of the host and of K make whole words. A row of V is one byte of a word in each superlane: that word is read
through the second port of its bank, corrected, changed and written back ``Timing.value_update`` cycles later. All
writes take the same way, so that they stay in order and never meet at a port.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config, address_bits
from ..ecc import Decoder, get_code
from ..mem import KvWrite
from ..primitives import delayed
from ..timing import get_timing

# Cycles after a row has reached the superlane's register in which a stage's inputs are valid.
PORT = 1
"""The column's register of its second port: the word is asked for."""
CHOOSE = PORT + 2
"""The word has come out of the bank."""
CORRECT = CHOOSE + 1
MERGE = CORRECT + Decoder.LATENCY
CHECKED = MERGE + 1
"""The new word has its check bits; a cycle later it is in the column's register."""
POISON = 0b11
"""Check bits flipped in a word made of an uncorrectable one: it stays uncorrectable."""


def request_layout(cfg: Config) -> data.StructLayout:
    """What asks for a word: ``column``: one-hot, none when nothing is asked."""
    return data.StructLayout({"column": cfg.superlane_columns, "addr": address_bits(cfg.weight_depth)})


def change_layout(cfg: Config) -> data.StructLayout:
    """A word to write, in stage MERGE: bytes of ``keep`` are those of the word asked for, the others ``data``'s."""
    return data.StructLayout({
        "update": 1,
        "column": cfg.superlane_columns,
        "addr": address_bits(cfg.weight_depth),
        "keep": cfg.lanes,
        "data": cfg.lanes * 8,
    })  # fmt: skip


def port_layout(cfg: Config) -> data.StructLayout:
    """Second port of a bank, as :class:`hdl.mem.UpdatePort` without what it reads."""
    return data.StructLayout({
        "en": 1,
        "write": 1,
        "addr": address_bits(cfg.weight_depth),
        "data": get_code(cfg.lanes * 8).width,
    })  # fmt: skip


class WordSource(wiring.Component):
    """Rows of the host and of the SXM, for all superlanes.

    ``load``, ``load_column`` (global), ``load_addr``, ``load_data``: from the host, registered; ``kv``: from the SXM.
    ``request`` belongs to the same cycle, ``change`` to MERGE cycles later; both go to the superlane's register.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        addr = address_bits(cfg.weight_depth)
        columns = (cfg.columns - 1).bit_length()
        super().__init__({
            "load": In(1),
            "load_column": In(max(1, columns)),
            "load_addr": In(addr),
            "load_data": In(cfg.lanes * 8),
            "kv": In(KvWrite(cfg)),
            "request": Out(data.ArrayLayout(request_layout(cfg), cfg.vlanes)),
            "change": Out(data.ArrayLayout(change_layout(cfg), cfg.vlanes)),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg, kv = self.cfg, self.kv
        lanes, vlanes, columns = cfg.lanes, cfg.vlanes, cfg.superlane_columns
        column_bits = (columns - 1).bit_length()

        # A word of K grows row by row, and is written as far as it has come each time: the last write has it all.
        kept = Signal(lanes * 8, reset_less=True)
        key = Signal(lanes * 8)
        for b in range(lanes):
            old = kept.word_select(b, 8) & (~kv.fresh).replicate(8)
            m.d.comb += key.word_select(b, 8).eq(Mux(kv.mask[b], kv.row[b % vlanes], old))
        with m.If(kv.superlane.any() & ~kv.value):
            m.d.sync += kept.eq(key)

        owner = self.load_column[column_bits:]
        here = Cat(owner == s for s in range(vlanes))
        which = Cat(self.load_column[:column_bits] == c for c in range(columns)) if column_bits else Cat(1)
        value = kv.value & ~self.load
        update = value & ~kv.fresh
        superlane = Mux(self.load, here, kv.superlane)
        column = Mux(self.load, which, kv.column)
        addr = Mux(self.load, self.load_addr, kv.addr)
        word = Mux(self.load, self.load_data, key)

        def late(what: Value, name: str, reset: bool = False) -> Value:
            return delayed(m, what, MERGE, reset=reset, name=name)[-1]

        superlane_late = late(superlane, "superlane", reset=True)
        value_late, update_late = late(value, "value"), late(update, "update")
        column_late, addr_late, mask_late = late(column, "column"), late(addr, "addr"), late(kv.mask, "mask")
        word_late, row_late = late(word, "word"), late(kv.row.as_value(), "row")
        for s in range(vlanes):
            request, change = self.request[s], self.change[s]
            m.d.comb += [
                request.column.eq(Mux(update & superlane[s], column, 0)),
                request.addr.eq(kv.addr),
                change.update.eq(update_late & superlane_late[s]),
                change.column.eq(Mux(superlane_late[s], column_late, 0)),
                change.addr.eq(addr_late),
            ]
            for b in range(lanes):
                mine = mask_late[b]
                byte = row_late.word_select(s, 8) & mine.replicate(8)
                m.d.comb += [
                    change.keep[b].eq(update_late & ~mine),
                    change.data.word_select(b, 8).eq(Mux(value_late, byte, word_late.word_select(b, 8))),
                ]
        return m


class WordWriter(wiring.Component):
    """One superlane's way to the second ports of its columns.

    ``request`` and ``change`` as :class:`WordSource` gives them, a cycle before their stage 0 and MERGE; ``stored``:
    what the columns' ports have read. ``port``: of each column, to be registered there. ``corrected``,
    ``uncorrectable``: of a word that was read for a change, one cycle each.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        width = get_code(cfg.lanes * 8).width
        super().__init__({
            "request": In(request_layout(cfg)),
            "change": In(change_layout(cfg)),
            "stored": In(data.ArrayLayout(width, cfg.superlane_columns)),
            "port": Out(data.ArrayLayout(port_layout(cfg), cfg.superlane_columns)),
            "corrected": Out(1),
            "uncorrectable": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg = self.cfg
        code = get_code(cfg.lanes * 8)
        # The port's register is the last of the cycles between reading and writing.
        assert get_timing(cfg).value_update == CHECKED + 1 - PORT
        request = Signal(request_layout(cfg))
        change = Signal(change_layout(cfg))
        m.d.sync += [request.eq(self.request), change.eq(self.change)]

        m.submodules.decoder = decoder = Decoder(code.data_bits)
        asked = delayed(m, request.column, CHOOSE, name="asked")[-1]
        chosen = Signal(code.width, reset_less=True)
        picked: Value = self.stored[0] & asked[0].replicate(code.width)
        for c in range(1, cfg.superlane_columns):
            picked = picked | (self.stored[c] & asked[c].replicate(code.width))
        m.d.sync += chosen.eq(picked)
        m.d.comb += decoder.word.eq(chosen)

        merged = Signal(code.data_bits)
        for b in range(cfg.lanes):
            stored = decoder.data.word_select(b, 8)
            m.d.comb += merged.word_select(b, 8).eq(Mux(change.keep[b], stored, change.data.word_select(b, 8)))
        bad = change.update & decoder.uncorrectable
        m.d.comb += [self.corrected.eq(change.update & decoder.corrected), self.uncorrectable.eq(bad)]

        # Check bits.
        word = Signal(code.width, reset_less=True)
        column = Signal(cfg.superlane_columns)
        addr = Signal.like(change.addr, reset_less=True)
        poison = Mux(bad, POISON << code.data_bits, 0)
        m.d.sync += [
            word.eq(Cat(merged, code.check(merged)) ^ poison),
            column.eq(change.column),
            addr.eq(change.addr),
        ]
        for c in range(cfg.superlane_columns):
            m.d.comb += [
                self.port[c].en.eq(request.column[c]),
                self.port[c].write.eq(column[c]),
                self.port[c].addr.eq(Mux(column[c], addr, request.addr)),
                self.port[c].data.eq(word),
            ]
        return m
