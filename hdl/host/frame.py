"""Receives whole frames: buffers the payload and judges checksum and size before anybody acts on it."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.crc import catalog
from amaranth.lib.wiring import In, Out

from .. import link
from ..mem import Bank, WritePort, register_write
from .cobs import DECODED

FRAME = data.StructLayout({
    "type": 8,
    "seq": 8,
    "length": range(link.PAYLOAD_MAX + 1),
    "fault": 4,
})  # fmt: skip
"""A received frame. ``length``: bytes of payload. With a ``fault`` the rest is what happened to arrive."""


class FrameReceiver(wiring.Component):
    """Decoded bytes -> frames.

    ``frame`` holds a frame until it is taken; until then its payload is read through ``at`` and ``byte``
    (one cycle later). The buffer has two halves: the next frame is received while one is carried out, and
    only its end waits. Whatever arrives between two delimiters gives at most one frame; nothing at all
    between them gives none.
    """

    def __init__(self) -> None:
        super().__init__({
            "i": In(stream.Signature(DECODED)),
            "frame": Out(stream.Signature(FRAME)),
            "at": In(range(link.PAYLOAD_MAX)),
            "byte": Out(8),
        })  # fmt: skip

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.buffer = buffer = Bank(width=8, depth=2 * link.PAYLOAD_MAX, latency=1)
        m.submodules.crc = crc = catalog.CRC32_ISO_HDLC().create()
        rd = buffer.r
        wr = WritePort(8, 2 * link.PAYLOAD_MAX, 8).create()
        register_write(m, buffer.w, wr.en, wr.addr, wr.data)
        half = Signal()
        """Half that is being filled; the frame offered lies in the other one."""
        m.d.comb += [rd.addr.eq(Cat(self.at, ~half)), rd.en.eq(1), self.byte.eq(rd.data)]

        # The last four bytes of a frame are its checksum, and which are the last only its end tells: so the
        # rest works four bytes late.
        late = Signal(8 * link.CRC_BYTES)
        longest = link.PAYLOAD_MAX + link.OVERHEAD
        count = Signal(range(longest + 2))
        """Bytes of this frame so far; stops at one more than the longest frame."""
        type_ = Signal(8)
        seq = Signal(8)
        blocked = Signal()
        taken = Signal()
        m.d.comb += [
            blocked.eq(self.i.payload.end & self.frame.valid & ~self.frame.ready),
            self.i.ready.eq(~blocked),
            taken.eq(self.i.valid & self.i.ready),
        ]

        with m.If(taken & ~self.i.payload.end):
            m.d.sync += late.eq(Cat(late[8:], self.i.payload.data))
            with m.If(count <= longest):
                m.d.sync += count.eq(count + 1)
        m.d.comb += [
            crc.valid.eq(taken & ~self.i.payload.end),
            crc.start.eq(count == 0),
            crc.data.eq(self.i.payload.data),
        ]

        oldest = Signal(8)
        # What is written before the payload begins lands behind it; too long a frame wraps and is refused.
        m.d.comb += [
            oldest.eq(late[:8]),
            wr.addr.eq(Cat((count - link.OVERHEAD)[: len(self.at)], half)),
            wr.data.eq(oldest),
            wr.en.eq(taken & ~self.i.payload.end),
        ]
        with m.If(taken & ~self.i.payload.end):
            with m.If(count == link.CRC_BYTES):
                m.d.sync += type_.eq(oldest)
            with m.If(count == link.CRC_BYTES + 1):
                m.d.sync += seq.eq(oldest)

        fault = Signal(4)
        with m.If(self.i.payload.bad):
            m.d.comb += fault.eq(link.Fault.COBS.value)
        with m.Elif(count > longest):
            m.d.comb += fault.eq(link.Fault.OVERSIZE.value)
        with m.Elif(count < link.OVERHEAD):
            m.d.comb += fault.eq(link.Fault.SHORT.value)
        with m.Elif(~crc.match_detected):
            m.d.comb += fault.eq(link.Fault.CRC.value)

        with m.If(self.frame.ready):
            m.d.sync += self.frame.valid.eq(0)
        with m.If(taken & self.i.payload.end):
            m.d.sync += [count.eq(0), type_.eq(0), seq.eq(0)]
            with m.If((count != 0) | self.i.payload.bad):
                m.d.sync += [
                    self.frame.valid.eq(1),
                    self.frame.payload.type.eq(type_),
                    self.frame.payload.seq.eq(seq),
                    self.frame.payload.length.eq(Mux(fault == 0, count - link.OVERHEAD, 0)),
                    self.frame.payload.fault.eq(fault),
                    half.eq(~half),
                ]
        return m
