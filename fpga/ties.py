"""Pins of multipliers that no net reaches: each must be tied by a setting in the bitstream, or it floats."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from firmware.errors import LpuError

C_PINS = 18
"""Pins of a multiplier that are open always: nothing here uses C."""

_OPERAND = re.compile(r"[ABC]\d+")
_TILE = re.compile(r"(?ms)^\.tile \S+:CIB_DSP\w*\n(.*?)(?=^\.|\Z)")
_TIE = re.compile(r"(?m)^enum: CIB\.J[A-D]\d+MUX ")


def tied_operands(config: str) -> int:
    """How many pins a bitstream's text ties beside multipliers."""
    return sum(len(_TIE.findall(tile)) for tile in _TILE.findall(config))


def check_ties(config: Path, netlist: Path) -> None:
    """Raises LpuError where the bitstream's text does not tie what the netlist leaves open; both are nextpnr's.

    For multipliers alone, where nextpnr ties each operand pin by one setting beside it (ecp5/bitstream.cc). It does
    the same for block RAMs, of which some share one.
    """
    (module,) = json.loads(netlist.read_text())["modules"].values()
    blocks: list[dict[str, Any]] = [cell for cell in module["cells"].values() if cell["type"] == "MULT18X18D"]
    is_open = sum(
        bool(_OPERAND.fullmatch(port)) and direction == "input" and not cell["connections"].get(port)
        for cell in blocks for port, direction in cell["port_directions"].items()
    )  # fmt: skip
    tied = tied_operands(config.read_text())
    if tied != is_open or tied < C_PINS * len(blocks):
        raise LpuError(
            f"{config}: {len(blocks)} multipliers have {is_open:,} pins without a net and {tied:,} that are tied: "
            "nextpnr has lost some, and the bitstream would not work"
        )
