"""``lpu fidelity``: integer against float model for many models, in one table."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from ..fidelity import PPL_LIMIT, TOP1_LIMIT, Row, check_names, suite
from ..image_file import atomic_file, make_parent
from . import tables
from .bars import Bars

REPORT = Path("build/fidelity.json")


@click.command("fidelity", epilog="Example: lpu fidelity --model smollm2")
@click.option("--model", "models", multiple=True, help="One of the suite, or a Hugging Face folder; several times. "
              "[default: all; public ones if they were fetched before]")  # fmt: skip
@click.option("--tokens", type=click.IntRange(2), default=4096, show_default=True, help="Tokens of a text at most.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), default=REPORT, show_default=True)
@click.pass_context
def command(ctx: click.Context, models: tuple[str, ...], tokens: int, report: Path) -> None:
    """Perplexity and top-1 agreement of the exact integer model, int8 and int4 weights, against float.

    Teacher-forced: every token is predicted from the text before it. K and V are int8 in both. Ends with exit code 1
    if a trained model with int8 weights is further off than it may be.
    """
    rows: list[Row] = []
    names = check_names(list(models))
    make_parent(report)
    with Bars(Console(stderr=True)) as bars:
        for row in suite(names, tokens, bars.stage):
            rows.append(row)
    with atomic_file(report) as out:
        out.write((json.dumps([as_json(row) for row in rows], indent=2) + "\n").encode())
    tables.console().print(table(rows))
    if not all(row.within_limits for row in rows if row.limited):
        Console(stderr=True).print(
            f"[red]int8: perplexity more than {PPL_LIMIT:.0%} above float, or top-1 below {TOP1_LIMIT:.0%}[/red]"
        )
        ctx.exit(1)


def table(rows: list[Row]) -> Table:
    """A line for each model."""
    made = tables.table(
        "Integer model against float (exact integer arithmetic; int8 K and V)",
        "model", ">tokens", ">float", ">int8", ">change", ">top-1", ">int4", ">change", ">top-1",
    )  # fmt: skip
    for row in rows:
        r = row.result
        made.add_row(
            row.model, f"{r.tokens:,}", f"{r.ppl_float:.3f}",
            f"{r.ppl_int8:.3f}", f"{r.ppl_int8 / r.ppl_float - 1:+.2%}", f"{r.top1_int8:.1%}",
            f"{r.ppl_int4:.3f}", f"{r.ppl_int4 / r.ppl_float - 1:+.2%}", f"{r.top1_int4:.1%}",
        )  # fmt: skip
    return made


def as_json(row: Row) -> dict[str, object]:
    """A row of the report."""
    r = row.result
    return {
        "model": row.model,
        "parameters": row.parameters,
        "config": row.config,
        "text": row.text,
        "limited": row.limited,
        **dataclasses.asdict(r),
        "change_int8": r.ppl_int8 / r.ppl_float - 1,
        "change_int4": r.ppl_int4 / r.ppl_float - 1,
        "within_limits": row.within_limits,
    }
