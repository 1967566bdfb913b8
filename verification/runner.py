"""Builds and runs one cocotb bench in one simulator, and says how to repeat it when it fails."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from amaranth.back import verilog as verilog_backend
from amaranth.hdl import Elaboratable
from cocotb_tools.runner import get_runner

from hdl.config import Config, get_config
from hdl.export import to_verilog
from sim import tools
from sim.verilator import MEMORY_SOURCE, WARNING_FLAGS
from verification.context import FIGURES, VARIABLE, Context

SIMULATORS = ("verilator", "icarus")
DEFAULT_SEED = 1
BUILD_ROOT = Path(__file__).resolve().parent.parent / "build" / "cocotb"

_TIMED_OUT = 124  # exit status of timeout(1)
_TIMESCALE = ("1ns", "1ps")
_BUILD_ARGS: dict[str, list[str]] = {
    # Assertions stay on, unlike in the fast harness: the benches are where a mistake should show.
    "verilator": [*WARNING_FLAGS, "--no-timing", "--output-split", "20000"],
    "icarus": [],
}
COVERAGE_WIDTH = 1024
"""Bits of the widest signal whose toggles are counted; all but the arrays of memories are narrower."""
_COVERAGE_ARGS = ["--coverage-line", "--coverage-toggle", "--coverage-max-width", str(COVERAGE_WIDTH)]
# Benches compile more than they run: -O1 halves the compiler's time and cocotb sets the pace anyway.
_VERILATOR_OPT = {"OPT_FAST": "-O1", "OPT_SLOW": "-O0", "OPT_GLOBAL": "-O1"}


@dataclasses.dataclass(frozen=True)
class Bench:
    """A bench of the matrix: ``factory`` makes the design for a config, ``module`` holds the cocotb tests.

    ``timeout_s`` ends a simulation that hangs; ``slow`` leaves the bench to ``make regress``, ``later`` its runs with
    these (simulator, config); ``exported``: the Verilog is that of ``make sim`` (``hdl.export``: SRAM banks are
    instances, equal modules are shared), not Amaranth's own; ``build``: the bench, of the same factory, whose compiled
    design is used.
    """

    name: str
    factory: Callable[[Config], Elaboratable]
    module: str
    configs: Sequence[str] = ("tiny",)
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sources: Sequence[Path] = ()
    timeout_s: int = 600
    slow: bool = False
    later: Sequence[tuple[str, str]] = ()
    exported: bool = False
    build: str | None = None


@dataclasses.dataclass(frozen=True)
class BenchResult:
    """A bench that passed: number of its tests, where its log (and waveform) lie, and what it counted."""

    tests: int
    log: Path
    waves: Path | None
    figures: Mapping[str, int] = dataclasses.field(default_factory=dict)


class BenchFailure(AssertionError):
    """A bench failed; the message ends with the line that repeats it."""


def replay_line(context: Context) -> str:
    """The command that repeats a run."""
    only = context.params.get("program")
    return context.replay() if only is None else context.replay(program=only)


def run(
    bench: Bench,
    *,
    sim: str,
    config: str,
    seed: int = DEFAULT_SEED,
    waves: bool = False,
    program: int | None = None,
    coverage: bool = False,
) -> BenchResult:
    """Runs a registered bench; see ``run_bench``. ``program``: this one of a bench's random programs alone.

    With ``coverage`` every bench runs on exported Verilog: a unit has the same text there in whatever design it is.
    """
    return run_bench(
        bench.name,
        component_factory=bench.factory,
        module=bench.module,
        sim=sim,
        config=config,
        seed=seed,
        waves=waves,
        params=bench.params if program is None else {**bench.params, "program": program},
        sources=bench.sources,
        timeout_s=bench.timeout_s,
        exported=bench.exported or coverage,
        build=bench.build,
        coverage=coverage,
    )


def coverage_folder(bench: str, config: str) -> Path:
    """Where a bench leaves its ``coverage.dat``; that of the bench it is built for holds the Verilog."""
    return BUILD_ROOT / f"{bench}-verilator-{config}-coverage"


def run_bench(
    name: str,
    *,
    module: str,
    sim: str,
    config: str,
    component_factory: Callable[[Config], Elaboratable] | None = None,
    verilog: Path | None = None,
    top: str | None = None,
    seed: int = DEFAULT_SEED,
    waves: bool = False,
    params: Mapping[str, Any] | None = None,
    sources: Sequence[Path] = (),
    env: Mapping[str, str] | None = None,
    timeout_s: int = 600,
    exported: bool = False,
    build: str | None = None,
    coverage: bool = False,
) -> BenchResult:
    """Builds a design and runs the cocotb tests of ``module`` on it.

    Args:
        name: of the bench; it is built in ``build/cocotb/NAME-SIM-CONFIG``.
        module: Python module with the cocotb tests.
        sim: ``verilator`` or ``icarus``.
        config: name of the sizes, see ``hdl.config``.
        component_factory: makes the design; or else
        verilog: a file that holds it.
        top: name of the top module, ``name`` unless given.
        seed: of cocotb's and the bench's generators.
        waves: record a waveform of the whole run.
        params: anything JSON can carry; the bench reads it as ``context().params``.
        sources: more Verilog files.
        env: environment variables for the simulator.
        timeout_s: seconds after which the simulation is ended.
        exported: convert ``component_factory``'s design as ``hdl.export`` does.
        build: name of the bench under which it is built, if not its own.
        coverage: count lines and toggles, in Verilator; the run leaves ``coverage.dat`` in its folder.

    Raises:
        BenchFailure: the build or a test failed; the message has the failing tests, the end of the log, its
            path and the line that repeats the run.
        ToolError: the simulator is missing.
    """
    if sim not in SIMULATORS:
        raise ValueError(f"simulator {sim!r} is not one of {', '.join(SIMULATORS)}")
    tools.require(*(("iverilog",) if sim == "icarus" else ("c++", "make", "perl")))
    top = top or build or name
    context = Context(name, sim, config, seed, dict(params or {}))
    if coverage and sim != "verilator":
        raise ValueError("lines and toggles are counted in Verilator only")
    build_args = [*_BUILD_ARGS[sim], *(_COVERAGE_ARGS if coverage else ())]
    kind = f"{sim}-{config}{'-waves' if waves else ''}{'-coverage' if coverage else ''}"
    folder, built_in = BUILD_ROOT / f"{name}-{kind}", BUILD_ROOT / f"{build or name}-{kind}"
    for path in (folder, built_in):
        path.mkdir(parents=True, exist_ok=True)
    print(f"{name} in {sim}, config {config}, seed {seed}: {folder}/test.log")
    with _locked(built_in), _environment(sim, context, timeout_s, env or {}):
        source = verilog or built_in / f"{top}.v"
        if component_factory is not None:
            design = component_factory(get_config(config))
            text = to_verilog(design, top) if exported else verilog_backend.convert(design, name=top, emit_src=False)
            if sim == "icarus":
                text = _wake(text)
            # Written only when it changes, so that the simulator builds only then.
            if not source.exists() or source.read_text() != text:
                source.write_text(text)
        all_sources = [source, *sources]
        if sim == "verilator" and "lpu_mapped_bank" in source.read_text():
            build_args.append(str(MEMORY_SOURCE))
        runner = get_runner(sim)
        runner.log.setLevel(logging.ERROR)
        # cocotb compares times only: it misses a build that was interrupted and one with other arguments.
        built = built_in / "built"
        arguments = repr((top, all_sources, build_args))
        stale = not built.exists() or built.read_text() != arguments
        built.unlink(missing_ok=True)
        results = folder / "results.xml"
        log = built_in / "build.log"
        failure = ""
        try:
            runner.build(
                sources=all_sources,
                hdl_toplevel=top,
                build_dir=built_in,
                build_args=build_args,
                timescale=_TIMESCALE,
                waves=waves,
                always=stale,
                log_file=log,
            )
            built.write_text(arguments)
            log = folder / "test.log"
            (folder / FIGURES).unlink(missing_ok=True)
            runner.test(
                test_module=module,
                hdl_toplevel=top,
                hdl_toplevel_lang="verilog",
                build_dir=built_in,
                test_dir=folder,
                results_xml=str(results),
                seed=seed,
                waves=waves,
                timescale=_TIMESCALE,
                log_file=log,
            )
        except (RuntimeError, SystemExit) as error:
            failure = f"{'build' if log.name == 'build.log' else 'simulation'}: {error}"
            if str(error).endswith(f"code: {_TIMED_OUT}"):
                failure = f"simulation: ended after {timeout_s} s"
        tests, failed = _read_results(results) if log.name == "test.log" else (0, [])
    if failed or failure or tests == 0:
        raise BenchFailure(_report(context, tests, failed, failure, log))
    return BenchResult(tests, log, _waves_file(folder, sim, top) if waves else None, _figures(folder / FIGURES))


def _wake(verilog: str) -> str:
    """Verilog whose combinational blocks run once at time 0.

    Icarus enters `always @*` at the first change of an input; until then its outputs are unknown, even where
    every input has its initial value from the start. So each block reads a register that changes once.
    """
    verilog = _MODULE.sub(r"\g<0>\n  reg _wake = 0; initial #0 _wake = 1;", verilog)
    verilog = _STATEMENT.sub(r"always @* begin if (_wake) begin end \1 end", verilog)
    return _BLOCK.sub(r"always @* begin if (_wake) begin end\n", verilog)


_MODULE = re.compile(r"^module [^;]*;$", re.MULTILINE)
_BLOCK = re.compile(r"always @\* begin\n")
_STATEMENT = re.compile(r"always @\*\n(.*;)$", re.MULTILINE)


def _waves_file(folder: Path, sim: str, top: str) -> Path:
    return folder / (f"{top}.fst" if sim == "icarus" else "dump.vcd")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _environment(sim: str, context: Context, timeout_s: int, extra: Mapping[str, str]) -> Iterator[None]:
    """Replaces this process's environment for a while.

    cocotb's runner passes on ``os.environ`` and lets it win over what it is given, so there is no other way
    to keep out what an outer make or pytest left there.
    """
    saved = dict(os.environ)
    env = tools.tool_environment()
    env.pop("PYTEST_CURRENT_TEST", None)  # with it cocotb would end this process when a test fails
    if sim == "verilator":
        variables = tools.make_variables() | _VERILATOR_OPT
        env["MAKEFLAGS"] = " ".join(f"{key}={value}" for key, value in variables.items())
    env[VARIABLE] = context.to_json()
    env["COCOTB_ANSI_OUTPUT"] = "0"
    env["PYTHONHASHSEED"] = "0"
    if shutil.which("timeout"):
        # In the foreground it stays in this process group: who ends the group ends the simulation, too.
        env["SIM_CMD_PREFIX"] = f"timeout --foreground -k 5 {timeout_s}"
    env.update(extra)
    try:
        os.environ.clear()
        os.environ.update(env)
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


def _figures(path: Path) -> Mapping[str, int]:
    """Sums of what :meth:`Context.tell` was given."""
    totals: Counter[str] = Counter()
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        totals.update(json.loads(line))
    return totals


def _read_results(path: Path) -> tuple[int, list[tuple[str, str]]]:
    """Number of tests in cocotb's results, and (name, message) of the failed ones."""
    if not path.exists():
        return 0, []
    cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    failed = []
    for case in cases:
        problem = case.find("failure")
        if problem is None:
            problem = case.find("error")
        if problem is not None:
            text = problem.text or problem.get("message") or ""
            failed.append((case.get("name", "?"), text.strip()))
    return len(cases), failed


def _report(context: Context, tests: int, failed: list[tuple[str, str]], failure: str, log: Path) -> str:
    lines = [f"bench {context.bench} failed in {context.sim}: {len(failed)} of {tests} tests"]
    if tests == 0 and not failure:
        lines[0] = f"bench {context.bench} ran no test in {context.sim}"
    lines += [f"  {name}: {message}" for name, message in failed]
    if failure:
        lines.append(f"  {failure}")
    if log.exists():
        tail = log.read_text(errors="replace").splitlines()[-30:]
        lines += [f"end of {log}:", *(f"  | {line}" for line in tail)]
    return "\n".join([*lines, f"repeat with: {replay_line(context)}"])
