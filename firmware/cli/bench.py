"""``lpu bench``: cycles, utilisation and speed of every model and configuration, and what else runs the model here."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from hdl.config import get_config
from sim.reference import Reference

from ..bench import cpu, gguf_file, hugging_face, llama_cpp, plots, simulators
from ..bench.baseline import Baseline
from ..bench.measured import Run, run_context
from ..bench.processor import PEAK_METHOD, describe, power
from ..bench.rows import BOARD_WATTS, ENERGY_METHOD, PLACED, STATED, Row, row
from ..bench.simulators import Simulator
from ..bench.subjects import SEQUENCES, Subject, subjects
from ..bench.timeline import SLICES, Timeline, timeline
from ..checkpoint import Checkpoint
from ..compiler import compile_model
from ..errors import LpuError
from ..rtl import build_core
from ..simulate import REPORT_POSITION, resolve_model, shipped_models
from ..tokenizer import Tokenizer
from .bars import Bars
from .port import SHIPPED_MODEL

BOARD = "ulx3s-85f"
"""The configuration that is looked at more closely."""
FOLDER = Path("build/bench")
CPU_RUNS, HF_RUNS, LLAMA_RUNS = 200, 3, 100
SIMULATED = (("tiny", "names-4k"), (BOARD, SHIPPED_MODEL))
"""Configurations whose simulators are measured, with the model that each runs."""
WIDTH = 136
"""Columns of the tables, at least."""
RTL, SCHEDULE = "RTL simulation", "static schedule, which the RTL equals in every simulation"
EVIDENCE = {RTL: "R", SCHEDULE: "S", PLACED: "P", STATED: "E"}
"""Letters of what cycles (R, S) and clock (P, E) rest on."""
PUBLISHED = (
    ("gateGPT", "Virtex-5, 80 MHz", "4.2 k parameters", 60_600, 0.25, "run on the board by its authors"),
    ("TALOS-V2", "DE1-SoC, 56 MHz", "4.2 k parameters", 45_500, 0.19, "run on the board by its authors"),
    ("ZyboGPT", "Zynq-7010, 150 MHz", "115 k ternary", 3_100, 0.35, "run on the board by its authors"),
    ("Trinity", "Artix-7, 92 MHz", "1.45 M ternary, no attention", 63, 0.09, "published by its authors"),
    ("ztachip", "Artix-7", "SmolLM2-135M", 8, 1.1, "run on the board by its authors"),
)
"""Project, device, model, tokens/s, effective GMAC/s (derived from the model's size), evidence."""


@click.command("bench", epilog="Example: lpu bench --no-baselines")
@click.option("--rtl/--no-rtl", default=True, show_default=True, help="Run the shipped model on the board's RTL.")
@click.option("--baselines/--no-baselines", default=True, show_default=True, help="Run the model on this processor.")
@click.option("--simulators/--no-simulators", "speed", default=False, show_default=True,
              help="Build the simulators anew, with one and two threads, and time builds and runs (some minutes).")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default=FOLDER, show_default=True)
