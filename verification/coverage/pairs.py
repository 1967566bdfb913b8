"""Bins of neighbours: two instructions of one queue back to back, and micro-ops of two queues in neighbouring cycles.

*Back to back* (``A>>B``): the first micro-op of B comes as soon behind the last one of A as the machine allows it
(:func:`closest`), which is the next cycle but for the pairs named there. *Neighbours* (``A|B``): a micro-op of B
comes in the cycle behind one of A, in another queue. ACC, whose format has one operation, counts as two: it drains
accumulators, or the gather stream.
"""

from __future__ import annotations

from collections.abc import Iterator

from hdl.config import TINY, Config
from hdl.isa import AccSource, Queue, VxOp, get_isa
from hdl.timing import get_timing
from sim.machine import Uop

_EMITS = "TOP.EMIT"
_OPS = {queue: fmt.ops for queue, fmt in get_isa(TINY).formats.items()}
"""Operations of each queue; every size has the same."""


def operations(cfg: Config) -> dict[str, Queue]:
    """All operations, and their queues."""
    out: dict[str, Queue] = {}
    for queue, fmt in get_isa(cfg).formats.items():
        names = list(AccSource) if queue is Queue.ACC else list(fmt.ops)
        out |= {f"{queue.name}.{op.name}": queue for op in names}
    return out


def operation(uop: Uop) -> str:
    """A micro-op's operation, as :func:`operations` names it."""
    if uop.queue is Queue.ACC:
        return f"ACC.{AccSource(uop['source']).name}"
    return f"{uop.queue.name}.{_OPS[uop.queue](uop['op']).name}"


def closest(cfg: Config, a: str, b: str, noise: bool = False) -> int:
    """Cycles from the last micro-op of A to the first one of B, of one queue, that the machine asks for at least.

    ``noise``: A is an INSERT with noise.
    """
    t = get_timing(cfg)
    if (a, b) == ("TOP.INSERT", _EMITS):
        return t.top_insert_noise if noise else t.top_insert
    if (a, b) == ("ABC.GATHER", "ABC.GATHER"):
        return cfg.word_rows  # rows of a word on the gather stream
    if a.startswith("VX.") and b.startswith("VX."):
        # Both results would be on Z in one cycle; SILU's comes with its second row.
        first, second = (t.vx(VxOp[name.removeprefix("VX.")]) for name in (a, b))
        return 2 if first - second == 1 and b != "VX.SILU" else 1
    return 1


def wanted(cfg: Config) -> set[str]:
    """Everything to reach."""
    ops = operations(cfg)
    out = {f"{a}>>{b}" for a in ops for b in ops if ops[a] is ops[b]}
    return out | {f"{a}|{b}" for a in ops for b in ops if ops[a] is not ops[b]}


class Pairs:
    """Follows the micro-ops of a run, which come in the order of their cycles; names the pairs that they make."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self._last: dict[Queue, tuple[int, str, bool]] = {}
        self._before: tuple[int, set[str]] = (-2, set())
        self._now: tuple[int, set[str]] = (-1, set())
        self._queues = operations(cfg)

    def take(self, cycle: int, uop: Uop) -> Iterator[str]:
        """Bins that a micro-op reaches in a cycle of the run."""
        name = operation(uop)
        if cycle != self._now[0]:
            self._before, self._now = self._now, (cycle, set())
        if self._before[0] == cycle - 1:
            yield from (f"{a}|{name}" for a in self._before[1] if self._queues[a] is not uop.queue)
        self._now[1].add(name)
        if uop.idx == 0 and uop.queue in self._last:
            at, a, noise = self._last[uop.queue]
            if cycle - at == closest(self.cfg, a, name, noise):
                yield f"{a}>>{name}"
        noise = bool(uop.queue is Queue.TOP and uop["noise"])
        self._last[uop.queue] = cycle, name, noise

