"""Proof that time does not depend on data: two ICUs with the same program and different data issue alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth.asserts import AnySeq
from amaranth.hdl import Module, Signal, Value

from hdl.config import Config
from hdl.icu.icu import Icu
from hdl.image import LoadBus
from hdl.isa import Address, Queue, get_isa
from hdl.uop import run_state_layout, uop_layout

from .harness import Harness, Opened
from .platforms import ReadOnly

PROMPTS = tuple(f"bank{len(Queue) + i}" for i in range(2))
"""The prompts' banks: elaborated behind those of the queues."""
DATA = (
    # The token id, sampled or read from the prompt; half products and place of its row of the embedding.
    *(f"best{i}" for i in range(2)),
    *(f"prompt{i}.array.{bank}_{part}" for i, bank in enumerate(PROMPTS) for part in ("array", "out")),
    *(f"registers.token{i}_{part}" for i in range(2) for part in ("low", "high", "w")),
    # The places of the chosen experts.
    *(f"registers.expert_{part}_{space}" for part in ("low", "high") for space in "ws"),
    *(f"registers.expert{i}_{space}" for i in range(3) for space in "ws"),
)  # fmt: skip
"""Registers of the ICU that may differ between the two, beside ``registers.state.token`` and the addresses that a base
register was added to (of a micro-op, and ``*_start``, from which its next row is counted)."""


def may_differ(cfg: Config, path: str) -> bool:
    """Whether a whole register may depend on data."""
    queue = {f"queue_{q.name.lower()}": q for q in Queue}.get(path.split(".")[0])
    if queue is None:
        return path in DATA
    return path.split(".")[-1] in {f"{a.name}_start" for a in get_isa(cfg).formats[queue].addresses if a.based}


class Pair(Harness):
    """Two ICUs: the same loads, run control, times of answers and programs; other experts, tokens and prompts.

    Memories are cut: what a program or phase memory returns is free, but the same in both as long as both read the
    same place, which is asserted. So it holds for every program, loaded in any way, of any length.
    """

    def __init__(self, cfg: Config):
        super().__init__()
        self.cfg = cfg

    def build(self, m: Module) -> None:
        cfg = self.cfg
        reads: dict[str, list[Value]] = {}
        same: dict[str, Signal] = {}

        def contents(copy: int) -> Callable[[str, Value, int], Value]:
            def read(name: str, addr: Value, width: int) -> Value:
                if name in PROMPTS:
                    return AnySeq(width)  # the prompt is data
                if name not in same:
                    same[name] = self.free(f"{name}_read", width)
                # The address as a signal of its own, seen from outside.
                seen = Signal(len(addr), name=f"{name}_addr{copy}")
                m.d.comb += seen.eq(addr)
                reads.setdefault(name, []).append(seen)
                return same[name]

            return read

        units = [Icu(cfg), Icu(cfg)]
        opened = [Opened(unit, ReadOnly(contents(i))) for i, unit in enumerate(units)]
        m.submodules.a, m.submodules.b = opened
        load = LoadBus(cfg).create()
        self.drive_free(*(getattr(load, name) for name in load.signature.members), prefix="load_")
        times = ("start", "abort", "expert_valid", "next_token_valid", "next_sequence")
        control = {name: self.free(name) for name in times}
        index = self.free("expert_index", 2)
        for i, unit in enumerate(units):
            m.d.comb += [getattr(unit.load, name).eq(getattr(load, name)) for name in load.signature.members]
            m.d.comb += [
                unit.control.start.eq(control["start"]),
                unit.control.abort.eq(control["abort"]),
                unit.expert_valid.eq(control["expert_valid"]),
                unit.expert_index.eq(index),
                unit.next_token_valid.eq(control["next_token_valid"]),
                unit.next_sequence.eq(control["next_sequence"]),
            ]
            self.drive_free(unit.expert_id, unit.next_token, prefix=f"copy{i}_")
        a, b = opened
        # Whether the sampled token is a stop id is the one thing that a token's value may decide.
        for best in ("best0", "best1"):
            stops = [
                (Value.cast(o[best]) == o["params.stop0"]) | (Value.cast(o[best]) == o["params.stop1"]) for o in opened
            ]
            self.assume(stops[0] == stops[1])
        for path, register in a.registers.items():
            other = b[path]
            if not may_differ(cfg, path):
                self._equal(path, register, other)
        missing = [path for path in DATA if path not in a.registers and "expert" not in path]
        assert not missing, f"no such registers: {missing}"
        for name, (one, two) in reads.items():
            assert name not in PROMPTS
            self.holds(one == two)
        for q in Queue:
            one, two = (getattr(unit, f"uop_{q.name.lower()}") for unit in units)
            self._uop(q, one, two)
        self.holds(units[0].control.busy == units[1].control.busy)
        self.holds(units[0].control.record == units[1].control.record)
        self.holds(units[0].control.cycles == units[1].control.cycles)
        self.holds(units[0].control.done == units[1].control.done)
        self.holds(units[0].fault == units[1].fault)
        self.reached(units[0].uop_abc.valid & (units[0].uop_abc.w != units[1].uop_abc.w))
        self.reached(units[0].control.record & (units[0].control.token != units[1].control.token))

    def _equal(self, path: str, one: Any, two: Any) -> None:
        if path == "registers.state":
            layout = run_state_layout(self.cfg)
            for name in ("position", "slot", "keys", "turn"):
                self.holds(layout(one)[name] == layout(two)[name])
        elif path.endswith(".uop"):
            queue = Queue[path.split(".")[0].removeprefix("queue_").upper()]
            layout = uop_layout(self.cfg, queue)
            self._uop(queue, layout(one), layout(two))
        else:
            self.holds(Value.cast(one) == Value.cast(two))

    def _uop(self, queue: Queue, one: Any, two: Any) -> None:
        """All of a micro-op but the addresses with a base register."""
        based = {o.name for o in get_isa(self.cfg).formats[queue].operands if isinstance(o, Address) and o.based}
        for name, _ in uop_layout(self.cfg, queue):
            if name not in based:
                self.holds(Value.cast(one[name]) == Value.cast(two[name]))