def command(rtl: bool, baselines: bool, speed: bool, folder: Path) -> None:
    """Measure every shipped model on every configuration that holds it, and the same model on this processor.

    Writes report.json and, with matplotlib, pictures of one token and of the roofline. Utilisation is weighted by
    operand width.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bars = Bars(Console(stderr=True))
    out = Console()
    out = out if out.width >= WIDTH else Console(width=WIDTH)
    with bars:
        found = list(subjects(shipped_models(), bars.stage))
        runs = [_rtl(n, bars) for n in SEQUENCES] if rtl else []
        rows = [_row(s, p, runs) for s in found for p in s.positions]
        others = _baselines(folder, bars) if baselines else []
        simulated = _simulators(bars) if speed else [Simulator.of(run) for run in runs[:1]]
    closely = next(s for s in found if (s.cfg.name, s.name, s.sequences) == (BOARD, SHIPPED_MODEL, 1))
    token = _timeline(closely, REPORT_POSITION)
    out.print(_rows_table(rows), _waits_table(token), _slices_table(token))
    if others:
        out.print(_baseline_table(others, rows))
        for name, extra in _absent():
            out.print(f"Not measured: {name}, which is not installed (extra `{extra}`).")
    if simulated:
        out.print(_simulator_table(simulated))
    out.print(_published_table())
    report: dict[str, Any] = {
        "rows": [r.as_json() for r in rows],
        "baselines": [b.as_json() for b in others],
        "processor": describe(),
        "not_measured": [name for name, _ in _absent()] if baselines else [],
        "energy_method": ENERGY_METHOD,
        "waits": token.waits(),
        "simulators": [s.as_json() for s in simulated],
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    if plots.available():
        title = f"{BOARD}, {SHIPPED_MODEL}, position {REPORT_POSITION}: {token.cycles} cycles"
        plots.gantt(token, title, folder / "gantt.svg")
        board = [r for r in rows if (r.config, r.sequences) == (BOARD, 1)]
        plots.roofline(closely.cfg, closely.weights, board, folder / "roofline.svg")
    out.print(f"{folder / 'report.json'}" + (", gantt.svg, roofline.svg" if plots.available() else ""))


def _timeline(s: Subject, position: int) -> Timeline:
    return timeline(s.cfg, s.program, s.floor, s.qshape, position)


def _row(s: Subject, position: int, runs: list[Run]) -> Row:
    token = _timeline(s, position)
    evidence = SCHEDULE
    for run in runs:
        if (s.cfg.name, s.name, s.sequences) != (run.config, SHIPPED_MODEL, run.sequences):
            continue
        if run.cycles[position] != token.cycles:
            raise LpuError(f"position {position}: {run.cycles[position]} cycles in RTL, {token.cycles} predicted")
        evidence = RTL
    return row(s.cfg, s.name, s.name == SHIPPED_MODEL, s.shape, s.weights, position, token, evidence, s.sequences)


def _rtl(sequences: int, bars: Bars) -> Run:
    cfg = get_config(BOARD)
    compilation = compile_model(resolve_model(SHIPPED_MODEL), cfg, progress=bars.stage, sequences=sequences)
    library = build_core(cfg, False, bars)
    bars.stage(f"a whole context on the RTL of {BOARD}" + (f", {sequences} sequences" if sequences > 1 else ""))
    return run_context(library, compilation, cfg)


def _baselines(folder: Path, bars: Bars) -> list[Baseline]:
    """The shipped model on this processor: its held-out text, one context long, a token at a time."""
    path = resolve_model(SHIPPED_MODEL)
    ckpt = Checkpoint(path)
    shape = ckpt.shape
    text = Tokenizer(path, shape.vocab).encode((path / "heldout.txt").read_text())[: shape.context]
    compilation = compile_model(path, get_config(BOARD), progress=bars.stage)
    expected = Reference(compilation.qmodel).forward(text).argmax(axis=1).tolist()
    position = min(REPORT_POSITION, shape.context - 1)
    macs, threads = shape.macs(position), sorted({1, os.cpu_count() or 1})
    program, model = cpu.build(folder), folder / "cloop.bin"
    cpu.write_model(ckpt, model)
    found = []

    def each(name: str, measure: Callable[[int], Baseline]) -> None:
        for n in threads:
            bars.stage(f"{name}, {n} threads")
            with power(n) as used:
                baseline = measure(n)
            found.append(dataclasses.replace(baseline, power=used))

    each("C loop", lambda n: cpu.measure(program, model, macs, text, expected, n, CPU_RUNS, position))
    gguf = folder / "llama.gguf"
    for matrices in llama_cpp.PRECISIONS if llama_cpp.available() else ():
        gguf_file.write(ckpt, matrices, gguf)
        read = functools.partial(
            llama_cpp.measure, gguf, matrices, macs, text, expected, runs=LLAMA_RUNS, position=position
        )
        each(f"llama.cpp, {matrices}", lambda n, read=read: read(threads=n))  # type: ignore[misc]
    if hugging_face.available():
        each("transformers", lambda n: hugging_face.measure(path, macs, text, expected, n, HF_RUNS, position))
    return found


def _absent() -> Iterator[tuple[str, str]]:
    """Baselines that are not installed, each with the extra that brings it."""
    if not llama_cpp.available():
        yield "llama.cpp", "llama"
    if not hugging_face.available():
        yield "transformers", "bench"


def _simulators(bars: Bars) -> list[Simulator]:
    found = []
    for config, model in SIMULATED:
        cfg = get_config(config)
        compilation = compile_model(resolve_model(model), cfg, progress=bars.stage)
        found += [simulators.measure(compilation, cfg, threads, bars) for threads in (1, 2)]
    return found


def _rows_table(rows: list[Row]) -> Table:
    table = Table(title="Tokens")
    for name in ("config", "model"):
        table.add_column(name)
    for name in ("seq.", "position", "cycles", "utilisation", "unweighted", "bytes/cycle", "MHz"):
        table.add_column(name, justify="right")
    for name in ("tokens/s", "per W", "GMAC/s", "µJ"):
        table.add_column(name, justify="right")
    table.add_column("evid.")
    for r in rows:
        table.add_row(
            r.config, r.model + (" *" if r.default_model else ""), f"{r.sequences}", f"{r.position}", f"{r.cycles:,}",
            f"{r.mac_utilisation:.1%}", f"{r.mac_utilisation_unweighted:.1%}",
            f"{r.sram_bytes_per_cycle:.0f} of {r.sram_bytes_per_cycle_available}", f"{r.clock_mhz:g}",
            f"{r.tokens_per_second:,.0f}", _rate(r.tokens_per_second_per_watt), f"{r.macs_per_second / 1e9:.1f}",
            "" if r.joules_per_token is None else f"{r.joules_per_token * 1e6:.0f}", _letters(r.evidence),
        )  # fmt: skip
    table.caption = (
        "* the shipped model. Utilisation: weighted by operand width. seq.: sequences in turn; cycles are those of a\n"
        "token of each, and tokens/s those of all.\n"
        f"per W: tokens/s per watt; µJ a token. Estimates, {ENERGY_METHOD}.\n"
        + "; ".join(f"{key}: {text}" for text, key in EVIDENCE.items())
    )
    return table


def _letters(evidence: str) -> str:
    """A row's evidence in the letters that the table explains."""
    return " ".join(key for text, key in EVIDENCE.items() if text in evidence)


