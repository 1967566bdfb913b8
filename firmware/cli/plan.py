"""``lpu plan``: what it would take to serve a model, from its config.json alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from hdl.config import CONFIGS

from ..checkpoint import ModelShape
from ..compiler import parse_weights
from ..errors import LpuError
from ..plan import plots
from ..plan.links import NO_RTL, Links
from ..plan.machine import MACHINES, chip_bytes, get_machine
from ..plan.plan import Plan, Request, Row, best_curve, make_plan
from ..plan.published import TIER, Figure, figures
from ..plan.reasons import bounds, reasons, stream_bounds
from ..plan.size import amount, sizes
from ..plan.source import find
from . import tables

CONTEXT = 4096
"""Positions planned for where none are given: fewer where the model or the configuration has fewer."""
TARGET = 500
WIDTH = 130


@click.command("plan", epilog="Example: lpu plan mixtral-8x7b --config tsp --config tsp-streams --plot plan.svg")
@click.argument("model")
@click.option(
    "--config", "config_names", metavar="NAME", multiple=True, default=("tsp",), show_default=True,
    help=f"Chip, may be given several times: {', '.join([*MACHINES, *CONFIGS])}.",
)  # fmt: skip
@click.option("--weights", metavar="WIDTH", help="int4 or int8  [default: the config's].")
@click.option("--context", type=click.IntRange(2), help=f"Positions kept  [default: the model's, at most {CONTEXT}].")
@click.option("--position", type=click.IntRange(0), help="Token that is timed  [default: the middle of the context].")
@click.option("--target", type=click.FloatRange(0, min_open=True), default=TARGET, show_default=True,
              help="Tokens/s of one user to explain.")  # fmt: skip
@click.option("--link-gbps", type=click.FloatRange(0, min_open=True), default=Links.gbps, show_default=True,
              help="Gb/s of a link, each way.")  # fmt: skip
@click.option("--link-ns", type=click.FloatRange(0), default=Links.ns, show_default=True, help="Latency of a hop, ns.")
@click.option("--links", type=click.IntRange(1), default=Links.count, show_default=True, help="Links of a chip.")
@click.option("--chips", type=click.IntRange(1), multiple=True, help="Fastest plan on so many; several times.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Write tokens/s against chips, as SVG.")
def command(
    model: str, config_names: tuple[str, ...], weights: str | None, context: int | None, position: int | None,
    target: float, link_gbps: float, link_ns: float, links: int, chips: tuple[int, ...], json_path: Path | None,
    plot: Path | None,
) -> None:  # fmt: skip
    """How many chips MODEL takes, and how fast they would serve it.

    MODEL: a config.json, the folder it is in, or a known model's name (mixtral-8x7b, llama-2-70b, a shipped model).
    No weights are read. Cycles are a static schedule's; links between chips are an estimate.
    """
    name, shape = find(model)
    assumed = Links(link_gbps, link_ns, links)
    if plot:
        plots.check(plot)
    if json_path and not json_path.absolute().parent.is_dir():
        raise LpuError(f"{json_path}: cannot be written: no such folder")
    plans = []
    with Console(stderr=True).status("plan") as status:
        for config in dict.fromkeys(config_names):
            request = _request(shape, config, weights, context, position, assumed)
            plans.append(make_plan(request, get_machine(config), status.update))
    published = figures(name)
    try:
        if json_path:
            report = as_json(plans, name, target, chips, published)
            json_path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        if plot:
            plots.tokens_against_chips(plans, name, target, published, plot)
    except OSError as error:
        raise LpuError(f"the plan cannot be written: {error}") from None
    _print(plans, name, target, chips, published)


def _request(
    shape: ModelShape, config: str, weights: str | None, context: int | None, position: int | None, links: Links
) -> Request:
    cfg = get_machine(config)
    kept = min(shape.context, cfg.context_max, CONTEXT) if context is None else context
    if kept > shape.context:
        raise LpuError(f"context of {kept} positions: the model has max_position_embeddings = {shape.context}")
    timed = kept // 2 if position is None else position
    if timed >= kept:
        raise LpuError(f"position {timed}: the context planned for ends at {kept - 1}")
    return Request(shape, parse_weights(weights) if weights else cfg.weight_bits, kept, timed, links)


def as_json(
    plans: list[Plan], name: str, target: float, chips: tuple[int, ...], published: tuple[Figure, ...]
) -> dict[str, Any]:
    """Everything that is printed, and every row."""

    def of(plan: Plan) -> dict[str, Any]:
        request, row = plan.request, plan.answer(target)
        best = {n: plan.within(n) for n in chips}
        return {
            "config": plan.cfg.name, "weights": request.weights, "context": request.context,
            "position": request.position, "chip_sram_bytes": chip_bytes(plan.cfg),
            "clock_evidence": plan.clock_evidence,
            "needed": [vars(s) for s in sizes(request.shape, plan.cfg, request.context)],
            "rows": [r.as_json() for r in plan.rows], "answer": row.as_json(),
            "on_chips": {str(n): r.as_json() if r else None for n, r in best.items()},
            "not_possible": {str(t): text for t, text in plan.refused.items()},
            "bounds_tokens_per_second": bounds(plan, row), "stream_bounds_tokens_per_second": stream_bounds(plan),
            "reasons": reasons(plan, row, target, published),
        }  # fmt: skip

    links = plans[0].request.links
    return {
        "model": name, "parameters": plans[0].request.shape.parameters_total, "target_tokens_per_second": target,
        "links": {**vars(links), "evidence": f"estimate: {NO_RTL}"},
        "plans": [of(plan) for plan in plans],
        "published": [{**vars(f), "evidence": TIER} for f in published],
    }  # fmt: skip


def _print(
    plans: list[Plan], name: str, target: float, chips: tuple[int, ...], published: tuple[Figure, ...]
) -> None:
    out = tables.console()
    out = out if out.width >= WIDTH else Console(highlight=False, width=WIDTH)
    for plan in plans:
        out.print(_needed_table(plan, name), _rows_table(plan, name, target))
        for n in chips:
            row = plan.within(n)
            out.print(f"{n} chips: " + (_line(row) if row else "too few for this model"))
        title = f"Why: {_line(plan.answer(target))}"
        texts = [f"- {text}" for text in reasons(plan, plan.answer(target), target, published)]
        out.print(f"[bold]{title}[/bold]", *texts, sep="\n")
        out.print()
    if published:
        out.print(_published_table(published))
    out.print(f"Cycles: static schedule, as the RTL equals it on what has been simulated. Links: estimate; {NO_RTL}.")


def _line(row: Row) -> str:
    return f"{row.rate:,.0f} tokens/s on {row.split}"


def _needed_table(plan: Plan, name: str) -> Table:
    request = plan.request
    held = chip_bytes(plan.cfg)
    made = tables.table(
        f"{name}, {request.shape.parameters_total:,} parameters, {request.context:,} positions: memory",
        "numbers", ">weights", ">keys and values", f">chips of {held / 2**20:,.4g} MiB, every byte used",
    )  # fmt: skip
    for s in sizes(request.shape, plan.cfg, request.context):
        made.add_row(s.width, amount(s.weights), amount(s.cache), f"{s.chips:,}")
    return made


def _rows_table(plan: Plan, name: str, target: float) -> Table:
    request, curve, answer = plan.request, best_curve(plan.rows), plan.answer(target)
    made = tables.table(
        f"{name} on {plan.cfg.name}: int{request.weights}, position {request.position:,}, one user",
        ">chips", ">stages", ">a layer", ">full", ">cycles", ">chips µs", ">links µs", ">tokens/s", ">MACs",
        ">fill µs", ">users", ">all tokens/s", "",
    )  # fmt: skip
    for r in sorted(plan.rows, key=lambda r: (r.chips, r.tensor)):
        made.add_row(
            f"{r.chips:,}", f"{len(r.stages)}", f"{r.tensor}",
            f"{r.chip_bytes_used / chip_bytes(plan.cfg):.0%}", f"{r.cycles:,}", f"{r.cycles / r.clock_hz * 1e6:,.1f}",
            f"{sum(r.link_seconds.values()) * 1e6:,.1f}", f"{r.rate:,.0f}", f"{r.utilisation:.1%}",
            f"{r.fill_seconds * 1e6:,.1f}", f"{r.users}", f"{r.rate_all:,.0f}",
            f"{'*' if r in curve else ''}{'<' if r is answer else ''}",
        )  # fmt: skip
    refused = ", ".join(map(str, plan.refused))
    made.caption = (
        "a layer: chips that share one. full: SRAM of the fullest chip. MACs: useful ones over the peak of the chips\n"
        "at work, links included. fill: until every stage is at work. users: whose cache fits; all: of those.\n"
        "* no plan with as few chips is faster; < explained below.\n"
        f"Cycles: static schedule; {plan.clock_evidence}. Links: estimate ({request.links.text()})."
    )
    if refused:
        made.caption += f"\nNot possible with {refused} chips a layer: a share exceeds a chip, or links are too few."
    made.caption_justify = "left"
    return made


def _published_table(published: tuple[Figure, ...]) -> Table:
    made = tables.table("Published by others", "model", "what", ">tokens/s per user", ">chips", "source", "evidence")
    for f in published:
        rate, chips = ("" if n is None else f"{n:,}" for n in (f.rate, f.chips))
        made.add_row(f.model, f.what, rate, chips or "not stated", f.source, TIER)
    made.caption = "Width, users at once and split are not published: a comparison of figures, not of machines."
    made.caption_justify = "left"
    return made
