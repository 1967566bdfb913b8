"""One proof, as the registry lists it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from .harness import Harness
from .mutate import Mutant


@dataclasses.dataclass(frozen=True)
class Proof:
    """A harness and how it is checked.

    ``mode``: ``prove`` (k-induction: all runs of any length) or ``bmc`` (all runs of ``depth`` cycles from reset);
    ``depth``: the k, or the cycles; ``proves`` and ``assumes``: for people; ``config``: the sizes, or "-" where none
    matter; ``cover``: cycles in which every cover statement must be reached, 0 where nothing is assumed and
    covered; ``mutants``: seeded bugs, each of which must make the proof fail; ``engine``: of sby; ``slow``: left to
    ``make regress``; ``timeout_s``: of each call of sby; ``maps``: Verilog files beside this one that say cells in a
    form that suits the solver (yosys's ``techmap``).
    """

    name: str
    factory: Callable[[], Harness]
    mode: str
    depth: int
    config: str
    proves: str
    assumes: str
    mutants: tuple[Mutant, ...]
    cover: int = 0
    engine: str = "smtbmc z3"
    slow: bool = False
    timeout_s: int = 600
    maps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in ("bmc", "prove"):
            raise ValueError(f"proof {self.name!r}: mode {self.mode!r} is neither bmc nor prove")
        if not self.mutants:
            raise ValueError(f"proof {self.name!r}: without a seeded bug nobody knows whether it can fail")
