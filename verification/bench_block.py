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
from verification.device import START_CYCLES, Device, Session
from verification.lockstep import Lockstep, TracedMachine
from verification.models import GREEDY, Subject, random_model, sampling_of


async def _block(
    dut: Any, stream: int, prompt_length: int, limit: int, temperature: float, topk: int, **model: Any
) -> None:
    """Runs a random model in lockstep with the machine, and compares the tokens with the reference's.

    Greedily where the configuration has no noise.
    """
    ctx = context()
    temperature *= ctx.config.noise
    rng = ctx.rng(stream)
    subject = random_model(ctx.config, rng, layers=1, **model)
    shape = subject.model.shape
    prompt = [int(token) for token in rng.integers(0, shape.vocab, prompt_length)]
    settings: dict[str, Any] = {"temperature": temperature, "topk": topk, "seed": int(rng.integers(1 << 32))}
    dut._log.info("seed %d: %s, prompt %s, %s", ctx.seed, shape, prompt, settings)

    device = Device(dut)
    await device.start()
    session = Session(device)
    done = await compare_tokens(session, subject, prompt, limit, Reason.LIMIT, "", **settings)
    dut._log.info("%d results equal in %d cycles", done.checks, done.compared)


async def compare_tokens(
    session: Session, subject: Subject, prompt: list[int], limit: int, ending: Reason, replay: str, **settings: Any
) -> Lockstep:
    """Loads a model and runs it in lockstep with the machine, whose tokens are the reference's.

    ``settings``: temperature, topk and seed. Raises AssertionError at the first difference; ``replay`` is its last
    line.
    """
    cfg, shape = subject.compiled.cfg, subject.model.shape
    sampler = context().sampler
    machine = TracedMachine(cfg, sampler)
    for section in subject.compiled.sections:
        machine.load(section.space, section.sub, section.address, section.data)
    parts = run_parts(cfg, prompt, limit, **settings, context=shape.context, vocab=shape.vocab)
    for space, sub, address, rows in parts:
        machine.load(Space(space), sub, address, rows)
    expected = machine.finish()
    drawn = settings["temperature"] and settings["topk"] != 1
    chosen: Sampling = sampling_of(**settings) if drawn else GREEDY
    room = min(limit, shape.context - len(prompt) + 1)
    assert expected == subject.generate(prompt, room, chosen), f"the machine is not the reference\n{replay}"

    device = session.device
    device.watch = None
    await session.load(subject)
    lockstep = Lockstep(device.dut, machine.record, START_CYCLES, replay)
    device.watch = lockstep.watch
    tokens, reason = await session.generate(subject, prompt, limit, **settings)
    await device.wait(lambda: lockstep.done)  # what is under way behind the last token
    device.watch = None
    assert (tokens, reason) == (expected, ending), replay
    assert lockstep.done, f"{lockstep.compared} of {machine.record.cycles} cycles compared\n{replay}"
    if sampler:
        sampler.commit()
    return lockstep


@cocotb.test()
async def int4_block(dut: Any) -> None:
    """int4, tied embeddings, top-2 of 4 experts, two query heads on each KV head."""
    await _block(dut, 1, 3, 4, 0.0, 0, ffn=8, vocab=32, context=16)


@cocotb.test()
async def int8_block(dut: Any) -> None:
    """int8, untied, top-3 of 3 experts, sizes that divide nothing, a window that wraps, top-k sampling.

    Top-2 where a token may choose no more.
    """
    top_k = min(3, context().config.experts_per_token_max)
    await _block(
        dut, 2, 4, 3, 1.2, 2, width=8, tied=False, d=12, ffn=6, vocab=30, heads=2, kv_heads=1, head_dim=6,
        experts=3, top_k=top_k, context=12, window=5,
    )  # fmt: skip
