"""Compiled programs on the instruction-level machine against the reference: any model on any configuration.

The machine models every latency and raises on empty streams, collisions, early issues and overflowing
accumulators, so that equal logits at every position mean that no result is read before it is there, and none
overwritten before it is read.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firmware.checkpoint import ModelShape
from firmware.errors import LpuError
from firmware.limits import within
from firmware.lower import lower
from firmware.scalar import scalar
from hdl.config import CONFIGS, TINY, ULX3S_85F, Config
from hdl.image import Reason, Space
from hdl.uop import index_bits
from sim.machine import Machine, MachineError, TokenRun
from sim.reference import Reference, Sampling
from tests.util_random import Runner, roomy, run_two
from verification.random_model import INITS, make_model, quantised, random_sampling, random_shape, shape

ROOMY = {cfg.name: roomy(cfg) for cfg in CONFIGS.values()}
TWO = [cfg.name for cfg in CONFIGS.values() if cfg.sequences == 2]
"""Those that work on two sequences."""


def check(
    s: ModelShape,
    cfg: Config,
    seed: int,
    weights: int = 8,
    init: str = "unit",
    prompt: int = 3,
    limit: int | None = None,
    sampling: Sampling | None = None,
) -> list[int]:
    """Generate to the limit, or to the full context."""
    rng, weights = np.random.default_rng(seed), max(weights, cfg.narrowest)
    model = quantised(make_model(s, rng, init), cfg, weights)
    tokens = [int(t) for t in rng.integers(0, s.vocab, prompt)]
    print(f"seed {seed}, {cfg.name}, int{weights}, {init}, {s}")
    return Runner(lower(model, cfg)).run(tokens, limit or s.context, sampling)


def check_random(seed: int, cfg: Config, most: int, context: int) -> None:
    rng = np.random.default_rng(seed)
    s = random_shape(rng, cfg, most, context)
    init = INITS[rng.integers(len(INITS))]
    weights = int(rng.choice([4, 8]))
    prompt = int(rng.integers(1, min(s.context, 6)))
    made = check(s, cfg, seed, weights, init, prompt, None, random_sampling(rng, cfg))
    assert len(made) == s.context - prompt + 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("config", CONFIGS)
def test_any_shape(config: str, seed: int) -> None:
    check_random(seed, ROOMY[config], most=36, context=14)


def check_two(seed: int, s: ModelShape, cfg: Config) -> None:
    """Two sequences of a random model, each as if it were alone."""
    rng = np.random.default_rng([seed, 2])
    weights = int(rng.choice([4, 8]))
    model = quantised(make_model(s, rng), cfg, weights)
    prompts = [[int(t) for t in rng.integers(0, s.vocab, int(rng.integers(1, min(5, s.context))))] for _ in range(2)]
    sampling = random_sampling(rng, cfg)
    samplings = [dataclasses.replace(sampling, seed=int(rng.integers(1 << 32))) for _ in range(2)]
    print(f"seed {seed}, {cfg.name}, int{weights}, {s}")
    run_two(lower(model, cfg, sequences=2), prompts, int(rng.integers(1, 9)), samplings)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("config", TWO)
def test_two_sequences_of_any_shape(config: str, seed: int) -> None:
    cfg = ROOMY[config]
    check_two(seed, random_shape(np.random.default_rng([seed, 3]), cfg, 36, 14), cfg)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 140))
@pytest.mark.parametrize("config", TWO)
def test_two_sequences_of_any_shape_at_length(config: str, seed: int) -> None:
    cfg = ROOMY[config]
    check_two(seed, random_shape(np.random.default_rng([seed, 3]), cfg, 80, 30), cfg)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
@pytest.mark.parametrize("config", CONFIGS)
def test_any_shape_at_length(config: str, seed: int) -> None:
    check_random(seed, ROOMY[config], most=80, context=64)


CORNERS: dict[str, dict[str, Any]] = {
    # A matrix whose rows do not fill its last accumulator set; a scores drain of fewer rows than a set.
    "partial sets": {"d": 46, "head_dim": 10, "ffn": 14},
    "dense": {"experts": 1, "top_k": 1},
    "dense, one layer": {"experts": 1, "top_k": 1, "layers": 1, "tied": True},
    # The MXM ahead of the norm by more sets than there are accumulators.
    "many short sets": {"d": 8, "heads": 8, "kv_heads": 4, "ffn": 64, "layers": 1, "context": 7},
    # P V of a head in more accumulator sets than half of the accumulators.
    "long heads": {"d": 16, "heads": 2, "kv_heads": 1, "head_dim": 24, "context": 19, "layers": 1},
    "longest heads": {"d": 16, "heads": 1, "kv_heads": 1, "head_dim": 64, "layers": 1, "context": 18},
    "odd everything": {"d": 13, "ffn": 7, "vocab": 37, "heads": 3, "kv_heads": 3, "head_dim": 6, "top_k": 3},
    "window": {"window": 5, "layers": 1, "context": 18},
    "window of one": {"window": 1, "context": 9},
    "window across words": {"window": 9, "context": 20, "layers": 1},
    "fewer tokens than top-k entries": {"vocab": 3},
    "one lane": {"d": 1, "ffn": 1, "head_dim": 2, "heads": 1, "kv_heads": 1, "vocab": 2},
    "tied with gain": {"tied": True, "d": 20},
    "one expert of many": {"experts": 5, "top_k": 1},
}


@pytest.mark.parametrize("corner", CORNERS)
def test_corners(corner: str) -> None:
    """On the smallest configuration, where sets are short and accumulators few."""
    weights = 4 if len(corner) % 2 else 8
    check(shape(**CORNERS[corner]), ROOMY["tiny"], seed=5, weights=weights)


def test_heads_of_many_activation_words() -> None:
    """The first sum of a head's scores comes early; it may not overwrite those of the head before."""
    check(shape(head_dim=64, heads=3, kv_heads=1, layers=1, context=7), ROOMY["ulx3s-85f"], seed=14)


