"""What a configuration can run whatever its memories hold: limits of a model's shape, stated once.

Compiler and tests both ask here; how much fits the memories is :mod:`firmware.layout`'s.
"""

from __future__ import annotations

import dataclasses
import math

from firmware.checkpoint import ModelShape
from hdl.config import Config
from hdl.timing import get_timing
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
    largest, elements = cfg.experts_per_token_max, cfg.vlanes * cfg.expert_rows
    reason = "the instruction set's expert base registers"
    if largest == elements:
        reason = f"vlanes = {cfg.vlanes}" + (f", expert_rows = {cfg.expert_rows}" if cfg.expert_rows > 1 else "")
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


def hidden_size(cfg: Config) -> Limit | None:
    """Inputs of K and Q: with one lane the rows of a RoPE pair may not come too far apart, and a row takes as long as
    its inputs where the accumulators do not hold all rows."""
    if cfg.vlanes > 1:
        return None
    pitch = get_timing(cfg).rope_pitch
    return Limit("hidden_size", pitch * cfg.slots(8) * cfg.lanes, f"vlanes = 1, columns = {cfg.columns}")


def check_width(bits: int, cfg: Config) -> None:
    """Raises :class:`LpuError` for weights that the configuration's columns do not take."""
    if bits < cfg.narrowest:
        raise LpuError(f"int{bits} weights: config {cfg.name} runs int{cfg.narrowest} only; use --weights int8")


def check_shape(shape: ModelShape | QShape, cfg: Config) -> None:
    """Raises :class:`LpuError` naming the field, the configuration's limit and what sets it."""
    if shape.head_dim % 2:
        raise LpuError(f"head_dim = {shape.head_dim}: RoPE needs an even head size")
    limits = ((experts_per_token(cfg), shape.top_k), (head_dim(cfg), shape.head_dim), (hidden_size(cfg), shape.d))
    for limit, value in limits:
        if limit is not None and value > limit.largest:
            raise LpuError(
                f"{limit.field} = {value}: config {cfg.name} supports up to {limit.largest} ({limit.reason}); "
                "use a larger configuration or another model"
            )


def within(shape: ModelShape, cfg: Config) -> ModelShape:
    """The shape with what exceeds a limit of the configuration cut down to it."""
    wide = hidden_size(cfg)
    return dataclasses.replace(
        shape,
        d=min(shape.d, wide.largest) if wide else shape.d,
        top_k=min(shape.top_k, experts_per_token(cfg).largest),
        head_dim=min(shape.head_dim, head_dim(cfg).largest),
    )
