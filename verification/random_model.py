"""Random models of any shape that a configuration can run, with weights of any size, and how to sample from them."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from firmware.calibrate import calibrate
from firmware.checkpoint import ArrayCheckpoint, ArrayLayer, ModelShape
from firmware.limits import within
from firmware.quantise import quantise
from firmware.scalar import scalar
from hdl.config import Config
from sim.qmodel import QModel
from sim.reference import Sampling

INITS = ("unit", "hf", "big", "tiny")
"""Standard deviations of the weights: 1.5 / sqrt(inputs); Hugging Face's 0.02; 8 / sqrt(inputs); 0.001."""

BASE = ModelShape(
    vocab=61, d=24, layers=2, heads=4, kv_heads=2, head_dim=8, experts=4, top_k=2, ffn=20, context=12,
    window=None, rope_theta=1e4, eps=1e-5, tied=False, bos=None, eos=(),
)  # fmt: skip


def shape(**changes: object) -> ModelShape:
    """`BASE` with some fields changed."""
    return dataclasses.replace(BASE, **changes)  # type: ignore[arg-type]


def make_model(s: ModelShape, rng: np.random.Generator, init: str = "unit", gains: bool = True) -> ArrayCheckpoint:
    """Random weights; `gains`: norms differ from one."""

    def matrix(*size: int) -> NDArray[np.float32]:
        root = np.sqrt(size[-1])
        sigma = {"unit": 1.5 / root, "hf": 0.02, "big": 8 / root, "tiny": 1e-3}[init]
        return (rng.standard_normal(size) * sigma).astype(np.float32)

    def gain() -> NDArray[np.float32]:
        return (1 + 0.3 * gains * rng.standard_normal(s.d)).astype(np.float32)

    layers = [
        ArrayLayer(
            attn_norm=gain(),
            q=matrix(s.q_dim, s.d),
            k=matrix(s.kv_dim, s.d),
            v=matrix(s.kv_dim, s.d),
            o=matrix(s.d, s.q_dim),
            ffn_norm=gain(),
            router=matrix(s.experts, s.d) if s.has_router else None,
            w_gate=matrix(s.experts, s.ffn, s.d),
            w_up=matrix(s.experts, s.ffn, s.d),
            w_down=matrix(s.experts, s.d, s.ffn),
        )
        for _ in range(s.layers)
    ]
    embed = matrix(s.vocab, s.d)
    return ArrayCheckpoint(s, embed, gain(), embed if s.tied else matrix(s.vocab, s.d), layers)


def random_shape(rng: np.random.Generator, cfg: Config, most: int = 48, context: int = 40) -> ModelShape:
    """Any shape the reader accepts and `cfg` can run, up to `most` lanes and `context` positions."""

    def pick(*choices: int) -> int:
        return int(choices[rng.integers(len(choices))])

    kv_heads = pick(1, 1, 2, 3, 4)
    experts = pick(1, 2, 3, 4, 5, 8)
    length = int(rng.integers(4, context + 1))
    s = ModelShape(
        vocab=pick(5, 37, 61, int(rng.integers(4, 3 * most))),
        d=pick(12, 20, 24, 36, int(rng.integers(1, most + 1))),
        layers=pick(1, 1, 2, 3),
        heads=kv_heads * pick(1, 1, 2, 8 // kv_heads),
        kv_heads=kv_heads,
        head_dim=pick(2, 4, 6, 8, 10, 16, 24, 32),
        experts=experts,
        top_k=min(experts, pick(1, 2, 2, 3)),
        ffn=pick(10, 20, 44, int(rng.integers(1, most + 1))),
        context=length,
        window=None if rng.random() < 0.5 else int(rng.integers(1, length + 3)),
        rope_theta=float(pick(10000, 1000000, 100, 2)),
        eps=float(10.0 ** -pick(5, 6)),
        tied=bool(rng.integers(2)),
        bos=None,
        eos=(),
    )
    return within(s, cfg)


def quantised(ckpt: ArrayCheckpoint, cfg: Config, weights: int) -> QModel:
    """Quantised on a short text of its own."""
    calibration = calibrate(ckpt, n_seqs=4, length=min(16, ckpt.shape.context), max_width=0)
    return quantise(ckpt, cfg, weights, calibration)[0]


def random_sampling(rng: np.random.Generator, cfg: Config) -> Sampling:
    """Greedy, temperature, or temperature with top-k."""
    inverse, seed = scalar(1 / float(rng.uniform(0.3, 2))), int(rng.integers(1 << 32))
    kind = rng.integers(3)
    if kind == 0 or not cfg.noise:
        return Sampling()
    if kind == 1:
        return Sampling(inverse, noise=2, topk=1, seed=seed)
    return Sampling(inverse, noise=1, topk=int(rng.integers(2, cfg.topk_max + 1)), seed=seed)
