"""A short soak, what it would notice, and the line's noise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from hdl.config import TINY
from verification.noisy_line import NoisyLine
from verification.soak import Mismatch, Soak


class Loop:
    """What is written comes back."""

    def __init__(self) -> None:
        self.data = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.data += data

    def read(self, timeout: float) -> bytes:
        data, self.data = self.data, b""
        return data

    def close(self) -> None:
        self.closed = True


def test_noise_is_repeatable() -> None:
    """Clean without a rate; else about as many bytes are lost, damaged and added as the rate says."""
    data = bytes(range(256)) * 40
    seen = []
    for _ in range(2):
        line = NoisyLine(Loop(), np.random.default_rng(3))
        line.write(data)
        assert line.read(1) == data and line.lost == line.damaged == line.added == 0
        line.rate = 0.01
        line.write(data)
        line.rate = 0
        seen.append(line.read(1))
        assert all(60 < count < 150 for count in (line.lost, line.damaged, line.added))
        line.burst(5)
        assert len(line.read(1)) == 5
        line.close()
    assert seen[0] == seen[1] != data


@pytest.fixture(scope="module")
def soak() -> Iterator[Soak]:
    made = Soak(TINY, 5, models=2)
    yield made
    made.board.close()


@pytest.mark.bench
def test_a_short_soak(soak: Soak) -> None:
    while soak.counts["tokens"] < 60:
        soak.step()


@pytest.mark.bench
def test_a_wrong_weight_is_noticed(soak: Soak) -> None:
    """Of the reference instead of the board, which is the same to the comparison."""
    for model in soak.models:
        layer = model.subject.model.layers[0]
        layer.o.weight[...] = np.roll(layer.o.weight, 1)
    with pytest.raises(Mismatch, match="position"):
        for _ in range(50):
            soak.step()
