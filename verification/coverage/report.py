"""The report: as a page, as text, as a record for ``docs/verification.md``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import jinja2

from verification.evidence.record import Record

from .summary import Summary

OUTSIDE = (
    "The target is the core with its host link: the modules of the report. What a board puts around it (fpga/: UART, "
    "synchronisers, boot memory, the ECP5's own block RAMs and multipliers) is not in it and not counted; the benches "
    "`uart`, `uart_coarse`, `board` and `ecp5` test that."
)
GOALS = {"functional": 100.0, "line": 98.0, "toggle": 90.0}
"""Per cent of what is wanted."""


def html(s: Summary) -> str:
    """Everything, on one page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html.j2").render(s=s, goals=GOALS, outside=OUTSIDE)


def text(s: Summary) -> str:
    """Everything, as text."""
    lines = [table(s), "", OUTSIDE, "", "Modules: lines, toggles in per cent (points)"]
    for name, figures in sorted(s.modules.items()):
        line, toggle = figures["line"], figures["toggle"]
        lines.append(
            f"  {name:40} {line.percent:6.1f} ({line.wanted:5})  {toggle.percent:6.1f} ({toggle.wanted:6})"
        )
    lines += ["", "Excluded:"]
    lines += [f"  {kind:10} {count:6}  {reason}" for (kind, reason), count in s.excluded.items()]
    lines += ["", "Toggles not reached, by reason:"]
    lines += [f"  {count:6}  {reason}" for reason, count in sorted(s.explained.items(), key=lambda item: -item[1])]
    lines += ["", "Not reached:"]
    for (kind, name), points in s.missing.items():
        lines += [f"  {kind}, {name}: {len(points)}", *(f"    {point}" for point in signals(points))]
    return "\n".join([*lines, "", "Runs:", *(f"  {run}" for run in s.runs), ""])


def signals(points: Iterable[str]) -> list[str]:
    """Points as a list for people: a signal's bits and directions in one line."""
    bits: dict[str, list[str]] = {}
    for point in points:
        name, bracket, rest = point.partition("[") if point.endswith(("0->1", "1->0")) else (point, "", "")
        plain = re.fullmatch(r"(.*):(0->1|1->0)", name)
        if bracket:
            bits.setdefault(name, []).append(rest.replace("]:", " "))
        elif plain:
            bits.setdefault(plain.group(1), []).append(plain.group(2))
        else:
            bits.setdefault(name, [])
    return [f"{name}: {', '.join(which)}" if which else name for name, which in bits.items()]


def table(s: Summary) -> str:
    """The figures."""
    lines = [f"config {s.config}, {len(s.runs)} runs", f"{'':22}{'reached':>9}{'wanted':>9}{'%':>9}{'goal':>7}"]
    rows = [(kind, figure, f"{GOALS[kind]:.0f}") for kind, figure in s.totals.items()]
    rows += [(f"  {name}", figure, "") for name, figure in s.families.items()]
    lines += [f"{name:22}{f.reached:9}{f.wanted:9}{f.percent:9.2f}{goal:>7}" for name, f, goal in rows]
    out = sum(s.excluded.values())
    return "\n".join([*lines, f"excluded: {out} points for {len(s.excluded)} reasons"])


def record(s: Summary, command: str, begun: tuple[str, str], seconds: int) -> Record:
    """What is kept of a run."""
    date, commit = begun
    figures: dict[str, int | float | str] = {}
    for kind, figure in s.totals.items():
        figures[f"{kind}, % (goal {GOALS[kind]:.0f})"] = round(figure.percent, 2)
        figures[f"{kind}, reached of wanted"] = f"{figure.reached:,} of {figure.wanted:,}"
    figures |= {f"bins: {name}": f"{f.reached:,} of {f.wanted:,}" for name, f in s.families.items()}
    for kind in s.totals:
        figures[f"excluded, {kind}"] = sum(n for (k, _), n in s.excluded.items() if k == kind)
    figures |= {"modules in the target": len(s.modules), "runs merged": len(s.runs)}
    left = [OUTSIDE]
    left += [f"excluded, {kind}, {n:,} points: {reason}" for (kind, reason), n in s.excluded.items()]
    left += [f"not reached, {name}: {'; '.join(p)}" for (kind, name), p in s.missing.items() if kind == "functional"]
    left += [f"not reached, line, {name}, {n} points: {reason}" for (name, reason), n in s.holes.items()]
    left += [f"not reached, toggle, {n:,} points: {reason}" for reason, n in s.explained.items()]
    seeds = sorted({int(run.split("-")[2]) for run in s.runs})
    return Record(
        part="coverage",
        title="Coverage of the core",
        command=command,
        config=s.config,
        seeds=f"{seeds[0]} .. {seeds[-1]}" if seeds else "-",
        evidence="simulated: cocotb on Verilator, functional bins only where RTL and machine agreed in every cycle",
        figures=figures,
        open=tuple(left),
        date=date,
        commit=commit,
        seconds=seconds,
    )
