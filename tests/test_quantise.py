"""Quantised models: close to the float model for weights of any size, and within every format."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from firmware.calibrate import calibrate
from firmware.checkpoint import ArrayCheckpoint, ModelShape
from firmware.errors import LpuError
from firmware.quantise import RANGE_MARGIN, quantise
from hdl.config import TINY, ULX3S_85F, Config
from sim import numerics as nx
from sim.float_model import FloatModel
from sim.qmodel import QModel
from sim.reference import Reference, logits_float
from verification.random_model import INITS, make_model, quantised, shape

MIDDLE: dict[str, Any] = {"vocab": 96, "d": 64, "head_dim": 16, "ffn": 64, "context": 48}
DENSE: dict[str, Any] = {**MIDDLE, "experts": 1, "top_k": 1}


def error(ckpt: ArrayCheckpoint, model: QModel, seed: int = 1) -> float:
    """RMS error of the logits over their spread (both without the mean of a position, which softmax ignores)."""
    s = ckpt.shape
    ids = np.random.default_rng(seed).integers(0, s.vocab, s.context)
    exact = FloatModel(ckpt).forward(ids).astype(np.float64)
    exact -= exact.mean(axis=1, keepdims=True)
    got = logits_float(Reference(model).forward(ids)).astype(np.float64)
    got -= got.mean(axis=1, keepdims=True)
    return float(np.sqrt(np.mean((got - exact) ** 2)) / exact.std())


def on_grid(ckpt: ArrayCheckpoint, top: int = 7) -> ArrayCheckpoint:
    """The checkpoint with weights on a grid per row and norms of one: what is left are the formats' errors."""

    def rounded(w: np.ndarray) -> None:
        scale = np.maximum(np.abs(w).max(axis=-1, keepdims=True), 1e-30) / top
        w[...] = np.rint(w / scale) * scale

    for layer in ckpt.layers:
        layer.attn_norm[:] = layer.ffn_norm[:] = 1
        for w in (layer.q, layer.k, layer.v, layer.o, layer.w_gate, layer.w_up, layer.w_down):
            rounded(w)
    rounded(ckpt.embed)
    if not ckpt.shape.tied:
        rounded(ckpt.lm_head)
        ckpt.final_norm[:] = 1
    return ckpt


def model_of(s: ModelShape, init: str, seed: int = 0) -> ArrayCheckpoint:
    return make_model(s, np.random.default_rng(seed), init)


def changed(change: Callable[[ArrayCheckpoint], None], init: str = "hf", **changes: Any) -> ArrayCheckpoint:
    ckpt = model_of(shape(**changes), init)
    change(ckpt)
    return ckpt


# -- accuracy ----------------------------------------------------------------------------------------------

# Large random weights make attention and routing all but discontinuous, which no rounding survives: the bounds
# for "unit" are looser, and "big" is only required to work.
WEIGHT_BOUNDS = {"hf": (0.03, 0.35), "tiny": (0.03, 0.35), "unit": (0.35, 1.0)}
FORMAT_BOUNDS = {"hf": 0.008, "tiny": 0.008, "unit": 0.06, "big": 0.5}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("init", WEIGHT_BOUNDS)
def test_random_models(init: str, tied: bool) -> None:
    ckpt = model_of(shape(**MIDDLE, tied=tied), init)
    for weights, bound in zip((8, 4), WEIGHT_BOUNDS[init], strict=True):
        found = error(ckpt, quantised(ckpt, ULX3S_85F, weights))
        print(f"{init}, int{weights}: {found:.4f} of the logits' spread")
        assert found < bound


@pytest.mark.parametrize("cfg", [ULX3S_85F, TINY], ids=lambda c: c.name)
@pytest.mark.parametrize("init", INITS)
def test_formats_cost_little(init: str, cfg: Config) -> None:
    """With weights that need no rounding, what is left is the error of activations, cache and fixed point."""
    ckpt = on_grid(model_of(shape(**DENSE, tied=True), init))
    found = error(ckpt, quantised(ckpt, cfg, 4))
    print(f"{init}: {found:.4f} of the logits' spread")
    assert found < FORMAT_BOUNDS[init]


