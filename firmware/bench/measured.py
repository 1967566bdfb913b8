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
    cycles: list[int]
    """Of each token."""
    khz: float
    """Simulated clock."""
    cpu_khz: float
    """Simulated cycles a millisecond of processor time, all threads."""


def run_context(library: Library, compilation: Compilation, cfg: Config) -> Run:
    """Fills the context from a prompt of one token, greedily. Raises :class:`LpuError` where the RTL differs."""
    context = compilation.shape.context
    request = Request(prompt=[1], tokens=context, stop_ids=())
    outcome = simulate(library, compilation.image, compilation.qmodel, cfg, request)
    if not outcome.matches:
        raise LpuError(f"the RTL of {cfg.name} differs from reference or predicted cycles (lpu sim shows where)")
    return Run(cfg.name, outcome.cycles, outcome.khz, outcome.cpu_khz)
