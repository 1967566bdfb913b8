"""Consistent overhead byte stuffing: frames out of a byte stream and back, one byte a cycle.

A frame without zeros is a chain of blocks, each a code byte c (1..255) and c - 1 bytes; every block but one
of code 255 stands for its bytes and one zero, the last zero left out (Cheshire and Baker, IEEE/ACM
Transactions on Networking 7(2), 1999). A zero byte ends the frame, so a receiver that has lost its place
finds it at the next zero.
"""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..mem import Bank, WritePort, register_write

DECODED = data.StructLayout({"data": 8, "end": 1, "bad": 1})
"""One decoded byte; or, with ``end``, the end of a frame, ``bad`` when it came inside a block."""
PLAIN = data.StructLayout({"data": 8, "last": 1})
"""One byte to encode, ``last`` of its frame."""

_FULL = 254
"""Bytes of the longest block."""


class CobsDecoder(wiring.Component):
    """Encoded bytes -> decoded bytes and frame ends. Combinational from ``i`` to ``o``."""

    def __init__(self) -> None:
        super().__init__({"i": In(stream.Signature(8)), "o": Out(stream.Signature(DECODED))})

    def elaborate(self, platform) -> Module:
        m = Module()
        left = Signal(8)
        zero = Signal()
        """The next code byte also stands for the zero behind the block before it."""
        delimiter = Signal()
        is_code = Signal()
        m.d.comb += [
            delimiter.eq(self.i.payload == 0),
            is_code.eq(left == 0),
            self.o.payload.end.eq(delimiter),
            self.o.payload.bad.eq(delimiter & ~is_code),
            self.o.payload.data.eq(self.i.payload & ~is_code.replicate(8)),
            self.o.valid.eq(self.i.valid & (delimiter | ~is_code | zero)),
            self.i.ready.eq(self.o.ready | ~self.o.valid),
        ]
        with m.If(self.i.valid & self.i.ready):
            with m.If(delimiter):
                m.d.sync += [left.eq(0), zero.eq(0)]
            with m.Elif(is_code):
                m.d.sync += [left.eq(self.i.payload - 1), zero.eq(self.i.payload != _FULL + 1)]
            with m.Else():
                m.d.sync += left.eq(left - 1)
        return m


class CobsEncoder(wiring.Component):
    """Bytes of frames -> encoded bytes, each frame with its delimiter.

    A block's code is known only at its end, so blocks are built in a ring of ``depth`` bytes: a place is kept
    for the code and filled in when a zero byte ends the block. The zero itself takes no place, which is why
    one write port is enough for a byte a cycle (two more cycles at a frame's end, one after 254 bytes
    without a zero). The reader never passes the place kept free.
    """

    def __init__(self, depth: int = 512):
        if depth < 512 or depth & depth - 1:
            raise ValueError(f"encoder ring of {depth} bytes: must be a power of two that holds two blocks")
        self.depth = depth
        super().__init__({"i": In(stream.Signature(PLAIN)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.ring = ring = Bank(width=8, depth=self.depth, latency=1)
        rd = ring.r
        wr = WritePort(8, self.depth, 8).create()
        register_write(m, ring.w, wr.en, wr.addr, wr.data)

        at = Signal(range(self.depth), init=1)
        """Next place to write."""
        code_at = Signal(range(self.depth))
        """Place kept for the code of the block being built."""
        whole = Signal.like(code_at)
        """All before it is in the ring and may be read."""
        m.d.sync += whole.eq(code_at)
        code = Signal(8, init=1)
        read_at = Signal(range(self.depth))
        room = Signal()
        # A frame's end writes two more bytes behind the last one, and the next block keeps a place.
        m.d.sync += room.eq((at - read_at)[: len(at)] < self.depth - 8)

        def close_block() -> list:
            """Fills in the block's code and keeps a place for the next one's."""
            return [code_at.eq(at), at.eq(at + 1), code.eq(1)]

        with m.FSM():
            with m.State("DATA"):
                m.d.comb += self.i.ready.eq(room)
                with m.If(self.i.valid & room):
                    m.d.comb += wr.en.eq(1)
                    with m.If(self.i.payload.data == 0):
                        m.d.comb += [wr.addr.eq(code_at), wr.data.eq(code)]
                        m.d.sync += close_block()
                    with m.Else():
                        m.d.comb += [wr.addr.eq(at), wr.data.eq(self.i.payload.data)]
                        m.d.sync += [at.eq(at + 1), code.eq(code + 1)]
                        with m.If(code == _FULL):
                            m.next = "FULL"
                    with m.If(self.i.payload.last):
                        m.next = "LAST"
            with m.State("FULL"):
                m.d.comb += [wr.en.eq(1), wr.addr.eq(code_at), wr.data.eq(code)]
                m.d.sync += close_block()
                m.next = "DATA"
            with m.State("LAST"):
                m.d.comb += [wr.en.eq(1), wr.addr.eq(code_at), wr.data.eq(code)]
                m.next = "DELIMITER"
            with m.State("DELIMITER"):
                m.d.comb += [wr.en.eq(1), wr.addr.eq(at), wr.data.eq(0)]
                m.d.sync += [code_at.eq(at + 1), at.eq(at + 2), code.eq(1)]
                m.next = "DATA"

        advance = Signal()
        m.d.comb += [
            advance.eq(self.o.ready | ~self.o.valid),
            rd.addr.eq(read_at),
            rd.en.eq(advance),
            self.o.payload.eq(rd.data),
        ]
        with m.If(advance):
            m.d.sync += self.o.valid.eq(read_at != whole)
            with m.If(read_at != whole):
                m.d.sync += read_at.eq(read_at + 1)
        return m
