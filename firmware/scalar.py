"""Scalars of the VXM (docs/numerics.md): mantissa * 2**-15 * 2**-exponent."""

from __future__ import annotations

import math

from firmware.errors import LpuError

MANTISSA_BITS = 16
EXPONENT_MIN, EXPONENT_MAX = -128, 127


def scalar(value: float) -> tuple[int, int]:
    """Nearest scalar: (mantissa 32768..65535, exponent -128..127), or (0, 0) for zero.

    Relative error at most 2**-16. Raises LpuError for what no scalar can be: negative, not finite, or out of
    range (about 1e-38 to 7e38).
    """
    if not math.isfinite(value) or value < 0:
        raise LpuError(f"{value} is no scalar: it must be finite and not negative")
    if value == 0:
        return 0, 0
    fraction, power = math.frexp(value)  # value = fraction * 2**power, fraction in [0.5, 1)
    mantissa = math.floor(fraction * (1 << MANTISSA_BITS) + 0.5)
    if mantissa == 1 << MANTISSA_BITS:
        mantissa, power = mantissa >> 1, power + 1
    exponent = 1 - power
    if not EXPONENT_MIN <= exponent <= EXPONENT_MAX:
        raise LpuError(f"{value} is no scalar: exponent {exponent} is outside {EXPONENT_MIN}..{EXPONENT_MAX}")
    return mantissa, exponent


def scalar_row(value: float) -> bytes:
    """The scalar as a row of the CONST space: mantissa 16 bit, exponent 8 bit signed, little endian."""
    mantissa, exponent = scalar(value)
    return mantissa.to_bytes(2, "little") + exponent.to_bytes(1, "little", signed=True)
