"""Bench of a board: nothing but two wires, a button and LEDs, with cocotbext-uart at the other end of the wires.

Power-on contents are put into the banks before the clock starts, as configuration does. Parameters: ``clock_hz``
and ``baud`` of the board; ``crystal_hz``, where the top makes its clock itself and has its BoardCore inside: there is
one power-on then, and one test.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import FallingEdge, Timer, with_timeout
from cocotbext.uart import UartSink, UartSource

from firmware.driver import Driver
from firmware.image_file import Image, section
from firmware.link import Frame, FrameDecoder, Record, done_payload, tokens_payload
from firmware.transport import TransportError
from fpga.board import DEBOUNCE_S
from fpga.boot import PRESENT
from fpga.contents import BOOT, boot_stream, power_on
from hdl.banks import ARRAY
from hdl.image import Reason
from hdl.link import Reply
from sim.reference import Sampling
from verification.context import context
from verification.models import GREEDY, Subject, random_model, sampling_of

PROMPT = [3, 41, 7]
LIMIT = 5
TEMPERATURE, TOPK, SEED = 1.5, 3, 20260
POWER_ON = sampling_of(TEMPERATURE, TOPK, SEED)
SILENCE = 30_000
"""Cycles without a byte after which the board is taken for dead."""
BUSY, ERROR, BOOT_LED, RECEIVED, SENT, LOST = range(1, 7)
"""LEDs."""


def cycle_ps() -> int:
    """Length of a cycle of the core."""
    return round(1e12 / context().params["clock_hz"])


def clocked() -> bool:
    """Whether the top makes its clock itself."""
    return "crystal_hz" in context().params


class Wires:
    """The other end of a board's UART: a Transport for a driver in a thread, and a decoder of frames."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        baud = context().params["baud"]
        self.source = UartSource(dut.rx, baud=baud)
        self.sink = UartSink(dut.tx, baud=baud)
        for peer in (self.source, self.sink):
            peer.log.setLevel(logging.WARNING)
        self._decoder = FrameDecoder()

    async def _write(self, data: bytes) -> None:
        self.source.write_nowait(data)

    async def _read(self) -> bytes:
        return bytes(await with_timeout(self.sink.read(), SILENCE * cycle_ps(), "ps"))

    def write(self, data: bytes) -> None:
        """Queues bytes; from a driver's thread."""
        resume(self._write)(data)

    def read(self, timeout: float) -> bytes:
        """What has arrived; from a driver's thread. Simulated time is the only clock."""
        try:
            return resume(self._read)()
        except cocotb.triggers.SimTimeoutError:
            raise TransportError(f"silent for {SILENCE} cycles") from None

    def close(self) -> None:
        """Nothing to give back."""

    async def frames(self, last: Callable[[Frame], bool], damaged: int = 0) -> list[Frame]:
        """Frames as they come, up to one that is the ``last``; at most so many damaged ones besides."""
        frames: list[Frame] = []
        while not frames or not last(frames[-1]):
            frames += self._decoder.feed(await self._read())
            assert self._decoder.bad <= damaged, "a damaged frame"
        return frames


@dataclasses.dataclass(frozen=True)
class Demo:
    """What the board holds at power-on, and what it must write then."""

    subject: Subject
    image: Image
    contents: Mapping[str, Sequence[int]]
    expected: list[int]

    def check(self, records: list[Record], prompt: list[int], limit: int, terms: Sampling) -> None:
        """Every token and every cycle count of a run."""
        ids = [r.token for r in records if r.sampled]
        assert ids == self.subject.generate(prompt, limit, terms), ids
        assert [r.cycles for r in records] == [self.subject.cycles(i, r.sampled) for i, r in enumerate(records)]


@functools.cache
def demo() -> Demo:
    """The same model in each test: banks keep their contents from one to the next."""
    ctx = context()
    subject = random_model(ctx.config, ctx.rng(1), ffn=8, context=16)
    sections = (section(s.space, s.sub, s.address, s.data) for s in subject.compiled.sections)
    image = Image(ctx.config, {}, tuple(sections))
    boot = boot_stream(image, PROMPT, LIMIT, TEMPERATURE, TOPK, SEED)
    return Demo(subject, image, power_on(image, ctx.config, boot), subject.generate(PROMPT, LIMIT, POWER_ON))


def configure(dut: Any, contents: Mapping[str, Sequence[int]]) -> None:
    """Puts words into banks (those that are not zero, as banks start)."""
    core = dut.board if clocked() else dut
    for path, words in contents.items():
        bank = functools.reduce(getattr, [*path.split("."), ARRAY], core)
        for i, word in enumerate(words):
            if word:
                bank.words[i].value = word


