"""What a proof is made of: a design closed for a model checker, with free inputs and a view into its registers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth.asserts import AnyConst, AnySeq, Initial
from amaranth.hdl import Assert, ClockDomain, Cover, Elaboratable, Fragment, Module, ShapeLike, Signal, Value
from amaranth.hdl import Assume as Assume

from hdl.config import TINY, Config

SMALL = Config(
    name="formal", lanes=8, columns=2, vlanes=2, accs=4, acc_bits=32,
    weight_depth=8, act_depth=4, scale_depth=4, coef_depth=4, vector_depth=4,
    queue_depth=16, phase_depth=4, context_max=4, vocab_max=4, experts_max=2, topk_max=2,
    head_max=8, square_lanes=2, time_bits=6,
)  # fmt: skip
"""The least sizes: for proofs whose cost grows with addresses and counts."""
SIZES = {c.name: c for c in (SMALL, TINY)}


class Harness(Elaboratable):
    """A closed design. Subclasses say in :meth:`build` what is free, assumed, asserted and covered.

    The clock has no reset: a run begins with the initial values of all registers.
    """

    platform: object | None = None
    """Given to the units' ``elaborate``: what stands for their memories, say."""

    def __init__(self) -> None:
        self.domain = ClockDomain("sync", reset_less=True)
        self.m = Module()
        self.m.domains.sync = self.domain

    def build(self, m: Module) -> None:
        raise NotImplementedError

    def elaborate(self, platform: object) -> Module:
        self.build(self.m)
        return self.m

    def free(self, name: str, shape: ShapeLike = 1) -> Signal:
        """A signal with any value in every cycle."""
        return self._any(name, shape, AnySeq)

    def fixed(self, name: str, shape: ShapeLike = 1) -> Signal:
        """A signal with any value, the same in all cycles."""
        return self._any(name, shape, AnyConst)

    def _any(self, name: str, shape: ShapeLike, kind: Callable[[int], Value]) -> Signal:
        signal: Signal = Signal(shape, name=name)
        if len(Value.cast(signal)):
            self.m.d.comb += Value.cast(signal).eq(kind(len(Value.cast(signal))))
        return signal

    def first(self) -> Value:
        """Whether this is the first cycle of all."""
        return Initial()

    def drive_free(self, *ports: Any, prefix: str = "") -> None:
        """Each of these input signals gets any value in every cycle."""
        for port in ports:
            value = Value.cast(port)
            self.m.d.comb += value.eq(self.free(f"{prefix}{getattr(value, 'name', 'free')}", len(value)))

    def was(self, value: Any, cycles: int = 1, name: str = "was") -> Signal:
        """A value some cycles ago; zero before the first."""
        value = Value.cast(value)
        for i in range(cycles):
            late = Signal(value.shape(), name=f"{name}_{i + 1}")
            self.m.d.sync += late.eq(value)
            value = late
        return value

    def holds(self, condition: Any) -> None:
        """Asserted in every cycle."""
        self.m.d.comb += Assert(condition, src_loc_at=1)

    def assume(self, condition: Any) -> None:
        """Assumed in every cycle."""
        self.m.d.comb += Assume(condition, src_loc_at=1)

    def reached(self, condition: Any) -> None:
        """Covered: some run gets there."""
        self.m.d.comb += Cover(condition, src_loc_at=1)


class Opened(Elaboratable):
    """A unit whose registers can be read from outside.

    ``registers``: by path, submodule names with dots between them; of several with one name the later ones get
    ``#2`` and so on. Interface ports that are registers are among them.
    """

    def __init__(self, unit: Elaboratable, platform: object | None = None):
        self.fragment = Fragment.get(unit, platform)
        self.registers: dict[str, Signal] = {}
        self._collect(self.fragment, "")

    def elaborate(self, platform: object) -> Fragment:
        return self.fragment

    def _collect(self, fragment: Fragment, path: str) -> None:
        known = set()
        for domain, statements in fragment.statements.items():
            if domain == "comb":
                continue
            for signal in statements._lhs_signals():
                if id(signal) in known:
                    continue
                known.add(id(signal))
                name, n = f"{path}{signal.name}", 1
                while name in self.registers:
                    n += 1
                    name = f"{path}{signal.name}#{n}"
                self.registers[name] = signal
        for sub, name, _ in fragment.subfragments:
            self._collect(sub, f"{path}{name}.")

    def __getitem__(self, path: str) -> Signal:
        """A register; an unknown one raises KeyError that lists the known ones."""
        if path not in self.registers:
            raise KeyError(f"no register {path!r}; there are: {', '.join(self.registers)}")
        return self.registers[path]
