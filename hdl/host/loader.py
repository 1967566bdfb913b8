"""Judges frames and carries them out: rows to the load bus, start and abort to the core, answers to all."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .. import link
from ..config import Config
from ..image import LoadBus, Space, load_bits, row_bytes
from ..link import Fault, Reply, Request
from .frame import FRAME


class Answer(wiring.Signature):
    """A frame to send to the host, asked for in the cycle with ``valid``.

    ``seq``: its sequence number; ``fault``: for ERROR.
    """

    def __init__(self) -> None:
        super().__init__({"valid": Out(1), "type": Out(8), "seq": Out(8), "fault": Out(4)})


class Ledger(wiring.Signature):
    """What the host asks of the record store, towards the store.

    ``begin``: pulse, a run starts; ``seq``: sequence number of its RUN frame, until the next ``begin``.
    ``grant``: pulse, send records while their index is below ``until``; with ``rewind``, from ``start`` on.
    """

    def __init__(self) -> None:
        super().__init__({
            "begin": Out(1), "seq": Out(8), "grant": Out(1), "rewind": Out(1), "start": Out(16),
            "until": Out(16), "written": In(16),
        })  # fmt: skip


class Loader(wiring.Component):
    """Executes frames one after the other.

    A frame changes nothing before all of it has been checked. A LOAD is carried out at a byte a cycle, after
    a cycle for each of its rows to count them. ``last`` is the sequence number of the last frame carried
    out; frames with one of the 128 numbers up to it are repetitions, acknowledged and not carried out again.
    ``good`` and ``bad`` are pulses, one for each frame; ``fault`` is that of the last one refused.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        super().__init__({
            "frame": In(stream.Signature(FRAME)),
            "at": Out(range(link.PAYLOAD_MAX)),
            "byte": In(8),
            "load": Out(LoadBus(cfg)),
            "start": Out(1),
            "abort": Out(1),
            "busy": In(1),
            "ledger": Out(Ledger()),
            "answer": Out(Answer()),
            "last": Out(8),
            "good": Out(1),
            "bad": Out(1),
            "fault": Out(4),
        })  # fmt: skip

    def elaborate(self, platform) -> Module:
        m = Module()
        cfg = self.cfg
        frame = self.frame.payload

        # The byte at `pos` is on `byte`, because its address was given a cycle ago.
        pos = Signal(range(link.PAYLOAD_MAX))
        step = Signal()
        rewind = Signal()
        behind = Signal.like(pos, init=1)
        m.d.comb += self.at.eq(Mux(rewind, 0, Mux(step, behind, pos)))
        m.d.sync += [pos.eq(self.at), behind.eq(self.at + 1)]

        head_bytes = max(link.size(r) for r in Request)
        head = Signal(8 * head_bytes)

        def field(kind: Request, name: str):
            """A fixed field of the payload, once the head has been read."""
            at = 0
            for other, count in link.FIELDS[kind]:
                if other == name:
                    return head[8 * at : 8 * (at + count)]
                at += count
            raise KeyError(name)

        row_max = load_bits(cfg) // 8
        depth_max = max(link.space_shape(cfg, s)[1] for s in Space)
        head_left = Signal(range(head_bytes + 1))
        left = Signal(range(link.PAYLOAD_MAX + 1))
        row_size = Signal(range(row_max + 1))
        col = Signal(range(row_max))
        rows = Signal(range(link.ROWS_MAX + 1))
        subs = Signal(9)
        depth = Signal(range(depth_max + 1))
        known = Signal()
        rejected = Signal()
        """A frame was refused since the last one carried out, so that frames behind a gap are not answered
        one by one."""
        is_type, length_ok, ordered, exclusive, is_next, is_late = (
            Signal(name=name) for name in ("is_type", "length_ok", "ordered", "exclusive", "is_next", "is_late")
        )
        agreed = Signal()
        """An INFO has set the sequence number since reset."""
        ahead = Signal(8)
        """How far the frame's number is ahead, in the cycle after it was offered."""
        m.d.sync += ahead.eq(frame.seq - self.last)

        # The byte comes straight out of a block RAM: it goes into a register before it goes anywhere else, and
        # with it what is to be done with it.
        byte = Signal(8, reset_less=True)
        place = Signal.like(col, reset_less=True)
        heading, copying, full = Signal(), Signal(), Signal()
        head_place = Signal(range(head_bytes), reset_less=True)
        m.d.sync += [byte.eq(self.byte), place.eq(col), head_place.eq(pos), heading.eq(0), copying.eq(0), full.eq(0)]
        with m.If(heading):
            m.d.sync += head.word_select(head_place, 8).eq(byte)
        with m.If(copying):
            with m.If(place == 0):
                m.d.sync += self.load.data.eq(byte)
            with m.Else():
                m.d.sync += self.load.data.word_select(place, 8).eq(byte)
        m.d.sync += self.load.valid.eq(full)
        with m.If(full):
            m.d.sync += [
                self.load.space.eq(field(Request.LOAD, "space")),
                self.load.sub.eq(field(Request.LOAD, "sub")),
                self.load.addr.eq(field(Request.LOAD, "addr")),
                field(Request.LOAD, "addr").eq(field(Request.LOAD, "addr") + 1),
            ]

        for pulse in (self.start, self.abort, self.answer.valid,
                      self.ledger.begin, self.ledger.grant, self.good, self.bad):  # fmt: skip
            m.d.sync += pulse.eq(0)

        def answer(kind: Reply, seq) -> list:
            return [self.answer.valid.eq(1), self.answer.type.eq(kind.value), self.answer.seq.eq(seq)]

        def finish(good: bool) -> None:
            """Gives the buffer back; the next frame can be offered in the next cycle."""
            m.d.comb += self.frame.ready.eq(1)
            m.d.sync += (self.good if good else self.bad).eq(1)
            m.next = "IDLE"

        def refuse(fault) -> None:
            m.d.sync += self.fault.eq(fault.value if isinstance(fault, Fault) else fault)
            m.next = "REFUSE"

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += rewind.eq(1)
                m.d.sync += left.eq(frame.length)
                with m.If(self.frame.valid):
                    m.next = "TYPE"
                    with m.If(frame.fault != 0):
                        refuse(frame.fault)

            with m.State("TYPE"):
                # The head's first byte is on `byte` from here on, but `step` begins with the head.
                m.d.sync += [is_type.eq(1), is_next.eq(ahead == 1), is_late.eq((ahead == 0) | ahead[-1])]
                with m.Switch(frame.type):
                    for kind in Request:
                        with m.Case(kind.value):
                            fixed = link.size(kind)
                            more = kind is Request.LOAD
                            m.d.sync += [
                                length_ok.eq((left > fixed) if more else (left == fixed)),
                                ordered.eq(kind not in (Request.INFO, Request.STATUS)),
                                exclusive.eq(kind in (Request.LOAD, Request.RUN)),
                                head_left.eq(fixed),
                            ]
                    with m.Default():
                        m.d.sync += is_type.eq(0)
                m.next = "CHECK"

            with m.State("CHECK"):
                with m.If(head_left == 0):
                    m.next = "ACT"
                with m.Else():
                    m.next = "HEAD"
                with m.If(~is_type):
                    refuse(Fault.TYPE)
                with m.Elif(~length_ok):
                    refuse(Fault.LENGTH)
                with m.Elif(ordered & ~agreed):
                    refuse(Fault.RESET)
                with m.Elif(ordered & ~is_next):
                    m.next = "REPEATED"
                    with m.If(~is_late):
                        refuse(Fault.SEQUENCE)
                with m.Elif(exclusive & self.busy):
                    refuse(Fault.BUSY)

            with m.State("HEAD"):
                m.d.comb += step.eq(1)
                m.d.sync += [heading.eq(1), head_left.eq(head_left - 1), left.eq(left - 1)]
                with m.If(head_left == 1):
                    m.next = "HEADED"

            with m.State("HEADED"):
                m.next = "ACT"

            with m.State("ACT"):
                with m.Switch(frame.type):
                    with m.Case(Request.INFO.value):
                        m.d.sync += [self.last.eq(frame.seq), *answer(Reply.INFO, frame.seq),
                                     rejected.eq(0), agreed.eq(1)]  # fmt: skip
                        finish(good=True)
                    with m.Case(Request.STATUS.value):
                        m.d.sync += answer(Reply.STATUS, frame.seq)
                        finish(good=True)
                    with m.Case(Request.LOAD.value):
                        m.next = "SPACE"
                    with m.Case(Request.RUN.value):
                        m.d.sync += [
                            self.start.eq(1),
                            self.ledger.begin.eq(1), self.ledger.seq.eq(frame.seq),
                            self.ledger.until.eq(field(Request.RUN, "until")),
                        ]  # fmt: skip
                        m.next = "ACCEPT"
                    with m.Case(Request.ABORT.value):
                        m.d.sync += self.abort.eq(self.busy)
                        m.next = "ACCEPT"
                    with m.Case(Request.CREDIT.value):
                        start = field(Request.CREDIT, "start")
                        keep = Signal()
                        m.d.comb += keep.eq(start == link.KEEP)
                        with m.If(~keep & (start > self.ledger.written)):
                            refuse(Fault.ADDRESS)
                        with m.Else():
                            m.d.sync += [
                                self.ledger.rewind.eq(~keep), self.ledger.start.eq(start),
                                self.ledger.until.eq(field(Request.CREDIT, "until")),
                            ]  # fmt: skip
                            m.next = "ACCEPT"

            with m.State("SPACE"):
                m.d.sync += [known.eq(0), rows.eq(0)]
                with m.Switch(field(Request.LOAD, "space")):
                    for space in Space:
                        banks, words = link.space_shape(cfg, space)
                        with m.Case(space.value):
                            m.d.sync += [known.eq(1), row_size.eq(row_bytes(cfg, space)),
                                         subs.eq(banks), depth.eq(words)]  # fmt: skip
                m.next = "ROWS"

            with m.State("ROWS"):
                # Row sizes are not all powers of two: counting rows is cheaper than dividing.
                with m.If(~known):
                    refuse(Fault.SPACE)
                with m.Elif(left >= row_size):
                    m.d.sync += [left.eq(left - row_size), rows.eq(rows + 1)]
                with m.Elif(left != 0):
                    refuse(Fault.ROWS)
                with m.Else():
                    m.next = "RANGE"

            with m.State("RANGE"):
                addr, sub = field(Request.LOAD, "addr"), field(Request.LOAD, "sub")
                m.d.sync += col.eq(0)
                with m.If((addr + rows > depth) | (sub >= subs)):
                    refuse(Fault.ADDRESS)
                with m.Else():
                    m.next = "COPY"

            with m.State("COPY"):
                m.d.comb += step.eq(1)
                m.d.sync += [copying.eq(1), col.eq(col + 1)]
                with m.If(col == row_size - 1):
                    m.d.sync += [col.eq(0), rows.eq(rows - 1), full.eq(1)]
                    with m.If(rows == 1):
                        m.next = "ACCEPT"

            with m.State("ACCEPT"):
                # With the answer, not before it: so that the ACK is sent before what it lets go.
                m.d.sync += self.ledger.grant.eq(frame.type == Request.CREDIT.value)
                m.d.sync += [self.last.eq(frame.seq), *answer(Reply.ACK, frame.seq), rejected.eq(0)]
                # A host that was in a conversation when the device was reset has to learn of it.
                with m.If((frame.type == Request.RUN.value) & (frame.seq == link.BOOT_RUN)):
                    m.d.sync += agreed.eq(0)
                finish(good=True)

            with m.State("REPEATED"):
                m.d.sync += answer(Reply.ACK, self.last)
                finish(good=True)

            with m.State("REFUSE"):
                with m.If(~rejected | (self.fault != Fault.SEQUENCE.value)):
                    m.d.sync += [*answer(Reply.ERROR, frame.seq), self.answer.fault.eq(self.fault)]
                m.d.sync += rejected.eq(1)
                finish(good=False)
        return m
