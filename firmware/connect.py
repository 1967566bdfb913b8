"""From a port's name to a driver, or to a message that says what is wrong and what to do."""

from __future__ import annotations

import random
import time

from firmware.driver import Driver
from firmware.link import DELIMITER, Frame, FrameDecoder, Info, LinkError
from firmware.serial_port import BAUD, SerialTransport
from firmware.transport import Transport
from hdl.config import CONFIGS
from hdl.contract import contract_hash
from hdl.link import Reply, Request

TIMEOUT = 0.5
TRIES = 4
_SHOWN = 16
"""Bytes of an unknown device's talk that a message shows."""


def connect(
    port: str, baud: int = BAUD, *, timeout: float = TIMEOUT, tries: int = TRIES, check: bool = True
) -> Driver:
    """A driver for the LPU on a serial port. Close it when done.

    timeout: seconds of silence after which a request is repeated; tries: how often INFO is asked; check: refuse
    hardware that this program's images would not run on. Raises TransportError for a port that cannot be
    opened, LinkError for whatever is wrong behind it.
    """
    transport = SerialTransport(port, baud)
    try:
        info = probe(transport, port, baud, timeout=timeout, tries=tries)
        if check:
            check_versions(info)
        driver = Driver(transport, timeout=timeout)
        driver.info()
    except BaseException:
        transport.close()
        raise
    return driver


def probe(
    transport: Transport, port: str, baud: int, *, timeout: float = TIMEOUT, tries: int = TRIES
) -> Info:
    """Asks who is there. Raises LinkError that tells apart why there is no answer of an LPU."""
    decoder = FrameDecoder()
    first = bytearray()
    count = 0
    kinds: set[int] = set()
    seq = random.randrange(256)
    for _ in range(tries):
        seq = (seq + 1) % 256
        # The delimiter ends whatever half a frame the line holds.
        transport.write(DELIMITER + Frame(Request.INFO, seq).encode())
        deadline = time.monotonic() + timeout
        while (rest := deadline - time.monotonic()) > 0:
            data = transport.read(rest)
            count += len(data)
            first += data[: _SHOWN - len(first)]
            for frame in decoder.feed(data):
                if frame.type == Reply.INFO:
                    return Info.decode(frame.payload)
                kinds.add(frame.type)
    raise LinkError(f"{port}: {_explain(bytes(first), count, kinds, baud)}")


def check_versions(info: Info) -> None:
    """Raises LinkError for hardware that this program compiles nothing for."""
    cfg = info.config
    if cfg is None:
        known = ", ".join(f"{c.name} ({c.hash()})" for c in CONFIGS.values())
        raise LinkError(
            f"the LPU was built for config {info.config_hash}, unknown to this program, which knows {known}: "
            "program the board with a bitstream of this version (lpu program)"
        )
    if info.contract_hash != contract_hash(cfg):
        raise LinkError(
            f"the LPU's bitstream (config {cfg.name}) was built from another version of the instruction set: "
            f"{info.contract_hash}, this program's is {contract_hash(cfg)}; program the board with a bitstream of "
            "this version (lpu program)"
        )


def _explain(first: bytes, count: int, kinds: set[int], baud: int) -> str:
    """Why nothing that arrived was an LPU's INFO."""
    if not count:
        return (
            "nothing answers: is the board powered, is this the right port, was an LPU's bitstream put on it "
            f"(lpu program), and does it speak {baud} baud?"
        )
    if kinds == {int(Request.INFO)}:
        return (
            "whatever is sent comes back: the line is looped, or the bitstream is one that echoes; put an LPU on the "
            "board (lpu program)"
        )
    if kinds & set(Reply):
        return (
            "an LPU sends, but answers no request: is another program using this port, is the line towards it sound?"
        )
    if kinds:
        types = ", ".join(f"{kind:#04x}" for kind in sorted(kinds))
        return f"frames arrive, but none that an LPU sends (types {types}): another device on this port?"
    text = first.decode("latin-1")
    readable = first.isascii() and all(c.isprintable() or c in "\r\n\t" for c in text)
    talk = f", as text {text!r}" if readable else ""
    return (
        f"{count} bytes arrive, but no frame (they begin {first.hex(' ')}{talk}): "
        + ("another device on this port?" if talk else f"not {baud} baud (--baud), or another device on this port?")
    )
