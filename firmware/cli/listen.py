"""``lpu listen``: the text of a board's present or last run."""

from __future__ import annotations

from pathlib import Path

import click

from ..image_text import image_tokenizer
from .interrupt import Interrupt
from .port import board, held_image, image_for, image_options, port_options
from .writer import Writer


@click.command("listen", epilog="Example: lpu listen --port /dev/ttyUSB0")
@port_options()
@image_options()
def command(port: str, baud: int, model_name: str, image_path: Path | None) -> None:
    """Show the run that is in progress on a board, or its last one, from its first token on.

    After power-on that is the run in the board's boot memory. Nothing on the board changes. The prompt is not
    shown: the board does not keep it.
    """
    wanted = image_for(model_name, image_path)
    with board(port, baud, wanted) as driver:
        info = driver.info()
        image = held_image(info.image, driver.config, wanted)
        if image is None:
            click.echo("the board holds an image that is not known here: token ids instead of text", err=True)
        run = driver.attach()
        if run is None:
            click.echo("there was no run since the board was reset", err=True)
            return
        writer = Writer(image_tokenizer(image) if image else None)
        count = 0
        with Interrupt() as interrupt:
            try:
                for token in run.ids:
                    writer.token(token)
                    count += 1
                    if interrupt.seen:
                        raise KeyboardInterrupt
            finally:
                writer.finish()
        assert run.reason is not None
        click.echo(f"{count} tokens, ended by {run.reason.name}", err=True)
