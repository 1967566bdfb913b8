"""Bins of the arithmetic that more than one result decides: sums, lists, the choice of the next token.

Seen by a watcher behind each micro-op that the machine has executed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hdl.config import Config
from hdl.image import Param
from hdl.isa import AbcOp, Queue, SfuOp, TopOp, Width
from sim.machine import TokenRun, Uop

_HALF = 1 << 23
"""A large activation: its square, and its product with a weight, reach the upper bits."""


def wanted(cfg: Config) -> set[str]:
    """Everything to reach."""
    return {
        "DOT.acc.zero", "DOT.acc.large+", "DOT.acc.large-", "DOT.min*min", "DOT.max*min", "DOT.int4.max*min",
        "SUM.zero", "TOP.tie", "TOP.tie_at_cut", "TOP.key.sat+", "TOP.key.sat-", "TOP.limit", "TOP.none_enters",
        "TOP.short", "TOP.long", "TOP.equal_candidates", "TOP.negative", *(f"TOP.noise{i}" for i in range(3)),
    }  # fmt: skip


def corners(run: TokenRun, uop: Uop) -> Iterator[str]:
    """The corners that a micro-op reached, from the machine's state behind it."""
    if uop.queue is Queue.ABC and uop["op"] == AbcOp.DOT:
        yield from _dot(run, uop)
    elif uop.queue is Queue.ACC and not uop["source"]:
        yield from _sums(run, uop)
    elif uop.queue is Queue.SFU and uop["op"] == SfuOp.RECIP and run.sum[uop["bank"]] == 0:
        yield "SUM.zero"
    elif uop.queue is Queue.TOP:
        yield from (_insert if uop["op"] == TopOp.INSERT else _emit)(run, uop)


def _dot(run: TokenRun, uop: Uop) -> Iterator[str]:
    act = run.m.act[uop["a"]]
    words = run.m.weight[:, uop["w"]]
    low, high = act <= -_HALF, act >= _HALF
    if uop["width"] == Width.INT8:
        if ((words == 0x80) & low).any():
            yield "DOT.min*min"
        if ((words == 0x7F) & low).any() or ((words == 0x80) & high).any():
            yield "DOT.max*min"
    elif ((words & 15 == 7) & low).any() and ((words >> 4 == 7) & low).any():
        yield "DOT.int4.max*min"


def _sums(run: TokenRun, uop: Uop) -> Iterator[str]:
    sums, large = run.acc[:, uop["acc"]], 1 << run.cfg.acc_bits - 4
    if (sums[0] == 0).any():
        yield "DOT.acc.zero"
    if (sums >= large).any():
        yield "DOT.acc.large+"
    if (sums <= -large).any():
        yield "DOT.acc.large-"


def _insert(run: TokenRun, uop: Uop) -> Iterator[str]:
    keys = [-key for key, _ in run.listed]
    ids = uop.idx * run.cfg.vlanes + np.arange(run.cfg.vlanes)
    if (ids >= uop["limit"]).any():
        yield "TOP.limit"
    if uop.last and not keys:
        yield "TOP.none_enters"
    noisy = bool(uop["noise"]) and run.m.param[Param.NOISE] == 2
    if noisy and max(keys, default=0) == (1 << 31) - 1:
        yield "TOP.key.sat+"
    if noisy and min(keys, default=0) == -(1 << 31):
        yield "TOP.key.sat-"


def _emit(run: TokenRun, uop: Uop) -> Iterator[str]:
    listed, kept, p = run.listed, run.cfg.topk_max, run.m.param
    if not uop["expert"]:
        yield f"TOP.noise{p[Param.NOISE]}"
    if uop.idx >= len(listed):
        yield "TOP.short"
        return
    if uop.idx == 0 and len(listed) > kept:
        yield "TOP.long"
        if listed[kept - 1][0] == listed[kept][0]:
            yield "TOP.tie_at_cut"
    if uop.idx + 1 < len(listed) and listed[uop.idx][0] == listed[uop.idx + 1][0]:
        yield "TOP.tie"
    if listed[uop.idx][0] > 0:
        yield "TOP.negative"
    taken = not uop["expert"] and uop.idx and uop.idx < max(1, p[Param.TOPK])
    if taken and p[Param.NOISE] != 1 and run.best is not None and run.best[0] == -listed[uop.idx][0]:
        yield "TOP.equal_candidates"
