"""The netlist after place and route: what nextpnr writes once a board is routed, as Verilog that simulators can run.

It is the design as it becomes a bitstream: nextpnr has packed it into halves of slices, folded constants into LUTs and
pin settings, made DP16KDs of PDPW16KDs, promoted clocks, placed and routed. What is not in it: delays, and the wires
themselves (nextpnr's own record of which pins a net joins is simulated, not the switches that join them).
"""

from __future__ import annotations

import copy
import dataclasses
import fcntl
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fpga import build, netlist, tools
from fpga.board import LEDS, Board
from fpga.ties import check_ties
from sim import verilator

VERILOG = Path(__file__).parent / "verilog"
TOP = "board"
"""Module around the netlist that Verilator's harness drives."""
CONTENTS = "bram_init"
"""Plusarg of DP16KD.v: folder with a file for each block RAM."""
_MAP = VERILOG / "slice_map.v"
_SCRIPT = f"read_json routed.json; techmap -map {_MAP.name}; clean; write_verilog -noattr routed.tmp.v"

Cell = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Routed:
    """A board after place and route. ``costs``: of synthesis and of place and route, when they last ran."""

    board: Board
    folder: Path
    costs: Mapping[str, tools.Cost]

    @property
    def config(self) -> Path:
        """The bitstream's text, without contents."""
        return self.folder / f"{build.NAME}.{self.board.seed}.config"

    @property
    def netlist(self) -> Path:
        """The netlist as nextpnr writes it."""
        return self.folder / f"{build.NAME}.{self.board.seed}.routed.json"


@dataclasses.dataclass(frozen=True)
class Flip:
    """A bit of a LUT that the netlist's input ``flip`` inverts while it is set."""

    cell: str
    bit: int


def place_and_route(board: Board) -> Routed:
    """The board's hardware by the steps of :func:`fpga.build.build`, without contents; made when something has changed.

    Raises LpuError for a failing tool, or for a design that exceeds the device.
    """
    folder = netlist.NETLIST_ROOT / f"routed-{board.name}"
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "made.json"
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        build.elaborate(board, folder)
        build.write_script(board, folder)
        arguments = build.place_and_route_arguments(board, board.seed)
        key = hashlib.sha256(json.dumps([tools.versions(), arguments]).encode())
        for suffix in ("il", "ys", "lpf"):
            key.update((folder / f"{build.NAME}.{suffix}").read_bytes())
        known = json.loads(made.read_text()) if made.exists() else {}
        if known.get("key") != key.hexdigest():
            made.unlink(missing_ok=True)
            costs = {"synthesis": build.synthesise(folder)}
            build.plan(board, folder)
            build.check_limits(board, build.count(board, folder))
            costs["place and route"] = build.place_and_route(board, folder, board.seed)
            check_ties(folder / f"{build.NAME}.{board.seed}.config", folder / f"{build.NAME}.{board.seed}.routed.json")
            known = {"key": key.hexdigest(), "costs": {k: dataclasses.asdict(c) for k, c in costs.items()}}
            made.write_text(json.dumps(known))
    return Routed(board, folder, {k: tools.Cost(**c) for k, c in known["costs"].items()})


# ------------------------------------------------------------------------------ from nextpnr's netlist to a plain one

_HIGH = re.compile(r"O?CE[AB]")


def _tied(cell: Cell, port: str) -> str:
    """Level of a pin of a hard block that no net reaches (nextpnr, ecp5/bitstream.cc): a multiplexer's parameter says
    it, with the pin's name for the 1 in front of it, and INV for the inverse; else it is the pin's default.

    A block of 36 bits was a PDPW16KD, and is one in the bitstream: it has no pin for writing, its byte enables do that.
    """
    mux = str(cell["parameters"].get(f"{port}MUX", "")).strip()
    if mux in ("0", "1"):
        return mux
    if mux in (port, "INV"):
        return "1" if mux == port else "0"
    assert not mux, f"{port}MUX is {mux}"
    wide = int(cell["parameters"].get("DATA_WIDTH_A", "0"), 2) == 36
    return "1" if cell["type"] == "DP16KD" and (_HIGH.fullmatch(port) or (wide and port == "WEA")) else "0"


