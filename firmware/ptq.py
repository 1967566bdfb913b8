"""Post-training quantisation of a whole checkpoint, front to back.

The model is walked through once with calibration text, in two streams side by side: the exact float model,
and the model as far as it is quantised already. Each linear layer is rounded (`firmware.gptq`) for the
inputs that it will really get, those of the quantised stream, and towards the outputs that it should have,
those of the exact stream. So a layer makes up for part of the errors made before it: on a 0.5 M parameter
model the rise of the perplexity at 4 bits falls by a third against rounding each layer by itself.

References: Frantar et al. 2022 (GPTQ, arXiv 2210.17323), Li et al. 2025 (GPTAQ, arXiv 2504.02692).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware.calibrate import Calibration
from firmware.checkpoint import ArrayLayer
from firmware.gptq import quantise_rows
from sim.float_model import F32, CheckpointLike, FloatModel, LayerLike, normalise, places, route, silu

Grid = tuple[NDArray[np.int8], NDArray[np.float64]]
Key = tuple[str, int | None, int | None]

# Tied embeddings are read as the LM head's rows, where the inputs' second moments say what matters, and as
# the tokens' vectors, where every lane counts alike: the share of the latter in the mix of both.
EMBEDDING_SHARE = 0.1

# Sequences whose attention is computed at once: bounds the memory of the scores.
_BATCH = 8


def quantise_weights(
    ckpt: CheckpointLike,
    bits: int,
    calibration: Calibration | None,
    *,
    router_bits: int = 8,
    embed_bits: int | None = None,
    max_width: int = 4096,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Key, Grid]:
    """Integers and row scales of every matrix, by (name, layer, expert).

    Names are "q", "k", "v", "router", "gate", "up" (the norm's gain folded in: W * gain), "o", "down",
    "embed", and, where embeddings are not tied, "lm_head" (the final norm's gain folded in). Layer is None
    for the last two, expert for all but gate, up and down (0 in a dense model). Each value is (q [O, K]
    int8, scale [O] float64). Rows that lie on a grid of that width already come back unchanged.

    `embed_bits` (default: `bits`) holds for "embed" and "lm_head". Inputs wider than `max_width` are
    rounded by the weights alone; with `calibration=None` all are, and no text is run. `progress(done,
    total)` counts matrices.
    """
    walk = _Walk(ckpt, bits, max_width, progress or (lambda done, total: None))
    head_bits = bits if embed_bits is None else embed_bits
    s = ckpt.shape
    embed, final_gain = np.asarray(ckpt.embed), np.asarray(ckpt.final_norm)

    moment = calibration.hessian(None, "lm_head") if calibration is not None and s.tied else None
    if moment is not None:
        moment = moment / np.trace(moment) * s.d * (1 - EMBEDDING_SHARE) + EMBEDDING_SHARE * np.eye(s.d)
    rounded = walk.put(("embed", None, None), embed, head_bits, moment)
    x = y = np.zeros((0, s.d), np.float32)
    length = 1
    if calibration is not None:
        tokens, length = calibration.ids.reshape(-1), calibration.ids.shape[1]
        x, y = embed[tokens], rounded[tokens]  # [N, d] each: the exact and the quantised residual stream
    for i in range(s.layers):
        x, y = walk.layer(i, ckpt.layer(i), x, y, length, router_bits)
    if not s.tied:
        walk.fit(
            ("lm_head", None, None),
            np.asarray(ckpt.lm_head) * final_gain,
            normalise(x, s.eps),
            normalise(y, s.eps),
            head_bits,
        )
    return walk.grids


class _Walk:
    """Collects the grids; `x` is always the exact stream's tensor, `y` the quantised stream's."""

    def __init__(
        self, ckpt: CheckpointLike, bits: int, max_width: int, progress: Callable[[int, int], None]
    ) -> None:
        self.shape = s = ckpt.shape
        self.progress = progress
        self.total = s.layers * (4 + (s.experts > 1) + 3 * s.experts) + (1 if s.tied else 2)
        self.model = FloatModel(ckpt, keep=False)
        self.bits = bits
        self.max_width = max_width
        self.grids: dict[Key, Grid] = {}
        # Of the last two streams that were fitted to: q, k and v have the same inputs, and so have gate and up.
        self._moments: tuple[F32, F32, F32, F32] | None = None

    def put(
        self, key: Key, w: F32, bits: int, hessian: NDArray[Any] | None, drift: NDArray[Any] | None = None
    ) -> F32:
        """Round w [O, K], note the grid under `key`, and give back the float32 weights that it stands for."""
        q, scale = quantise_rows(w, bits, hessian, drift=drift)
        self.grids[key] = q, scale
        self.progress(len(self.grids), self.total)
        return (q * scale[:, None]).astype(np.float32)

    def fit(self, key: Key, w: F32, x: F32, y: F32, bits: int | None = None) -> F32:
        """Round w [O, K] for inputs y [N, K] towards the outputs w x of inputs x [N, K]."""
        bits = self.bits if bits is None else bits
        if not len(y) or w.shape[1] > self.max_width:
            return self.put(key, w, bits, None)
        if self._moments is None or self._moments[0] is not x or self._moments[1] is not y:
            self._moments = (x, y, y.T @ y, y.T @ (x - y))
        return self.put(key, w, bits, self._moments[2], self._moments[3])

    def layer(self, i: int, w: LayerLike, x: F32, y: F32, length: int, router_bits: int) -> tuple[F32, F32]:
        """Quantise layer `i` with weights w; both residual streams [N, d] before it -> after it."""
        s = self.shape
        ones = np.ones(s.d, np.float32)
        n, m = normalise(x, s.eps), normalise(y, s.eps)  # [N, d]
        q, k, v = (
            self.fit((name, i, None), matrix * w.attn_norm, n, m)
            for name, matrix in (("q", w.q), ("k", w.k), ("v", w.v))
        )
        none = np.zeros((0, 0, 0), np.float32)
        rounded = ArrayLayer(ones, q, k, v, none, ones, None, none, none, none)
        a, b = self._attention(w, n, length), self._attention(rounded, m, length)  # [N, H*D]
        o = self.fit(("o", i, None), w.o, a, b)
        x, y = x + a @ w.o.T, y + b @ o.T
        n, m = normalise(x, s.eps), normalise(y, s.eps)
        return x + self.model.experts(w, n), y + self._experts(i, w, n, m, router_bits)

    def _attention(self, w: LayerLike, n: F32, length: int) -> F32:
        """[N, H*D] for normalised rows [N, d] of sequences of `length` tokens."""
        at = places(self.shape, 0, length)
        step = _BATCH * length
        parts = [self.model.attention(w, n[a : a + step], at) for a in range(0, len(n), step)]
        return (
            np.concatenate(parts)
            if parts
            else np.zeros((0, self.shape.heads * self.shape.head_dim), np.float32)
        )

    def _experts(self, i: int, w: LayerLike, n: F32, m: F32, router_bits: int) -> F32:
        """Quantise router and experts; the quantised experts' sum [N, d]. n exact, m quantised [N, d]."""
        s = self.shape
        weight = np.ones((len(m), 1), np.float32)  # [N, E]
        if w.router is not None:
            router = self.fit(("router", i, None), w.router * w.ffn_norm, n, m, router_bits)
            weight = route(m @ router.T, s.top_k) if len(m) else np.zeros((0, s.experts), np.float32)
        out = np.zeros_like(m)
        for e in range(s.experts):
            mine = np.flatnonzero(weight[:, e] > 0)
            # An expert that few tokens chose is fitted to all of them rather than to noise.
            seen = mine if len(mine) >= 2 * s.d else np.arange(len(m))
            gate, up = w.w_gate[e] * w.ffn_norm, w.w_up[e] * w.ffn_norm
            x, y = n[seen], m[seen]
            gate_q = self.fit(("gate", i, e), gate, x, y)
            up_q = self.fit(("up", i, e), up, x, y)
            h = silu(x @ gate.T) * (x @ up.T)  # [tokens, f]
            g = silu(y @ gate_q.T) * (y @ up_q.T)
            down_q = self.fit(("down", i, e), w.w_down[e], h, g)
            if len(seen) != len(mine):
                g = g[mine]
            out[mine] += weight[mine, e, None] * (g @ down_q.T)
        return out
