"""The core's Verilog and its simulation models, made once and kept under ``build/``."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path

from hdl.config import Config
from sim import verilator

VERILOG_ROOT = Path("build/verilog")
HDL = Path(__file__).resolve().parent.parent / "hdl"

Progress = Callable[[str, int, int], None]
"""Called with (stage, steps done, steps in all)."""


def exported(
    name: str,
    parameters: object,
    folders: Sequence[Path],
    make: Callable[[], str],
    progress: Progress | None = None,
) -> Path:
    """Path of the Verilog that ``make`` returns, kept under ``name``.

    Made anew when ``parameters`` (by their ``repr``), Amaranth, or a source below ``folders`` has changed.
    """
    key = hashlib.sha256(repr(parameters).encode())
    key.update(importlib.metadata.version("amaranth").encode())
    for folder in folders:
        for source in sorted([*folder.rglob("*.py"), *folder.rglob("*.v")]):
            key.update(source.relative_to(folder).as_posix().encode() + source.read_bytes())
    path = VERILOG_ROOT / f"{name}-{key.hexdigest()[:12]}.v"
    if not path.exists():
        if progress:
            progress("Verilog export", 0, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(make())
        part.replace(path)
    if progress:
        progress("Verilog export", 1, 1)
    return path


def build_model(
    path: Path, top: str, name: str, *, trace: bool = False, serial: bool = False, progress: Progress | None = None
) -> verilator.Library:
    """The Verilator model of an exported top, built when needed; arguments as of :func:`sim.verilator.build`."""

    def report(done: int, total: int, what: str) -> None:
        if progress:
            progress("Verilator build", done, total)

    name += "-waves" if trace else ""
    return verilator.build(path, top, name=name, trace=trace, serial=serial, progress=report)


def verilog_path(cfg: Config, progress: Progress | None = None) -> Path:
    """Path of the core's Verilog for a configuration; exported when a source has changed."""

    def make() -> str:
        from hdl.export import export  # Amaranth takes a while to import

        return export(cfg)

    return exported(cfg.name, dataclasses.astuple(cfg), [HDL], make, progress)


def build_core(cfg: Config, trace: bool = False, progress: Progress | None = None) -> verilator.Library:
    """The Verilator model of the core, built when needed. ``trace``: able to write waveforms."""
    return build_model(verilog_path(cfg, progress), "lpu", cfg.name, trace=trace, progress=progress)
