"""Seeded weights of a Mixtral layer, made when they are asked for: 5.8 GB of floats that never lie in memory at once.

How they are made (standard deviations, all seeded):

- Matrices: normal, 0.02 (``initializer_range`` of Mixtral-8x7B's ``config.json``), each row times exp(N(0, 0.2)):
  output channels of a trained model differ in scale, and so do their quantisation steps.
- Gains of the norms: exp(N(0, 0.3)).
- Hidden states: each channel has a scale exp(N(0, 0.5)), and 1 in 1,024 channels (at least one) is eight times larger:
  the few channels of outliers that large language models have (Dettmers et al. 2022, "LLM.int8()", section 4; arXiv
  2208.07339). The layer reads them as embeddings, which have 8 bits and a scale a row: they are made on that grid, so
  that every arithmetic starts from the same values.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware.checkpoint import ModelShape
from firmware.plan.source import find

F32 = NDArray[np.float32]

SIGMA, ROWS, GAINS, CHANNELS, OUTLIER, OUTLIERS = 0.02, 0.2, 0.3, 0.5, 8.0, 1024


def layer_shape(states: int, positions: int) -> ModelShape:
    """One layer of Mixtral-8x7B behind an embedding of ``states`` hidden states, for ``positions`` tokens."""
    mixtral = find("mixtral-8x7b")[1]
    return dataclasses.replace(mixtral, layers=1, vocab=states, context=positions, bos=None, eos=())


def cut_shape(width: int, states: int, positions: int) -> ModelShape:
    """The same cut to one tile's width: d and head size are ``width`` lanes, four query heads to a key head, eight
    experts of 3.5 d."""
    return dataclasses.replace(
        layer_shape(states, positions), d=width, heads=4, kv_heads=1, head_dim=width, ffn=width * 7 // 2
    )


class _Experts:
    """Matrices of the experts, made one at a time."""

    def __init__(self, layer: SeededLayer, tag: int, rows: int, columns: int):
        self.layer, self.tag, self.size = layer, tag, (rows, columns)

    def __getitem__(self, e: int) -> F32:
        return self.layer.matrix(self.tag, *self.size, which=e)


class SeededLayer:
    """Weights of the layer: names and shapes as ``sim.float_model.LayerLike``."""

    def __init__(self, shape: ModelShape, seed: int):
        self.shape, self.seed = shape, seed
        s = shape
        self.w_gate: Any = _Experts(self, 5, s.ffn, s.d)
        self.w_up: Any = _Experts(self, 6, s.ffn, s.d)
        self.w_down: Any = _Experts(self, 7, s.d, s.ffn)

    def matrix(self, tag: int, rows: int, columns: int, which: int = 0) -> F32:
        """[rows, columns], the same at every call."""
        rng = np.random.default_rng([self.seed, tag, which])
        w = rng.standard_normal((rows, columns), dtype=np.float32)
        w *= (SIGMA * np.exp(ROWS * rng.standard_normal((rows, 1)))).astype(np.float32)
        return w

    def gain(self, tag: int) -> F32:
        """[d]"""
        rng = np.random.default_rng([self.seed, tag])
        return np.exp(GAINS * rng.standard_normal(self.shape.d)).astype(np.float32)

    @cached_property
    def attn_norm(self) -> F32:
        return self.gain(10)

    @cached_property
    def ffn_norm(self) -> F32:
        return self.gain(11)

    @property
    def q(self) -> F32:
        return self.matrix(0, self.shape.q_dim, self.shape.d)

    @property
    def k(self) -> F32:
        return self.matrix(1, self.shape.kv_dim, self.shape.d)

    @property
    def v(self) -> F32:
        return self.matrix(2, self.shape.kv_dim, self.shape.d)

    @property
    def o(self) -> F32:
        return self.matrix(3, self.shape.d, self.shape.q_dim)

    @property
    def router(self) -> F32:
        return self.matrix(4, self.shape.experts, self.shape.d)

    def expert(self, e: int) -> tuple[F32, F32, F32]:
        """(gate [ffn, d], up [ffn, d], down [d, ffn])"""
        return self.w_gate[e], self.w_up[e], self.w_down[e]


class SeededCheckpoint:
    """A model of that one layer: hidden states as embeddings in front of it, an LM head behind it."""

    def __init__(self, shape: ModelShape, seed: int):
        self.shape, self.seed = shape, seed

    @cached_property
    def embed(self) -> F32:
        """[states, d]"""
        rng = np.random.default_rng([self.seed, 20])
        d = self.shape.d
        scale = np.exp(CHANNELS * rng.standard_normal(d))
        scale[rng.choice(d, max(1, d // OUTLIERS), replace=False)] *= OUTLIER
        states = rng.standard_normal((self.shape.vocab, d)) * scale
        step = np.abs(states).max(axis=1, keepdims=True) / 127
        return (np.rint(states / step) * step).astype(np.float32)

    @cached_property
    def final_norm(self) -> F32:
        """[d]"""
        return np.ones(self.shape.d, np.float32)

    @cached_property
    def lm_head(self) -> F32:
        """[states, d]"""
        return SeededLayer(self.shape, self.seed).matrix(21, self.shape.vocab, self.shape.d)

    def layer(self, i: int, /) -> SeededLayer:
        """The layer."""
        assert i == 0
        return SeededLayer(self.shape, self.seed)
