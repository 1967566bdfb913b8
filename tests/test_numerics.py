"""The numerics against plain arithmetic: exact where they claim to be, bounded errors elsewhere."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from hdl import tables
from sim import numerics as nx

KNOWN_HASHES = {13: (0x9D1C5EC6, 0x8BD50731), 20: (0x6B200159, 0x99BA4EFE)}
"""Threefry-2x32 of key 0, counter 0, from the published known-answer tests."""


def _round_half_up(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


@pytest.mark.parametrize("name", tables.TABLES)
def test_tables_fit_their_widths(name: str) -> None:
    """Every entry fits the fields stated for it, and one 36-bit word."""
    table = tables.TABLES[name]()
    base_bits, slope_bits = tables.WIDTHS[name]
    assert len(table) == (1024 if name == "GUMBEL" else 256)
    assert base_bits + slope_bits <= 36
    low = 1 if name == "GUMBEL" else 0
    for base, slope in table:
        assert -low << base_bits - 1 <= base < 1 << base_bits - low
        assert -low << slope_bits - 1 <= slope < 1 << slope_bits - low
    assert all(0 <= word < 1 << 36 for word in tables.packed(name))


def test_table_spot_values() -> None:
    """Bases are the functions' correctly rounded values."""
    assert tables.exp2()[0][0] == 65536
    assert tables.exp2()[128][0] == round(65536 * math.sqrt(2))
    assert tables.sigmoid()[16][0] == round(65536 / (1 + math.exp(-1)))
    assert tables.rsqrt()[128][0] == round(65536 / math.sqrt(2))
    assert tables.recip()[128][0] == round(65536 / 1.5)


def test_round_shift_and_sat(rng: np.random.Generator) -> None:
    """Half goes up, for either sign and every shift; clamps sit on the limits."""
    x = rng.integers(-(1 << 61), 1 << 61, 500) >> rng.integers(0, 61, 500)
    s = rng.integers(0, 63, 500)
    expected = [_round_half_up(Fraction(int(a), 1 << int(b))) for a, b in zip(x, s, strict=True)]
    assert nx.round_shift(x, s).tolist() == expected
    assert nx.round_shift([3, -3, 2, -2], 1).tolist() == [2, -1, 1, -1]
    assert nx.sat([127, 128, -128, -129], 8).tolist() == [127, 127, -128, -128]


def test_bitlen_is_exact() -> None:
    """Up to 64 bits, next to every power of two."""
    values = [0, *(v for n in range(64) for v in ((1 << n) - 1, 1 << n, (1 << n) + 1) if v < 1 << 64)]
    assert nx.bitlen(np.array(values, dtype=np.uint64)).tolist() == [v.bit_length() for v in values]


