"""Random fault injection for as long as one likes: a model runs again and again, and bits of its memories flip.

Run i depends on the seed and i alone, so ``PROGRAM=i`` repeats just that one. What a run may do follows from the
instruction-level machine's: which word is read when.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles

from hdl.image import Reason
from verification.fault_injection import Campaign, Place

SEEN = 4
"""Cycles around a read's own in which the bench does not say whether it meets a flip; beside the superlanes' skew."""
KINDS = ("singles before", "singles during", "double before", "double during", "double in a cache")


class Random(Campaign):
    """Runs with flips."""

    PROMPT, TOKENS = 4, 10

    def __init__(self, dut: Any, stream: int):
        super().__init__(dut, stream, layers=2)
        self.count: Counter[str] = Counter()

    async def begin(self) -> None:
        """Loads the model and runs it undisturbed."""
        await self.device.start()
        await self.load()
        tokens, reason = await self.session.generate(self.subject, self.prompt, self.TOKENS)
        assert (tokens, reason) == (self.expected, Reason.LIMIT)
        machine = self.undisturbed()
        self.times = machine.times
        self.length = max(max(t) for t in self.times.values())
        self.used = sorted(word for word in self.times if word not in self.cache)
        self.loaded = {
            (column, word): self.memory.get((column, word))
            for column in range(self.cfg.columns) for word in range(self.words) if word not in self.cache
        }  # fmt: skip
        self.before = await self.status()

    async def restore(self) -> None:
        """All words as they were loaded, the caches empty."""
        for place, value in self.loaded.items():
            if self.memory.get(place) != value:
                self.memory.put(place, value)
        for word in self.cache:
            for column in range(self.cfg.columns):
                self.memory.put((column, word), 0)
        await ClockCycles(self.device.dut.clk, 2)  # what is put is there when bits of it are flipped

    def at_once(self, place: Place, bits: list[int]) -> None:
        """Flips bits before the run."""
        self.memory.flip(place, bits)
        self.count["words with one flip" if len(bits) == 1 else "words with two flips"] += 1

    def later(self, rng: np.random.Generator, place: Place, bits: list[int]) -> int:
        """Flips bits in some cycle of the run; returns which."""
        cycle = int(rng.integers(1, self.length))
        self.run_flips.setdefault(cycle, []).append((place, bits))
        self.count["words with one flip" if len(bits) == 1 else "words with two flips"] += 1
        return cycle

    async def one(self, rng: np.random.Generator) -> str:
        """A run; what was done."""
        kind = KINDS[int(rng.integers(len(KINDS)))]
        width, columns = self.memory.width, self.cfg.columns
        await self.restore()

        def bits(count: int) -> list[int]:
            return [int(b) for b in rng.choice(width, count, replace=False)]

        def place(words: list[int]) -> Place:
            return int(rng.integers(columns)), int(rng.choice(words))

        if kind.startswith("singles"):
            pool = self.used if kind == "singles before" else [*self.used, *sorted(self.cache)]
            places = {place(pool) for _ in range(int(rng.integers(1, 40)))}
            for where in sorted(places):
                if kind == "singles before":
                    self.at_once(where, bits(1))
                else:
                    self.later(rng, where, bits(1))
            exact = sum(len(self.times[word]) for _, word in places) if kind == "singles before" else None
            await self._singles(exact)
            return kind
        where = place(sorted(self.cache) if kind == "double in a cache" else self.used)
        if kind == "double before":
            self.at_once(where, bits(2))
            await self._double(must=True)
            return kind
        cycle = self.later(rng, where, bits(2))
        must = None
        if kind == "double during":
            skew = self.cfg.vlanes
            if any(t > cycle + SEEN for t in self.times[where[1]]):
                must = True
            elif all(t + skew + SEEN < cycle for t in self.times[where[1]]):
                must = False
        await self._double(must=must)
        return kind

    async def _singles(self, exact: int | None) -> None:
        """Tokens, cycles and the end as without flips; the count, where it is known."""
        tokens, reason = await self.session.generate(self.subject, self.prompt, self.TOKENS)
        assert (tokens, reason) == (self.expected, Reason.LIMIT), f"{tokens}, {reason.name}"
        status = await self.status()
        found = status.corrected - self.before.corrected
        assert status.uncorrectable == self.before.uncorrectable
        assert exact is None or found == exact, f"{found} words corrected, {exact} were read with an error"
        self.count["tokens, each with its cycles, equal under single errors"] += len(tokens)
        self.count["reads and changes corrected"] += found
        self.before = status

    async def _double(self, must: bool | None) -> None:
        """The run ends with an error where the word was used, and only there; what it told is right."""
        tokens, damaged = await self.run()
        status = await self.status()
        found = status.uncorrectable - self.before.uncorrectable
        assert damaged == (found > 0), f"ended: {damaged}, words found: {found}"
        assert must is None or damaged == must, f"ended: {damaged}, used: {must}"
        assert tokens == self.expected[: len(tokens)], f"{tokens}"
        assert len(tokens) == self.TOKENS or damaged
        assert len(tokens) < self.TOKENS or not damaged
        assert status.corrected == self.before.corrected
        self.count["double errors used: run ended with the error" if damaged else "double errors not used"] += 1
        self.count["tokens told before an end, all right"] += len(tokens)
        self.before = status


@cocotb.test()
async def a_random_campaign(dut: Any) -> None:
    """``runs`` runs, or as many as ``seconds`` allow; ``program``: only the one of this number."""
    c = Random(dut, 1)
    params = c.ctx.params
    await c.begin()
    only, seconds, end = params.get("program"), params.get("seconds"), time.monotonic() + params.get("seconds", 0)
    i = only or 0
    first = i
    while (i < params["runs"] if seconds is None else time.monotonic() < end) if only is None else i == only:
        try:
            kind = await c.one(c.ctx.rng(2, i))
        except AssertionError as error:
            raise AssertionError(f"run {i}: {error}\nreplay: {c.ctx.replay(program=i)}") from None
        c.count[kind] += 1
        i += 1
    dut._log.info("seed %d: %d runs: %s", c.ctx.seed, i - first, dict(c.count))
    if path := params.get("figures"):
        figures = {"runs": i - first, "cycles simulated": c.device.cycle}
        figures |= {f"runs: {kind}": c.count.pop(kind, 0) for kind in KINDS}
        Path(path).write_text(json.dumps(figures | dict(sorted(c.count.items()))), encoding="utf-8")
