"""Checkpoint -> quantised model: integers, scales and the fixed-point format of every tensor.

Formats come from hard bounds wherever there is one, so that nothing saturates by surprise: a row of a
linear layer behind RMSNorm is bounded by ``norm(row) * sqrt(d)``. Only the residual stream, which no
bound holds usefully, takes its range from a calibration run (times a margin; it saturates beyond).
Shifts are the same for all layers because the layer loop runs the same instructions for each.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from hdl.config import ACT_RANGE, COEF_FRAC, KV_RANGE, LOGIT_FRAC, PROB_BITS, SCALE_BITS, SCORE_FRAC, Config
from sim.qmodel import QLayer, QLinear, QModel, QShape, QShifts

from .calibrate import Calibration, calibrate
from .checkpoint import Checkpoint
from .errors import LpuError
from .gptq import quantise_rows
from .scalar import scalar

RESIDUAL_MARGIN = 4.0
"""Residual range = this times the largest magnitude seen in calibration."""
ROUTER_WIDTH = 8
"""The router is tiny and decides everything after it: int8 always."""
_ACT_TOP = ACT_RANGE - 1
_SCL_MAX = (1 << SCALE_BITS) - 1


@dataclasses.dataclass(frozen=True)
class TensorReport:
    """Quantisation error of one tensor."""

    name: str
    width: int
    snr_db: float
    """Signal to error power of the weights, in decibels (inf: exact)."""


@dataclasses.dataclass(frozen=True)
class _Grid:
    """One quantised matrix before its scales have an integer form: W = q * scale[:, None]."""

    q: np.ndarray
    scale: np.ndarray
    width: int
    norm: float
    """Largest 2-norm of a row of the float matrix."""

    @property
    def worst_sum(self) -> int:
        return int(np.abs(self.q.astype(np.int64)).sum(axis=1).max())


class _Quantiser:
    """Quantises matrices and keeps the report."""

    def __init__(self, calibration: Calibration):
        self.calibration = calibration
        self.report: list[TensorReport] = []

    def grid(self, name: str, w: np.ndarray, width: int, hessian: np.ndarray | None) -> _Grid:
        w = np.asarray(w, np.float64)
        q, scale = quantise_rows(w, width, hessian)
        error = float(((w - q * scale[:, None]) ** 2).sum())
        power = float((w**2).sum())
        snr = math.inf if error <= power * 1e-14 else 10 * math.log10(power / error)
        self.report.append(TensorReport(name, width, snr))
        return _Grid(q, scale, width, float(np.linalg.norm(w, axis=1).max()))


def _fraction(top_bits: int, bound: float, least: int, most: int) -> int:
    """Largest number of fraction bits with which ``bound`` stays below 2**top_bits."""
    if bound <= 0:
        return most
    return max(least, min(most, math.floor(top_bits - math.log2(bound * (1 + 1e-6)))))


def _linears(grids: list[_Grid], factor: float) -> list[QLinear]:
    """Grids that share one instruction: real scale = grid scale * factor, one shift for all."""
    top = max(float(g.scale.max()) for g in grids) * factor
    shift = max(0, min(56, math.floor(math.log2(_SCL_MAX / top)) if top > 0 else 0))
    if top * 2.0**shift > _SCL_MAX:
        raise LpuError(f"a scale of {top:g} does not fit {SCALE_BITS} bits: the weights are too large")
    return [
        QLinear(g.q, g.width, np.rint(g.scale * factor * 2.0**shift).astype(np.int64), shift) for g in grids
    ]


def quantise(
    ckpt: Checkpoint, cfg: Config, weights: int, calibration: Calibration | None = None
) -> tuple[QModel, list[TensorReport]]:
    """Quantise a checkpoint for a configuration.

    weights: 4 or 8, bits of all weights but the router's (int8 always). Raises :class:`LpuError` when a
    reduction could overflow the configuration's accumulators in any format.
    """
    s = ckpt.shape
    calibration = calibration or calibrate(ckpt)
    quantiser = _Quantiser(calibration)
    h = calibration.hessian
    layers = range(s.layers)
    root_d = math.sqrt(s.d)

    def each(name: str, tensor: str, gain: str | None, width: int = weights) -> list[_Grid]:
        out = []
        for i in layers:
            layer = ckpt.layer(i)
            w = getattr(layer, tensor)
            w = w if gain is None else w * getattr(layer, gain)[None, :]
            out.append(quantiser.grid(f"layers.{i}.{name}", w, width, h(i, name)))
        return out

    q, k, v = (each(n, n, "attn_norm") for n in ("q", "k", "v"))
    o = each("o", "o", None)
    router = each("router", "router", "ffn_norm", ROUTER_WIDTH) if s.experts > 1 else []
    gate: list[list[_Grid]] = []
    up: list[list[_Grid]] = []
    down: list[list[_Grid]] = []
    for i in layers:
        rows: tuple[list[_Grid], list[_Grid], list[_Grid]] = ([], [], [])
        norm = ckpt.layer(i).ffn_norm[None, :]
        for e in range(s.experts):
            wg, wu, wd = ckpt.layer(i).expert(e)
            for out, name, w in zip(rows, ("gate", "up", "down"), (wg * norm, wu * norm, wd), strict=True):
                out.append(quantiser.grid(f"layers.{i}.{name}.{e}", w, weights, h(i, name, e)))
        gate.append(rows[0])
        up.append(rows[1])
        down.append(rows[2])
    unit_gain = bool(np.all(ckpt.final_norm == 1.0))
    if s.tied:
        embed = quantiser.grid("embed (tied)", ckpt.embed, weights, h(None, "lm_head"))
        lm = embed
    else:
        embed = quantiser.grid("embed", ckpt.embed, weights, None)
        lm = quantiser.grid(
            "lm_head", ckpt.lm_head * ckpt.final_norm[None, :], weights, h(None, "lm_head_folded")
        )
        unit_gain = True

    flat_gate, flat_up, flat_down = ([g for row in rows for g in row] for rows in (gate, up, down))

    # Formats.
    acc_top = cfg.acc_bits - 1

    def act_shift(top: int, grids: list[_Grid]) -> int:
        """ACT shift for values below 2**top feeding these matrices: no sum leaves the accumulator."""
        room = acc_top - math.ceil(math.log2(max(g.worst_sum for g in grids) + 1))
        return max(0, top - _ACT_TOP, top - room)

    embed_exp = math.floor(math.log2(_SCL_MAX / float(embed.scale.max())))
    residual = calibration.ranges["residual"] * RESIDUAL_MARGIN
    frac = min(_fraction(31, residual, 0, 24), embed_exp)
    x_consumers = [*q, *k, *v, *router, *flat_gate, *flat_up, *([lm] if unit_gain else [])]
    x_act = act_shift(31, x_consumers)
    v_frac_x = frac - x_act

    log2e = 1 / math.log(2)
    q_factor = root_d * log2e / math.sqrt(s.head_dim)
    q_frac = _fraction(17, max(g.norm for g in q) * q_factor, 0, 24)
    k_frac = _fraction(17, max(g.norm for g in k) * root_d, max(0, SCORE_FRAC - q_frac), 24)
    # Coarse rows of few inputs: the scale has fewer bits than the values it makes.
    v_frac = min(
        _fraction(KV_RANGE - 1, max(g.norm for g in v) * root_d, 0, 24),
        _fraction(SCALE_BITS, max(float(g.scale.max()) for g in v) * root_d * (1 << SCALE_BITS) / _SCL_MAX, 0, 24),
    )
    keys = min(s.context, s.window or s.context)
    prob_top = PROB_BITS + KV_RANGE - 8
    prob = max(prob_top - _ACT_TOP, prob_top + 7 + math.ceil(math.log2(keys)) - acc_top)
    if prob > 15:
        raise LpuError(
            f"config {cfg.name}: {cfg.acc_bits}-bit accumulators cannot sum {keys} weighted values: "
            "use a configuration with wider accumulators or a shorter context"
        )
    attn_act = act_shift(KV_RANGE - 1, o)
    gate_frac = _fraction(17, max(g.norm for g in flat_gate + flat_up) * root_d, 7, 22)
    silu = 4
    h_act = act_shift(34 - silu, flat_down)

    gain_pre = gain = gain_act = 0
    final_gain = None
    lm_exponent = 0  # powers of two the LM head's R has to carry
    if not unit_gain:
        gain_frac = _fraction(15, float(np.abs(ckpt.final_norm).max()), 0, 20)
        final_gain = np.rint(ckpt.final_norm.astype(np.float64) * 2.0**gain_frac).astype(np.int64)
        gain_pre, gain = 14, 8
        gain_act = act_shift(17 + 15 - gain, [lm])
        lm_exponent = (frac - gain_pre + gain_frac - gain - gain_act) - v_frac_x

    # Integer scales.
    scl_embed = np.rint(embed.scale * 2.0**embed_exp).astype(np.int64)
    q_embed = QLinear(embed.q, embed.width, scl_embed, embed_exp - frac)
    if s.tied:
        lm_exp, lm_scl = embed_exp, scl_embed
    else:
        lm_exp = math.floor(math.log2(_SCL_MAX / float(lm.scale.max())))
        lm_scl = np.rint(lm.scale * 2.0**lm_exp).astype(np.int64)
    lm_shift = max(0, lm_exp - LOGIT_FRAC)
    mant, exp = scalar(root_d)
    lm_scalar = (mant, exp + (lm_exp - LOGIT_FRAC - lm_shift) + lm_exponent)
    q_lm = QLinear(lm.q, lm.width, lm_scl, lm_shift)

    scaled = {
        "q": _linears(q, q_factor * 2.0**q_frac),
        "k": _linears(k, root_d * 2.0**k_frac),
        "v": _linears(v, root_d * 2.0**v_frac),
        "o": _linears(o, 2.0 ** (frac - (v_frac - attn_act))),
        "router": _linears(router, root_d * log2e * 2.0**SCORE_FRAC) if router else [None] * s.layers,
    }
    gate_up = iter(_linears(flat_gate + flat_up, root_d * 2.0**gate_frac))
    gates = [tuple(next(gate_up) for _ in row) for row in gate]
    ups = [tuple(next(gate_up) for _ in row) for row in up]
    downs_flat = iter(_linears(flat_down, 2.0 ** (frac - (2 * gate_frac - silu - h_act))))
    downs = [tuple(next(downs_flat) for _ in row) for row in down]

    model = QModel(
        shape=QShape(s.vocab, s.d, s.layers, s.heads, s.kv_heads, s.head_dim, s.experts, s.top_k, s.ffn,
                     s.context, keys),
        shifts=QShifts(
            residual_frac=frac, x_act=x_act, q_act=0, k_kv=0, v_kv=0, score=q_frac + k_frac - SCORE_FRAC,
            prob=prob, prob_act=0, attn=15 - prob, attn_act=attn_act, gate_frac=gate_frac, silu=silu,
            h_act=h_act, gain_pre=gain_pre, gain=gain, gain_act=gain_act,
        ),
        embed=q_embed,
        lm_head=q_lm,
        layers=tuple(
            QLayer(*(scaled[n][i] for n in ("q", "k", "v", "o", "router")), gates[i], ups[i], downs[i])
            for i in layers
        ),
        final_gain=final_gain,
        rope=_rope_table(s.context, s.head_dim, s.rope_theta),
        eps=max(1, round(s.d * s.eps * 4.0**v_frac_x)),
        lm_scalar=lm_scalar,
    )  # fmt: skip
    return model, quantiser.report


def _rope_table(context: int, head_dim: int, theta: float) -> np.ndarray:
    """[context, head_dim / 2, 2] cos and sin with COEF_FRAC fraction bits (Su et al. 2021, section 3.2.2)."""
    inverse = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    angle = np.arange(context)[:, None] * inverse
    table = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return np.rint(table * (1 << COEF_FRAC)).astype(np.int64)
