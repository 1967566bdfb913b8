"""Frames of the host link as Python values: COBS, CRC-32, payloads. The tables are in ``hdl/link.py``."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cobs import cobs

from firmware.errors import LpuError
from hdl import link
from hdl.config import CONFIGS, Config
from hdl.image import Reason, Space, row_bytes
from hdl.link import Reply, Request

DELIMITER = b"\0"


class LinkError(LpuError):
    """The LPU did not answer, answered with a refusal, or is not the one that was expected."""


@dataclass(frozen=True)
class Frame:
    """A decoded frame with a good checksum. ``type`` may be unknown."""

    type: int
    seq: int
    payload: bytes = b""

    def encode(self) -> bytes:
        """The frame as bytes for the wire, delimiter included. Raises ValueError for a field out of range."""
        if len(self.payload) > link.PAYLOAD_MAX:
            raise ValueError(f"payload of {len(self.payload)} bytes; a frame holds {link.PAYLOAD_MAX}")
        body = bytes([self.type, self.seq]) + self.payload
        return cobs.encode(body + zlib.crc32(body).to_bytes(link.CRC_BYTES, "little")) + DELIMITER


class FrameDecoder:
    """Byte stream -> frames. ``bad`` counts what ended with a delimiter and was no frame."""

    def __init__(self) -> None:
        self.bad = 0
        self._partial = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Frames that ``data`` completes."""
        *complete, rest = data.split(DELIMITER)
        frames = []
        for part in complete:
            block = bytes(self._partial + part)
            self._partial.clear()
            frame = self._decode(block) if block else None
            if frame is not None:
                frames.append(frame)
            elif block:
                self.bad += 1
        # Garbage without end must not fill the memory; cut, it is still garbage.
        if len(self._partial) <= 2 * link.PAYLOAD_MAX:
            self._partial += rest
        return frames

    @staticmethod
    def _decode(block: bytes) -> Frame | None:
        try:
            body = cobs.decode(block)
        except cobs.DecodeError:
            return None
        if not link.OVERHEAD <= len(body) <= link.PAYLOAD_MAX + link.OVERHEAD:
            return None
        if zlib.crc32(body[: -link.CRC_BYTES]) != int.from_bytes(body[-link.CRC_BYTES :], "little"):
            return None
        return Frame(body[0], body[1], body[2 : -link.CRC_BYTES])


@dataclass(frozen=True)
class Record:
    """A token processed: its cycles, and the id sampled after it (no meaning unless ``sampled``)."""

    token: int
    sampled: bool
    cycles: int

    def encode(self) -> bytes:
        """The record as in a TOKENS frame (for devices made of Python)."""
        word = at = 0
        cycles = min(self.cycles, link.CYCLES_MAX)
        values = {"token": self.token, "cycles": cycles, "sampled": int(self.sampled)}
        for name, bits in link.RECORD_FIELDS:
            word |= values[name] << at
            at += bits
        return word.to_bytes(link.RECORD_BYTES, "little")

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """A record from its ``RECORD_BYTES`` bytes."""
        word, values = int.from_bytes(data, "little"), {}
        for name, bits in link.RECORD_FIELDS:
            values[name] = word & (1 << bits) - 1
            word >>= bits
        return cls(values["token"], bool(values["sampled"]), values["cycles"])


def tokens_payload(payload: bytes) -> tuple[int, list[Record]]:
    """A TOKENS payload: index of the first record, records. Raises LinkError for part of a record."""
    head = link.size(Reply.TOKENS)
    body = payload[head:]
    if len(payload) < head or len(body) % link.RECORD_BYTES:
        raise LinkError(f"TOKENS frame with a payload of {len(payload)} bytes: not a whole number of records")
    records = [
        Record.decode(body[at : at + link.RECORD_BYTES]) for at in range(0, len(body), link.RECORD_BYTES)
    ]
    return link.unpack(Reply.TOKENS, payload)["first"], records


