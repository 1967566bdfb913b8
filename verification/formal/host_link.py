"""Proofs of the host link: what a frame may change, that none wedges it, that a delimiter ends all confusion."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from hdl import link
from hdl.config import TINY
from hdl.host.cobs import CobsDecoder
from hdl.host.frame import FrameReceiver
from hdl.host.loader import Loader
from hdl.image import Space, row_bytes
from hdl.link import Request

from .harness import Harness, Opened
from .platforms import ReadOnly

HEAD_BYTES = link.size(Request.LOAD)


class Judge(Harness):
    """The loader acts on a frame only after all of its checks, writes only rows that exist, and always comes to an end.

    Everything is stated of the frame offered and of registers, for an induction of one step: whatever frames came
    before, in whatever order, is in them.
    """

    def build(self, m: Module) -> None:
        cfg = TINY
        unit = Loader(cfg)
        m.submodules.unit = opened = Opened(unit)
        frame = unit.frame.payload
        self.drive_free(unit.frame.valid, unit.frame.payload, unit.byte, unit.busy, unit.ledger.written)
        offered = unit.frame.valid
        # The receiver keeps a frame until it is taken (``frame_receiver``).
        held = self.was(offered & ~unit.frame.ready, 1, "held")
        before = self.was(frame, 1, "frame_before")
        self.assume(~held | (offered & (Value.cast(frame) == before)))
        self.assume(frame.length <= link.PAYLOAD_MAX)

        fsm = opened.fragment.find_generated("fsm")
        state = fsm.state
        value = {str(name): number for name, number in fsm.encoding.items()}

        def in_state(*names: str) -> Value:
            return Cat(state == value[name] for name in names).any()

        reg = opened.registers
        last, agreed = unit.last, reg["agreed"]
        head, left, head_left = reg["head"], reg["left"], reg["head_left"]
        rows, row_size, col = reg["rows"], reg["row_size"], reg["col"]

        # The specification: which frames may act (docs/link.md).
        def is_kind(*kinds: Request) -> Value:
            return Cat(frame.type == k.value for k in kinds).any()

        kinds = {
            k: is_kind(k) & ((frame.length > link.size(k)) if k is Request.LOAD else (frame.length == link.size(k)))
            for k in Request
        }
        sound = Signal()
        m.d.comb += sound.eq((frame.fault == 0) & Cat(*kinds.values()).any())
        fits = agreed & (frame.seq == (last + 1)[:8])
        free_standing = is_kind(Request.INFO, Request.STATUS)
        may_act = Signal()
        m.d.comb += may_act.eq(offered & sound & (free_standing | fits))
        acting = in_state("HEAD", "HEADED", "ACT", "SPACE", "ROWS", "RANGE", "COPY", "ACCEPT")
        self.holds(~acting | may_act)

        # What changes anything does so for such a frame, and for no other kind of frame.
        allowed = {k: self.was(may_act & is_kind(k), 1, f"allowed_{k.name}") for k in Request}
        full_was = self.was(opened["full"], 1, "full_was")
        self.holds(~unit.start | allowed[Request.RUN])
        self.holds(~unit.ledger.begin | allowed[Request.RUN])
        self.holds(~unit.abort | allowed[Request.ABORT])
        self.holds(~unit.ledger.grant | allowed[Request.CREDIT])
        # Behind a boot memory's RUN only INFO and STATUS act, until an INFO has.
        booted = self.was(in_state("ACCEPT") & is_kind(Request.RUN) & (frame.seq == link.BOOT_RUN), 1, "booted")
        self.holds(~booted | ~agreed)
        agreed_was = self.was(agreed, 1, "agreed_was")
        self.holds(~agreed | agreed_was | allowed[Request.INFO])
        changed = self.was(last, 1, "last_before") != last
        ordered = [allowed[k] for k in (Request.LOAD, Request.RUN, Request.ABORT, Request.CREDIT)]
        self.holds(~changed | Cat(*ordered, allowed[Request.INFO]).any())
        self.holds(~unit.load.valid | full_was)
        full = reg["full"]
        self.holds(~full | (in_state("COPY", "ACCEPT") & is_kind(Request.LOAD)))
        # Not during a run: as it was when the frame was judged.
        judged_idle = Signal()
        with m.If(in_state("CHECK")):
            m.d.sync += judged_idle.eq(~unit.busy)
        self.holds(~(acting & is_kind(Request.LOAD, Request.RUN)) | judged_idle)
        # Each frame taken is counted once, as good or bad; a bad one has not acted.
        taken = self.was(offered & unit.frame.ready, 1, "taken")
        self.holds((unit.good ^ unit.bad) == taken)
        self.holds(~(unit.good & unit.bad))
        self.holds(~unit.bad | ~(unit.load.valid | unit.start | unit.abort | unit.ledger.grant | unit.ledger.begin))

        # A row written exists.
        space, sub, addr = head[:8], head[8:16], head[16:40]

        def exists(space: Value, sub: Value, addr: Value, count: Value | int) -> Value:
            ok = []
            for s in Space:
                banks, depth = link.space_shape(cfg, s)
                ok.append((space == s.value) & (sub < banks) & (addr + count <= depth))
            return Cat(*ok).any()

        self.holds(~unit.load.valid | exists(unit.load.space, unit.load.sub, unit.load.addr, 1))

        # For the induction: what the registers mean in each state.
        working = ~in_state("IDLE")
        self.holds(state <= max(value.values()))
        self.holds(~working | offered)
        self.holds(~working | held)
        self.holds(~in_state("TYPE") | (reg["ahead"] == (frame.seq - last)[:8]))
        self.holds(~in_state("TYPE") | (left == frame.length))
        self.holds(in_state("IDLE", "REFUSE") | (frame.fault == 0))
        check = in_state("CHECK")
        known = is_kind(*Request)
        self.holds(~check | (reg["is_type"] == known))
        self.holds(~(check & known) | (reg["length_ok"] == sound))
        self.holds(~(check & known) | (reg["ordered"] == ~free_standing))
        self.holds(~(check & known) | (reg["exclusive"] == is_kind(Request.LOAD, Request.RUN)))
        self.holds(~(check & known) | (reg["is_next"] == (frame.seq == (last + 1)[:8])))
        for k in Request:
            self.holds(~(check & is_kind(k)) | (head_left == link.size(k)))
        self.holds(~check | (left == frame.length))
        load = is_kind(Request.LOAD)
        self.holds(~in_state("HEAD") | ((head_left >= 1) & (head_left <= HEAD_BYTES)))
        self.holds(~(in_state("HEAD") & load) | ((left > head_left) & (left <= link.ROWS_MAX + head_left)))
        self.holds(~(in_state("HEADED", "ACT", "SPACE") & load) | ((left >= 1) & (left <= link.ROWS_MAX)))
        self.holds(~reg["$signal"] | in_state("HEAD", "HEADED"))
        # ("$signal": ``heading``, of an assignment to several names.)
        self.holds(~in_state("SPACE", "ROWS", "RANGE", "COPY") | load)
        self.holds(~in_state("ACCEPT") | is_kind(Request.LOAD, Request.RUN, Request.ABORT, Request.CREDIT))
        sizes = Cat(
            (space == s.value) & (row_size == row_bytes(cfg, s)) & (reg["subs"] == link.space_shape(cfg, s)[0])
            & (reg["depth"] == link.space_shape(cfg, s)[1])
            for s in Space
        ).any()  # fmt: skip
        self.holds(~(in_state("ROWS") & reg["known"]) | sizes)
        self.holds(~in_state("RANGE", "COPY") | sizes)
        self.holds(~in_state("ROWS") | ((left + rows >= 1) & (left + rows <= link.ROWS_MAX)))
        self.holds(~in_state("RANGE", "COPY") | ((rows >= 1) & (rows <= link.ROWS_MAX)))
        self.holds(~in_state("COPY") | (col < row_size))
        self.holds(~(in_state("COPY") & full) | (col == 0))
        self.holds(~in_state("COPY") | exists(space, sub, addr, rows + full))
        self.holds(~full | exists(space, sub, addr, 1))
        self.holds(~full | ~in_state("ACCEPT") | exists(space, sub, addr, 1))

        # No wedge: a measure falls in every cycle of a frame's work, until it is given back.
        order = (
            "REFUSE", "REPEATED", "ACCEPT", "COPY", "RANGE", "ROWS", "SPACE", "ACT", "HEADED", "HEAD", "CHECK", "TYPE",
        )  # fmt: skip
        stage, count = Signal(4), Signal(14)
        with m.Switch(state):
            for i, name in enumerate(order):
                with m.Case(value[name]):
                    m.d.comb += stage.eq(i + 1)
        m.d.comb += count.eq(
            Mux(in_state("COPY"), Cat((row_size - col)[:4], rows), Mux(in_state("ROWS"), left, head_left))
        )
        measure = Cat(count, stage)
        was_measure, was_working = self.was(measure, 1, "measure"), self.was(working & ~unit.frame.ready, 1, "working")
        self.holds(~was_working | (measure < was_measure) & working)
        self.holds(~in_state("REFUSE", "REPEATED", "ACCEPT") | unit.frame.ready)
        self.reached(in_state("ROWS") & (space == Space.PROMPT.value) & sizes)
        self.reached(unit.start)
        self.reached(unit.bad)
        self.reached(unit.good & unit.answer.valid & (unit.answer.type == link.Reply.ACK.value))


class Resync(Harness):
    """After a delimiter a receiver is as after reset, whatever came before it.

    Two receivers get the same bytes; from a delimiter on that both take, all that counts is equal in both: they will
    offer the same frames in the same cycles. So the bytes before it cannot wedge or mislead the link.
    """

    def build(self, m: Module) -> None:
        stages = []
        for i in range(2):
            decoder, receiver = CobsDecoder(), FrameReceiver()
            a, b = Opened(decoder), Opened(receiver, ReadOnly(lambda name, addr, width: Const(0, width)))
            m.submodules[f"decoder{i}"], m.submodules[f"receiver{i}"] = a, b
            m.d.comb += [
                receiver.i.valid.eq(decoder.o.valid),
                receiver.i.payload.eq(decoder.o.payload),
                decoder.o.ready.eq(receiver.i.ready),
            ]
            stages.append((decoder, receiver, a, b))
        take = self.free("take")
        synced, since_synced = Signal(), Signal()
        byte, valid = self.free("byte", 8), self.free("valid")
        other_byte, other_valid = self.free("other_byte", 8), self.free("other_valid")
        (d0, r0, a0, b0), (d1, r1, a1, b1) = stages
        m.d.comb += [
            d0.i.valid.eq(valid), d0.i.payload.eq(byte),
            # Until both have taken a delimiter the second one gets bytes of its own.
            d1.i.valid.eq(Mux(since_synced, valid, other_valid)),
            d1.i.payload.eq(Mux(since_synced, byte, other_byte)),
            # Taken when it is there, at any time; at the same time from both.
            r0.frame.ready.eq(take & r0.frame.valid), r1.frame.ready.eq(take & r1.frame.valid),
        ]  # fmt: skip
        # A reader that is slow delays bytes and does not change them: both are delayed alike.
        self.assume(~since_synced | (d0.i.ready == d1.i.ready))
        both = Cat(*(d.i.valid & d.i.ready & (d.i.payload == 0) for d in (d0, d1))).all()
        m.d.comb += synced.eq(both & ~since_synced)
        # The frame before may still be offered: only what the delimiter itself makes may differ.
        with m.If(synced):
            m.d.sync += since_synced.eq(1)
        for path in ("left", "zero"):
            self.holds(~since_synced | (a0[path] == a1[path]))
        started = Signal()
        """A byte has come since the delimiter: the late bytes and the checksum are this frame's."""
        m.d.comb += started.eq(b0["count"] != 0)
        self.holds(~since_synced | (b0["count"] == b1["count"]))
        crc = next(p for p in b0.registers if p.startswith("crc."))
        self.holds(~since_synced | ~started | (b0[crc] == b1[crc]))
        for path in ("type_", "seq"):
            self.holds(~since_synced | (b0[path] == b1[path]))
        # As many late bytes as have come.
        for i in range(link.CRC_BYTES):
            at = link.CRC_BYTES - 1 - i
            byte0, byte1 = (b["late"].word_select(at, 8) for b in (b0, b1))
            self.holds(~since_synced | (b0["count"] <= i) | (byte0 == byte1))
        self.reached(since_synced & r0.frame.valid & self.was(~r0.frame.valid) & (b0["count"] == 0))


