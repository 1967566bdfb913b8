"""Bench of the host link: random sessions over a byte stream, checked against what the protocol promises."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge

from firmware.link import Frame, FrameDecoder, Info, Record, Status, done_payload, tokens_payload
from hdl import link
from hdl.config import Config
from hdl.contract import contract_hash
from hdl.image import Param, Reason, Space, row_bytes
from hdl.link import Fault, Reply, Request
from verification.context import context

LONGEST = 80_000
"""Cycles, beside two for each byte that waits, in which the link has to fall silent: twice what any test takes."""
Rows = list[tuple[int, int, int, int]]
"""Row writes: space, bank, row, data."""


class Link:
    """Both sides of a HostLink: a host's bytes, and a core that answers a start with ``records``.

    ``rx_pause`` and ``tx_stall``: share of the cycles in which the host offers, or takes, no byte.
    """

    def __init__(
        self, dut: Any, rng: np.random.Generator, rx_pause: float = 0.0, tx_stall: float = 0.0
    ) -> None:
        self.dut = dut
        self.rng = rng
        self.rx_pause = rx_pause
        self.tx_stall = tx_stall
        self.inbound: deque[int] = deque()
        self.received: list[Frame] = []
        self.loads: Rows = []
        self.starts = 0
        self.records: list[Record] = []
        self.gap = 10
        self.cycle = 0
        self.quiet = 0
        """Cycles since a byte went either way."""
        self._decoder = FrameDecoder()
        self._plan: deque[tuple[int, Record | None]] = deque()

    async def start(self) -> None:
        """Resets the design and lets both sides run."""
        dut = self.dut
        for signal in (
            dut.rx__valid, dut.rx__payload, dut.tx__ready, dut.run__busy, dut.run__record,
            dut.run__sampled, dut.run__token, dut.run__cycles, dut.run__done, dut.run__reason,
            dut.corrected, dut.uncorrectable,
        ):  # fmt: skip
            signal.value = 0
        dut.rst.value = 1
        Clock(dut.clk, 10, "ns").start()
        for _ in range(2):
            await RisingEdge(dut.clk)
        await FallingEdge(dut.clk)
        dut.rst.value = 0
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        dut = self.dut
        chance = self.rng.random
        pulsed = False
        while True:
            await FallingEdge(dut.clk)
            offer = bool(self.inbound) and (self.rx_pause == 0 or chance() >= self.rx_pause)
            take = self.tx_stall == 0 or chance() >= self.tx_stall
            dut.rx__valid.value = offer
            if offer:
                dut.rx__payload.value = self.inbound[0]
            dut.tx__ready.value = take
            if pulsed:
                dut.run__record.value = dut.run__done.value = 0
                pulsed = False
            if self._plan and self._plan[0][0] <= self.cycle:
                record = self._plan.popleft()[1]
                pulsed = True
                if record is None:
                    dut.run__done.value = 1
                    dut.run__reason.value = int(Reason.LIMIT)
                    dut.run__busy.value = 0
                else:
                    dut.run__record.value = 1
                    dut.run__token.value = record.token
                    dut.run__sampled.value = int(record.sampled)
                    dut.run__cycles.value = record.cycles
            # Ready may depend on what is offered: look when all has settled, before the edge takes it.
            await ReadOnly()
            self.cycle += 1
            self.quiet += 1
            if offer and dut.rx__ready.value:
                self.inbound.popleft()
                self.quiet = 0
            if take and dut.tx__valid.value:
                self.received += self._decoder.feed(bytes([int(dut.tx__payload.value)]))
                self.quiet = 0
            if dut.load__valid.value:
                assert not dut.busy.value, "a row was written during a run"
                self.loads.append((int(dut.load__space.value), int(dut.load__sub.value),
                                   int(dut.load__addr.value), int(dut.load__data.value)))  # fmt: skip
            if dut.run__start.value:
                assert not self._plan, "started during a run"
                self.starts += 1
                events = [*self.records, None]
                self._plan.extend((self.cycle + self.gap * (i + 1), event) for i, event in enumerate(events))

    def send(self, data: Frame | bytes) -> None:
        """Queues a frame, or plain bytes."""
        self.inbound.extend(data.encode() if isinstance(data, Frame) else data)

    async def settle(self, cycles: int = 900) -> list[Frame]:
        """Frames received until nothing moved for ``cycles`` (a full LOAD is silent for 700)."""
        self.quiet = 0
        longest = LONGEST + 2 * len(self.inbound)
        deadline = self.cycle + longest
        while self.quiet < cycles or self.inbound or self._plan:
            assert self.cycle < deadline, f"no end of bytes, or {len(self.inbound)} never taken, in {longest} cycles"
            await RisingEdge(self.dut.clk)
        assert self._decoder.bad == 0, "the device sent a damaged frame"
        frames, self.received = self.received, []
        return frames

    async def until(self, condition: Callable[[Frame], bool], cycles: int) -> list[Frame]:
        """Frames received up to the first that meets ``condition``, or what there is after ``cycles``."""
        deadline = self.cycle + cycles
        at = 0
        while self.cycle < deadline:
            while at < len(self.received):
                at += 1
                if condition(self.received[at - 1]):
                    frames, self.received = self.received[:at], self.received[at:]
                    return frames
            await RisingEdge(self.dut.clk)
        frames, self.received = self.received, []
        return frames


def some_load(cfg: Config, rng: np.random.Generator, seq: int) -> tuple[Frame, Rows]:
    """A LOAD of random rows, and the row writes that it asks for."""
    space = Space(int(rng.integers(len(Space))))
    row = row_bytes(cfg, space)
    banks, depth = link.space_shape(cfg, space)
    count = int(rng.integers(1, min(depth, link.ROWS_MAX // row) + 1))
    sub, addr = int(rng.integers(banks)), int(rng.integers(depth - count + 1))
    rows = rng.bytes(row * count)
    head = link.pack(Request.LOAD, space=space, sub=sub, addr=addr)
    writes = [
        (int(space), sub, addr + i, int.from_bytes(rows[row * i : row * (i + 1)], "little"))
        for i in range(count)
    ]
    return Frame(Request.LOAD, seq, head + rows), writes


def fault_of(frame: Frame) -> Fault:
    """What an ERROR frame complains of."""
    assert frame.type == Reply.ERROR
    return Fault(link.unpack(Reply.ERROR, frame.payload)["fault"])


@cocotb.test()
async def rows_arrive_exactly(dut: Any) -> None:
    """Random rows for every memory, in order and each once, while the host pauses at random."""
    ctx = context()
    rng = ctx.rng(1)
    bench = Link(dut, rng, rx_pause=0.2, tx_stall=0.3)
    await bench.start()
    bench.send(Frame(Request.INFO, 0))
    (hello,) = await bench.settle()
    info = Info.decode(hello.payload)
    assert info.config_hash == ctx.config.hash() and info.contract_hash == contract_hash(ctx.config)
    assert info.image == 0
    expected: Rows = []
    for seq in range(1, 25):
        frame, writes = some_load(ctx.config, rng, seq)
        bench.send(frame)
        expected += writes
    frames = await bench.settle()
    assert frames[-1].type == Reply.ACK and frames[-1].seq == 24
    assert bench.loads == expected
    identity = int(rng.integers(1, 1 << 63))
    head = link.pack(Request.LOAD, space=Space.PARAM, sub=0, addr=Param.IMAGE)
    bench.send(Frame(Request.LOAD, 25, head + identity.to_bytes(8, "little")))
    await bench.settle()
    bench.send(Frame(Request.INFO, 0))
    (hello,) = await bench.settle()
    assert Info.decode(hello.payload).image == identity


@cocotb.test()
async def random_session(dut: Any) -> None:
    """Good, damaged, repeated, early and impossible frames mixed: exactly the good ones count, once each."""
    ctx = context()
    rng = ctx.rng(2)
    bench = Link(dut, rng, rx_pause=0.1, tx_stall=0.1)
    await bench.start()
    bench.send(Frame(Request.INFO, 250))
    await bench.settle(100)
    last, previous = 250, Frame(Request.INFO, 250)
    expected: Rows = []
    for _ in range(60):
        frame, writes = some_load(ctx.config, rng, (last + 1) % 256)
        kind = rng.choice(["good", "damaged", "repeated", "early", "address", "rows", "half"])
        want: Reply | Fault = Reply.ACK
        if kind == "good":
            bench.send(frame)
            expected += writes
            last, previous = frame.seq, frame
        elif kind == "damaged":
            spoilt = bytearray(frame.encode())
            at = int(rng.integers(len(spoilt) - 1))
            spoilt[at] = spoilt[at] % 255 + 1  # another value, but no delimiter
            bench.send(bytes(spoilt))
            want = Reply.ERROR
        elif kind == "repeated":
            if previous.type == Request.INFO:
                continue
            bench.send(Frame(previous.type, previous.seq, frame.payload))
        elif kind == "early":
            bench.send(Frame(frame.type, (last + int(rng.integers(2, 128))) % 256, frame.payload))
            want = Fault.SEQUENCE
        elif kind == "address":
            fields = link.unpack(Request.LOAD, frame.payload)
            fields["addr"] = link.space_shape(ctx.config, Space(fields["space"]))[1]
            head = link.pack(Request.LOAD, **fields)
            bench.send(Frame(frame.type, frame.seq, head + frame.payload[len(head) :]))
            want = Fault.ADDRESS
        elif kind == "rows":
            bench.send(Frame(frame.type, frame.seq, frame.payload[:-1]))
            want = Fault.ROWS if len(frame.payload) - 1 > link.size(Request.LOAD) else Fault.LENGTH
        else:
            wire = frame.encode()
            bench.send(wire[: int(rng.integers(2, len(wire) - 1))] + b"\0")
            want = Reply.ERROR
        answers = await bench.settle()
        if want is Fault.SEQUENCE and not answers:
            continue  # only the first frame behind a gap is answered
        (answer,) = answers
        if isinstance(want, Fault):
            assert fault_of(answer) is want, kind
        else:
            assert answer.type == want, kind
        assert answer.type == Reply.ERROR or answer.seq == last
    assert bench.loads == expected


@cocotb.test()
async def survives_a_burst_of_random_bytes(dut: Any) -> None:
    """100 kB of noise (less in the slower simulator), half a frame, then work as if nothing had happened."""
    ctx = context()
    noise = 100_000 if ctx.sim == "verilator" else 20_000
    rng = ctx.rng(3)
    bench = Link(dut, rng)
    await bench.start()
    bench.send(Frame(Request.INFO, 7))
    bench.send(rng.bytes(noise))
    frame, writes = some_load(ctx.config, rng, 8)
    bench.send(b"\0" + frame.encode()[:7] + b"\0")
    frames = await bench.settle()
    assert frames[0].type == Reply.INFO
    assert len(frames) > 1 and all(f.type == Reply.ERROR for f in frames[1:])
    assert bench.loads == [] and bench.starts == 0
    bench.send(frame)
    (answer,) = await bench.settle()
    assert (answer.type, answer.seq) == (Reply.ACK, 8)
    assert bench.loads == writes
    bench.send(Frame(Request.STATUS, 0))
    (answer,) = await bench.settle(200)
    status = Status.decode(answer.payload)
    assert status.frames_ok == 3 and status.frames_bad >= len(frames) - 1


async def take_a_run(bench: Link, cfg: Config, seq: int, gap: int) -> None:
    """One run of a whole context; every record must come, once and in order."""
    rng = bench.rng
    bench.gap = gap
    bench.records = [
        Record(int(rng.integers(cfg.vocab_max)), bool(rng.random() < 0.9), int(rng.integers(1 << 22)))
        for _ in range(cfg.context_max)
    ]
    bench.send(Frame(Request.RUN, seq, link.pack(Request.RUN, until=link.EVERYTHING)))
    frames = await bench.until(lambda f: f.type == Reply.DONE, 400_000)
    got: list[Record] = []
    for frame in frames:
        if frame.type == Reply.TOKENS:
            first, records = tokens_payload(frame.payload)
            assert (first, frame.seq) == (len(got), seq)
            got += records
    assert got == bench.records
    assert frames[0].type == Reply.ACK
    assert done_payload(frames[-1].payload) == (Reason.LIMIT, len(got)) and frames[-1].seq == seq


@cocotb.test()
async def a_slow_reader_loses_nothing(dut: Any) -> None:
    """Whole contexts of tokens, faster than the host takes them, and slower."""
    ctx = context()
    bench = Link(dut, ctx.rng(4), tx_stall=0.8)
    await bench.start()
    bench.send(Frame(Request.INFO, 0))
    await bench.settle(200)
    for seq, (stall, gap) in enumerate([(0.8, 1), (0.95, 2), (0.0, 1), (0.0, 40)], start=1):
        bench.tx_stall = stall
        await take_a_run(bench, ctx.config, seq, gap)
    assert bench.starts == 4
    bench.send(Frame(Request.RUN, 4, link.pack(Request.RUN, until=link.EVERYTHING)))
    (answer,) = await bench.settle(300)
    assert (answer.type, answer.seq) == (Reply.ACK, 4) and bench.starts == 4, "a repeated RUN ran again"


@cocotb.test()
async def lost_records_are_sent_again(dut: Any) -> None:
    """CREDIT rewinds to any record, and holds the device at a limit."""
    ctx = context()
    rng = ctx.rng(5)
    bench = Link(dut, rng)
    await bench.start()
    bench.send(Frame(Request.INFO, 0))
    await bench.settle(200)
    await take_a_run(bench, ctx.config, 1, 5)
    for seq in range(2, 12):
        start, until = sorted(int(n) for n in rng.integers(0, ctx.config.context_max + 1, 2))
        bench.send(Frame(Request.CREDIT, seq, link.pack(Request.CREDIT, start=start, until=until)))
        frames = await bench.settle(300)
        assert (frames[0].type, frames[0].seq) == (Reply.ACK, seq)
        got = [r for f in frames if f.type == Reply.TOKENS for r in tokens_payload(f.payload)[1]]
        assert got == bench.records[start:until]
        assert (frames[-1].type == Reply.DONE) == (until == ctx.config.context_max)
