"""Where the MXM's block RAMs and multipliers lie on the die.

Left to itself the placer scatters a column's block RAMs and multipliers, of which nearly all are used, over the die,
and everything between them is pulled along. Here each superlane gets a strip of the die from bottom to top, in
the order in which activations hop, and each column a row of block RAMs with the multipliers next to it. What is not
named here (VXM, the other memories) finds its place in what is left of each strip.
"""

from __future__ import annotations

import dataclasses

from fpga.contents import ARRAY, bank_path, bank_shape
from fpga.ecp5 import cut
from hdl.config import Config
from hdl.image import Space


@dataclasses.dataclass(frozen=True)
class Die:
    """Sites of a device: rows (y) and, in each, columns (x). Names as nextpnr's BELs."""

    ram_rows: tuple[int, ...]
    ram_columns: tuple[int, ...]
    multiplier_rows: tuple[int, ...]
    multiplier_columns: tuple[int, ...]

    def rams(self, strip: int, strips: int, row: int) -> list[str]:
        """BELs of block RAMs of one row of a strip, from left to right."""
        span = _span(len(self.ram_columns), strip, strips)
        return [f"X{self.ram_columns[i]}/Y{self.ram_rows[row]}/EBR{i % 4}" for i in span]

    def multipliers(self, strip: int, strips: int, row: int) -> list[str]:
        """BELs of multipliers, likewise."""
        span = _span(len(self.multiplier_columns), strip, strips)
        return [
            f"X{self.multiplier_columns[i]}/Y{self.multiplier_rows[row]}/MULT18_{(0, 1, 4, 5)[i % 4]}" for i in span
        ]


def _span(count: int, strip: int, strips: int) -> range:
    return range(count * strip // strips, count * (strip + 1) // strips)


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


def floorplan(device: str, cfg: Config, core: str) -> dict[str, str]:
    """BEL of each placed cell, by its name in the flattened netlist; ``core``: path of the LPU.

    Empty for a device without a plan, and for a tile that does not fit the strips of its die.
    """
    die = DIES.get(device)
    if die is None or cfg.superlane_columns > len(die.ram_rows):
        return {}
    plan: dict[str, str] = {}
    width, part = bank_shape(cfg, Space.WEIGHT)
    for s in range(cfg.vlanes):
        free = [die.multipliers(s, cfg.vlanes, row) for row in range(len(die.multiplier_rows))]
        for c in range(cfg.superlane_columns):
            path = f"{core}.mxm.superlane{s}.column{c}"
            bank = f"{core.removesuffix('core')}{bank_path(cfg, Space.WEIGHT, s * cfg.superlane_columns + c)}.{ARRAY}"
            # Byte lane b of the bank feeds multiplier b: both in the order of the lanes.
            blocks = sorted(
                (b for group in cut(width, cfg.weight_depth, part) for b in group), key=lambda b: b.lanes[0]
            )
            rams = _middle(die.rams(s, cfg.vlanes, c), len(blocks))
            multipliers = _take(free, c, cfg.lanes)
            if not rams or not multipliers:
                return {}
            plan |= {f"{bank}.{b.name}.ebr": bel for b, bel in zip(blocks, rams, strict=True)}
            plan |= {f"{path}.mul{lane}.block.dsp.dsp": bel for lane, bel in enumerate(multipliers)}
    assert len(set(plan.values())) == len(plan)
    return plan


def _middle(sites: list[str], count: int) -> list[str]:
    """``count`` neighbours in the middle; none where there are fewer."""
    first = (len(sites) - count) // 2
    return sites[first : first + count] if first >= 0 else []


def _take(free: list[list[str]], column: int, count: int) -> list[str]:
    """Takes the multipliers of a column: the middle of its row, or what is left of the rows, the last first."""
    if column < len(free):
        chosen = _middle(free[column], count)
    else:
        chosen = [site for row in reversed(free) for site in row][:count]
    for row in free:
        row[:] = [site for site in row if site not in chosen]
    return chosen if len(chosen) == count else []
