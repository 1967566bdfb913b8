"""Symmetric per-row weight quantisation: searched scales and error-compensated rounding.

A weight matrix W [O, K] becomes q * scale: small integers q [O, K] and one positive scale per output row
[O]. What matters is not the error of the weights but that of the outputs, W x. With the second moment of
the inputs, H = sum x x^T [K, K], the squared output error of a row with weight error e is e H e^T; that is
what is minimised here where H is known, and e e^T where it is not.

- Rounding: GPTQ, Frantar et al. 2022 (arXiv 2210.17323), section 3: columns are rounded one after another and
  the error of each is made up for by the columns that follow, with 1 % damping and the order of falling
  diag(H).
- Refinement: cyclic coordinate descent on the same error, QuantEase, Behdin et al. 2023 (arXiv 2309.01885),
  section 3, in turn with the closed-form best scale of the row. The error never grows.
- Errors made upstream: GPTAQ, Li et al. 2025 (arXiv 2504.02692); see `drift`.
- Rows that lie on an integer grid already (trained so) are found and given back unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I8 = NDArray[np.int8]
Floats = NDArray[Any]

# Greatest distance from the grid of a row that counts as lying on it, as a fraction of absmax / limit (the
# step of the full grid). At 4 bits it covers the rounding of bfloat16 storage; it is small beside the half
# step that rounding may cost, so a short row that comes so close by chance loses nothing.
GRID_TOLERANCE = 0.03

# Weights handled at once. With a Hessian it bounds memory (64 MiB as float64); without, the many passes
# over the same few rows stay in the processor's cache, twice as quick on a large matrix.
_CHUNK = 1 << 23
_CHUNK_PLAIN = 1 << 16

# Columns that one pass updates eagerly; all later columns are updated once per block by a matrix product.
_BLOCK = 64


def limit_of(bits: int) -> int:
    """Largest magnitude of the symmetric grid: 7 for 4 bits, 127 for 8. Raises ValueError outside 2..8."""
    if not 2 <= bits <= 8:
        raise ValueError(f"weights of {bits} bits are not supported, 2 to 8 are")
    return (1 << (bits - 1)) - 1


def quantise_rows(
    w: Floats,
    bits: int,
    hessian: Floats | None = None,
    *,
    damping: float = 0.01,
    act_order: bool = True,
    sweeps: int = 4,
    drift: Floats | None = None,
) -> tuple[I8, F64]:
    """Quantise the rows of w [O, K] to (q [O, K] int8, scale [O] float64), w ~ q * scale[:, None].

    q lies in -limit..limit with limit = 2**(bits-1) - 1; scales are positive. `hessian` [K, K] is the second
    moment of the inputs in any unit; without it the error of the weights themselves is minimised. `damping`
    is added to its diagonal, as a fraction of the diagonal's mean. `act_order` rounds columns in the order of
    falling diag(H); `sweeps` is the number of refinement rounds (0: plain GPTQ).

    `drift` [K, K] makes up for errors upstream (GPTAQ, Li et al. 2025, arXiv 2504.02692): with inputs x in
    the exact and y in the quantised model, `hessian` is the sum of y y^T and `drift`, in the same unit,
    that of y (x - y)^T. Rows are then rounded towards the weights whose outputs on y come closest to w x.

    Rows of zeros get scale 1. Raises ValueError for shapes that do not match and for values that are not
    finite.
    """
    limit = limit_of(bits)
    w = np.asarray(w, np.float64)
    if w.ndim != 2:
        raise ValueError(f"a matrix [outputs, inputs] is needed, found shape {w.shape}")
    K = w.shape[1]
    if not np.isfinite(w).all():
        raise ValueError("weights must be finite")
    h = None if hessian is None else _damped(hessian, K, damping)
    q, scale, done = _on_grid(w, limit)
    if h is not None and drift is not None:
        w = _towards_exact(w, h, drift, float(np.trace(np.asarray(hessian, np.float64))) / K)
    rest = np.flatnonzero(~done)
    chunk = _CHUNK_PLAIN if h is None else _CHUNK
    for part in np.array_split(rest, max(1, math.ceil(len(rest) * K / chunk))):
        if not len(part):
            continue
        if h is None:
            q[part], scale[part] = _nearest(w[part], limit, lambda e: np.sum(e * e, axis=1), sweeps)
        else:
            q[part], scale[part] = _compensated(w[part], limit, h, act_order, sweeps)
    return q.astype(np.int8), scale


def _damped(hessian: Floats, K: int, damping: float) -> F64:
    """Symmetric positive definite copy of the Hessian, mean diagonal 1."""
    h = np.asarray(hessian, np.float64)
    if h.shape != (K, K):
        raise ValueError(f"the Hessian of {K} inputs must be [{K}, {K}], found {list(h.shape)}")
    if not np.isfinite(h).all():
        raise ValueError("the Hessian must be finite")
    mean = float(np.trace(h)) / K
    if mean <= 0:  # no token came by: every input counts alike
        return np.eye(K)
    h = (h + h.T) / (2 * mean)
    h[np.diag_indices(K)] += max(damping, 1e-6)
    return h


def _towards_exact(w: F64, h: F64, drift: Floats, mean: float) -> F64:
    """w + w (sum (x - y) y^T) H^-1: the least squares fit of the exact outputs from the inputs y.

    `mean` is the mean diagonal of the Hessian, by which h was divided.
    """
    moment = np.asarray(drift, np.float64)
    if moment.shape != h.shape:
        raise ValueError(f"the drift must be {list(h.shape)} like the Hessian, found {list(moment.shape)}")
    if not np.isfinite(moment).all():
        raise ValueError("the drift must be finite")
    if mean <= 0:
        return w
    return w + w @ np.linalg.solve(h, moment / mean).T


def _on_grid(w: F64, limit: int) -> tuple[F64, F64, NDArray[np.bool_]]:
    """(q, scale, done): `done` marks the rows whose values are integers -limit..limit times one number.

    The largest magnitude of such a row is an integer k times the scale; each k is tried. Rows of zeros are
    done.
    """
    q, scale = np.zeros(w.shape), np.ones(len(w))
    absmax = np.abs(w).max(axis=1, initial=0.0)
    done = absmax == 0
    unit = w / np.where(done, 1.0, absmax)[:, None]  # [O, K] in -1..1
    for k in range(1, limit + 1):
        tolerance = GRID_TOLERANCE * k / limit
        # A few columns rule out nearly every row, so that large matrices cost little.
        probe = unit[:, :32] * k
        near = np.abs(probe - np.rint(probe)).max(axis=1, initial=0.0) < tolerance
        maybe = np.flatnonzero(near & ~done)
        if not len(maybe):
            continue
        steps = unit[maybe] * k
        near = np.abs(steps - np.rint(steps)).max(axis=1) < tolerance
        rows = maybe[near]
        q[rows] = np.rint(steps[near])
        # Least squares: exact where w is exactly q * scale, and averages storage rounding where it is not.
        scale[rows] = np.sum(w[rows] * q[rows], axis=1) / np.sum(q[rows] * q[rows], axis=1)
        done[rows] = True
    return q, scale, done


def _round(w: F64, scale: F64, limit: int) -> F64:
    """Nearest grid points (ties to even) of w [R, K] as integers, scale [R]."""
    q: F64 = np.clip(np.rint(w / scale[:, None]), -limit, limit)
    return q


def _fractions(limit: int) -> F64:
    """Scales worth trying, as fractions of absmax / limit: clipping pays off at few levels only."""
    return np.linspace(1.0, 0.4, 49) if limit <= 15 else np.linspace(1.0, 0.8, 11)


def _nearest(w: F64, limit: int, cost: Callable[[F64], F64], sweeps: int) -> tuple[F64, F64]:
    """Round to nearest with the scale of least cost(error [R, K]) [R], then refined by least squares."""
    full = np.abs(w).max(axis=1) / limit
    scale, best = full, np.full(len(w), np.inf)
    for fraction in _fractions(limit):
        error = cost(w - _round(w, full * fraction, limit) * (full * fraction)[:, None])
        scale = np.where(error < best, full * fraction, scale)
        best = np.minimum(error, best)
    q = _round(w, scale, limit)
    for _ in range(sweeps):
        fitted = np.sum(w * q, axis=1) / np.sum(q * q, axis=1)
        again = _round(w, fitted, limit)
        error = cost(w - again * fitted[:, None])
        better = error < best
        if not better.any():
            break
        scale, best = np.where(better, fitted, scale), np.minimum(error, best)
        q[better] = again[better]
    return q, scale


def _compensated(w: F64, limit: int, h: F64, act_order: bool, sweeps: int) -> tuple[F64, F64]:
    """GPTQ with a searched scale per row, then refinement. w [R, K], h [K, K] positive definite."""
    R, K = w.shape
    order = np.argsort(-np.diag(h), kind="stable") if act_order else np.arange(K)
    w, h = w[:, order], h[np.ix_(order, order)]
    # Upper factor U of the inverse, H^-1 = U^T U: row j holds how the columns after j make up for column j.
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    diagonal = np.diag(h)
    if K <= 256:  # every scale is tried with the rounding that will be used
        start = np.abs(w).max(axis=1) / limit
        tries = _fractions(limit)
    else:  # too dear: a neighbourhood of the best scale for plain rounding
        start = _nearest(w, limit, lambda e: np.asarray((e * e) @ diagonal), 0)[1]
        tries = np.array([1.0, 0.94, 1.06] if limit <= 15 else [1.0])
    q, scale, best = np.zeros((R, K)), start, np.full(R, np.inf)
    for factor in tries:
        trial = start * factor
        rounded = _gptq(w, trial, limit, upper)
        error = _cost(w - rounded * trial[:, None], h)
        better = error < best
        q[better], scale = rounded[better], np.where(better, trial, scale)
        best = np.minimum(error, best)
    for _ in range(sweeps):
        scale = _best_scale(w, q, h, scale)
        before = q.copy()
        _descend(w, q, scale, limit, h)
        if np.array_equal(before, q):
            break
    back = np.empty_like(q)
    back[:, order] = q
    return back, _best_scale(w, q, h, scale)


def _cost(error: F64, h: F64) -> F64:
    """e H e^T of each row, [R]."""
    return np.asarray(np.sum((error @ h) * error, axis=1))


def _best_scale(w: F64, q: F64, h: F64, scale: F64) -> F64:
    """The scale of least e H e^T for given integers; the old one where that would not be positive."""
    qh = q @ h
    top, bottom = np.sum(qh * w, axis=1), np.sum(qh * q, axis=1)
    good = (top > 0) & (bottom > 0)
    return np.where(good, top / np.where(good, bottom, 1.0), scale)


def _gptq(w: F64, scale: F64, limit: int, upper: F64) -> F64:
    """Rounded integers [R, K] of w [R, K]; `upper` [K, K] is the factor of the inverse Hessian."""
    w = w.T.copy()  # [K, R]: a column of the matrix is a contiguous row here
    K = len(w)
    q = np.empty_like(w)
    for a in range(0, K, _BLOCK):
        b = min(a + _BLOCK, K)
        error = np.empty((b - a, w.shape[1]))
        for j in range(a, b):
            q[j] = np.clip(np.rint(w[j] / scale), -limit, limit)
            error[j - a] = (w[j] - q[j] * scale) / upper[j, j]
            w[j + 1 : b] -= upper[j, j + 1 : b, None] * error[j - a]
        w[b:] -= upper[a:b, b:].T @ error
    return q.T


def _descend(w: F64, q: F64, scale: F64, limit: int, h: F64) -> None:
    """One sweep of coordinate descent: each q in turn becomes the best integer given all others. In place."""
    error = (w - q * scale[:, None]).T.copy()  # [K, R]
    gradient = h @ error  # [K, R], half the gradient of e H e^T
    K = len(h)
    for a in range(0, K, _BLOCK):
        b = min(a + _BLOCK, K)
        change = np.empty((b - a, len(w)))
        for j in range(a, b):
            best = np.clip(np.rint(q[:, j] + gradient[j] / (h[j, j] * scale)), -limit, limit)
            change[j - a] = (q[:, j] - best) * scale
            gradient[j:b] += h[j:b, j, None] * change[j - a]
            q[:, j] = best
        gradient[b:] += h[b:, a:b] @ change


@dataclass(frozen=True)
class ErrorRow:
    """Quantisation error of one tensor, a line of the error report.

    `relative` is |e| / |w| in the Euclidean norm; `snr_db` the same in decibels, 20 log10(|w| / |e|);
    `output_snr_db` that of the outputs under the inputs' second moment, None where that is not known;
    `clipped` the share of values rounded to the ends of the grid.
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    relative: float
    snr_db: float
    output_snr_db: float | None
    clipped: float


def report_row(
    name: str, w: Floats, q: NDArray[Any], scale: Floats, bits: int, hessian: Floats | None = None
) -> ErrorRow:
    """Compare w [O, K] with q [O, K] * scale [O]. An exact tensor has a ratio of infinity."""
    w = np.asarray(w, np.float64)
    error = w - np.asarray(q, np.float64) * np.asarray(scale, np.float64)[:, None]
    signal, noise = float(np.sum(w * w)), float(np.sum(error * error))
    output = None
    if hessian is not None:
        h = np.asarray(hessian, np.float64)
        output = _decibels(float(_cost(w, h).sum()), float(_cost(error, h).sum()))
    return ErrorRow(
        name=name,
        shape=w.shape,
        bits=bits,
        relative=math.sqrt(noise / signal) if signal else 0.0,
        snr_db=_decibels(signal, noise),
        output_snr_db=output,
        clipped=float(np.mean(np.abs(q) == limit_of(bits))) if w.size else 0.0,
    )


def _decibels(signal: float, noise: float) -> float:
    if noise <= 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
