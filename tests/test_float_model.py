"""The float oracle against Hugging Face transformers (committed logits), and its own invariants."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firmware.checkpoint import ArrayCheckpoint, Checkpoint
from sim import float_model
from sim.float_model import (
    Cache,
    FloatModel,
    log_likelihood,
    normalise,
    rope_tables,
    rotate,
    route,
    silu,
    softmax,
)
from tests.golden.make_golden import CASES
from tests.util_models import Spec, checksum, make_weights, write_model

GOLDEN = Path(__file__).parent / "golden"


def load(folder: Path, **changes: Any) -> FloatModel:
    return FloatModel(Checkpoint(write_model(folder, **changes)))


@pytest.mark.parametrize("name", sorted(CASES))
def test_logits_equal_transformers(name: str, tmp_path: Path) -> None:
    golden = np.load(GOLDEN / f"{name}.npz")
    spec = Spec(**json.loads(str(golden["spec"])))
    assert spec == CASES[name], "the case changed: run python -m tests.golden.make_golden"
    assert checksum(make_weights(spec)) == golden["checksum"], (
        "the random weights are not those of the golden"
    )
    logits = FloatModel(Checkpoint(write_model(tmp_path, spec))).forward(golden["ids"])
    assert logits.dtype == np.float32
    assert golden["logits"].std() > 2  # otherwise the comparison would say little
    assert np.abs(logits - golden["logits"]).max() < 1e-4


def test_both_expert_namings_are_the_same_model(tmp_path: Path) -> None:
    ids = np.arange(30) % 64
    hub, fused = load(tmp_path / "a", naming="hub"), load(tmp_path / "b", naming="fused", shards=2)
    assert np.array_equal(hub.forward(ids), fused.forward(ids))


@pytest.mark.parametrize("window", [None, 3, 100])
def test_cache_and_batch_agree_with_one_pass(window: int | None, tmp_path: Path) -> None:
    model = load(tmp_path, window=window, heads=4, kv_heads=1)
    ids = np.random.default_rng(0).integers(64, size=(3, 17))
    whole = model.forward(ids)
    cache = Cache(model.shape, 3, 20)
    parts = [model.forward(ids[:, a:b], cache) for a, b in ((0, 5), (5, 6), (6, 7), (7, 17))]
    assert np.abs(np.concatenate(parts, axis=1) - whole).max() < 2e-5
    assert np.abs(model.forward(ids[1]) - whole[1]).max() < 2e-5


def test_no_query_sees_the_future_or_beyond_the_window(tmp_path: Path) -> None:
    model = load(tmp_path, window=4, layers=1)
    ids = np.arange(12)
    changed = ids.copy()
    changed[5] = 63
    different = np.abs(model.forward(ids) - model.forward(changed)).max(axis=1) > 1e-6
    assert np.flatnonzero(different).tolist() == [5, 6, 7, 8]  # i - j < 4


def test_a_window_wider_than_the_text_changes_nothing(tmp_path: Path) -> None:
    ids = np.arange(12)
    assert np.array_equal(load(tmp_path / "a").forward(ids), load(tmp_path / "b", window=12).forward(ids))
    assert not np.allclose(load(tmp_path / "a").forward(ids), load(tmp_path / "c", window=11).forward(ids))


def test_rotation_keeps_the_length_of_pairs_and_depends_on_distance_only(tmp_path: Path) -> None:
    shape = load(tmp_path).shape
    cos, sin = rope_tables(shape, np.arange(40))
    x = np.random.default_rng(0).standard_normal((2, 1, shape.head_dim)).astype(np.float32)
    q, k = (
        rotate(np.repeat(x[:1], 40, axis=1), cos, sin)[0],
        rotate(np.repeat(x[1:], 40, axis=1), cos, sin)[0],
    )
    half = shape.head_dim // 2
    assert np.allclose(q[:, :half] ** 2 + q[:, half:] ** 2, q[0, :half] ** 2 + q[0, half:] ** 2, atol=1e-5)
    assert np.allclose(q[30] @ k[25], q[7] @ k[2], atol=1e-4)


def test_router_ties_go_to_the_lower_expert() -> None:
    logits = np.array([[0.0, 2.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0], [3.0, 0.0, 3.0, 5.0]], np.float32)
    weight = route(logits, 2)
    assert (weight > 0).tolist() == [
        [False, True, True, False],
        [True, True, False, False],
        [True, False, False, True],
    ]
    assert np.allclose(weight.sum(axis=1), 1)
    assert np.allclose(route(logits, 4), softmax(logits))


def test_helpers() -> None:
    x = np.array([-200.0, -1.0, 0.0, 1.0, 200.0], np.float32)
    assert np.allclose(silu(x), [0, -0.26894142, 0, 0.7310586, 200])
    assert np.allclose(softmax(np.array([-np.inf, 0, 0], np.float32)), [0, 0.5, 0.5])
    assert np.allclose(normalise(np.array([3.0, 4.0], np.float32), 0.0), np.array([3, 4]) / np.sqrt(12.5))
    logits = np.log(np.array([[0.25, 0.75], [0.5, 0.5]], np.float32))
    assert np.allclose(log_likelihood(logits, [0, 1]), [np.log(0.75)])


def test_sampling_is_reproducible_and_follows_the_model(tmp_path: Path) -> None:
    model = load(tmp_path)
    ids = model.sample(6, 20, seed=3)
    assert ids.shape == (6, 20) and ids[0, 0] == 1 and ids[2, 0] == 1  # even sequences begin with bos
    assert np.array_equal(ids, model.sample(6, 20, seed=3))
    assert not np.array_equal(ids, model.sample(6, 20, seed=4))
    greedy = model.sample(1, 20, seed=0, temperature=0.0, start=[5])[0]
    assert greedy[0] == 5
    assert np.array_equal(model.forward(greedy[:-1]).argmax(axis=-1), greedy[1:])


def test_observer_sees_the_inputs_of_each_linear_layer(tmp_path: Path) -> None:
    model = load(tmp_path, experts=4, top_k=2)
    seen: dict[tuple[str, int, int], np.ndarray] = {}
    ids = np.arange(25)

    def keep(name: str, layer: int, expert: int, rows: np.ndarray) -> None:
        seen.setdefault((name, layer, expert), rows.copy())

    logits = model.forward(ids, observe=keep)
    assert np.array_equal(logits, model.forward(ids))
    w = model.ckpt.layer(1)
    assert np.allclose(seen["qkv_in", 1, -1] * w.attn_norm @ w.k.T, seen["k", 1, -1], atol=1e-5)
    assert np.allclose((seen["qkv_in", 1, -1] ** 2).mean(axis=1), 1, atol=1e-3)
    assert sum(len(rows) for (name, layer, _), rows in seen.items() if (name, layer) == ("h", 0)) == 2 * 25
    h, out = seen["h", 1, 2], seen["down", 1, 2]
    assert np.allclose(h @ w.w_down[2].T, out, atol=1e-4)
    assert seen["scores", 0, -1].shape == (4 * 25 * 26 // 2, 1)
    assert np.array_equal(seen["logits", -1, -1], logits)


def test_unkept_weights_give_the_same_logits(tmp_path: Path) -> None:
    ckpt = Checkpoint(write_model(tmp_path))
    ids = np.arange(10)
    expected = FloatModel(ckpt).forward(ids)
    assert np.array_equal(FloatModel(ckpt, keep=False).forward(ids), expected)
    assert np.array_equal(FloatModel(ArrayCheckpoint.of(ckpt)).forward(ids), expected)


@pytest.mark.parametrize("ids", [[64], [-1], [0] * 129])
def test_impossible_ids_are_refused(ids: list[int], tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        load(tmp_path).forward(ids)


def test_oracle_shares_no_code_with_the_hardware() -> None:
    tree = ast.parse(Path(float_model.__file__).read_text())
    names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    names += [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    assert not [name for name in names if name.split(".")[0] in ("hdl", "firmware", "sim")]
