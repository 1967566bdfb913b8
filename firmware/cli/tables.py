"""What several commands print: tables on stdout, and the options they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from hdl.config import CONFIGS, Config

from ..image_file import Image
from ..layout import Need

_WIDTH = 110
"""Columns where stdout is no terminal: tables in a file must not be cut."""


def console() -> Console:
    """Standard output for tables."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=_WIDTH)


def table(title: str, *columns: str) -> Table:
    """An empty table: the first column is text, those whose name begins with ``>`` are numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.removeprefix(">"), justify="right" if right else "left", no_wrap=right)
    return made


def needs_table(needs: Iterable[Need]) -> Table:
    """Memory needs: words needed, words there are."""
    made = table("Memories", "memory", ">needed", ">available", ">used")
    for n in needs:
        made.add_row(n.memory, f"{n.needed:,}", f"{n.available:,}", f"{n.needed / n.available:.0%}")
    return made


def cycles_table(image: Image, positions: Iterable[int]) -> Table:
    """Exact cycles of a token by position, and the rate at the configuration's stated clock."""
    rate = f">tokens/s at {image.cfg.clock_hz / 1e6:g} MHz"
    of = f", {image.sequences} sequences together" if image.sequences > 1 else ""
    made = table(f"Cycles per token (exact){of}", "position", ">generated", rate, ">prompt token")
    for p in positions:
        cycles = image.cycles(p)
        prompt = image.cycles(p, sampled=False)
        made.add_row(str(p), f"{cycles:,}", f"{image.sequences * image.cfg.clock_hz / cycles:,.0f}", f"{prompt:,}")
    return made


def config_text(cfg: Config) -> str:
    """A configuration in a line."""
    return (
        f"{cfg.name}: {cfg.columns} columns x {cfg.lanes} lanes, {cfg.macs_per_cycle(4)} int4 or "
        f"{cfg.macs_per_cycle(8)} int8 MACs per cycle, {cfg.vlanes} vector lanes"
    )


def config_option(default: str | None = "ulx3s-85f") -> Callable[[Any], Any]:
    """``--config NAME``; an unknown name lists the known ones."""
    return click.option(
        "--config", "config_name", metavar="NAME", default=default, show_default=default is not None,
        help=f"Size of the LPU: {', '.join(CONFIGS)}.",
    )  # fmt: skip
