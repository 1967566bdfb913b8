"""What is wrong with a program whatever it computes: times, phases and loops that no run could keep.

The rules that depend on what runs when are the machine's (``sim/machine.py``, ``sim/hazards.py``); these are the ones
that can be read off the program. Assembler and loader ask here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hdl.config import Config
from hdl.isa import PHASE_FIELDS, Instr, IsaError, Phase, Program, Queue, SxmMode, TopOp, get_isa
from hdl.timing import get_timing

from .asm import split_phases
from .errors import LpuError
from .schedule import key_counts, loop_span

_MOST = 20
CYCLES_MAX = 1 << next(f.bits for f in PHASE_FIELDS if f.name == "dur")
"""As wide as a phase's own length is the sequencer's counter of its cycles, the variable part included."""


def check_program(program: Program, cfg: Config, name: str = "program") -> None:
    """Raises :class:`LpuError` with a line for each thing that is wrong: phase, queue, times."""
    found = list(problems(program, cfg))
    if found:
        more = [f"... and {len(found) - _MOST} more"] if len(found) > _MOST else []
        raise LpuError("\n".join([*(f"{name}: {line}" for line in found[:_MOST]), *more]))


def problems(program: Program, cfg: Config) -> Iterator[str]:
    """What is wrong, one by one."""
    for q in Queue:
        words, available = program.words(cfg, q)
        if words > available:
            yield f"queue {q.name} needs {words} words, config {cfg.name} has {available}"
    if len(program.phases) > cfg.phase_depth:
        yield f"{len(program.phases)} phases, config {cfg.name} has {cfg.phase_depth}"
    yield from _loops(program.phases)
    try:
        queues = split_phases(program)
    except IsaError as error:
        yield str(error)
        return
    shortest = get_timing(cfg).phase_min
    # Of a phase that follows a count, the longest it can be: whether it is long enough otherwise, a run must say.
    most = {count: int(values[0]) for count, values in key_counts(cfg, np.array([cfg.context_max])).items()}
    entered = True
    for index, (phase, here) in enumerate(zip(program.phases, queues, strict=True)):
        longest = phase.cycles(most)
        if longest < shortest:
            yield f"phase {index}: {longest} cycles, the shortest phase has {shortest}"
        if longest >= CYCLES_MAX:
            yield f"phase {index}: {longest:,} cycles, a phase has fewer than {CYCLES_MAX:,}"
        for q, instrs in here.items():
            yield from _times(cfg, f"phase {index}: {q.name}", instrs, bool(entered or phase.loop_begin), longest)
            for instr in instrs:
                yield from _fields(cfg, f"phase {index}: {q.name} @{instr.time}", instr)
        entered = False


def _loops(phases: tuple[Phase, ...]) -> Iterator[str]:
    """One loop of layers, and an end behind it."""
    begins, ends = ([i for i, p in enumerate(phases) if getattr(p, flag)] for flag in ("loop_begin", "loop_end"))
    if len(begins) != len(ends) or len(begins) > 1 or begins > ends:
        yield f"the layer loop begins in phases {begins} and ends in phases {ends}: one of each, in this order"
        return
    ends = ends or [0]
    for flag in ("prompt_final", "final"):
        early = [i for i, p in enumerate(phases) if getattr(p, flag) and i < ends[0]]
        if early:
            yield f"phase {early[0]}: {flag} within or before the layer loop"
    if not any(p.final for p in phases):
        yield "no phase is final: a token would not end"


def _least(instr: Instr) -> int:
    """Cycles from the first micro-op to the last, at least: loops that registers count run once or more often."""
    n1 = 1 if instr.get("n1_sel") else instr.get("n1")
    n2 = 1 if instr.get("n2_sel") else instr.get("n2")
    return int(loop_span(n1, instr.get("d1"), n2, instr.get("d2")))


def _times(cfg: Config, where: str, instrs: list[Instr], entered: bool, length: int) -> Iterator[str]:
    """Issue times of one queue in one phase; ``entered``: by a jump, so that the first instruction is not there yet."""
    gap = get_timing(cfg).fetch_gap(get_isa(cfg).formats[instrs[0].queue])
    earliest = gap if entered else 0
    for instr in instrs:
        if instr.time < earliest:
            yield f"{where} @{instr.time}: can issue from cycle {earliest} on"
        earliest = instr.time + max(gap, _least(instr) + 1)
    if instrs[-1].time >= length:
        yield f"{where} @{instrs[-1].time}: the phase has {length} cycles"


def _fields(cfg: Config, where: str, instr: Instr) -> Iterator[str]:
    if instr.queue is Queue.SXM and instr.get("op") != SxmMode.ACT and not instr.get("n1_sel"):
        rows = cfg.head_max // cfg.vlanes
        if instr.get("n1") > rows:
            yield f"{where}: a vector of {instr.get('n1')} rows, the longest has {rows}"
    if instr.queue is Queue.TOP and instr.get("op") == TopOp.EMIT:
        step = get_timing(cfg).top_step
        if instr.get("d1") < step and (instr.get("n1_sel") or instr.get("n1") > 1):
            yield f"{where}: d1 = {instr.get('d1')}: steps are {step} cycles apart"
        if instr.get("expert") and not instr.get("n1_sel") and instr.get("n1") > cfg.experts_per_token_max:
            yield f"{where}: {instr.get('n1')} experts, there are registers for {cfg.experts_per_token_max}"