def _pad_row(ckpt: ArrayCheckpoint) -> None:
    ckpt.embed[0] = 0


def _outlier_lane(ckpt: ArrayCheckpoint) -> None:
    ckpt.embed[:, 5] *= 40


def _outlier_rows(ckpt: ArrayCheckpoint) -> None:
    for layer in ckpt.layers:
        layer.v[0] *= 12
        layer.w_gate[:, 0] *= 12
        layer.w_up[:, 1] *= 12


def _small_embedding(ckpt: ArrayCheckpoint) -> None:
    ckpt.embed *= np.float32(0.01)


def _nothing_added(ckpt: ArrayCheckpoint) -> None:
    for layer in ckpt.layers:
        layer.o[:] = 0
        layer.w_down[:] = 0


def _large_gain(ckpt: ArrayCheckpoint) -> None:
    ckpt.final_norm[:] *= 7


@pytest.mark.parametrize(
    ("change", "bound"),
    [(_pad_row, 0.008), (_outlier_lane, 0.008), (_outlier_rows, 0.025), (_small_embedding, 0.02),
     (_nothing_added, 0.004), (_large_gain, 0.008)],
)  # fmt: skip
@pytest.mark.parametrize("tied", [False, True])
def test_uneven_models(change: Callable[[ArrayCheckpoint], None], bound: float, tied: bool) -> None:
    """A row of zeros, outliers, tiny embeddings ... take no bits from the others."""
    ckpt = changed(change, **DENSE, tied=tied)
    on_grid(ckpt)
    assert error(ckpt, quantised(ckpt, ULX3S_85F, 4)) < bound


@pytest.mark.parametrize("tied", [False, True])
def test_a_row_of_zeros_takes_no_scale(tied: bool) -> None:
    model = quantised(changed(_pad_row, tied=tied), TINY, 8)
    assert model.embed.scl[0] == 0 and model.embed.scl.max() >= 1 << 15


def test_weights_on_the_grid_are_kept() -> None:
    ckpt = on_grid(model_of(shape(**DENSE), "hf"))
    _, report = quantise(ckpt, ULX3S_85F, 4, calibrate(ckpt, n_seqs=2, length=16))
    assert {r.width for r in report} == {4}
    assert min(r.snr_db for r in report) > 100


def test_the_report_names_every_tensor() -> None:
    ckpt = model_of(shape(layers=2, experts=2), "hf")
    _, report = quantise(ckpt, TINY, 4, calibrate(ckpt, n_seqs=2, length=8))
    names = [r.name for r in report]
    assert len(names) == len(set(names)) == 2 * (4 + 1 + 3 * 2) + 2
    assert {"embed", "lm_head", "layers.0.q", "layers.1.router", "layers.1.down.1"} <= set(names)
    assert all(r.snr_db > 10 for r in report)
    assert {r.width for r in report if "router" in r.name} == {8}


# -- formats -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [4, 8])
@pytest.mark.parametrize("init", INITS)
def test_everything_is_within_its_format(init: str, weights: int) -> None:
    for tied in (False, True):
        model = quantised(model_of(shape(**MIDDLE, tied=tied), init), ULX3S_85F, weights)
        top = {4: 7, 8: 127}
        linears = [model.embed, model.lm_head]
        for layer in model.layers:
            linears += [layer.q, layer.k, layer.v, layer.o, *layer.gate, *layer.up, *layer.down]
            assert layer.router is not None and layer.router.width == 8
            linears.append(layer.router)
        for linear in linears:
            assert np.abs(linear.weight).max() <= top[linear.width]
            assert 0 <= linear.scl.min() and linear.scl.max() <= 65535
            assert linear.scl.max() >= 1 << 13, "scales use their 16 bits"
            assert 0 <= linear.shift < 64
        for field, value in dataclasses.asdict(model.shifts).items():
            assert field == "residual_frac" or 0 <= value < 64, field
        assert 0 <= model.shifts.gate_frac - 7 < 16 and model.shifts.gain_pre < 16
        assert 1 <= model.eps < 1 << 63
        assert 32768 <= model.lm_scalar[0] <= 65535 and -128 <= model.lm_scalar[1] <= 127
        assert (model.final_gain is not None) == tied
        if model.final_gain is not None:
            assert np.abs(model.final_gain).max() < 1 << 15


