"""Row quantisation (searched scales, GPTQ), the calibration that feeds it, and whole checkpoints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firmware.calibrate import LINEAR_INPUTS, calibrate
from firmware.checkpoint import ArrayCheckpoint, Checkpoint
from firmware.gptq import limit_of, quantise_rows, report_row
from firmware.ptq import Grid, Key, quantise_weights
from sim.float_model import FloatModel
from tests.util_models import from_bfloat16, to_bfloat16, write_model


def problem(seed: int, rows: int = 24, inputs: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Random weights [O, K] and the second moment [K, K] of correlated inputs of uneven size."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((inputs, inputs)) * np.exp(rng.standard_normal(inputs))[:, None]
    x = rng.standard_normal((400, inputs)) @ mix + 0.3 * rng.standard_normal((400, inputs))
    return rng.standard_normal((rows, inputs)), x.T @ x


def output_error(w: np.ndarray, q: np.ndarray, scale: np.ndarray, h: np.ndarray) -> np.ndarray:
    """e H e^T of each row."""
    e = w - q * scale[:, None]
    return np.asarray(np.einsum("ok,kl,ol->o", e, h, e))


def absmax_rounding(w: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    scale = np.abs(w).max(axis=1) / limit_of(bits)
    return np.rint(w / scale[:, None]), scale


@pytest.mark.parametrize("seed", range(4))
def test_gptq_beats_rounding_to_nearest(seed: int) -> None:
    w, h = problem(seed)
    absmax = output_error(w, *absmax_rounding(w, 4), h).sum()
    searched = output_error(w, *quantise_rows(w, 4), h).sum()
    plain = output_error(w, *quantise_rows(w, 4, h, act_order=False, sweeps=0), h).sum()
    full = output_error(w, *quantise_rows(w, 4, h), h).sum()
    assert searched < absmax
    assert plain < 0.5 * searched
    assert full < plain


def test_searched_scale_lowers_the_weight_error() -> None:
    w = np.random.default_rng(1).standard_normal((50, 64))
    q, scale = quantise_rows(w, 4)
    p, full = absmax_rounding(w, 4)
    assert (np.sum((w - q * scale[:, None]) ** 2, 1) <= np.sum((w - p * full[:, None]) ** 2, 1) + 1e-12).all()


def test_gptq_is_the_published_recursion() -> None:
    """One row against the textbook: round, then update all later weights by the inverse Hessian."""
    w, h = problem(9, rows=1, inputs=8)
    q, scale = quantise_rows(w, 4, h, act_order=False, sweeps=0)
    damped = h + 0.01 * np.trace(h) / 8 * np.eye(8)
    best = math.inf
    for fraction in np.linspace(1.0, 0.4, 49):
        s = np.abs(w[0]).max() / 7 * fraction
        row, inverse, out = w[0].copy(), np.linalg.inv(damped), np.zeros(8)
        for j in range(8):
            out[j] = np.clip(np.rint(row[j] / s), -7, 7)
            row -= (row[j] - out[j] * s) / inverse[j, j] * inverse[j]
            inverse = inverse - np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
            inverse[j, :] = inverse[:, j] = 0
            inverse[j, j] = 1
        e = w[0] - out * s
        if e @ damped @ e < best:
            best, expected = e @ damped @ e, out
    assert np.array_equal(q[0], expected)
    e = w[0] - q[0] * scale[0]
    assert e @ damped @ e <= best  # the scale is refitted at the end


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("with_hessian", [False, True])
def test_rows_on_a_grid_come_back_exactly(bits: int, with_hessian: bool) -> None:
    rng = np.random.default_rng(5)
    limit = limit_of(bits)
    q = rng.integers(-limit, limit + 1, size=(40, 48))
    q[10:20] = rng.integers(-3, 4, size=(10, 48))  # rows that do not use the whole grid
    q[:, 0] = np.arange(40) % 3 + 1  # the greatest common divisor is not always 1, but never all zero
    scale = np.ldexp(
        rng.integers(2048, 4096, size=40), -18
    )  # 12 significant bits: q * scale is exact in float32
    w = (q * scale[:, None]).astype(np.float32)
    h = problem(0)[1] if with_hessian else None
    got, s = quantise_rows(w, bits, h)
    assert np.array_equal((got * s[:, None]).astype(np.float32), w)
    assert np.array_equal(got * s[:, None], w.astype(np.float64))
    assert report_row("w", w, got, s, bits, h).snr_db == math.inf


def test_int4_grid_is_kept_at_int8_and_through_bfloat16() -> None:
    rng = np.random.default_rng(6)
    q = rng.integers(-7, 8, size=(30, 64))
    q[:, 0] = 7
    scale = np.exp(rng.standard_normal(30))
    w = q * scale[:, None]
    assert np.array_equal(quantise_rows(w, 8, problem(0, inputs=64)[1])[0], q)
    stored = from_bfloat16(to_bfloat16(w))
    got, s = quantise_rows(stored, 4, problem(0, inputs=64)[1])
    assert np.array_equal(got, q)
    assert np.allclose(s, scale, rtol=2**-8)


@pytest.mark.parametrize("with_hessian", [False, True])
def test_int8_is_nearly_lossless(with_hessian: bool) -> None:
    w, h = problem(3)
    q, scale = quantise_rows(w, 8, h if with_hessian else None)
    row = report_row("w", w, q, scale, 8, h)
    assert row.snr_db > (38 if with_hessian else 42)
    assert row.output_snr_db is not None and row.output_snr_db > 42


def test_odd_rows() -> None:
    _, h = problem(0, inputs=5)
    w = np.array([[0, 0, 0, 0, 0], [1e-30, 2e-30, 0, 0.3e-30, 0], [0, 0, -3, 0, 0], [1e20, 1, 1, 1, 1]])
    for hessian in (None, h, np.zeros((5, 5)), np.diag([0, 0, 0, 0, 1.0])):
        q, scale = quantise_rows(w, 4, hessian)
        assert q.dtype == np.int8 and scale.dtype == np.float64
        assert (scale > 0).all() and np.isfinite(scale).all() and (np.abs(q) <= 7).all()
        assert np.array_equal(q[0], [0] * 5) and np.array_equal(q[2], [0, 0, -1, 0, 0])
    q, scale = quantise_rows(np.zeros((0, 5)), 4)
    assert q.shape == (0, 5) and scale.shape == (0,)


def test_result_does_not_depend_on_the_other_rows() -> None:
    w, h = problem(2, rows=30)
    q, scale = quantise_rows(w, 4, h)
    for part in (slice(0, 1), slice(7, 20)):
        q_part, scale_part = quantise_rows(w[part], 4, h)
        assert np.array_equal(q_part, q[part])
        assert np.allclose(scale_part, scale[part], rtol=1e-12)


def test_drift_makes_up_for_errors_upstream() -> None:
    rng = np.random.default_rng(8)
    x = rng.standard_normal((500, 32))
    y = x @ (np.eye(32) + 0.1 * rng.standard_normal((32, 32))) + 0.1 * rng.standard_normal((500, 32))
    w = rng.standard_normal((16, 32))

    def error(**options: Any) -> float:
        q, scale = quantise_rows(w, 4, y.T @ y, **options)
        return float(np.sum((x @ w.T - y @ (q * scale[:, None]).T) ** 2))

    assert error(drift=y.T @ (x - y)) < 0.6 * error()
    q, scale = quantise_rows(w, 4, x.T @ x)
    again, same = quantise_rows(w, 4, x.T @ x, drift=np.zeros((32, 32)))
    assert np.array_equal(q, again) and np.array_equal(scale, same)
    for bad in (np.zeros((3, 3)), np.full((32, 32), np.nan)):
        with pytest.raises(ValueError, match="drift"):
            quantise_rows(w, 4, x.T @ x, drift=bad)


def test_wide_rows_search_the_scale_nearby() -> None:
    w, h = problem(4, rows=12, inputs=300)
    plain = output_error(w, *quantise_rows(w, 4), h).sum()
    assert output_error(w, *quantise_rows(w, 4, h), h).sum() < 0.5 * plain


@pytest.mark.parametrize(
    ("w", "bits", "hessian"),
    [
        (np.zeros(4), 4, None),
        (np.full((2, 2), np.nan), 4, None),
        (np.ones((2, 2)), 1, None),
        (np.ones((2, 2)), 9, None),
        (np.ones((2, 2)), 4, np.eye(3)),
        (np.ones((2, 2)), 4, np.full((2, 2), np.inf)),
    ],
)
def test_wrong_arguments(w: Any, bits: int, hessian: Any) -> None:
    with pytest.raises(ValueError):
        quantise_rows(w, bits, hessian)


def test_report_row() -> None:
    row = report_row(
        "layer 0 q", np.array([[3.0, 4.0]]), np.array([[3, 7]]), np.array([1.0]), 4, np.diag([1.0, 0])
    )
    assert row.relative == pytest.approx(0.6)
    assert row.snr_db == pytest.approx(20 * math.log10(1 / 0.6))
    assert row.output_snr_db == math.inf
    assert (row.clipped, row.shape, row.name) == (0.5, (1, 2), "layer 0 q")


# ------------------------------------------------------------------------------------------------ calibration


def test_calibration_collects_what_each_linear_layer_sees(tmp_path: Path) -> None:
    ckpt = Checkpoint(write_model(tmp_path, experts=4, top_k=2))
    c = calibrate(ckpt, n_seqs=20, length=30, seed=1, batch=7)
    s = ckpt.shape
    assert c.ids.shape == (20, 30) and c.tokens == 600
    for linear, (_, per_expert) in LINEAR_INPUTS.items():
        layer, expert = (None if linear.startswith("lm_head") else 1), (2 if per_expert else None)
        h = c.hessian(layer, linear, expert)
        width = {"o": s.q_dim, "down": s.ffn}.get(linear, s.d)
        assert h is not None and h.shape == (width, width) and h.dtype == np.float64
        assert np.allclose(h, h.T, rtol=1e-4) and np.linalg.eigvalsh(h).min() > -1e-4 * np.trace(h)
    # Gain-free normalised inputs have a mean square of 1 in every token, so also on average.
    for linear, layer, expert in (
        ("q", 0, None),
        ("router", 1, None),
        ("gate", 0, 3),
        ("lm_head_folded", None, None),
    ):
        h = c.hessian(layer, linear, expert)
        assert h is not None and np.trace(h) / s.d == pytest.approx(1, abs=1e-3)
    assert sum(c.counts["expert_in", 0, e] for e in range(4) if ("expert_in", 0, e) in c.counts) == 2 * 600

    folded, plain = c.hessian(None, "lm_head_folded"), c.hessian(None, "lm_head")
    assert folded is not None and plain is not None
    assert np.allclose(plain, np.diag(ckpt.final_norm) @ folded @ np.diag(ckpt.final_norm))

    largest = dict.fromkeys(("h", "logits", "q_rope"), 0.0)

    def watch(name: str, layer: int, expert: int, rows: np.ndarray) -> None:
        if name in largest and layer in (0, -1):
            largest[name] = max(largest[name], float(np.abs(rows).max()))

    FloatModel(ckpt).forward(c.ids, observe=watch)
    assert c.max_abs("h", 0) == pytest.approx(largest["h"], rel=1e-5)
    assert c.max_abs("q_rope", 0) == pytest.approx(largest["q_rope"], rel=1e-5)
    assert c.max_abs("logits") == pytest.approx(largest["logits"], rel=1e-5)
    assert c.lanes["k", 1].shape == (s.kv_dim,)
    assert c.max_abs("no such tensor") == 0
    assert c.ranges["residual"] == max(c.max_abs("residual", i) for i in (-1, 0, 1)) > 0


def test_calibration_is_reproducible_and_can_skip_second_moments(tmp_path: Path) -> None:
    ckpt = Checkpoint(write_model(tmp_path, naming="llama"))
    a, b = calibrate(ckpt, 4, 20), calibrate(ckpt, 4, 20, keep=False)
    assert np.array_equal(a.ids, b.ids) and a.max_abs("h", 1) == b.max_abs("h", 1)
    none = calibrate(ckpt, 4, 20, max_width=0)
    assert none.hessian(0, "q") is None and not none.moments and none.lanes.keys() == a.lanes.keys()
    some = calibrate(ckpt, 4, 20, max_width=32)
    assert some.hessian(0, "q") is not None and some.hessian(0, "down", 0) is None
    given = calibrate(ckpt, ids=[[1, 2, 3], [4, 5, 6]])
    assert given.tokens == 6 and given.counts["qkv_in", 0, -1] == 6
    assert calibrate(ckpt, 1, 10_000).ids.shape == (1, 128)  # no longer than the context
    with pytest.raises(ValueError, match="expert"):
        a.hessian(0, "up")


# ------------------------------------------------------------------------------------------ whole checkpoints


def rebuilt(ckpt: Checkpoint | ArrayCheckpoint, grids: dict[Key, Grid]) -> ArrayCheckpoint:
    """The model that the grids stand for; the gains are in the weights."""
    out = ArrayCheckpoint.of(ckpt)

    def weights(*key: Any) -> np.ndarray:
        q, scale = grids[key]
        return (q * scale[:, None]).astype(np.float32)

    for i, layer in enumerate(out.layers):
        for name in "qkvo":
            setattr(layer, name, weights(name, i, None))
        if layer.router is not None:
            layer.router = weights("router", i, None)
        for e in range(ckpt.shape.experts):
            layer.w_gate[e], layer.w_up[e] = weights("gate", i, e), weights("up", i, e)
            layer.w_down[e] = weights("down", i, e)
        layer.attn_norm[:] = layer.ffn_norm[:] = 1
    out.embed = out.lm_head = weights("embed", None, None)
    if not ckpt.shape.tied:
        out.lm_head = weights("lm_head", None, None)
        out.final_norm[:] = 1
    return out


def logit_error(ckpt: Checkpoint, grids: dict[Key, Grid]) -> float:
    """Mean square difference of the logits over their variance, on a text that was not calibrated on."""
    ids = FloatModel(ckpt).sample(8, 40, seed=99)
    exact, got = FloatModel(ckpt).forward(ids), FloatModel(rebuilt(ckpt, grids)).forward(ids)
    return float(np.mean((exact - got) ** 2) / exact.var())


@pytest.mark.parametrize(
    "changes",
    [{"tied": True}, {"naming": "llama"}, {"window": 5, "experts": 8, "top_k": 3}, {"head_dim": 12}],
)
def test_walk_quantises_every_matrix(changes: dict[str, Any], tmp_path: Path) -> None:
    ckpt = Checkpoint(write_model(tmp_path, scale=0.7, **changes))
    s, calibration = ckpt.shape, calibrate(ckpt, 24, 40)
    seen: list[tuple[int, int]] = []
    grids = quantise_weights(ckpt, 4, calibration, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, len(grids)) for i in range(len(grids))]
    per_layer = 4 + s.has_router + 3 * s.experts
    assert len(grids) == s.layers * per_layer + (1 if s.tied else 2)
    for (name, _, _), (q, scale) in grids.items():
        assert np.abs(q).max() <= (127 if name == "router" else 7) and (scale > 0).all()
    plain = quantise_weights(ckpt, 4, None)
    assert logit_error(ckpt, grids) < 0.8 * logit_error(ckpt, plain)
    assert logit_error(ckpt, quantise_weights(ckpt, 8, calibration)) < 0.1 * logit_error(ckpt, plain)


def test_walk_leaves_a_model_on_its_grid_alone(tmp_path: Path) -> None:
    ckpt = ArrayCheckpoint.of(Checkpoint(write_model(tmp_path, tied=True)))
    for layer in ckpt.layers:
        layer.attn_norm[:] = layer.ffn_norm[:] = 1
    grids = quantise_weights(ckpt, 4, None)
    for key, (q, scale) in grids.items():
        # 12 significant bits in a scale make q * scale exact in float32, as the training script writes it.
        grids[key] = q, np.ldexp(np.rint(np.ldexp(scale, 16)), -16)
    on_grid = rebuilt(ckpt, grids)
    again = quantise_weights(on_grid, 4, calibrate(on_grid, 16, 40))
    for key, (q, scale) in grids.items():
        assert np.array_equal(again[key][0] * again[key][1][:, None], q * scale[:, None]), key


def test_walk_options(tmp_path: Path) -> None:
    ckpt = Checkpoint(write_model(tmp_path, experts=8, top_k=1))
    calibration = calibrate(ckpt, 2, 20)  # so short that most experts see too few tokens
    grids = quantise_weights(ckpt, 4, calibration, router_bits=4, embed_bits=8)
    assert np.abs(grids["router", 0, None][0]).max() == 7
    assert np.abs(grids["embed", None, None][0]).max() == np.abs(grids["lm_head", None, None][0]).max() == 127
    narrow = quantise_weights(ckpt, 4, calibration, max_width=0, router_bits=4, embed_bits=8)
    plain = quantise_weights(ckpt, 4, None, router_bits=4, embed_bits=8)
    assert all(np.array_equal(narrow[key][0], plain[key][0]) for key in plain)
