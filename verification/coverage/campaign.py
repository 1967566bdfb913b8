"""Runs benches with coverage, seed after seed, until the time is over; merges what each reached."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

from hdl.config import get_config
from hdl.export import to_verilog
from verification import runner
from verification.benches import BENCHES
from verification.lockstep import ProbedCore

from . import functional
from .design import Design
from .points import keyed, read
from .state import Points, State

TARGET = "block"
"""The bench whose design is the one under test: the whole core, host link included, with the probes of the lockstep."""
UNITS = ("host", "icu", "mem_exported", "mxm", "sxm", "vxm_dequant", "vxm_alu", "vxm_scalar", "vxm_topk", "vxm_chain",
         "core", "ecc")  # fmt: skip
"""Benches that run once for a seed, after the lockstep ones."""
ON_TARGET = ("core", "ecc")
"""Of these, those of the core: they run on the target, which has the same ports and more."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a bench."""

    bench: str
    sim: str
    seed: int
    params: dict[str, object]

    def __str__(self) -> str:
        return f"{self.bench}-{self.sim}-{self.seed}"


def jobs(seed: int, units: bool) -> Iterator[Job]:
    """Without end: first every bench once with ``seed``, then the lockstep ones with the seeds behind it.

    Lines and toggles are Verilator's; in Icarus bins alone are counted.
    """
    yield Job("block", "verilator", seed, {})
    yield Job("programs", "verilator", seed, {"count": 4, "corrupted": 2, "thorough": "all", "long": True})
    yield Job("corners", "verilator", seed, {"count": 10})
    yield Job("models", "verilator", seed, {"count": 1, "most": 12, "context": 10})
    for bench in UNITS if units else ():
        yield Job(bench, "verilator", seed, {})
    if units:
        yield Job("corners", "icarus", seed, {"count": 3})
    while True:
        seed += 1
        if seed % 4 == 2:
            yield Job("corners", "verilator", 1000 + seed, {"count": 1, "long": True})
        # Of many programs only those run that the machine finds another bin in.
        for more in (0, 500):
            yield Job("corners", "verilator", seed + more, {"count": 100, "known": True})
        broken = {"count": 4, "corrupted": 6, "thorough": "all", "rules": False}
        yield Job("programs", "verilator", seed, broken)
        if seed % 2 == 0:
            yield Job("models", "verilator", seed, {"count": 1, "most": 10, "context": 64})
        else:
            yield Job("host", "verilator", seed, {})


def open_state(config: str) -> State:
    """What earlier runs of today's design have reached."""
    verilog = to_verilog(ProbedCore(get_config(config)), TARGET)
    return State(config, Design(verilog, TARGET), verilog)


def run(state: State, seed: int, until: float, say: Callable[[str], None], units: bool = True) -> None:
    """Runs jobs until the clock (:func:`time.monotonic`) says ``until``; the first run, which builds, always ends.

    A run that was merged before is not repeated.
    """
    for job in jobs(seed, units):
        left = until - time.monotonic()
        if state.points and left <= 0:
            return
        if str(job) in state.runs and state.points:
            continue
        begun = time.monotonic()
        points, bins = execute(state, job)
        say(
            f"{job}: {points} points and {bins} bins are new ({time.monotonic() - begun:.0f} s); "
            f"{len(state.bins)} bins so far"
        )


def execute(state: State, job: Job) -> tuple[int, int]:
    """Runs and merges one job. Raises BenchFailure, which says how to repeat it."""
    bench = next(b for b in BENCHES if b.name == job.bench)
    bins = state.folder / f"{job}.json"
    bins.unlink(missing_ok=True)
    if bench.name in ON_TARGET:
        bench = dataclasses.replace(bench, factory=ProbedCore, build=TARGET)
    params = {**bench.params, **job.params, "bins": str(bins)}
    if "known" in params:
        params["known"] = str(state.folder / functional.FILE)
    timeout = max(bench.timeout_s, 3600)
    bench = dataclasses.replace(bench, params=params, timeout_s=timeout)
    counted = job.sim == "verilator"
    begun = time.monotonic()
    runner.run(bench, sim=job.sim, config=state.config, seed=job.seed, coverage=counted)
    found = functional.load(bins)
    bins.unlink(missing_ok=True)
    points = _points(state, bench.name, bench.build or bench.name) if counted else {}
    return state.merge(str(job), points, found, time.monotonic() - begun)


def _points(state: State, bench: str, top: str) -> Points:
    """What a run has left; the first one of the target's design makes the list of what is wanted."""
    folder = runner.coverage_folder(bench, state.config)
    design = Design((runner.coverage_folder(top, state.config) / f"{top}.v").read_text(encoding="utf-8"), top)
    points = keyed(read(folder / "coverage.dat", design), design)
    if top == TARGET and not state.points:
        state.set_target(points)
    (folder / "coverage.dat").unlink()  # 50 MB; what counts is merged
    return points
