"""Memory contents and addresses of random programs: small regions anywhere, values at the extremes."""

from __future__ import annotations

import dataclasses

import numpy as np

from hdl.config import Config
from hdl.image import Param, Space, row_bytes
from hdl.isa import EXPERT_BASES, Base, Width

Part = tuple[int, int, int, bytes]
"""Rows to load: space, bank, first row, bytes."""


@dataclasses.dataclass(frozen=True)
class Region:
    """``size`` consecutive rows of a memory of ``depth`` from ``base`` on; they may go on behind the last row at 0."""

    base: int
    size: int
    depth: int

    def rows(self) -> list[int]:
        """Addresses."""
        return [(self.base + i) % self.depth for i in range(self.size)]

    def part(self, first: int, size: int) -> Region:
        """Some of the rows."""
        assert 0 <= first and first + size <= self.size
        return Region((self.base + first) % self.depth, size, self.depth)


def place_region(rng: np.random.Generator, size: int, depth: int, wraps: bool) -> Region:
    """A region at a memory's start, at its end, across it, or anywhere between."""
    choices = [0, depth - size, int(rng.integers(depth - size + 1))]
    if wraps and depth & depth - 1 == 0:
        choices.append(depth - size // 2)
    return Region(int(rng.choice(choices)), size, depth)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What a run can reach: its layers, ids, positions; strides of base registers are small, of either sign."""

    layers: int
    sequences: int
    """As the parameter is set: everything but 2 is one."""
    vocab: int
    experts: int
    positions: int
    window: int
    floor: int
    embed_width: Width
    strides: dict[Param, int]

    def params(self, cfg: Config) -> dict[Param, int]:
        """The image's group of parameters."""
        values = {
            Param.LAYERS: self.layers, Param.EMBED_WIDTH: int(self.embed_width), Param.WINDOW: self.window,
            Param.FLOOR: self.floor, Param.CONTEXT: self.positions, Param.VOCAB: self.vocab,
            Param.SEQUENCES: self.sequences,
        }  # fmt: skip
        return values | {p: stride & (1 << 24) - 1 for p, stride in self.strides.items()}

    def reach(self, cfg: Config, memory: str, base: Base, *, last: bool = False) -> tuple[int, int]:
        """Least and largest value of a base register of a memory ("w", "s" or "c"); ``last``: the layer loop is over,
        so that the layer is the last one."""
        s = self.strides
        layer = s[{"w": Param.LAYER_W, "s": Param.LAYER_S, "c": Param.LAYER_C}[memory]]
        ends = [layer * (self.layers - 1)] if last else [0, layer * (self.layers - 1)]
        more = [0]
        if base is Base.ZERO:
            ends = [0]
        elif base in EXPERT_BASES:
            more = [0, (self.experts - 1) * s[Param.EXPERT_W if memory == "w" else Param.EXPERT_S]]
        elif base is Base.TOKEN:  # ROPE for "c"
            ends = [0]
            if memory == "w":
                more = [0, (self.vocab - 1) // cfg.outputs(self.embed_width.bits) * s[Param.TOKEN_WORDS]]
            else:
                more = [0, (self.vocab - 1) // cfg.vlanes if memory == "s" else (self.positions - 1)
                        * s[Param.ROPE_ROWS]]  # fmt: skip
        elif base is Base.KEY:
            slot = self.window - 1
            more = [0, slot // cfg.columns * s[Param.KEY_WORDS] if memory == "w" else slot // cfg.vlanes]
        elif base is Base.VALUE:
            more = [0, (self.window - 1) // (cfg.lanes if memory == "w" else cfg.vlanes)]
        return min(ends) + min(more), max(ends) + max(more)


def random_sizes(cfg: Config, rng: np.random.Generator) -> Sizes:
    """Layers, context and strides of a random program."""
    pick = [0, 1, 1, 2, 3, -1, -2]
    strides = {p: int(rng.choice(pick)) for p in (
        Param.LAYER_W, Param.LAYER_S, Param.LAYER_C, Param.EXPERT_W, Param.EXPERT_S, Param.TOKEN_WORDS,
        Param.KEY_WORDS, Param.ROPE_ROWS,
    )}  # fmt: skip
    # An SXM row address may be longer than the coefficient memory's, and its base register is not.
    strides[Param.LAYER_C] = abs(strides[Param.LAYER_C])
    window = int(rng.choice([1, 2, 3, 4, 7]))
    floor = int(rng.choice([0, 0, int(rng.integers(4 * cfg.vlanes)), int(rng.integers(2 * cfg.columns))]))
    layers, sequences = int(rng.choice([1, 2, 2, 3])), int(rng.choice([0, 1, 2, 2, 3]))
    return Sizes(
        layers=layers, sequences=1 if sequences > cfg.sequences else sequences,
        vocab=int(rng.choice([2, int(rng.integers(3, 33)), int(rng.integers(3, 33)), min(cfg.vocab_max, 512)])),
        experts=int(rng.choice([2, cfg.experts_max, int(rng.integers(2, cfg.experts_max + 1))])),
        positions=int(rng.choice([3, 5, 9])), window=window, floor=min(floor, cfg.context_max),
        embed_width=Width(max(int(rng.integers(2)), not cfg.int4)), strides=strides,
    )  # fmt: skip


def _mixed(rng: np.random.Generator, extremes: list[int], low: int, high: int, *shape: int) -> np.ndarray:
    """Random values of low .. high, some of them extreme, some rows all of one value."""
    values = rng.integers(low, high + 1, shape)
    odd = rng.random(shape) < 0.25
    values = np.where(odd, rng.choice(extremes, shape), values)
    whole = rng.random(shape[:-1]) < 0.1
    return np.where(whole[..., None], rng.choice(extremes, shape[:-1])[..., None], values)


def weight_bytes(rng: np.random.Generator, int4: bool, *shape: int) -> np.ndarray:
    """Weights as bytes: pairs of -7 .. 7, or -128 .. 127."""
    if not int4:
        return _mixed(rng, [0, 127, -128, -1, 1], -128, 127, *shape).astype(np.int64) & 255
    low, high = (_mixed(rng, [0, 7, -7, -1, 1], -7, 7, *shape) & 15 for _ in range(2))
    return np.asarray(low | high << 4)


def table_rows(rng: np.random.Generator, space: Space, rows: int, vlanes: int) -> np.ndarray:
    """Rows of the scale or the coefficient memory."""
    if space is Space.SCALE:
        return _mixed(rng, [0, 1, 0x7FFF, 0x8000, 0xFFFF], 0, 0xFFFF, rows, vlanes)
    return _mixed(rng, [0, 1, -1, 0x7FFF, -0x8000], -0x8000, 0x7FFF, rows, vlanes)


def constant_rows(rng: np.random.Generator) -> bytes:
    """The scalar unit's constants: mantissas and exponents, normalised or not."""
    out = b""
    for i in range(8):
        mantissa = int(rng.choice([0, 1, 0x8000, 0xFFFF, int(rng.integers(0x8000, 0x10000)), 0x9000]))
        exponent = int(rng.choice([0, 0, int(rng.integers(-8, 9)), -128, 127]))
        if i in (6, 7):  # products of these leave the exponent's range
            mantissa, exponent = int(rng.integers(0x8000, 0x10000)), (-128, 127)[i - 6]
        out += mantissa.to_bytes(2, "little") + exponent.to_bytes(1, "little", signed=True)
    return out


def region_parts(cfg: Config, space: Space, sub: int, region: Region, rows: np.ndarray) -> list[Part]:
    """``rows`` [size, bytes or lanes] at a region's addresses, in one piece or two."""
    data = rows.astype(np.uint8 if space is Space.WEIGHT else "<u2").tobytes()
    size = row_bytes(cfg, space)
    first = min(region.size, region.depth - region.base)
    parts = [(int(space), sub, region.base, data[: first * size])]
    if first < region.size:
        parts.append((int(space), sub, 0, data[first * size :]))
    return parts
