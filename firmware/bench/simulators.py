"""How fast the RTL simulates and how long its simulator takes to build."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hdl.config import Config
from sim import verilator

from ..compiler import Compilation
from ..rtl import Progress, verilog_path
from .measured import Run, run_context


@dataclasses.dataclass(frozen=True)
class Simulator:
    """A configuration's Verilator model with a number of threads."""

    config: str
    threads: int
    khz: float
    cpu_khz: float
    """Cycles a millisecond of processor time, all threads: what a busy machine does not change."""
    build_seconds: float | None
    """Verilog to library; None where an earlier build may have been used."""

    def as_json(self) -> Mapping[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, run: Run, threads: int = 1, build_seconds: float | None = None) -> Simulator:
        """From a context that ran."""
        return cls(run.config, threads, run.khz, run.cpu_khz, build_seconds)


def measure(compilation: Compilation, cfg: Config, threads: int, progress: Progress) -> Simulator:
    """Builds the model from nothing and runs a whole context, checked against reference and predicted cycles."""

    def report(done: int, total: int, what: str) -> None:
        progress(f"{cfg.name}, {threads} threads", done, total)

    verilog = verilog_path(cfg, progress)
    with tempfile.TemporaryDirectory() as folder, _no_compiler_cache():
        begin = time.perf_counter()
        library = verilator.build(
            verilog, "lpu", name=cfg.name, threads=threads, build_root=Path(folder), progress=report
        )
        seconds = time.perf_counter() - begin
        return Simulator.of(run_context(library, compilation, cfg), threads, seconds)


@contextlib.contextmanager
def _no_compiler_cache() -> Iterator[None]:
    """Compilers run, although ccache may know their result."""
    before = os.environ.get("CCACHE_DISABLE")
    os.environ["CCACHE_DISABLE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CCACHE_DISABLE"]
        else:
            os.environ["CCACHE_DISABLE"] = before
