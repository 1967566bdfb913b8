"""One instruction queue: instruction memory, serial fetch, issue at the stated cycle, repeat loops."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Array, C, Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import Config, address_bits
from ..image import LoadBus, Space
from ..isa import FETCH_BITS, Base, Count, Queue, get_isa, tail_address
from ..mem import Bank, register_write
from ..uop import uop_layout


def base_names(cfg: Config, queue: Queue) -> list[str]:
    """Address fields of a queue that take a base register."""
    return [a.name for a in get_isa(cfg).formats[queue].addresses if a.based]


class InstructionQueue(wiring.Component):
    """Fetches, waits, issues and repeats the instructions of one queue.

    Ports: ``load``; ``now``: cycle of the phase; ``enter``: pulse in the last cycle before a phase in which
    this queue has instructions; ``restart`` / ``mark`` / ``jump``: pulses, with ``enter`` or earlier: fetch
    from address 0 / remember the next instruction / fetch from the remembered one, or with ``divert`` from the tail's
    first; ``counts``: loop
    counts by :class:`Count`; ``base_F``: one value per :class:`Base` for each based field F; ``uop``.

    ``fault`` rises and stays when an instruction could not issue in its cycle (fetched too late, or the one
    before still repeating): a program the scheduler must never produce.
    """

    def __init__(self, cfg: Config, queue: Queue):
        self.cfg = cfg
        self.queue = queue
        self.format = get_isa(cfg).formats[queue]
        ports = {
            "load": In(LoadBus(cfg)),
            "begin": In(1),
            "upcoming": In(20),
            "enter": In(1),
            "restart": In(1),
            "mark": In(1),
            "jump": In(1),
            "divert": In(1),
            "uop": Out(uop_layout(cfg, queue)),
            "fault": Out(1),
        }
        for count in (Count.SETS, Count.WORDS, Count.ROWS):
            ports[f"count_{count.name.lower()}"] = In(cfg.position_bits)
        for a in self.format.addresses:
            if a.based:
                for base in Base:
                    ports[f"base_{a.name}_{base.value}"] = In(a.bits)
        super().__init__(ports)

    def _fetch(self, m: Module, taken: Value) -> tuple[Mapping[str, Value], Signal]:
        """Serial fetch: ``words`` reads fill ``buffer``; returns its fields and whether they are whole."""
        words = self.format.words
        depth = self.cfg.queue_depth
        m.submodules.code = code = Bank(width=FETCH_BITS, depth=depth, latency=1)
        read = code.r
        mine = self.load.valid & (self.load.space == Space.PROGRAM) & (self.load.sub == self.queue)
        register_write(m, code.w, mine, self.load.addr, self.load.data)
        pc = Signal(address_bits(depth))
        saved = Signal.like(pc)
        start = Signal.like(pc)  # address of the instruction in the buffer (or being fetched)
        reading = Signal(range(words + 2))  # next word to request; words: none left
        arriving = Signal()
        buffer = Signal(FETCH_BITS * words, reset_less=True)
        ready = Signal()
        m.d.comb += [read.en.eq(1), read.addr.eq(pc)]
        m.d.sync += arriving.eq(reading < words)
        with m.If(reading < words):
            m.d.sync += [pc.eq(pc + 1), reading.eq(reading + 1)]
        with m.If(arriving):
            m.d.sync += buffer.eq(Cat(buffer[FETCH_BITS:], read.data))
            with m.If(reading == words):
                m.d.sync += ready.eq(1)
        with m.If(taken):
            m.d.sync += [ready.eq(0), reading.eq(0), start.eq(pc)]
        with m.If(self.mark):
            m.d.sync += saved.eq(start)
        with m.If(self.restart | self.jump):
            target = Mux(self.restart, 0, Mux(self.divert, tail_address(self.cfg), saved))
            m.d.sync += [pc.eq(target), start.eq(target), ready.eq(0), reading.eq(0), arriving.eq(0)]
        fields, at = {}, 0
        for f in self.format.fields:
            fields[f.name] = buffer[at : at + f.bits]
            at += f.bits
        return fields, ready

    def elaborate(self, platform: object) -> Module:
        m = Module()
        f = self.format
        taken = Signal()
        fields, ready = self._fetch(m, taken)

        # Decided a cycle ahead, on an instruction that is whole by then: hundreds of registers hang on it.
        armed = Signal()
        time = fields["time"]
        due = ready & Mux(self.begin, time == 0, time == self.upcoming)
        m.d.sync += taken.eq(due & (armed | self.enter) & ~(taken | self.restart | self.jump))
        with m.If(taken & fields["end"]):
            m.d.sync += armed.eq(0)
        with m.If(armed & ~(taken & fields["end"]) & self.begin):
            m.d.sync += self.fault.eq(1)  # the phase ended before all its instructions issued
        with m.If(self.enter):
            m.d.sync += armed.eq(1)

        def count(name: str) -> Value:
            choices = {c: getattr(self, f"count_{c.name.lower()}") for c in (Count.SETS, Count.WORDS, Count.ROWS)}
            imm = fields[name]
            return Array([imm, *(choices[c] for c in (Count.SETS, Count.WORDS, Count.ROWS))])[fields[f"{name}_sel"]]

        # Loop state. left: steps still to come, the one just made included; any: whether there are more; wait: cycles
        # until one may start, likewise with this one; now: whether one may. The flags stand in registers of their own:
        # every micro-op hangs on them. Counting from the field's own value needs no subtractor but the counter's.
        n1, left1, left2 = Signal(f.count_bits), Signal(f.count_bits), Signal(f.count_bits)
        d1, wait1 = Signal(8), Signal(8)
        d2, wait2 = Signal(12), Signal(12)
        any1, any2, now1, now2 = Signal(), Signal(), Signal(), Signal()
        many1, dense1, dense2 = Signal(), Signal(), Signal()  # n1 != 1, d1 == 1, d2 == 1
        inner, outer = Signal(), Signal()
        m.d.comb += [inner.eq(any1 & now1), outer.eq(~any1 & any2 & now2)]
        uop = self.uop
        m.d.sync += uop.valid.eq(taken | inner | outer)
        m.d.sync += [wait1.eq(wait1 - 1), now1.eq(now1 | (wait1 == 2))]
        m.d.sync += [wait2.eq(wait2 - 1), now2.eq(now2 | (wait2 == 2))]
        first_n1 = Signal(f.count_bits)
        first_n2 = Signal(f.count_bits)
        m.d.comb += [first_n1.eq(count("n1")), first_n2.eq(count("n2") if f.outer else C(1, f.count_bits))]

        with m.If(taken):
            with m.If(any1 | any2):
                m.d.sync += self.fault.eq(1)
            m.d.sync += [
                n1.eq(first_n1), left1.eq(first_n1), any1.eq(first_n1 != 1), many1.eq(first_n1 != 1),
                d1.eq(fields["d1"]), wait1.eq(fields["d1"]),
                now1.eq(fields["d1"] == 1), dense1.eq(fields["d1"] == 1),
                left2.eq(first_n2), any2.eq(first_n2 != 1),
                uop.idx.eq(0), uop.i1.eq(0),
                uop.first.eq(1), uop.i1_first.eq(1), uop.i2_first.eq(1),
                uop.i1_last.eq(first_n1 == 1), uop.last.eq((first_n1 == 1) & (first_n2 == 1)),
            ]  # fmt: skip
            if f.outer:
                m.d.sync += [
                    d2.eq(fields["d2"]), wait2.eq(fields["d2"]),
                    now2.eq(fields["d2"] == 1), dense2.eq(fields["d2"] == 1),
                ]  # fmt: skip
            if "op" in fields:
                m.d.sync += uop.op.eq(fields["op"])
        with m.Elif(inner):
            m.d.sync += [
                left1.eq(left1 - 1), any1.eq(left1 != 2), wait1.eq(d1), now1.eq(dense1),
                uop.idx.eq(uop.idx + 1), uop.i1.eq(uop.i1 + 1),
                uop.first.eq(0), uop.i1_first.eq(0),
                uop.i1_last.eq(left1 == 2), uop.last.eq((left1 == 2) & ~any2),
            ]  # fmt: skip
        with m.Elif(outer):
            m.d.sync += [
                left2.eq(left2 - 1), any2.eq(left2 != 2), wait2.eq(d2), now2.eq(dense2),
                left1.eq(n1), any1.eq(many1), wait1.eq(d1), now1.eq(dense1),
                uop.idx.eq(uop.idx + 1), uop.i1.eq(0),
                uop.first.eq(0), uop.i1_first.eq(1), uop.i2_first.eq(0),
                uop.i1_last.eq(~many1), uop.last.eq(~many1 & (left2 == 2)),
            ]  # fmt: skip

        for operand in f.operands:
            name = operand.name
            if name not in {a.name for a in f.addresses}:
                with m.If(taken):
                    m.d.sync += uop[name].eq(fields[name])
        for a in f.addresses:
            start = Signal(a.bits, name=f"{a.name}_start")
            begin = fields[a.name]
            if a.based:
                bases = Array([getattr(self, f"base_{a.name}_{b}") for b in range(8)])
                begin = (begin + bases[fields[f"{a.name}_sel"]])[: a.bits]
            s1, s2 = Signal(a.bits, name=f"{a.name}_s1"), Signal(a.bits, name=f"{a.name}_s2")
            with m.If(taken):
                m.d.sync += [uop[a.name].eq(begin), start.eq(begin)]
                if a.inner:
                    m.d.sync += s1.eq(fields[f"{a.name}_s1"])
                if a.outer and f.outer:
                    m.d.sync += s2.eq(fields[f"{a.name}_s2"])
            with m.Elif(inner):
                m.d.sync += uop[a.name].eq(uop[a.name] + s1)
            with m.Elif(outer):
                m.d.sync += [uop[a.name].eq(start + s2), start.eq(start + s2)]
        return m