@pytest.mark.slow
@pytest.mark.parametrize("weights", [4, 8])
@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("config", CONFIGS)
def test_corners_everywhere(config: str, corner: str, weights: int) -> None:
    cfg = ROOMY[config]
    s = within(shape(**({"context": 24} | CORNERS[corner])), cfg)
    check(s, cfg, seed=6, weights=weights)


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
def test_every_number_of_keys(config: str) -> None:
    """More keys than two sets of accumulators hold, so that every loop count takes every value."""
    cfg = ROOMY[config]
    keys = min(cfg.context_max, 3 * cfg.columns + cfg.lanes + 3)
    s = shape(layers=1, context=keys, heads=3, kv_heads=1, head_dim=2 * cfg.lanes + 2, d=12)
    check(within(s, cfg), cfg, seed=13, weights=4)


@pytest.mark.parametrize("init", INITS)
def test_weight_magnitudes(init: str) -> None:
    check(shape(layers=1, tied=init == "hf"), ULX3S_85F, seed=7, weights=4, init=init)


@pytest.mark.parametrize("length", [1, 2, 11, 12])
def test_prompt_lengths(length: int) -> None:
    made = check(shape(layers=1), TINY, seed=8, prompt=length)
    assert len(made) == 12 - length + 1


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(scalar(1 / 0.8), noise=2, seed=3),
        Sampling(scalar(1 / 1.3), noise=1, topk=4, seed=(1 << 32) - 1),
    ],
    ids=["greedy", "temperature", "top-k"],
)
def test_sampling(sampling: Sampling) -> None:
    assert check(shape(), TINY, seed=9, sampling=sampling, limit=5) == check(
        shape(), ULX3S_85F, seed=9, sampling=sampling, limit=5
    )


def test_results_do_not_depend_on_the_configuration() -> None:
    """The same quantised model writes the same logits and tokens on every array."""
    rng = np.random.default_rng(10)
    checkpoint = make_model(shape(tied=True, d=20), rng)
    by_id, by_rank = Sampling(scalar(1.25), noise=2, seed=1), Sampling(scalar(1.25), noise=1, topk=3, seed=1)
    for bits, sampling in ((4, by_id), (4, by_rank), (8, Sampling())):
        model = quantised(checkpoint, ULX3S_85F, bits)
        expected = Reference(model).generate([5, 6, 7], 6, sampling)
        for cfg in ROOMY.values():
            if bits >= cfg.narrowest and (cfg.noise or not sampling.noise):
                assert Runner(lower(model, cfg)).run([5, 6, 7], 6, sampling) == expected, cfg.name


def reason(runner: Runner) -> Reason:
    return runner.machine.reason


def test_stop_tokens_limit_and_context() -> None:
    model = quantised(make_model(shape(layers=1), np.random.default_rng(11)), TINY, 8)
    runner = Runner(lower(model, TINY))
    made = runner.run([1, 2], 6)
    assert len(made) == 6 and reason(runner) is Reason.LIMIT
    first = made.index(made[4])
    assert runner.run([1, 2], 6, stop=(made[4],)) == made[: first + 1]
    assert reason(runner) is Reason.STOP_TOKEN
    assert len(runner.run([1, 2], 100)) == 11 and reason(runner) is Reason.CONTEXT


def test_a_run_can_continue_behind_the_cached_context() -> None:
    model = quantised(make_model(shape(window=7, layers=1), np.random.default_rng(12)), TINY, 8)
    runner = Runner(lower(model, TINY))
    runner.run([1, 2, 3], 4)
    again = runner.run([4, 5], 5, clear=False)
    assert len(again) == 5
    reference = Reference(model)
    reference.generate([1, 2, 3], 4, Sampling())
    assert reference.generate([4, 5], 5, Sampling()) == again


# -- what is refused before it runs (rules of time: tests/test_random_program.py) ----------------------------


def test_rows_beyond_a_memory() -> None:
    with pytest.raises(MachineError, match="SCALE: row 1024 of 1024"):
        Machine(TINY).load(Space.SCALE, 0, 1024, bytes(8))
    with pytest.raises(MachineError, match="not whole rows"):
        Machine(TINY).load(Space.SCALE, 0, 0, bytes(7))


def test_too_large_a_model_is_refused_before_the_program_is_made() -> None:
    model = quantised(make_model(shape(context=100, layers=1), np.random.default_rng(0)), ULX3S_85F, 8)
    with pytest.raises(LpuError, match=r"positions +needs +100  has +64  <- too small"):
        lower(model, TINY)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_index_is_as_wide_as_the_hardware_s(config: str) -> None:
    """As many rows in one instruction as a micro-op's index counts, and not one more."""
    run = SimpleNamespace(cfg=CONFIGS[config])
    most = 1 << index_bits(run.cfg)
    TokenRun._count(run, SimpleNamespace(idx=most - 1))  # type: ignore[arg-type]
    with pytest.raises(MachineError, match=f"more than {most} rows"):
        TokenRun._count(run, SimpleNamespace(idx=most))  # type: ignore[arg-type]
