"""Makes the frames that go to the host: answers first, then token records, then the end of a run."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.crc import catalog
from amaranth.lib.wiring import In, Out

from .. import link
from ..config import Config
from ..image import REASON_BITS
from ..link import Reply
from .cobs import PLAIN
from .counters import TALLY
from .loader import Answer


class Transmitter(wiring.Component):
    """Frames, a byte a cycle, checksum included.

    One answer can wait; a later one takes its place. Nothing is lost by that: an ACK also stands for all
    before it, an ERROR says in ``last`` how far the device got, and who waits for another answer asks
    again. So the receiving side never waits for a host that does not read.

    Records: see :class:`hdl.host.records.RecordStore`. A TOKENS frame takes what is there when it begins.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        super().__init__({
            "answer": In(Answer()),
            "last": In(8),
            "fault": In(4),
            "busy": In(1),
            "tally": In(TALLY),
            "run": In(8),
            "first": In(16),
            "ready": In(range(link.BATCH_MAX + 1)),
            "take": Out(1),
            "at": Out(16),
            "record": In(8 * link.RECORD_BYTES),
            "ended": In(1),
            "told": Out(1),
            "why": In(REASON_BITS),
            "written": In(16),
            "lost": In(1),
            "image": In(64),
            "o": Out(stream.Signature(PLAIN)),
        })  # fmt: skip

    def _choose(
        self, m: Module, chosen: Signal, number: Signal, records: Signal, waiting: Signal, kind: Signal, seq: Signal
    ) -> None:
        """In state IDLE: type, number and records of the frame to compose next. An answer comes before tokens, and
        these before the end of their run."""
        with m.If(waiting):
            m.d.sync += [waiting.eq(0), chosen.eq(kind), number.eq(seq)]
            m.next = "COMPOSE"
        with m.Elif(self.ready != 0):
            m.d.comb += self.take.eq(1)
            m.d.sync += [chosen.eq(Reply.TOKENS.value), number.eq(self.run), records.eq(self.ready)]
            m.next = "COMPOSE"
        with m.Elif(self.ended):
            m.d.comb += self.told.eq(1)
            m.d.sync += [chosen.eq(Reply.DONE.value), number.eq(self.run)]
            m.next = "COMPOSE"

    def elaborate(self, platform) -> Module:
        m = Module()
        cfg = self.cfg
        m.submodules.crc = crc = catalog.CRC32_ISO_HDLC().create()

        waiting = Signal()
        kind = Signal(8)
        seq = Signal(8)
        fault = Signal(4)

        first = Signal(16)
        """Index of the first record of a TOKENS frame: the store moves on when the frame is chosen."""
        values = {
            Reply.ACK: {},
            Reply.ERROR: {"fault": fault, "last": self.last},
            Reply.INFO: {
                "magic": link.MAGIC, "version": link.VERSION, "config": link.config_word(cfg),
                "contract": link.contract_word(cfg), "image": self.image,
                "lanes": cfg.lanes, "columns": cfg.columns, "vlanes": cfg.vlanes,
                "context_max": cfg.context_max, "vocab_max": cfg.vocab_max, "topk_max": cfg.topk_max,
            },
            Reply.TOKENS: {"first": first},
            Reply.DONE: {"reason": self.why, "records": self.written},
            Reply.STATUS: {
                "busy": Cat(self.busy, self.lost), "fault": self.fault, "last": self.last,
                "frames_ok": self.tally.frames_ok, "frames_bad": self.tally.frames_bad,
                "tokens": self.tally.tokens, "cycles": self.tally.cycles, "records": self.written,
                "corrected": self.tally.corrected, "uncorrectable": self.tally.uncorrectable,
            },
        }  # fmt: skip

        def frame(reply: Reply, number):
            """Type, sequence number and fixed payload, first byte lowest."""
            parts = [Const(reply.value, 8), number]
            for name, count in link.FIELDS[reply]:
                value = values[reply][name]
                if isinstance(value, int):
                    if not 0 <= value < 1 << 8 * count:
                        raise ValueError(f"config {cfg.name!r}: {name} = {value}: INFO has {count} bytes")
                    parts.append(Const(value, 8 * count))
                else:
                    field = Signal(8 * count, name=f"{reply.name}_{name}")
                    m.d.comb += field.eq(value)
                    parts.append(field)
            return Cat(*parts)

        length_max = 2 + max(link.size(r) for r in Reply)
        out = Signal(8 * length_max)
        """What is being sent, lowest byte first; taken as a whole, so that counters do not tear."""
        left = Signal(range(length_max + 1))
        records = Signal(range(link.BATCH_MAX + 1))
        begin = Signal()
        chosen = Signal(8)
        number = Signal(8)
        """Type and sequence number of the frame to compose."""

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += begin.eq(1)
                m.d.sync += [self.at.eq(self.first), first.eq(self.first), records.eq(0)]
                self._choose(m, chosen, number, records, waiting, kind, seq)

            with m.State("COMPOSE"):
                m.d.comb += begin.eq(1)
                with m.Switch(chosen):
                    for reply in Reply:
                        with m.Case(reply.value):
                            m.d.sync += [out.eq(frame(reply, number)), left.eq(2 + link.size(reply))]
                m.next = "BYTES"

            with m.State("BYTES"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.data.eq(out[:8])]
                with m.If(self.o.ready):
                    m.d.sync += [out.eq(out[8:]), left.eq(left - 1)]
                    with m.If(left == 1):
                        with m.If(records != 0):
                            # Its address was given when the one before it was begun: it is here by now.
                            m.d.sync += [out.eq(self.record), left.eq(link.RECORD_BYTES),
                                         records.eq(records - 1), self.at.eq(self.at + 1)]  # fmt: skip
                        with m.Else():
                            m.d.sync += left.eq(link.CRC_BYTES)
                            m.next = "FIRST CRC"

            with m.State("FIRST CRC"):
                # The checksum is complete one cycle after its last byte, that is now.
                m.d.comb += [self.o.valid.eq(1), self.o.payload.data.eq(crc.crc[:8])]
                with m.If(self.o.ready):
                    m.d.sync += [out.eq(crc.crc[8:]), left.eq(link.CRC_BYTES - 1)]
                    m.next = "CRC"

            with m.State("CRC"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.data.eq(out[:8]),
                             self.o.payload.last.eq(left == 1)]  # fmt: skip
                with m.If(self.o.ready):
                    m.d.sync += [out.eq(out[8:]), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.next = "IDLE"

        m.d.comb += [
            crc.start.eq(begin),
            crc.data.eq(out[:8]),
            crc.valid.eq(self.o.valid & self.o.ready & ~begin),
        ]
        # In the CRC states the register runs on, unused, after its value was taken.
        with m.If(self.answer.valid):
            m.d.sync += [waiting.eq(1), kind.eq(self.answer.type), seq.eq(self.answer.seq),
                         fault.eq(self.answer.fault)]  # fmt: skip
        return m
