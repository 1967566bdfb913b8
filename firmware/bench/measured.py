"""Cycles of whole contexts as the RTL counts them."""

from __future__ import annotations

import dataclasses

from hdl.config import Config
from sim.verilator import Library

from ..compiler import Compilation
from ..errors import LpuError
from ..simulate import Request, simulate


@dataclasses.dataclass(frozen=True)
class Run:
    """A context in RTL simulation, equal to the reference and to the predicted cycles."""

    config: str
    sequences: int
    cycles: list[int]
    """Of each token."""
    khz: float
    """Simulated clock."""
    cpu_khz: float
    """Simulated cycles a millisecond of processor time, all threads."""


def run_context(library: Library, compilation: Compilation, cfg: Config) -> Run:
    """Fills the context from prompts of one token, greedily. Raises :class:`LpuError` where the RTL differs."""
    context, sequences = compilation.shape.context, compilation.image.sequences
    request = Request(prompt=[1], tokens=context, stop_ids=(), second=[2] if sequences == 2 else None)
    outcome = simulate(library, compilation.image, compilation.qmodel, cfg, request)
    if not outcome.matches:
        raise LpuError(f"the RTL of {cfg.name} differs from reference or predicted cycles (lpu sim shows where)")
    return Run(cfg.name, sequences, outcome.cycles, outcome.khz, outcome.cpu_khz)
