"""The float oracle: a Mixtral forward pass in float32 numpy that reads from top to bottom.

Semantics are those of Hugging Face `MixtralForCausalLM` (transformers 5.23): RMSNorm, half-split rotary
embedding, grouped-query attention with an optional sliding window, softmax over all experts, top-k,
renormalisation, SwiGLU experts. Models: Jiang et al. 2024, "Mixtral of Experts", section 2; Su et al. 2021
(RoPE); Ainslie et al. 2023 (grouped-query attention); Shazeer 2020 (SwiGLU).

This model says what the numbers should be close to; the integer model beside it says what they are exactly.

Letters in the shape comments: B sequences, T tokens of each, S keys (cached and new), N = B * T,
d width, H query heads, G key/value heads, D head size, E experts, k chosen experts, f width of an expert,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[Any]  # float32 values; the stubs of numpy lose the width in reductions
I64 = NDArray[np.int64]

# observe(name, layer or -1, expert or -1, rows [N, width]); see FloatModel.forward for the names.
Observer = Callable[[str, int, int, F32], None]


class ShapeLike(Protocol):
    """What the oracle needs to know about a model's shape; fulfilled by firmware's ModelShape."""

    @property
    def vocab(self) -> int: ...
    @property
    def d(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def experts(self) -> int: ...
    @property
    def top_k(self) -> int: ...
    @property
    def context(self) -> int: ...
    @property
    def window(self) -> int | None: ...
    @property
    def rope_theta(self) -> float: ...
    @property
    def eps(self) -> float: ...
    @property
    def bos(self) -> int | None: ...


class LayerLike(Protocol):
    """Weights of one layer, matrices as [outputs, inputs]."""

    @property
    def attn_norm(self) -> F32: ...  # [d]
    @property
    def q(self) -> F32: ...  # [H*D, d]
    @property
    def k(self) -> F32: ...  # [G*D, d]
    @property
    def v(self) -> F32: ...  # [G*D, d]
    @property
    def o(self) -> F32: ...  # [d, H*D]
    @property
    def ffn_norm(self) -> F32: ...  # [d]
    @property
    def router(self) -> F32 | None: ...  # [E, d]
    @property
    def w_gate(self) -> F32: ...  # [E, f, d]
    @property
    def w_up(self) -> F32: ...  # [E, f, d]
    @property
    def w_down(self) -> F32: ...  # [E, d, f]
    def expert(self, e: int, /) -> tuple[F32, F32, F32]: ...  # w_gate[e], w_up[e], w_down[e]


class CheckpointLike(Protocol):
    """Anything that holds a model; fulfilled by firmware's Checkpoint and ArrayCheckpoint."""

    @property
    def shape(self) -> Any: ...  # a ShapeLike
    @property
    def embed(self) -> F32: ...  # [V, d]
    @property
    def final_norm(self) -> F32: ...  # [d]
    @property
    def lm_head(self) -> F32: ...  # [V, d]
    def layer(self, i: int, /) -> LayerLike: ...


class Cache:
    """Keys (after RoPE) and values of all layers, [layers, B, G, capacity, D]; `length` tokens are filled."""

    def __init__(self, shape: ShapeLike, batch: int, capacity: int) -> None:
        size = (shape.layers, batch, shape.kv_heads, capacity, shape.head_dim)
        self.k: F32 = np.zeros(size, np.float32)
        self.v: F32 = np.zeros(size, np.float32)
        self.length = 0


def normalise(x: F32, eps: float) -> F32:
    """x / rms(x) over the last axis, without a gain."""
    mean_square = np.mean(x * x, axis=-1, keepdims=True)
    normalised: F32 = x / np.sqrt(mean_square + np.float32(eps))
    return normalised


def softmax(x: F32) -> F32:
    """Softmax over the last axis; minus infinity gets weight 0."""
    e: F32 = np.exp(x - x.max(axis=-1, keepdims=True))
    e /= e.sum(axis=-1, keepdims=True)
    return e


def silu(x: F32) -> F32:
    """x * sigmoid(x), written so that no exponential overflows."""
    e = np.exp(-np.abs(x))
    return x * np.where(x >= 0, np.float32(1), e) / (np.float32(1) + e)


def rope_tables(shape: ShapeLike, positions: I64) -> tuple[F32, F32]:
    """(cos, sin), each [T, D/2]: the angle of pair j at position p is p * theta**(-2j/D), in float32."""
    exponent = np.arange(0, shape.head_dim, 2, dtype=np.float32) / np.float32(shape.head_dim)
    frequency = np.float32(1) / np.power(np.float32(shape.rope_theta), exponent)
    angle = positions.astype(np.float32)[:, None] * frequency
    return np.cos(angle), np.sin(angle)


def rotate(x: F32, cos: F32, sin: F32) -> F32:
    """RoPE of x [..., T, D]. Half-split: the pair of lane j is lane j + D/2."""
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class Places(NamedTuple):
    """What attention needs to know about the T tokens at positions past .. past + T - 1."""

    past: int
    cos: F32  # [T, D/2]
    sin: F32  # [T, D/2]
    visible: NDArray[np.bool_]  # [T, S]: whether the query in row i sees key j


