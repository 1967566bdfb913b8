"""The command line: ``lpu COMMAND``. One file per command, imported when it is used.

Exit codes: 0 ok, 1 a result differs from what it should be, 2 bad input, or a board that cannot go on (the message is
on stderr), 130 interrupted.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from typing import Any

import click

from hdl.config import ConfigError
from hdl.isa import IsaError

from ..errors import LpuError

_HERE = (
    "compile", "info", "sim", "generate", "chat", "listen", "load", "program", "eval", "fidelity", "bench", "plan",
    "logits", "asm", "disasm",
)
# By name: boards may import the firmware, never the other way round.
COMMANDS = {name: f"{__name__}.{name}" for name in _HERE} | {
    "bitstream": "fpga.cli.bitstream",
    "patch": "fpga.cli.patch",
}
"""Module of each command, in the order of `lpu --help`; the command is its object ``command``."""

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class Commands(click.Group):
    """A group that imports a command when it is asked for, and turns user errors into messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, module in COMMANDS.items() if _exists(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name]).command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (LpuError, ConfigError, IsaError) as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(EXIT_BAD_INPUT)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(EXIT_INTERRUPTED)


def _exists(module: str) -> bool:
    """Whether a module can be found; that of a board's command is not part of every installation."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its package is not there
        return False


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        try:
            click.echo(f"lpu {importlib.metadata.version('open-lpu')}")
        except importlib.metadata.PackageNotFoundError:
            click.echo("lpu (not installed)")
        ctx.exit()


@click.group(cls=Commands, epilog="Example: lpu compile stories-500k -o stories.lpu && lpu info stories.lpu")
@click.option(
    "--version", is_flag=True, callback=_version, is_eager=True, expose_value=False, help="Print the version."
)
def main() -> None:
    """Open LPU: compile Mixtral checkpoints, run them on the simulated hardware or a board, look at what was made.

    Exit codes: 0 ok, 1 a result differs, 2 bad input.
    """
