"""Bytes that a model needs before anything is laid out, at several widths."""

from __future__ import annotations

import dataclasses

from hdl.config import Config

from ..checkpoint import ModelShape
from ..layout import ceil_div
from .machine import chip_bytes


@dataclasses.dataclass(frozen=True)
class Size:
    """Bytes of weights, and of one sequence's keys and values; the chips that they would fill to the last byte."""

    width: str
    weights: float
    cache: float
    chips: int


def sizes(shape: ModelShape, cfg: Config, context: int) -> list[Size]:
    """int4 and int8 with keys and values in int8, as this LPU has them; fp16 throughout for comparison."""
    keys = min(context, shape.window or context)
    cache = 2.0 * shape.layers * shape.kv_dim * keys
    found = []
    for width, size, kv in (("int4", 0.5, 1), ("int8", 1.0, 1), ("fp16", 2.0, 2)):
        weights = shape.parameters_total * size
        found.append(Size(width, weights, cache * kv, ceil_div(int(weights + cache * kv), chip_bytes(cfg))))
    return found


def amount(size: float) -> str:
    """Bytes for people, in powers of ten."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:,.4g} {unit}"
    return f"{size / 1e3:,.4g} kB"
