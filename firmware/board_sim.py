"""The simulated board behind a port of its own: ``--port sim``."""

from __future__ import annotations

import importlib
import importlib.util

from firmware.errors import LpuError
from firmware.image_file import Image
from firmware.rtl import Progress
from firmware.transport import Transport

MODULE = "fpga.board_sim"
"""Looked up by name: boards may import the firmware, never the other way round."""


def open_board(config_name: str, image: Image, progress: Progress | None = None) -> Transport:
    """A simulated board at power-on with ``image`` in its memories; ``progress``: told how its model is built.

    Raises LpuError where this installation has none.
    """
    if importlib.util.find_spec(MODULE.partition(".")[0]) is None or importlib.util.find_spec(MODULE) is None:
        raise LpuError(f"--port sim needs {MODULE}, which is not part of this installation")
    transport: Transport = importlib.import_module(MODULE).open_board(config_name, image, progress)
    return transport
