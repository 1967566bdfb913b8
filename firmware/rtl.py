"""The core's Verilog and its simulation models, made once and kept under ``build/``."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path

from hdl.config import Config
from sim import verilator

VERILOG_ROOT = Path("build/verilog")
_HDL = Path(__file__).resolve().parent.parent / "hdl"

Progress = Callable[[str, int, int], None]
"""Called with (stage, steps done, steps in all)."""


def verilog_path(cfg: Config, progress: Progress | None = None) -> Path:
    """Path of the core's Verilog for a configuration; exported when a source has changed."""
    key = hashlib.sha256(repr(dataclasses.astuple(cfg)).encode())
    key.update(importlib.metadata.version("amaranth").encode())
    for source in sorted([*_HDL.rglob("*.py"), *_HDL.rglob("*.v")]):
        key.update(source.relative_to(_HDL).as_posix().encode() + source.read_bytes())
    path = VERILOG_ROOT / f"{cfg.name}-{key.hexdigest()[:12]}.v"
    if not path.exists():
        if progress:
            progress("Verilog export", 0, 1)
        from hdl.export import export  # Amaranth takes a while to import

        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(export(cfg))
        part.replace(path)
    if progress:
        progress("Verilog export", 1, 1)
    return path


def build_core(cfg: Config, trace: bool = False, progress: Progress | None = None) -> verilator.Library:
    """The Verilator model of the core, built when needed. ``trace``: able to write waveforms."""
    path = verilog_path(cfg, progress)

    def report(done: int, total: int, what: str) -> None:
        if progress:
            progress("Verilator build", done, total)

    name = cfg.name + ("-waves" if trace else "")
    return verilator.build(path, "lpu", name=name, trace=trace, progress=report)
