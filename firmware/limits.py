"""What a configuration can run whatever its memories hold: limits of a model's shape, stated once.

Compiler and tests both ask here; how much fits the memories is :mod:`firmware.layout`'s.
"""

from __future__ import annotations

import dataclasses
import math

from firmware.checkpoint import ModelShape
from hdl.config import Config
from sim.qmodel import QShape

from .errors import LpuError


def word_sets(cfg: Config) -> int:
    """Fewest int8 accumulator sets that end with an activation word."""
    return cfg.word_rows // math.gcd(cfg.word_rows, cfg.slots(8))


@dataclasses.dataclass(frozen=True)
class Limit:
    """The largest value of a model's field, and what in the configuration sets it."""

    field: str
    """As ``config.json`` names it."""
    largest: int
    reason: str


def experts_per_token(cfg: Config) -> Limit:
    """Chosen experts: each takes a lane of the row of logits that the router's softmax works on."""
    largest = cfg.experts_per_token_max
    reason = f"vlanes = {cfg.vlanes}" if largest == cfg.vlanes else "the instruction set's expert base registers"
    return Limit("num_experts_per_tok", largest, reason)


def head_dim(cfg: Config) -> Limit:
    """Head size: a vector of K or V has to fit the quantiser; and its P V the accumulators.

    P V runs in parts of at most half of the accumulator sets, each of which ends with an activation word; where
    so many do not make a word, it has to be a single part.
    """
    half = cfg.accs // 2
    if half < word_sets(cfg) and half * cfg.columns < cfg.head_max:
        return Limit("head_dim", half * cfg.columns, f"half of accs = {cfg.accs} sets of {cfg.columns} columns")
    return Limit("head_dim", cfg.head_max, f"head_max = {cfg.head_max}")


def check_shape(shape: ModelShape | QShape, cfg: Config) -> None:
    """Raises :class:`LpuError` naming the field, the configuration's limit and what sets it."""
    if shape.head_dim % 2:
        raise LpuError(f"head_dim = {shape.head_dim}: RoPE needs an even head size")
    for limit, value in ((experts_per_token(cfg), shape.top_k), (head_dim(cfg), shape.head_dim)):
        if value > limit.largest:
            raise LpuError(
                f"{limit.field} = {value}: config {cfg.name} supports up to {limit.largest} ({limit.reason}); "
                "use a larger configuration or another model"
            )


def within(shape: ModelShape, cfg: Config) -> ModelShape:
    """The shape with what exceeds a limit of the configuration cut down to it."""
    return dataclasses.replace(
        shape,
        top_k=min(shape.top_k, experts_per_token(cfg).largest),
        head_dim=min(shape.head_dim, head_dim(cfg).largest),
    )
