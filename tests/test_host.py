"""The host link in Amaranth's simulator: each unit against its counterpart in Python, then all of it."""

from __future__ import annotations

import dataclasses
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import pytest
from amaranth.back import verilog
from amaranth.hdl import Cat, Module, ResetInserter, Signal
from amaranth.sim import Simulator
from cobs import cobs

from firmware.driver import Driver
from firmware.link import (
    Frame,
    FrameDecoder,
    Info,
    LinkError,
    Record,
    Status,
    done_payload,
    load_payloads,
    tokens_payload,
)
from hdl import link
from hdl.config import CONFIGS, SCALARS, TINY
from hdl.contract import contract_hash
from hdl.host.byte_transmitter import ByteTransmitter
from hdl.host.cobs import CobsDecoder, CobsEncoder
from hdl.host.counters import Counters
from hdl.host.frame import FrameReceiver
from hdl.host.host import HostLink
from hdl.host.loader import Loader
from hdl.host.records import RecordStore
from hdl.host.transmitter import Transmitter
from hdl.image import Param, Reason, Space, row_bytes
from hdl.link import BOOT_RUN, Fault, Reply, Request

CYCLE = 1e-6
STUCK = 10_000
"""Cycles in a row without a byte taken, by which a device that is tested here would never take one again."""
AWKWARD = [
    b"", b"\0", b"\0\0", b"a", b"a\0", b"\0a", bytes(300), b"\1" * 253, b"\1" * 254, b"\1" * 255,
    b"\1" * 254 + b"\0", b"\1" * 253 + b"\0", b"\1" * 254 + b"\0\1", b"\1" * 508, b"\1" * 509,
    bytes(range(256)) * 2,
]  # fmt: skip
"""Contents at the edges of COBS blocks."""


def simulate(dut, *testbenches, cycles: int = 100_000) -> None:
    """Runs until the testbenches end; fails after ``cycles``."""
    sim = Simulator(dut)
    sim.add_clock(CYCLE)

    async def watchdog(ctx) -> None:
        for _ in range(cycles):  # not repeat(): it cannot be left behind when the others have ended
            await ctx.tick()
        raise AssertionError(f"no end after {cycles} cycles")

    for testbench in testbenches:
        sim.add_testbench(testbench)
    sim.add_testbench(watchdog, background=True)
    sim.run()


async def send(ctx, port, payloads: Iterable, pause: Callable[[], bool] = lambda: False) -> None:
    """Payloads into a stream, each held until it is taken."""
    for payload in payloads:
        while pause():
            await ctx.tick()
        ctx.set(port.payload, payload)
        ctx.set(port.valid, 1)
        await ctx.tick().until(port.ready)
        ctx.set(port.valid, 0)


def sometimes(seed: int, share: float) -> Callable[[], bool]:
    """True with probability ``share``."""
    rng = random.Random(seed)
    return lambda: rng.random() < share


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_decoder_matches_the_library(share: float) -> None:
    dut = CobsDecoder()
    rng = random.Random(1)
    contents = AWKWARD + [rng.randbytes(rng.randrange(40)) for _ in range(30)]
    wire = b"".join(cobs.encode(c) + b"\0" for c in contents) + b"\0\5ab\0\1\0"
    got: list[tuple[bytes, int]] = []

    async def feed(ctx) -> None:
        await send(ctx, dut.i, wire, sometimes(2, share))

    async def drain(ctx) -> None:
        stall, current = sometimes(3, share), b""
        while len(got) < len(contents) + 3:
            ctx.set(dut.o.ready, not stall())
            _, _, valid, ready, p = await ctx.tick().sample(dut.o.valid, dut.o.ready, dut.o.payload)
            if valid and ready:
                if p.end:
                    got.append((current, p.bad))
                    current = b""
                else:
                    current += bytes([p.data])

    simulate(dut, feed, drain)
    assert got == [(c, 0) for c in contents] + [(b"", 0), (b"ab", 1), (b"", 0)]


@pytest.mark.parametrize("share", [0.0, 0.7])
def test_encoder_is_undone_by_the_library(share: float) -> None:
    dut = CobsEncoder()
    rng = random.Random(5)
    contents = [c for c in AWKWARD if c] + [rng.randbytes(rng.randrange(1, 30)) for _ in range(30)]
    plain = [{"data": byte, "last": i == len(c) - 1} for c in contents for i, byte in enumerate(c)]
    wire = bytearray()

    async def feed(ctx) -> None:
        await send(ctx, dut.i, plain, sometimes(6, share / 2))

    async def drain(ctx) -> None:
        stall = sometimes(7, share)
        while wire.count(0) < len(contents):
            ctx.set(dut.o.ready, not stall())
            _, _, valid, ready, byte = await ctx.tick().sample(dut.o.valid, dut.o.ready, dut.o.payload)
            if valid and ready:
                wire.append(byte)

    simulate(dut, feed, drain)
    assert [cobs.decode(block) for block in bytes(wire).split(b"\0")[:-1]] == contents