def _plain_block(cell: Cell) -> None:
    """A block RAM or a multiplier: pins without a net get their level, and multiplexers go."""
    for port, direction in cell["port_directions"].items():
        if direction == "input":
            nets = cell["connections"].get(port, [])
            assert not nets or cell["parameters"].get(f"{port}MUX", port).strip() == port, f"{port} is inverted"
            cell["connections"][port] = nets or [_tied(cell, port)]
    ports = cell["port_directions"]
    cell["parameters"] = {
        k: v for k, v in cell["parameters"].items() if not (k.endswith("MUX") and k.removesuffix("MUX") in ports)
    }
    if cell["type"] == "DP16KD":
        cell["parameters"]["WID"] = cell["attributes"].get("WID", cell["parameters"].get("WID"))


def _plain_ff(cell: Cell) -> None:
    """SD chooses the input: DI, from the LUT beside it, or M (nextpnr, ecp5/pack.cc). Yosys's model has DI alone."""
    nets, parameters = cell["connections"], cell["parameters"]
    chosen, other = ("DI", "M") if parameters.pop("SD").strip() == "1" else ("M", "DI")
    assert nets.get(chosen) and not nets.get(other), "a flip-flop without its input"
    nets["DI"] = nets[chosen]
    nets.pop("M", None)


def _mode(cell: Cell) -> str:
    return str(cell["parameters"].get("MODE", "LOGIC"))


def _plain_comb(cell: Cell) -> None:
    """Pins of the LUT that no net reaches are high (ecp5/pack.cc); a LUT's bits then do not depend on them."""
    nets, parameters = cell["connections"], cell["parameters"]
    mode = _mode(cell)
    if mode == "DPRAM":
        assert parameters.get("WREMUX", "WRE").strip() == "WRE" and parameters.get("WCKMUX", "WCK").strip() == "WCK"
    for port in "ABCD":
        nets[port] = nets.get(port) or ["1"]
    if nets.get("OFX"):
        assert mode == "LOGIC" and bool(nets.get("F1")) != bool(nets.get("FXA") and nets.get("FXB"))
        parameters["OFX_MUX"] = f"{5 if nets.get('F1') else 6:032b}"
    for unused in ("WREMUX", "WCKMUX"):
        parameters.pop(unused, None)


def plain(written: dict[str, Any]) -> dict[str, Any]:
    """A netlist that nextpnr has written, with cells as the models have them: settings of pins are levels and nets.

    Raises AssertionError for what is not expected in it.
    """
    (module,) = written["modules"].values()
    low = {
        cell["connections"]["F"][0] for cell in module["cells"].values()
        if cell["type"] == "TRELLIS_COMB" and not int(cell["parameters"]["INITVAL"], 2) and cell["connections"].get("F")
        and _mode(cell) == "LOGIC"
    }  # fmt: skip
    cells = {}
    for name, cell in module["cells"].items():
        kind = cell["type"]
        if kind == "TRELLIS_COMB" and _mode(cell) == "RAMW_BLOCK":
            assert not any(cell["connections"].values())  # keeps a place beside LUT RAM free
            continue
        cell = copy.deepcopy(cell)
        if kind == "TRELLIS_COMB":
            _plain_comb(cell)
        elif kind == "TRELLIS_FF":
            _plain_ff(cell)
        elif kind in ("DP16KD", "MULT18X18D"):
            _plain_block(cell)
        elif kind == "TRELLIS_IO":
            assert set(cell["connections"].get("T", [])) <= low, "a pin that is not always driven"
        elif kind == "DCCA":
            assert not cell["connections"].get("CE"), "a gated clock"
        else:
            assert kind in ("EHXPLLL", "TRELLIS_RAMW"), kind
        cell["attributes"] = {}
        cell["connections"] = {port: nets for port, nets in cell["connections"].items() if nets}
        cells[name] = cell
    module = {"attributes": {}, "ports": module["ports"], "cells": cells, "netnames": {}}
    return {"modules": {build.NAME: module}}


def _flipped(module: dict[str, Any], flips: Sequence[Flip]) -> None:
    """Gives the module an input ``flip`` with a bit for each of the flips."""
    cells = module["cells"]
    used = [b for owner in [*cells.values(), *module["ports"].values()]
            for bits in (owner["connections"].values() if "connections" in owner else [owner["bits"]]) for b in bits
            if isinstance(b, int)]  # fmt: skip
    free = max(used) + 1
    module["ports"]["flip"] = {"direction": "input", "bits": list(range(free, free + len(flips)))}
    free += len(flips)

    def gate(kind: str, a: int, b: int, y: int) -> Cell:
        return {"type": kind, "parameters": {}, "attributes": {}, "port_directions": {"A": "input", "B": "input",
                "Y": "output"}, "connections": {"A": [a], "B": [b], "Y": [y]}}  # fmt: skip

    for i, flip in enumerate(flips):
        cell = cells[flip.cell]
        # A LUT of that bit alone tells when it is the one that counts.
        hit = copy.deepcopy(cell)
        hit["parameters"] = {"MODE": "LOGIC", "INITVAL": f"{1 << flip.bit:016b}"}
        hit["connections"] = {p: nets for p, nets in cell["connections"].items() if p in "ABCD"} | {"F": [free]}
        (out,) = cell["connections"]["F"]
        cell["connections"]["F"] = [free + 1]
        cells[f"flip{i}_hit"] = hit
        cells[f"flip{i}_and"] = gate("$_AND_", free, module["ports"]["flip"]["bits"][i], free + 2)
        cells[f"flip{i}_xor"] = gate("$_XOR_", free + 1, free + 2, out)
        free += 3


