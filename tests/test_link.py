"""The link's codec and tables: what the two ends share."""

from __future__ import annotations

import math
import random
import re
import zlib
from fractions import Fraction
from pathlib import Path

import pytest
from cobs import cobs

from firmware.errors import LpuError
from firmware.link import (
    Frame,
    FrameDecoder,
    Info,
    LinkError,
    Record,
    Status,
    done_payload,
    hash_text,
    load_payloads,
    tokens_payload,
)
from firmware.scalar import scalar, scalar_row
from hdl import link
from hdl.config import CONFIGS, TINY
from hdl.contract import contract_hash
from hdl.image import Reason, Space, row_bytes
from hdl.link import Fault, Reply, Request

PAGE = Path(__file__).resolve().parent.parent / "docs" / "link.md"


def random_frames(seed: int, count: int) -> list[Frame]:
    """Frames of every length and of every density of zeros, the awkward ones for COBS among them."""
    rng = random.Random(seed)
    lengths = [0, 1, 247, 248, 249, 250, 251, 252, 253, 254, 255, 506, 507, 508, 511, 512]
    frames = []
    for i in range(count):
        length = lengths[i] if i < len(lengths) else rng.randrange(link.PAYLOAD_MAX + 1)
        alphabet = [bytes(range(256)), b"\0", b"\xff", b"\0\1", bytes(range(1, 256))][i % 5]
        frames.append(Frame(rng.randrange(256), rng.randrange(256), bytes(rng.choices(alphabet, k=length))))
    return frames


def test_frames_come_back_in_any_slicing() -> None:
    frames = random_frames(1, 200)
    wire = b"\0".join([b"", *(frame.encode() for frame in frames)])
    rng = random.Random(2)
    decoder, got, at = FrameDecoder(), [], 0
    while at < len(wire):
        step = rng.choice([1, 2, 7, 300, 5000])
        got += decoder.feed(wire[at : at + step])
        at += step
    assert got == frames
    assert decoder.bad == 0


def test_encoding_is_plain_cobs_with_a_little_endian_crc() -> None:
    body = b"\x02\x07abc"
    wire = Frame(2, 7, b"abc").encode()
    assert wire.endswith(b"\0") and wire.count(b"\0") == 1
    assert cobs.decode(wire[:-1]) == body + zlib.crc32(body).to_bytes(4, "little")


@pytest.mark.parametrize("seed", range(3))
def test_every_damaged_frame_is_dropped_and_the_next_one_is_found(seed: int) -> None:
    rng = random.Random(seed)
    decoder = FrameDecoder()
    for frame in random_frames(seed, 150):
        wire = bytearray(frame.encode())
        wire[rng.randrange(len(wire) - 1)] ^= rng.randrange(1, 256)
        good = Frame(1, 2, b"good")
        bad = decoder.bad
        assert decoder.feed(bytes(wire) + good.encode()) == [good]
        assert decoder.bad > bad


def test_garbage_without_end_does_not_fill_the_memory() -> None:
    decoder = FrameDecoder()
    for _ in range(200):
        assert decoder.feed(b"\x55" * 1000) == []
    assert len(decoder._partial) < 10_000
    assert decoder.feed(b"\0" + Frame(1, 1).encode()) == [Frame(1, 1)]
    assert decoder.bad == 1


def test_payload_limit() -> None:
    assert FrameDecoder().feed(Frame(2, 0, bytes(link.PAYLOAD_MAX)).encode())
    with pytest.raises(ValueError, match="512"):
        Frame(2, 0, bytes(link.PAYLOAD_MAX + 1)).encode()


@pytest.mark.parametrize("kind", [*Request, *Reply])
def test_fixed_fields_round_trip(kind: Request | Reply) -> None:
    values = {name: (1 << 8 * count) - 1 - i for i, (name, count) in enumerate(link.FIELDS[kind])}
    payload = link.pack(kind, **values)
    assert len(payload) == link.size(kind) <= link.PAYLOAD_MAX
    assert link.unpack(kind, payload + b"rows") == values


def test_pack_names_the_field_that_is_wrong() -> None:
    with pytest.raises(ValueError, match="addr = 16777216"):
        link.pack(Request.LOAD, space=0, sub=0, addr=1 << 24)
    with pytest.raises(KeyError, match="bank"):
        link.pack(Request.LOAD, space=0, sub=0, addr=0, bank=1)
    with pytest.raises(ValueError, match="3 bytes, 4 expected"):
        link.unpack(Request.CREDIT, b"abc")


def test_tables_are_consistent() -> None:
    assert sum(bits for _, bits in link.RECORD_FIELDS) == 8 * link.RECORD_BYTES
    assert link.size(Reply.TOKENS) + link.BATCH_MAX * link.RECORD_BYTES <= link.PAYLOAD_MAX
    assert len({*Request, *Reply}) == len(Request) + len(Reply), "a type byte means one thing"
    assert max(Fault) < 16
    for cfg in CONFIGS.values():
        assert cfg.context_max < link.KEEP
        assert cfg.token_bits <= dict(link.RECORD_FIELDS)["token"]
        for space in Space:
            banks, rows = link.space_shape(cfg, space)
            assert 1 <= banks <= 256 and 1 <= rows <= 1 << 24
            assert row_bytes(cfg, space) <= link.ROWS_MAX


def test_records_round_trip_and_saturate() -> None:
    rng = random.Random(3)
    records = [
        Record(rng.randrange(1 << 16), rng.random() < 0.5, rng.randrange(link.CYCLES_MAX + 1))
        for _ in range(link.BATCH_MAX)
    ]
    payload = link.pack(Reply.TOKENS, first=17) + b"".join(record.encode() for record in records)
    assert tokens_payload(payload) == (17, records)
    assert Record.decode(Record(1, True, 1 << 30).encode()).cycles == link.CYCLES_MAX
    with pytest.raises(LinkError, match="whole number of records"):
        tokens_payload(payload[:-1])


