"""Function tables: base and slope of each piece, made with decimal arithmetic.

:mod:`decimal` rounds ``exp`` and ``ln`` correctly at the precision asked for, on every machine, so the same
bits come out everywhere; ``math`` would leave the last bit to the C library. Each table is a tuple of
``(base, slope)`` pairs; :data:`WIDTHS` states how wide the two fields are. An entry fits one 36-bit word.

==========  =======  =========================================================================
table       entries  piece i
==========  =======  =========================================================================
EXP2        256      2**(i/256), 16 fraction bits; slope added
SIGMOID     256      1 / (1 + e**(-i/16)), 16 fraction bits; slope added
RSQRT       256      i < 128: 2**16 / sqrt(1 + i/128), else 2**16 / sqrt(2 (i/128)); slope subtracted
RECIP       256      2**16 / (1 + i/256); slope subtracted
GUMBEL      1024     -ln(-ln U), 16 fraction bits, signed; slope added. 32 pieces in each octave of
                     1 - U (24 octaves, the tail that wins) and of U (8 octaves)
==========  =======  =========================================================================
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext

Table = tuple[tuple[int, int], ...]

GUMBEL_HIGH = 24
"""Octaves of the table above U = 1/2; (w | 1) of 23 bits needs 23 of them."""
GUMBEL_LOW = 8
"""Octaves below U = 1/2; the last one takes everything below 2**-8 in equal steps."""
GUMBEL_BASE_BITS = 22
GUMBEL_SLOPE_BITS = 14

WIDTHS: dict[str, tuple[int, int]] = {
    "EXP2": (17, 9),
    "SIGMOID": (17, 11),
    "RSQRT": (17, 9),
    "RECIP": (17, 9),
    "GUMBEL": (GUMBEL_BASE_BITS, GUMBEL_SLOPE_BITS),
}
"""Bits of base and slope: unsigned, GUMBEL's both signed."""

_CONTEXT = Context(prec=34, rounding=ROUND_HALF_EVEN)


def _round(x: Decimal) -> int:
    return int(x.to_integral_value(rounding=ROUND_HALF_EVEN))


def _pieces(f: Callable[[int], Decimal], n: int) -> Table:
    """Base and absolute slope of n pieces between the points f(0) .. f(n), scaled to 16 fraction bits."""
    with localcontext(_CONTEXT):
        points = [_round(f(i) * 65536) for i in range(n + 1)]
    return tuple((a, abs(b - a)) for a, b in itertools.pairwise(points))


@functools.cache
def exp2() -> Table:
    return _pieces(lambda i: Decimal(2) ** (Decimal(i) / 256), 256)


@functools.cache
def sigmoid() -> Table:
    return _pieces(lambda i: 1 / (1 + (-Decimal(i) / 16).exp()), 256)


@functools.cache
def rsqrt() -> Table:
    low = _pieces(lambda i: 1 / (1 + Decimal(i) / 128).sqrt(), 128)
    return low + _pieces(lambda i: 1 / (2 + Decimal(i) / 64).sqrt(), 128)


@functools.cache
def recip() -> Table:
    return _pieces(lambda i: 1 / (1 + Decimal(i) / 256), 256)


@functools.cache
def gumbel() -> Table:
    """Piece ``octave * 32 + j`` begins where the 8 bits below the leading one of x = w | 1 are 8 j.

    x stands for U = x / 2**24 (octaves 24..31) or 1 - x / 2**24 (octaves 0..23): w | 1 lies in the middle of
    the two values it is made of. Where the 8 bits leave lower ones out, the middle of those is meant.
    """
    entries: list[tuple[int, int]] = []
    limit = 1 << GUMBEL_SLOPE_BITS - 1
    with localcontext(_CONTEXT):

        def g(x: Decimal, high: bool) -> int:
            u = x / (1 << 24)
            return _round(-(-(1 - u if high else u).ln()).ln() * 65536)

        for octave in range(GUMBEL_HIGH + GUMBEL_LOW):
            high = octave < GUMBEL_HIGH
            n = octave if high else octave - GUMBEL_HIGH
            if not high and n == GUMBEL_LOW - 1:
                first, step = Decimal(0), Decimal(1 << 8)  # no leading one: x in units of 2**8
            else:
                step = Decimal(2) ** (14 - n)  # weight of the last of the 8 bits
                first = 256 * step
            middle = step / 2 if step > 1 else Decimal(0)
            if n > 22:  # x would be below 1; never addressed
                entries += [entries[-1]] * 32
                continue
            points = [g(first + 8 * j * step + middle, high) for j in range(33)]
            for a, b in itertools.pairwise(points):
                # One piece, U < 2**-13, is steeper than the slope field: its upper end stays exact.
                slope = max(-limit, min(limit - 1, b - a))
                entries.append((b - slope, slope))
    return tuple(entries)


TABLES: dict[str, Callable[[], Table]] = {
    "EXP2": exp2,
    "SIGMOID": sigmoid,
    "RSQRT": rsqrt,
    "RECIP": recip,
    "GUMBEL": gumbel,
}


def packed(name: str) -> tuple[int, ...]:
    """A table's words, as the HDL's memories hold them: slope above base, two's complement fields."""
    base_bits, slope_bits = WIDTHS[name]
    mask_b, mask_s = (1 << base_bits) - 1, (1 << slope_bits) - 1
    return tuple((slope & mask_s) << base_bits | base & mask_b for base, slope in TABLES[name]())
