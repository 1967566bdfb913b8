"""Contents of block RAMs in bitstreams: the text that Trellis reads, labels, and exchange without place and route."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, ClockSignal, Elaboratable, Module, Signal

from firmware.cli.program import SHIPPED
from firmware.errors import LpuError
from fpga import bitstream, build, tools
from fpga.bitstream import Label, cells, check_label, find_wids, init_text, put, read_label
from fpga.board import BOARDS
from fpga.boot import boot_words
from fpga.build import platform
from fpga.contents import BOOT, bank_shape, core_path
from fpga.ecp5 import MODES, Block, BlockRam, Mode
from fpga.floorplan import DIES, floorplan
from fpga.netlist import Primitives
from fpga.report import slowest
from fpga.ties import C_PINS, check_ties, tied_operands
from hdl.banks import BANKED
from hdl.config import TINY
from hdl.contract import contract_hash
from hdl.link import space_shape
from hdl.mem import Rom
from hdl.primitives import DSP_BITS, Multiplier

LABEL = Label("board", TINY.hash(), contract_hash(TINY), 100, "model", "0123", ())


class _Blocks(Elaboratable):
    """One block RAM of each shape, with contents; a ROM, and multipliers of each kind: ecppack has to know them."""

    def __init__(self, contents: dict[Mode, list[int]]):
        self.contents = contents
        self.clk, self.i, self.o = Signal(), Signal(), Signal()

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.domains.sync = ClockDomain(reset_less=True)
        m.d.comb += ClockSignal().eq(self.clk)
        parity = self.i
        for mode, words in self.contents.items():
            m.submodules[f"ram{mode.depth}"] = ram = BlockRam(mode, register=True, init=words)
            at = Signal(range(mode.depth))
            m.d.sync += at.eq(at + 1)
            m.d.comb += [ram.r_en.eq(1), ram.r_addr.eq(at), ram.w_addr.eq(at)]
            m.d.comb += ram.w_en.eq(self.i.replicate(mode.bytes))
            parity = parity ^ ram.r_data.xor()
        at = Signal(DSP_BITS)
        m.d.sync += at.eq(at + 1)
        m.submodules.rom = rom = Rom(width=36, init=range(512))
        m.d.comb += [rom.a.en.eq(self.i), rom.a.addr.eq(at)]
        parity = parity ^ rom.a.data.xor()
        for stages in (1, 2, 3):
            for sign in (False, True):
                mul = Multiplier(stages=stages, signed_a=sign, signed_b=False)
                m.submodules[f"mul{stages}{sign}"] = mul
                m.d.comb += [mul.a.eq(at.as_signed() if sign else at), mul.b.eq(at)]
                parity = parity ^ mul.p.xor()
        m.d.sync += self.o.eq(parity)
        return m


def test_contents_as_nextpnr_writes_them(tmp_path: Path, rng: np.random.Generator) -> None:
    """What is put in afterwards is what nextpnr makes of INITVAL parameters, at every shape; ecppack and ecpunpack
    keep it, and the label."""
    contents = {mode: [int(x) for x in rng.integers(0, 1 << mode.width, mode.depth)] for mode in MODES}
    top = _Blocks(contents)
    text = rtlil.convert(top, name="top", platform=Primitives(), ports=[top.clk, top.i, top.o], emit_src=False)
    (tmp_path / "top.il").write_text(text)
    (tmp_path / "top.ys").write_text(f"read_rtlil top.il\n{tools.SYNTHESIS.format(top='top')}\nwrite_json top.json\n")
    tools.run("yosys", ["-q", "-l", "yosys.log", "top.ys"], tmp_path, "yosys.log")
    tools.run(
        "nextpnr-ecp5",
        ["--85k", "--package", "CABGA381", "--speed", "6", "--json", "top.json", "--textcfg", "top.config",
         "--write", "placed.json", "--log", "nextpnr.log", "--lpf-allow-unconstrained"],
        tmp_path, "nextpnr.log",
    )  # fmt: skip
    config = (tmp_path / "top.config").read_text()
    written = dict(re.findall(r"(?m)^\.bram_init (\d+)\n((?:[0-9a-f ]+\n)+)", config))
    wids = re.findall(r'"(ram\d+)\.ebr": \{.*?"WID": "([01]+)"', (tmp_path / "placed.json").read_text(), re.DOTALL)
    assert len(wids) == len(contents)
    by_name = {name: str(int(bits, 2)) for name, bits in wids}
    for mode, words in contents.items():
        lanes = tuple((9 * i, 9) for i in range(mode.bytes))
        block = Block("x", mode, 0, lanes)
        assert written[by_name[f"ram{mode.depth}"]].split() == init_text(block.words(words), block).split()
    check_ties(tmp_path / "top.config", tmp_path / "placed.json")
    (tmp_path / "untied.config").write_text(re.sub(r"(:CIB_DSP\w*\n(?:arc: .*\n)*)enum: .*\n", r"\1", config, count=1))
    with pytest.raises(LpuError, match="nextpnr has lost some"):
        check_ties(tmp_path / "untied.config", tmp_path / "placed.json")
    config = re.sub(r"(?m)^\.comment", f".comment {LABEL.text()}\n.comment", config, count=1)
    (tmp_path / "labelled.config").write_text(config)
    bitstream.pack(tmp_path, "labelled.config", "top.bit")
    bitstream.unpack(tmp_path, "top.bit", "again.config")
    again = (tmp_path / "again.config").read_text()
    assert read_label(again) == LABEL
    found = dict(re.findall(r"(?m)^\.bram_init (\d+)\n((?:[0-9a-f ]+\n)+)", again))
    assert {k: v.split() for k, v in found.items()} == {k: v.split() for k, v in written.items()}


def test_put_replaces_contents_and_label(rng: np.random.Generator) -> None:
    """All banks' blocks get contents, foreign sections stay, and doing it twice is doing it once."""
    count = sum(1 for _ in cells(TINY))
    label = dataclasses.replace(LABEL, wids=tuple(range(3, 3 + count)))
    contents = {BOOT: boot_words(b"boot")}
    for space in BANKED:
        banks, depth = space_shape(TINY, space)
        for sub in range(banks):
            contents[core_path(TINY, space, sub)] = [int(x) for x in rng.integers(0, 1 << 32, depth)]
    old = ".device X\n\n.comment Part: X\n\n.tile A:B\narc: a b\n\n.bram_init 3\n000 001\n\n.bram_init 2\n007 006\n\n"
    once = put(old, TINY, label, contents)
    assert read_label(once) == label
    assert "arc: a b\n" in once and ".bram_init 2\n007 006\n" in once and ".bram_init 3\n000 001\n" not in once
    assert put(once, TINY, label, contents) == once
    assert once.count(".bram_init") == count + 1
    boot = once.split(f".bram_init {2 + count}\n")[1].split()
    assert boot[:5] == ["162", "16f", "16f", "174", "000"]


