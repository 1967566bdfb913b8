"""``lpu disasm``: image file -> program text."""

from __future__ import annotations

from pathlib import Path

import click

from ..asm import disassemble
from ..image_file import atomic_file, read_image


@click.command("disasm", epilog="Example: lpu disasm stories.lpu -o stories.s")
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Text file  [default: stdout]."
)
def command(image: Path, output: Path | None) -> None:
    """Print the program of IMAGE as text: phase by phase, instructions in order of time."""
    found = read_image(image)
    text = disassemble(found.program(), found.cfg)
    if output is None:
        click.echo(text, nl=False)
    else:
        with atomic_file(output) as out:
            out.write(text.encode())
