"""Checkpoint -> quantised model: integers, scales and the fixed-point format of every tensor.

Formats come from hard bounds wherever there is one, so that nothing saturates by surprise: a row of a
linear layer behind RMSNorm is bounded by ``norm(row) * sqrt(d)``. Only the residual stream and the inputs
of the down projection, which no bound holds usefully, take their range from a calibration run (times a
margin; they saturate beyond).
Shifts are the same for all layers because the layer loop runs the same instructions for each.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from hdl.config import ACT_RANGE, COEF_FRAC, KV_RANGE, LOGIT_FRAC, PROB_BITS, SCALE_BITS, SCORE_FRAC, Config
from sim.float_model import CheckpointLike
from sim.qmodel import QLayer, QLinear, QModel, QShape, QShifts

from .calibrate import Calibration, calibrate
from .errors import LpuError
from .ptq import quantise_weights
from .scalar import scalar

RANGE_MARGIN = 4.0
"""Calibrated range = this times the largest magnitude seen in calibration."""
ROUTER_WIDTH = 8
"""The router is tiny and decides everything after it: int8 always."""
_ACT_TOP = ACT_RANGE - 1
_SCL_MAX = (1 << SCALE_BITS) - 1
_CHUNK = 1 << 18
"""Weights that are looked at together."""
_MAX_SHIFT = 56
"""Largest shift of a linear layer: leaves room for the exponent of the scalar that is added to it."""


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

    @property
    def top_scale(self) -> float:
        return float(self.scale.max())


class _Quantiser:
    """The quantised matrices of a checkpoint, and the report on them."""

    def __init__(
        self,
        ckpt: CheckpointLike,
        weights: int,
        calibration: Calibration,
        max_width: int,
        progress: Callable[[int, int], None] | None,
    ):
        self.grids = quantise_weights(
            ckpt, weights, calibration, router_bits=ROUTER_WIDTH, max_width=max_width, progress=progress
        )
        self.weights = weights
        self.report: list[TensorReport] = []

    def grid(self, w: np.ndarray, name: str, layer: int | None = None, expert: int | None = None) -> _Grid:
        """The grid of a matrix whose float values are ``w``."""
        q, scale = self.grids[name, layer, expert]
        width = ROUTER_WIDTH if name == "router" else self.weights
        error = power = norm = 0.0
        step = max(1, _CHUNK // w.shape[1])  # a large matrix as float64 is memory that is touched once
        for at in range(0, len(w), step):
            rows = np.asarray(w[at : at + step], np.float64)
            error += float(((rows - q[at : at + step] * scale[at : at + step, None]) ** 2).sum())
            squares = (rows**2).sum(axis=1)
            power += float(squares.sum())
            norm = max(norm, float(np.sqrt(squares.max(initial=0.0))))
        snr = math.inf if error <= power * 1e-14 else 10 * math.log10(power / error)
        full = [name] if layer is None else ["layers", str(layer), name]
        full += [] if expert is None else [str(expert)]
        self.report.append(TensorReport(".".join(full), width, snr))
        # A row of zeros is exact with any scale: none that would coarsen those of the other rows.
        scale = np.where(q.any(axis=1), scale, 0.0)
        return _Grid(q, scale, width, norm)


def _fraction(top_bits: int, bound: float, least: int, most: int) -> int:
    """Largest number of fraction bits with which ``bound`` stays below 2**top_bits."""
    if not math.isfinite(bound):
        raise LpuError("the model's values are too large for any fixed-point format")
    if bound <= 0:
        return most
    return max(least, min(most, math.floor(top_bits - math.log2(bound * (1 + 1e-6)))))


def _bits(bound: float, most: int) -> int:
    """Bits of integers up to ``bound``, at most ``most``."""
    return most - _fraction(most, bound, 0, most)


def _scale_fraction(grids: list[_Grid], factor: float, least: int, most: int) -> int:
    """Largest number of fraction bits of results whose scales (times ``factor``) still have an integer form."""
    return _fraction(SCALE_BITS, max(g.top_scale for g in grids) * factor, least, most)


def _linears(name: str, grids: list[_Grid], factor: float) -> list[QLinear]:
    """Grids that share one instruction: real scale = grid scale * factor, one shift for all."""
    shift = _scale_fraction(grids, factor, -1, _MAX_SHIFT)
    if shift < 0:
        top = max(g.top_scale for g in grids) * factor
        raise LpuError(f"{name}: a scale of {top:g} does not fit {SCALE_BITS} bits: the weights are too large")
    return [QLinear(g.q, g.width, _integers(g.scale, factor, shift), shift) for g in grids]


def _integers(scale: np.ndarray, factor: float, shift: int) -> np.ndarray:
    return np.minimum(np.rint(scale * factor * 2.0**shift), _SCL_MAX).astype(np.int64)


def quantise(
    ckpt: CheckpointLike,
    cfg: Config,
    weights: int,
    calibration: Calibration | None = None,
    progress: Callable[[int, int], None] | None = None,
    max_width: int = 4096,
) -> tuple[QModel, list[TensorReport]]:
    """Quantise a checkpoint for a configuration.

    weights: 4 or 8, bits of all weights but the router's (int8 always); progress: told matrices rounded, of so many;
    max_width: matrices of more inputs are rounded by their weights alone, not for the calibration's inputs. Raises
    :class:`LpuError` when a reduction could overflow the configuration's accumulators in any format.
    """
    s = ckpt.shape
    calibration = calibration or calibrate(ckpt)
    quantiser = _Quantiser(ckpt, weights, calibration, max_width, progress)
    grid = quantiser.grid
    root_d = math.sqrt(s.d)
    q: list[_Grid] = []
    k: list[_Grid] = []
    v: list[_Grid] = []
    o: list[_Grid] = []
    router: list[_Grid] = []
    gate: list[list[_Grid]] = []
    up: list[list[_Grid]] = []
    down: list[list[_Grid]] = []
    for i in range(s.layers):
        layer = ckpt.layer(i)
        for out, name, w in zip((q, k, v), "qkv", (layer.q, layer.k, layer.v), strict=True):
            out.append(grid(w * layer.attn_norm, name, i))
        o.append(grid(layer.o, "o", i))
        if layer.router is not None:
            router.append(grid(layer.router * layer.ffn_norm, "router", i))
        gate.append([])
        up.append([])
        down.append([])
        for e in range(s.experts):
            w_gate, w_up, w_down = layer.expert(e)
            gate[i].append(grid(w_gate * layer.ffn_norm, "gate", i, e))
            up[i].append(grid(w_up * layer.ffn_norm, "up", i, e))
            down[i].append(grid(w_down, "down", i, e))
    embed = grid(ckpt.embed, "embed")
    lm = embed if s.tied else grid(ckpt.lm_head * ckpt.final_norm, "lm_head")
    unit_gain = not s.tied or bool(np.all(ckpt.final_norm == 1.0))

    flat_gate, flat_up, flat_down = ([g for row in rows for g in row] for rows in (gate, up, down))

    # Formats.
    acc_top = cfg.acc_bits - 1

    def act_shift(top: int, grids: list[_Grid], usual: int | None = None) -> int:
        """ACT shift for values below 2**top feeding these matrices: no sum leaves the accumulator.

        ACT clips at 2**_ACT_TOP; values below 2**usual, the calibrated range, are not clipped.
        """
        room = acc_top - math.ceil(math.log2(max(g.worst_sum for g in grids) + 1))
        return max(0, (top if usual is None else usual) - _ACT_TOP, top - room if room < _ACT_TOP else 0)

    log2e = 1 / math.log(2)
    q_factor = root_d * log2e / math.sqrt(s.head_dim)
    q_frac = min(_fraction(17, max(g.norm for g in q) * q_factor, 0, 32), _scale_fraction(q, q_factor, 0, 32))
    k_frac = min(_fraction(17, max(g.norm for g in k) * root_d, 0, 32), _scale_fraction(k, root_d, 0, 32))
    k_frac = max(k_frac, SCORE_FRAC - q_frac)
    v_frac = min(
        _fraction(KV_RANGE - 1, max(g.norm for g in v) * root_d, 0, 40), _scale_fraction(v, root_d, 0, 40)
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
    gate_bound = max(g.norm for g in flat_gate + flat_up) * root_d
    gate_frac = min(_fraction(17, gate_bound, 7, 22), _scale_fraction(flat_gate + flat_up, root_d, 7, 22))
    # The product of two hard bounds is far above any real h: its range, too, comes from calibration.
    h_top = _bits(calibration.ranges["h"] * RANGE_MARGIN * 4.0**gate_frac, 34)
    silu = max(0, h_top - 31)
    h_act = act_shift(34 - silu, flat_down, h_top - silu)
    o_frac, h_frac = v_frac - attn_act, 2 * gate_frac - silu - h_act

    # The residual stream: what the scales of everything that is added to it can express.
    residual = calibration.ranges["residual"] * RANGE_MARGIN
    embed_exp = _scale_fraction([embed], 1.0, -_MAX_SHIFT, _MAX_SHIFT)
    frac = min(
        _fraction(31, residual, -_MAX_SHIFT, _MAX_SHIFT),
        embed_exp,
        _scale_fraction(o, 2.0**-o_frac, -_MAX_SHIFT, _MAX_SHIFT),
        _scale_fraction(flat_down, 2.0**-h_frac, -_MAX_SHIFT, _MAX_SHIFT),
        math.floor(31 - math.log2(s.d * s.eps) / 2),  # EPS in its 64 bits
    )
    x_top = _bits(residual * 2.0**frac, 31)
    x_consumers = [*q, *k, *v, *router, *flat_gate, *flat_up, *([lm] if unit_gain else [])]
    x_act = act_shift(31, x_consumers, x_top)
    x_frac = frac - x_act

    gain_pre = gain = gain_act = 0
    final_gain = None
    lm_exponent = 0  # powers of two the LM head's R has to carry
    if not unit_gain:
        gain_frac = _fraction(15, float(np.abs(ckpt.final_norm).max()), 0, 20)
        final_gain = np.rint(ckpt.final_norm.astype(np.float64) * 2.0**gain_frac).astype(np.int64)
        gain_pre, gain = max(0, x_top - 17), 8
        gain_act = act_shift(17 + 15 - gain, [lm])
        lm_exponent = (frac - gain_pre + gain_frac - gain - gain_act) - x_frac

    # Integer scales.
    q_embed = QLinear(embed.q, embed.width, _integers(embed.scale, 1.0, embed_exp), embed_exp - frac)
    lm_exp = embed_exp if s.tied else _scale_fraction([lm], 1.0, -_MAX_SHIFT, _MAX_SHIFT)
    lm_scl = q_embed.scl if s.tied else _integers(lm.scale, 1.0, lm_exp)
    lm_shift = max(0, lm_exp - LOGIT_FRAC)
    mant, exp = scalar(root_d)
    lm_scalar = (mant, exp + (lm_exp - LOGIT_FRAC - lm_shift) + lm_exponent)
    q_lm = QLinear(lm.q, lm.width, lm_scl, lm_shift)

    routers: list[QLinear | None] = [None] * s.layers
    if router:
        routers = [*_linears("router", router, root_d * log2e * 2.0**SCORE_FRAC)]
    scaled = {
        "q": _linears("q", q, q_factor * 2.0**q_frac),
        "k": _linears("k", k, root_d * 2.0**k_frac),
        "v": _linears("v", v, root_d * 2.0**v_frac),
        "o": _linears("o", o, 2.0 ** (frac - o_frac)),
    }
    gate_up = iter(_linears("gate, up", flat_gate + flat_up, root_d * 2.0**gate_frac))
    gates = [tuple(next(gate_up) for _ in row) for row in gate]
    ups = [tuple(next(gate_up) for _ in row) for row in up]
    downs_flat = iter(_linears("down", flat_down, 2.0 ** (frac - h_frac)))
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
            QLayer(
                scaled["q"][i], scaled["k"][i], scaled["v"][i], scaled["o"][i], routers[i], gates[i], ups[i], downs[i]
            )
            for i in range(s.layers)
        ),
        final_gain=final_gain,
        rope=_rope_table(s.context, s.head_dim, s.rope_theta),
        eps=max(1, round(s.d * s.eps * 4.0**x_frac)),
        lm_scalar=lm_scalar,
    )  # fmt: skip
    return model, quantiser.report


def _rope_table(context: int, head_dim: int, theta: float) -> np.ndarray:
    """[context, head_dim / 2, 2] cos and sin with COEF_FRAC fraction bits (Su et al. 2021, section 3.2.2)."""
    inverse = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    angle = np.arange(context)[:, None] * inverse
    table = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return np.rint(table * (1 << COEF_FRAC)).astype(np.int64)
