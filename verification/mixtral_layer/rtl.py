"""The layer on the core's RTL: hidden states in as tokens, the residual stream read back from the vector memory."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from firmware.driver import Driver
from firmware.image_file import Image, section
from firmware.lower import Compiled
from firmware.sim_transport import SimTransport
from hdl.banks import ARRAY, VECTOR
from sim.qmodel import QModel
from sim.verilator import Library, VerilatorModel


@dataclasses.dataclass(frozen=True)
class LayerRun:
    """What the RTL gave for a sequence of tokens."""

    residual: NDArray[np.int64]
    """[T, d]: the residual stream behind the layer."""
    sampled: list[int]
    """The token sampled behind each."""
    cycles: list[int]
    """Of each token, sampled."""
    prompt_cycles: list[int]
    """Of the same tokens as a prompt: the last is sampled, the others end behind the layer."""
    fault: bool
    seconds: list[float]
    """Of simulation, for each token."""
    khz: float


class LayerRtl:
    """A compiled model on a simulated core. The image goes into the simulation's memories as far as they lie outside
    the model, the rest through the host link."""

    def __init__(self, library: Library, compiled: Compiled, model: QModel):
        self.library, self.compiled, self.model = library, compiled, model

    @cached_property
    def image(self) -> Image:
        """What is loaded."""
        sections = tuple(section(s.space, s.sub, s.address, s.rows) for s in self.compiled.sections)
        return Image(self.compiled.cfg, {}, sections)

    def run(self, ids: Sequence[int], progress: Callable[[int, int], None] = lambda done, total: None) -> LayerRun:
        """Each token by itself, so that the residual stream stands still behind it; then all of them as a prompt."""
        cfg, image = self.compiled.cfg, self.image
        residual, sampled, cycles, seconds = [], [], [], []
        with VerilatorModel(self.library) as simulator:
            transport = SimTransport(simulator)
            driver = Driver(transport)
            driver.load_image(image, placed=lambda part: transport.place(cfg, part))
            start, before = time.perf_counter(), simulator.cycles
            for i, token in enumerate(ids):
                begin = time.perf_counter()
                (record,) = driver.run([token], 1, clear=i == 0)
                sampled.append(record.token)
                cycles.append(record.cycles)
                residual.append(self._residual(simulator))
                seconds.append(time.perf_counter() - begin)
                progress(i + 1, 2 * len(ids))
            prompt_cycles = []
            for i, record in enumerate(driver.run(list(ids), 1)):
                prompt_cycles.append(record.cycles)
                progress(len(ids) + i + 1, 2 * len(ids))
            khz = (simulator.cycles - before) / (time.perf_counter() - start) / 1e3
            fault = bool(simulator.get("fault"))
        return LayerRun(np.array(residual), sampled, cycles, prompt_cycles, fault, seconds, khz)

    def _residual(self, simulator: VerilatorModel) -> NDArray[np.int64]:
        """[d], as the vector memory holds it."""
        layout = self.compiled.layout
        x = layout.sequences[0].x
        rows = simulator.memories[f"{VECTOR}.{ARRAY}"][x : x + layout.d_rows]
        return rows.reshape(-1).view("<i4")[: self.model.shape.d].astype(np.int64)
