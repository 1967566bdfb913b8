"""The quantised model: everything the chip computes with, and nothing else.

Made by ``firmware/quantise.py`` from a checkpoint, placed into memories by ``firmware/lower.py``, computed
directly by ``sim/reference.py``. All tensors are integers; rows are output channels in *logical* order
(RoPE pairs half-split as in the checkpoint; the lowering brings them side by side).
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class QLinear:
    """y = sat32(round(acc * round(scl * R >> 15) >> shift + exponent of R)), acc = weight @ activation."""

    weight: np.ndarray
    """int8 [out, in], within int4 or int8."""
    width: int
    """4 or 8."""
    scl: np.ndarray
    """int64 [out], 0..65535."""
    shift: int

    @property
    def worst_sum(self) -> int:
        """Largest row sum of |weight|: bounds the accumulator for a unit activation."""
        return int(np.abs(self.weight.astype(np.int64)).sum(axis=1).max())


@dataclasses.dataclass(frozen=True)
class QLayer:
    """One decoder layer. Shifts are those of the instruction fields of the same name (docs/numerics.md)."""

    q: QLinear
    k: QLinear
    v: QLinear
    o: QLinear
    router: QLinear | None
    gate: tuple[QLinear, ...]
    up: tuple[QLinear, ...]
    down: tuple[QLinear, ...]


@dataclasses.dataclass(frozen=True)
class QShape:
    """Sizes of the computation (see ``firmware.checkpoint.ModelShape`` for the checkpoint's)."""

    vocab: int
    d: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    experts: int
    top_k: int
    ffn: int
    context: int
    window: int


@dataclasses.dataclass(frozen=True)
class QShifts:
    """Shifts and formats shared by all layers (the layer loop runs the same instructions for each)."""

    residual_frac: int
    """Fraction bits of the residual stream."""
    x_act: int
    """ACT shift of residual vectors."""
    q_act: int
    k_kv: int
    v_kv: int
    score: int
    """Dequantise shift of scores."""
    prob: int
    """EXP shift."""
    prob_act: int
    attn: int
    """Dequantise shift of attention results."""
    attn_act: int
    gate_frac: int
    """Fraction bits of gate and up rows; the SILU field fshift is this minus 7."""
    silu: int
    h_act: int
    gain_pre: int
    gain: int
    gain_act: int


@dataclasses.dataclass(frozen=True)
class QModel:
    shape: QShape
    shifts: QShifts
    embed: QLinear
    """Rows are token ids; a row dequantised is the embedding in residual format."""
    lm_head: QLinear
    """Shares ``embed.weight`` and ``embed.scl`` (the objects) when tied."""
    layers: tuple[QLayer, ...]
    final_gain: np.ndarray | None
    """int64 [d], 16 bit signed, or None where the final norm's gain is one (or folded)."""
    rope: np.ndarray
    """int64 [context, head_dim / 2, 2]: cos, sin with 14 fraction bits."""
    eps: int
    """Added to SUMSQ (64 bit)."""
    lm_scalar: tuple[int, int]
    """K[2]: sqrt(d) and what else the logits' R is multiplied by."""
    meta: dict[str, object] = dataclasses.field(default_factory=dict)

    @property
    def tied(self) -> bool:
        return self.lm_head.weight is self.embed.weight
