"""Verilog of the core, for simulators and for reading."""

from __future__ import annotations

from pathlib import Path

from amaranth.back import verilog

from .config import Config
from .core import Core

TOP = "lpu"


def export(cfg: Config) -> str:
    """Verilog text of the core with top module ``lpu``. Same configuration, same text."""
    return verilog.convert(Core(cfg), name=TOP, emit_src=False)


def write_verilog(cfg: Config, path: Path) -> Path:
    """Write :func:`export` to ``path`` (folders made as needed); an unchanged file is left alone."""
    text = export(cfg)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return path
