"""The integer model, top to bottom: what the LPU computes, step by step, without its schedule.

Bit for bit the chip's results (``sim/numerics.py`` has each step); whole sequences or token by token, with
the KV cache kept between calls. Buffers carry their shape; T = positions of this call, S = keys so far.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from hdl.config import LOGIT_FRAC

from . import numerics as nx
from .qmodel import QLayer, QLinear, QModel

ONE = nx.Scalar(np.int64(1 << 15), np.int64(0))


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, in the registers' terms (:class:`hdl.image.Param`)."""

    inverse: tuple[int, int] = (1 << 15, 0)
    """Scalar 1 / temperature; one for greedy."""
    noise: int = 0
    topk: int = 1
    seed: int = 0


class Reference:
    """Integer forward pass with a KV cache.

    >>> ref = Reference(qmodel); logits = ref.forward(ids)      # int64 [T, vocab], 16 fraction bits
    """

    def __init__(self, model: QModel):
        self.model = model
        self.reset()

    def reset(self) -> None:
        """Forget the context."""
        s = self.model.shape
        self.position = 0
        self.keys = [np.zeros((0, s.kv_heads, s.head_dim), np.int64) for _ in range(s.layers)]
        self.key_exp = [np.zeros((0, s.kv_heads), np.int64) for _ in range(s.layers)]
        self.values = [np.zeros((0, s.kv_heads, s.head_dim), np.int64) for _ in range(s.layers)]
        self.value_exp = [np.zeros((0, s.kv_heads), np.int64) for _ in range(s.layers)]
        self.chosen = [np.zeros((0, s.top_k), np.int64) for _ in range(s.layers)]
        """By layer: the experts of the last call's tokens, int64 [T, k], best first."""

    def forward(self, ids: np.ndarray | list[int], inv_temperature: tuple[int, int] = (1 << 15, 0)) -> np.ndarray:
        """Logits (times 1/T) after each of ``ids``: int64 [T, vocab], LOGIT_FRAC fraction bits.

        Raises ValueError when the context is full or an id is out of range.
        """
        return self.logits(self.residual(ids), inv_temperature)

    def logits(self, x: np.ndarray, inv_temperature: tuple[int, int] = (1 << 15, 0)) -> np.ndarray:
        """Logits [T, vocab] of a residual stream [T, d], as :meth:`residual` gives it."""
        model, sh = self.model, self.model.shifts
        act, r = self._norm(x)  # [T, d], scalars [T]
        if model.final_gain is not None:
            y = nx.gain(x, model.final_gain, sh.gain_pre, sh.gain)
            act = nx.act_value(*nx.quantise_act(y, sh.gain_act))
        r = nx.scalar_mul(nx.scalar_mul(r, nx.Scalar(*model.lm_scalar)), nx.Scalar(*inv_temperature))
        return _linear(model.lm_head, act, r)  # [T, V]

    def residual(self, ids: np.ndarray | list[int]) -> np.ndarray:
        """The residual stream behind the last layer, after each of ``ids``: int64 [T, d],
        ``shifts.residual_frac`` fraction bits. The context grows by them. Errors as those of :meth:`forward`."""
        model, s = self.model, self.model.shape
        ids = np.asarray(ids, np.int64)
        if self.position + len(ids) > s.context:
            raise ValueError(f"context full: {self.position} + {len(ids)} positions, {s.context} fit")
        if ids.min() < 0 or ids.max() >= s.vocab:
            raise ValueError(f"token id outside 0..{s.vocab - 1}")
        embed = model.embed
        x = nx.dequant(embed.weight[ids].astype(np.int64), embed.scl[ids][:, None], ONE, embed.shift)  # [T, d]
        for i, layer in enumerate(model.layers):
            x = self._layer(i, layer, x)
        self.position += len(ids)
        return x

    def _norm(self, x: np.ndarray) -> tuple[np.ndarray, nx.Scalar]:
        """Quantised x [T, d] and R = 1 / sqrt(sum of squares + eps) [T]; the division commutes with the linear."""
        mant, exp = nx.quantise_act(x, self.model.shifts.x_act)
        act = nx.act_value(mant, exp)
        return act, nx.rsqrt(nx.sumsq(act), self.model.eps)

    def _layer(self, i: int, layer: QLayer, x: np.ndarray) -> np.ndarray:
        x = nx.add(x, self._attention(i, layer, x))
        return self._experts(i, layer, x)

    def _attention(self, i: int, layer: QLayer, x: np.ndarray) -> np.ndarray:
        s, sh = self.model.shape, self.model.shifts
        t = len(x)
        act, r = self._norm(x)
        positions = np.arange(self.position, self.position + t)
        coef = self.model.rope[positions].reshape(t, 1, s.head_dim)  # pairs (cos, sin)
        # q and k have their RoPE pairs side by side from here on, as the lanes hold them.
        q = nx.rope(_interleave(_linear(layer.q, act, r).reshape(t, s.heads, s.head_dim)), coef)
        k = nx.rope(_interleave(_linear(layer.k, act, r).reshape(t, s.kv_heads, s.head_dim)), coef)
        v = _linear(layer.v, act, r).reshape(t, s.kv_heads, s.head_dim)
        k_mant, k_exp = nx.quantise_kv(k, sh.k_kv)
        v_mant, v_exp = nx.quantise_kv(v, sh.v_kv)
        self.keys[i] = keys = np.concatenate([self.keys[i], k_mant])  # [S, KV, hd]
        self.key_exp[i] = key_exp = np.concatenate([self.key_exp[i], k_exp])  # [S, KV]
        self.values[i] = values = np.concatenate([self.values[i], v_mant])
        self.value_exp[i] = value_exp = np.concatenate([self.value_exp[i], v_exp])
        back = positions[:, None] - np.arange(len(keys))  # [T, S]
        seen = (back >= 0) & (back < s.window)
        q_act = nx.act_value(*nx.quantise_act(q, sh.q_act))
        heads = []
        group = s.heads // s.kv_heads
        for h in range(s.heads):
            g = h // group
            acc = nx.dot(keys[:, g], q_act[:, h])  # [T, S]
            score = nx.dequant(acc, np.int64(1) << key_exp[:, g], ONE, sh.score)
            top = np.where(seen, score, -(1 << 31)).max(axis=1, keepdims=True)
            p = np.where(seen, nx.exp2_neg(top - score), 0)  # [T, S], 65536 = 1
            p_act = self._in_slots(nx.exp_out(p, np.int64(1) << value_exp[:, g], sh.prob), positions)
            acc = nx.dot(values[:, g].T, p_act)  # [T, hd]
            heads.append(nx.dequant(acc, np.int64(1 << 15), _column(nx.recip(p.sum(axis=1))), sh.attn))
        o = np.stack(heads, axis=1)  # [T, H, hd]
        o_act = nx.act_value(*nx.quantise_act(o, sh.attn_act)).reshape(t, -1)
        return _linear(layer.o, o_act, None)

    def _in_slots(self, weighted: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Quantise probabilities [T, S] in the blocks in which the cache ring holds their keys."""
        window, shift = self.model.shape.window, self.model.shifts.prob_act
        if positions[-1] < window:
            return nx.act_value(*nx.quantise_act(weighted, shift))
        out = np.zeros_like(weighted)
        for row, position in enumerate(positions):
            keys = np.arange(max(0, position - window + 1), position + 1)
            ring = np.zeros(min(position + 1, window), np.int64)
            ring[keys % window] = weighted[row, keys]
            out[row, keys] = nx.act_value(*nx.quantise_act(ring, shift))[keys % window]
        return out

    def _experts(self, i: int, layer: QLayer, x: np.ndarray) -> np.ndarray:
        s = self.model.shape
        act, r = self._norm(x)
        t = len(x)
        if layer.router is None:
            ids = np.zeros((t, 1), np.int64)
            weights = [ONE]
        else:
            logits = _linear(layer.router, act, r)  # [T, E], log2 units
            ids = np.argsort(-logits, axis=1, kind="stable")[:, : s.top_k]
            best = np.take_along_axis(logits, ids, axis=1)
            p = nx.exp2_neg(best[:, :1] - best)  # [T, k]
            recip = nx.recip(p.sum(axis=1))
            weights = [nx.scalar_mul(nx.prob_scalar(p[:, j]), recip) for j in range(s.top_k)]
            if s.top_k == 1:
                weights = [ONE]  # softmax over one
        self.chosen[i] = ids
        for j in range(s.top_k):
            y = np.zeros_like(x)
            for e in np.unique(ids[:, j]):
                rows = ids[:, j] == e
                w = nx.Scalar(*(np.broadcast_to(part, (t,))[rows] for part in weights[j]))
                y[rows] = self._expert(layer, int(e), act[rows], nx.Scalar(r[0][rows], r[1][rows]), w)
            x = nx.add(x, y)
        return x

    def _expert(self, layer: QLayer, e: int, act: np.ndarray, r: nx.Scalar, weight: nx.Scalar) -> np.ndarray:
        sh = self.model.shifts
        gate = _linear(layer.gate[e], act, r)  # [T, f]
        up = _linear(layer.up[e], act, r)
        h = nx.silu(gate, up, sh.gate_frac - 7, sh.silu)
        h_act = nx.act_value(*nx.quantise_act(h, sh.h_act))
        return _linear(layer.down[e], h_act, weight)

    def generate(self, prompt: list[int], limit: int, sampling: Sampling, stop_ids: tuple[int, ...] = ()) -> list[int]:
        """Tokens after ``prompt``, the stop token included; ends at a stop id, the limit or the full context."""
        logits = self.forward(prompt, sampling.inverse)[-1]
        out: list[int] = []
        while True:
            token = choose(logits, self.position - 1, sampling)
            out.append(token)
            if token in stop_ids or len(out) >= limit or self.position >= self.model.shape.context:
                return out
            logits = self.forward([token], sampling.inverse)[-1]


def choose(logits: np.ndarray, position: int, sampling: Sampling) -> int:
    """Next token from the logits (already times 1/T) at ``position``."""
    return nx.sample(logits, topk_n=sampling.topk, noise=sampling.noise, seed=sampling.seed, position=position)


def logits_float(logits: np.ndarray) -> np.ndarray:
    """Integer logits as float32."""
    return (logits / (1 << LOGIT_FRAC)).astype(np.float32)


def _linear(linear: QLinear, act: np.ndarray, r: nx.Scalar | None) -> np.ndarray:
    """act [..., in] -> [..., out]; r: scalars [...] or None for one."""
    acc = nx.dot(linear.weight, act)
    return nx.dequant(acc, linear.scl, ONE if r is None else _column(r), linear.shift)


def _column(r: nx.Scalar) -> nx.Scalar:
    """Scalars [...] against rows [..., N]."""
    return nx.Scalar(np.asarray(r.mantissa)[..., None], np.asarray(r.exponent)[..., None])


def _interleave(x: np.ndarray) -> np.ndarray:
    """[..., hd] half-split RoPE order -> pairs (i, i + hd/2) side by side, as the lanes hold them."""
    half = x.shape[-1] // 2
    return np.stack([x[..., :half], x[..., half:]], axis=-1).reshape(x.shape)