def info_payload(**changes: int) -> bytes:
    """INFO of the tiny config."""
    values = {
        "magic": link.MAGIC, "version": link.VERSION, "config": link.config_word(TINY),
        "contract": link.contract_word(TINY), "image": 0x0807060504030201, "lanes": TINY.lanes,
        "columns": TINY.columns, "vlanes": TINY.vlanes, "context_max": TINY.context_max,
        "vocab_max": TINY.vocab_max, "topk_max": TINY.topk_max,
    }  # fmt: skip
    return link.pack(Reply.INFO, **values | changes)


def test_info_finds_the_config_and_refuses_strangers() -> None:
    info = Info.decode(info_payload())
    assert info.config is TINY and info.config_hash == TINY.hash()
    assert info.context_max == TINY.context_max and info.contract_hash == contract_hash(TINY)
    assert hash_text(info.image) == "0102030405060708"
    assert Info.decode(info_payload(config=5)).config is None
    with pytest.raises(LinkError, match="not an LPU"):
        Info.decode(info_payload(magic=1))
    with pytest.raises(LinkError, match=r"version 9.*this program is older"):
        Info.decode(info_payload(version=9))
    with pytest.raises(LinkError, match=r"version 1.*the bitstream is older"):
        Info.decode(info_payload(version=1)[:25])  # as long as it was then
    with pytest.raises(LinkError, match="not an LPU"):
        Info.decode(b"")


def test_status_and_done() -> None:
    payload = link.pack(Reply.STATUS, busy=3, fault=Fault.CRC, last=4, frames_ok=5, frames_bad=6, tokens=7,
                        cycles=1 << 40, records=8,
                        corrected=9, uncorrectable=10)  # fmt: skip
    assert Status.decode(payload) == Status(True, True, Fault.CRC, 4, 5, 6, 7, 1 << 40, 8, 9, 10)
    assert done_payload(link.pack(Reply.DONE, reason=Reason.CONTEXT, records=9)) == (Reason.CONTEXT, 9)


@pytest.mark.parametrize("space", list(Space))
def test_load_payloads_cover_the_rows_in_order(space: Space) -> None:
    row = row_bytes(TINY, space)
    banks, depth = link.space_shape(TINY, space)
    rows = bytes(random.Random(space).randbytes(row * depth))
    at = 0
    for payload in load_payloads(TINY, [(space, banks - 1, 0, rows)]):
        head, body = link.unpack(Request.LOAD, payload), payload[link.size(Request.LOAD) :]
        assert (head["space"], head["sub"], head["addr"]) == (space, banks - 1, at // row)
        assert len(payload) <= link.PAYLOAD_MAX and len(body) % row == 0
        assert body == rows[at : at + len(body)]
        at += len(body)
    assert at == len(rows)
    assert list(load_payloads(TINY, [(space, 0, 0, b"")])) == []


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ((9, 0, 0, b""), "space 9"),
        ((Space.CONST, 0, 0, b"1234"), "CONST: 4 bytes"),
        ((Space.WEIGHT, TINY.columns, 0, bytes(8)), "WEIGHT: there is no bank 4"),
        ((Space.SCALE, 0, TINY.scale_depth, bytes(8)), "SCALE: rows 1024..1024"),
        ((Space.SCALE, 0, -1, bytes(8)), "SCALE: rows -1"),
    ],
)
def test_load_payloads_name_what_does_not_fit(part: tuple[int, int, int, bytes], message: str) -> None:
    with pytest.raises(LpuError, match=message):
        list(load_payloads(TINY, [part]))


def test_scalars_are_the_nearest() -> None:
    assert scalar(1.0) == (32768, 0)
    assert scalar(0.5) == (32768, 1)
    assert scalar(3.0) == (49152, -1)
    assert scalar(0.0) == (0, 0)
    rng = random.Random(4)
    values = [math.exp(rng.uniform(-80, 80)) for _ in range(300)]
    values += [math.nextafter(2.0, 0.0), 65535.5 / 32768]
    for value in values:
        mantissa, exponent = scalar(value)
        assert 32768 <= mantissa < 65536 and -128 <= exponent <= 127
        exact = Fraction(mantissa) * Fraction(2) ** (-15 - exponent)
        assert abs(exact / Fraction(value) - 1) <= Fraction(1, 1 << 16)
    assert scalar_row(3.0) == b"\x00\xc0\xff"


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, 1e60, 1e-60])
def test_no_scalar(value: float) -> None:
    with pytest.raises(LpuError, match="no scalar"):
        scalar(value)


@pytest.mark.parametrize(("kind", "pattern"), [
    (Request, r"^\| ([A-Z]+) \| (0[1-9]) \|"),
    (Reply, r"^\| ([A-Z]+) \| (8[0-9]) \|"),
])  # fmt: skip
def test_types_are_those_of_the_page(kind: type[Request] | type[Reply], pattern: str) -> None:
    """Each type of frame has the number that docs/link.md gives it."""
    said = {name: int(code, 16) for name, code in re.findall(pattern, PAGE.read_text(), re.MULTILINE)}
    assert said == {name: int(member) for name, member in kind.__members__.items()}


def test_faults_are_those_of_the_page() -> None:
    """Each fault has the number that docs/link.md gives it, and none but "no fault" is left out."""
    text = PAGE.read_text().split("Faults (`hdl.link.Fault`):")[1].split(";")[0]
    said = {name: int(code) for code, name in re.findall(r"(\d+) ([A-Z]+)", text)}
    assert said | {"NONE": 0} == {name: int(member) for name, member in Fault.__members__.items()}
