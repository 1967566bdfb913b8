"""The host link's protocol, written once: frame types, field layouts, faults, limits.

``hdl/host/`` builds its checks and its frames from these tables, ``firmware/link.py`` and
``firmware/driver.py`` the other end. ``docs/link.md`` explains them.

A frame is COBS-encoded and ends with a zero byte. Decoded, it is::

    type (1)  sequence number (1)  payload (0..PAYLOAD_MAX)  CRC-32 of all before it (4)

Every field is unsigned and little endian.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from .config import SCALARS, Config
from .contract import contract_hash
from .image import Param, Space
from .isa import Queue

VERSION = 4
"""Protocol version. Counts up with every change that an older host or device would misunderstand."""
MAGIC = int.from_bytes(b"oLPU", "little")
"""First field of an INFO answer: tells an LPU from any other device that talks COBS."""
PAYLOAD_MAX = 512
"""Bytes of the longest payload, in either direction."""
CRC_BYTES = 4
"""CRC-32 as in IEEE 802.3 and zlib."""
OVERHEAD = 2 + CRC_BYTES
"""Bytes of a decoded frame that are not payload; also the length of the shortest frame."""
BATCH_MAX = 64
"""Records of one TOKENS frame at most."""
KEEP = 0xFFFF
"""CREDIT's ``start``: send on from where you are."""
EVERYTHING = 0xFFFF
"""RUN's and CREDIT's ``until``: as many records as there will be."""

BOOT_RUN = 0
"""Sequence number of a boot memory's RUN. No host gives it to a RUN of its own; behind it a host begins with INFO."""


class Request(enum.IntEnum):
    """Frame types, host to device."""

    INFO = 0x01
    """Who are you? Sets the sequence number; accepted at any time."""
    LOAD = 0x02
    """Rows for one memory, at consecutive addresses. Only while no run is in progress."""
    RUN = 0x03
    """Start a run with the parameters loaded. Only while no run is in progress."""
    ABORT = 0x04
    """End the run after the token in work; nothing happens without a run."""
    CREDIT = 0x05
    """Send records again from ``start`` on, and go on until ``until``."""
    STATUS = 0x06
    """Counters. Outside the sequence; accepted at any time."""


class Reply(enum.IntEnum):
    """Frame types, device to host."""

    ACK = 0x81
    """Everything up to the frame of this sequence number has been carried out."""
    ERROR = 0x82
    """A frame was refused and changed nothing."""
    INFO = 0x83
    TOKENS = 0x84
    """Records of the run whose RUN frame had this sequence number."""
    DONE = 0x85
    """The run of this sequence number has ended and its last record was sent before."""
    STATUS = 0x86


class Fault(enum.IntEnum):
    """Why a frame was refused, in the order in which a frame is checked."""

    NONE = 0
    COBS = 1
    """A delimiter inside a COBS block: bytes were lost or this is no frame."""
    OVERSIZE = 2
    """Longer than the longest frame."""
    SHORT = 3
    """Shorter than the shortest frame."""
    CRC = 4
    """Checksum wrong."""
    TYPE = 5
    """Checksum right, but no known type: another protocol version."""
    LENGTH = 6
    """The payload's length is not the one of this type."""
    RESET = 7
    """No INFO since reset: no sequence is agreed on, and what the host believes of the device is past."""
    SEQUENCE = 8
    """Not the next frame: one before it was lost."""
    BUSY = 9
    """LOAD or RUN during a run."""
    SPACE = 10
    """LOAD to an unknown memory."""
    ROWS = 11
    """LOAD without a whole number of rows of that memory."""
    ADDRESS = 12
    """Bank or row beyond the memory's end (LOAD), or ``start`` beyond the records made (CREDIT)."""


RETRY = frozenset({Fault.COBS, Fault.OVERSIZE, Fault.SHORT, Fault.CRC, Fault.SEQUENCE})
"""Faults of the wire: sending the frame again helps. All others are faults of what was asked."""

Fields = tuple[tuple[str, int], ...]
"""Names and bytes of a payload's fixed fields, in the order of transmission."""

