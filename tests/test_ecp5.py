"""ECP5 memories: how they are cut into block RAMs, and what a block's INITVAL parameters say. Multiplier timing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Cat, ClockDomain, ClockSignal, Const, Elaboratable, Instance, Module, Signal

from fpga import tools
from fpga.board import BOARDS, Board
from fpga.ecp5 import EBR_BITS, MODES, Mode, blocks, byte_lanes, cut, init_parameters, init_words, tiling
from hdl.config import ULX3S_85F
from hdl.ecc import get_code


def test_modes_fill_a_block() -> None:
    for mode in MODES:
        assert mode.depth * mode.width == EBR_BITS
        assert 1 << 14 - mode.address_shift == mode.depth
    assert [mode.address_shift for mode in MODES] == [3, 4, 5], "FPGA-TN-02204: of 9, 18 and 36 bits"


@pytest.mark.parametrize("lanes", range(1, 17))
def test_tiling_covers_any_depth(lanes: int) -> None:
    """Slices hold every word, waste none of their own, start at multiples of their size, and are few."""
    best = {0: 0}
    for depth in range(512, 6145, 512):
        best[depth] = min(best[max(0, depth - mode.depth)] + -(-lanes // mode.bytes) for mode in MODES)
        for exact in (depth - 511, depth - 1, depth):
            slices = tiling(exact, lanes)
            starts = np.cumsum([0, *(mode.depth for mode in slices)])
            assert starts[-2] < exact <= starts[-1]
            assert all(start % mode.depth == 0 for start, mode in zip(starts, slices, strict=False))
            assert sum(-(-lanes // mode.bytes) for mode in slices) == best[depth]


@pytest.mark.parametrize(
    ("width", "granularity"), [(64, 8), (64, 16), (128, 128), (84, 84), (36, 36), (9, 9), (8, 8), (1, 1), (30, 10)]
)
def test_byte_lanes_divide_a_word(width: int, granularity: int) -> None:
    """Each bit once, in order, in bytes of at most nine bits that no write enable cuts."""
    lanes = byte_lanes(width, granularity)
    assert [at + i for at, bits in lanes for i in range(bits)] == list(range(width))
    assert all(0 < bits <= 9 and at // granularity == (at + bits - 1) // granularity for at, bits in lanes)
    assert len(lanes) == width // granularity * -(-granularity // 9)


@pytest.mark.parametrize("board", BOARDS.values(), ids=lambda board: board.name)
def test_values_lie_where_both_ports_read(board: Board) -> None:
    """And all words do where that costs no block RAM."""
    cfg = dataclasses.replace(board.cfg, ecc=True)
    width = get_code(8 * cfg.lanes).width
    for group in cut(width, cfg.weight_depth, full=cfg.value_words):
        for block in group:
            assert block.mode.bytes <= 2 or block.base >= cfg.value_words
    if cfg.value_words < cfg.weight_depth:
        assert blocks(width, cfg.weight_depth, full=cfg.weight_depth) > blocks(width, cfg.weight_depth)


def test_blocks_of_the_board() -> None:
    """The ulx3s-85f's memories, each with the number of blocks that its size allows."""
    cfg = dataclasses.replace(ULX3S_85F, ecc=True)
    assert tiling(cfg.weight_depth, 8) == (Mode(2048, 1), Mode(512, 4))
    assert blocks(8 * cfg.lanes, cfg.weight_depth, 8) == 10
    coded = get_code(8 * cfg.lanes).width
    assert blocks(coded, cfg.weight_depth, full=cfg.value_words) == 10, "no block for check bits"
    assert blocks(16 * cfg.vlanes, cfg.scale_depth, 16) == 8
    assert blocks(16 * cfg.vlanes, cfg.coef_depth, 16) == 10
    assert blocks(32 * cfg.vlanes, cfg.vector_depth) == 4
    assert blocks(cfg.act_word_bits, cfg.act_depth) == 3
    assert blocks(36, cfg.queue_depth) == 1
    assert blocks(8, 1024) == 1


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_init_words_round_trip(mode: Mode, rng: np.random.Generator) -> None:
    """The words, as the models in fpga/verilog read them: the low 18 of every 20 bits, one behind the other."""
    words = [int(v) for v in rng.integers(0, 1 << mode.width, mode.depth - 3)]
    parameters = init_words(words, mode)
    assert len(parameters) == 64 and all(value >> 320 == 0 for value in parameters)
    memory = 0
    for k, value in enumerate(parameters):
        for i in range(16):
            unit = value >> 20 * i & 0xFFFFF
            assert unit >> 18 == 0
            memory |= unit << 18 * (16 * k + i)
    back = [memory >> mode.width * i & (1 << mode.width) - 1 for i in range(mode.depth)]
    assert back == [*words, 0, 0, 0]