def test_encoder_takes_a_byte_a_cycle() -> None:
    dut = CobsEncoder()
    taken = []

    async def feed(ctx) -> None:
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i.valid, 1)
        for i in range(2000):
            ctx.set(dut.i.payload, {"data": (i * 7) % 256, "last": 0})
            _, _, ready = await ctx.tick().sample(dut.i.ready)
            taken.append(ready)

    simulate(dut, feed)
    assert sum(taken[1:]) >= 1990


def _split(value: int, widths: Iterable[int]) -> Iterator[int]:
    """Parts of a Cat, of these widths."""
    for width in widths:
        yield value & ((1 << width) - 1)
        value >>= width


class Bench:
    """A HostLink with a model of the core behind it and a host's transport before it.

    ``loads``: row writes seen; ``starts`` and ``aborts``: cycles of those pulses. The core answers a start
    with ``records``, ``gap`` cycles apart, then with ``reason``.
    """

    def __init__(
        self, seed: int = 0, tx_stall: float = 0.0, rx_pause: float = 0.0, byte_frames: bool = False
    ) -> None:
        self.dut = HostLink(dataclasses.replace(TINY, byte_frames=byte_frames))
        self.loads: list[tuple[int, ...]] = []
        self.starts: list[int] = []
        self.aborts: list[int] = []
        self.records: list[Record] = []
        self.reason = Reason.LIMIT
        self.gap = 20
        self.words_found: dict[str, int] = {}
        """Counts of words with errors in each cycle, by port."""
        self.core_busy = False
        """The core runs without having been asked to."""
        self._resetting = False
        self.cycle = 0
        self._time = 0
        self.tx_stopped = False
        self.stalled = 0
        """Cycles in a row for which ``rx`` was not ready; the longest of them."""
        self._inbound: deque[int] = deque()
        self._outbound = bytearray()
        self._decoder = FrameDecoder()
        self._stall = sometimes(seed, tx_stall)
        self._pause = sometimes(seed + 1, rx_pause)
        self.error = False
        """The port of that name, as of the last cycle."""
        self._reset = Signal()
        dut = self.dut
        sampled = (
            dut.rx.ready, dut.tx.valid, dut.tx.payload, dut.run.start, dut.run.abort, dut.error,
            dut.load.valid, dut.load.space, dut.load.sub, dut.load.addr, dut.load.data,
        )  # fmt: skip
        # One signal: a simulator in Python takes longer to read a dozen than to simulate what is behind them.
        self._seen = Signal(sum(map(len, sampled)))
        self._widths = [len(port) for port in sampled]
        m = Module()
        m.submodules.dut = ResetInserter(self._reset)(dut)
        m.d.comb += self._seen.eq(Cat(sampled))
        self._sim = Simulator(m)
        self._sim.add_clock(CYCLE)
        self._sim.add_testbench(self._run, background=True)

    async def _run(self, ctx) -> None:
        dut, plan, waited = self.dut, deque[tuple[int, Record | Reason]](), 0
        inputs = {
            "offer": dut.rx.valid, "byte": dut.rx.payload, "taken": dut.tx.ready, "busy": dut.run.busy,
            "record": dut.run.record, "done": dut.run.done,
            "corrected": dut.corrected, "uncorrectable": dut.uncorrectable,
        }  # fmt: skip
        held = dict.fromkeys(inputs, 0)

        def drive(name: str, value: int) -> None:
            """Sets an input that is not what it was: setting costs as much as simulating."""
            if held[name] != value:
                held[name] = value
                ctx.set(inputs[name], value)

        while True:
            if self._resetting:
                self._resetting = False
                for name in ("offer", "record", "done", "busy"):
                    drive(name, 0)
                ctx.set(self._reset, 1)
                await ctx.tick()
                ctx.set(self._reset, 0)
                plan, waited = deque(), 0
                self.loads, self.starts = [], []
                self._inbound.clear()
                self._outbound.clear()
                self._decoder = FrameDecoder()
            offer = bool(self._inbound) and not self._pause()
            drive("offer", offer)
            if offer:
                drive("byte", self._inbound[0])
            taken = not self.tx_stopped and not self._stall()
            drive("taken", taken)
            if self.core_busy:
                drive("busy", 1)
            drive("corrected", self.words_found.get("corrected", 0))
            drive("uncorrectable", self.words_found.get("uncorrectable", 0))
            event = plan.popleft()[1] if plan and plan[0][0] <= self.cycle else None
            drive("record", isinstance(event, Record))
            drive("done", isinstance(event, Reason))
            if isinstance(event, Record):
                ctx.set(dut.run.token, event.token)
                ctx.set(dut.run.sampled, event.sampled)
                ctx.set(dut.run.cycles, event.cycles)
            elif event is not None:
                ctx.set(dut.run.reason, event)
                drive("busy", 0)
            seen = (await ctx.tick().sample(self._seen))[2]
            ready, valid, tx, start, abort, error, load, *row = _split(seen, self._widths)
            self.error = bool(error)
            self.cycle += 1
            if offer and ready:
                self._inbound.popleft()
            waited = waited + 1 if offer and not ready else 0
            self.stalled = max(self.stalled, waited)
            if valid and taken:
                self._outbound.append(tx)
            if load:
                self.loads.append(tuple(row))
            if start:
                assert not held["busy"]
                self.starts.append(self.cycle)
                drive("busy", 1)
                events: list[Record | Reason] = [*self.records, self.reason]
                plan.extend((self.cycle + self.gap * (i + 1), event) for i, event in enumerate(events))
            if abort:
                self.aborts.append(self.cycle)
                plan = deque([(self.cycle + 5, Reason.ABORT)])

    def step(self, cycles: int) -> None:
        """Advances the simulation."""
        if cycles:
            self._time += cycles
            self._sim.run_until((self._time + 0.25) * CYCLE)  # between edges: the sum of floats may be short
        assert self.stalled < STUCK, "the device takes no more bytes"

    def reset(self) -> None:
        """Resets the device for one cycle, whatever it is doing; host and core forget what is under way."""
        self._resetting = True
        self.step(2)

    # A transport for the driver; simulated time passes only while it reads.

    def write(self, data: bytes) -> None:
        self._inbound.extend(data)

    def read(self, timeout: float) -> bytes:
        self.step(100)
        data = bytes(self._outbound)
        self._outbound.clear()
        return data

    def close(self) -> None:
        pass

    # And frames for tests that do without one.

    def send(self, *frames: Frame | bytes) -> None:
        """Queues frames, or plain bytes."""
        for frame in frames:
            self.write(frame.encode() if isinstance(frame, Frame) else frame)

    def frames(self, cycles: int = 0) -> list[Frame]:
        """Frames sent by the device until everything queued is taken and nothing came for a while.

        ``cycles``: for which it may be silent at first.
        """
        while self._inbound:
            self.step(50)
        self.step(cycles)
        quiet = 0
        while self._inbound or quiet < 6:
            before = len(self._outbound)
            self.step(50)
            quiet = 0 if self._inbound or len(self._outbound) > before else quiet + 1
        got = self._decoder.feed(bytes(self._outbound))
        self._outbound.clear()
        assert self._decoder.bad == 0
        return got

    def talk(self, *frames: Frame | bytes) -> list[Frame]:
        """Frames one by one, the answers to each awaited: a later answer may take an earlier one's place."""
        got = []
        for frame in frames:
            self.send(frame)
            got += self.frames()
        return got


