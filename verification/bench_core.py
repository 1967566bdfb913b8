"""Whole tokens: the core loads an image over its link and writes what the integer reference writes."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np

from hdl.image import Reason
from sim.reference import Reference
from verification.context import context
from verification.device import Device, Session, sampling
from verification.models import Subject, random_model


async def _session(dut: Any, stream: int, **model: Any) -> tuple[Session, Subject, np.random.Generator]:
    """A core with a random model loaded."""
    ctx = context()
    rng = ctx.rng(stream)
    subject = random_model(ctx.config, rng, **model)
    device = Device(dut)
    await device.start()
    session = Session(device)
    cycles = await session.load(subject)
    dut._log.info("seed %d: %s, loaded in %d cycles", ctx.seed, subject.model.shape, cycles)
    return session, subject, rng


def _prompt(rng: np.random.Generator, subject: Subject, count: int) -> list[int]:
    return [int(token) for token in rng.integers(0, subject.model.shape.vocab, count)]


@cocotb.test()
async def greedy_tokens(dut: Any) -> None:
    """int4, two layers, tied embeddings: ten tokens after a prompt of four, then on behind the same context."""
    session, subject, rng = await _session(dut, 1)
    prompt = _prompt(rng, subject, 4)
    expected = subject.generate(prompt, 10, sampling(0, 0, 0))
    tokens, reason = await session.generate(subject, prompt, 10)
    dut._log.info("%s -> %s", prompt, tokens)
    assert (tokens, reason) == (expected, Reason.LIMIT)

    # The cache holds prompt and tokens but the last: a second question goes on from there.
    reference = Reference(subject.model)
    reference.forward(prompt + tokens[:-1])
    more = _prompt(rng, subject, 2)
    expected = reference.generate(more, 2, sampling(0, 0, 0))
    again, reason = await session.generate(subject, more, 2, first=len(prompt) + len(tokens) - 1)
    assert (again, reason) == (expected, Reason.LIMIT)

    # A stop id ends the run with itself; a new run starts from an empty context.
    stop = tokens[2]
    expected = subject.generate(prompt, 10, sampling(0, 0, 0), (stop,))
    stopped, reason = await session.generate(subject, prompt, 10, stop_ids=(stop,))
    assert (stopped, reason) == (expected, Reason.STOP_TOKEN)


@cocotb.test()
async def sampled_tokens(dut: Any) -> None:
    """int8, untied embeddings, one layer: noise among the best three, then noise in the key."""
    session, subject, rng = await _session(dut, 2, width=8, layers=1, tied=False)
    for topk in (3, 0):
        seed = int(rng.integers(1 << 32))
        prompt = _prompt(rng, subject, 2)
        settings = {"temperature": 1.5, "topk": topk, "seed": seed}
        expected = subject.generate(prompt, 8, sampling(**settings))  # type: ignore[arg-type]
        tokens, reason = await session.generate(subject, prompt, 8, **settings)  # type: ignore[arg-type]
        dut._log.info("seed %d, top-k %d: %s -> %s", seed, topk, prompt, tokens)
        assert (tokens, reason) == (expected, Reason.LIMIT)
        assert tokens != subject.generate(prompt, 8, sampling(0, 0, 0)), "noise changed nothing"


@cocotb.test()
async def window_and_context(dut: Any) -> None:
    """A sliding window that wraps, shapes that divide nothing, top-1 routing; the context fills up."""
    session, subject, rng = await _session(
        dut, 3, layers=1, d=20, ffn=12, vocab=61, heads=2, kv_heads=1, head_dim=6, experts=3, top_k=1,
        context=16, window=6,
    )  # fmt: skip
    prompt = _prompt(rng, subject, 3)
    expected = subject.generate(prompt, 100, sampling(0, 0, 0))
    tokens, reason = await session.generate(subject, prompt, 100)
    dut._log.info("%s -> %s", prompt, tokens)
    assert (tokens, reason) == (expected, Reason.CONTEXT)
    assert len(tokens) == 16 - len(prompt) + 1
