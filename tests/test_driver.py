"""The driver against an LPU made of Python, over lines from perfect to hopeless."""

from __future__ import annotations

import dataclasses
import random
import threading
from collections import deque
from collections.abc import Sequence

import pytest

from firmware.driver import UNUSED_STOP, Driver, Run, run_parts
from firmware.errors import LpuError
from firmware.link import Frame, FrameDecoder, LinkError, Record
from firmware.scalar import scalar_row
from firmware.transport import TransportError, pipe
from hdl import link
from hdl.config import TINY, ULX3S_85F, Config
from hdl.image import Param, Reason, Space, row_bytes
from hdl.link import Fault, Reply, Request


class FakeLpu:
    """An LPU as a transport: requests written are answered at once, tokens come as they are read.

    Follows docs/link.md, not the HDL. ``rows``: what was loaded; ``runs``: number of runs started.
    """

    def __init__(self, cfg: Config = TINY, records: Sequence[Record] = (), seed: int = 0) -> None:
        self.cfg = cfg
        self.records = list(records)
        self.reason = Reason.LIMIT
        self.rows: dict[tuple[int, int, int], bytes] = {}
        self.writes = 0
        self.runs = 0
        self.mute = False
        self.corrected = self.uncorrectable = 0
        self.decoder = FrameDecoder()
        self.rng = random.Random(seed)
        self.closed = False
        self.reset()

    def reset(self) -> None:
        """As the button does."""
        self.out = bytearray()
        self.last = 0
        self.agreed = False
        self.made = self.sent = self.until = self.run_seq = 0
        self.running = self.told = False
        self.rejected = False

    @property
    def image(self) -> int:
        """What INFO tells."""
        return int.from_bytes(self.rows.get((Space.PARAM, 0, Param.IMAGE), b""), "little")

    def write(self, data: bytes) -> None:
        if self.closed:
            raise TransportError("unplugged")
        bad = self.decoder.bad
        frames = self.decoder.feed(data)
        if self.decoder.bad > bad:
            self._error(0, Fault.CRC)
        for frame in frames:
            self._request(frame)

    def read(self, timeout: float) -> bytes:
        if self.closed:
            raise TransportError("unplugged")
        if self.running and self.rng.random() < 0.5:
            self.made += 1
            if self.made > len(self.records):
                self.made = len(self.records)
                self.running = False
        self._tokens()
        out = b"" if self.mute else bytes(self.out)
        self.out.clear()
        return out

    def close(self) -> None:
        self.closed = True

    def _send(self, kind: Reply, seq: int, payload: bytes = b"") -> None:
        self.out += Frame(kind, seq, payload).encode()

    def _error(self, seq: int, fault: Fault) -> None:
        if fault is not Fault.SEQUENCE or not self.rejected:
            self._send(Reply.ERROR, seq, link.pack(Reply.ERROR, fault=fault, last=self.last))
        self.rejected = True

    def _tokens(self) -> None:
        end = min(self.made, self.until)
        if self.sent < end:
            batch = self.records[self.sent : min(end, self.sent + link.BATCH_MAX)]
            payload = link.pack(Reply.TOKENS, first=self.sent) + b"".join(r.encode() for r in batch)
            self._send(Reply.TOKENS, self.run_seq, payload)
            self.sent += len(batch)
        elif self.runs and not self.running and not self.told and self.sent == self.made:
            payload = link.pack(Reply.DONE, reason=self.reason, records=self.made)
            self._send(Reply.DONE, self.run_seq, payload)
            self.told = True

    def _request(self, frame: Frame) -> None:
        if frame.type == Request.INFO:
            self.last, self.agreed, self.rejected = frame.seq, True, False
            cfg = self.cfg
            self._send(Reply.INFO, frame.seq, link.pack(
                Reply.INFO, magic=link.MAGIC, version=link.VERSION, config=link.config_word(cfg),
                contract=link.contract_word(cfg), image=self.image, lanes=cfg.lanes,
                columns=cfg.columns, vlanes=cfg.vlanes, context_max=cfg.context_max,
                vocab_max=cfg.vocab_max, topk_max=cfg.topk_max,
            ))  # fmt: skip
            return
        if frame.type == Request.STATUS:
            self._send(Reply.STATUS, frame.seq, link.pack(
                Reply.STATUS, busy=self.running, fault=0, last=self.last, frames_ok=0,
                frames_bad=self.decoder.bad, tokens=0, cycles=0, records=self.made,
                corrected=self.corrected, uncorrectable=self.uncorrectable,
            ))  # fmt: skip
            return
        ahead = (frame.seq - self.last) % 256
        if not self.agreed:
            return self._error(frame.seq, Fault.RESET)
        if ahead == 0 or ahead >= 128:
            return self._send(Reply.ACK, self.last)
        if ahead > 1:
            return self._error(frame.seq, Fault.SEQUENCE)
        if self.running and frame.type in (Request.LOAD, Request.RUN):
            return self._error(frame.seq, Fault.BUSY)
        if frame.type == Request.LOAD:
            head = link.unpack(Request.LOAD, frame.payload)
            rows = frame.payload[link.size(Request.LOAD) :]
            size = row_bytes(self.cfg, Space(head["space"]))
            for i in range(len(rows) // size):
                self.rows[head["space"], head["sub"], head["addr"] + i] = rows[i * size : (i + 1) * size]
                self.writes += 1
        elif frame.type == Request.RUN:
            self.runs += 1
            self.running, self.told = True, False
            self.made = self.sent = 0
            self.until, self.run_seq = link.unpack(Request.RUN, frame.payload)["until"], frame.seq
            self.agreed = frame.seq != link.BOOT_RUN
        elif frame.type == Request.ABORT and self.running:
            self.running, self.reason = False, Reason.ABORT
        elif frame.type == Request.CREDIT:
            fields = link.unpack(Request.CREDIT, frame.payload)
            self.until = fields["until"]
            if fields["start"] != link.KEEP:
                if fields["start"] > self.made:
                    return self._error(frame.seq, Fault.ADDRESS)
                self.sent, self.told = fields["start"], False
        self.last, self.rejected = frame.seq, False
        self._send(Reply.ACK, frame.seq)


class Noisy:
    """A line that damages, loses, doubles and adds bytes, each with probability ``rate`` per byte."""

    def __init__(self, device: FakeLpu, rate: float, seed: int) -> None:
        self.device = device
        self.rate = rate
        self.rng = random.Random(seed)

    def _spoil(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if self.rng.random() < self.rate:
                out += self.rng.choice([b"", b"\0", bytes([byte, byte]), bytes([byte ^ 8]), b"\x55" * 40])
            else:
                out.append(byte)
        return bytes(out)

    def write(self, data: bytes) -> None:
        self.device.write(self._spoil(data))

    def read(self, timeout: float) -> bytes:
        return self._spoil(self.device.read(timeout))

    def close(self) -> None:
        self.device.close()


def some_records(count: int, seed: int = 0) -> list[Record]:
    rng = random.Random(seed)
    return [Record(rng.randrange(512), i > 2, rng.randrange(5000)) for i in range(count)]


def driver(transport, **options) -> Driver:
    return Driver(transport, **{"timeout": 0.01, "retries": 3, **options})


def test_load_reaches_every_row() -> None:
    device = FakeLpu()
    rows = random.Random(1).randbytes(8 * 2000)
    sizes: list[int] = []
    host = driver(device)
    host.load([(Space.WEIGHT, 1, 20, rows), (Space.CONST, 0, 3, b"abc")], sizes.append)
    assert device.rows[Space.CONST, 0, 3] == b"abc"
    assert b"".join(device.rows[Space.WEIGHT, 1, 20 + i] for i in range(2000)) == rows
    assert device.writes == 2001 and host.resent == 0
    assert sizes == sorted(sizes) and sizes[-1] == len(rows) + 3


def test_run_gives_records_then_the_reason() -> None:
    device = FakeLpu(records=some_records(30))
    run = driver(device).run([1, 2, 3, 4], 27)
    assert list(run) == device.records
    assert run.reason is Reason.LIMIT
    assert list(run) == []
    again = driver(device).run([1], 27)
    assert list(again.ids) == [r.token for r in device.records if r.sampled]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("rate", "credit"), [(0.0005, None), (0.003, 8)])
def test_a_bad_line_loses_and_repeats_nothing(seed: int, rate: float, credit: int | None) -> None:
    device = FakeLpu(records=some_records(60), seed=seed)
    host = driver(Noisy(device, rate, seed), retries=40, credit=credit)
    rows = random.Random(seed).randbytes(8 * 300)
    host.load([(Space.WEIGHT, 0, 0, rows)])
    assert device.writes == 300, "each row was written once"
    assert b"".join(device.rows[Space.WEIGHT, 0, i] for i in range(300)) == rows
    run = host.run([1, 2, 3], 57)
    assert list(run) == device.records
    assert run.reason is Reason.LIMIT and device.runs == 1


def test_lost_acknowledgement_of_run_does_not_run_twice() -> None:
    device = FakeLpu(records=some_records(5))
    host = driver(device)
    host.info()
    lost: list[int] = []
    real = device._send

    def send(kind: Reply, seq: int, payload: bytes = b"") -> None:
        if kind == Reply.ACK and device.runs and not lost:
            lost.append(seq)
        else:
            real(kind, seq, payload)

    device._send = send  # type: ignore[method-assign]
    assert list(host.run([1], 5)) == device.records
    assert lost and host.resent == 1 and device.runs == 1


def test_credit_paces_the_device() -> None:
    device = FakeLpu(records=some_records(40))
    host = driver(device, credit=10)
    run = host.run([1], 40)
    got: list[Record] = []
    for record in run:
        got.append(record)
        assert device.sent <= len(got) + 10
    assert got == device.records


def test_abort() -> None:
    device = FakeLpu(records=some_records(60))
    run = driver(device).run([1], 60)
    got = [next(run), next(run)]
    run.abort()
    got += run
    assert run.reason is Reason.ABORT
    assert got == device.records[: len(got)] and len(got) < 60


def test_an_older_run_cannot_be_read_on() -> None:
    device = FakeLpu(records=some_records(3))
    host = driver(device)
    old = host.run([1], 3)
    list(old)
    left = Run(host, old._seq, 0)
    host.run([1], 3)
    with pytest.raises(LinkError, match="was left"):
        next(left)


def test_status() -> None:
    device = FakeLpu(records=some_records(3))
    host = driver(device)
    run = host.run([1], 3)
    assert host.counters().busy
    list(run)
    assert not host.status().busy and host.status().records == 3


def test_busy_is_explained_and_the_driver_goes_on() -> None:
    device = FakeLpu(records=some_records(8))
    host = driver(device)
    run = host.run([1], 8)
    with pytest.raises(LinkError, match="LOAD: a run is in progress"):
        host.run([1], 8)
    assert list(run) == device.records, "the run that was in progress goes on"
    assert list(host.run([1], 8)) == device.records


def test_no_answer() -> None:
    device = FakeLpu()
    device.mute = True
    with pytest.raises(LinkError, match=r"no answer in 4 tries.*powered"):
        driver(device).info()


def test_another_device() -> None:
    class Chatter:
        def write(self, data: bytes) -> None:
            pass

        def read(self, timeout: float) -> bytes:
            return b"Hello, I am a printer.\r\n"

        def close(self) -> None:
            pass

    with pytest.raises(LinkError, match="bytes of something else"):
        driver(Chatter(), timeout=0.001).info()


def test_unknown_hardware() -> None:
    device = FakeLpu(dataclasses.replace(TINY, accs=8))
    host = driver(device)
    assert host.info().config is None
    with pytest.raises(LinkError, match="unknown to this program"):
        host.load([])


def test_a_line_that_breaks_for_good() -> None:
    device = FakeLpu(records=some_records(5))
    host = driver(device)
    run = host.run([1], 5)
    device.mute = True
    with pytest.raises(LinkError, match="no answer"):
        list(run)
    device.mute = False
    device.reset()
    assert list(host.run([1], 5)) == device.records, "the driver finds its way back"
    device.close()
    with pytest.raises(TransportError, match="unplugged"):
        host.info()


def test_reset_in_the_middle_is_noticed() -> None:
    device = FakeLpu()
    host = driver(device)
    host.info()
    for last in (0, host._seq + 1):  # whatever number the device happens to remember
        device.reset()
        device.last = last % 256
        with pytest.raises(LinkError, match="was reset"):
            host.load([(Space.WEIGHT, 0, 0, bytes(8 * 600))])
        host.info()


def param_values(parts: list[tuple[int, int, int, bytes]]) -> dict[Param, int]:
    (space, sub, addr, rows) = next(p for p in parts if p[0] == Space.PARAM)
    assert (space, sub) == (Space.PARAM, 0)
    return {Param(addr + i): int.from_bytes(rows[8 * i : 8 * i + 8], "little") for i in range(len(rows) // 8)}


def parts(prompt: Sequence[int] = (1, 2), limit: int = 5, **options) -> list[tuple[int, int, int, bytes]]:
    return run_parts(TINY, prompt, limit, **{"context": 64, "vocab": 512, **options})


@pytest.mark.parametrize(
    ("options", "noise", "k", "inverse"),
    [
        ({}, 0, 1, 1.0),
        ({"temperature": 0.0, "topk": 4}, 0, 1, 1.0),
        ({"temperature": 0.8}, 2, 1, 1.25),
        ({"temperature": 0.8, "topk": 4}, 1, 4, 1.25),
        ({"temperature": 0.8, "topk": 1}, 0, 1, 1.0),
    ],
)
def test_sampling_parameters(options: dict, noise: int, k: int, inverse: float) -> None:
    loaded = parts(**options)
    values = param_values(loaded)
    assert (values[Param.NOISE], values[Param.TOPK]) == (noise, k)
    assert loaded[-1] == (Space.CONST, 0, 1, scalar_row(inverse))


def test_a_core_without_noise_is_greedy() -> None:
    plain = dataclasses.replace(TINY, noise=False)
    assert run_parts(plain, [1], 2, 0.8, 1, context=64, vocab=512) == parts([1], 2, temperature=0.8, topk=1)
    for topk in (0, 2):
        with pytest.raises(LpuError, match=r"temperature 0.8: config tiny has no sampling noise; 0 \(greedy\)"):
            run_parts(plain, [1], 2, 0.8, topk, context=64, vocab=512)


def test_run_parameters() -> None:
    loaded = parts([3, 511], 9, seed=0xFFFFFFFF, stop_ids=[7], clear=False)
    assert loaded[0] == (Space.PROMPT, 0, 0, b"\3\0\0\0\xff\1\0\0")
    assert param_values(loaded) == {
        Param.PROMPT_LEN: 2, Param.LIMIT: 9, Param.SEED: 0xFFFFFFFF, Param.TOPK: 1, Param.NOISE: 0,
        Param.STOP0: 7, Param.STOP1: UNUSED_STOP, Param.CLEAR: 0, Param.PROMPT_LEN1: 0, Param.SEED1: 0,
    }  # fmt: skip
    both = parts([3, 511], 9, second=([4, 5, 6], 77))
    assert both[0] == (Space.PROMPT, 0, 0, b"\3\0\4\0\xff\1\5\0\0\0\6\0")
    assert (param_values(both)[Param.PROMPT_LEN1], param_values(both)[Param.SEED1]) == (3, 77)
    assert param_values(parts(limit=10**9))[Param.LIMIT] == 127, "reaches behind the context, fits its bits"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": []}, "prompt is empty"),
        ({"prompt": [0] * 64}, "64 tokens: not shorter than the context of 64"),
        ({"prompt": [0] * 10, "context": 10}, "context of 10"),
        ({"prompt": [0, 512]}, r"prompt token 1 is 512: ids are 0\.\.511"),
        ({"prompt": [-1]}, "prompt token 0 is -1"),
        ({"prompt": [9], "vocab": 9}, "ids are 0..8"),
        ({"stop_ids": [600]}, "stop token 0 is 600"),
        ({"second": ([], 0)}, "prompt is empty"),
        ({"second": ([512], 0)}, "second prompt token 0 is 512"),
        ({"second": ([1], 1 << 32)}, "seed 4294967296"),
        ({"second": ([1], 0), "clear": False}, "begin at position 0"),
        ({"stop_ids": [1, 2, 3]}, "3 stop ids"),
        ({"limit": 0}, "limit of 0"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 1 << 32}, "seed 4294967296"),
        ({"topk": 5, "temperature": 1.0}, r"top-k of 5.*1\.\.4"),
        ({"topk": -1}, "top-k of -1"),
        ({"temperature": -1.0}, "temperature -1"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"temperature": 1e-9}, "temperature 1e-09"),
    ],
)
def test_bad_arguments_are_named(options: dict, message: str) -> None:
    with pytest.raises(LpuError, match=message):
        parts(**options)