def places(shape: ShapeLike, past: int, T: int) -> Places:
    """Tables of T tokens that follow `past` others: a query sees no later key, and `window` keys at most."""
    cos, sin = rope_tables(shape, np.arange(past, past + T))
    i = np.arange(past, past + T)[:, None]
    j = np.arange(past + T)[None, :]
    visible = j <= i
    if shape.window is not None:
        visible &= i - j < shape.window
    return Places(past, cos, sin, visible)


def _quiet(name: str, layer: int, expert: int, rows: F32) -> None:
    """The observer that looks away."""


class FloatModel:
    """Forward pass of a checkpoint in float32.

    `keep` holds the weights in memory after their first use; without it each layer is read anew, which is
    what a model larger than memory needs.
    """

    def __init__(self, ckpt: CheckpointLike, keep: bool = True) -> None:
        self.ckpt = ckpt
        self.shape: ShapeLike = ckpt.shape
        self.keep = keep
        self._layers: dict[int, LayerLike] = {}
        self._arrays: dict[str, F32] = {}

    def _layer(self, i: int) -> LayerLike:
        layer = self._layers.get(i) or self.ckpt.layer(i)
        if self.keep:
            self._layers[i] = layer
        return layer

    def _array(self, name: str) -> F32:
        value: F32 = self._arrays[name] if name in self._arrays else getattr(self.ckpt, name)
        if self.keep:
            self._arrays[name] = value
        return value

    def forward(
        self, ids: Sequence[int] | I64, cache: Cache | None = None, observe: Observer | None = None
    ) -> F32:
        """Logits [T, V] of token ids [T], or [B, T, V] of ids [B, T].

        With a `cache` the tokens follow those already in it, and are added to it. `observe` is called with
        rows [N, width] of, per layer: "residual" (at both norms' inputs), "qkv_in" (normalised, gain-free),
        "q", "k", "v" (before RoPE), "q_rope", "k_rope", "scores", "attn" (input of o), "ffn_in" (normalised,
        gain-free, all tokens), "router" (logits), and per expert, its routed tokens only: "expert_in"
        (gain-free), "gate", "up", "h" (silu(gate) * up, input of down), "down"; last, with layer -1,
        "residual", "lm_head_in" (normalised, gain-free) and "logits".

        Raises ValueError for an id outside the vocabulary and for a sequence longer than the context.
        """
        s = self.shape
        tokens = np.asarray(ids, dtype=np.int64)
        batched = np.atleast_2d(tokens)
        T = batched.shape[1]
        past = cache.length if cache is not None else 0
        if tokens.size and not (0 <= batched.min() and batched.max() < s.vocab):
            raise ValueError(f"token ids must be 0 to {s.vocab - 1}")
        if past + T > s.context:
            raise ValueError(f"{past + T} tokens exceed the context of {s.context}")
        note = observe or _quiet

        at = places(s, past, T)
        x = self._array("embed")[batched.reshape(-1)]  # [N, d], the residual stream
        for i in range(s.layers):
            w = self._layer(i)
            note("residual", i, -1, x)
            n = normalise(x, s.eps)  # [N, d]
            note("qkv_in", i, -1, n)
            a = self.attention(w, n, at, i, cache, note)  # [N, H*D]
            note("attn", i, -1, a)
            x = x + a @ w.o.T  # [N, d]

            note("residual", i, -1, x)
            n = normalise(x, s.eps)  # [N, d]
            note("ffn_in", i, -1, n)
            x = x + self.experts(w, n, i, note)  # [N, d]
        if cache is not None:
            cache.length += T

        note("residual", -1, -1, x)
        n = normalise(x, s.eps)  # [N, d]
        note("lm_head_in", -1, -1, n)
        logits = (n * self._array("final_norm")) @ self._array("lm_head").T  # [N, V]
        note("logits", -1, -1, logits)
        return logits.reshape(*tokens.shape, s.vocab)

    def attention(
        self,
        w: LayerLike,
        n: F32,
        at: Places,
        i: int = -1,
        cache: Cache | None = None,
        note: Observer = _quiet,
    ) -> F32:
        """Attention before the output projection, [N, H*D], for normalised, gain-free rows n [N, d]."""
        s = self.shape
        T, S = at.visible.shape
        B = len(n) // T
        n = n * w.attn_norm
        q, k, v = n @ w.q.T, n @ w.k.T, n @ w.v.T  # [N, H*D], [N, G*D], [N, G*D]
        for name, rows in (("q", q), ("k", k), ("v", v)):
            note(name, i, -1, rows)
        q = rotate(_heads(q, B, s.heads), at.cos, at.sin)  # [B, H, T, D]
        k = rotate(_heads(k, B, s.kv_heads), at.cos, at.sin)  # [B, G, T, D]
        v = _heads(v, B, s.kv_heads)  # [B, G, T, D]
        note("q_rope", i, -1, _rows(q))
        note("k_rope", i, -1, _rows(k))
        if cache is not None:
            cache.k[i, :, :, at.past : S], cache.v[i, :, :, at.past : S] = k, v
            k, v = cache.k[i, :, :, :S], cache.v[i, :, :, :S]  # [B, G, S, D]
        q = q.reshape(B, s.kv_heads, -1, s.head_dim)  # [B, G, (H/G)*T, D]: heads that share a key head
        scores = q @ k.swapaxes(-1, -2) * np.float32(s.head_dim**-0.5)  # [B, G, (H/G)*T, S]
        scores = scores.reshape(B, s.heads, T, S)
        if note is not _quiet:
            note("scores", i, -1, scores[..., at.visible].reshape(-1, 1))
        p = softmax(np.where(at.visible, scores, np.float32(-np.inf)))  # [B, H, T, S]
        a = p.reshape(B, s.kv_heads, -1, S) @ v  # [B, G, (H/G)*T, D]
        return _rows(a.reshape(B, s.heads, T, s.head_dim))

    def experts(self, w: LayerLike, n: F32, i: int = -1, note: Observer = _quiet) -> F32:
        """Sum of the chosen experts' outputs [N, d] for normalised, gain-free rows n [N, d]."""
        s = self.shape
        g = n * w.ffn_norm  # [N, d]
        if w.router is None:
            weight = np.ones((len(n), 1), np.float32)  # [N, E]
        else:
            logits = g @ w.router.T  # [N, E]
            note("router", i, -1, logits)
            weight = route(logits, s.top_k)
        y = np.zeros_like(n)
        for e in range(s.experts):
            rows = np.flatnonzero(weight[:, e] > 0)  # tokens that chose expert e
            if not len(rows):
                continue
            note("expert_in", i, e, n[rows])
            gate, up = g[rows] @ w.w_gate[e].T, g[rows] @ w.w_up[e].T  # [n_e, f] each
            h = silu(gate) * up  # [n_e, f]
            out = h @ w.w_down[e].T  # [n_e, d]
            for name, values in (("gate", gate), ("up", up), ("h", h), ("down", out)):
                note(name, i, e, values)
            y[rows] += weight[rows, e, None] * out
        return y

    def sample(
        self,
        n_seqs: int,
        length: int,
        seed: int,
        temperature: float = 1.0,
        start: Sequence[int] | I64 | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> I64:
        """Text of the model itself, ids [n_seqs, length], reproducible from `seed`.

        The first token of each sequence is `start` [n_seqs]; by default even sequences begin with the start
        token, if the model has one, and all others with a token drawn evenly from the vocabulary. Tokens are
        drawn from softmax(logits / temperature); end tokens do not end a sequence. `progress` is called with the
        tokens of each sequence that are there, and `length`.
        """
        s = self.shape
        if length > s.context:
            raise ValueError(f"{length} tokens exceed the context of {s.context}")
        rng = np.random.default_rng(seed)
        ids = np.zeros((n_seqs, length), np.int64)
        ids[:, 0] = rng.integers(s.vocab, size=n_seqs)
        if start is not None:
            ids[:, 0] = start
        elif s.bos is not None:
            ids[::2, 0] = s.bos
        cache = Cache(s, n_seqs, length)
        for t in range(length - 1):
            logits = self.forward(ids[:, t : t + 1], cache)[:, 0]  # [B, V]
            # Gumbel-max: the arg-max of logits / T + Gumbel noise is a draw from softmax(logits / T).
            ids[:, t + 1] = np.argmax(logits + temperature * rng.gumbel(size=logits.shape), axis=-1)
            if progress:
                progress(t + 2, length)
        return ids


def route(logits: F32, k: int) -> F32:
    """Weights [N, E] of the experts from router logits [N, E]: softmax, the k largest, renormalised.

    Equal values go to the lower expert. Experts not chosen have weight 0.
    """
    p = softmax(logits)
    chosen = np.argsort(-p, axis=-1, kind="stable")[:, :k]  # [N, k]
    weight = np.zeros_like(p)
    np.put_along_axis(weight, chosen, np.take_along_axis(p, chosen, axis=-1), axis=-1)
    weight /= weight.sum(axis=-1, keepdims=True)
    return weight


def _heads(x: F32, B: int, heads: int) -> F32:
    """[N, heads*D] -> [B, heads, T, D]"""
    return x.reshape(B, x.shape[0] // B, heads, -1).swapaxes(1, 2)


def _rows(x: F32) -> F32:
    """[B, heads, T, D] -> [N, heads*D]"""
    B, heads, T, D = x.shape
    return x.swapaxes(1, 2).reshape(B * T, heads * D)


def log_likelihood(logits: F32, ids: Sequence[int] | I64) -> NDArray[np.float64]:
    """Log probability of ids[..., 1:] under logits[..., :-1, :], in nats; exp(-mean) is the perplexity."""
    targets = np.asarray(ids, dtype=np.int64)[..., 1:, None]
    z = logits[..., :-1, :].astype(np.float64)
    z = z - z.max(axis=-1, keepdims=True)
    picked = np.take_along_axis(z, targets, axis=-1)[..., 0]
    return np.asarray(picked - np.log(np.exp(z).sum(axis=-1)))