@pytest.mark.parametrize("weights", [4, 8])
def test_no_input_overflows_an_accumulator(weights: int) -> None:
    """Rows of the largest weights against the largest values that each quantiser lets through."""
    model = quantised(model_of(shape(**MIDDLE), "unit"), ULX3S_85F, weights)
    sh = model.shifts
    extreme = np.array([nx.INT32_MIN, nx.INT32_MAX])
    for shift, linears in (
        (sh.x_act, [x for la in model.layers for x in (la.q, la.k, la.v, *la.gate, *la.up)] + [model.lm_head]),
        (sh.h_act, [x for la in model.layers for x in la.down]),
    ):
        reach = int(np.abs(nx.act_value(*nx.quantise_act(extreme, shift))).max())
        assert max(x.worst_sum for x in linears) * reach < 1 << ULX3S_85F.acc_bits - 1
    kv_most = (127 << 14) * 65536 >> sh.prob
    assert kv_most // 127 * 127 * model.shape.window < 1 << ULX3S_85F.acc_bits - 1


def test_the_residual_stream_has_room() -> None:
    ckpt = model_of(shape(**MIDDLE), "unit")
    calibration = calibrate(ckpt, n_seqs=4, length=16)
    model, _ = quantise(ckpt, ULX3S_85F, 8, calibration)
    assert calibration.ranges["residual"] * RANGE_MARGIN * 2.0**model.shifts.residual_frac < 2**31


@pytest.mark.parametrize(("theta", "head_dim"), [(1e4, 8), (1e6, 64), (2.0, 2)])
def test_rope_table(theta: float, head_dim: int) -> None:
    model = quantised(model_of(shape(rope_theta=theta, head_dim=head_dim, heads=1, kv_heads=1), "hf"), TINY, 8)
    assert model.rope.shape == (12, head_dim // 2, 2)
    assert np.abs((model.rope.astype(float) ** 2).sum(axis=-1) - 2.0**28).max() < 2**16
    assert np.array_equal(model.rope[0], np.broadcast_to([1 << 14, 0], (head_dim // 2, 2)))
    angle = 3 * theta ** (-2 * (head_dim // 2 - 1) / head_dim)
    assert abs(model.rope[3, -1, 1] / 2**14 - np.sin(angle)) < 1e-4


# -- what is refused ---------------------------------------------------------------------------------------


def test_weights_that_no_scale_can_hold() -> None:
    def huge(ckpt: ArrayCheckpoint) -> None:
        assert ckpt.layers[0].router is not None
        ckpt.layers[0].router[:] *= 1e7

    ckpt = changed(huge)
    with pytest.raises(LpuError, match=r"router: a scale of .* does not fit 16 bits: the weights are too large"):
        quantised(ckpt, ULX3S_85F, 8)


def test_accumulators_that_are_too_small() -> None:
    cfg = dataclasses.replace(ULX3S_85F, acc_bits=28, context_max=4096)
    ckpt = model_of(shape(context=600, layers=1), "hf")
    with pytest.raises(LpuError, match="config ulx3s-85f: 28-bit accumulators cannot sum 600 weighted values"):
        quantised(ckpt, cfg, 8)
