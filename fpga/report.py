"""What a build's report tells beside its sums: the board's memories, and what limits the clock."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fpga.contents import bank_shape
from hdl.banks import BANKED
from hdl.config import WORD, Config
from hdl.image import Space
from hdl.link import space_shape

_NAMES = {
    Space.WEIGHT: "weights, K, V", Space.SCALE: "scales", Space.COEF: "coefficients", Space.PROGRAM: "programs",
}  # fmt: skip


def memory_rows(cfg: Config) -> list[tuple[str, int, int, int, int]]:
    """(name, banks, words, bits, bits written together) of the memories made of block RAM, the small ones of
    link, sampling and scalar unit left out."""
    vector = cfg.vlanes * WORD
    shapes = ((_NAMES[space], space_shape(cfg, space)[0], bank_shape(cfg, space)) for space in BANKED)
    return [
        *((name, banks, shape.depth, shape.width, shape.granularity) for name, banks, shape in shapes),
        ("vectors", 1, cfg.vector_depth, vector, vector),
        ("activations", 1, cfg.act_depth, cfg.act_word_bits, cfg.act_word_bits),
    ]


def slowest(report: Mapping[str, Any], count: int) -> list[tuple[float, str]]:
    """(ns, endpoint) of the latest arrivals in a nextpnr report; endpoints that differ in numbers only count once."""
    latest: dict[str, float] = {}
    for net in report["detailed_net_timings"]:
        for end in net["endpoints"]:
            name = re.sub(r"\d+", "#", f"{end['cell']}.{end['port']}")
            latest[name] = max(latest.get(name, 0.0), max(end["delay"]))
    return sorted(((ns, name) for name, ns in latest.items()), reverse=True)[:count]