def driver(bench: Bench, **options) -> Driver:
    """A driver that waits long enough for a simulator."""
    return Driver(bench, timeout=5.0, retries=1, **options)


def summary(frames: Iterable[Frame]) -> list[tuple]:
    """(type, sequence number) or (ERROR, fault)."""
    return [
        (Reply.ERROR, Fault(link.unpack(Reply.ERROR, f.payload)["fault"]))
        if f.type == Reply.ERROR
        else (Reply(f.type), f.seq)
        for f in frames
    ]


def hello(seq: int = 0) -> Frame:
    return Frame(Request.INFO, seq)


def load(seq: int, space: int, addr: int, rows: bytes, sub: int = 0) -> Frame:
    return Frame(Request.LOAD, seq, link.pack(Request.LOAD, space=space, sub=sub, addr=addr) + rows)


def run(seq: int, until: int = link.EVERYTHING) -> Frame:
    return Frame(Request.RUN, seq, link.pack(Request.RUN, until=until))


def credit(seq: int, start: int, until: int = link.EVERYTHING) -> Frame:
    return Frame(Request.CREDIT, seq, link.pack(Request.CREDIT, start=start, until=until))


def some_records(count: int, seed: int = 0) -> list[Record]:
    """Records of which the first few are a prompt's."""
    rng = random.Random(seed)
    return [Record(rng.randrange(TINY.vocab_max), i > 2, rng.randrange(1, 5000)) for i in range(count)]


def test_info_tells_the_config_and_says_hello() -> None:
    bench = Bench()
    bench.send(hello(77))
    (frame,) = bench.frames()
    info = Info.decode(frame.payload)
    assert frame.seq == 77 and info.config is TINY
    assert (info.context_max, info.vocab_max, info.topk_max) == (64, 512, 4)
    assert info.contract_hash == contract_hash(TINY) and info.image == 0


