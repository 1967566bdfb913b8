"""Fault injection into the weight and KV memories, with a record: ``python -m verification.ecc_campaign``.

First every single and every double error of a word, through a column's bank and decoder and through the writer of
values (``bench_ecc_words.py``); then a random campaign over a running model (``bench_ecc_campaign.py``). Both in RTL
simulation. A failing run ends it with the line that repeats that run alone.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from sim.tools import ToolError
from verification.benches import BENCHES
from verification.evidence.record import BUILT, Record, begin, write
from verification.runner import DEFAULT_SEED, SIMULATORS, BenchFailure, run_bench

WORDS, RUNS = "ecc_words", "ecc_campaign"
SPARE_S = 1800
"""Seconds beyond the campaign's own for the build of a simulator, and for a run that hangs."""


def campaign(name: str, sim: str, config: str, seed: int, **params: Any) -> dict[str, int | str]:
    """Runs a bench and returns its figures. Raises BenchFailure, ToolError."""
    bench = next(b for b in BENCHES if b.name == name)
    BUILT.mkdir(parents=True, exist_ok=True)
    path = (BUILT / f"{name}.figures").resolve()
    path.unlink(missing_ok=True)
    run_bench(
        name, component_factory=bench.factory, module=bench.module, sim=sim, config=config, seed=seed,
        params={**bench.params, **params, "figures": str(path)}, exported=bench.exported, build=bench.build,
        timeout_s=int(params.get("seconds", 0)) + SPARE_S,
    )  # fmt: skip
    figures: dict[str, int | str] = json.loads(path.read_text(encoding="utf-8"))
    return figures


@click.command()
@click.option("--seed", type=int, default=DEFAULT_SEED, show_default=True, help="Of model, places, bits and times.")
@click.option("--minutes", type=float, default=10.0, show_default=True, help="Length of the random campaign.")
@click.option("--runs", type=int, help="So many runs instead, whatever they take.")
@click.option("--config", default="tiny", show_default=True, help="Size of the LPU.")
@click.option("--sim", type=click.Choice(SIMULATORS), default="verilator", show_default=True)
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default=BUILT, help="For the record.")
def main(seed: int, minutes: float, runs: int | None, config: str, sim: str, folder: Path) -> None:
    """Flip bits of the weight memories in simulation; write the record of it."""
    date, commit = begin()
    start = time.monotonic()
    length: dict[str, float] = {"seconds": 60 * minutes} if runs is None else {"runs": runs}
    try:
        figures = campaign(WORDS, sim, config, seed) | campaign(RUNS, sim, config, seed, **length)
    except (BenchFailure, ToolError) as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    extent = f"--minutes {minutes:g}" if runs is None else f"--runs {runs}"
    record = Record(
        part="ecc",
        title="Error correction: fault injection",
        command=f"python -m verification.ecc_campaign --seed {seed} {extent} --config {config} --sim {sim}",
        config=f"{config}, {sim}",
        seeds=str(seed),
        evidence="RTL simulation",
        figures=figures,
        open=(
            "Three and more wrong bits in a word: the code does not tell them from fewer.",
            "Scales, coefficients, vectors, activations and programs: no block RAM is left for their check bits.",
            "An upset inside the correction itself: nothing checks it.",
        ),
        date=date,
        commit=commit,
        seconds=round(time.monotonic() - start),
    )
    click.echo(f"{write(record, folder)}: {json.dumps(figures, indent=1)}")


if __name__ == "__main__":
    main()