async def start(dut: Any) -> Wires:
    """Clock, and reset where it comes from outside."""
    dut.button.value = 0
    wires = Wires(dut)
    if clocked():
        Clock(dut.clk_in, round(1e12 / context().params["crystal_hz"]), "ps").start()
        await Timer(cycle_ps(), "ps")
        assert dut.board.hold.value, "not in reset before the PLL has locked"
        await FallingEdge(dut.board.hold)
        return wires
    dut.rst.value = 1
    await Timer(cycle_ps(), "ps")
    Clock(dut.clk, cycle_ps(), "ps").start()
    await cycles(3)
    dut.rst.value = 0
    return wires


async def cycles(count: int) -> None:
    """Waits."""
    await Timer(count * cycle_ps(), "ps")


def lit(dut: Any, led: int) -> bool:
    """Whether a LED is on."""
    return bool(int(dut.led.value) >> led & 1)


async def power_on_run(wires: Wires, damaged: int = 0) -> None:
    """Takes the run of the boot memory and checks it."""
    frames = await wires.frames(lambda f: f.type == Reply.DONE, damaged)
    assert {f.type for f in frames} <= {Reply.INFO, Reply.ACK, Reply.TOKENS, Reply.DONE}
    records = [r for f in frames if f.type == Reply.TOKENS for r in tokens_payload(f.payload)[1]]
    assert done_payload(frames[-1].payload) == (Reason.LIMIT, len(records))
    demo().check(records, PROMPT, LIMIT, POWER_ON)


@cocotb.test()
async def without_contents_it_waits(dut: Any) -> None:
    """Banks of zeros: the boot memory plays nothing, and the core answers over the wire."""
    if clocked():
        return
    wires = await start(dut)
    await cycles(10)
    assert not lit(dut, BOOT_LED) and not lit(dut, SENT)
    info = await bridge(Driver(wires, timeout=1e6).info)()
    assert info.config_hash == context().config.hash() and info.image == 0
    assert lit(dut, RECEIVED) and lit(dut, SENT) and not lit(dut, LOST) and not lit(dut, ERROR)


@cocotb.test()
async def writes_at_power_on(dut: Any) -> None:
    """Without a byte received it writes what the reference writes; then a host takes over and has its own run."""
    configure(dut, demo().contents)
    wires = await start(dut)
    dut._log.info("expected: %s, %d boot bytes", demo().expected, sum(w >= PRESENT for w in demo().contents[BOOT]))
    await cycles(10)
    assert lit(dut, BOOT_LED) and not lit(dut, BUSY)
    await power_on_run(wires)
    assert not lit(dut, BOOT_LED) and not lit(dut, RECEIVED) and lit(dut, SENT)

    prompt, limit = [9, 60], 4
    driver = Driver(wires, timeout=1e6)
    info = await bridge(driver.info)()
    assert info.image == demo().image.identity
    assert lit(dut, RECEIVED)

    def work() -> list[Record]:
        run = driver.run(prompt, limit)
        records = list(run)
        assert run.reason == Reason.LIMIT
        return records

    records = await bridge(work)()
    demo().check(records, prompt, limit, GREEDY)
    assert not lit(dut, LOST) and not lit(dut, ERROR)


@cocotb.test()
async def starts_again_at_a_press(dut: Any) -> None:
    """The button ends whatever is on, and the power-on run comes again, once; bounces of the contact do not count."""
    if clocked():
        return
    debounce = round(DEBOUNCE_S * context().params["clock_hz"])
    configure(dut, demo().contents)
    wires = await start(dut)
    while not lit(dut, BUSY):
        await cycles(10)
    for _ in range(3):
        for level in (1, 0):
            dut.button.value = level
            await cycles(debounce // 4)
    assert lit(dut, BUSY), "a bounce restarted the core"
    dut.button.value = 1
    await cycles(debounce + 30)
    assert lit(dut, BOOT_LED) and not lit(dut, BUSY)
    wires.sink.clear()
    dut.button.value = 0
    await power_on_run(wires, damaged=1)  # what the press cut off has no end of its own
    assert not lit(dut, ERROR)
    wires.source.write_nowait(b"no frame\0")
    (answer,) = await wires.frames(lambda f: f.type == Reply.ERROR, damaged=1)
    assert answer.type == Reply.ERROR and lit(dut, ERROR)