def _waits_table(token: Timeline) -> Table:
    title = f"What the MXM waits for: {BOARD}, {SHIPPED_MODEL}, position {REPORT_POSITION}"
    table = Table("before", "cycles of a token", title=title)
    for note, cycles in sorted(token.waits().items(), key=lambda item: -item[1]):
        table.add_row(note, f"{cycles}")
    table.add_row("[bold]all[/bold]", f"{sum(token.waits().values())} of {token.cycles}")
    return table


def _slices_table(token: Timeline) -> Table:
    table = Table("slice", "cycles at work", title="The same token by slice")
    for queue, name in SLICES.items():
        table.add_row(name, f"{token.busy(queue)} ({token.busy(queue) / token.cycles:.0%})")
    return table


def _baseline_table(others: list[Baseline], rows: list[Row]) -> Table:
    table = Table(title=f"{SHIPPED_MODEL} at position {REPORT_POSITION}, batch 1")
    for name in ("program", "precision"):
        table.add_column(name)
    for name in ("threads", "median, µs", "99 %, µs", "tokens/s", "per W", "GMAC/s", "utilisation", "top-1 equal"):
        table.add_column(name, justify="right")
    table.add_column("evidence")
    for r in rows:
        if (r.config, r.default_model, r.position, r.sequences) == (BOARD, True, REPORT_POSITION, 1):
            us = f"{1e6 / r.tokens_per_second:.2f}"
            table.add_row(
                f"LPU, {r.config}", "int4 weights, int8 K and V", "", us, us, f"{r.tokens_per_second:,.0f}",
                _rate(r.tokens_per_second_per_watt), f"{r.macs_per_second / 1e9:.1f}", f"{r.mac_utilisation:.1%}",
                "100.0%", _letters(r.evidence),
            )  # fmt: skip
    for b in others:
        table.add_row(
            b.name, b.precision, f"{b.threads}", f"{b.median * 1e6:.2f}", f"{b.p99 * 1e6:.2f}", f"{1 / b.median:,.0f}",
            _rate(b.tokens_per_joule), f"{b.effective_macs / b.median / 1e9:.1f}",
            "" if b.utilisation is None else f"{b.utilisation:.1%}", f"{b.agreement:.1%}", "M",
        )  # fmt: skip
    methods = sorted({b.power.method for b in others if b.power})
    table.caption = (
        f"M: measured now, {describe()}. The LPU has no spread: every run takes the same cycles.\n"
        f"per W: tokens/s per watt. LPU, estimate: {BOARD_WATTS} W, an upper bound. Others, {'; '.join(methods)}.\n"
        f"utilisation of the processor, estimate: useful MACs over {PEAK_METHOD}."
    )
    return table


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _simulator_table(found: list[Simulator]) -> Table:
    table = Table("config", title="Simulators: Verilator, the harness of `make sim`")
    for name in ("threads", "kHz", "kHz of processor time", "build, s"):
        table.add_column(name, justify="right")
    for s in found:
        build = "kept" if s.build_seconds is None else f"{s.build_seconds:.0f}"
        table.add_row(s.config, f"{s.threads}", f"{s.khz:.0f}", f"{s.cpu_khz:.0f}", build)
    table.caption = "Measured on this machine, now, over a whole context. Build: Verilog to library, without ccache."
    return table


def _published_table() -> Table:
    table = Table("project", "device", "model", "tokens/s", "GMAC/s", "evidence", title="Published by others")
    for project, device, model, rate, gmacs, evidence in PUBLISHED:
        table.add_row(project, device, model, f"{rate:,}", f"{gmacs:g}", evidence)
    return table
