"""``lpu asm``: program text -> image file with a program and no model."""

from __future__ import annotations

from pathlib import Path

import click

from hdl.config import get_config

from ..asm import assemble, config_of
from ..check import check_program
from ..errors import LpuError
from ..image_file import Image, program_notes, program_sections, write_image
from . import tables


@click.command(
    "asm", epilog="Example: lpu asm stories.s --config ulx3s-85f -o program.lpu && lpu disasm program.lpu"
)
@click.argument("file", type=click.Path(path_type=Path))
@tables.config_option(default=None)
@click.option(
    "-o", "--output", metavar="IMAGE", type=click.Path(path_type=Path), required=True, help="Image to write."
)
def command(file: Path, config_name: str | None, output: Path) -> None:
    """Assemble FILE into an image that holds a program and no model.

    The configuration is --config, or the one that FILE names with .config.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LpuError(f"{file}: cannot be read as text: {error}") from None
    cfg = config_of(text) if config_name is None else get_config(config_name)
    if cfg is None:
        raise LpuError(f"{file}: names no configuration with .config, and --config is not given")
    program = assemble(text, cfg, str(file))
    check_program(program, cfg, str(file))
    meta = {"source": file.name, "notes": program_notes(program)}
    write_image(output, Image(cfg, meta, tuple(program_sections(cfg, program))))
    instructions = sum(len(code) for code in program.code.values())
    click.echo(f"{output}: {len(program.phases)} phases, {instructions} instructions for {cfg.name}")