FIELDS: Mapping[Request | Reply, Fields] = {
    Request.INFO: (),
    Request.LOAD: (("space", 1), ("sub", 1), ("addr", 3)),  # and the rows
    Request.RUN: (("until", 2),),
    Request.ABORT: (),
    Request.CREDIT: (("start", 2), ("until", 2)),
    Request.STATUS: (),
    Reply.ACK: (),
    Reply.ERROR: (
        ("fault", 1),
        ("last", 1),  # sequence number of the last frame carried out
    ),
    Reply.INFO: (
        ("magic", 4),
        ("version", 1),
        ("config", 8),  # Config.hash(), its first hex digits in the first byte
        ("contract", 8),  # contract_hash(), likewise
        ("image", 8),  # Param.IMAGE: what is loaded; 0: nothing, or not all of it
        ("lanes", 2),
        ("columns", 2),
        ("vlanes", 1),
        ("context_max", 2),
        ("vocab_max", 4),
        ("topk_max", 1),
    ),
    Reply.TOKENS: (("first", 2),),  # index in the run of the first record; and the records
    Reply.DONE: (("reason", 1), ("records", 2)),
    Reply.STATUS: (
        ("busy", 1),  # bit 0: a run is in progress; bit 1: records were lost (a defect: the store is whole)
        ("fault", 1),  # of the last frame refused since reset
        ("last", 1),
        ("frames_ok", 4),
        ("frames_bad", 4),
        ("tokens", 4),  # sampled since reset
        ("cycles", 8),  # in which a run was in progress, since reset
        ("records", 2),  # of the present or last run
        ("corrected", 4),  # weight words used with a single error, since reset
        ("uncorrectable", 4),  # weight words used with another error
    ),
}

RECORD_FIELDS: tuple[tuple[str, int], ...] = (("token", 16), ("cycles", 23), ("sampled", 1))
"""Names and *bits* of a token record, low bits first. ``cycles`` saturates; ``token`` means something only
where ``sampled`` is set (the last token of a prompt, and every token after it)."""
RECORD_BYTES = sum(bits for _, bits in RECORD_FIELDS) // 8
CYCLES_BITS = dict(RECORD_FIELDS)["cycles"]
CYCLES_MAX = (1 << CYCLES_BITS) - 1
"""Cycles of a token as a record states them; this value also stands for every larger one."""

ROWS_MAX = PAYLOAD_MAX - sum(n for _, n in FIELDS[Request.LOAD])
"""Bytes of rows in one LOAD at most."""


def size(kind: Request | Reply) -> int:
    """Bytes of the fixed part of a type's payload."""
    return sum(n for _, n in FIELDS[kind])


def pack(kind: Request | Reply, **values: int) -> bytes:
    """Fixed part of a payload. Raises ValueError for a value out of range, KeyError for a wrong field."""
    out = b""
    for name, count in FIELDS[kind]:
        value = values.pop(name)
        if not 0 <= value < 1 << 8 * count:
            raise ValueError(f"{kind.name}: {name} = {value} is outside 0..{(1 << 8 * count) - 1}")
        out += value.to_bytes(count, "little")
    if values:
        raise KeyError(f"{kind.name} has no field {sorted(values)[0]!r}")
    return out


def unpack(kind: Request | Reply, payload: bytes) -> dict[str, int]:
    """Fixed fields of a payload, which may be longer. Raises ValueError where it is shorter."""
    if len(payload) < size(kind):
        raise ValueError(f"{kind.name}: payload of {len(payload)} bytes, {size(kind)} expected")
    out, at = {}, 0
    for name, count in FIELDS[kind]:
        out[name] = int.from_bytes(payload[at : at + count], "little")
        at += count
    return out


def config_word(cfg: Config) -> int:
    """The config's hash as INFO's ``config`` field."""
    return int.from_bytes(bytes.fromhex(cfg.hash()), "little")


def contract_word(cfg: Config) -> int:
    """The contract's hash as INFO's ``contract`` field."""
    return int.from_bytes(bytes.fromhex(contract_hash(cfg)), "little")


def space_shape(cfg: Config, space: Space) -> tuple[int, int]:
    """(banks, rows of each bank) of a memory: what ``sub`` and ``addr`` of a LOAD must stay below."""
    return {
        Space.WEIGHT: (cfg.columns, cfg.weight_depth),
        Space.SCALE: (1, cfg.scale_depth),
        Space.COEF: (1, cfg.coef_depth),
        Space.PROGRAM: (len(Queue), cfg.queue_depth),
        Space.PHASE: (1, cfg.phase_depth),
        Space.PROMPT: (1, cfg.context_max),
        Space.PARAM: (1, max(Param) + 1),
        Space.CONST: (1, SCALARS),
    }[space]
