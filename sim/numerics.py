"""The LPU's arithmetic in numpy: bit for bit what ``docs/numerics.md`` says and ``hdl/`` builds.

One function for each instruction result. All take and return ``int64`` arrays (or anything numpy makes one
of) with any leading batch dimensions, unless a function says otherwise; nothing here knows lanes, columns or
cycles. Fixed-point formats are named in the docstrings: "16 fraction bits" means value * 2**-16.

Ranges are the caller's duty where a docstring states one (the HDL has only that many wires); functions that
saturate say so.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hdl import tables
from hdl.config import ACT_BITS, ACT_RANGE, BLOCK, COEF_FRAC, KV_BITS, KV_RANGE, PROB_BITS

Ints = NDArray[np.int64]
"""Array of 64-bit integers."""

INT32_MIN = -(1 << 31)
INT32_MAX = (1 << 31) - 1
ONE = 1 << PROB_BITS
"""Probability 1."""


class Scalar(NamedTuple):
    """A VXM scalar: value = mantissa * 2**-15 * 2**-exponent; mantissa 0..65535, exponent -128..127."""

    mantissa: Any
    exponent: Any


UNIT = Scalar(32768, 0)
"""Register 0: the constant one."""


def _ints(x: ArrayLike) -> Ints:
    return np.asarray(x, dtype=np.int64)


# -- building blocks ---------------------------------------------------------------------------------


def round_shift(x: ArrayLike, shift: ArrayLike) -> Ints:
    """Arithmetic right shift rounded half up; ``shift`` 0..63. Needs ``|x| + 2**(shift-1) < 2**63``."""
    a, s = _ints(x), _ints(shift)
    half = np.where(s > 0, np.int64(1) << np.maximum(s - 1, 0), 0)
    return np.asarray((a + half) >> s)


def sat(x: ArrayLike, bits: int) -> Ints:
    """Clamp to ``bits``-bit signed."""
    return np.clip(_ints(x), -(1 << bits - 1), (1 << bits - 1) - 1)


def mag(x: ArrayLike) -> Ints:
    """x if x >= 0, else ~x: the magnitude that two's complement gives for nothing."""
    a = _ints(x)
    return a ^ (a >> 63)


def bitlen(x: ArrayLike) -> Ints:
    """Position of the highest set bit plus one, 0 for 0; x is taken as unsigned 64 bit."""
    a = np.array(x, dtype=np.uint64)
    n = np.zeros(a.shape, dtype=np.int64)
    for step in (32, 16, 8, 4, 2, 1):
        big = (a >> np.uint64(step)) > 0
        n += np.where(big, step, 0)
        a = np.where(big, a >> np.uint64(step), a)
    return n + (a > 0)


@functools.cache
def _table(name: str) -> tuple[Ints, Ints]:
    pairs = np.array(tables.TABLES[name](), dtype=np.int64)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


# -- activations, keys and values ----------------------------------------------------------------------


