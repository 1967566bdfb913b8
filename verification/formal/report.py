"""The record of a run of all proofs, for ``docs/verification.md``."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from verification.evidence import Record

from .document import extent
from .proof import Proof

HOLES = "What the proofs leave out: docs/formal.md, Proof holes."


@dataclasses.dataclass
class Tally:
    """What a run has shown: ``held``, seconds by proof; ``failed``, why by proof; ``found``: seeded bugs, of
    ``sought``."""

    held: dict[str, float] = dataclasses.field(default_factory=dict)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    found: int = 0
    sought: int = 0
    blind: list[str] = dataclasses.field(default_factory=list)


def record(proofs: Sequence[Proof], tally: Tally, command: str, begun: tuple[str, str], seconds: int) -> Record:
    """``proofs``: all that were to run."""
    held = [p for p in proofs if p.name in tally.held]
    kinds = Counter(extent(p).split(":")[0].split(" (")[0] for p in held)
    bugs = sum(len(p.mutants) for p in proofs)
    sought = f"{tally.found} of {tally.sought} tried, {bugs} in all" if tally.sought else f"not tried ({bugs})"
    slowest = max(tally.held, key=lambda name: tally.held[name], default="-")
    figures: dict[str, int | float | str] = {"proofs": len(proofs), "hold": len(held)}
    figures |= {f"of these, {kind}": count for kind, count in sorted(kinds.items())}
    figures["seeded bugs found"] = sought
    figures["longest"] = f"{slowest}, {round(tally.held.get(slowest, 0))} s"
    open_ = [f"`{name}`: {' '.join(why.split())}" for name, why in tally.failed.items()]
    open_ += [f"`{p.name}` was not run." for p in proofs if p.name not in tally.held | tally.failed]
    open_ += [f"`{name}` does not notice a bug that was put in." for name in tally.blind]
    open_ += [f"`{p.name}` is {extent(p)}." for p in held if extent(p).startswith("bounded")]
    return Record(
        part="formal",
        title="Formal proofs",
        command=command,
        config=", ".join(sorted({p.config for p in proofs} - {"-"})),
        seeds="-",
        evidence="proved: sby with Yosys and z3",
        figures=figures,
        open=(*open_, HOLES),
        date=begun[0],
        commit=begun[1],
        seconds=seconds,
    )
