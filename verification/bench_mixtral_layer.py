"""The decoder layer of ``make mixtral-layer``, cut to the width of one tile: every micro-op and row in lockstep."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np

from firmware.lower import lower
from hdl.image import Reason
from verification.bench_block import compare_tokens
from verification.bench_programs import start
from verification.context import context
from verification.mixtral_layer.compare import quantise_layer
from verification.mixtral_layer.weights import SeededCheckpoint, cut_shape
from verification.models import Subject

STATES, PROMPT, SAMPLED = 32, 4, 2


@cocotb.test()
async def the_cut_layer_is_the_reference(dut: Any) -> None:
    """Weights made as those of the full size; a prompt, and tokens sampled behind it."""
    ctx = context()
    shape = cut_shape(ctx.config.lanes, STATES, PROMPT + SAMPLED)
    ids = ctx.rng(0).permutation(STATES)[:PROMPT]
    model = quantise_layer(SeededCheckpoint(shape, ctx.seed), ctx.config, 8, np.asarray(ids, np.int64))
    subject = Subject(model, lower(model, ctx.config))
    session = await start(dut)
    prompt, greedy = [int(i) for i in ids], {"temperature": 0.0, "topk": 0, "seed": 0}
    done = await compare_tokens(session, subject, prompt, SAMPLED, Reason.LIMIT, ctx.replay(), **greedy)
    dut._log.info("%s: %d results equal in %d cycles", shape, done.checks, done.compared)
