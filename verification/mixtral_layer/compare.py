"""One decoder layer three ways: RTL, integer reference, transformers. What is equal, and how close the rest is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from firmware.calibrate import calibrate
from firmware.checkpoint import ModelShape
from firmware.lower import Compiled
from firmware.quantise import quantise
from firmware.schedule import token_cycles
from firmware.simulate import floor_cycles
from hdl.config import Config
from sim.float_model import CheckpointLike
from sim.qmodel import QModel
from sim.reference import Reference, Sampling, choose

from .rtl import LayerRun


def quantise_layer(
    ckpt: CheckpointLike, cfg: Config, weights: int, ids: NDArray[np.int64],
    progress: Callable[[int, int], None] | None = None,
) -> QModel:  # fmt: skip
    """The integers of the layer; formats are calibrated on ``ids`` [T]. Weights are rounded to the nearest of their
    grid: no second moments of 14,336 inputs are collected."""
    calibration = calibrate(ckpt, ids=ids[None], max_width=0, keep=False)
    return quantise(ckpt, cfg, weights, calibration, progress, max_width=0)[0]


@dataclasses.dataclass(frozen=True)
class Expected:
    """What the reference and the schedule say of a sequence."""

    inputs: NDArray[np.float64]
    """[T, d]: the layer's inputs, embeddings as they are quantised."""
    residual: NDArray[np.int64]
    """[T, d]: the residual stream behind the layer."""
    fraction: int
    """Its fraction bits."""
    experts: NDArray[np.int64]
    """[T, k], best first."""
    sampled: list[int]
    cycles: list[int]
    prompt_cycles: list[int]

    @property
    def change(self) -> NDArray[np.float64]:
        """[T, d]: the layer's output minus its input."""
        return self.residual * 2.0**-self.fraction - self.inputs


def expect(model: QModel, compiled: Compiled, ids: NDArray[np.int64]) -> Expected:
    """The reference over ``ids`` [T], token by token."""
    reference = Reference(model)
    residual, sampled, experts = [], [], []
    greedy = Sampling()
    for token in ids:
        x = reference.residual([int(token)])
        residual.append(x[0])
        experts.append(reference.chosen[0][0])
        sampled.append(choose(reference.logits(x)[0], reference.position - 1, greedy))
    embed = model.embed
    fraction = model.shifts.residual_frac
    exponent = embed.shift + fraction
    return Expected(
        embed.weight[ids].astype(np.float64) * embed.scl[ids][:, None] * 2.0**-exponent,
        np.array(residual),
        fraction,
        np.array(experts),
        sampled,
        [_cycles(compiled, t, True) for t in range(len(ids))],
        [_cycles(compiled, t, t == len(ids) - 1) for t in range(len(ids))],
    )


def _cycles(compiled: Compiled, position: int, sampled: bool) -> int:
    s = compiled.layout.model.shape
    return token_cycles(compiled.cfg, compiled.program.phases, s.layers, s.window, compiled.floor, position, sampled)


def differences(run: LayerRun, expected: Expected) -> list[str]:
    """What the RTL did not do as the reference and the schedule say; empty when all is equal."""
    wrong = []
    if run.fault:
        wrong.append("the core reports a fault")
    if not np.array_equal(run.residual, expected.residual):
        t, lane = (int(i[0]) for i in np.nonzero(run.residual != expected.residual))
        wrong.append(
            f"token {t}, lane {lane} of the residual stream: {run.residual[t, lane]}, "
            f"not {expected.residual[t, lane]} ({np.sum(run.residual != expected.residual)} differ)"
        )
    for what, got, want in (
        ("sampled tokens", run.sampled, expected.sampled),
        ("cycles", run.cycles, expected.cycles),
        ("cycles as a prompt", run.prompt_cycles, expected.prompt_cycles),
    ):
        if got != want:
            wrong.append(f"{what}: {got}, not {want}")
    return wrong


def cosines(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine of the angle between the rows of a [T, d] and b [T, d]: [T]."""
    dots = np.sum(a * b, axis=1)
    return np.asarray(dots / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)))


def layer_utilisation(shape: ModelShape, cfg: Config, weights: int, position: int, cycles: int) -> float:
    """MAC utilisation of a token that ends behind the layer, weighted by operand width; no LM head is counted."""
    kinds = shape.macs_by_kind(position)
    kinds["weight"] -= shape.vocab * shape.d
    return floor_cycles(kinds, cfg, weights) / cycles
