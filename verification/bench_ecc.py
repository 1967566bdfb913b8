"""Fault injection: bits of the weight memories flip while a model runs.

Single errors change no token and no cycle, and are counted exactly. Double errors end the run, or were not used:
what is told is right in any case.
"""

from __future__ import annotations

from typing import Any

import cocotb
from cocotb.task import bridge

from firmware.errors import DamagedMemoryError
from hdl.image import Reason
from verification.fault_injection import Campaign, Place


@cocotb.test()
async def single_errors_change_nothing(dut: Any) -> None:
    """One bit in many words before a run, exactly counted; then in words of all kinds while it runs."""
    c = Campaign(dut, 1)
    await c.device.start()
    await c.load()
    start = c.device.cycle
    tokens, reason = await c.session.generate(c.subject, c.prompt, c.TOKENS)
    length = c.device.cycle - start
    assert (tokens, reason) == (c.expected, Reason.LIMIT)
    status = await c.status()
    assert (status.corrected, status.uncorrectable) == (0, 0)

    reads, corrected = c.reads(), 0
    flipped: set[Place] = set()
    for run in range(c.ctx.params["runs"]):
        # Words that are not written during a run stay as they are: their errors add up from run to run.
        fresh = [p for p in c.places(12) if p[1] not in c.cache and p not in flipped]
        for place in fresh:
            c.memory.flip(place, c.bits(1))
        flipped |= set(fresh)
        tokens, reason = await c.session.generate(c.subject, c.prompt, c.TOKENS)
        assert (tokens, reason) == (c.expected, Reason.LIMIT)
        corrected += sum(reads[word] for _, word in flipped)
        status = await c.status()
        assert (status.corrected, status.uncorrectable) == (corrected, 0), f"run {run}"

    # Words of the caches, too, while they are read, changed and written back.
    for run in range(c.ctx.params["runs"]):
        await c.mend()
        column = int(c.rng.integers(c.cfg.columns))
        for place in {*c.places(20), *((column, word) for word in c.cache)}:
            c.flips[c.device.cycle + int(c.rng.integers(100, length))] = place, c.bits(1)
        tokens, reason = await c.session.generate(c.subject, c.prompt, c.TOKENS)
        assert (tokens, reason) == (c.expected, Reason.LIMIT), f"run {run}"
        c.flips.clear()
    status = await c.status()
    assert status.corrected > corrected and status.uncorrectable == 0
    dut._log.info("%d words corrected", status.corrected)


@cocotb.test()
async def double_errors_are_not_silent(dut: Any) -> None:
    """Two bits in a word before or during a run: what is told is right, and a run is not ended by anything else."""
    c = Campaign(dut, 2)
    await c.device.start()
    await c.load()
    start = c.device.cycle
    await c.session.generate(c.subject, c.prompt, c.TOKENS)
    length, reads = c.device.cycle - start, c.reads()
    ended = 0
    for run in range(4 * c.ctx.params["runs"]):
        kind = run % 4
        used = sorted(word for word in reads if word not in c.cache)
        if kind == 0:  # before the run, in a word that it reads: the first token already is not told
            place = int(c.rng.integers(c.cfg.columns)), int(c.rng.choice(used))
            c.memory.flip(place, c.bits(2))
        else:  # some time, in any word, or in a cache
            word = int(c.rng.choice(sorted(c.cache) if kind == 1 else range(c.words)))
            place = int(c.rng.integers(c.cfg.columns)), word
            c.flips[c.device.cycle + int(c.rng.integers(100, length))] = place, c.bits(2)
        before = (await c.status()).uncorrectable
        tokens, damaged = await c.run()
        c.flips.clear()
        found = (await c.status()).uncorrectable - before
        assert damaged == (found > 0), f"run {run}: ended {damaged}, found {found}"
        assert tokens == c.expected[: len(tokens)] and (damaged or len(tokens) == c.TOKENS), f"run {run}: {tokens}"
        assert not damaged or len(tokens) < c.TOKENS
        assert kind or damaged
        ended += damaged
        await c.mend()
        assert await c.run() == (c.expected, False), f"behind run {run}"
    dut._log.info("%d runs ended", ended)


@cocotb.test()
async def a_value_in_a_damaged_word(dut: Any) -> None:
    """A double error in a word of the V cache that a value goes into: found at the change, not written over."""
    c = Campaign(dut, 3)
    await c.device.start()
    await c.load()
    layout = c.subject.compiled.layout
    # Behind the first key of a word there is something in it. It is changed in the next token, and read before that.
    tokens, _ = await c.session.generate(c.subject, c.prompt, 1)
    c.memory.flip((0, layout.sequences[0].value_w), c.bits(2))

    def go_on() -> tuple[int, bool]:
        run = c.session.driver.run(tokens, 1, clear=False)
        try:
            return len(list(run)), False
        except DamagedMemoryError:
            return run.received, True

    assert await bridge(go_on)() == (0, True)
    first = (await c.status()).uncorrectable
    assert first >= 2, "the change, and the reads behind it"
    # It stays damaged until it is written whole: the next text begins with that.
    assert await c.run() == (c.expected, False)
    assert (await c.status()).uncorrectable == first
