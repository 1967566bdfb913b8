"""Fault injection: a core with a model in a simulator, whose weight memories' bits can be flipped while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from cocotb.task import bridge

from firmware.driver import run_parts
from firmware.errors import DamagedMemoryError
from firmware.link import Status
from hdl.config import Config
from hdl.ecc import get_code
from hdl.image import Space
from sim.machine import Machine, TokenRun, Uop
from verification.context import context
from verification.device import START_CYCLES, Device, Session
from verification.models import GREEDY, Subject, random_model

Place = tuple[int, int]
"""Column of the tile, and word."""


class CountingMachine(Machine):
    """Notes when each weight word is read by micro-ops, in cycles of the run: all columns read the same address."""

    def __init__(self, cfg: Config):
        super().__init__(cfg)
        self.times: dict[int, list[int]] = {}

    @property
    def reads(self) -> Counter[int]:
        """How often each word is read."""
        return Counter({word: len(times) for word, times in self.times.items()})

    def begin(self, *args: Any) -> TokenRun:
        return _CountingToken(self, *args)


class _CountingToken(TokenRun):
    def __init__(self, *args: Any):
        super().__init__(*args)
        self.begin: int = self.before.begin + self.before.cycles if isinstance(self.before, _CountingToken) else 0

    def _abc(self, cycle: int, uop: Uop) -> str:
        assert isinstance(self.m, CountingMachine)
        self.m.times.setdefault(uop["w"], []).append(self.begin + cycle)
        return super()._abc(cycle, uop)


class Memory:
    """The weight banks inside the simulated core."""

    def __init__(self, dut: Any, cfg: Config):
        self.width = get_code(8 * cfg.lanes).width
        self._banks = [
            getattr(getattr(dut.mxm, f"superlane{i // cfg.superlane_columns}"), f"column{i % cfg.superlane_columns}")
            .bank.array.words
            for i in range(cfg.columns)
        ]  # fmt: skip

    def flip(self, place: Place, bits: Iterable[int]) -> None:
        """Inverts bits of a word."""
        self.put(place, self.get(place) ^ sum(1 << int(bit) for bit in bits))

    def get(self, place: Place) -> int:
        """All bits of a word."""
        column, word = place
        return int(self._banks[column][word].value)

    def put(self, place: Place, value: int) -> None:
        """All bits of a word."""
        column, word = place
        self._banks[column][word].value = value


class Campaign:
    """A core with a random model, and what it says undisturbed.

    ``flips``: what to flip, by the cycle of the device; ``run_flips``: by the cycle of the next run.
    """

    PROMPT, TOKENS = 3, 5

    def __init__(self, dut: Any, stream: int, *, layers: int = 1):
        self.ctx = context()
        cfg = self.cfg = self.ctx.config
        self.rng = self.ctx.rng(stream)
        self.subject: Subject = random_model(cfg, self.rng, layers=layers, ffn=8, vocab=32, context=16)
        self.memory = Memory(dut, cfg)
        self.flips: dict[int, tuple[Place, list[int]]] = {}
        self.run_flips: dict[int, list[tuple[Place, list[int]]]] = {}
        self._run_begin: int | None = None
        self.device = Device(dut, self._watch)
        self.session = Session(self.device)
        self.prompt = [int(t) for t in self.rng.integers(0, 32, self.PROMPT)]
        self.expected = self.subject.generate(self.prompt, self.TOKENS, GREEDY)
        layout = self.subject.compiled.layout
        self.words = layout.needs[0].needed
        heads = self.subject.model.shape.kv_heads
        (own,) = layout.sequences
        cache = {own.value_w + i for i in range(heads * layout.value_head_w)}
        cache |= {own.key_w + i for i in range(heads * layout.key_head_w)}
        self.cache = {layer * layout.layer_w + word for layer in range(layers) for word in cache}

    def _watch(self, cycle: int) -> None:
        if cycle in self.flips:
            self.memory.flip(*self.flips.pop(cycle))
        if not self.device.dut.busy.value:
            self._run_begin = None
            return
        if self._run_begin is None:
            self._run_begin = cycle + START_CYCLES
        for place, bits in self.run_flips.pop(cycle - self._run_begin, ()):
            self.memory.flip(place, bits)

    async def load(self) -> None:
        await self.session.load(self.subject)

    async def mend(self) -> None:
        """Writes every word that the model uses: zeros, then the image."""
        rows = bytes(self.words * self.cfg.lanes)
        blank = [(Space.WEIGHT, bank, 0, rows) for bank in range(self.cfg.columns)]
        await bridge(lambda: self.session.driver.load(blank))()
        await self.load()

    async def status(self) -> Status:
        return await bridge(self.session.driver.status)()

    async def run(self) -> tuple[list[int], bool]:
        """Tokens told, and whether an error of the memory ended the run."""

        def work() -> tuple[list[int], bool]:
            run = self.session.driver.run(self.prompt, self.TOKENS)
            tokens = []
            try:
                for record in run:
                    if record.sampled:
                        tokens.append(record.token)
            except DamagedMemoryError:
                return tokens, True
            return tokens, False

        return await bridge(work)()

    def reads(self) -> Counter[int]:
        """Reads of each word in the run."""
        return self.undisturbed().reads

    def undisturbed(self) -> CountingMachine:
        """The run in the machine."""
        machine = CountingMachine(self.cfg)
        shape = self.subject.model.shape
        parts = run_parts(self.cfg, self.prompt, self.TOKENS, context=shape.context, vocab=shape.vocab)
        sections = [(s.space, s.sub, s.address, s.data) for s in self.subject.compiled.sections]
        for space, sub, address, rows in [*sections, *parts]:
            machine.load(Space(space), sub, address, rows)
        assert [r.token for r in machine.run() if r.sampled] == self.expected
        return machine

    def bits(self, count: int) -> list[int]:
        return [int(b) for b in self.rng.choice(self.memory.width, count, replace=False)]

    def places(self, count: int) -> list[Place]:
        """Different words that the model uses."""
        chosen = self.rng.choice(self.words * self.cfg.columns, count, replace=False)
        return [(int(i) % self.cfg.columns, int(i) // self.cfg.columns) for i in chosen]
