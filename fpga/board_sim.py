"""A board in simulation: its core behind a UART's two wires, in Verilator, as a transport for the driver."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from firmware.image_file import Image
from firmware.rtl import HDL, Progress, build_model, exported
from firmware.sim_transport import SimTransport
from hdl.config import Config, get_config
from sim.verilator import CLOCKS_PER_BIT, Library, VerilatorModel

from .contents import demo_stream, power_on, write_hex

BAUD = 25_000
CLOCK_HZ = BAUD * CLOCKS_PER_BIT
"""Clock and bit rate that simulated boards are built for unless told otherwise: a bit is as short as the UART takes it,
and what a board shows in seconds (debouncing, LEDs) takes few cycles. A board differs in these numbers alone."""
TOP = "board"


def build_board(
    cfg: Config,
    clock_hz: int = CLOCK_HZ,
    baud: int = BAUD,
    trace: bool = False,
    progress: Progress | None = None,
) -> Library:
    """The Verilator model of a BoardCore, built when needed."""

    def make() -> str:
        from fpga.board import BoardCore  # Amaranth takes a while to import
        from hdl.export import to_verilog

        return to_verilog(BoardCore(cfg, clock_hz, baud), TOP)

    name = f"{TOP}-{cfg.name}"
    parameters = (dataclasses.astuple(cfg), clock_hz, baud)
    path = exported(name, parameters, [HDL, Path(__file__).parent], make, progress)
    return build_model(path, TOP, name, trace=trace, serial=True, progress=progress)


class BoardSimTransport(SimTransport):
    """A Transport on a simulated board at power-on. Time passes only inside :meth:`read` and :meth:`press`.

    ``contents``: words of its banks (:func:`fpga.contents.power_on`); without them they hold zeros.
    """

    def __init__(self, library: Library, contents: Mapping[str, Sequence[int]] | None = None):
        with tempfile.TemporaryDirectory() as folder:
            plusarg = write_hex(Path(folder), TOP, contents or {})
            super().__init__(VerilatorModel(library, plusargs=[plusarg]))

    def press(self, cycles: int) -> None:
        """Holds the button for so many cycles. A byte that is being sent is cut."""
        self.model.drop_cut_bytes()
        self.model.set("button", 1)
        self.model.run(cycles)
        self.model.set("button", 0)


def open_board(config_name: str, image: Image, progress: Progress | None = None) -> BoardSimTransport:
    """A simulated board at power-on, with ``image`` in its banks and a run of it in its boot memory."""
    cfg = get_config(config_name)
    return BoardSimTransport(build_board(cfg, progress=progress), power_on(image, cfg, demo_stream(image)))