def test_every_word_of_a_bank_is_in_one_block(rng: np.random.Generator) -> None:
    """The blocks of a bank hold each bit of each word once."""
    path = core_path(TINY, BANKED[0], 0)
    shape = bank_shape(TINY, BANKED[0])
    depth, width = shape.depth, shape.width
    words = [int.from_bytes(rng.bytes(width // 8), "little") for _ in range(depth)]
    back = [0] * depth
    for _, owner, block in cells(TINY):
        if owner == path:
            for i, value in enumerate(block.words(words)):
                for lane, (at, bits) in enumerate(block.lanes):
                    back[block.base + i] |= (value >> 9 * lane & (1 << bits) - 1) << at
    assert back == words


def test_labels_of_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LpuError, match="no open-lpu label"):
        read_label(".device X\n.comment Part: X\n")
    with pytest.raises(LpuError, match="another version"):
        check_label(dataclasses.replace(LABEL, contract="0" * 16), TINY)
    check_label(LABEL, TINY)
    (tmp_path / "n.json").write_text('        "a.ebr": {\n          "WID": "0011"\n')
    with pytest.raises(LpuError, match="block RAMs are not in it"):
        find_wids(tmp_path / "n.json", TINY)


def test_a_failing_tool_shows_its_log(tmp_path: Path) -> None:
    (tmp_path / "bad.ys").write_text("no_such_command\n")
    with pytest.raises(LpuError, match="no_such_command"):
        tools.run("yosys", ["-q", "-l", "yosys.log", "bad.ys"], tmp_path, "yosys.log")


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_floorplan(name: str) -> None:
    """No site twice; a site for every block of a device that has a plan; no cell of another type."""
    board = BOARDS[name]
    cfg = board.cfg
    rams = {cell: "PDPW16KD" if block.mode.width == 36 else "DP16KD" for cell, _, block in cells(cfg)}
    muls = {
        f"board.core.mxm.superlane{s}.column{c}.mul{lane}.block.dsp.dsp": "MULT18X18D"
        for s in range(cfg.vlanes) for c in range(cfg.superlane_columns) for lane in range(cfg.lanes)
    }  # fmt: skip
    device = platform(board).device
    plan = floorplan(device, cfg, {**rams, **muls, "board.core.vxm.a": "TRELLIS_FF"})
    assert len(set(plan.values())) == len(plan)
    assert set(plan) == (set(rams) | set(muls) if device in DIES else set())
    # A column's block RAMs stand in one row, its lanes from left to right.
    for path in {cell.split(".bank.")[0] for cell in plan if ".bank." in cell and ".column" in cell}:
        sites = [plan[cell] for cell, _, _ in cells(cfg) if cell.startswith(f"{path}.bank.")]
        assert len({site.split("/")[1] for site in sites}) == 1


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*/lpu.bit")), ids=lambda path: path.parent.name)
def test_shipped_bitstreams_are_of_these_sources(path: Path, tmp_path: Path) -> None:
    """What ``lpu program`` takes where nothing was built fits the host's software, and is what its report is about."""
    report = json.loads((path.parent / "report.json").read_text())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == report["bitstream_sha256"]
    assert report["fmax_mhz"] >= report["target_mhz"]
    (tmp_path / "in.bit").write_bytes(path.read_bytes())
    bitstream.unpack(tmp_path, "in.bit", "in.config")
    config = (tmp_path / "in.config").read_text()
    assert tied_operands(config) >= C_PINS * report["dsp"]["used"]
    label = read_label(config)
    board = BOARDS[path.parent.name]
    check_label(label, board.cfg)
    assert (label.board, label.clock_hz, label.image) == (board.name, board.clock_hz, report["image"])


def test_the_smallest_board_fits(tmp_path: Path) -> None:
    """Synthesised and packed: no resource beyond what the vendor publishes, and each lane's product in a multiplier."""
    board = min(BOARDS.values(), key=lambda b: b.limits.lut4)
    build.elaborate(board, tmp_path)
    build.write_script(board, tmp_path)
    build.synthesise(tmp_path)
    build.plan(board, tmp_path)
    resources = build.count(board, tmp_path)
    build.check_limits(board, resources)
    # What is left of the multipliers goes to the MXM; where all of them are in use, its last products are LUTs.
    cells = json.loads((tmp_path / f"{build.NAME}.planned.json").read_text())["modules"][build.NAME]["cells"]
    multipliers = [name for name, cell in cells.items() if cell["type"] == "MULT18X18D"]
    in_columns = sum(".column" in name for name in multipliers)
    assert resources["dsp"] == {"used": len(multipliers), "available": board.limits.dsp}
    assert in_columns == board.cfg.columns * board.cfg.lanes or len(multipliers) == board.limits.dsp
    assert 0 < resources["ff"]["used"] <= resources["lut4"]["used"]
    small = dataclasses.replace(board, limits=dataclasses.replace(board.limits, ebr=resources["ebr"]["used"] - 1))
    with pytest.raises(LpuError, match=rf"{board.name}: more than the vendor publishes for the device: ebr"):
        build.check_limits(small, build.count(small, tmp_path))


def test_the_slowest_endpoints_count_once() -> None:
    """Endpoints that differ in numbers only are one, with the latest of their arrivals; the latest comes first."""

    def end(cell: str, *delay: float) -> dict[str, object]:
        return {"cell": cell, "port": "D", "delay": list(delay)}

    nets = [{"endpoints": [end("a1", 1.0, 3.0), end("b", 2.0)]}, {"endpoints": [end("a22", 2.5)]}]
    assert slowest({"detailed_net_timings": nets}, 5) == [(3.0, "a#.D"), (2.0, "b.D")]
    assert slowest({"detailed_net_timings": nets}, 1) == [(3.0, "a#.D")]
