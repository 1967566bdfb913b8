"""One whole Mixtral block: every micro-op, every row and every write of whole tokens, each in its cycle.

The model has a single layer, so a token is embedding, attention, router, experts, LM head and sampling once.
"""

from __future__ import annotations

from typing import Any

import cocotb

from firmware.driver import run_parts
from hdl.image import Reason, Space
from sim.reference import Sampling
from verification.context import context
from verification.device import GREEDY, START_CYCLES, Device, Session, sampling
from verification.lockstep import Lockstep, TracedMachine
from verification.models import random_model


async def _block(
    dut: Any, stream: int, prompt_length: int, limit: int, temperature: float, topk: int, **model: Any
) -> None:
    """Runs a random model in lockstep with the machine, and compares the tokens with the reference's."""
    ctx = context()
    rng = ctx.rng(stream)
    subject = random_model(ctx.config, rng, layers=1, **model)
    shape = subject.model.shape
    prompt = [int(token) for token in rng.integers(0, shape.vocab, prompt_length)]
    settings: dict[str, Any] = {"temperature": temperature, "topk": topk, "seed": int(rng.integers(1 << 32))}
    dut._log.info("seed %d: %s, prompt %s, %s", ctx.seed, shape, prompt, settings)

    machine = TracedMachine(ctx.config)
    for section in subject.compiled.sections:
        machine.load(section.space, section.sub, section.address, section.data)
    parts = run_parts(ctx.config, prompt, limit, **settings, context=shape.context, vocab=shape.vocab)
    for space, sub, address, rows in parts:
        machine.load(Space(space), sub, address, rows)
    expected = machine.finish()
    chosen: Sampling = sampling(**settings) if temperature else GREEDY
    assert expected == subject.generate(prompt, limit, chosen), "the machine is not the reference"

    lockstep = Lockstep(dut, machine.record, START_CYCLES)
    device = Device(dut, lockstep.watch)
    await device.start()
    session = Session(device)
    dut._log.info("loaded in %d cycles", await session.load(subject))
    tokens, reason = await session.generate(subject, prompt, limit, **settings)
    assert (tokens, reason) == (expected, Reason.LIMIT)
    assert lockstep.done, f"{lockstep.compared} of {max(machine.record.at) + 1} cycles compared"
    dut._log.info("%s: %d results equal in %d cycles", tokens, lockstep.checks, lockstep.compared)


@cocotb.test()
async def int4_block(dut: Any) -> None:
    """int4, tied embeddings, top-2 of 4 experts, two query heads on each KV head."""
    await _block(dut, 1, 3, 4, 0.0, 0, ffn=8, vocab=32, context=16)


@cocotb.test()
async def int8_block(dut: Any) -> None:
    """int8, untied, top-3 of 3 experts, sizes that divide nothing, a window that wraps, top-k sampling."""
    await _block(
        dut, 2, 4, 3, 1.2, 2, width=8, tied=False, d=12, ffn=6, vocab=30, heads=2, kv_heads=1, head_dim=6,
        experts=3, top_k=3, context=12, window=5,
    )  # fmt: skip