def test_init_words_refuse_a_wide_word() -> None:
    with pytest.raises(ValueError, match="word 1 has more than 9 bits"):
        init_words([0, 512], MODES[0])


def test_init_parameters() -> None:
    assert init_parameters([], MODES[0]) == {}
    names = list(init_parameters([1], MODES[0]))
    assert names[:2] + names[-1:] == ["p_INITVAL_00", "p_INITVAL_01", "p_INITVAL_3F"] and len(names) == 64


class _InputRegistersOnly(Elaboratable):
    """A multiplier between flip-flops with no register behind its array."""

    def __init__(self) -> None:
        self.clk, self.i, self.o = Signal(), Signal(), Signal()

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.domains.sync = ClockDomain(reset_less=True)
        m.d.comb += ClockSignal().eq(self.clk)
        ab, p, taken = Signal(36), Signal(36), Signal(36)
        m.d.sync += [ab.eq(Cat(self.i, ab)), taken.eq(p), self.o.eq(taken.xor())]
        ports = {f"i_{'AB'[i // 18]}{i % 18}": ab[i] for i in range(36)} | {f"o_P{i}": p[i] for i in range(36)}
        m.submodules.mul = Instance(
            "MULT18X18D", p_REG_INPUTA_CLK="CLK0", p_REG_INPUTB_CLK="CLK0", i_CLK0=ClockSignal(), i_CE0=Const(1),
            i_RST0=Const(0), i_SIGNEDA=Const(1), i_SIGNEDB=Const(1), i_SOURCEA=Const(0), i_SOURCEB=Const(0), **ports,
        )  # fmt: skip
        return m


def test_multipliers_need_no_pipeline_register(tmp_path: Path) -> None:
    """With input registers alone, Trellis's timing tables give the way through the array to the pins: it fits the
    clock of every board, and so does the shorter way to an output register, for which there is no entry."""
    top = _InputRegistersOnly()
    (tmp_path / "top.il").write_text(rtlil.convert(top, name="top", ports=[top.clk, top.i, top.o], emit_src=False))
    (tmp_path / "top.ys").write_text(f"read_rtlil top.il\n{tools.SYNTHESIS.format(top='top')}\nwrite_json top.json\n")
    tools.run("yosys", ["-q", "-l", "yosys.log", "top.ys"], tmp_path, "yosys.log")
    tools.run(
        "nextpnr-ecp5",
        ["--25k", "--package", "CABGA381", "--speed", "6", "--json", "top.json", "--report", "report.json",
         "--log", "nextpnr.log", "--lpf-allow-unconstrained"],
        tmp_path, "nextpnr.log",
    )  # fmt: skip
    paths = json.loads((tmp_path / "report.json").read_text())["critical_paths"]
    through = [s["delay"] for p in paths for s in p["path"] if s["type"] == "clk-to-q" and s["from"]["cell"] == "mul"]
    print(f"clock to product: {max(through):.2f} ns")
    assert max(through) < min(1e9 / board.clock_hz for board in BOARDS.values())
