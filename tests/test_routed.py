"""A small board's netlist after place and route, with contents from its bitstream: whole tokens at its pins."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firmware.driver import Driver
from firmware.image_file import Image, section
from firmware.link import Frame, FrameDecoder, Record, done_payload, tokens_payload
from firmware.sim_transport import SimTransport
from fpga import bitstream
from fpga.bitstream import Label, find_wids
from fpga.board import BOARDS, Board
from fpga.board_sim import BoardSimTransport, build_board
from fpga.contents import boot_stream, power_on
from fpga.routed import Flip, Routed, lut_bits, place_and_route, plain, routed_model, write_contents
from hdl.config import CONFIGS, TINY, Config
from hdl.contract import contract_hash
from hdl.image import Reason
from hdl.link import Reply
from sim.verilator import CLOCKS_PER_BIT, VerilatorError, VerilatorModel
from verification.models import GREEDY, Subject, random_model, sampling_of

SIZES = dataclasses.replace(
    TINY, name="routed", columns=2, vlanes=2, acc_bits=36, head_max=64, square_lanes=2, clock_hz=50e6
)
"""As small as the architecture gets, with error correction: half of an LFE5U-45F, and every kind of cell."""
PROMPT, LIMIT = [3, 41, 7], 5
TEMPERATURE, TOPK, SEED = 1.5, 3, 20260
FLIPS = 16
SILENCE = 100_000
"""Cycles without a byte after which the board is taken for dead."""


@dataclasses.dataclass(frozen=True)
class _SmallBoard(Board):
    """A ULX3S with an LPU of SIZES, whose UART is as fast as it can be: a simulation is short."""

    @property
    def cfg(self) -> Config:
        return SIZES


BOARD = _SmallBoard(
    "small-45f", "ULX3S_45F_Platform", SIZES.name, round(SIZES.clock_hz) // CLOCKS_PER_BIT, "none",
    BOARDS["ulx3s-45f"].limits,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Demo:
    """What the board's memories hold at power-on, and what it must write then."""

    subject: Subject
    image: Image

    @property
    def contents(self) -> dict[str, list[int]]:
        return power_on(self.image, SIZES, boot_stream(self.image, PROMPT, LIMIT, TEMPERATURE, TOPK, SEED))

    def check(self, records: list[Record]) -> None:
        _check(self.subject, records, PROMPT, LIMIT, sampled_with=(TEMPERATURE, TOPK, SEED))


def _check(
    subject: Subject, records: list[Record], prompt: list[int], limit: int,
    sampled_with: tuple[float, int, int] | None = None,
) -> None:  # fmt: skip
    """Every token and every cycle count of a run."""
    terms = sampling_of(*sampled_with) if sampled_with else GREEDY
    assert [r.token for r in records if r.sampled] == subject.generate(prompt, limit, terms)
    assert [r.cycles for r in records] == [subject.cycles(i, r.sampled) for i, r in enumerate(records)]


@pytest.fixture(scope="module")
def routed() -> Routed:
    made = place_and_route(BOARD)
    for step, cost in made.costs.items():
        print(f"{step}: {cost.seconds:.0f} s, {cost.peak_mib:.0f} MiB")
    return made


@pytest.fixture(scope="module")
def flips(routed: Routed) -> list[Flip]:
    """Bits of LUTs that can be inverted in the model: one netlist serves all tests, and all seeds, as it takes long to
    compile. So they do not depend on the seed."""
    rng = np.random.default_rng([1, FLIPS])
    bits = lut_bits(routed)
    return [bits[i] for i in rng.choice(len(bits), FLIPS, replace=False)]


@pytest.fixture
def demo(seed: int) -> _Demo:
    subject = random_model(SIZES, np.random.default_rng(seed), ffn=8, context=24)
    sections = tuple(section(s.space, s.sub, s.address, s.data) for s in subject.compiled.sections)
    return _Demo(subject, Image(SIZES, {}, sections))


@pytest.fixture
def contents(routed: Routed, demo: _Demo, tmp_path: Path) -> str:
    """The block RAMs' contents out of the finished bitstream, as the plusarg that brings them in: put into the text as
    a build does, packed, unpacked."""
    label = Label(
        BOARD.name, SIZES.hash(), contract_hash(SIZES), BOARD.clock_hz, "random", f"{demo.image.identity:016x}",
        find_wids(routed.netlist, SIZES),
    )  # fmt: skip
    (tmp_path / "in.config").write_text(bitstream.put(routed.config.read_text(), SIZES, label, demo.contents))
    bitstream.pack(tmp_path, "in.config", "lpu.bit")
    bitstream.unpack(tmp_path, "lpu.bit", "out.config")
    return write_contents((tmp_path / "out.config").read_text(), tmp_path)


def _power_on_run(model: VerilatorModel) -> tuple[list[Frame], list[int]]:
    """The frames of the run that the boot memory starts, and the cycle in which each byte had left."""
    decoder, frames, stamps = FrameDecoder(), list[Frame](), list[int]()
    while not frames or frames[-1].type != Reply.DONE:
        model.run(SILENCE, stop_when_tx=1)
        data, cycles = model.pop_tx_timed()
        assert data, "silent"
        stamps += cycles.tolist()
        frames += decoder.feed(data)
        assert not decoder.bad, "a damaged frame"
    return frames, stamps


