"""Functional coverage: the bins of :mod:`.fields`, :mod:`.pairs`, :mod:`.numeric` and :mod:`.machine_corners`.

A :class:`Sampler` follows the instruction-level machine while it makes the trace for a lockstep run. Its bins count
only when the core has shown the whole trace in its cycles: :meth:`Sampler.commit` is called behind the comparison.

Why not ``cocotb-coverage``: its points count where they are sampled, in one database of the process; here the samples
come from the machine, before the simulation, and are dropped when that differs. What is left of it would be the
report, and the bins are plain names that merge as sets.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from hdl.config import Config
from hdl.isa import Instr, get_isa
from sim.machine import TokenRun, Uop

from . import fields, machine_corners, numeric, pairs

FILE = "functional.json"
"""Of the bins that were reached, in a state's folder."""


class Sampler:
    """Bins of the machine's runs; ``confirmed``: those of runs that RTL and machine agreed on."""

    def __init__(self, cfg: Config, path: Path | None = None, known: Path | None = None) -> None:
        """``path``: where :meth:`commit` leaves them, as JSON; ``known``: those that earlier runs have reached."""
        self.cfg, self.path = cfg, path
        self._known = None if known is None else load(known)
        self.confirmed: set[str] = set()
        self.seen: set[str] = set()
        self._formats = get_isa(cfg).formats
        self._pairs = pairs.Pairs(cfg)

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """A run of the machine: what was seen before and not committed is dropped."""
        self.seen = set()
        self._pairs = pairs.Pairs(self.cfg)
        with numeric.watching(self.seen):
            yield

    def issued(self, instr: Instr) -> None:
        """An instruction was issued."""
        self.seen.update(fields.of_instruction(self._formats[instr.queue], instr))

    def retired(self, run: TokenRun, cycle: int, uop: Uop) -> None:
        """A micro-op was executed in a cycle of the run."""
        self.seen.update(self._pairs.take(cycle, uop))
        self.seen.update(machine_corners.corners(run, uop))

    @property
    def worthwhile(self) -> bool:
        """Whether the core should be run: always, or, where bins are known, if the machine's run had another one."""
        return self._known is None or bool((self.seen & wanted(self.cfg)) - self._known - self.confirmed)

    def commit(self) -> None:
        """The core did the same."""
        self.confirmed |= self.seen & wanted(self.cfg)
        self.seen = set()
        if self.path is not None:
            save(self.path, self.confirmed)


def wanted(cfg: Config) -> set[str]:
    """All bins, those that are excluded too."""
    return fields.wanted(cfg) | pairs.wanted(cfg) | numeric.WANTED | machine_corners.wanted(cfg)


def family(name: str) -> str:
    """The kind of a bin, for a table."""
    if "=" in name:
        return "opcode x field corner"
    return "back-to-back pairs" if ">>" in name else "pairs across slices" if "|" in name else "numeric corners"


def save(path: Path, bins: Iterable[str]) -> None:
    """Bins as JSON; the new file is whole before it takes the old one's place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(sorted(bins), indent=0) + "\n", encoding="utf-8")
    new.replace(path)


def load(path: Path) -> set[str]:
    """Bins of a file; none where there is no file. Raises ValueError, which names it, where it is damaged."""
    if not path.exists():
        return set()
    try:
        return set(map(str, json.loads(path.read_text(encoding="utf-8"))))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: not a list of bins ({error}); delete it and run again") from None
