"""What earlier runs of the same design have reached, in ``build/coverage/CONFIG-HASH``: more runs add to it.

The hash is of the Verilog under test: another design begins anew, and a bin, which says nothing about lines, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import functional
from .constants import constant_bits
from .design import Design
from .points import Point, Reached

ROOT = Path(__file__).resolve().parent.parent.parent / "build" / "coverage"

Points = dict[str, tuple[str, dict[Point, int]]]


class State:
    """The target's points, what was reached of them, and of the functional bins."""

    def __init__(self, config: str, design: Design, verilog: str) -> None:
        self.config, self.design = config, design
        self.key = hashlib.sha256(verilog.encode()).hexdigest()[:12]
        self.folder = ROOT / f"{config}-{self.key}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.reached = Reached()
        self.bins = functional.load(self.folder / functional.FILE)
        self.points: Points = {}
        self.runs: list[str] = _json(self.folder / "runs.json", [])
        """Bench, simulator and seed of the runs merged so far."""
        self.seconds: int = _json(self.folder / "seconds.json", 0)
        """That those took."""
        self.constants: dict[str, list[int]] = _json(self.folder / "constants.json", {})
        if not self.constants:
            self.constants = constant_bits(verilog, design.top)
            _write(self.folder / "constants.json", self.constants)
        for key, names in _json(self.folder / "reached.json", {}).items():
            self.reached.points[key] = {Point(*point) for point in names}
        for key, (name, points) in _json(self.folder / "points.json", {}).items():
            self.points[key] = name, {Point(*point): 0 for point in points}

    def set_target(self, points: Points) -> None:
        """Takes the list of points from a run of the target design."""
        self.points = points
        own = {key: (name, _listed(found)) for key, (name, found) in points.items()}
        _write(self.folder / "points.json", own)

    def merge(self, run: str, points: Points, bins: Iterable[str] = (), seconds: float = 0) -> tuple[int, int]:
        """Merges a run, which took so long, and saves; returns how many points and bins are new."""
        own = {key: value for key, value in points.items() if key in self.points}
        new = self.reached.add(own)
        added = set(bins) - self.bins
        self.bins |= added
        if run not in self.runs:
            self.runs.append(run)
        self.seconds += round(seconds)
        self.save()
        return new, len(added)

    def save(self) -> None:
        """Writes everything down."""
        functional.save(self.folder / functional.FILE, self.bins)
        _write(self.folder / "runs.json", self.runs)
        _write(self.folder / "seconds.json", self.seconds)
        _write(self.folder / "reached.json", {key: _listed(own) for key, own in self.reached.points.items()})


def _listed(points: Iterable[Point]) -> list[tuple[str, int, int, str]]:
    return [(p.kind, p.line, p.column, p.what) for p in sorted(points)]


def _write(path: Path, content: object) -> None:
    """The new file is whole before it takes the old one's place."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content), encoding="utf-8")
    new.replace(path)


def _json(path: Path, default: Any) -> Any:
    if not path.exists():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); delete {path.parent} and run again") from None
