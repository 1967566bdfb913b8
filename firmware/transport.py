"""What carries bytes between host and LPU, and the simplest one of all.

A transport promises nothing but order: bytes may be lost, damaged or added. The driver copes.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

from firmware.errors import LpuError


class TransportError(LpuError):
    """The way to the LPU is gone: port closed, cable unplugged, simulator ended."""


class Transport(Protocol):
    """A byte stream both ways."""

    def write(self, data: bytes) -> None:
        """Sends all of ``data``. Raises TransportError when that cannot succeed any more."""

    def read(self, timeout: float) -> bytes:
        """What has arrived: at least one byte, as soon as there is one, or b"" after ``timeout`` seconds.

        Raises TransportError when nothing can arrive any more.
        """

    def close(self) -> None:
        """Gives the port back. Harmless when repeated."""


class _Queue:
    """Bytes in one direction."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.closed = False
        self.changed = threading.Condition()


class PipeEnd:
    """One end of :func:`pipe`, a Transport; both ends may live in different threads."""

    def __init__(self, inbound: _Queue, outbound: _Queue) -> None:
        self._in = inbound
        self._out = outbound

    def write(self, data: bytes) -> None:
        with self._out.changed:
            if self._out.closed:
                raise TransportError("the pipe is closed")
            self._out.data += data
            self._out.changed.notify_all()

    def read(self, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        with self._in.changed:
            while not self._in.data:
                if self._in.closed:
                    raise TransportError("the pipe is closed")
                rest = deadline - time.monotonic()
                if rest <= 0:
                    return b""
                self._in.changed.wait(rest)
            data = bytes(self._in.data)
            self._in.data.clear()
            return data

    def close(self) -> None:
        for queue in (self._in, self._out):
            with queue.changed:
                queue.closed = True
                queue.changed.notify_all()


def pipe() -> tuple[PipeEnd, PipeEnd]:
    """Two ends of a lossless byte stream within this process."""
    there, back = _Queue(), _Queue()
    return PipeEnd(back, there), PipeEnd(there, back)
