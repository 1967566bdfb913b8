"""Proof of the sequencer: how long a phase lasts and what follows it, against a reading of the phase table."""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal, Value
from amaranth.lib import data

from hdl.icu.sequencer import Sequencer
from hdl.image import Space
from hdl.isa import PHASE_BITS, PHASE_FIELDS
from hdl.timing import get_timing

from .harness import SMALL, Harness, Opened
from .platforms import ReadOnly, Words

_NAMELESS = {
    "again": "$signal", "ends": "$signal#2", "settled": "$signal#3", "phase": "$signal#4",
    "upcoming": "$like",
}  # fmt: skip
"""Registers that have no name in the unit: how :class:`Opened` calls them."""



class Walk(Harness):
    """Every phase of every table lasts dur + slope * count cycles, and the next one is that of the table's rules.

    The outputs are those that the queues' proofs assume (``icu_queue.Clock``). What the unit's registers hold in each
    cycle of a phase is stated, too: with that the induction goes through.
    """

    def build(self, m: Module) -> None:
        cfg = SMALL
        table = Words(m, cfg.phase_depth, PHASE_BITS, "phase")
        unit = Sequencer(cfg)
        m.submodules.unit = opened = Opened(unit, ReadOnly(table))
        go, layers = self.free("go"), self.fixed("layers", 8)
        counts = [self.fixed(f"count_{i}", cfg.position_bits) for i in range(3)]
        self.drive_free(unit.sampled, unit.more)
        m.d.comb += [
            unit.go.eq(go), unit.layers.eq(layers),
            unit.count_sets.eq(counts[0]), unit.count_words.eq(counts[1]), unit.count_rows.eq(counts[2]),
        ]  # fmt: skip
        self.assume(layers != 0)
        layout = data.StructLayout({f.name: f.bits for f in PHASE_FIELDS})
        here, loop, layer = Signal(range(cfg.phase_depth)), Signal(range(cfg.phase_depth)), Signal(8)
        # The tail: the last row loaded with its flag, none as long as it is row 0 without.
        tail, has_tail = Signal(range(cfg.phase_depth)), Signal()
        loading, row = self.free("loading"), self.free("row", len(tail))
        flagged = self.free("flagged")
        m.d.comb += [
            unit.load.valid.eq(loading), unit.load.space.eq(Space.PHASE), unit.load.addr.eq(row),
            unit.load.data.eq(flagged << PHASE_BITS - 1),
        ]  # fmt: skip
        with m.If(loading & (flagged | (row == 0))):
            m.d.sync += [tail.eq(row), has_tail.eq(flagged)]
        phase = Signal(layout)
        m.d.comb += phase.eq(Array(table.words)[here])
        running, cycle, total, idle = Signal(), Signal(21), Signal(32), Signal(2)
        chosen, length = Signal(cfg.position_bits), Signal(21)
        m.d.comb += [
            chosen.eq(Array([0, *counts])[phase.count]),
            length.eq(phase.dur + phase.slope * chosen),
        ]
        # What the assembler checks and the compiler keeps to.
        self.assume(~running | ((length >= get_timing(cfg).phase_min) & (length < 1 << 20)))
        self.assume(~running | (here != cfg.phase_depth - 1) | phase.final | phase.loop_end)
        self.assume(~go | (~running & (idle == 3)))
        self.assume(~running | ~loading)
        last, again, ends, diverts = Signal(), Signal(), Signal(), Signal()
        # ``sampled`` and ``more`` are settled before a phase can end (``Timing.token``).
        sampled_first, more_last = Signal(), Signal()
        m.d.comb += [
            last.eq(running & (cycle == length - 1)),
            again.eq(phase.loop_end & (layer + 1 != layers)),
            ends.eq(~again & (phase.final | (phase.prompt_final & ~sampled_first))),
            diverts.eq(has_tail & ~sampled_first & (layer + 2 == layers)),
            more_last.eq(unit.more),
        ]
        self.assume(~running | (unit.sampled == Mux(cycle == 0, unit.sampled, sampled_first)))
        with m.If(running & (cycle == 0)):
            m.d.comb += sampled_first.eq(unit.sampled)
        kept = self.was(sampled_first, 1, "sampled")
        with m.If(~(running & (cycle == 0))):
            m.d.comb += sampled_first.eq(kept)

        begins, stops, restarts = Signal(), Signal(), Signal()
        following = Signal.like(here)
        m.d.comb += [
            restarts.eq(go | (last & ends)),
            begins.eq(go | (last & (~ends | more_last))),
            stops.eq(last & ends & ~more_last),
            following.eq(Mux(restarts, 0, Mux(again, Mux(diverts, tail, loop), here + 1))),
        ]
        jumps = Signal()
        m.d.comb += jumps.eq(last & again)
        next_phase = Signal(layout)
        m.d.comb += next_phase.eq(Array(table.words)[following])
        m.d.sync += [cycle.eq(cycle + 1), total.eq(total + 1), idle.eq(Mux(running, 0, Mux(idle == 3, 3, idle + 1)))]
        with m.If(begins):
            m.d.sync += [running.eq(1), cycle.eq(0), here.eq(following)]
            with m.If(next_phase.loop_begin):
                m.d.sync += [loop.eq(following), layer.eq(Mux(jumps, layer + 1, 0))]
            with m.If(restarts):
                m.d.sync += total.eq(1)
        with m.Elif(stops):
            m.d.sync += running.eq(0)

        self.holds(unit.begin == begins)
        self.holds(unit.restart == restarts)
        self.holds(unit.jump == jumps)
        self.holds(~jumps | (unit.divert == diverts))
        self.holds(unit.token_end == (last & ends))
        self.holds(unit.running == running)
        self.holds(~running | begins | (unit.upcoming == cycle + 1))
        self.holds(unit.mark == self.was(begins & next_phase.loop_begin & ~jumps))
        self.holds(unit.enter == Mux(begins, next_phase.queues, 0))
        self.holds(~(last & ends) | (unit.cycles == total))

        # The unit's registers, one step behind the other from a phase's first cycle on, and between two runs.
        def register(name: str) -> Value:
            return Value.cast(opened[_NAMELESS.get(name, name)])

        known: dict[str, tuple[int, Value]] = {
            "upcoming": (0, cycle + 1),
            "index": (0, here),
            "phase": (0, Value.cast(phase)),
            "settled": (0, cycle >= 5),
            "last": (0, last),
            "cycles": (0, total),
            "again": (1, again),
            "ends": (1, ends),
            "divert": (1, diverts),
            "chosen": (1, chosen),
            "after": (2, Mux(ends, 0, Mux(again, Mux(diverts, tail, loop), (here + 1)[: len(here)]))),
            "variable": (2, phase.slope * chosen),
            "following": (3, Array(table.words)[register("after")]),
            "last_but_one": (3, (length - 1)[:20]),
        }
        for name, (since, value) in known.items():
            self.holds(~running | (cycle < since) | (register(name) == value))
        self.holds((register("loop") == loop) & (register("layer") == layer))
        self.holds((register("tail") == tail) & (register("has_tail") == has_tail))
        self.holds(~running | (cycle < length))
        self.holds(running | (~register("last") & (register("after") == 0)))
        self.holds(running | (idle == 0) | (register("following") == table.words[0]))

        looped = Signal(2)
        m.d.sync += looped.eq(looped + jumps)
        self.reached(jumps & (layer == 1))
        self.reached(last & (chosen == 3) & (phase.slope == 2))
        self.reached(begins & restarts & ~go & (layers == 2) & (looped == 1))
        self.reached(stops)
        self.reached(jumps & diverts & (tail == 2))
