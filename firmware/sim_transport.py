"""The simulated LPU as a byte stream: same driver, same frames as a board."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hdl.banks import ARRAY, BANKED, bank_path
from hdl.config import Config
from hdl.image import row_bytes
from sim.verilator import VerilatorModel

if TYPE_CHECKING:
    from .image_file import ImageSection

CYCLES_PER_SECOND = 20_000_000
"""Simulated cycles a caller's second of patience stands for: silence is a matter of the simulated clock, so
that nothing depends on how busy this computer is."""


class SimTransport:
    """A Transport on a Verilator model of the core. Time passes only inside :meth:`read`."""

    def __init__(self, model: VerilatorModel):
        self.model = model

    def write(self, data: bytes) -> None:
        """Queue bytes; they enter the core one a cycle when time passes."""
        self.model.push_rx(data)

    def read(self, timeout: float) -> bytes:
        """Run until the core has sent something; b"" after ``timeout`` seconds of simulated silence."""
        self.model.run(max(1, int(timeout * CYCLES_PER_SECOND)), stop_when_tx=1)
        return self.model.pop_tx()

    def place(self, cfg: Config, section: ImageSection) -> bool:
        """Put a section straight into a memory that lies outside the model; False where its memory does not."""
        if section.space not in BANKED:
            return False
        words = self.model.memories.get(f"{bank_path(cfg, section.space, section.sub)}.{ARRAY}")
        if words is None:
            return False
        rows = section.data.reshape(-1, row_bytes(cfg, section.space))
        words[section.address : section.address + len(rows), : rows.shape[1]] = rows
        return True

    def now(self) -> float:
        """Simulated seconds since power-on, for a driver's ``clock``."""
        return self.model.cycles / CYCLES_PER_SECOND

    def close(self) -> None:
        """End the simulation."""
        self.model.close()
