"""The modules of an exported Verilog text: where each stands, what it instantiates, and which ones are the same.

Amaranth's names hold numbers that depend on the whole design (``\\port$78793$0``), and a module bears the name of its
top. So a module's *key* is the hash of its text with those numbers counted anew and its children named by their keys:
a unit has the same key in whatever design it is, and what one bench reached in it counts for all.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import re
from collections.abc import Iterator

_MODULE = re.compile(r"module (\\\S+|\w+)")
_CELL = re.compile(r"  (\\\S+|\w+)\s+(?:#\(.*)?(\\\S+|\w+)?\s*\($")
_BANK = re.compile(r"  (lpu_bank) #\($")
_BANK_NAME = re.compile(r"  \) (\\\S+|\w+)\s+\($")
_PARAMETER = re.compile(r"    \.(\w+)\(32'd(\d+)\)")
BANK_DEFAULTS = {"ABITS": 1, "DEPTH": 2, "LATENCY": 2, "PARTS": 1, "WIDTH": 8}
"""Of ``lpu_bank.v``; Verilator makes a module of each set of others, and names it by them."""
_NUMBERED = re.compile(r"\\\S*\$\d+\S*|\b\w+\$\d+[\w$]*")
_NUMBER = re.compile(r"\$\d+")


@dataclasses.dataclass(frozen=True)
class Module:
    """``line``: of the file, in which it begins; ``cells``: name of each instance to the module's."""

    name: str
    line: int
    text: tuple[str, ...]
    cells: dict[str, str]

    def source(self, line: int) -> str:
        """A line, counted from the module's first one on."""
        return self.text[line].strip()


class Design:
    """An exported Verilog text."""

    def __init__(self, verilog: str, top: str) -> None:
        self.top = top
        self.modules = {module.name: module for module in _modules(verilog)}
        if top not in self.modules:
            raise ValueError(f"no module {top}; modules: {', '.join(self.modules)}")

    @functools.cache  # noqa: B019 - a design lives as long as the process
    def key(self, name: str) -> str:
        """What a module of the same text has in any design."""
        module = self.modules[name]
        numbers: dict[str, str] = {}

        def counted(found: re.Match[str]) -> str:
            return numbers.setdefault(found.group(), f"{_NUMBER.sub('$', found.group())}#{len(numbers)}")

        lines = []
        # Not the first line: it has the name, and the ports in an order that depends on who is connected to them.
        for line in module.text[1:]:
            cell = _CELL.match(line) or _BANK.match(line)
            child = cell and cell.group(1).lstrip("\\")
            if child in self.modules:
                assert cell is not None and child is not None
                line = line.replace(cell.group(1), self.key(child), 1)
            lines.append(_NUMBERED.sub(counted, line))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def short(self, name: str) -> str:
        """A module's name without its top's, and without the numbers that tell equal names apart."""
        name = re.sub(r"\$\d+", "", name)
        return name.removeprefix(f"{self.top}.")

    def instances(self) -> Iterator[tuple[str, str]]:
        """(path, module) of all instances, the path without the top's name."""
        todo = [("", self.top)]
        while todo:
            path, name = todo.pop()
            yield path, name
            cells = self.modules[name].cells if name in self.modules else {}
            todo += [(f"{path}.{cell}".lstrip("."), child) for cell, child in cells.items()]


def _modules(verilog: str) -> Iterator[Module]:
    lines = verilog.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("module ")]
    names = [_name(lines[i]) for i in starts]
    for name, begin, end in zip(names, starts, [*starts[1:], len(lines)], strict=True):
        text = tuple(itertools.takewhile(lambda line: line != "endmodule", lines[begin:end]))
        yield Module(name, begin + 1, text, dict(_cells(text, set(names))))


def _name(line: str) -> str:
    found = _MODULE.match(line)
    assert found is not None, line
    return found.group(1).lstrip("\\")


def _cells(text: tuple[str, ...], names: set[str]) -> Iterator[tuple[str, str]]:
    for i, line in enumerate(text):
        found = _CELL.match(line)
        if found and found.group(2) and found.group(1).lstrip("\\") in names:
            yield found.group(2).lstrip("\\"), found.group(1).lstrip("\\")
        elif _BANK.match(line):
            end = next(k for k in range(i, len(text)) if _BANK_NAME.match(text[k]))
            name = _BANK_NAME.match(text[end])
            assert name is not None
            yield name.group(1).lstrip("\\"), bank_name(text[i + 1 : end])


def bank_name(parameters: tuple[str, ...]) -> str:
    """Verilator's name of a bank with these lines of parameters."""
    found = [m for m in map(_PARAMETER.match, parameters) if m]
    values = {m.group(1): int(m.group(2)) for m in found}
    other = [f"_{k[0]}{n:x}" for k, n in sorted(values.items()) if BANK_DEFAULTS.get(k, n) != n]
    return "lpu_bank_" + "".join(other) if other else "lpu_bank"
