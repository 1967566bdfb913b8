"""Proofs of an instruction queue: what it issues, against a reading of docs/isa.md, for every program."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value

from hdl.config import Config
from hdl.icu.queue import InstructionQueue, base_names
from hdl.isa import FETCH_BITS, Count, Queue, get_isa
from hdl.timing import get_timing
from hdl.uop import index_bits

from .harness import SMALL, Harness, Opened
from .platforms import ReadOnly, Words

COUNTS = (Count.SETS, Count.WORDS, Count.ROWS)
_NAMELESS = {
    "now1": "$signal", "now2": "$signal#2", "n1": "$signal#3", "left1": "$signal#4", "any1": "$signal#5",
    "many1": "$signal#6", "d1": "$signal#7", "dense1": "$signal#8", "any2": "$signal#9", "d2": "$signal#10",
}  # fmt: skip
"""Registers that have no name in the unit: how :class:`Opened` calls them."""


class Clock(Harness):
    """What the sequencer tells a queue, with free choices: when a phase ends, what follows, whether it has
    instructions here. ``icu_sequencer`` proves that the sequencer keeps to it."""

    def phases(self, m: Module) -> None:
        self.running, self.cycle = Signal(), Signal(20)
        """A phase is in progress, and its cycle."""
        idle = Signal(3, init=7)
        last, end, more, again, go = (self.free(n) for n in ("last", "end", "more", "again", "go"))
        self.begin, self.restart, self.jump, self.enter, self.mark = (
            Signal(name=n) for n in ("begin", "restart", "jump", "enter", "mark")
        )
        is_last = Signal()
        loop_begin, self.divert = self.free("loop_begin"), self.free("divert")
        looped = Signal()
        m.d.comb += [
            is_last.eq(self.running & last & (self.cycle >= get_timing(SMALL).phase_min - 1)),
            self.jump.eq(is_last & again & looped),
            self.restart.eq((is_last & end & ~self.jump) | (go & ~self.running & (idle == 7))),
            self.begin.eq((is_last & (~self.restart | more)) | (~self.running & self.restart)),
            self.enter.eq(self.begin & self.free("instructions_here")),
        ]
        m.d.sync += [
            self.cycle.eq(Mux(self.begin, 0, self.cycle + 1)),
            self.running.eq(Mux(self.running, ~is_last | self.begin, self.begin)),
            idle.eq(Mux(self.running, 4, Mux(idle == 7, 7, idle + 1))),
            self.mark.eq(self.begin & loop_begin & ~self.jump),
            looped.eq(~self.restart & (looped | self.mark)),
        ]


class Issue(Clock):
    """Every micro-op of every instruction in its cycle, with its addresses and flags; nothing else; no fault.

    The model below keeps a list of instructions, unpacked, and counts in i1 and i2; it shares no line with the HDL.
    What it asks of a program is what the scheduler keeps to (docs/schedule.md): distances of ``Timing.fetch_gap``, an
    instruction at an end before the next one issues, all of a phase's instructions issued before its end.
    """

    def __init__(self, queue: Queue, cfg: Config = SMALL):
        super().__init__()
        self.queue = queue
        self.cfg = dataclasses.replace(cfg, queue_depth=4 * get_isa(cfg).formats[queue].words)

    def build(self, m: Module) -> None:
        cfg = self.cfg
        fmt = get_isa(cfg).formats[self.queue]
        gap = get_timing(cfg).fetch_gap(fmt)
        program = Words(m, cfg.queue_depth, FETCH_BITS)
        unit = InstructionQueue(cfg, self.queue)
        self.phases(m)
        m.submodules.unit = opened = Opened(unit, ReadOnly(program))
        m.d.comb += [
            unit.begin.eq(self.begin), unit.upcoming.eq(self.cycle + 1), unit.enter.eq(self.enter),
            unit.restart.eq(self.restart), unit.mark.eq(self.mark), unit.jump.eq(self.jump),
            unit.divert.eq(self.divert),
        ]  # fmt: skip
        counts = {c: getattr(unit, f"count_{c.name.lower()}") for c in COUNTS}
        self.drive_free(*counts.values())
        bases = {a: [getattr(unit, f"base_{a}_{b}") for b in range(8)] for a in base_names(cfg, self.queue)}
        self.drive_free(*(b for row in bases.values() for b in row))
        for value in counts.values():
            self.assume(value != 0)  # ceil(n / size) of at least one key

        # The program as a list of instructions.
        length = cfg.queue_depth // fmt.words
        instrs: list[Mapping[str, Value]] = []
        for i in range(length):
            word, at, fields = Cat(program.words[i * fmt.words : (i + 1) * fmt.words]), 0, {}
            for field in fmt.fields:
                fields[field.name] = word[at : at + field.bits]
                at += field.bits
            instrs.append(fields)
            for n in ("n1", "d1", *(("n2", "d2") if fmt.outer else ())):
                self.assume(fields[n] != 0)  # the assembler refuses it
        here, saved = Signal(range(length)), Signal(range(length))
        now = {f.name: Signal(f.bits, name=f"now_{f.name}") for f in fmt.fields}
        for name, signal in now.items():
            m.d.comb += signal.eq(Array(i[name] for i in instrs)[here])
        armed = Signal()
        issues = Signal()
        m.d.comb += issues.eq(self.running & armed & (now["time"] == self.cycle))
        since = Signal(4, init=15)  # cycles since the last issue or jump, up to 15
        busy, free_now = Signal(), Signal()  # of the loops: micro-ops are still to come, but not in this cycle
        m.d.sync += since.eq(Mux(since == 15, 15, since + 1))
        with m.If(issues):
            m.d.sync += [since.eq(1), here.eq(here + 1), armed.eq(~now["end"])]
        with m.If(self.mark):
            m.d.sync += saved.eq(here)
        with m.If(self.enter):
            m.d.sync += armed.eq(1)
        with m.If(self.restart | self.jump):
            m.d.sync += [here.eq(Mux(self.restart, 0, Mux(self.divert, length // 2, saved))), since.eq(0)]
        # What the scheduler keeps to. A jump is in the cycle before cycle 0, an issue in that of its time.
        self.assume(~issues | (since >= gap))
        self.assume(~issues | free_now)
        self.assume(~(self.running & armed) | (now["time"] >= self.cycle))
        ends = issues & now["end"]
        self.assume(~armed | ends | ~(self.begin | self.restart))
        # The list is all there is.
        over, last = Signal(), Signal()
        m.d.comb += last.eq(issues & (here == length - 1))
        m.d.sync += over.eq((over | last) & ~self.restart & ~self.jump)
        self.assume(~last | now["end"])
        self.assume(~((over | last) & (self.enter | self.mark) & ~self.restart & ~self.jump))

        # The loops: micro-op (i2, i1) comes i2 * max(d2, (n1 - 1) * d1 + 1) + i1 * d1 cycles behind the first.
        def count(name: str) -> Value:
            if name not in now:
                return Const(1, fmt.count_bits)
            return Array([now[name], *(counts[c] for c in COUNTS)])[now[f"{name}_sel"]]

        n1, n2, d1, d2 = (Signal(fmt.count_bits, name=n) if n[0] == "n" else Signal(12, name=n)
                          for n in ("n1", "n2", "d1", "d2"))  # fmt: skip
        i1, i2, index = Signal.like(n1), Signal.like(n2), Signal(index_bits(cfg))
        age, next_at, outer_at = Signal(16), Signal(16), Signal(16)
        kept = {o.name: Signal(f.bits, name=f"kept_{o.name}") for o, f in
                ((o, f) for o in fmt.operands for f in fmt.fields if f.name == o.name)}  # fmt: skip
        steps = {name: Signal(now[name].shape(), name=f"kept_{name}") for name in now if name[-3:] in ("_s1", "_s2")}
        op = Signal(now["op"].shape(), name="kept_op") if "op" in now else None
        valid = Signal()
        m.d.comb += [valid.eq(busy & (age == next_at)), free_now.eq(~busy | (valid & (i1 + 1 == n1) & (i2 + 1 == n2)))]
        m.d.sync += age.eq(age + 1)
        with m.If(issues):
            m.d.sync += [
                busy.eq(1), age.eq(0), next_at.eq(0), outer_at.eq(0), i1.eq(0), i2.eq(0), index.eq(0),
                n1.eq(count("n1")), n2.eq(count("n2")), d1.eq(now["d1"]), d2.eq(now["d2"] if fmt.outer else 1),
            ]  # fmt: skip
            m.d.sync += [s.eq(now[name]) for name, s in steps.items()]
            if op is not None:
                m.d.sync += op.eq(now["op"])
            for name, signal in kept.items():
                start: Value = now[name]
                if name in bases:
                    start = start + Array(bases[name])[now[f"{name}_sel"]]
                m.d.sync += signal.eq(start)
        with m.Elif(valid):
            m.d.sync += index.eq(index + 1)
            with m.If(i1 + 1 != n1):
                m.d.sync += [i1.eq(i1 + 1), next_at.eq(next_at + d1)]
            with m.Elif(i2 + 1 != n2):
                # Not before the inner loop is over: (n1 - 1) * d1 + 1 cycles behind its beginning.
                at = Mux(outer_at + d2 > next_at + 1, outer_at + d2, next_at + 1)
                m.d.sync += [i1.eq(0), i2.eq(i2 + 1), next_at.eq(at), outer_at.eq(at)]
            with m.Else():
                m.d.sync += busy.eq(0)

        uop = unit.uop
        self.holds(~unit.fault)
        self.holds(uop.valid == valid)
        self.holds(~valid | (uop.i1 == i1))
        self.holds(~valid | (uop.idx == index))
        self.holds(~valid | (uop.first == ((i1 == 0) & (i2 == 0))))
        self.holds(~valid | (uop.last == ((i1 + 1 == n1) & (i2 + 1 == n2))))
        self.holds(~valid | (uop.i1_first == (i1 == 0)))
        self.holds(~valid | (uop.i1_last == (i1 + 1 == n1)))
        self.holds(~valid | (uop.i2_first == (i2 == 0)))
        if op is not None:
            self.holds(~valid | (uop.op == op))
        for o in fmt.operands:
            address: Value = kept[o.name]
            for step, i in ((f"{o.name}_s1", i1), (f"{o.name}_s2", i2)):
                if step in steps:
                    address = address + steps[step] * i
            self.holds(~valid | (uop[o.name] == address[: len(kept[o.name])]))
        # With what the unit's registers hold the induction goes through. First what is being fetched.
        words = fmt.words

        def register(name: str) -> Value:
            return Value.cast(opened[_NAMELESS.get(name, name)])

        fetched = Signal(range(words + 2))  # cycles since the fetch began, up to when it is over
        m.d.sync += fetched.eq(Mux(fetched == words + 1, fetched, fetched + 1))
        with m.If(issues | self.restart | self.jump):
            m.d.sync += fetched.eq(0)
        requested = Mux(fetched < words, fetched, words)
        first = here * words
        whole = Cat(*(Array(program.words)[(first + i)[: len(register("pc"))]] for i in range(words)))

        def least(cycles: Value) -> Value:
            return fetched == Mux(cycles < words + 1, cycles, words + 1)

        self.holds(fetched <= words + 1)
        self.holds(~self.running | least(since) | ((since != 0) & least(since - 1)))
        self.holds(~self.mark | (self.running & (self.cycle == 0)))
        self.holds(~armed | self.running)
        self.holds(register("armed") == armed)
        self.holds(register("taken") == issues)
        self.holds(~issues | (fetched == words + 1))
        self.holds(register("start") == first[: len(register("start"))])
        self.holds(register("saved") == (saved * words)[: len(register("saved"))])
        self.holds(register("pc") == (first + requested)[: len(register("pc"))])
        self.holds(register("reading") == requested)
        self.holds(register("arriving") == ((fetched != 0) & (fetched <= words)))
        self.holds(register("ready") == (fetched == words + 1))
        word = Array(whole.word_select(i, FETCH_BITS) for i in range(words))
        out = register("code.array.bank0_array")
        self.holds((fetched == 0) | (fetched > words) | (out == word[(fetched - 1)[: len(fetched)]]))
        for n in range(1, words + 1):
            kept_words = register("buffer")[FETCH_BITS * (words - n) :]
            self.holds((fetched != n + 1) | (kept_words == whole[: FETCH_BITS * n]))

        # The loops: which micro-op was made last, and how long until the next one.
        within = valid | (i1 != 0)
        """Of the pass in work: else the next micro-op is the first of the next pass."""
        made1 = Mux(valid, i1, Mux(i1 != 0, i1 - 1, n1 - 1))
        made2 = Mux(within, i2, i2 - 1)
        left, passed = next_at - age, age - outer_at

        def while_busy(condition: Value, when: Value | None = None) -> None:
            self.holds(~busy | condition if when is None else ~busy | ~when | condition)

        self.holds(busy | ~(register("any1") | register("any2")))
        while_busy((i1 < n1) & (i2 < n2) & (d1 != 0) & (d1 < 256) & (d2 != 0))
        while_busy((age <= next_at) & (next_at <= outer_at + 255 * i1) & (outer_at <= 4096 * i2))
        while_busy(next_at == outer_at, i1 == 0)
        while_busy(outer_at <= age, within)
        while_busy(i2 != 0, ~within)
        while_busy(left < d1, i1 != 0)
        while_busy(register("n1") == n1)
        while_busy(register("d1") == d1)
        while_busy(register("many1") == (n1 != 1))
        while_busy(register("dense1") == (d1 == 1))
        while_busy(register("left1") == n1 - made1)
        while_busy(register("left2") == n2 - made2)
        while_busy(register("any1") == (made1 + 1 != n1))
        while_busy(register("any2") == (made2 + 1 != n2))
        while_busy(register("wait1") == Mux(valid, d1, left), within)
        while_busy(register("now1") == (Mux(valid, d1, left) == 1), within)
        if fmt.outer:
            while_busy(register("d2") == d2)
            while_busy(register("dense2") == (d2 == 1))
            while_busy(register("now2") == (passed + 1 >= d2), within)
            while_busy(register("now2") | (register("wait2") == d2 - passed), within)
            while_busy((register("wait2") == left) & (register("now2") == (left == 1)), ~within)
        else:
            while_busy(n2 == 1)
        while_busy(uop.i1 == made1)
        while_busy(uop.i2_first == (made2 == 0))
        while_busy(uop.idx == Mux(valid, index, index - 1)[: len(index)])
        if op is not None:
            while_busy(uop.op == op)
        for o in fmt.operands:
            if o.name not in {a.name for a in fmt.addresses}:
                while_busy(uop[o.name] == kept[o.name])
        for a in fmt.addresses:
            start = kept[a.name]
            if a.outer and fmt.outer:
                while_busy(register(f"{a.name}_s2") == steps[f"{a.name}_s2"])
                start = start + steps[f"{a.name}_s2"] * made2
            while_busy(register(f"{a.name}_start") == start[: a.bits])
            if a.inner:
                while_busy(register(f"{a.name}_s1") == steps[f"{a.name}_s1"])
                start = start + steps[f"{a.name}_s1"] * made1
            while_busy(uop[a.name] == start[: a.bits])

        self.reached(valid & (i1 == 2) & (d1 == 2))
        self.reached(valid & (i2 == 1) & (n1 == 2) if fmt.outer else valid & (i1 == 3))
        self.reached(self.jump & self.was(issues))
        done = Signal(3)
        m.d.sync += done.eq(done + issues)
        self.reached(done == 3)
