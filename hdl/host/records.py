"""Keeps the records of a run, so that the core never waits and the host can ask for them again."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import link
from ..config import Config, address_bits
from ..image import REASON_BITS
from ..mem import Bank
from .loader import Ledger


class RecordStore(wiring.Component):
    """All records of a run (at most ``context_max``), kept until the next run begins.

    Sending a record does not remove it: that is what makes a lost frame harmless. ``run`` is the sequence
    number of the run's RUN frame, ``first`` the index of the next record to send and ``ready`` how many may
    be sent (at most ``BATCH_MAX``); ``take`` (pulse) moves on by as many. ``record`` is the record at index
    ``at``, two cycles after ``at``. ``ended`` asks for a DONE frame, once every record was sent; ``told``
    (pulse) says that one is on its way. ``lost``: more records arrived than a context holds.
    """

    def __init__(self, cfg: Config):
        if cfg.context_max >= min(link.KEEP, link.EVERYTHING):
            raise ValueError(f"config {cfg.name!r}: context_max = {cfg.context_max}: an index has 16 bits")
        self.cfg = cfg
        super().__init__({
            "write": In(1),
            "token": In(cfg.token_bits),
            "sampled": In(1),
            "cycles": In(32),
            "done": In(1),
            "reason": In(REASON_BITS),
            "ledger": In(Ledger()),
            "run": Out(8),
            "first": Out(16),
            "ready": Out(range(link.BATCH_MAX + 1)),
            "take": In(1),
            "at": In(16),
            "record": Out(8 * link.RECORD_BYTES),
            "ended": Out(1),
            "told": In(1),
            "why": Out(REASON_BITS),
            "written": Out(16),
            "lost": Out(1),
        })  # fmt: skip

    def elaborate(self, platform) -> Module:
        m = Module()
        cfg = self.cfg
        token_bits = dict(link.RECORD_FIELDS)["token"]
        bits = cfg.token_bits + link.CYCLES_BITS + 1
        m.submodules.store = store = Bank(width=bits, depth=cfg.context_max, latency=1)
        wr, rd = store.w, store.r

        cycles = Signal(link.CYCLES_BITS)
        m.d.comb += cycles.eq(Mux(self.cycles > link.CYCLES_MAX, link.CYCLES_MAX, self.cycles))
        room = Signal()
        m.d.comb += [
            room.eq(self.written != cfg.context_max),
            wr.en.eq(self.write & room),
            wr.addr.eq(self.written[: address_bits(cfg.context_max)]),
            wr.data.eq(Cat(self.token, cycles, self.sampled)),
            self.ledger.written.eq(self.written),
        ]
        with m.If(self.write):
            m.d.sync += self.written.eq(self.written + room)
            with m.If(~room):
                m.d.sync += self.lost.eq(1)

        # The register behind the memory keeps its slow output off the transmitter's path.
        m.d.comb += [rd.addr.eq(self.at[: address_bits(cfg.context_max)]), rd.en.eq(1)]
        m.d.sync += self.record.eq(Cat(
            rd.data[: cfg.token_bits], *([0] * (token_bits - cfg.token_bits)), rd.data[cfg.token_bits :],
        ))  # fmt: skip

        until = Signal(16)
        end = Signal(16)
        waiting = Signal(16)
        behind = Signal()
        stale = Signal(3)
        finished = Signal()
        told = Signal()
        m.d.comb += self.ended.eq(finished & ~told & (self.first == self.written))
        # A few cycles late, so a batch may be smaller than it could be; what comes of old values is void.
        m.d.sync += [
            end.eq(Mux(until < self.written, until, self.written)),
            behind.eq(end <= self.first),
            waiting.eq(end - self.first),
            stale.eq(stale >> 1),
            self.ready.eq(Mux(behind | stale[0], 0, Mux(waiting > link.BATCH_MAX, link.BATCH_MAX, waiting))),
        ]
        with m.If(self.take):
            m.d.sync += [self.first.eq(self.first + self.ready), self.ready.eq(0), stale.eq(0b111)]
        with m.If(self.done):
            m.d.sync += [finished.eq(1), self.why.eq(self.reason)]
        with m.If(self.told):
            m.d.sync += told.eq(1)
        with m.If(self.ledger.grant):
            m.d.sync += [until.eq(self.ledger.until), self.ready.eq(0), stale.eq(0b111)]
            with m.If(self.ledger.rewind):
                m.d.sync += [self.first.eq(self.ledger.start), told.eq(0)]
        with m.If(self.ledger.begin):
            m.d.sync += [
                self.run.eq(self.ledger.seq), until.eq(self.ledger.until), self.first.eq(0), self.ready.eq(0),
                stale.eq(0b111), self.written.eq(0), finished.eq(0), told.eq(0), self.lost.eq(0),
            ]  # fmt: skip
        return m
