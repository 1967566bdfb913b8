"""The integer reference: whole sequences against single tokens, the window, sampling, and the float model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from firmware.checkpoint import ArrayCheckpoint
from firmware.scalar import scalar
from hdl.config import LARGE, LOGIT_FRAC, TINY, ULX3S_85F
from sim.float_model import FloatModel
from sim.qmodel import QModel
from sim.reference import Reference, Sampling, choose, logits_float
from verification.random_model import make_model, quantised, shape


def model_of(seed: int = 0, weights: int = 8, init: str = "unit", **changes: Any) -> tuple[ArrayCheckpoint, QModel]:
    ckpt = make_model(shape(**changes), np.random.default_rng(seed), init)
    return ckpt, quantised(ckpt, ULX3S_85F, weights)


def ids_of(model: QModel, n: int, seed: int = 1) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(0, model.shape.vocab, n)]


@pytest.mark.parametrize("changes", [{}, {"window": 5}, {"experts": 1, "top_k": 1}, {"tied": True, "top_k": 3}])
@pytest.mark.parametrize("cuts", [(1,) * 12, (5, 1, 6), (11, 1)])
def test_a_sequence_is_its_tokens_one_by_one(changes: dict[str, Any], cuts: tuple[int, ...]) -> None:
    """However a sequence is cut into calls, the logits are the same bits."""
    _, model = model_of(**changes)
    ids = ids_of(model, 12)
    whole = Reference(model).forward(ids)
    reference, parts, at = Reference(model), [], 0
    for cut in cuts:
        parts.append(reference.forward(ids[at : at + cut]))
        at += cut
    assert np.array_equal(np.concatenate(parts), whole)


def test_a_token_sees_its_window_only() -> None:
    """Two layers of window 4 see 7 positions: what is older changes nothing."""
    _, model = model_of(window=4, context=16)
    ids = ids_of(model, 16)
    other = [(i + 1) % model.shape.vocab for i in ids[:9]] + ids[9:]
    a, b = Reference(model).forward(ids), Reference(model).forward(other)
    assert np.array_equal(a[-1], b[-1]) and not np.array_equal(a[9], b[9])


def test_later_tokens_change_nothing() -> None:
    _, model = model_of()
    ids = ids_of(model, 8)
    assert np.array_equal(Reference(model).forward(ids)[:5], Reference(model).forward(ids[:5]))


def test_what_cannot_be_read() -> None:
    _, model = model_of()
    reference = Reference(model)
    with pytest.raises(ValueError, match="context full: 0 \\+ 13 positions, 12 fit"):
        reference.forward([0] * 13)
    for bad in (-1, model.shape.vocab):
        with pytest.raises(ValueError, match=r"token id outside 0\.\.60"):
            reference.forward([bad])
    assert reference.position == 0


def test_generation_ends() -> None:
    _, model = model_of()
    made = Reference(model).generate([1], 6, Sampling())
    assert len(made) == 6
    assert len(Reference(model).generate([1, 2, 3], 99, Sampling())) == 10, "a full context ends it"
    stop = made[3]
    assert Reference(model).generate([1], 6, Sampling(), (stop,)) == made[: made.index(stop) + 1]


def test_sampling_is_reproducible_and_follows_its_seed() -> None:
    _, model = model_of(context=40)
    hot = [Sampling(scalar(1.0), noise=2, seed=s) for s in (1, 1, 2)]
    a, b, c = (Reference(model).generate([1], 30, s) for s in hot)
    assert a == b != c


def test_top_k_takes_the_best_only() -> None:
    _, model = model_of(init="hf")
    logits = Reference(model).forward([3])[0]
    best = set(np.argsort(-logits, kind="stable")[:3].tolist())
    drawn = {choose(logits, 0, Sampling(noise=1, topk=3, seed=s)) for s in range(60)}
    assert drawn == best
    assert choose(logits, 0, Sampling()) == int(np.argmax(logits))


def test_temperature_scales_logits() -> None:
    _, model = model_of()
    cold = Reference(model).forward([1, 2, 3])
    hot = Reference(model).forward([1, 2, 3], scalar(1 / 2))
    assert np.abs(hot - cold / 2).max() <= 1 + np.abs(cold).max() * 2**-15


@pytest.mark.parametrize("weights", [4, 8])
def test_wider_accumulators_change_little(weights: int) -> None:
    """A configuration shapes the formats through its accumulators only; narrower ones cost no accuracy to speak of."""
    ckpt = make_model(shape(d=64, ffn=64, head_dim=16), np.random.default_rng(2), "hf")
    a, b = (
        logits_float(Reference(quantised(ckpt, cfg, weights)).forward(list(range(12)))) for cfg in (ULX3S_85F, LARGE)
    )
    assert np.sqrt(np.mean((a - b) ** 2)) < 0.03 * b.std()


def test_logits_are_in_nats() -> None:
    ckpt, model = model_of(init="hf", d=32, layers=1)
    ids = ids_of(model, 12)
    logits = Reference(model).forward(ids)
    assert np.array_equal(logits_float(logits), (logits / 2**LOGIT_FRAC).astype(np.float32))
    expected = FloatModel(ckpt).forward(ids)
    assert np.abs(logits_float(logits) - expected).max() < 0.1 * expected.std()


def test_an_empty_cache_is_no_cache() -> None:
    _, model = model_of()
    reference = Reference(model)
    first = reference.forward([1, 2, 3])
    reference.reset()
    assert np.array_equal(reference.forward([1, 2, 3]), first)
    assert TINY.context_max >= reference.position == 3
