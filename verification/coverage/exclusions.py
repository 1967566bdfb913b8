"""What is not asked for, each with the reason. A pattern that matches nothing is an error: the list cannot rot.

Nothing that a program, a host or a reset could reach may stand here. Constant bits are not listed but proven, by
:mod:`.constants`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence


class StaleExclusion(ValueError):
    """An exclusion that excludes nothing any more."""


@dataclasses.dataclass(frozen=True)
class Exclusion:
    """``pattern`` must match a whole bin, or ``module: source line`` (lines), or ``module: signal`` (toggles)."""

    kind: str
    pattern: str
    reason: str

    def matches(self, kind: str, name: str) -> bool:
        """Whether this point is meant."""
        return self.kind == kind and re.fullmatch(self.pattern, name) is not None


_T = "the router's row T has fewer chosen logits than lanes; only EXP leaves out the others, so no other op may read it"

EXCLUSIONS: tuple[Exclusion, ...] = (
    # Functional.
    Exclusion("bin", r"VX\.(PASS|ADD|GAIN|ROPE|SILU)\.source=T", _T),
    Exclusion("bin", r"TOP\.EMIT>>TOP\.EMIT", "the lists are emitted once: another EMIT needs an INSERT before it"),
    Exclusion("bin", r"SFU\.PROB\.b=max", "P has one value a lane, and fewer lanes than the field can name"),
    Exclusion("bin", r"EXP\.out\.sat[+-]", "a probability of 1 times a 16-bit coefficient is at most 2^31 in size, and "
              "-2^31 is a word: no result is beyond 32 bits"),
    # Lines.
    Exclusion("line", r".*: if \(\\\$auto\$verilog_backend\S*dump_module\$\d+ ?\) begin end",
              "a line of Yosys' Verilog that wakes simulators at time 0; its condition is the constant 0"),
    Exclusion("line", r"lpu_(dual_)?bank\S*: if \((\$value\$plusargs\(.*|file != 0\) begin)",
              "loads a bank from a file, for the simulations of `make sim`; no part of the hardware"),
    Exclusion("line", r"icu\.queue_(sfu|top|vx|xr|xw): (end else )?if \(outer\) begin",
              "these formats have no outer loop: its count is the constant 1, so it never takes a step"),
    # Toggles.
    Exclusion("toggle", r".*: \$auto\$verilog_backend\S*dump_module.*", "the constant of that line of Yosys'"),
    Exclusion("toggle", r"lpu_bank\S*: words\[.*", "the array of a memory is storage, not a signal; only the smallest "
              "banks are below Verilator's width limit at all"),
)  # fmt: skip


def first_match(kind: str, name: str, exclusions: Sequence[Exclusion] = EXCLUSIONS) -> Exclusion | None:
    """The exclusion that a point falls under."""
    return next((e for e in exclusions if e.matches(kind, name)), None)


def check_used(used: Iterable[Exclusion], exclusions: Sequence[Exclusion] = EXCLUSIONS) -> None:
    """Raises :class:`StaleExclusion` for exclusions that matched nothing."""
    seen = set(used)
    for exclusion in exclusions:
        if exclusion not in seen:
            raise StaleExclusion(f"the exclusion {exclusion.kind} {exclusion.pattern!r} matches nothing: remove it")