def test_bad_arguments_send_nothing() -> None:
    device = FakeLpu()
    host = driver(device)
    with pytest.raises(LpuError, match="top-k"):
        host.run([1], 5, temperature=1.0, topk=99)
    with pytest.raises(LpuError, match="WEIGHT: rows"):
        host.load([(Space.CONST, 0, 0, b"abc"), (Space.WEIGHT, 0, 2047, bytes(16))])
    assert device.writes == 0 and device.runs == 0


def test_the_programs_own_context_and_vocabulary_count() -> None:
    device = FakeLpu(ULX3S_85F, records=some_records(1))
    host = driver(device)
    rows = b"".join(value.to_bytes(8, "little") for value in (40, 300))
    host.load([(Space.PARAM, 0, Param.CONTEXT, rows)])
    assert (host.context, host.vocab) == (40, 300)
    with pytest.raises(LpuError, match="context of 40"):
        host.run([1] * 40, 5)
    with pytest.raises(LpuError, match=r"0\.\.299"):
        host.run([300], 5)


@pytest.mark.parametrize(("option", "value"), [("window", 0), ("window", 101), ("credit", 1)])
def test_driver_options_are_checked(option: str, value: int) -> None:
    with pytest.raises(ValueError, match=option):
        Driver(FakeLpu(), **{option: value})  # type: ignore[arg-type]


