"""Random programs: legal as they come, everything reached; what is illegal is refused, whatever it is."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hdl.config import CONFIGS, TINY, Config
from hdl.isa import IsaError
from sim.machine import Machine, MachineError
from verification.coverage import exclusions
from verification.coverage.fields import LATENCIES, reached, wanted
from verification.directed_program import DirectedGenerator
from verification.random_program import RandomProgram, random_program
from verification.rules import RULES, program

each_config = pytest.mark.parametrize("cfg", CONFIGS.values(), ids=CONFIGS)


def run(whole: RandomProgram) -> int:
    """Cycles in the machine."""
    machine = Machine(whole.cfg)
    whole.load(machine)
    return sum(record.cycles for record in machine.run())


def fields_of(bins: set[str]) -> set[str]:
    """Bins without their operations, ``QUEUE.field=value``: all operations of a queue together."""
    return {re.sub(r"^(\w+)\.\w+", r"\1", name) for name in bins}


def test_everything_is_reached(rng: np.random.Generator) -> None:
    """Operations, field values, latencies without a cycle to spare; and few programs are thrown away."""
    programs, refused = [], []
    for _ in range(120):
        whole, reasons = random_program(TINY, rng)
        programs.append(whole)
        refused += reasons
    seen, asked = fields_of(reached(TINY, (p.program for p in programs))), fields_of(wanted(TINY))
    missing = asked - seen
    print(f"{len(seen)} of {len(asked)} reached, not {sorted(missing)}; refused: {refused}")
    assert len(refused) <= 6
    assert len(missing) <= 8 and not {m for m in missing if "source=" in m}
    exact = set().union(*(p.exact for p in programs))
    assert len(LATENCIES - exact) <= 2, LATENCIES - exact


def test_directed_programs_reach_more(rng: np.random.Generator) -> None:
    """Whatever each operation ignores, at its ends; and few programs are thrown away."""
    programs, refused = [], []
    for _ in range(60):
        whole, reasons = random_program(TINY, rng, generator=DirectedGenerator)
        programs.append(whole.program)
        refused += reasons
    asked = {name for name in wanted(TINY) if exclusions.first_match("bin", name) is None}
    missing = asked - reached(TINY, programs)
    print(f"not reached: {sorted(missing)}; refused: {refused}")
    assert len(refused) <= 8
    assert len(missing) <= 60


@each_config
def test_in_every_size(cfg: Config, rng: np.random.Generator) -> None:
    for _ in range(4):
        whole, refused = random_program(cfg, rng, long=True)
        assert run(whole) > 0
        assert len(refused) <= 2, refused
    whole, refused = random_program(cfg, rng, generator=DirectedGenerator)
    assert run(whole) > 0
    assert len(refused) <= 3, refused


def test_depends_on_the_generator_alone() -> None:
    first, second = (random_program(TINY, np.random.default_rng(5))[0] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", RULES)
@each_config
def test_a_cycle_decides(cfg: Config, name: str) -> None:
    """At a rule's limit a program runs; a cycle beyond it the machine says what is wrong."""
    limit, message = program(cfg, name, 0)
    run(limit)
    beyond, _ = program(cfg, name, 1)
    with pytest.raises(MachineError, match=message):
        run(beyond)


def test_flipped_bits_are_refused_or_run(rng: np.random.Generator) -> None:
    """Whatever the words are, the machine runs them or says what is wrong: no other error, and no end missing."""
    ran = refused = 0
    for _ in range(25):
        whole, _ = random_program(TINY, rng)
        for _ in range(4):
            try:
                run(whole.corrupted(rng, int(rng.integers(1, 4))))
                ran += 1
            except (IsaError, MachineError) as error:
                assert re.search(r"[a-z]", str(error))
                refused += 1
    print(f"{ran} ran, {refused} refused")
    assert ran > 10 and refused > 10
