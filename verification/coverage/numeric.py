"""Bins of the arithmetic: saturation, zero, the most negative value, ties, the ends of the tables.

:func:`watching` puts an observer in front of functions of ``sim/numerics.py`` for as long as a machine runs: it sees
the arguments of each instruction's result and says which corners they are. Neither the functions nor their results
change, and without it nothing is slower. What needs more than one result (ties of the lists, sums) is seen in
:mod:`.machine_corners`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np

from hdl import tables
from hdl.config import ACT_RANGE, KV_RANGE
from sim import numerics as nx

Observer = Callable[..., Iterator[str]]
_MAX32, _MIN32 = nx.INT32_MAX, nx.INT32_MIN


def ties(x: Any, shift: Any) -> Iterator[str]:
    """``tie+`` and ``tie-``: something exactly half way between two results of a rounding shift."""
    a, s = np.broadcast_arrays(np.asarray(x, np.int64), np.asarray(shift, np.int64))
    low = np.where(s > 0, a & (np.int64(1) << np.maximum(s, 1)) - 1, -1)
    tie = low == np.int64(1) << np.maximum(s - 1, 0)
    if tie.any():
        if (a[tie] >= 0).any():
            yield "tie+"
        if (a[tie] < 0).any():
            yield "tie-"


def ends(x: Any, bits: int) -> Iterator[str]:
    """``sat+``, ``sat-``: beyond so many bits; ``zero``; ``min``: the most negative value itself."""
    a, top = np.asarray(x, np.int64), 1 << bits - 1
    for name, hit in (("sat+", a >= top), ("sat-", a < -top), ("zero", a == 0), ("min", a == -top)):
        if hit.any():
            yield name


def _prefixed(prefix: str, names: Iterator[str]) -> Iterator[str]:
    return (f"{prefix}.{name}" for name in names)


def dequant(value: Any, scl: Any, scalar: nx.Scalar, shift: int) -> Iterator[str]:
    product = np.asarray(scl, np.int64) * int(scalar.mantissa)
    yield from _prefixed("ACC.scale", ties(product, 15))
    m = nx.round_shift(product, 15)
    if (m >> 16).any():
        yield "ACC.scale.17bits"
    if (np.asarray(scl) == 0).any():
        yield "ACC.scale.zero"
    if (np.asarray(scl) == 0xFFFF).any():
        yield "ACC.scale.max"
    amount = int(scalar.exponent) + shift
    inside = str(amount) if amount in (0, 63) else "in"
    yield "ACC.shift." + ("below" if amount < 0 else "above" if amount > 63 else inside)
    x, amount = np.asarray(value, np.int64) * m, min(max(amount, 0), 63)
    yield from _prefixed("ACC.y", ties(x, amount))
    yield from _prefixed("ACC.y", ends(nx.round_shift(x, amount), 32))


def masked_max(y: Any, n: int) -> Iterator[str]:
    own = np.asarray(y)[..., :n]
    if own.size == 0:
        yield "MAX.none"
    else:
        if own.size < np.asarray(y).size:
            yield "MAX.masked"
        if (own == own.max()).sum() > 1:
            yield "MAX.tie"
        if own.max() < 0:
            yield "MAX.negative"


def add(source: Any, x: Any) -> Iterator[str]:
    yield from _prefixed("ADD", ends(np.asarray(source, np.int64) + np.asarray(x, np.int64), 32))


def gain(source: Any, coef: Any, fshift: int, shift: int) -> Iterator[str]:
    yield from _prefixed("GAIN.in", ties(source, fshift))
    inner = nx.round_shift(source, fshift)
    yield from _prefixed("GAIN.in", ends(inner, 18))
    c = np.asarray(coef, np.int64)
    for name, hit in (("min", c == -0x8000), ("zero", c == 0), ("max", c == 0x7FFF)):
        if hit.any():
            yield f"GAIN.c.{name}"
    product = nx.sat(inner, 18) * c
    yield from _prefixed("GAIN.out", ties(product, shift))
    yield from _prefixed("GAIN.out", ends(nx.round_shift(product, shift), 32))


def rope(source: Any, coef: Any) -> Iterator[str]:
    yield from _prefixed("ROPE.in", ends(source, 18))
    v, c = nx.sat(source, 18), np.broadcast_to(np.asarray(coef, np.int64), np.shape(source))
    a, b, cos, sin = v[..., 0::2], v[..., 1::2], c[..., 0::2], c[..., 1::2]
    for name, x in (("even", a * cos - b * sin), ("odd", b * cos + a * sin)):
        yield from _prefixed(f"ROPE.{name}", ties(x, 14))
        if (x == 0).any():
            yield f"ROPE.{name}.zero"
        if (np.abs(x) >= (1 << 33) - (1 << 16)).any():
            yield f"ROPE.{name}.largest"


def exp2_neg(t: Any) -> Iterator[str]:
    a = np.asarray(t, np.int64)
    k, f = (np.clip(a, 0, None) + 4095) >> 12, (-a & 4095) >> 4
    for name, hit in (
        ("negative", a < 0), ("one", a == 0), ("last", k == 16), ("half", k == 17), ("clamp", k == 18),
        ("none", k > 18), ("farthest", a == (1 << 32) - 1), ("table0", (f == 0) & (a > 0)),
        ("table255", (f == 255) & (a > 0)),
    ):  # fmt: skip
        if hit.any():
            yield f"EXP.{name}"


def exp_out(p: Any, coef: Any, shift: int) -> Iterator[str]:
    product = np.asarray(p, np.int64) * np.asarray(coef, np.int64)
    yield from _prefixed("EXP.out", ties(product, shift))
    rounded = nx.round_shift(product, shift)
    yield from _prefixed("EXP.out", ends(rounded, 32))


def sigmoid(g: Any, fshift: int) -> Iterator[str]:
    v = np.asarray(g, np.int64)
    wide = np.abs(v) << 4 >> fshift
    i = np.minimum(wide, 0x7FFF) >> 7
    for name, hit in (
        ("zero", v == 0), ("clamp+", (wide > 0x7FFF) & (v > 0)), ("clamp-", (wide > 0x7FFF) & (v < 0)),
        ("table0", (i == 0) & (v != 0)), ("table255", (i == 255) & (wide < 0x7FFF)), ("min", v == _MIN32),
    ):  # fmt: skip
        if hit.any():
            yield f"SIGMOID.{name}"


def silu(g: Any, u: Any, fshift: int, shift: int) -> Iterator[str]:
    for name, x in (("g", g), ("u", u)):
        yield from _prefixed(f"SILU.{name}", ends(x, 18))
    product = nx.sat(g, 18) * _ORIGINAL["sigmoid"](g, fshift)
    yield from _prefixed("SILU.gate", ties(product, 16))
    x = nx.round_shift(product, 16) * nx.sat(u, 18)
    yield from _prefixed("SILU.out", ties(x, shift))
    yield from _prefixed("SILU.out", ends(nx.round_shift(x, shift), 32))


def rsqrt(total: Any, eps: Any = 0) -> Iterator[str]:
    s = int(total) + int(eps)
    top = (1 << 64) - 1
    for name, hit in (("sum_sat", int(total) == top), ("sat", s > top), ("zero", s == 0), ("one", s == 1)):
        if hit:
            yield f"RSQRT.{name}"
    s = max(1, min(s, top))
    n = s.bit_length() - 1
    i = (s << 15 >> n >> 8 & 127) + 128 * (n & 1)
    for at in (0, 127, 128, 255):
        if i == at:
            yield f"RSQRT.table{at}"
    if n in (0, 63):
        yield f"RSQRT.n{n}"
    yield from _clipped("RSQRT", i, s << 15 >> n & 255)


def recip(total: Any) -> Iterator[str]:
    s = int(total)
    for name, hit in (("zero", s == 0), ("one", s == 1), ("power", s > 1 and s & s - 1 == 0)):
        if hit:
            yield f"RECIP.{name}"
    s = max(s, 1)
    n = s.bit_length() - 1
    i = s << 16 >> n >> 8 & 255
    for at in (0, 255):
        if i == at:
            yield f"RECIP.table{at}"
    if n > 16:
        yield "RECIP.above_one"
    yield from _clipped("RECIP", i, s << 16 >> n & 255)


def _clipped(name: str, i: int, r: int) -> Iterator[str]:
    base, slope = tables.TABLES[name]()[i]
    if base - (slope * r >> 8) > 65535:
        yield f"{name}.clipped"


def scalar_mul(a: nx.Scalar, b: nx.Scalar) -> Iterator[str]:
    x, e = int(a.mantissa) * int(b.mantissa), int(a.exponent) + int(b.exponent)
    top = x >> 31
    m = x >> 15 + top
    yield f"MUL.top{top}"
    for name, hit in (
        ("zero", x == 0), ("lost", x > 0 and m == 0), ("largest", x == 0xFFFF * 0xFFFF),
        ("sat+", m > 0 and e - top > 127), ("sat-", m > 0 and e - top < -128),
    ):  # fmt: skip
        if hit:
            yield f"MUL.{name}"


def prob_scalar(p: Any) -> Iterator[str]:
    v = int(p)
    yield "PROB." + {0: "zero", 1: "least", nx.ONE: "one"}.get(v, "between")


def quantise_act(x: Any, shift: int) -> Iterator[str]:
    yield from _quantised("ACT", x, shift, ACT_RANGE, 8, "quantise_act")


def quantise_kv(x: Any, shift: int) -> Iterator[str]:
    yield from _quantised("KV", x, shift, KV_RANGE, None, "quantise_kv")


def _quantised(name: str, x: Any, shift: int, bits: int, block: int | None, function: str) -> Iterator[str]:
    yield from _prefixed(f"{name}.in", ties(x, shift))
    rounded = nx.round_shift(x, shift)
    yield from _prefixed(f"{name}.in", ends(rounded, bits))
    v = nx.sat(rounded, bits)
    m, e = _ORIGINAL[function](x, shift)
    each = np.repeat(e, block, axis=-1)[..., : v.shape[-1]] if block else e
    yield from _prefixed(f"{name}.mantissa", ties(v, each))
    mantissa = bits - (15 if block else 14)
    top = (1 << mantissa - 1) - 1
    for what, hit in (
        ("max", m == top), ("min", m == -top - 1), ("clipped", nx.round_shift(v, each) > top),
        ("exponent0", e == 0), ("exponent_max", e == (15 if block else 14)), ("all_zero", ~np.any(v)),
    ):  # fmt: skip
        if np.any(hit):
            yield f"{name}.{what}"


def gumbel_of_hash(h: Any) -> Iterator[str]:
    u = np.asarray(h, np.int64) >> 8
    high = u >> 23 == 1
    n = 23 - nx.bitlen(np.where(high, (1 << 24) - 1 - u, u) | 1)
    last = tables.GUMBEL_LOW - 1
    for name, hit in (
        ("high_first", high & (n == 0)), ("high_last", high & (n == 22)), ("low_first", ~high & (n == 0)),
        ("low_linear", ~high & (n >= last)), ("low_least", ~high & (u < 256)),
    ):  # fmt: skip
        if hit.any():
            yield f"GUMBEL.{name}"


OBSERVERS: dict[str, Observer] = {
    f.__name__: f
    for f in (
        dequant, masked_max, add, gain, rope, exp2_neg, exp_out, sigmoid, silu, rsqrt, recip, scalar_mul, prob_scalar,
        quantise_act, quantise_kv, gumbel_of_hash,
    )
}  # fmt: skip
"""By the name of the function in ``sim/numerics.py`` that each looks at."""
_ORIGINAL: dict[str, Callable[..., Any]] = {name: getattr(nx, name) for name in OBSERVERS}

_ENDS = ("sat+", "sat-", "zero", "min")
_TIES = ("tie+", "tie-")
WANTED = frozenset(
    f"{group}.{name}"
    for groups, names in (
        ("ACC.scale", ("tie+", "17bits", "zero", "max")),
        ("ACC.shift", ("below", "0", "in", "63", "above")),
        ("ACC.y GAIN.in GAIN.out SILU.out", (*_ENDS, *_TIES)),
        ("MAX", ("none", "masked", "tie", "negative")),
        ("ADD ROPE.in SILU.g SILU.u", _ENDS),
        ("GAIN.c", ("min", "zero", "max")),
        ("ROPE.even ROPE.odd", (*_TIES, "zero", "largest")),
        ("EXP", ("negative", "one", "last", "half", "clamp", "none", "farthest", "table0", "table255")),
        ("EXP.out", (*_ENDS, *_TIES)),
        ("SIGMOID", ("zero", "clamp+", "clamp-", "table0", "table255", "min")),
        ("SILU.gate", _TIES),
        ("RSQRT", ("sum_sat", "sat", "zero", "one", "n0", "n63", "clipped")),
        ("RSQRT", tuple(f"table{i}" for i in (0, 127, 128, 255))),
        ("RECIP", ("zero", "one", "power", "table0", "table255", "above_one", "clipped")),
        ("MUL", ("top0", "top1", "zero", "lost", "largest", "sat+", "sat-")),
        ("PROB", ("zero", "least", "one", "between")),
        ("ACT.in KV.in", (*_ENDS, *_TIES)),
        ("ACT.mantissa KV.mantissa", _TIES),
        ("ACT KV", ("max", "min", "clipped", "exponent0", "exponent_max", "all_zero")),
        ("GUMBEL", ("high_first", "high_last", "low_first", "low_linear", "low_least")),
    )
    for group in groups.split()
    for name in names
)


@contextlib.contextmanager
def watching(reached: set[str]) -> Iterator[None]:
    """While it lasts, corners go into ``reached``."""

    def watched(name: str) -> Callable[..., Any]:
        observe, original = OBSERVERS[name], _ORIGINAL[name]

        def function(*args: Any, **kwargs: Any) -> Any:
            reached.update(observe(*args, **kwargs))
            return original(*args, **kwargs)

        return function

    with contextlib.ExitStack() as stack:
        for name in OBSERVERS:
            stack.enter_context(mock.patch.object(nx, name, watched(name)))
        yield
