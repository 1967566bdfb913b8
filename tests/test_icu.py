"""ICU in Amaranth's simulator: the scenarios of its bench, in sizes that the matrix leaves out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from amaranth.back import verilog

from hdl.config import CONFIGS, TINY, ULX3S_85F
from hdl.icu.icu import Icu
from hdl.isa import Queue
from verification.bench_icu import MISSES, IcuProbe, memory_errors, programs, run_control, two_sequences

SMALL = dataclasses.replace(TINY, name="v2", vlanes=2, columns=8, lanes=16, context_max=32)


@pytest.mark.parametrize("name", CONFIGS)
def test_verilog(name: str) -> None:
    """In every named size."""
    assert "module icu" in verilog.convert(Icu(CONFIGS[name]), name="icu", emit_src=False)


@pytest.mark.parametrize("cfg", [SMALL, ULX3S_85F], ids=lambda c: c.name)
def test_programs(cfg, rng: np.random.Generator) -> None:
    """Random programs issue in time."""
    programs(cfg, rng, 3).simulate(IcuProbe(cfg))


def test_run_control(rng: np.random.Generator) -> None:
    """Runs begin and end as they should."""
    run_control(SMALL, rng).simulate(IcuProbe(SMALL))


def test_memory_errors(rng: np.random.Generator) -> None:
    """A token with an error is not told and its run ends; one that comes late ends the next."""
    memory_errors(SMALL, rng).simulate(IcuProbe(SMALL))


def test_two_sequences(rng: np.random.Generator) -> None:
    """Two sequences end each in its time."""
    two_sequences(SMALL, rng).simulate(IcuProbe(SMALL))


@pytest.mark.parametrize("fault", [False, True])
@pytest.mark.parametrize("miss", MISSES, ids=lambda f: f.__name__)
def test_missed_issue(miss, fault: bool, rng: np.random.Generator) -> None:
    """A cycle too early raises ``fault``, a cycle later does not."""
    miss(SMALL, rng, Queue.SXM, fault).simulate(IcuProbe(SMALL))
