"""Sizes of chips that are planned with, not built: Groq's TSP as published, and as the scheduler can describe it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hdl.config import CONFIGS, SCALE_BITS, WORD, Config, ConfigError, address_bits

from ..layout import Need

TILE = 16
"""Lanes of a tile of the TSP: 20 tiles are its 320 lanes, and a row takes a cycle from tile to tile (ISCA 2020)."""


@dataclasses.dataclass(frozen=True)
class Machine(Config):
    """A chip for the scheduler alone. Nothing is elaborated of it, so its sizes need not be powers of two.

    All its memories share ``sram_bytes``; the depths set only the width of addresses.
    """

    sram_bytes: int = 0
    approximations: tuple[str, ...] = ()
    """What the published chip has and this description has not, or the other way round."""

    def __post_init__(self) -> None:
        def need(ok: bool, field: str, reason: str) -> None:
            if not ok:
                raise ConfigError(f"machine {self.name!r}: {field} = {getattr(self, field)}: {reason}")

        need(self.vlanes >= 2 and self.columns % self.vlanes == 0, "vlanes", "must divide the columns, at least two")
        need(self.lanes % self.vlanes == 0, "vlanes", "must divide the lanes: activation words are whole rows")
        need(self.accs >= 4, "accs", "two operations in flight need two accumulators each")
        need(self.sram_bytes > 0, "sram_bytes", "must be positive")

    @property
    def skew(self) -> int:
        """Cycles from a row's first tile to its last, and one for each level of the trees over blocks of lanes."""
        return -(-self.lanes // TILE) + address_bits(self.blocks)


_COMMON = (
    "latencies are those of this LPU's pipelines in cycles, with the TSP's 20 tiles and deeper trees added: no RTL "
    "here is that wide, and none has met 900 MHz",
    "a head takes whole words and rows of the lanes: one of 128 elements leaves the rest of 320 empty",
    "scales, coefficients and activations have ports of their own, as in this LPU",
)

# 320 lanes, 4 planes, 220 MiB, 900 MHz, error correction: ISCA 2020. The rest as this project's configurations have it.
TSP = Machine(
    name="tsp", lanes=320, columns=1280, vlanes=320, accs=16, acc_bits=46,
    weight_depth=(220 << 20) // (320 * 1280), act_depth=8192, scale_depth=8192, coef_depth=8192, vector_depth=8192,
    queue_depth=1 << 16, phase_depth=1 << 12, context_max=1 << 17, vocab_max=1 << 18, experts_max=256, topk_max=16,
    head_max=512, ecc=True, time_bits=20, weight_bits=8, clock_hz=900e6, sram_bytes=220 << 20,
    approximations=(
        "4 planes of 320 x 320 are one plane of 1,280 columns",
        "weights lie beside the columns, as in this LPU: 409,600 bytes a cycle. The TSP's streams bring 20,480 "
        "(64 streams of 320 bytes): that chip is tsp-streams",
        *_COMMON,
    ),
)  # fmt: skip
"""The published sizes, with the memory beside the columns that batch 1 needs."""

TSP_STREAMS = dataclasses.replace(
    TSP, name="tsp-streams", columns=64, vlanes=64, weight_depth=(220 << 20) // (320 * 64),
    approximations=(
        "weights reach the MXM on streams: 64 of 320 bytes a cycle, so 64 columns of 320 lanes are at work at once, "
        "a twentieth of the planes. Activations share those streams there, here they do not",
        "the VXM has 64 lanes, not 320: as many as columns",
        *_COMMON,
    ),
)  # fmt: skip
"""The same with the published stream bandwidth (20 TiB/s at 1 GHz) as the limit of weights a cycle."""

MACHINES: dict[str, Machine] = {m.name: m for m in (TSP, TSP_STREAMS)}


def get_machine(name: str) -> Config:
    """A configuration or a planned chip by name; an unknown name lists the known ones."""
    known = {**CONFIGS, **MACHINES}
    if name not in known:
        raise ConfigError(f"unknown config {name!r}; known: {', '.join(known)}")
    return known[name]


def word_bytes(cfg: Config) -> dict[str, float]:
    """Bytes of a word of each memory, by the name that :class:`Layout` gives it."""
    return {
        "weight words per column": cfg.lanes * cfg.columns,
        "scale rows": cfg.vlanes * SCALE_BITS / 8,
        "coefficient rows": cfg.vlanes * SCALE_BITS / 8,
        "vector rows": cfg.vlanes * WORD / 8,
        "activation words": cfg.act_word_bits / 8,
    }  # fmt: skip


def chip_bytes(cfg: Config) -> int:
    """Bytes of the memories of a chip."""
    if isinstance(cfg, Machine):
        return cfg.sram_bytes
    depths = (cfg.weight_depth, cfg.scale_depth, cfg.coef_depth, cfg.vector_depth, cfg.act_depth)
    return round(sum(size * depth for size, depth in zip(word_bytes(cfg).values(), depths, strict=True)))


def need_bytes(cfg: Config, needs: Sequence[Need]) -> int:
    """Bytes that those needs take, as laid out."""
    sizes = word_bytes(cfg)
    return round(sum(sizes.get(n.memory, 0) * n.needed for n in needs))


def fits(cfg: Config, needs: Sequence[Need]) -> bool:
    """Whether a chip holds that: each memory for itself, or all together in the one SRAM of a planned chip."""
    own = word_bytes(cfg)
    if isinstance(cfg, Machine):
        pooled = need_bytes(cfg, needs) <= cfg.sram_bytes
        apart = {*own, "weight words up to the V cache"}
        return pooled and all(n.needed <= n.available for n in needs if n.memory not in apart)
    return all(n.needed <= n.available for n in needs)
