"""A line that loses, damages and adds bytes, the same ones each time."""

from __future__ import annotations

import numpy as np

from firmware.transport import Transport


class NoisyLine:
    """A Transport over another one. ``rate``: how likely each byte is lost, and damaged, and followed by another."""

    def __init__(self, transport: Transport, rng: np.random.Generator) -> None:
        self.transport = transport
        self.rate = 0.0
        self.lost = self.damaged = self.added = 0
        """Bytes, so far, in both directions."""
        self._rng = rng

    def write(self, data: bytes) -> None:
        """To the device."""
        self.transport.write(self._through(data))

    def read(self, timeout: float) -> bytes:
        """From the device: nothing, where all that came was lost."""
        return self._through(self.transport.read(timeout))

    def burst(self, count: int) -> None:
        """Random bytes to the device."""
        self.added += count
        self.transport.write(self._rng.bytes(count))

    def close(self) -> None:
        """Closes the line below."""
        self.transport.close()

    def _through(self, data: bytes) -> bytes:
        if not self.rate or not data:
            return data
        lost, damaged, added = self._rng.random((3, len(data))) < self.rate
        self.lost += int(lost.sum())
        self.damaged += int((damaged & ~lost).sum())
        self.added += int(added.sum())
        if not (lost | damaged | added).any():
            return data
        out = bytearray()
        for i, byte in enumerate(data):
            if not lost[i]:
                out.append(byte ^ 1 << int(self._rng.integers(8)) if damaged[i] else byte)
            if added[i]:
                out += self._rng.bytes(1)
        return bytes(out)
