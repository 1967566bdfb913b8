"""Where the banks that hold an image lie in the core: paths of instances, for those who reach into a memory."""

from __future__ import annotations

from .config import Config
from .image import Space
from .isa import Queue

BANKED = (Space.WEIGHT, Space.SCALE, Space.COEF, Space.PROGRAM)
"""Spaces that lie in banks."""
VECTOR = "vector.bank"
"""Path of the vector memory, which nothing loads."""
ARRAY = "array"
"""What a bank's memory is called inside it (``hdl.mem.Bank``)."""


def bank_path(cfg: Config, space: Space, sub: int) -> str:
    """Path in a Core of the bank that holds bank ``sub`` of a space in BANKED."""
    match space:
        case Space.WEIGHT:
            superlane, column = divmod(sub, cfg.superlane_columns)
            return f"mxm.superlane{superlane}.column{column}.bank"
        case Space.SCALE | Space.COEF:
            return f"{space.name.lower()}.bank"
        case Space.PROGRAM:
            return f"icu.queue_{Queue(sub).name.lower()}.code"
    raise ValueError(f"{space.name} does not lie in a bank")