def _records(frames: list[Frame]) -> list[Record]:
    return [r for f in frames if f.type == Reply.TOKENS for r in tokens_payload(f.payload)[1]]


@pytest.mark.slow
def test_whole_tokens(
    routed: Routed, flips: list[Flip], demo: _Demo, contents: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At power-on it writes what the reference writes, each byte in the RTL's cycle; then a host loads a model."""
    with VerilatorModel(routed_model(routed, flips), plusargs=[contents]) as model:
        frames, stamps = _power_on_run(model)
        records = _records(frames)
        assert done_payload(frames[-1].payload) == (Reason.LIMIT, len(records))
        demo.check(records)

        rtl = BoardSimTransport(build_board(SIZES, BOARD.clock_hz, BOARD.baud), demo.contents)
        try:
            same, at = _power_on_run(rtl.model)
        finally:
            rtl.close()
        assert frames == same
        assert np.ptp(np.array(stamps) - np.array(at)) == 0, "not in the RTL's cycles"

        monkeypatch.setitem(CONFIGS, SIZES.name, SIZES)  # a host asks what the hardware is by its hash
        transport = SimTransport(model)
        driver = Driver(transport, timeout=0.05, clock=transport.now)  # a million cycles, however long they take here
        assert driver.info().image == demo.image.identity
        other = random_model(SIZES, np.random.default_rng([seed, 1]), width=8, layers=1, tied=False)
        driver.load([(s.space, s.sub, s.address, s.data) for s in other.compiled.sections])
        prompt = [9, 60]
        run = driver.run(prompt, 4, clear=True)
        records = list(run)
        assert run.reason == Reason.LIMIT
        _check(other, records, prompt, 4)


@pytest.mark.slow
def test_a_flipped_bit_is_noticed(routed: Routed, flips: list[Flip], demo: _Demo, contents: str) -> None:
    """The comparison can fail: of single bits of LUTs, drawn from all of them, it notices some: three of these
    with seed 1. The others select what these tokens never come across, or what no token needs."""
    noticed = []
    for i in range(len(flips)):
        with VerilatorModel(routed_model(routed, flips), plusargs=[contents]) as model:
            model.set("flip", 1 << i)
            try:
                demo.check(_records(_power_on_run(model)[0]))
            except (AssertionError, VerilatorError) as error:
                noticed.append((flips[i], str(error).partition("\n")[0]))
    for flip, how in noticed:
        print(flip, how)
    print(f"{len(noticed)} of {len(flips)} noticed")
    assert noticed


def _cell(kind: str, parameters: dict[str, str], nets: dict[str, int | None], outputs: str) -> dict[str, Any]:
    return {
        "type": kind, "parameters": parameters, "attributes": {"WID": "101"},
        "port_directions": {port: "output" if port in outputs.split() else "input" for port in nets},
        "connections": {port: [] if net is None else [net] for port, net in nets.items()},
    }  # fmt: skip


def test_settings_of_pins_become_levels() -> None:
    """Pins that no net reaches are what the bitstream makes of them."""
    ram = {"DATA_WIDTH_A": f"{9:032b}", "WEAMUX": "INV", "CEAMUX": "CEA", "ADA0MUX": "1 "}
    pins = {"WEA": None, "CEA": None, "ADA0": None, "CLKA": 2, "OCEB": None, "CSA0": None, "DIA0": None, "DOA0": 3}
    cells = {
        "narrow": _cell("DP16KD", ram, pins, "DOA0"),
        "wide": _cell("DP16KD", {"DATA_WIDTH_A": f"{36:032b}"}, {"WEA": None, "WEB": None}, ""),
        "early": _cell("TRELLIS_FF", {"SD": "1 "}, {"DI": 4, "Q": 5}, "Q"),
        "direct": _cell("TRELLIS_FF", {"SD": "0 "}, {"M": 4, "Q": 6}, "Q"),
        "lut": _cell("TRELLIS_COMB", {"INITVAL": f"{1:016b}"}, {"A": 5, "B": None, "F": 7, "F1": 8, "OFX": 9}, "F OFX"),
        "place": _cell("TRELLIS_COMB", {"INITVAL": "0", "MODE": "RAMW_BLOCK"}, {"F": None}, "F"),
    }
    written = {"modules": {"top": {"ports": {}, "cells": cells}}}
    found = plain(written)["modules"]["lpu"]["cells"]
    levels = {port: nets[0] for port, nets in found["narrow"]["connections"].items()}
    assert levels == {"WEA": "0", "CEA": "1", "ADA0": "1", "CLKA": 2, "OCEB": "1", "CSA0": "0", "DIA0": "0", "DOA0": 3}
    assert found["narrow"]["parameters"] == {"DATA_WIDTH_A": f"{9:032b}", "WID": "101"}
    assert found["wide"]["connections"] == {"WEA": ["1"], "WEB": ["0"]}
    assert found["early"]["connections"]["DI"] == found["direct"]["connections"]["DI"] == [4]
    assert found["lut"]["connections"]["B"] == ["1"] and int(found["lut"]["parameters"]["OFX_MUX"], 2) == 5
    assert "place" not in found
    cells["gated"] = _cell("DCCA", {}, {"CE": 4, "CLKI": 2, "CLKO": 10}, "CLKO")
    with pytest.raises(AssertionError, match="a gated clock"):
        plain(written)
