"""The code of the weight memories: every single and double error of a word, in Python and in hardware."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from amaranth.sim import Simulator

from hdl.config import CONFIGS
from hdl.ecc import Decoder, get_code

WIDTHS = sorted({8 * cfg.lanes for cfg in CONFIGS.values()} | {8, 128})


def random_words(data_bits: int, count: int) -> list[int]:
    rng = np.random.default_rng([data_bits])
    return [int.from_bytes(rng.bytes(data_bits // 8), "little") for _ in range(count)]


@pytest.mark.parametrize("data_bits", WIDTHS)
def test_columns_are_odd_and_distinct(data_bits: int) -> None:
    code = get_code(data_bits)
    assert len(set(code.columns)) == len(code.columns) == code.width == data_bits + code.check_bits
    assert all(column.bit_count() % 2 for column in code.columns)
    loads = [sum(column >> r & 1 for column in code.columns) for r in range(code.check_bits)]
    assert max(loads) - min(loads) <= 1, "rows sum up equally many bits"


def test_the_boards_words() -> None:
    """72 bits, every check bit the sum of 26 data bits: three levels of LUT4."""
    code = get_code(64)
    assert (code.width, code.check_bits) == (72, 8)
    assert {sum(column >> r & 1 for column in code.columns) for r in range(8)} == {27}


@pytest.mark.parametrize("data_bits", WIDTHS)
def test_zero_is_a_word(data_bits: int) -> None:
    assert get_code(data_bits).encode([0]) == [0]
    assert get_code(data_bits).encode([]) == []


def test_every_error_of_one_and_two_bits() -> None:
    code = get_code(64)
    for data, word in zip(values := random_words(64, 3), code.encode(values), strict=True):
        assert code.decode(word) == (data, False, False)
        for i in range(code.width):
            assert code.decode(word ^ 1 << i) == (data, True, False)
        for i, j in itertools.combinations(range(code.width), 2):
            assert code.decode(word ^ 1 << i ^ 1 << j)[1:] == (False, True)


@pytest.mark.parametrize("data_bits", [8, 64])
def test_decoder_in_hardware(data_bits: int) -> None:
    """Every error of one and of two bits, some of three and more, a word a cycle: as in Python, two cycles later."""
    code = get_code(data_bits)
    rng = np.random.default_rng(data_bits)
    flips = [0, *(1 << i for i in range(code.width))]
    flips += [1 << i | 1 << j for i, j in itertools.combinations(range(code.width), 2)]
    flips += [sum(1 << int(b) for b in rng.choice(code.width, n, replace=False)) for n in (3, 4, 5) for _ in range(50)]
    words = [word ^ flip for word, flip in zip(code.encode(random_words(data_bits, len(flips))), flips, strict=True)]
    unit = Decoder(data_bits)

    async def bench(ctx) -> None:
        for cycle in range(len(words) + unit.LATENCY):
            if cycle < len(words):
                ctx.set(unit.word, words[cycle])
            if cycle >= unit.LATENCY:
                got = ctx.get(unit.data), bool(ctx.get(unit.corrected)), bool(ctx.get(unit.uncorrectable))
                assert got == code.decode(words[cycle - unit.LATENCY]), f"word {cycle - unit.LATENCY}"
            await ctx.tick()

    sim = Simulator(unit)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
