"""Whole tokens: the core loads an image over its link and writes what the integer reference writes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import cocotb
import numpy as np
from cocotb.task import bridge

from firmware.driver import Driver, Run
from firmware.link import Record
from hdl.image import Reason
from sim.reference import Reference
from verification.context import context
from verification.device import Device, Session
from verification.models import GREEDY, Subject, random_model, sampling_of


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
    """int4, two layers, top-2 of 4 experts, tied embeddings: from an empty context, behind it, to a stop id."""
    session, subject, rng = await _session(dut, 1, ffn=8, context=24)
    # A model that repeats itself tests little: the prompt that makes it write most tokens of ten.
    prompts = [_prompt(rng, subject, 3) for _ in range(10)]
    prompt = max(prompts, key=lambda ids: len(set(subject.generate(ids, 9, GREEDY))))
    expected = subject.generate(prompt, 9, GREEDY)
    tokens, reason = await session.generate(subject, prompt, 9)
    dut._log.info("%s -> %s", prompt, tokens)
    assert (tokens, reason) == (expected, Reason.LIMIT)

    # The cache holds the prompt and all tokens but the last: a second prompt goes on from there.
    reference = Reference(subject.model)
    reference.forward(prompt + tokens[:-1])
    more = _prompt(rng, subject, 2)
    expected = reference.generate(more, 2, GREEDY)
    again, reason = await session.generate(subject, more, 2, first=len(prompt) + len(tokens) - 1)
    assert (again, reason) == (expected, Reason.LIMIT)

    # A stop id ends the run with itself; the context is empty again.
    stop = tokens[2]
    expected = subject.generate(prompt, 9, GREEDY, (stop,))
    stopped, reason = await session.generate(subject, prompt, 9, stop_ids=(stop,))
    assert (stopped, reason) == (expected, Reason.STOP_TOKEN)

    # A frame that is cut off shows at ``error`` until one is carried out.
    assert not dut.error.value
    session.device.write(b"\5a\0")
    await session.device.wait(lambda: bool(dut.error.value))
    assert dut.error.value
    await bridge(session.driver.status)()
    assert not dut.error.value and not dut.fault.value


@cocotb.test()
async def sampled_tokens(dut: Any) -> None:
    """int8, untied, top-1 of 3 experts, sizes that divide nothing, a window that wraps; sampling with noise.

    First among the three best, then with noise in every key until the context is full; greedily where there is none.
    """
    session, subject, rng = await _session(
        dut, 2, width=8, layers=1, tied=False, d=12, ffn=10, vocab=45, heads=2, kv_heads=1, head_dim=6,
        experts=3, top_k=1, context=14, window=6,
    )  # fmt: skip
    context_length, noise = subject.model.shape.context, context().config.noise
    for topk, limit, ending in ((3, 8, Reason.LIMIT), (0, 100, Reason.CONTEXT)):
        prompt, seed, temperature = _prompt(rng, subject, 2), 0, 1.5 * noise
        greedy = expected = subject.generate(prompt, limit, GREEDY)
        while expected == greedy and noise:  # until the noise tells
            seed = int(rng.integers(1 << 32))
            expected = subject.generate(prompt, limit, sampling_of(temperature, topk, seed))
        tokens, reason = await session.generate(subject, prompt, limit, temperature=temperature, topk=topk, seed=seed)
        dut._log.info("seed %d, top-k %d: %s -> %s", seed, topk, prompt, tokens)
        assert (tokens, reason) == (expected, ending)
        assert len(tokens) == min(limit, context_length - len(prompt) + 1)

    # Nothing goes on behind a full context.
    assert await session.generate(subject, [1], 1, first=context_length) == ([], Reason.CONTEXT)


@cocotb.test()
async def two_sequences(dut: Any) -> None:
    """Two prompts of different lengths in turn: each sequence is written as if it were alone, greedily and with noise,
    until one of them meets its stop id, and the other one its limit or the end of the context."""
    if context().config.sequences == 1:
        return
    session, subject, rng = await _session(dut, 4, sequences=2, ffn=8, context=16)
    driver, context_length = session.driver, subject.model.shape.context
    for lengths, limit, sampling in (
        ((2, 5), 6, (0.0, 0)), ((4, 1), 20, (1.5, 3)), ((1, 2), 5, (1.5, 0)),
    ):  # fmt: skip
        if not context().config.noise:
            sampling = 0.0, 0
        prompts = [_prompt(rng, subject, n) for n in lengths]
        seeds = [int(rng.integers(1 << 32)) for _ in prompts]
        alone = [
            subject.generate(p, limit, sampling_of(*sampling, seed)) for p, seed in zip(prompts, seeds, strict=True)
        ]
        stops = () if limit > context_length else (alone[0][2],)
        expected = [
            subject.generate(p, limit, sampling_of(*sampling, seed), stops)
            for p, seed in zip(prompts, seeds, strict=True)
        ]

        temperature, topk = sampling
        run = functools.partial(
            driver.run, prompts[0], limit, temperature=temperature, topk=topk, seed=seeds[0], stop_ids=stops,
            second=(prompts[1], seeds[1]),
        )  # fmt: skip

        def work(start: Callable[[], Run] = run) -> tuple[list[Record], Reason | None]:
            begun = start()
            return list(begun), begun.reason

        records, reason = await bridge(work)()
        written: list[list[int]] = [[], []]
        for i, record in enumerate(records):
            position, sequence = divmod(i, 2)
            promised = subject.cycles(position, position >= min(lengths) - 1)
            assert record.cycles == promised, f"position {position}: {record.cycles} cycles, predicted {promised}"
            if record.sampled:
                written[sequence].append(record.token)
        dut._log.info("%s -> %s, %s", prompts, written, reason)
        assert written == expected
        ended = [len(p) + len(ids) - 1 for p, ids in zip(prompts, written, strict=True)]
        assert len(records) == 2 * max(ended)
        if limit > context_length:
            assert reason is Reason.CONTEXT
        else:
            assert reason in (Reason.STOP_TOKEN, Reason.LIMIT)
        assert not dut.fault.value, "an instruction missed its issue cycle"


@cocotb.test()
async def held_back_and_aborted(dut: Any) -> None:
    """A host that has room for two records at a time gets all of them; an abort ends the run behind a token."""
    session, subject, rng = await _session(dut, 3, ffn=8, context=24)
    prompt = _prompt(rng, subject, 2)
    expected = subject.generate(prompt, 9, GREEDY)
    driver = Driver(session.device, timeout=1e6, credit=2)

    def generate(abort_behind: int) -> tuple[list[int], Reason | None]:
        run, tokens = driver.run(prompt, 9), []
        for record in run:
            tokens += [record.token] * record.sampled
            if abort_behind and len(tokens) == abort_behind:
                run.abort()
        return tokens, run.reason

    assert await bridge(generate)(0) == (expected, Reason.LIMIT)
    tokens, reason = await bridge(generate)(2)
    dut._log.info("aborted behind %d tokens: %s", len(tokens), tokens)
    assert reason is Reason.ABORT and 2 <= len(tokens) < 9 and tokens == expected[: len(tokens)]
    assert await bridge(generate)(0) == (expected, Reason.LIMIT)
