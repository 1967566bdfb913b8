"""Random programs and random models in lockstep, seed after seed, in both simulators, until time is over.

    python -m verification.random_runs --minutes 10 --seed 1
"""

from __future__ import annotations

import collections
import dataclasses
import time

import click
from rich.progress import Progress

from verification.benches import BENCHES
from verification.evidence import Record, begin, write
from verification.runner import SIMULATORS, BenchFailure, run

ROUNDS = ({"count": 12, "corrupted": 6}, {"count": 2})
"""Of a round: what of ``many_programs`` and of ``many_models`` is run, on one seed."""
_BENCHES = {bench.name: bench for bench in BENCHES}


def rounds(seed: int, seconds: float, config: str) -> tuple[collections.Counter[str], list[int]]:
    """Whole rounds until time is over; totals of what was compared, and the seeds. Raises BenchFailure."""
    totals: collections.Counter[str] = collections.Counter()
    seeds: list[int] = []
    started = time.monotonic()
    with Progress(transient=True) as progress:
        task = progress.add_task("rounds", total=seconds)
        while not seeds or time.monotonic() - started < seconds:
            seeds.append(seed + len(seeds))
            for name, params in zip(("many_programs", "many_models"), ROUNDS, strict=True):
                bench = dataclasses.replace(_BENCHES[name], params={**_BENCHES[name].params, **params})
                for sim in SIMULATORS:
                    totals.update(run(bench, sim=sim, config=config, seed=seeds[-1]).figures)
                    progress.update(task, completed=time.monotonic() - started)
    return totals, seeds


@click.command()
@click.option("--minutes", default=10.0, show_default=True, help="Begin no round after them.")
@click.option("--seed", default=1, show_default=True, help="The first; each round has the next.")
@click.option("--config", default="tiny", show_default=True, help="Sizes of the core.")
def main(minutes: float, seed: int, config: str) -> None:
    """Run the rounds and leave their record in build/regress/."""
    date, commit = begin()
    started = time.monotonic()
    try:
        totals, seeds = rounds(seed, 60 * minutes, config)
    except BenchFailure as error:
        raise click.ClickException(str(error)) from None
    record = Record(
        part="lockstep", title="Lockstep: random programs and models", config=config,
        command=f"python -m verification.random_runs --minutes {minutes:g} --seed {seed}",
        seeds=f"{seeds[0]} to {seeds[-1]}", evidence="RTL simulation, Verilator and Icarus",
        figures=dict(sorted(totals.items())), date=date, commit=commit, seconds=round(time.monotonic() - started),
    )  # fmt: skip
    for label, value in record.figures.items():
        click.echo(f"{label:45} {value:,}")
    click.echo(f"kept in {write(record)}")


if __name__ == "__main__":
    main()
