"""Lines, branches and toggles as Verilator counts them: the points of a ``coverage.dat``, and which were reached.

Verilator makes a point of every block, every arm of an ``if``, a ``case`` or a ``?:`` (*line* here), and two of every
bit of every signal, one for each direction (*toggle*); memories' arrays are no signals. A module's points count once,
whichever of its instances reaches them.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from .design import Design

KINDS = ("line", "toggle")
_KIND = {"v_line": "line", "v_branch": "line", "v_toggle": "toggle"}
_RECORD = re.compile(r"C '(.*)' (\d+)$", re.DOTALL)
_CODE = re.compile(r"__0([0-9A-Fa-f]{2})")
_NUMBERS = re.compile(r"\$\d+")


@dataclasses.dataclass(frozen=True, order=True)
class Point:
    """``line``: within its module, from 0 on; ``what``: kind of block or arm, or signal, bit and direction."""

    kind: str
    line: int
    column: int
    what: str

    @property
    def anonymous(self) -> Point:
        """The point without the numbers of names that differ from design to design."""
        return Point(self.kind, self.line, self.column, _NUMBERS.sub("$", self.what))


def read(path: Path, design: Design) -> dict[str, dict[Point, int]]:
    """Points of each module with the number of times they were reached; a module with parameters bears them."""
    out: dict[str, dict[Point, int]] = defaultdict(dict)
    for fields, count in _records(path):
        page, name = fields["page"].split("/", 1)
        name = decoded(name)
        base = name if name in design.modules else name.split("__")[0]
        module = design.modules[base]
        point = Point(_KIND[page], int(fields["l"]) - module.line, int(fields["n"]), decoded(fields["o"]))
        if not 0 <= point.line < len(module.text):
            raise ValueError(f"{path}: {point} is not in module {name}: the Verilog has changed since the run")
        out[name][point] = out[name].get(point, 0) + count
    return dict(out)


def decoded(name: str) -> str:
    """A name with Verilator's ``__0XX`` undone."""
    return _CODE.sub(lambda code: chr(int(code.group(1), 16)), name)


def _records(path: Path) -> Iterator[tuple[dict[str, str], int]]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        if not next(lines, "").startswith("# SystemC::Coverage-3"):
            raise ValueError(f"{path} is not Verilator's coverage")
        for line in lines:
            found = _RECORD.match(line.rstrip("\n"))
            if found is None:
                raise ValueError(f"{path}: not a point: {line[:80]!r}")
            fields = dict(part.split("\x02", 1) for part in found.group(1).split("\x01") if part)
            yield fields, int(found.group(2))


def keyed(points: Mapping[str, Mapping[Point, int]], design: Design) -> dict[str, tuple[str, dict[Point, int]]]:
    """By key of the module (and its parameters): its name, the first where several have the key, and its points."""
    out: dict[str, tuple[str, dict[Point, int]]] = {}
    seen: dict[str, dict[Point, Point]] = {}
    for name, own in points.items():
        base = name if name in design.modules else name.split("__")[0]
        key = design.key(base) + name[len(base) :]
        _, merged = out.setdefault(key, (name, {}))
        same = seen.setdefault(key, {})
        for point, count in own.items():
            known = same.setdefault(point.anonymous, point)
            merged[known] = merged.get(known, 0) + count
    return out


class Reached:
    """The points that were reached, by module, over many runs."""

    def __init__(self) -> None:
        self.points: dict[str, set[Point]] = defaultdict(set)

    def add(self, run: Mapping[str, tuple[str, Mapping[Point, int]]]) -> int:
        """Merges a run; returns how many points are new."""
        before = sum(map(len, self.points.values()))
        for key, (_, points) in run.items():
            self.points[key] |= {point.anonymous for point, count in points.items() if count}
        return sum(map(len, self.points.values())) - before

    def missing(self, key: str, points: Iterable[Point]) -> list[Point]:
        """Those of a module's points that no run reached."""
        own = self.points.get(key, set())
        return [point for point in points if point.anonymous not in own]
