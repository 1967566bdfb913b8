"""Any transport behind a pseudo-terminal: what it looks like on a real port, without one."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import tty
from types import TracebackType

from firmware.errors import LpuError
from firmware.transport import Transport

_STEP = 1e-4
"""Timeout of one read of the transport. Simulated time passes in these reads only, so they never end."""
_CHUNK = 1 << 14
_BACKLOG = 1 << 16
"""Bytes that may wait for a host that does not read; then the transport is left standing."""


class PtyBridge:
    """Pumps bytes between a pseudo-terminal and ``transport``, from a thread, while the context is open.

    ``path`` is the port for the host's side. Closing it is what unplugging a board is: reads and writes of
    the other end fail. The transport is closed with it; ``error`` is what it failed with, if it did.
    """

    def __init__(self, transport: Transport, step: float = _STEP) -> None:
        self.error: LpuError | None = None
        self._transport = transport
        self._step = step
        self._master, slave = os.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        # Kept open: a master whose other end nobody holds cannot be read.
        self._slave = slave
        os.set_blocking(self._master, False)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._pump, name=f"bridge {self.path}", daemon=True)

    def __enter__(self) -> PtyBridge:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unplugs: ends the thread, the pseudo-terminal and the transport. Harmless when repeated."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._unplug()
        self._transport.close()

    def _unplug(self) -> None:
        for name in ("_master", "_slave"):
            fd = getattr(self, name)
            if fd >= 0:
                setattr(self, name, -1)
                os.close(fd)

    def _pump(self) -> None:
        waiting = bytearray()
        try:
            while not self._ended.is_set():
                with contextlib.suppress(BlockingIOError):
                    while data := os.read(self._master, _CHUNK):
                        self._transport.write(data)
                if len(waiting) < _BACKLOG:
                    waiting += self._transport.read(self._step)
                else:
                    select.select([], [self._master], [], 0.01)
                with contextlib.suppress(BlockingIOError):
                    while waiting:
                        del waiting[: os.write(self._master, waiting)]
        except LpuError as error:
            self.error = error
        finally:
            self._unplug()