def hash_text(word: int) -> str:
    """A hash of 8 bytes as it travels in INFO, as hex digits: the first byte first."""
    return word.to_bytes(8, "little").hex()


@dataclass(frozen=True)
class Info:
    """What an LPU says of itself."""

    version: int
    config_hash: str
    contract_hash: str
    image: int
    """Identity of the image loaded; 0: none, or not all of it."""
    lanes: int
    columns: int
    vlanes: int
    context_max: int
    vocab_max: int
    topk_max: int

    @classmethod
    def decode(cls, payload: bytes) -> Info:
        """From INFO's payload. Raises LinkError for another device or protocol version."""
        # Magic and version come first in every version; the rest may be shorter in another one.
        fields = link.unpack(Reply.INFO, payload.ljust(link.size(Reply.INFO), b"\0"))
        if fields.pop("magic") != link.MAGIC:
            raise LinkError("the device answers in frames, but it is not an LPU")
        if fields["version"] != link.VERSION:
            older = fields["version"] < link.VERSION
            raise LinkError(
                f"the LPU speaks version {fields['version']} of the link protocol, this program version "
                f"{link.VERSION}: "
                + ("the bitstream is older; program the board again (lpu program)" if older
                   else "this program is older; update it, or program the board with its bitstream (lpu program)")
            )  # fmt: skip
        config, contract = hash_text(fields.pop("config")), hash_text(fields.pop("contract"))
        return cls(config_hash=config, contract_hash=contract, **fields)

    @property
    def config(self) -> Config | None:
        """The named config of this hardware, or None where no known one has its hash."""
        return next((c for c in CONFIGS.values() if c.hash() == self.config_hash), None)


@dataclass(frozen=True)
class Status:
    """Counters since reset. ``cycles``: those spent in runs; ``records``: of the present or last run."""

    busy: bool
    lost: bool
    """Records were lost on the chip: a defect, never a slow host."""
    fault: link.Fault
    """Of the last frame refused."""
    last: int
    frames_ok: int
    frames_bad: int
    tokens: int
    cycles: int
    records: int
    corrected: int
    """Weight words used that had a single wrong bit; what was used was right."""
    uncorrectable: int
    """Weight words used that had another error; each ends the run."""

    @classmethod
    def decode(cls, payload: bytes) -> Status:
        """From STATUS's payload."""
        fields = link.unpack(Reply.STATUS, payload)
        flags, fault = fields.pop("busy"), link.Fault(fields.pop("fault"))
        return cls(busy=bool(flags & 1), lost=bool(flags & 2), fault=fault, **fields)


def done_payload(payload: bytes) -> tuple[Reason, int]:
    """A DONE payload: why the run ended, and how many records it made."""
    fields = link.unpack(Reply.DONE, payload)
    return Reason(fields["reason"]), fields["records"]


Part = tuple[int, int, int, bytes]
"""Rows to load: space, bank (``sub``), first row, rows as bytes."""


def load_payloads(cfg: Config, parts: Iterable[Part]) -> Iterator[bytes]:
    """LOAD payloads, each as long as can be. Raises LpuError for what the LPU would refuse."""
    for space_id, sub, addr, rows in parts:
        try:
            space = Space(space_id)
        except ValueError:
            raise LpuError(f"there is no memory space {space_id}") from None
        row = row_bytes(cfg, space)
        banks, depth = link.space_shape(cfg, space)
        count, rest = divmod(len(rows), row)
        if rest:
            raise LpuError(f"{space.name}: {len(rows)} bytes are not a whole number of rows of {row} bytes")
        if not 0 <= sub < banks:
            raise LpuError(f"{space.name}: there is no bank {sub}; config {cfg.name} has {banks}")
        if addr < 0 or addr + count > depth:
            raise LpuError(f"{space.name}: rows {addr}..{addr + count - 1}; config {cfg.name} has {depth}")
        step = link.ROWS_MAX // row
        for at in range(0, count, step):
            head = link.pack(Request.LOAD, space=space, sub=sub, addr=addr + at)
            yield head + rows[at * row : (at + step) * row]
