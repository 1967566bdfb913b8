"""Imports point one way: contract -> HDL units and models -> firmware -> boards, benches, tests.

The order is the architecture. The reference must not import what it is compared with, the hardware must not
know who compiles for it, and the contract (config, isa, timing, image) must not know either.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("hdl", "sim", "firmware", "fpga", "verification", "tests")

CONTRACT = ("hdl.config", "hdl.isa", "hdl.timing", "hdl.image")
"""In order: each may import those before it, and nothing else of the project."""

SHARED_FACTS = ("hdl.tables", "hdl.link")
"""Plain facts beside the contract that the models may read, too: function tables, the link's frames."""

ALLOWED = {
    "hdl": {"hdl"},
    "sim": {"hdl", "sim"},
    "firmware": {"hdl", "sim", "firmware"},
    "fpga": {"hdl", "sim", "firmware", "fpga"},
    "verification": {"hdl", "sim", "firmware", "fpga", "verification"},
    "tests": set(PACKAGES),
}


def module_name(path: Path) -> str:
    """Dotted name of a file below the root."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of each import of the project's own modules, relative ones resolved.

    ``from a.b import c`` yields ``a.b.c``: c may be a module; a rule about ``a.b`` matches it by prefix.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                kept = parts[: len(parts) - node.level + is_package]
                base = ".".join([*kept, *([base] if base else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] in PACKAGES:
                yield node.lineno, name


def within(name: str, modules: tuple[str, ...]) -> bool:
    """Whether ``name`` is one of ``modules`` or something in it."""
    return any(name == module or name.startswith(module + ".") for module in modules)


def violation(module: str, imported: str) -> str | None:
    """Why ``module`` may not import ``imported``; None where it may."""
    package, target = module.split(".")[0], imported.split(".")[0]
    if target not in ALLOWED[package]:
        return f"{package}/ may import {', '.join(sorted(ALLOWED[package]))} only"
    if module in CONTRACT:
        before = CONTRACT[: CONTRACT.index(module)]
        if not within(imported, before):
            return f"the contract imports only what stands before it: {', '.join(before) or 'nothing'}"
    if package == "sim" and target == "hdl" and not within(imported, CONTRACT + SHARED_FACTS):
        return "the models may read the contract, not the hardware they are compared with"
    return None


def files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_direction(package: str) -> None:
    """No file of the package imports against the order."""
    wrong = []
    for path in files():
        module = module_name(path)
        if module.split(".")[0] != package:
            continue
        for line, name in imports(path.read_text(), module, path.name == "__init__.py"):
            reason = violation(module, name)
            if reason:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: imports {name}: {reason}")
    assert not wrong, "\n".join(wrong)


def test_the_rule_itself() -> None:
    """The check sees absolute, relative and nested imports, and refuses what it should."""
    source = "import sim.machine\ndef f():\n    from ..isa import Op\n    from . import vxm\nimport numpy\n"
    assert list(imports(source, "hdl.mxm.tile")) == [
        (1, "sim.machine"),
        (3, "hdl.isa.Op"),
        (4, "hdl.mxm.vxm"),
    ]
    assert list(imports("from . import config", "hdl", is_package=True)) == [(1, "hdl.config")]
    assert violation("hdl.core", "sim.machine") and violation("hdl.core", "firmware.asm")
    assert violation("sim.machine", "hdl.vxm.Vxm") and violation("sim.machine", "firmware.cli")
    assert violation("hdl.isa", "hdl.timing.latency") and violation("hdl.config", "hdl.isa")
    assert violation("firmware.cli", "fpga.build")
    assert violation("hdl.timing", "hdl.isa.Op") is None
    assert violation("sim.machine", "hdl.isa.Op") is None
    assert violation("verification.bench_vxm", "hdl.vxm.Vxm") is None
    assert violation("tests.test_x", "fpga.build") is None