def test_pipe_carries_bytes_between_threads() -> None:
    here, there = pipe()

    def device() -> None:
        lpu = FakeLpu(records=some_records(10))
        inbox: deque[bytes] = deque()
        try:
            while True:
                inbox.append(there.read(0.001))
                lpu.write(inbox.popleft())
                answer = lpu.read(0)
                if answer:
                    there.write(answer)
        except TransportError:
            pass

    thread = threading.Thread(target=device)
    thread.start()
    host = Driver(here)
    assert list(host.run([1], 10)) == some_records(10)
    host.close()
    host.close()
    thread.join(5)
    assert not thread.is_alive()
    assert_closed(here)


def assert_closed(end) -> None:
    with pytest.raises(TransportError, match="closed"):
        end.write(b"x")
    with pytest.raises(TransportError, match="closed"):
        end.read(0)


def test_pipe_times_out_and_delivers_what_was_sent_before_it_closed() -> None:
    here, there = pipe()
    assert here.read(0.001) == b""
    there.write(b"abc")
    there.close()
    assert here.read(1) == b"abc"
    assert_closed(here)


def test_wrong_version_is_named() -> None:
    device = FakeLpu()
    real = device._send

    def send(kind: Reply, seq: int, payload: bytes = b"") -> None:
        real(kind, seq, payload[:4] + b"\7" + payload[5:] if kind == Reply.INFO else payload)

    device._send = send  # type: ignore[method-assign]
    with pytest.raises(LinkError, match="version 7 of the link protocol"):
        driver(device).info()
