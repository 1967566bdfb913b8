"""``lpu bitstream``: board -> bitstream and report."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.console import Console

from firmware.cli import tables
from firmware.layout import Need

from .. import build as builder
from ..board import BOARDS, get_board
from ..ecp5 import blocks
from ..report import memory_rows

EXIT_MISSED = 1


@click.command("bitstream", epilog="Example: lpu bitstream --board ulx3s-85f --seeds 8")
@click.option("--board", "board_name", default="ulx3s-85f", show_default=True, help=f"One of {', '.join(BOARDS)}.")
@click.option("--model", help="Model in the block RAMs  [default: the one shipped for the board].")
@click.option("--seed", type=click.IntRange(0), help="Seed of place and route  [default: the board's].")
@click.option("--seeds", type=click.IntRange(1), help="Explore this many seeds, take the fastest.")
@click.option("--again", is_flag=True, help="Run every tool, though its inputs are those of the last build.")
def command(board_name: str, model: str | None, seed: int | None, seeds: int | None, again: bool) -> None:
    """Build the bitstream of a board, with a model in its block RAMs, by open tools alone.

    Writes build/BOARD/lpu.bit and report.json. Exit code 1 when the clock is not met.
    """
    board = get_board(board_name)
    chosen = [board.seed if seed is None else seed]
    if seeds:
        chosen = [chosen[0], *[s for s in range(1, seeds + 1) if s != chosen[0]]][:seeds]
    err = Console(stderr=True)
    progress = Stages(err)
    with progress:
        result = builder.build(board, model, chosen, progress, again)
    _print(result)
    if not result.timing_met:
        click.echo(
            f"error: the core reaches {result.report['fmax_mhz']} MHz, its clock is "
            f"{result.report['target_mhz']:g} MHz: try --seeds 8",
            err=True,
        )
        raise SystemExit(EXIT_MISSED)


class Stages:
    """One line for each stage on stderr: what it does while it runs, its time when it has ended."""

    def __init__(self, console: Console):
        self.console = console
        self.name = ""
        self.begin = 0.0
        self.status = console.status("")

    def __enter__(self) -> Stages:
        self.status.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.status.stop()
        self._ended()

    def _ended(self) -> None:
        if self.name:
            self.console.print(f"{self.name:<28}{time.monotonic() - self.begin:8.1f} s", highlight=False)

    def __call__(self, name: str, what: str) -> None:
        if name != self.name:
            self._ended()
            self.name, self.begin = name, time.monotonic()
            if not self.console.is_terminal:
                self.console.print(f"{name} ...", highlight=False)
        seconds = time.monotonic() - self.begin
        self.status.update(f"{name} {seconds:4.0f} s  {what[:80]}")


def _print(result: builder.Result) -> None:
    out, report, board = tables.console(), result.report, result.board
    made = tables.table(f"{board.name} [static timing after place and route]", "", ">used", ">available", ">")
    for key, name in (("lut4", "LUT4"), ("ff", "registers"), ("dsp", "18 x 18 multipliers"), ("ebr", "block RAMs")):
        value = report[key]
        assert isinstance(value, dict)
        share = f"{value['used'] / value['available']:.0%}"
        made.add_row(name, f"{value['used']:,}", f"{value['available']:,}", share)
    out.print(made)
    cfg = board.cfg
    memories = tables.table("Block RAMs", "memory", ">banks", ">words", ">bits", ">block RAMs")
    for name, banks, depth, width, part in memory_rows(cfg):
        memories.add_row(name, str(banks), f"{depth:,}", str(width), str(banks * blocks(width, depth, part)))
    out.print(memories)
    out.print(tables.needs_table([Need(**need) for need in result.image.meta["needs"]]))
    sums = tables.table("Speed", "", ">", "evidence")
    seeds = report["seeds"]
    assert isinstance(seeds, dict)
    clock = f"seed {report['seed']}"
    if len(seeds) > 1:
        clock += f" of {len(seeds)}, median {report['seeds_median_mhz']} MHz"
    sums.add_row("clock reached", f"{report['fmax_mhz']:.1f} MHz", f"static timing after place and route, {clock}")
    sums.add_row("clock set (PLL)", f"{report['target_mhz']:g} MHz", "configured")
    sums.add_row("cycles a token", f"{report['cycles_per_token']:,}",
                 f"position {report['position']}; static schedule, which make sim compares with RTL")  # fmt: skip
    sums.add_row("tokens a second", f"{report['tokens_per_second']:,}", "clock set / cycles; not run on a board")
    out.print(sums)
    ends = tables.table("What limits the clock", ">ns", "endpoint (nextpnr's name, numbers left out)")
    slowest = report["slowest_ns"]
    assert isinstance(slowest, list)
    for ns, name in slowest:
        ends.add_row(f"{ns:.2f}", name)
    out.print(ends)
    bit = Path(result.folder) / f"{builder.NAME}.bit"
    out.print(f"{bit}: {report['model']}, sha256 {report['bitstream_sha256']}", soft_wrap=True)
