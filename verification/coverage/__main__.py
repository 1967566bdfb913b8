"""Runs the benches with coverage for some time, adds to what earlier runs of the same design reached, reports.

    python -m verification.coverage --minutes 30 --seed 1
    python -m verification.coverage --minutes 0           # only report what is there
"""

from __future__ import annotations

import time

import click

from hdl.config import CONFIGS, get_config
from sim.tools import ToolError
from verification.evidence import record as evidence
from verification.runner import BenchFailure

from . import campaign, report
from .state import ROOT
from .summary import summary


@click.command()
@click.option("--minutes", type=float, default=30.0, show_default=True, help="Begin no further run after this time.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the first runs; later ones count up.")
@click.option("--config", type=click.Choice(list(CONFIGS)), default="tiny", show_default=True, help="Sizes.")
@click.option("--units/--no-units", default=True, show_default=True, help="Run the slices' own benches, too.")
def main(minutes: float, seed: int, config: str, units: bool) -> None:
    """Run benches with coverage, merge with earlier runs, write build/coverage/report.html."""
    begun, start = evidence.begin(), time.monotonic()
    try:
        state = campaign.open_state(config)
        if minutes > 0:
            campaign.run(state, seed, start + 60 * minutes, click.echo, units)
        if not state.points:
            raise click.ClickException("there is no run of this design to report on: give it some --minutes")
        result = summary(state, get_config(config))
    except (BenchFailure, ToolError, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    ROOT.mkdir(parents=True, exist_ok=True)
    (ROOT / "report.html").write_text(report.html(result), encoding="utf-8")
    (ROOT / "report.txt").write_text(report.text(result), encoding="utf-8")
    # Several calls go on where the one before ended: the record is of all of them.
    command = f"python -m verification.coverage --minutes {-(-state.seconds // 60)} --seed {seed} --config {config}"
    path = evidence.write(report.record(result, command, begun, state.seconds))
    click.echo(report.table(result))
    click.echo(f"{ROOT / 'report.html'}, {path}")


if __name__ == "__main__":
    main()
