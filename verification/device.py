"""A core inside a simulator, as a byte stream: same driver, same frames as a board, a byte per cycle."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import Event, FallingEdge, RisingEdge, Timer, with_timeout

from firmware.driver import Driver
from firmware.transport import TransportError
from hdl.image import Reason
from verification.models import Subject

CLOCK_NS = 10
SILENCE = 30_000
"""Cycles without a byte from the core after which it is taken for dead."""


class Device:
    """Drives a core's ``rx`` and ``tx``.

    ``watch``: called in every cycle, when all signals have settled, with the number of the cycle (0: the
    first one outside reset). ``cycle``: cycles so far; ``busy_cycles``: those with ``busy`` high.
    """

    def __init__(self, dut: Any, watch: Callable[[int], None] | None = None) -> None:
        self.dut = dut
        self.watch = watch
        self.cycle = 0
        self.busy_cycles = 0
        self._inbound: deque[int] = deque()
        self._outbound = bytearray()
        self._arrived = Event()

    async def start(self) -> None:
        """Resets the core and lets the bytes flow."""
        dut = self.dut
        dut.rx__valid.value = 0
        dut.rx__payload.value = 0
        dut.tx__ready.value = 1
        dut.rst.value = 1
        Clock(dut.clk, CLOCK_NS, "ns").start()
        await RisingEdge(dut.clk)
        await RisingEdge(dut.clk)
        await FallingEdge(dut.clk)
        dut.rst.value = 0
        cocotb.start_soon(self._run())

    async def wait(self, done: Callable[[], bool], most: int = 1000) -> None:
        """Until ``done``, or for ``most`` cycles."""
        for _ in range(most):
            if done():
                return
            await RisingEdge(self.dut.clk)

    async def reset(self, cycles: int = 2) -> None:
        """Resets the core again, and forgets what is under way."""
        self.watch = None
        self.dut.rst.value = 1
        for _ in range(cycles):
            await RisingEdge(self.dut.clk)
        await FallingEdge(self.dut.clk)
        self.dut.rst.value = 0
        self._inbound.clear()
        self._outbound.clear()

    async def _run(self) -> None:
        dut = self.dut
        rx_valid, rx_payload, rx_ready = dut.rx__valid, dut.rx__payload, dut.rx__ready
        tx_valid, tx_payload, busy = dut.tx__valid, dut.tx__payload, dut.busy
        offering = False
        while True:
            if self._inbound:
                rx_payload.value = self._inbound[0]
                rx_valid.value = 1
                offering = True
            elif offering:
                rx_valid.value = 0
                offering = False
            await Timer(CLOCK_NS // 2 - 1, "ns")  # settled, and just before the edge that ends the cycle
            if offering and rx_ready.value:
                self._inbound.popleft()
            if tx_valid.value:
                self._outbound.append(int(tx_payload.value))
                self._arrived.set()
            self.busy_cycles += int(busy.value)
            if self.watch is not None:
                self.watch(self.cycle)
            self.cycle += 1
            await FallingEdge(dut.clk)

    async def _read(self) -> bytes:
        if not self._outbound:
            self._arrived.clear()
            await with_timeout(self._arrived.wait(), SILENCE * CLOCK_NS, "ns")
        data = bytes(self._outbound)
        self._outbound.clear()
        return data

    # The driver's side: blocking calls from a thread of cocotb.task.bridge.

    def write(self, data: bytes) -> None:
        """Queues bytes for the core."""
        self._inbound.extend(data)

    def read(self, timeout: float) -> bytes:
        """What the core has sent; TransportError after a long silence. Simulated time is the only clock."""
        try:
            return resume(self._read)()
        except cocotb.triggers.SimTimeoutError:
            raise TransportError(f"the core sent nothing in {SILENCE} cycles") from None

    def close(self) -> None:
        """Nothing to give back."""


class Session:
    """A driver on a :class:`Device`, used from cocotb tests."""

    def __init__(self, device: Device) -> None:
        self.device = device
        # Patience is counted in cycles, by the device.
        self.driver = Driver(device, timeout=1e6)

    async def load(self, subject: Subject) -> int:
        """Loads a model's image; returns the cycles it took."""
        first = self.device.cycle
        parts = [(s.space, s.sub, s.address, s.data) for s in subject.compiled.sections]
        await bridge(lambda: self.driver.load(parts))()
        return self.device.cycle - first

    async def generate(
        self,
        subject: Subject,
        prompt: list[int],
        limit: int,
        *,
        temperature: float = 0.0,
        topk: int = 0,
        seed: int = 0,
        stop_ids: tuple[int, ...] = (),
        first: int | None = None,
    ) -> tuple[list[int], Reason]:
        """A run, its cycles compared with the schedule's promise; returns the tokens and why it ended.

        ``first``: position of the prompt's first token where the run goes on behind an earlier one's context.
        """
        busy = self.device.busy_cycles

        def work() -> tuple[list[tuple[int, bool, int]], Reason | None]:
            run = self.driver.run(prompt, limit, temperature=temperature, topk=topk, seed=seed,
                                  stop_ids=stop_ids, clear=first is None)  # fmt: skip
            return [(r.token, r.sampled, r.cycles) for r in run], run.reason

        records, reason = await bridge(work)()
        assert reason is not None
        for i, (_, sampled, cycles) in enumerate(records):
            assert sampled == (i >= len(prompt) - 1), f"record {i}: sampled is {sampled}"
            position = (first or 0) + i
            expected = subject.cycles(position, sampled)
            assert cycles == expected, f"position {position}: {cycles} cycles, predicted {expected}"
        # A second clock: the cycles the core was seen busy, the same few more for every run.
        spent = self.device.busy_cycles - busy - sum(cycles for _, _, cycles in records)
        assert spent == START_CYCLES, f"{spent} cycles beyond the tokens' own, {START_CYCLES} expected"
        assert not self.device.dut.fault.value, "an instruction missed its issue cycle"
        return [token for token, sampled, _ in records if sampled], reason


START_CYCLES = 3
"""Cycles from ``busy`` to the first cycle of the first token."""
