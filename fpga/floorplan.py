"""Where block RAMs and multipliers lie on the die.

Of both nearly all are used. Left to itself the placer scatters them over the die, and everything between them is
pulled along. Here each superlane gets a strip of the die from bottom to top, two by two on either side, with a row
of block RAMs for each of its columns and the multipliers in the same order; what the other slices have stands in
the gap in the middle, lane by lane where it has lanes. Four strips, from left to right: 1 0 | 2 3. The first
superlane gets its activations from the middle, and only the hop from 1 to 2 is longer than to the next strip.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

from hdl.config import Config


@dataclasses.dataclass(frozen=True)
class Die:
    """Sites of a device: rows (y) and, in each, columns (x). Names as nextpnr's BELs."""

    ram_rows: tuple[int, ...]
    ram_columns: tuple[int, ...]
    multiplier_rows: tuple[int, ...]
    multiplier_columns: tuple[int, ...]

    def rams(self) -> list[list[str]]:
        """BELs of block RAMs, row by row, each from left to right."""
        return [[f"X{x}/Y{y}/EBR{i % 4}" for i, x in enumerate(self.ram_columns)] for y in self.ram_rows]

    def multipliers(self) -> list[list[str]]:
        """BELs of multipliers, likewise."""
        return [
            [f"X{x}/Y{y}/MULT18_{(0, 1, 4, 5)[i % 4]}" for i, x in enumerate(self.multiplier_columns)]
            for y in self.multiplier_rows
        ]


def _tiles(starts: range, middle: int, offsets: tuple[int, ...]) -> tuple[int, ...]:
    """Columns of groups that repeat every nine tiles; past the middle of the die they stand two further."""
    return tuple(x + (2 if x > middle else 0) + d for x in starts for d in offsets)


# Read off a placement of 208 block RAMs and 156 multipliers by nextpnr 0.11.1.
_LFE5U_85F = Die(
    ram_rows=(22, 46, 70, 82),
    ram_columns=_tiles(range(4, 121, 9), 60, (0, 2, 4, 6)),
    multiplier_rows=(10, 34, 58),
    multiplier_columns=_tiles(range(4, 121, 9), 60, (0, 1, 4, 5)),
)
DIES = {"LFE5U-85F": _LFE5U_85F}

_RAM, _MULTIPLIER = ("DP16KD", "PDPW16KD"), ("MULT18X18D",)
"""Types of cell, as Yosys leaves them."""
# The blocks in the middle: for each row from the top, what stands in it side by side, as parts of a path. Within a row
# the blocks of a lane of the VXM stand together, lane 0 to the left. What no row names, or has no place for, follows.
_MIDDLE = {
    _RAM: (
        (r"core\.scale\.bank\.array\.s0", r"core\.vxm\.alu"),
        (r"core\.coef\.", r"core\.vector\."),
        (r"core\.scale\.", r"core\.vxm\.", r"core\.mxm\.act", r"core\.icu\.queue_a"),
    ),
    _MULTIPLIER: (
        (r"core\.vxm\.dequant\.wide", r"core\.vxm\.dequant\.scale"),
        (r"core\.vxm\.alu\.last", r"core\.vxm\.alu\.cross"),
        (r"core\.vxm\.alu\.gate", r"core\.vxm\.scalar"),
    ),
}  # fmt: skip


def floorplan(device: str, cfg: Config, cells: Mapping[str, str]) -> dict[str, str]:
    """BEL of each placed cell.

    ``cells``: type of each block RAM and multiplier by its name in the flattened netlist. Empty for a device without
    a plan, and for a tile that does not fit the strips of its die.
    """
    die = DIES.get(device)
    if die is None or cfg.superlane_columns > len(die.ram_rows):
        return {}
    plan: dict[str, str] = {}
    for kind, sites in ((_RAM, die.rams()), (_MULTIPLIER, die.multipliers())):
        own = [name for name, type_ in cells.items() if type_ in kind]
        lanes = [_superlane(own, s) for s in range(cfg.vlanes)]
        # Left of the middle the later superlanes stand further out, right of it likewise.
        left, right = lanes[: cfg.vlanes // 2], lanes[cfg.vlanes // 2 :]
        for names, take in [*((n, 0) for n in reversed(left)), *((n, -1) for n in reversed(right))]:
            rows = _shares(len(names), len(sites), _per_row(names, cfg, kind))
            chosen: list[str] = []
            for row, count in zip(sites, rows, strict=True):
                if count > len(row):
                    return {}
                chosen += row[:count] if take == 0 else row[len(row) - count :]
                del row[slice(0, count) if take == 0 else slice(len(row) - count, None)]
            plan |= dict(zip(names, chosen, strict=True))
        others = sorted((n for n in own if n not in plan), key=_natural)
        for row, patterns in zip(sites, _MIDDLE[kind], strict=False):
            chosen = _side_by_side(others, patterns)[: len(row)]
            plan |= dict(zip(chosen, row, strict=False))
            others = [n for n in others if n not in plan]
            del row[: len(chosen)]
        plan |= dict(zip(others, [site for row in sites for site in row], strict=False))
    return plan


def _side_by_side(names: list[str], patterns: Iterable[str]) -> list[str]:
    """What the patterns name, each group spread evenly over the row."""
    groups = [[n for n in names if re.search(pattern, n)] for pattern in patterns]
    placed = [((i + 0.5) / len(group), n) for group in groups for i, n in enumerate(group)]
    return [n for _, n in sorted(placed, key=lambda p: p[0])]


def _superlane(names: Iterable[str], s: int) -> list[str]:
    """A superlane's blocks, column by column, each in the order of the lanes."""
    return sorted((n for n in names if f".superlane{s}.column" in n), key=_natural)


def _natural(name: str) -> list[int | str]:
    """Sorts numbers within names as numbers, and a bank's blocks by byte before slice."""
    name = re.sub(r"\.s(\d+)b(\d+)\.", r".b\2s\1.", name)
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _per_row(names: list[str], cfg: Config, kind: tuple[str, ...]) -> int | None:
    """Block RAMs: a row for each column. Multipliers: as the rows come."""
    return len(names) // cfg.superlane_columns if kind is _RAM else None


def _shares(count: int, rows: int, each: int | None) -> list[int]:
    """How many of ``count`` blocks stand in each of the rows."""
    if each is not None:
        return [min(each, max(0, count - each * r)) for r in range(rows)]
    return [count * (r + 1) // rows - count * r // rows for r in range(rows)]
