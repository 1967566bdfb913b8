"""Figures of a state: what is wanted, reached, excluded and why, and what is missing."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict

from hdl.config import Config

from . import exclusions, functional
from .constants import constant_signals
from .explained import why, why_line
from .points import KINDS, Point
from .state import State

CONSTANT = "constant: Yosys folds it to 0 or 1 in every instance, whatever is fed in"
DECIDED = "the condition of the branch is such a constant in every instance, and this is the arm that is never taken"
_CONDITION = re.compile(r"if \(\\?([^\s()]+?) ?\)")
_BIT = re.compile(r"(.*?)(?:\[(\d+)\])?:(0->1|1->0)", re.DOTALL)


@dataclasses.dataclass
class Figure:
    """Points of one kind: of a module, of a family of bins, or of all."""

    wanted: int = 0
    reached: int = 0

    @property
    def percent(self) -> float:
        """Reached of wanted; all of nothing is all."""
        return 100 * self.reached / self.wanted if self.wanted else 100.0

    def __iadd__(self, other: Figure) -> Figure:
        self.wanted, self.reached = self.wanted + other.wanted, self.reached + other.reached
        return self


@dataclasses.dataclass
class Summary:
    """``missing``: kind and module (or family of bins) to what is not reached; ``excluded``: how many points each
    reason takes out, by kind."""

    config: str
    totals: dict[str, Figure]
    modules: dict[str, dict[str, Figure]]
    families: dict[str, Figure]
    missing: dict[tuple[str, str], list[str]]
    excluded: dict[tuple[str, str], int]
    explained: dict[str, int]
    """Why toggles are missing, and how many."""
    holes: dict[tuple[str, str], int]
    """By module and reason, how many lines are missing."""
    runs: list[str]


def summary(state: State, cfg: Config) -> Summary:
    """Raises StaleExclusion where an exclusion matches nothing."""
    used: set[exclusions.Exclusion] = set()
    excluded: Counter[tuple[str, str]] = Counter()
    explained: Counter[str] = Counter()
    holes: Counter[tuple[str, str]] = Counter()
    missing: dict[tuple[str, str], list[str]] = defaultdict(list)
    families: dict[str, Figure] = defaultdict(Figure)
    for name in sorted(functional.wanted(cfg)):
        out = exclusions.first_match("bin", name)
        if out is not None:
            used.add(out)
            excluded["functional", out.reason] += 1
            if name in state.bins:
                raise ValueError(f"the bin {name} is excluded ({out.reason}), but was reached")
            continue
        own = families[functional.family(name)]
        own += Figure(1, int(name in state.bins))
        if name not in state.bins:
            missing["functional", functional.family(name)].append(name)
    modules: dict[str, dict[str, Figure]] = {}
    constants = constant_signals(state.design, state.constants)
    for key, (name, points) in state.points.items():
        short = state.design.short(name)
        left = set(state.reached.missing(key, points))
        figures = modules.setdefault(short, {kind: Figure() for kind in KINDS})
        for point in points:
            text, shown = _text(state, name, point)
            out = exclusions.first_match(point.kind, f"{short}: {text}")
            if out is not None:
                used.add(out)
                excluded[point.kind, out.reason] += 1
            elif _constant(constants.get(name, {}), point):
                excluded[point.kind, CONSTANT] += 1
            elif point in left and _decided(constants.get(name, {}), point, text):
                excluded[point.kind, DECIDED] += 1
            else:
                figures[point.kind] += Figure(1, int(point not in left))
                if point in left and point.kind == "toggle":
                    missing[point.kind, short].append(shown)
                    explained[why(point.what)] += 1
                elif point in left:
                    reason = why_line(f"{short}: {text}")
                    missing[point.kind, short].append(f"{shown} ({reason})")
                    holes[short, reason] += 1
    exclusions.check_used(used)
    totals = {kind: Figure() for kind in ("functional", *KINDS)}
    for figure in families.values():
        totals["functional"] += figure
    for figures in modules.values():
        for kind in KINDS:
            totals[kind] += figures[kind]
    counts = dict(excluded), dict(explained), dict(holes)
    return Summary(state.config, totals, modules, dict(families), dict(missing), *counts, state.runs)


def _text(state: State, name: str, point: Point) -> tuple[str, str]:
    """What exclusions look at, and what a reader is shown."""
    if point.kind == "toggle":
        return point.what, point.what
    module = state.design.modules[name if name in state.design.modules else name.split("__")[0]]
    source = module.source(point.line)
    return source, f"{point.what} in line {module.line + point.line}: {source}"


def _constant(signals: dict[str, set[int]], point: Point) -> bool:
    found = _BIT.fullmatch(point.what) if point.kind == "toggle" else None
    return found is not None and int(found.group(2) or 0) in signals.get(found.group(1), ())


def _decided(signals: dict[str, set[int]], point: Point, source: str) -> bool:
    """An arm of an ``if`` whose condition is a constant bit."""
    found = _CONDITION.search(source) if point.kind == "line" and point.what in ("if", "elsif", "else") else None
    return found is not None and 0 in signals.get(found.group(1), ())
