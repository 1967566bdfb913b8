"""Random models through the whole compiler, in lockstep: any shape, weights of any size, up to a full context."""

from __future__ import annotations

import dataclasses
from typing import Any

import cocotb
import numpy as np

from firmware.errors import LpuError
from firmware.lower import lower
from hdl.config import Config
from hdl.image import Reason
from verification.bench_block import compare_tokens
from verification.bench_programs import start
from verification.context import context
from verification.models import Subject
from verification.random_model import INITS, make_model, quantised, random_shape

TRIES = 50
"""Shapes drawn at most until one fits the configuration's memories."""


def random_subject(cfg: Config, rng: np.random.Generator, most: int, context_length: int) -> tuple[Subject, int]:
    """A random model that fits, and how many did not."""
    for tries in range(TRIES):
        shape = random_shape(rng, cfg, most, min(context_length, cfg.context_max))
        if rng.random() < 0.3:
            # The cache and the counters at their ends.
            shape = dataclasses.replace(shape, context=context_length, window=None, layers=1)
        init, width = str(rng.choice(INITS)), max(int(rng.choice([4, 8])), cfg.narrowest)
        model = quantised(make_model(shape, rng, init), cfg, width)
        try:
            return Subject(model, lower(model, cfg)), tries
        except LpuError:
            continue
    raise RuntimeError(f"no model of {TRIES} fits config {cfg.name}")


@cocotb.test()
async def models_write_as_the_reference(dut: Any) -> None:
    """``count`` models of up to ``most`` lanes and ``context`` positions; ``program``: only the one of this number."""
    ctx = context()
    params = ctx.params
    only = params.get("program")
    session = await start(dut)
    for i in range(params["count"]) if only is None else [only]:
        rng = ctx.rng(i)
        subject, misfits = random_subject(ctx.config, rng, params["most"], params["context"])
        shape = subject.model.shape
        prompt = [int(x) for x in rng.integers(0, shape.vocab, int(rng.integers(1, min(4, shape.context))))]
        kinds: list[dict[str, Any]] = [
            {"temperature": 0.0, "topk": 0},
            {"temperature": float(rng.uniform(0.3, 2)), "topk": 0},
            {"temperature": float(rng.uniform(0.3, 2)), "topk": int(rng.integers(2, ctx.config.topk_max + 1))},
        ]
        kind = kinds[int(rng.integers(3))] if ctx.config.noise else kinds[0]
        settings = kind | {"seed": int(rng.integers(1 << 32))}
        dut._log.info("model %d: %s, prompt %s, %s; %d did not fit", i, shape, prompt, settings, misfits)
        # Half of them to the end of the context.
        limit = shape.context if rng.random() < 0.5 else int(rng.integers(1, 4))
        ending = Reason.LIMIT if limit <= shape.context - len(prompt) + 1 else Reason.CONTEXT
        replay = f"replay: {ctx.replay(program=i)}"
        done = await compare_tokens(session, subject, prompt, limit, ending, replay, **settings)
        ctx.tell(**{"models": 1, "cycles compared": done.compared, "results compared": done.checks})
        dut._log.info("model %d: %d results equal in %d cycles", i, done.checks, done.compared)
