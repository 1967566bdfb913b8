"""The transmitter with few LUTs: a frame's bytes are picked one at a time (``Config.byte_frames``)."""

from __future__ import annotations

from amaranth import Array, Cat, Const, Module, Signal, Value
from amaranth.lib.crc import catalog

from .. import link
from ..link import Reply
from .transmitter import Transmitter


def _bytes(value: Value, count: int) -> list[Value]:
    """The lowest bytes of a value, lowest first."""
    wide = Cat(value, Const(0, 8 * count))
    return [wide[8 * i : 8 * i + 8] for i in range(count)]


class ByteTransmitter(Transmitter):
    """The same frames as :class:`Transmitter`'s, in as many cycles.

    What a frame tells is kept from the cycle in which it is composed, so that counters do not tear.
    """

    def elaborate(self, platform) -> Module:
        m = Module()
        cfg = self.cfg
        m.submodules.crc = crc = catalog.CRC32_ISO_HDLC().create()

        waiting = Signal()
        kind, seq, fault = Signal(8), Signal(8), Signal(4)
        first = Signal(16)
        keep = Signal()

        def kept(value: Value, name: str) -> Signal:
            """A value as of the cycle in which the frame is composed."""
            copy = Signal.like(value, name=f"kept_{name}", reset_less=True)
            with m.If(keep):
                m.d.sync += copy.eq(value)
            return copy

        last, written = kept(self.last, "last"), kept(self.written, "written")
        tally = kept(self.tally.as_value(), "tally")
        counts, at = {}, 0
        for name, field in self.tally.shape():
            counts[name] = tally[at : at + field.width]
            at += field.width
        values = {
            Reply.ACK: {},
            Reply.ERROR: {"fault": kept(fault, "refused"), "last": last},
            Reply.INFO: {
                "magic": link.MAGIC, "version": link.VERSION, "config": link.config_word(cfg),
                "contract": link.contract_word(cfg), "image": kept(self.image, "image"),
                "lanes": cfg.lanes, "columns": cfg.columns, "vlanes": cfg.vlanes,
                "context_max": cfg.context_max, "vocab_max": cfg.vocab_max, "topk_max": cfg.topk_max,
            },
            Reply.TOKENS: {"first": first},
            Reply.DONE: {"reason": kept(self.why, "why"), "records": written},
            Reply.STATUS: {
                "busy": kept(Cat(self.busy, self.lost), "busy"), "fault": kept(self.fault, "fault"), "last": last,
                "records": written, **counts,
            },
        }  # fmt: skip

        chosen, number = Signal(8), Signal(8)
        """Type and sequence number of the frame."""
        at_byte, left = Signal(range(2 + max(link.size(r) for r in Reply))), Signal(range(64))
        records = Signal(range(link.BATCH_MAX + 1))
        record = Signal.like(self.record, reset_less=True)
        head = Signal(8)
        with m.Switch(chosen):
            for reply in Reply:
                parts: list[Value] = [chosen, number]
                for name, count in link.FIELDS[reply]:
                    value = values[reply][name]
                    if isinstance(value, int) and not 0 <= value < 1 << 8 * count:
                        raise ValueError(f"config {cfg.name!r}: {name} = {value}: INFO has {count} bytes")
                    parts += _bytes(Const(value, 8 * count) if isinstance(value, int) else value, count)
                with m.Case(reply.value):
                    m.d.comb += head.eq(Array(parts)[at_byte])

        begin = Signal()
        byte = self.o.payload.data
        sent = Signal()
        m.d.comb += sent.eq(self.o.valid & self.o.ready)
        with m.If(sent):
            m.d.sync += [left.eq(left - 1), at_byte.eq(at_byte + 1)]
        done = sent & (left == 1)

        def part(size: int) -> list:
            """Begins the next part of the frame."""
            return [left.eq(size), at_byte.eq(0)]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += begin.eq(1)
                m.d.sync += [self.at.eq(self.first), first.eq(self.first), records.eq(0)]
                self._choose(m, chosen, number, records, waiting, kind, seq)

            with m.State("COMPOSE"):
                m.d.comb += [begin.eq(1), keep.eq(1)]
                with m.Switch(chosen):
                    for reply in Reply:
                        with m.Case(reply.value):
                            m.d.sync += part(2 + link.size(reply))
                m.next = "HEAD"

            def next_part() -> None:
                with m.If(records != 0):
                    # Its address was given when the one before it was begun: it is here by now.
                    m.d.sync += [record.eq(self.record), *part(link.RECORD_BYTES),
                                 records.eq(records - 1), self.at.eq(self.at + 1)]  # fmt: skip
                    m.next = "RECORD"
                with m.Else():
                    m.d.sync += part(link.CRC_BYTES)
                    m.next = "CRC"

            with m.State("HEAD"):
                m.d.comb += [self.o.valid.eq(1), byte.eq(head), crc.valid.eq(sent)]
                with m.If(done):
                    next_part()

            with m.State("RECORD"):
                record_bytes = Array(_bytes(record, link.RECORD_BYTES))
                m.d.comb += [self.o.valid.eq(1), byte.eq(record_bytes[at_byte[:3]]), crc.valid.eq(sent)]
                with m.If(done):
                    next_part()

            with m.State("CRC"):
                # The checksum is complete one cycle after its last byte, that is now.
                crc_bytes = Array(_bytes(crc.crc, link.CRC_BYTES))
                m.d.comb += [self.o.valid.eq(1), byte.eq(crc_bytes[at_byte[:2]]), self.o.payload.last.eq(left == 1)]
                with m.If(done):
                    m.next = "IDLE"

        m.d.comb += [crc.start.eq(begin), crc.data.eq(byte)]
        with m.If(self.answer.valid):
            m.d.sync += [waiting.eq(1), kind.eq(self.answer.type), seq.eq(self.answer.seq),
                         fault.eq(self.answer.fault)]  # fmt: skip
        return m