def quantise_act(x: ArrayLike, shift: int) -> tuple[Ints, Ints]:
    """SXM.ACT. ``x`` [..., K] stream words -> mantissas [..., K] (10 bit), exponents [..., ceil(K / 8)].

    Blocks of 8 along the last axis; a shorter last block counts as filled with zeros.
    """
    v = sat(round_shift(x, shift), ACT_RANGE)
    k = v.shape[-1]
    blocks = -(-k // BLOCK)
    padded = np.zeros((*v.shape[:-1], blocks * BLOCK), dtype=np.int64)
    padded[..., :k] = v
    padded = padded.reshape(*v.shape[:-1], blocks, BLOCK)
    u = np.bitwise_or.reduce(mag(padded), axis=-1)
    e = np.maximum(bitlen(u) - (ACT_BITS - 1), 0)
    m = np.minimum(round_shift(padded, e[..., None]), (1 << ACT_BITS - 1) - 1)
    return m.reshape(*v.shape[:-1], blocks * BLOCK)[..., :k], e


def act_value(mantissa: ArrayLike, exponent: ArrayLike) -> Ints:
    """The integers [..., K] that mantissas [..., K] and block exponents [..., ceil(K / 8)] stand for."""
    m = _ints(mantissa)
    e = np.repeat(_ints(exponent), BLOCK, axis=-1)[..., : m.shape[-1]]
    return np.asarray(m << e)


def sumsq(values: ArrayLike) -> NDArray[np.uint64]:
    """Sum of squares over the last axis of activation values (25 bit), uint64, saturating."""
    v = _ints(values)
    sq = (v * v).astype(np.uint64)
    low_mask = np.uint64(0xFFFFFFFF)
    low = np.asarray((sq & low_mask).sum(axis=-1, dtype=np.uint64))
    high = np.asarray((sq >> np.uint64(32)).sum(axis=-1, dtype=np.uint64)) + (low >> np.uint64(32))
    total = (high << np.uint64(32)) | (low & low_mask)
    return np.asarray(np.where(high > low_mask, np.uint64(0xFFFFFFFFFFFFFFFF), total))


def quantise_kv(x: ArrayLike, shift: int) -> tuple[Ints, Ints]:
    """SXM.KEY, SXM.VALUE. Head vectors [..., D] -> int8 [..., D], exponents [...]; scale = 2**exponent."""
    v = sat(round_shift(x, shift), KV_RANGE)
    e = np.maximum(bitlen(np.bitwise_or.reduce(mag(v), axis=-1)) - (KV_BITS - 1), 0)
    q = np.minimum(round_shift(v, e[..., None]), (1 << KV_BITS - 1) - 1)
    return q, e


# -- MXM and dequantiser -------------------------------------------------------------------------------


def dot(weights: NDArray[Any], values: ArrayLike) -> Ints:
    """ABC.DOT, exact. ``weights`` [O, K] (int8, or already float64) x ``values`` [..., K] -> [..., O].

    Sums that stay below 2**53 whatever the order go through float64 (exact, and BLAS); others through int64.
    Whether the result fits the accumulator is for the caller to check (:func:`fits`).
    """
    v = _ints(values)
    peak = float(np.abs(v).max(initial=0)) * 128.0 * weights.shape[-1]
    if peak < 2.0**53:
        return np.asarray(v.astype(np.float64) @ weights.astype(np.float64, copy=False).T).astype(np.int64)
    return np.asarray(v @ weights.astype(np.int64).T)


def fits(x: ArrayLike, bits: int) -> bool:
    """Whether every value fits ``bits``-bit signed."""
    a = _ints(x)
    return bool(np.all((a >= -(1 << bits - 1)) & (a < 1 << bits - 1)))


def scale_product(scl: ArrayLike, scalar: Scalar) -> Ints:
    """round(SCL * R.mantissa >> 15): 17-bit unsigned multiplier of the dequantiser."""
    return round_shift(_ints(scl) * _ints(scalar.mantissa), 15)


def dequant(value: ArrayLike, scl: ArrayLike, scalar: Scalar, shift: int) -> Ints:
    """ACC. Accumulators (to 46 bit) x scale (16 bit unsigned) x scalar -> 32-bit words, saturating."""
    m = scale_product(scl, scalar)
    return sat(round_shift(_ints(value) * m, np.clip(_ints(scalar.exponent) + shift, 0, 63)), 32)


def masked_max(y: ArrayLike, n: int) -> Ints:
    """MAX. Maximum over the first ``n`` elements of the last axis; -2**31 if there is none."""
    a = _ints(y)[..., :n]
    return np.asarray(a.max(axis=-1, initial=INT32_MIN))


# -- vector ALU ------------------------------------------------------------------------------------------


def add(source: ArrayLike, x: ArrayLike) -> Ints:
    """VX.ADD: saturating 32-bit sum."""
    return sat(_ints(source) + _ints(x), 32)


def gain(source: ArrayLike, coef: ArrayLike, fshift: int, shift: int) -> Ints:
    """VX.GAIN: sat32(round(sat18(round(source >> fshift)) * C >> shift)); C 16 bit signed."""
    return sat(round_shift(sat(round_shift(source, fshift), 18) * _ints(coef), shift), 32)


def rope(source: ArrayLike, coef: ArrayLike) -> Ints:
    """VX.ROPE. Pairs (a, b) at 2j, 2j+1 of the last axis, (cos, sin) at the same places of ``coef``."""
    v, c = sat(source, 18), np.broadcast_to(_ints(coef), np.shape(source))
    a, b, cos, sin = v[..., 0::2], v[..., 1::2], c[..., 0::2], c[..., 1::2]
    out = np.empty(v.shape, dtype=np.int64)
    out[..., 0::2] = sat(round_shift(a * cos - b * sin, COEF_FRAC), 32)
    out[..., 1::2] = sat(round_shift(b * cos + a * sin, COEF_FRAC), 32)
    return out


def exp2_neg(t: ArrayLike) -> Ints:
    """2**(-t / 4096) as a probability (65536 = 1) for t >= 0 with 12 fraction bits; t < 0 counts as 0."""
    a = np.clip(_ints(t), 0, (1 << 32) - 1)
    base, slope = _table("EXP2")
    k, f = (a + 4095) >> 12, -a & 4095
    v = base[f >> 4] + (slope[f >> 4] * (f & 15) >> 4)
    return np.asarray(np.where(k >= 18, 0, v >> np.minimum(k, 18)))


def exp(source: ArrayLike, maximum: ArrayLike, n: int | None = None) -> Ints:
    """VX.EXP, the probabilities: exp2(source - maximum) over the last axis, 0 from element ``n`` on.

    Their plain sum is SUM (40 bit); :func:`exp_out` makes the row on stream Z.
    """
    a = _ints(source)
    p = exp2_neg(_ints(maximum)[..., None] - a)
    return p if n is None else np.where(np.arange(a.shape[-1]) < n, p, 0)


def exp_out(p: ArrayLike, coef: ArrayLike, shift: int) -> Ints:
    """VX.EXP with unit = 0: sat32(round(p * C >> shift)). With unit = 1 stream Z carries p itself."""
    return sat(round_shift(_ints(p) * _ints(coef), shift), 32)


def sigmoid(g: ArrayLike, fshift: int) -> Ints:
    """1 / (1 + e**-x), 65536 = 1, for x = g * 2**-(fshift + 7); ``g`` 32 bit."""
    v = _ints(g)
    a = np.minimum(np.abs(v) << 4 >> fshift, (1 << 15) - 1)
    base, slope = _table("SIGMOID")
    s = base[a >> 7] + (slope[a >> 7] * (a & 127) >> 7)
    return np.where(v < 0, ONE - s, s)


def silu(g: ArrayLike, u: ArrayLike, fshift: int, shift: int) -> Ints:
    """VX.SILU: sat32(round(silu(g) * sat18(u) >> shift)); silu(g) has the fraction bits of g."""
    s = round_shift(sat(g, 18) * sigmoid(g, fshift), 16)
    return sat(round_shift(s * sat(u, 18), shift), 32)


# -- scalar unit -----------------------------------------------------------------------------------------


def _u64(x: Any) -> NDArray[np.uint64]:
    return np.array(x, dtype=np.uint64)


def rsqrt(total: Any, eps: Any = 0) -> Scalar:
    """SFU.RSQRT: 1 / sqrt(SUMSQ + EPS); 64-bit unsigned operands, the sum saturates, 0 counts as 1."""
    a, b = _u64(total), _u64(eps)
    with np.errstate(over="ignore"):
        s = np.asarray(a + b)
    s = np.where(s < a, np.uint64(0xFFFFFFFFFFFFFFFF), s)
    s = np.maximum(s, np.uint64(1))
    n = bitlen(s) - 1
    # w < 2 and w / 2 both are S with its leading one moved to bit 15; the parity of n picks the table's half.
    down = np.maximum(n - 15, 0).astype(np.uint64)
    up = np.maximum(15 - n, 0)
    w = (s >> down).astype(np.int64) << up
    i = (w >> 8 & 127) + 128 * (n & 1)
    base, slope = _table("RSQRT")
    return Scalar(np.minimum(base[i] - (slope[i] * (w & 255) >> 8), 65535), (n >> 1) + 1)


def recip(total: ArrayLike) -> Scalar:
    """SFU.RECIP: 1 / SUM; SUM 40-bit unsigned, 0 counts as 1."""
    s = np.maximum(_ints(total), 1)
    n = bitlen(s) - 1
    w = (s >> np.maximum(n - 16, 0)) << np.maximum(16 - n, 0)
    i = w >> 8 & 255
    base, slope = _table("RECIP")
    return Scalar(np.minimum(base[i] - (slope[i] * (w & 255) >> 8), 65535), n + 1)


def scalar_mul(a: Scalar, b: Scalar) -> Scalar:
    """SFU.MUL: product of two scalars, truncated to 16 bits of mantissa; the exponent saturates."""
    x = _ints(a.mantissa) * _ints(b.mantissa)
    e = _ints(a.exponent) + _ints(b.exponent)
    top = x >> 31 & 1
    m = np.where(top == 1, x >> 16, x >> 15)
    return Scalar(m, np.where(m == 0, 0, np.clip(e - top, -128, 127)))


def prob_scalar(p: ArrayLike) -> Scalar:
    """A probability 0..65536, taken as an integer like SUM, as a scalar; exact."""
    a = _ints(p)
    n = np.maximum(bitlen(a) - 1, 0)
    return Scalar((a << 15) >> n, -n)


# -- top-k unit ------------------------------------------------------------------------------------------

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA


def threefry2x32(key: tuple[Any, Any], counter: tuple[Any, Any], rounds: int = 8) -> tuple[Any, Any]:
    """Threefry-2x32 (Salmon et al., SC 2011) on uint32 values held in int64 arrays."""
    m32 = 0xFFFFFFFF
    k0, k1 = _ints(key[0]) & m32, _ints(key[1]) & m32
    ks = (k0, k1, k0 ^ k1 ^ _PARITY)
    x0, x1 = (_ints(counter[0]) + ks[0]) & m32, (_ints(counter[1]) + ks[1]) & m32
    for r in range(rounds):
        rot = _ROTATIONS[r % 8]
        x0 = (x0 + x1) & m32
        x1 = ((x1 << rot | x1 >> 32 - rot) & m32) ^ x0
        if r % 4 == 3:
            j = r // 4 + 1
            x0 = (x0 + ks[j % 3]) & m32
            x1 = (x1 + ks[(j + 1) % 3] + j) & m32
    return x0, x1


def gumbel(seed: int, position: ArrayLike, ids: ArrayLike) -> Ints:
    """Gumbel noise -ln(-ln U), 16 fraction bits, of token ``ids`` or of ranks at ``position``; shapes broadcast."""
    ids = _ints(ids)
    h0, h1 = threefry2x32((seed, 0), (ids >> 1, position))
    return gumbel_of_hash(np.where(ids & 1, h1, h0))


def gumbel_of_hash(h: ArrayLike) -> Ints:
    """The noise that a 32-bit hash stands for: 24 bits of it pick a point of the distribution."""
    u = _ints(h) >> 8
    high = u >> 23 == 1
    x = np.where(high, (1 << 24) - 1 - u, u) | 1
    n = 23 - bitlen(x)
    last = tables.GUMBEL_LOW - 1
    linear = ~high & (n >= last)
    n = np.where(linear, last, n)
    m = np.where(linear, x >> 8, (x << n) >> 14 & 255)
    i = np.where(high, n, tables.GUMBEL_HIGH + n) * 32 + (m >> 3)
    base, slope = _table("GUMBEL")
    return np.asarray(base[i] + (slope[i] * (m & 7) >> 3))


def topk(keys: ArrayLike, ids: ArrayLike | None, k: int) -> Ints:
    """TOP. Indices (into a 1-D ``keys``) of the k largest, best first; equal keys: the lower id first."""
    a = _ints(keys)
    order = np.lexsort((np.arange(a.size) if ids is None else _ints(ids), -a))
    return np.asarray(order[:k], dtype=np.int64)


def sample(
    logits: ArrayLike, *, topk_n: int = 1, noise: int = 0, seed: int = 0, position: int = 0,
    ids: ArrayLike | None = None,
) -> int:
    """Next token id from 1-D ``logits`` (16 fraction bits).

    ``noise`` 0: the best. 1: Gumbel noise picks among the ``topk_n`` best logits, each with the noise of its
    rank; equal sums: the better rank. 2: noise is in the key, that of the id. ``ids`` defaults to 0, 1, 2 ...
    """
    y = _ints(logits)
    names = np.arange(y.size, dtype=np.int64) if ids is None else _ints(ids)
    keys = sat(y + gumbel(seed, position, names), 32) if noise == 2 else y
    best = topk(keys, names, topk_n)
    z = sat(keys[best] + gumbel(seed, position, np.arange(best.size)), 32) if noise == 1 else keys[best]
    return int(names[best[np.argmax(z)]])
