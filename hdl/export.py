"""Verilog of the core, for simulators.

Amaranth writes one module for each instance and 8 characters for each byte of a memory's initial zeros. Here
modules with the same text become one, initial zeros become a loop, and SRAM banks become instances of
those in ``verilog/``: a tenth of the text, and simulators compile a column once.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from amaranth.back import rtlil, verilog
from amaranth.hdl import ClockSignal, Elaboratable, Instance

from .config import Config
from .core import Core
from .mem import Bank, DualBank

TOP = "lpu"
_BANKS = ("lpu_mapped_bank", "lpu_bank", "lpu_dual_bank")
"""Modules in ``verilog/``, each before those it has inside."""
MAPPED_BITS = 1 << 22
"""Banks of this size and larger lie in the host's memory, so that they need not be loaded through the link
(``sim.verilator.VerilatorModel.memories``)."""


class SimulationPlatform:
    """An elaboration platform whose banks are those in ``verilog/``; of ``mapped`` bits and more: lpu_mapped_bank."""

    def __init__(self, mapped: int = MAPPED_BITS):
        self.mapped = mapped

    def bank(self, bank: Bank) -> Instance:
        """The bank's array as an instance, connected to the bank's ports."""
        r, w = bank.r, bank.w
        return Instance(
            "lpu_mapped_bank" if bank.width * bank.depth >= self.mapped else "lpu_bank",
            p_WIDTH=bank.width, p_DEPTH=bank.depth, p_ABITS=len(r.addr), p_PARTS=bank.width // bank.granularity,
            p_LATENCY=bank.latency,
            i_clk=ClockSignal(), i_r_en=r.en, i_r_addr=r.addr, o_r_data=r.data,
            i_w_en=w.en, i_w_addr=w.addr, i_w_data=w.data,
        )  # fmt: skip

    def dual_bank(self, bank: DualBank) -> Instance:
        """Likewise of one with two ports."""
        r, u = bank.r, bank.u
        return Instance(
            "lpu_dual_bank",
            p_WIDTH=bank.width, p_DEPTH=bank.depth, p_ABITS=len(r.addr),
            i_clk=ClockSignal(), i_r_en=r.en, i_r_addr=r.addr, o_r_data=r.data,
            i_u_en=u.en, i_u_write=u.write, i_u_addr=u.addr, i_u_data=u.data, o_u_q=u.q,
        )  # fmt: skip


def to_verilog(top: Elaboratable, name: str, mapped: int = MAPPED_BITS) -> str:
    """Verilog of a component for simulation, with its banks appended. Same component, same text.

    ``mapped``: bits from which on a bank lies in the host's memory.
    """
    text = rtlil.convert(top, name=name, platform=SimulationPlatform(mapped), emit_src=False)
    text = share_modules(text)
    text, cleared = _strip_zeros(text)
    body = verilog._convert_rtlil_text(text, strip_internal_attrs=True)
    body = _clear_memories(body, cleared)
    for bank in _BANKS:
        if re.search(rf"\b{bank}\b", body):
            body += "\n" + (Path(__file__).parent / "verilog" / f"{bank}.v").read_text()
    return body


def export(cfg: Config) -> str:
    """Verilog text of the core with top module ``lpu``. Same configuration, same text."""
    return to_verilog(Core(cfg), TOP)


_MODULE = re.compile(r"^(?:attribute [^\n]*\n)*module (\S+)\n.*?^end$\n?", re.MULTILINE | re.DOTALL)


def share_modules(text: str) -> str:
    """RTLIL with modules of the same text made one (under the first one's name), from the leaves up."""
    modules = {m.group(1): m.group(0) for m in _MODULE.finditer(text)}
    cell = re.compile(r"^(\s*cell )(\\\S+)( \S+)$", re.MULTILINE)
    renamed: dict[str, str] = {}
    while True:
        seen: dict[str, str] = {}
        for name, body in list(modules.items()):
            key = hashlib.sha256(_anonymous(body, name).encode()).hexdigest()
            if key in seen:
                renamed[name] = seen[key]
                del modules[name]
            else:
                seen[key] = name
        new = {
            name: cell.sub(lambda c: c.group(1) + renamed.get(c.group(2), c.group(2)) + c.group(3), body)
            for name, body in modules.items()
        }
        if new == modules:
            return "\n".join(modules.values())
        modules = new


def _anonymous(body: str, name: str) -> str:
    """A module's text without its own name."""
    body = re.sub(r"^attribute [^\n]*\n", "", body, flags=re.MULTILINE)
    return body.replace(f"module {name}\n", "module\n", 1)


_INIT = re.compile(
    r"^  cell \$meminit_v2 \S+\n(?:    [^\n]*\n)*?    connect \\DATA \d+'0+\n(?:    [^\n]*\n)*?  end\n", re.MULTILINE
)


def _strip_zeros(text: str) -> tuple[str, set[tuple[str, str]]]:
    """RTLIL without all-zero memory initialisers; the set of (module, memory) that lost theirs."""
    cleared: set[tuple[str, str]] = set()

    def module(found: re.Match[str]) -> str:
        name = found.group(1)

        def init(cell: re.Match[str]) -> str:
            memory = re.search(r'\\MEMID "\\\\(\S+)"', cell.group(0))
            assert memory is not None
            cleared.add((name.lstrip("\\"), memory.group(1)))
            return ""

        return _INIT.sub(init, found.group(0))

    return _MODULE.sub(module, text), cleared


def _clear_memories(body: str, cleared: set[tuple[str, str]]) -> str:
    """Verilog with a clearing loop for each memory in ``cleared``."""
    out = []
    for part in re.split(r"(?=^module )", body, flags=re.MULTILINE):
        name = re.match(r"module (?:\\(\S+) |(\w+))", part)
        names = {memory for module, memory in cleared if name and module in name.groups()}
        for memory in sorted(names):
            pattern = rf"^  reg (\[\d+:0\]) (\\?{re.escape(memory)} ?) ?\[(\d+):0\];\n"
            declaration = re.search(pattern, part, re.MULTILINE)
            assert declaration is not None, f"memory {memory} of module {name}"
            depth, at = int(declaration.group(3)) + 1, declaration.end()
            index = f"{memory}_clear"
            loop = f"for ({index} = 0; {index} < {depth}; {index} = {index} + 1) {declaration.group(2)}[{index}] = 0;"
            part = f"{part[:at]}  integer {index};\n  initial {loop}\n{part[at:]}"
        out.append(part)
    return "".join(out)
