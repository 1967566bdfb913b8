"""``lpu load``: an image into a board."""

from __future__ import annotations

from pathlib import Path

import click

from .port import board, image_for, image_name, port_options, use_image


@click.command("load", epilog="Example: lpu load --port /dev/ttyUSB0 stories.lpu")
@click.argument("image_or_model")
@port_options()
def command(image_or_model: str, port: str, baud: int) -> None:
    """Load IMAGE_OR_MODEL, an image file or a model (folder or shipped name), unless the board holds it already.

    A run in progress is ended first.
    """
    path = Path(image_or_model)
    wanted = image_for(None, path) if path.is_file() or path.suffix == ".lpu" else image_for(image_or_model, None)
    with board(port, baud, wanted) as driver:
        image = wanted(driver.config)
        loaded = use_image(driver, image)
    click.echo(f"{image_name(image)}: {'loaded' if loaded else 'was loaded already'}")
