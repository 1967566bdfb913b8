"""``lpu patch``: another model in a finished bitstream."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from firmware.cli import tables
from firmware.compiler import CACHE, compile_model
from firmware.errors import LpuError
from firmware.image_file import read_image
from firmware.simulate import resolve_model

from ..board import get_board
from ..build import patch
from ..contents import demo_stream


@click.command("patch", epilog="Example: lpu patch build/ulx3s-85f/lpu.bit names-4k -o names.bit")
@click.argument("bitstream", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Bitstream to write.")
@click.option("--board", "board_name", default="ulx3s-85f", show_default=True)
def command(bitstream: Path, model: str, output: Path, board_name: str) -> None:
    """Put MODEL (a folder, a shipped model's name, or an image file) into BITSTREAM: no place and route, seconds."""
    board = get_board(board_name)
    if not output.absolute().parent.is_dir() or output.is_dir():
        raise LpuError(f"{output}: cannot be written: no such folder, or a folder itself")
    with Console(stderr=True).status("compile") as status:
        if Path(model).is_file():
            image = read_image(Path(model))
        else:
            image = compile_model(resolve_model(model), board.cfg, board.cfg.weight_bits, cache=CACHE).image
        status.update("exchange the memories' contents")
        patch(bitstream, image, board, output, demo_stream(image))
    tables.console().print(f"{output}: {image.meta['model']} for {board.name}", soft_wrap=True)