def lut_bits(routed: Routed) -> list[Flip]:
    """Every bit of every plain LUT with four inputs, in the netlist's order."""
    (module,) = json.loads(routed.netlist.read_text())["modules"].values()
    luts = [
        name for name, cell in sorted(module["cells"].items())
        if cell["type"] == "TRELLIS_COMB" and _mode(cell) == "LOGIC"
        and all(cell["connections"].get(port) for port in "ABCDF") and not cell["connections"].get("OFX")
    ]  # fmt: skip
    return [Flip(name, bit) for name in luts for bit in range(16)]


def to_verilog(routed: Routed, flips: Sequence[Flip] = ()) -> Path:
    """Verilog of the netlist with module NAME, whose ports are the board's pins; with ``flips``, an input ``flip``."""
    key = hashlib.sha256(routed.netlist.read_bytes())
    for text in (_SCRIPT, _MAP.read_text(), Path(__file__).read_text(), repr(flips), str(tools.versions())):
        key.update(text.encode())
    path = routed.folder / f"routed-{key.hexdigest()[:12]}.v"
    with open(routed.folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            design = plain(json.loads(routed.netlist.read_text()))
            if flips:
                _flipped(design["modules"][build.NAME], flips)
            (routed.folder / "routed.json").write_text(json.dumps(design))
            (routed.folder / _MAP.name).write_text(_MAP.read_text())
            tools.run("yosys", ["-q", "-l", "routed.log", "-p", _SCRIPT], routed.folder, "routed.log")
            (routed.folder / "routed.json").unlink()
            (routed.folder / "routed.tmp.v").replace(path)
    return path


# ------------------------------------------------------------------------------------------------------- simulation


def models(pll: str) -> list[Path]:
    """Verilog of every cell of the netlist. ``pll``: EHXPLLL, or clock_through where a simulation has no time."""
    return [*netlist.models(), VERILOG / "LUT_RAM.v", VERILOG / f"{pll}.v"]


def around(flips: int) -> str:
    """Module TOP: the pins as the harness names them. In reset no clock comes, as before power-on."""
    leds = ", ".join(f".led_{i}__io(led[{i}])" for i in range(LEDS))
    names = ["clk", "rst", "rx", "tx", "button", "led", *(["flip"] if flips else [])]
    return f"""
module {TOP}({", ".join(names)});
  input clk;
  wire clk;
  input rst;
  wire rst;
  input rx;
  wire rx;
  output tx;
  wire tx;
  input button;
  wire button;
  output [{LEDS - 1}:0] led;
  wire [{LEDS - 1}:0] led;
{f"  input [{flips - 1}:0] flip;" if flips else ""}
  {build.NAME} {build.NAME} (
    .clk25_0__io(clk & ~rst), .uart_0__rx__io(rx), .uart_0__tx__io(tx), .button_fire_0__io(button), {leds},
    {".flip(flip)," if flips else ""} .wifi_gpio0_0__io());
endmodule
"""


def routed_model(routed: Routed, flips: Sequence[Flip] = ()) -> verilator.Library:
    """The Verilator model of the netlist behind its pins, made when needed: a board for the harness's UART."""
    text = to_verilog(routed, flips).read_text() + around(len(flips))
    return verilator.build(
        text, TOP, name=f"routed-{routed.board.name}", serial=True,
        extra_sources=models("clock_through"), extra_flags=netlist.VERILATOR_FLAGS,
    )  # fmt: skip


def write_contents(config: str, folder: Path) -> str:
    """Writes each block RAM's contents, as a bitstream's text has them, for DP16KD.v; returns the plusarg."""
    for wid, values in re.findall(r"(?m)^\.bram_init (\d+)\n((?:[0-9a-f ]+\n)+)", config):
        (folder / f"{wid}.hex").write_text(values)
    return f"+{CONTENTS}={folder}"