def test_info_tells_which_image_was_loaded() -> None:
    bench = Bench()
    word = bytes(range(0xA1, 0xA9))
    other = Param.IMAGE - 1, Param.IMAGE + 1
    bench.talk(hello(), load(1, Space.PARAM, Param.IMAGE, word), *(
        load(i, space, addr, bytes(row_bytes(TINY, space)))
        for i, (space, addr) in enumerate([*((Space.PARAM, a) for a in other), (Space.PROMPT, Param.IMAGE)], 2)
    ))  # fmt: skip
    bench.send(hello(50))
    assert Info.decode(bench.frames()[0].payload).image.to_bytes(8, "little") == word
    bench.talk(load(51, Space.PARAM, Param.IMAGE, bytes(8)))
    bench.send(hello(60))
    assert Info.decode(bench.frames()[0].payload).image == 0


@pytest.mark.parametrize("space", list(Space))
def test_rows_arrive_exactly(space: Space) -> None:
    bench = Bench(rx_pause=0.2 if space % 2 else 0.0)
    row = row_bytes(TINY, space)
    banks, depth = link.space_shape(TINY, space)
    count = min(depth, 2 * (link.ROWS_MAX // row) + 3)
    rows = random.Random(space).randbytes(row * count)
    payloads = list(load_payloads(TINY, [(space, banks - 1, depth - count, rows)]))
    bench.send(hello(), *(Frame(Request.LOAD, i + 1, p) for i, p in enumerate(payloads)))
    last = bench.frames(cycles=700)[-1]  # a full LOAD takes a while to carry out
    assert summary([last]) == [(Reply.ACK, len(payloads))]
    assert bench.loads == [
        (space, banks - 1, depth - count + i, int.from_bytes(rows[row * i : row * (i + 1)], "little"))
        for i in range(count)
    ]


def test_a_byte_a_cycle_is_taken() -> None:
    """Frames of full length in a row: the next one is received while one is carried out."""
    bench = Bench()
    rows = bytes(range(1, 253)) * 2
    assert len(rows) % row_bytes(TINY, Space.WEIGHT) == 0
    bench.send(hello(), *(load(i + 1, Space.WEIGHT, 0, rows) for i in range(20)))
    queued = len(bench._inbound)
    while bench._inbound:
        bench.step(10)
    assert bench.cycle < 1.2 * queued
    assert bench.stalled < 100
    assert summary(bench.frames(cycles=700))[-1] == (Reply.ACK, 20)


BAD_FRAMES = [
    (Frame(0x40, 1), Fault.TYPE),
    (Frame(Reply.ACK, 1), Fault.TYPE),
    (Frame(Request.INFO, 1, b"x"), Fault.LENGTH),
    (Frame(Request.RUN, 1), Fault.LENGTH),
    (Frame(Request.ABORT, 1, b"\0"), Fault.LENGTH),
    (Frame(Request.CREDIT, 1, bytes(3)), Fault.LENGTH),
    (Frame(Request.LOAD, 1, bytes(4)), Fault.LENGTH),
    (load(1, Space.WEIGHT, 0, b""), Fault.LENGTH),
    (load(1, 8, 0, bytes(8)), Fault.SPACE),
    (load(1, 255, 0, bytes(8)), Fault.SPACE),
    (load(1, Space.WEIGHT, 0, bytes(9)), Fault.ROWS),
    (load(1, Space.CONST, 0, bytes(2)), Fault.ROWS),
    (load(1, Space.PROGRAM, 0, bytes(507)), Fault.ROWS),
    (load(1, Space.WEIGHT, 0, bytes(8), sub=TINY.columns), Fault.ADDRESS),
    (load(1, Space.SCALE, 0, bytes(8), sub=1), Fault.ADDRESS),
    (load(1, Space.WEIGHT, TINY.weight_depth, bytes(8)), Fault.ADDRESS),
    (load(1, Space.WEIGHT, TINY.weight_depth - 1, bytes(16)), Fault.ADDRESS),
    (load(1, Space.CONST, (1 << 24) - 1, bytes(6)), Fault.ADDRESS),
    (credit(1, 1), Fault.ADDRESS),
    (run(3), Fault.SEQUENCE),
    (b"\5ab\0", Fault.COBS),
    (cobs.encode(b"abc") + b"\0", Fault.SHORT),
    (cobs.encode(bytes(5)) + b"\0", Fault.SHORT),
    (cobs.encode(bytes(519)) + b"\0", Fault.OVERSIZE),
    (cobs.encode(b"\7" * 5000) + b"\0", Fault.OVERSIZE),
    (cobs.encode(bytes(518)) + b"\0", Fault.CRC),
    (b"\xaa" * 3000 + b"\0", Fault.COBS),
    (b"\xaa" * 170 * 18 + b"\0", Fault.OVERSIZE),
    (cobs.encode(cobs.decode(run(1).encode()[:-1])[:-1] + b"\xee") + b"\0", Fault.CRC),
]


@pytest.mark.parametrize("connected", [True, False])
def test_bad_frames_are_answered_and_change_nothing(connected: bool) -> None:
    bench = Bench()
    for frame, fault in BAD_FRAMES:
        if connected:
            bench.send(hello())
            assert summary(bench.frames()) == [(Reply.INFO, 0)]
        elif fault > Fault.RESET:
            fault = Fault.RESET
        bench.send(frame)
        assert summary(bench.frames()) == [(Reply.ERROR, fault)], frame
    assert (bench.loads, bench.starts, bench.aborts) == ([], [], [])
    assert summary(bench.talk(hello(9), run(10))) == [(Reply.INFO, 9), (Reply.ACK, 10), (Reply.DONE, 10)]
    assert len(bench.starts) == 1


def test_longest_frame_is_taken() -> None:
    """512 bytes of payload: what is refused is the type, behind all checks of the wire."""
    bench = Bench()
    got = bench.talk(hello(), Frame(0x40, 1, bytes(512)), Frame(0x40, 1, b"\1" * 512))
    assert summary(got)[1:] == [(Reply.ERROR, Fault.TYPE)] * 2


def test_garbage_and_half_frames_then_a_good_one() -> None:
    bench = Bench()
    rng = random.Random(11)
    bench.send(hello(), rng.randbytes(6000), b"\0", load(1, Space.SCALE, 3, b"12345678").encode()[:9])
    bench.send(b"\0", load(1, Space.SCALE, 3, b"abcdefgh"))
    got = summary(bench.frames())
    assert got[0] == (Reply.INFO, 0) and got[-2:] == [(Reply.ERROR, Fault.COBS), (Reply.ACK, 1)]
    assert all(kind == Reply.ERROR for kind, _ in got[1:-1]) and len(got) > 10
    assert bench.loads == [(Space.SCALE, 0, 3, int.from_bytes(b"abcdefgh", "little"))]


def test_half_frame_joined_to_a_good_one_spoils_both() -> None:
    """Without a delimiter between them they are one bad frame; the repetition gets through."""
    bench = Bench()
    good = load(1, Space.CONST, 1, b"abc")
    bench.send(hello(), good.encode()[:6], good, good)
    kinds = [kind for kind, _ in summary(bench.frames())]
    assert kinds == [Reply.INFO, Reply.ERROR, Reply.ACK]
    assert len(bench.loads) == 1


def test_a_host_learns_of_a_boot_memorys_run() -> None:
    """Behind it nothing of an earlier conversation fits, neither as the next frame nor as a repetition."""
    bench = Bench()
    bench.talk(hello(254), load(255, Space.CONST, 1, b"abc"))
    got = bench.talk(run(BOOT_RUN), Frame(Request.ABORT, 1), Frame(Request.ABORT, 200), Frame(Request.STATUS, 9))
    assert (Reply.ACK, BOOT_RUN) in summary(got) and (Reply.STATUS, 9) in summary(got)
    assert summary(got).count((Reply.ERROR, Fault.RESET)) == 2
    assert summary(bench.talk(hello(7), Frame(Request.ABORT, 8))) == [(Reply.INFO, 7), (Reply.ACK, 8)]


def test_empty_frames_are_ignored() -> None:
    bench = Bench()
    bench.send(b"\0\0\0\1\0", hello(5), b"\0\0", Frame(Request.ABORT, 6))
    assert summary(bench.frames()) == [(Reply.INFO, 5), (Reply.ACK, 6)]
    assert bench.aborts == []


def test_repetitions_are_acknowledged_and_not_carried_out() -> None:
    bench = Bench()
    first = load(0, Space.CONST, 1, b"abc")
    got = bench.talk(hello(255), first, load(0, Space.CONST, 1, b"xyz"), run(1))
    assert summary(got) == [
        (Reply.INFO, 255), (Reply.ACK, 0), (Reply.ACK, 0), (Reply.ACK, 1), (Reply.DONE, 1),
    ]  # fmt: skip
    got = bench.talk(run(1), first, load(130, Space.CONST, 1, b"xyz"))
    assert summary(got) == [(Reply.ACK, 1)] * 3
    bench.send(load(128, Space.CONST, 1, b"xyz"))
    assert summary(bench.frames()) == [(Reply.ERROR, Fault.SEQUENCE)]
    assert len(bench.starts) == 1 and len(bench.loads) == 1


def test_frames_behind_a_gap_are_answered_once() -> None:
    bench = Bench()
    got = bench.talk(hello(), *(load(i, Space.CONST, i, b"abc") for i in (1, 3, 4, 5)))
    assert summary(got) == [(Reply.INFO, 0), (Reply.ACK, 1), (Reply.ERROR, Fault.SEQUENCE)]
    got = bench.talk(*(load(i, Space.CONST, i, b"abc") for i in (2, 3, 4, 5, 7)))
    assert summary(got)[-2:] == [(Reply.ACK, 5), (Reply.ERROR, Fault.SEQUENCE)]
    assert [addr for _, _, addr, _ in bench.loads] == [1, 2, 3, 4, 5]


def test_load_and_run_are_refused_during_a_run() -> None:
    bench = Bench()
    bench.records, bench.gap = some_records(10), 1000
    got = bench.talk(hello(), run(1), load(2, Space.CONST, 1, b"abc"), run(2), Frame(Request.ABORT, 2))
    kinds = [kind for kind in summary(got) if kind[0] != Reply.TOKENS]
    assert kinds == [
        (Reply.INFO, 0), (Reply.ACK, 1), (Reply.ERROR, Fault.BUSY), (Reply.ERROR, Fault.BUSY),
        (Reply.ACK, 2), (Reply.DONE, 1),
    ]  # fmt: skip
    assert bench.loads == [] and len(bench.starts) == 1 and len(bench.aborts) == 1
    bench.send(load(3, Space.CONST, 1, b"abc"))
    assert summary(bench.frames()) == [(Reply.ACK, 3)]


def test_a_core_that_runs_by_itself_is_busy_too() -> None:
    bench = Bench()
    bench.core_busy = True
    got = bench.talk(hello(), load(1, Space.CONST, 1, b"abc"), run(1), Frame(Request.STATUS, 1))
    assert summary(got)[1:3] == [(Reply.ERROR, Fault.BUSY)] * 2
    assert Status.decode(got[3].payload).busy and not bench.loads and not bench.starts


def test_the_bus_is_zero_above_a_short_row() -> None:
    bench = Bench()
    bench.talk(hello(), load(1, Space.WEIGHT, 0, b"\xff" * 8), load(2, Space.CONST, 0, b"\1\2\3"))
    assert [data for *_, data in bench.loads] == [(1 << 64) - 1, 0x030201]


def test_load_and_start_keep_their_distance() -> None:
    bench = Bench()
    bench.send(hello(), load(1, Space.CONST, 1, b"abc"))
    bench.frames()
    ends: list[int] = []
    bench.send(load(2, Space.CONST, 1, bytes(3 * (SCALARS - 1))), run(3))
    while not bench.starts and bench.cycle < 5000:
        before = len(bench.loads)
        bench.step(1)
        if len(bench.loads) > before:
            ends.append(bench.cycle)
    assert bench.starts[0] - ends[-1] >= 6


@pytest.mark.parametrize(("stall", "gap"), [(0.0, 7), (0.9, 7), (0.5, 1), (0.97, 1)])
def test_a_slow_reader_loses_nothing(stall: float, gap: int) -> None:
    bench = Bench(seed=21, tx_stall=stall)
    bench.records, bench.gap = some_records(TINY.context_max), gap
    bench.send(hello(), run(1))
    frames = bench.frames(500)
    got: list[Record] = []
    for frame in frames:
        if frame.type == Reply.TOKENS:
            first, records = tokens_payload(frame.payload)
            assert first == len(got) and frame.seq == 1 and 1 <= len(records) <= link.BATCH_MAX
            got += records
    assert got == bench.records
    assert frames[-1].type == Reply.DONE
    assert done_payload(frames[-1].payload) == (Reason.LIMIT, TINY.context_max)
    if stall > 0.9:
        assert len([f for f in frames if f.type == Reply.TOKENS]) < 30, "records are sent in batches"


def test_a_stopped_reader_stops_neither_core_nor_receiver() -> None:
    bench = Bench()
    bench.tx_stopped = True
    bench.records, bench.gap = some_records(TINY.context_max), 3
    bench.send(hello(), *(load(i, Space.CONST, 0, b"abc") for i in range(1, 200)), run(200))
    bench.step(6000)
    assert not bench._inbound and len(bench.loads) == 199
    bench.tx_stopped = False
    frames = bench.frames()
    assert summary(frames)[-1] == (Reply.DONE, 200)
    records = [r for f in frames if f.type == Reply.TOKENS for r in tokens_payload(f.payload)[1]]
    assert records == bench.records


def test_credit_holds_and_rewinds() -> None:
    bench = Bench()
    bench.records, bench.gap = some_records(20), 2
    bench.talk(hello())
    bench.send(run(1, until=5))

    def records(frames: list[Frame]) -> list[tuple[int, list[Record]]]:
        return [tokens_payload(f.payload) for f in frames if f.type == Reply.TOKENS]

    frames = bench.frames(200)
    assert [r for _, batch in records(frames) for r in batch] == bench.records[:5]
    assert all(f.type != Reply.DONE for f in frames), "an end is told after the last record"
    bench.send(credit(2, link.KEEP, 12))
    assert records(bench.frames()) == [(5, bench.records[5:12])]
    bench.send(credit(3, 2, 4))
    assert records(bench.frames()) == [(2, bench.records[2:4])]
    bench.send(credit(4, 10))
    frames = bench.frames()
    assert records(frames) == [(10, bench.records[10:])] and frames[-1].type == Reply.DONE
    bench.send(credit(5, 20))
    assert summary(bench.frames()) == [(Reply.ACK, 5), (Reply.DONE, 1)]
    bench.send(credit(6, 21))
    assert summary(bench.frames()) == [(Reply.ERROR, Fault.ADDRESS)]
    assert records(bench.talk(run(6, until=0), credit(7, 0, 0))) == []


def test_cycles_saturate_and_surplus_records_are_reported() -> None:
    bench = Bench()
    bench.records = [Record(1, True, (1 << 32) - 1)] * (TINY.context_max + 1)
    bench.gap = 1
    bench.send(hello(), run(1))
    frames = bench.frames(300)
    records = [r for f in frames if f.type == Reply.TOKENS for r in tokens_payload(f.payload)[1]]
    assert records == [Record(1, True, link.CYCLES_MAX)] * TINY.context_max
    bench.send(Frame(Request.STATUS, 0))
    assert Status.decode(bench.frames()[0].payload).lost


def test_status_counts() -> None:
    bench = Bench()
    bench.records, bench.gap = some_records(10), 50
    bench.talk(hello(), run(1), b"\5a\0")
    bench.step(1000)
    frame = bench.talk(run(3), Frame(Request.STATUS, 200))[-1]
    status = Status.decode(frame.payload)
    assert frame.seq == 200
    assert (status.busy, status.lost, status.fault, status.last) == (False, False, Fault.SEQUENCE, 1)
    assert (status.frames_ok, status.frames_bad, status.records) == (3, 2, 10)
    assert status.tokens == sum(r.sampled for r in bench.records)
    # From the cycle after start to done: eleven gaps.
    assert status.cycles == 11 * 50 + 1


def test_words_with_errors_are_counted_and_end_the_image() -> None:
    """Several in a cycle, too. Behind an uncorrectable one the device tells no image, so that it is loaded again."""
    bench = Bench()
    identity = b"\1\2\3\4\5\6\7\x08"
    bench.talk(hello(), load(1, Space.PARAM, Param.IMAGE, identity))

    def told() -> tuple[int, int, int]:
        info, status = bench.talk(hello(1), Frame(Request.STATUS, 9))[-2:]
        fields = link.unpack(Reply.INFO, info.payload)
        counts = Status.decode(status.payload)
        return fields["image"], counts.corrected, counts.uncorrectable

    def happens(cycles: int, **found: int) -> None:
        for port, count in found.items():
            bench.words_found[port] = count
        bench.step(cycles)
        bench.words_found.clear()
        bench.step(2)

    image = int.from_bytes(identity, "little")
    assert told() == (image, 0, 0)
    happens(3, corrected=2)
    assert told() == (image, 6, 0)
    happens(1, corrected=1, uncorrectable=3)
    assert told() == (0, 7, 3)


def test_status_during_a_run_is_busy_and_outside_the_sequence() -> None:
    bench = Bench()
    bench.records, bench.gap = some_records(5), 1000
    got = bench.talk(hello(), run(1), Frame(Request.STATUS, 99), hello(50), Frame(Request.ABORT, 51))
    frames = [f for f in got if f.type != Reply.TOKENS]
    assert summary(frames)[1:5] == [(Reply.ACK, 1), (Reply.STATUS, 99), (Reply.INFO, 50), (Reply.ACK, 51)]
    assert Status.decode(frames[2].payload).busy


def test_error_tells_of_the_last_frame() -> None:
    bench = Bench()
    errors = []
    for frame in (hello(), b"\5a\0", Frame(Request.STATUS, 9), load(1, 15, 0, b"x"), hello(4)):
        bench.talk(frame)
        errors.append(bool(bench.error))
    assert errors == [False, True, False, True, False]


def _session(bench: Bench) -> tuple:
    """What a host, and what the core, see of a few frames."""
    bench.records, bench.gap = some_records(6), 20
    rows = bytes(range(24))
    got = bench.talk(hello(200), load(201, Space.SCALE, 5, rows), run(202), Frame(Request.STATUS, 7))
    return [(f.type, f.seq, f.payload) for f in got], bench.loads, len(bench.starts)


def test_a_reset_ends_whatever_goes_on() -> None:
    """For one cycle, at any time: in a frame, a load, a run, an answer. What follows is as after power-on."""
    expected = _session(Bench())
    bench, rng = Bench(), random.Random(3)
    for i in range(14):
        bench.records, bench.gap = some_records(30, i), rng.choice([2, 15])
        bench.send(hello(i), load(i + 1, Space.WEIGHT, 1, rng.randbytes(64)), b"\5a\0" * (i % 3), run(i + 2))
        bench.step(rng.randrange(10, 500))
        bench.reset()
        assert _session(bench) == expected


@pytest.mark.parametrize(("seed", "stall", "gap"), [(1, 0.0, 2), (2, 0.6, 20), (3, 0.95, 1)])
def test_frames_made_of_bytes_are_the_same(seed: int, stall: float, gap: int) -> None:
    """Both transmitters answer alike: everything of a session but how many records a frame has, and a new one behind a
    reset in the middle of it."""

    def session(bench: Bench) -> list[object]:
        bench.records, bench.gap = some_records(40, seed), gap
        got: list[object] = []
        records: list[Record] = []
        wrong = [frame for frame, _ in BAD_FRAMES[seed::7]]
        for frame in (hello(9), load(10, Space.SCALE, 5, bytes(range(24))), *wrong, run(11), Frame(Request.STATUS, 7),
                      credit(12, 3), Frame(Request.ABORT, 13)):  # fmt: skip
            for answer in bench.talk(frame):
                if answer.type == Reply.TOKENS:
                    records += tokens_payload(answer.payload)[1]
                elif answer.type == Reply.INFO:
                    info = Info.decode(answer.payload)
                    got.append((answer.seq, dataclasses.replace(info, config_hash="", contract_hash="")))
                else:
                    got.append((answer.type, answer.seq, answer.payload))
        return [got, records, bench.loads, len(bench.starts)]

    expected = session(Bench())
    bench = Bench(seed, stall, byte_frames=True)
    assert session(bench) == expected
    bench.send(hello(), run(1))
    bench.step(100 + 40 * seed)
    bench.reset()
    assert session(bench) == expected


@pytest.mark.parametrize("credits", [None, 2, 9])
def test_driver_on_the_hardware(credits: int | None) -> None:
    bench = Bench(seed=31, tx_stall=0.3)
    bench.records, bench.gap = some_records(40), 30
    host = driver(bench, credit=credits)
    rows = random.Random(1).randbytes(8 * 200)
    sizes: list[int] = []
    host.load([(Space.WEIGHT, 2, 10, rows), (Space.PHASE, 0, 1, bytes(6))], sizes.append)
    assert [data for space, *_, data in bench.loads if space == Space.WEIGHT] == [
        int.from_bytes(rows[i : i + 8], "little") for i in range(0, len(rows), 8)
    ]
    assert sizes[-1] == len(rows) + 6
    out = host.run([1, 2, 3], 37, temperature=0.7, topk=3, seed=5, stop_ids=[2])
    assert list(out) == bench.records
    assert out.reason is Reason.LIMIT
    assert host.resent == 0
    status = host.status()
    assert (status.tokens, status.records, status.frames_bad) == (37, 40, 0)


def test_driver_aborts_and_starts_again() -> None:
    bench = Bench()
    bench.records, bench.gap = some_records(40), 500
    host = driver(bench)
    out = host.run([1], 40)
    assert next(out) == bench.records[0]
    with pytest.raises(LinkError, match="a run is in progress"):
        host.load([(Space.CONST, 0, 1, b"abc")])
    out.abort()
    assert len(list(out)) < 39 and out.reason is Reason.ABORT
    bench.gap = 20
    assert list(host.run([1], 40)) == bench.records


def test_driver_survives_a_burst_of_garbage_between_its_frames() -> None:
    bench = Bench()
    bench.records = some_records(12)
    host = driver(bench)
    host.info()
    bench.write(random.Random(1).randbytes(3000))
    assert list(host.run([5, 6], 10)) == bench.records
    assert len(bench.starts) == 1


@pytest.mark.parametrize("config", list(CONFIGS))
def test_converts_to_verilog(config: str) -> None:
    cfg = CONFIGS[config]
    text = verilog.convert(HostLink(cfg), name="host", emit_src=False)
    for port in ("rx__payload", "rx__valid", "rx__ready", "tx__payload", "tx__valid", "tx__ready",
                 "load__valid", "load__data", "run__start", "run__record", "busy", "error"):  # fmt: skip
        assert port in text


@pytest.mark.parametrize(
    "unit",
    [CobsDecoder, CobsEncoder, FrameReceiver, lambda: Counters(3), lambda: Loader(TINY), lambda: RecordStore(TINY),
     lambda: Transmitter(TINY), lambda: ByteTransmitter(TINY)],
)  # fmt: skip
def test_units_convert_to_verilog(unit: Callable) -> None:
    assert "module unit" in verilog.convert(unit(), name="unit", emit_src=False)