def crc_of_byte(crc: Value, byte: Value) -> Value:
    """The CRC-32 of IEEE 802.3 after one more byte, from its definition: one bit after the other, reflected.

    Worked out on sets of the bits that each bit is the sum of (modulo 2), which a solver need not find out.
    """
    bits = [frozenset({("crc", i)}) for i in range(32)]
    for i in range(8):
        carry = bits[0] ^ {("byte", i)}
        bits = [*bits[1:], frozenset()]
        bits = [b ^ carry if 0xEDB88320 >> k & 1 else b for k, b in enumerate(bits)]
    sums = []
    for b in bits:
        terms = [crc[i] for i in reversed(range(32)) if ("crc", i) in b]
        terms += [byte[i] for i in reversed(range(8)) if ("byte", i) in b]
        total: Value = Const(0, 1)
        for term in terms:
            total = total ^ term
        sums.append(total)
    return Cat(sums)


class Receive(Harness):
    """A frame is offered as sound only when a checksum computed bit by bit agrees, and when its length is allowed; it
    is kept until taken; and only the end of the next frame may have to wait."""

    def build(self, m: Module) -> None:
        unit = FrameReceiver()
        m.submodules.unit = opened = Opened(unit, ReadOnly(lambda name, addr, width: Const(0, width)))
        self.drive_free(unit.i.valid, unit.i.payload, unit.frame.ready, unit.at)
        take = unit.i.valid & unit.i.ready
        byte, end = unit.i.payload.data, unit.i.payload.end
        # CRC-32 as in IEEE 802.3, one bit after the other (the reflected polynomial).
        crc = Signal(32, init=0xFFFFFFFF)
        length = Signal(10)
        value = crc_of_byte(crc, byte)
        with m.If(take):
            with m.If(end):
                m.d.sync += [crc.eq(0xFFFFFFFF), length.eq(0)]
            with m.Else():
                m.d.sync += [crc.eq(value), length.eq(Mux(length == 1023, length, length + 1))]
        longest = link.PAYLOAD_MAX + link.OVERHEAD
        good = (crc == 0xDEBB20E3) & (length >= link.OVERHEAD) & (length <= longest) & ~unit.i.payload.bad
        ended = take & end
        was_good, was_ended = self.was(ended & good, 1, "good"), self.was(ended, 1, "ended")
        was_length = self.was(length, 1, "length_before")
        frame = unit.frame.payload
        self.assume(~unit.i.payload.bad | end)  # as the decoder gives it
        self.holds(~was_ended | ~was_good | (unit.frame.valid & (frame.fault == 0)))
        self.holds(~was_ended | was_good | ~unit.frame.valid | (frame.fault != 0))
        self.holds(~was_good | (frame.length == (was_length - link.OVERHEAD)[:10]))
        # An end with nothing before it is no frame; everything else is one.
        bad = self.was(unit.i.payload.bad, 1, "bad_before")
        self.holds(~was_ended | (unit.frame.valid == ((was_length != 0) | bad)))
        kept = self.was(unit.frame.valid & ~unit.frame.ready, 1, "kept")
        before = self.was(frame, 1, "frame_before")
        self.holds(~kept | (unit.frame.valid & (Value.cast(frame) == before)))
        self.holds(unit.i.ready | (end & unit.frame.valid & ~unit.frame.ready))
        # For the induction.
        register = next(p for p in opened.registers if p.startswith("crc."))
        self.holds((length == 0) | (Cat(reversed(list(opened[register]))) == crc))
        self.holds((length != 0) | (crc == 0xFFFFFFFF))
        self.holds(opened["count"] == Mux(length > longest, longest + 1, length))
        self.holds(frame.length <= link.PAYLOAD_MAX)
        self.reached(was_good & unit.frame.valid)
        self.reached(~unit.i.ready)
