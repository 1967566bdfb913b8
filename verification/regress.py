"""All long runs of the verification within a given time: ``make regress MINUTES=30 SEED=1``.

Each part is a command of its own, with a share of the time and a log in ``build/regress/``; several run at once. A part
that has a record (``verification.evidence``) leaves it there, too.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

import click
from rich.console import Console
from rich.status import Status
from rich.table import Table

from verification.evidence.record import BUILT, ROOT

GRACE_MINUTES = 20
"""What a part may take beyond its share before it is ended: builds, and a last test."""


@dataclasses.dataclass(frozen=True)
class Part:
    """``share``: of the time of all parts; 0: a fixed amount of work. ``arguments``: of ``python -m``, with the fields
    ``seed`` and ``minutes``."""

    name: str
    what: str
    share: float
    arguments: tuple[str, ...]

    def command(self, seed: int, minutes: float) -> list[str]:
        """As it is run."""
        fields = {"seed": seed, "minutes": f"{minutes:.2f}"}
        return [sys.executable, "-m", *(a.format(**fields) for a in self.arguments)]


PARTS = (
    Part("tests", "slow tests, in an order of the seed's, until time is over", 2, (
        "pytest", "-q", "-m", "slow", "--seed={seed}", "--minutes={minutes}",
        "--junitxml=build/regress/tests.xml")),
    Part("lockstep", "random programs and models in lockstep, both simulators", 3, (
        "verification.random_runs", "--seed={seed}", "--minutes={minutes}")),
    Part("soak", "a simulated board through accidents", 1.5, (
        "verification.soak", "--seed={seed}", "--minutes={minutes}")),
    Part("coverage", "functional, line and toggle coverage, added to what was reached before", 2, (
        "verification.coverage", "--seed={seed}", "--minutes={minutes}")),
    Part("mutation", "seeded bugs in hdl/ and sim/numerics, and whether a test notices", 2.5, (
        "verification.mutation", "--seed={seed}", "--minutes={minutes}", "--fail-under=95")),
    Part("ecc", "bits flipped in the memories of running models", 1, (
        "verification.ecc_campaign", "--seed={seed}", "--minutes={minutes}")),
    Part("formal", "proofs, and their seeded bugs", 0, ("verification.formal", "--mutants")),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of a part's run; ``code``: its exit code."""

    part: Part
    code: int
    seconds: float
    log: Path


def budgets(parts: Sequence[Part], minutes: float, jobs: int) -> dict[str, float]:
    """Minutes for each part, so that ``jobs`` at a time take ``minutes`` in all."""
    whole = sum(part.share for part in parts)
    return {part.name: minutes * jobs * part.share / whole if part.share else minutes for part in parts}


def run_part(part: Part, seed: int, minutes: float, folder: Path = BUILT) -> Outcome:
    """Runs a part's command to its end, or ends it."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{part.name}.log"
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as out:
        try:
            done = subprocess.run(
                part.command(seed, minutes), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                timeout=60 * (minutes + GRACE_MINUTES), check=False,
            )  # fmt: skip
            code = done.returncode
        except subprocess.TimeoutExpired:
            code = 124
    return Outcome(part, code, time.monotonic() - started, log)


def shown(outcomes: Sequence[Outcome]) -> Table:
    """The outcomes as a table."""
    table = Table("part", "what", "minutes", "result", "log")
    for o in outcomes:
        result = "passed" if o.code == 0 else "ended: too long" if o.code == 124 else f"FAILED (code {o.code})"
        table.add_row(o.part.name, o.part.what, f"{o.seconds / 60:.1f}", result, str(o.log.relative_to(ROOT)))
    return table


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


@click.command()
@click.option("--minutes", default=30.0, show_default=True, help="Time for all parts together.")
@click.option("--seed", default=None, type=int, help="Of all parts; drawn and printed where it is not given.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Parts at a time.")
@click.option("--part", "names", multiple=True, type=click.Choice([p.name for p in PARTS]), help="These parts only.")
def main(minutes: float, seed: int | None, jobs: int, names: tuple[str, ...]) -> None:
    """Run the parts; exit code 1 where one failed."""
    seed = secrets.randbelow(1 << 24) if seed is None else seed
    parts = [p for p in PARTS if not names or p.name in names]
    share = budgets(parts, minutes, jobs)
    console = Console()
    again = " ".join(f"--part {n}" for n in names)
    console.print(f"seed {seed}; again: python -m verification.regress --minutes {minutes:g} --seed {seed} {again}")
    stop = threading.Event()
    outcomes = []
    with ThreadPoolExecutor(jobs) as pool, console.status("") as status:
        started = time.monotonic()
        waiting = {pool.submit(run_part, p, seed, share[p.name]): p for p in sorted(parts, key=lambda p: -p.share)}
        threading.Thread(target=_tick, args=(status, waiting, started, stop), daemon=True).start()
        for future in as_completed(waiting):
            outcome = future.result()
            outcomes.append(outcome)
            console.print(f"{outcome.part.name:10} {'passed' if outcome.code == 0 else 'FAILED'}")
            if outcome.code:
                console.print(_tail(outcome.log), markup=False, highlight=False)
        stop.set()
    console.print(shown(outcomes))
    sys.exit(any(o.code for o in outcomes))


def _tick(status: Status, waiting: Mapping[Future[Outcome], Part], started: float, stop: threading.Event) -> None:
    """Shows what is running."""
    while not stop.wait(1):
        names = ", ".join(part.name for future, part in waiting.items() if future.running())
        status.update(f"{(time.monotonic() - started) / 60:.1f} min: {names}")


if __name__ == "__main__":
    main()