@pytest.mark.parametrize("shape", [(64,), (3, 20), (2, 2, 7)])
def test_activation_blocks(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    """Mantissas stay in 10 bits and half a step from the value; blocks do not touch each other."""
    x = rng.integers(-(1 << 31), 1 << 31, shape) >> rng.integers(0, 31, shape)
    for shift in (0, 5, 12):
        m, e = nx.quantise_act(x, shift)
        v = nx.sat(nx.round_shift(x, shift), 25)
        assert e.shape == (*shape[:-1], -(-shape[-1] // 8))
        assert m.min() >= -512 and m.max() <= 511
        assert e.min() >= 0 and e.max() <= 15
        step = 1 << np.repeat(e, 8, axis=-1)[..., : shape[-1]]
        error = v - nx.act_value(m, e)
        # Only the clamp at 511 may cost more than half a step.
        assert np.all((np.abs(error) * 2 <= step) | ((m == 511) & (0 < error) & (error < step)))
        first, _ = nx.quantise_act(x[..., :8], shift)
        assert np.array_equal(first, m[..., :8])


def test_activation_corners() -> None:
    """Limits of a block: small values are exact, the largest uses exponent 15."""
    m, e = nx.quantise_act([511, -512, 0, 1], 0)
    assert (m.tolist(), e.tolist()) == ([511, -512, 0, 1], [0])
    m, e = nx.quantise_act([512, 1023, -1, 1], 0)
    assert (m.tolist(), e.tolist()) == ([256, 511, 0, 1], [1])
    m, e = nx.quantise_act([nx.INT32_MAX, nx.INT32_MIN], 0)
    assert (m.tolist(), e.tolist()) == ([511, -512], [15])


def test_key_value_quantisation(rng: np.random.Generator) -> None:
    """One exponent for a head, 0..14; int8 without -128 only where the value allows it."""
    x = rng.integers(-(1 << 31), 1 << 31, (50, 16)) >> rng.integers(0, 31, (50, 1))
    q, e = nx.quantise_kv(x, 3)
    v = nx.sat(nx.round_shift(x, 3), 22)
    assert q.min() >= -128 and q.max() <= 127
    assert e.min() >= 0 and e.max() <= 14
    error = np.abs((q << e[:, None]) - v)
    assert np.all((error * 2 <= 1 << e[:, None]) | (q == 127))


def test_dot_is_exact(rng: np.random.Generator) -> None:
    """The float64 route gives the integer sum, also at the largest operands."""
    w = rng.integers(-127, 128, (9, 333)).astype(np.int8)
    x = rng.integers(-(1 << 24), 1 << 24, (4, 333))
    assert np.array_equal(nx.dot(w, x), x @ w.astype(np.int64).T)
    assert np.array_equal(nx.dot(w.astype(np.float64), x), x @ w.astype(np.int64).T)
    big = np.full((1, 1 << 10), 1 << 24)
    assert nx.dot(np.full((1, 1 << 10), 127, dtype=np.int8), big)[0, 0] == 127 << 34
    # Beyond 2**53 a float64 would round: int64 does not.
    huge = rng.integers(-(1 << 46), 1 << 46, (4, 333))
    assert nx.dot(w, huge).tolist() == (huge.astype(object) @ w.astype(object).T).tolist()
    assert nx.fits([(1 << 35) - 1, -(1 << 35)], 36) and not nx.fits(1 << 35, 36)


def test_sumsq_is_exact_and_saturates() -> None:
    big = np.full((2, 1 << 15), 1 << 24)
    big[1] = -(1 << 24)
    assert nx.sumsq(big).tolist() == [1 << 63, 1 << 63]
    assert nx.sumsq(np.full(1 << 17, 1 << 24)) == (1 << 64) - 1
    assert nx.sumsq([3, -4]) == 25


def test_dequant_against_fractions(rng: np.random.Generator) -> None:
    """Every intermediate of a 46-bit accumulator stays exact in int64."""
    limit = 1 << 45
    values = np.concatenate([[limit - 1, -limit, 0, -1], rng.integers(-limit, limit, 300)])
    cases = ((65535, 0, 63), (65535, -128, 63), (32768, 4, 20), (0, 0, 0), (40000, 127, 9))
    for mantissa, exponent, shift in cases:
        scl = rng.integers(0, 65536, values.size)
        scl[:4] = 65535
        got = nx.dequant(values, scl, nx.Scalar(mantissa, exponent), shift)
        s = min(63, max(0, shift + exponent))
        for value, c, y in zip(values.tolist(), scl.tolist(), got.tolist(), strict=True):
            m = _round_half_up(Fraction(c * mantissa, 1 << 15))
            exact = _round_half_up(Fraction(value * m, 1 << s))
            assert y == max(nx.INT32_MIN, min(nx.INT32_MAX, exact))


def test_exp2_error() -> None:
    """Below 2.0e-5 of 1 everywhere, never rising, exact at whole numbers."""
    t = np.arange(0, 20 * 4096)
    p = nx.exp2_neg(t)
    assert np.abs(p / 65536 - np.exp2(-t / 4096)).max() < 2.0e-5
    assert np.all(np.diff(p) <= 0)
    assert p[: 17 * 4096 : 4096].tolist() == [65536 >> k for k in range(17)]
    assert nx.exp2_neg([-5, (1 << 33)]).tolist() == [65536, 0]


@pytest.mark.parametrize("fshift", [0, 4, 9, 15])
def test_sigmoid_and_silu_error(fshift: int, rng: np.random.Generator) -> None:
    """sigmoid within 6.5e-5 and what 11 fraction bits of its argument leave out, odd about one half."""
    bound = 6.5e-5 + (0.25 / 2048 if fshift > 4 else 0)
    g = np.unique(np.concatenate([np.arange(-70000, 70000, 17), rng.integers(-(1 << 31), 1 << 31, 500)]))
    x = g * 2.0 ** -(fshift + 7)
    s = nx.sigmoid(g, fshift)
    assert np.abs(s / 65536 - 1 / (1 + np.exp(-np.clip(x, -50, 50)))).max() < bound
    assert np.array_equal(nx.sigmoid(-g, fshift)[g > 0], 65536 - s[g > 0])
    small = np.abs(g) < 1 << 17
    one = 1 << 10
    y = nx.silu(g[small], np.full(small.sum(), one), fshift, 10)
    exact = g[small] / (1 + np.exp(-x[small].clip(-50, 50)))
    assert np.abs(y - exact).max() <= 0.51 + bound * (1 << 17)


def test_rsqrt_error(rng: np.random.Generator) -> None:
    """Relative error below 7e-5 over 64 bits; zero counts as one; the sum saturates."""
    many = np.maximum(1, rng.integers(1, 1 << 63, 2000) >> rng.integers(0, 62, 2000))
    totals = [1, 2, 3, 4, 5, (1 << 64) - 1, *many.tolist()]
    r = nx.rsqrt(np.array(totals, dtype=np.uint64))
    value = r.mantissa * 2.0**-15 * 2.0 ** -r.exponent.astype(float)
    exact = np.array([1 / math.sqrt(v) for v in totals])
    assert np.abs(value / exact - 1).max() < 7e-5
    assert nx.rsqrt(0) == nx.rsqrt(1) == nx.rsqrt(0, 1)
    assert nx.rsqrt((1 << 64) - 1, 5) == nx.rsqrt((1 << 64) - 1)


def test_recip_error(rng: np.random.Generator) -> None:
    """Relative error below 7e-5 over 40 bits; zero counts as one."""
    totals = np.maximum(1, rng.integers(1, 1 << 40, 3000) >> rng.integers(0, 40, 3000))
    r = nx.recip(totals)
    value = r.mantissa * 2.0**-15 * 2.0 ** -r.exponent.astype(float)
    assert np.abs(value * totals - 1).max() < 7e-5
    assert nx.recip(0) == nx.recip(1)


def test_scalar_products(rng: np.random.Generator) -> None:
    """Truncated by less than one unit of a normalised mantissa; zero and saturation as specified."""
    a = nx.Scalar(rng.integers(32768, 65536, 500), rng.integers(-40, 40, 500))
    b = nx.Scalar(rng.integers(32768, 65536, 500), rng.integers(-40, 40, 500))
    c = nx.scalar_mul(a, b)
    assert c.mantissa.min() >= 32768
    exact = a.mantissa * b.mantissa * 2.0**-15 * 2.0 ** -(a.exponent + b.exponent - c.exponent)
    assert np.all((exact - c.mantissa >= 0) & (exact - c.mantissa < 1))
    assert nx.scalar_mul(nx.UNIT, nx.Scalar(0, 9)) == (0, 0)
    assert nx.scalar_mul(nx.Scalar(32768, 120), nx.Scalar(32768, 100)) == (32768, 127)
    assert nx.scalar_mul(nx.Scalar(65535, -128), nx.Scalar(65535, -128)) == (65534, -128)
    p = np.arange(65537)
    s = nx.prob_scalar(p)
    assert np.array_equal(s.mantissa * 2.0 ** (-15 - s.exponent.astype(float)), p)


def test_vector_operations(rng: np.random.Generator) -> None:
    """ADD saturates; ROPE by a quarter turn swaps; GAIN and EXP apply their coefficient."""
    assert nx.add([nx.INT32_MAX, nx.INT32_MIN, 1], [1, -1, 1]).tolist() == [nx.INT32_MAX, nx.INT32_MIN, 2]
    assert nx.rope([[10, 20, -5, 7]], [0, 1 << 14, 1 << 14, 0]).tolist() == [[-20, 10, -5, 7]]
    assert nx.gain([8 << 3, -(1 << 31)], [3, 1], 3, 0).tolist() == [24, -(1 << 17)]
    scores = rng.integers(-20000, 20000, (5, 9))
    p = nx.exp(scores, nx.masked_max(scores, 6), 6)
    assert np.all(p[:, 6:] == 0) and np.all(p.max(axis=-1) == 65536)
    assert np.array_equal(nx.exp_out(p, 3, 1), nx.round_shift(p * 3, 1))
    assert nx.masked_max(scores, 0).tolist() == [nx.INT32_MIN] * 5


def test_threefry_known_answers() -> None:
    for rounds, expected in KNOWN_HASHES.items():
        assert tuple(int(x) for x in nx.threefry2x32((0, 0), (0, 0), rounds)) == expected


def test_gumbel_over_all_hashes() -> None:
    """Every 4th of the 2^24 points: errors as documented, rising, and the moments of the distribution."""
    u = np.arange(3, 1 << 24, 4)
    g = nx.gumbel_of_hash(u << 8) / 65536
    high = u >> 23 == 1
    x = np.where(high, (1 << 24) - 1 - u, u) | 1
    exact = -np.log(np.where(high, -np.log1p(-x / 2**24), -np.log(x / 2**24)))
    error = np.abs(g - exact)
    assert error[high].max() < 0.0024
    assert error[~high & (x >> 11 > 0)].max() < 0.011
    assert error.max() < 0.5
    assert np.all(np.diff(g) >= 0)
    assert abs(g.mean() - 0.5772157) < 1e-4
    assert abs(g.std() - math.pi / math.sqrt(6)) < 1e-4


def test_topk_and_sampling(seed: int) -> None:
    """Ties go to the lower id; the noise is replayable and draws in proportion to the probabilities."""
    assert nx.topk([5, 9, 9, 1], None, 3).tolist() == [1, 2, 0]
    assert nx.topk([5, 9, 9, 1], [40, 30, 20, 10], 2).tolist() == [2, 1]
    assert nx.sample([7, 7, 3]) == 0
    assert nx.sample([7, 7, 3], ids=[9, 8, 7]) == 8
    logits = (np.log([0.5, 0.3, 0.15, 0.05]) * 65536).astype(np.int64)
    draws = 8000
    for noise, k, expected in ((2, 1, [0.5, 0.3, 0.15, 0.05]), (1, 2, [0.625, 0.375, 0, 0])):
        tokens = [nx.sample(logits, topk_n=k, noise=noise, seed=seed, position=i) for i in range(draws)]
        share = np.bincount(tokens, minlength=4) / draws
        assert np.abs(share - expected).max() < 5 * 0.5 / math.sqrt(draws)
    assert nx.sample(logits, noise=2, seed=3, position=4) == nx.sample(logits, noise=2, seed=3, position=4)


def test_noise_of_ranks(rng: np.random.Generator) -> None:
    """Top-k: candidate i of the sorted list gets the noise of i, whatever its id; equal sums: the first one."""
    for position in range(200):
        logits = rng.integers(-1 << 17, 1 << 17, 40)
        ids = rng.permutation(1000)[:40]
        order = np.argsort(-logits, kind="stable")[:5]
        z = logits[order] + nx.gumbel(77, position, np.arange(5))
        token = nx.sample(logits, topk_n=5, noise=1, seed=77, position=position, ids=ids)
        assert token == ids[order[np.argmax(z)]]
    # Sums that saturate are equal.
    top = nx.INT32_MAX
    position = next(p for p in range(100) if nx.gumbel(77, p, np.arange(3)).min() > 100)
    assert nx.sample([top - 50, top, top - 50, 5], topk_n=3, noise=1, seed=77, position=position) == 1
    position = next(p for p in range(100) if nx.gumbel(77, p, 0) < -100 and nx.gumbel(77, p, 1) > 100)
    assert nx.sample([top, top - 50], topk_n=2, noise=1, seed=77, position=position) == 1
