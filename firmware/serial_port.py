"""A serial port as a transport: the USB side of a board (ULX3S: an FT231X, up to 3 Mbaud)."""

from __future__ import annotations

import contextlib
import errno
import os
import termios
import time
from pathlib import Path

import serial
from serial.tools import list_ports

from firmware.transport import TransportError

BAUD = 3_000_000
"""What the boards speak, unless they were built for another one."""
LATENCY_MS = 1
"""For how long an FTDI chip may keep bytes back to fill a USB packet. Its default of 16 ms is 800 tokens."""
FTDI_VENDOR = 0x0403

_TTY = Path("/sys/class/tty")
_POLL = 0.02
"""Seconds of one wait for bytes; a byte ends it, so it costs no latency."""
_WRITE = 5.0
"""Seconds after which a port that takes no bytes is given up."""


class SerialTransport:
    """A Transport over a serial port, opened for this program alone.

    ``hint``: what would make the port faster and needs the user; empty where there is nothing to say.
    Raises TransportError, with what to do, for a port that is not there, not allowed, in use, or does not know
    the speed; later for one that was unplugged.
    """

    def __init__(self, path: str, baud: int = BAUD) -> None:
        self.path = path
        try:
            self._port = serial.Serial(
                path, baud, timeout=_POLL, write_timeout=_WRITE, exclusive=True, xonxoff=False, rtscts=False
            )
        except (OSError, ValueError, OverflowError, termios.error) as error:
            raise TransportError(f"{path}: {_why(path, baud, error)}") from None
        self.hint = self._shorten_latency()

    def write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except serial.SerialTimeoutException:
            raise TransportError(f"{self.path}: takes no bytes any more; unplug the board and plug it in") from None
        except (OSError, termios.error, TypeError) as error:  # TypeError: closed by another thread in between
            raise self._gone(error) from None

    def read(self, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        try:
            while True:
                data = bytes(self._port.read(max(1, self._port.in_waiting)))
                if data or time.monotonic() >= deadline:
                    return data
        except (OSError, termios.error, TypeError) as error:
            raise self._gone(error) from None

    def close(self) -> None:
        with contextlib.suppress(OSError, termios.error):  # unplugged: nothing to give back
            self._port.close()

    def _gone(self, error: Exception) -> TransportError:
        if not self._port.is_open:
            return TransportError(f"{self.path}: was closed")
        return TransportError(f"{self.path}: is gone: was the board unplugged? ({error})")

    def _shorten_latency(self) -> str:
        """Sets the latency timer of an FTDI chip; returns what the user has to do where that is not allowed."""
        timer = _TTY / os.path.basename(os.path.realpath(self.path)) / "device" / "latency_timer"
        if _read(timer) in (None, str(LATENCY_MS)):
            return ""  # no FTDI chip, or no Linux; or nothing to do
        with contextlib.suppress(OSError):
            timer.write_text(f"{LATENCY_MS}\n")
        if _read(timer) != str(LATENCY_MS):
            with contextlib.suppress(OSError, ValueError, NotImplementedError):
                self._port.set_low_latency_mode(True)  # the driver's own way, open to every user
        now = _read(timer)
        if now == str(LATENCY_MS):
            return ""
        return (
            f"{self.path}: the USB chip keeps bytes back for {now} ms; faster answers: "
            f"echo {LATENCY_MS} | sudo tee {timer}"
        )


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def ports() -> list[str]:
    """A line for each serial port that is likely a USB device, FTDI chips (as on the ULX3S) first."""
    found = [p for p in list_ports.comports() if p.vid is not None]
    found.sort(key=lambda p: (p.vid != FTDI_VENDOR, p.device))
    return [f"{p.device} ({p.product or p.description})" for p in found]


def _why(path: str, baud: int, error: Exception) -> str:
    """What is wrong with a port that cannot be opened, and what to do."""
    code = getattr(error, "errno", None)
    if code in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        known = ", ".join(ports())
        if known:
            return f"no such port; there are: {known}"
        return "no such port, and no USB serial port at all: is the board plugged in?"
    if code in (errno.EACCES, errno.EPERM):
        return (
            "permission denied: join the port's group (sudo usermod -aG dialout $USER, then log in again) or "
            "install a udev rule (README, On a board)"
        )
    if code in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK) or "exclusively lock" in str(error):
        return "is in use by another program (a terminal, another lpu); close that one"
    if isinstance(error, (ValueError, OverflowError)) or "baud" in str(error):
        return f"does not support {baud} baud"
    if isinstance(error.__context__, termios.error) or isinstance(error, termios.error):
        return "is not a serial port"
    return f"cannot be opened: {error}"
