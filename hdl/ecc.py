"""Error correction of memory words: Hsiao's SECDED code (single errors corrected, double errors detected).

A word of ``data_bits`` bits gets the fewest check bits that do: 8 for 64, which makes the 72 bits of two 36-bit block
RAMs, or of eight 9-bit ones. Each bit of the word has a column of the parity-check matrix, an odd number of ones, no
two the same: one of weight 1 for a check bit, heavier ones for data bits. The syndrome of one flipped bit is its
column; that of two is the sum of two different columns, not zero and of even weight, so never taken for one.
Hsiao, "A Class of Optimal Minimum Odd-weight-column SEC-DED Codes", IBM J. Res. Dev. 14 (1970).

The code is linear: data of zeros has check bits of zero, so a memory that starts as zeros holds valid words.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np
from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Code:
    """The code of ``data_bits``-bit data; :func:`get_code` keeps one of each. A word: data, check bits above."""

    def __init__(self, data_bits: int):
        self.data_bits = data_bits
        self.check_bits = next(r for r in itertools.count(4) if (1 << r - 1) - r >= data_bits)
        self.width = data_bits + self.check_bits
        """Bits of a word."""
        self.columns = (*_columns(data_bits, self.check_bits), *(1 << i for i in range(self.check_bits)))
        """Syndrome of each bit of a word, flipped alone."""

    def _sums(self, value: Value) -> Value:
        """For each check bit, the parity of those bits of ``value`` whose columns have it."""
        parities = []
        for row in range(self.check_bits):
            chosen = [value[bit] for bit in range(len(value)) if self.columns[bit] >> row & 1]
            parities.append(Cat(*chosen).xor())
        return Cat(*parities)

    def check(self, data: Value) -> Value:
        """Check bits of data."""
        return self._sums(data)

    def syndrome(self, word: Value) -> Value:
        """Zero for a valid word, the column of a flipped bit, or something else."""
        return self._sums(word)

    def single(self, syndrome: Value) -> Value:
        """Whether a syndrome is that of a single error: a table."""
        table = sum(1 << column for column in self.columns)
        return Const(table, 1 << self.check_bits).bit_select(syndrome, 1)

    def flips(self, syndrome: Value) -> Value:
        """The data bit that a syndrome means, one-hot; zero where none is wrong.

        Halves of the syndrome are decoded first, so that a data bit costs one small gate.
        """
        middle = self.check_bits // 2
        low, high = syndrome[:middle], syndrome[middle:]
        lows = {v: low == v for v in {c & (1 << middle) - 1 for c in self.columns[: self.data_bits]}}
        highs = {v: high == v for v in {c >> middle for c in self.columns[: self.data_bits]}}
        return Cat(lows[c & (1 << middle) - 1] & highs[c >> middle] for c in self.columns[: self.data_bits])

    # The same in Python, for compilers, contents and tests.

    def encode(self, data: Sequence[int]) -> list[int]:
        """Words that hold the data."""
        bits = np.array([[value >> b & 1 for b in range(self.data_bits)] for value in data], np.int64)
        matrix = [[column >> r & 1 for r in range(self.check_bits)] for column in self.columns[: self.data_bits]]
        checks = bits.reshape(len(data), self.data_bits) @ np.array(matrix, np.int64) & 1
        weights = [1 << self.data_bits + r for r in range(self.check_bits)]
        return [
            value | sum(w for w, c in zip(weights, row, strict=True) if c)
            for value, row in zip(data, checks.tolist(), strict=True)
        ]

    def decode(self, word: int) -> tuple[int, bool, bool]:
        """(data, corrected, uncorrectable) of a word."""
        data = word & (1 << self.data_bits) - 1
        syndrome = 0
        for bit, column in enumerate(self.columns):
            syndrome ^= column if word >> bit & 1 else 0
        if not syndrome:
            return data, False, False
        if syndrome not in self.columns:
            return data, False, True
        bit = self.columns.index(syndrome)
        return data ^ (1 << bit if bit < self.data_bits else 0), True, False


@functools.cache
def get_code(data_bits: int) -> Code:
    return Code(data_bits)


def _columns(count: int, rows: int) -> list[int]:
    """Columns of data bits: the lightest of odd weight, rows summing up about equally many of them."""
    chosen: list[int] = []
    load = [0] * rows
    for weight in range(3, rows + 1, 2):
        left = [sum(1 << r for r in ones) for ones in itertools.combinations(range(rows), weight)]
        if len(left) > count - len(chosen):
            # Not all of this weight are needed: always the one whose rows have the least so far.
            for _ in range(count - len(chosen)):
                best = min(left, key=functools.partial(_cost, load))
                left.remove(best)
                chosen.append(best)
                load = [n + (best >> r & 1) for r, n in enumerate(load)]
            return chosen
        chosen += left
        load = [n + sum(column >> r & 1 for column in left) for r, n in enumerate(load)]
    return chosen


def _cost(load: list[int], column: int) -> tuple[int, int, int]:
    """Of adding a column to rows that sum up so many bits."""
    loads = [n for r, n in enumerate(load) if column >> r & 1]
    return max(loads), sum(loads), column


class Decoder(wiring.Component):
    """A word in cycle c; in c + 2 its ``data``, a single error ``corrected``, any other ``uncorrectable``.

    The same two stages for every word: syndrome; correction. Data of an uncorrectable word are what was read.
    """

    LATENCY = 2

    def __init__(self, data_bits: int):
        self.code = get_code(data_bits)
        super().__init__({
            "word": In(self.code.width),
            "data": Out(data_bits),
            "corrected": Out(1),
            "uncorrectable": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        code = self.code
        syndrome = Signal(code.check_bits, reset_less=True)
        raw = Signal(code.data_bits, reset_less=True)
        data = Signal(code.data_bits, reset_less=True)
        corrected = Signal(reset_less=True)
        uncorrectable = Signal(reset_less=True)
        single = Signal()
        m.d.comb += single.eq(code.single(syndrome))
        m.d.sync += [
            syndrome.eq(code.syndrome(self.word)),
            raw.eq(self.word[: code.data_bits]),
            data.eq(raw ^ code.flips(syndrome)),
            corrected.eq(single),
            uncorrectable.eq(syndrome.any() & ~single),
        ]
        m.d.comb += [self.data.eq(data), self.corrected.eq(corrected), self.uncorrectable.eq(uncorrectable)]
        return m
