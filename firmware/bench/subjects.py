"""What is measured: shipped models on the configurations that hold them, and a wide layer on the large one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from hdl.config import CONFIGS, Config
from hdl.isa import Program
from sim.qmodel import QShape

from ..checkpoint import Checkpoint, ModelShape
from ..compiler import outline
from ..errors import LpuError
from ..layout import Layout
from ..program import build_program
from ..simulate import resolve_model

WIDE = ModelShape(
    vocab=4096, d=1024, layers=2, heads=8, kv_heads=2, head_dim=128, experts=8, top_k=2, ffn=3584, context=2048,
    window=None, rope_theta=1e6, eps=1e-5, tied=False, bos=None, eos=(),
)  # fmt: skip
"""A quarter of Mixtral-8x7B's width, with its proportions."""
SEQUENCES = (1, 2)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A program for a model of ``shape`` on ``cfg``, for so many ``sequences`` in turn."""

    cfg: Config
    name: str
    shape: ModelShape
    qshape: QShape
    weights: int
    program: Program
    floor: int
    sequences: int

    @property
    def positions(self) -> list[int]:
        """Where it is measured: the first token, 64, 255 and the context's last."""
        return sorted({p for p in (0, 64, 255, self.shape.context - 1) if p < self.shape.context})


def subjects(models: list[str], progress: Callable[[str], None]) -> Iterator[Subject]:
    """Every model on every configuration that holds it. Schedules only: no weights are read."""
    for cfg in CONFIGS.values():
        for model in models:
            folder = resolve_model(model)
            for n in SEQUENCES:
                yield from _subject(cfg, folder.name, Checkpoint(folder, cfg.context_max // n).shape, n, progress)
        if cfg.context_max >= WIDE.context:
            for n in SEQUENCES:
                yield from _subject(cfg, "wide layers", WIDE, n, progress)


def _subject(
    cfg: Config, name: str, shape: ModelShape, sequences: int, progress: Callable[[str], None]
) -> Iterator[Subject]:
    progress(f"schedule {name} on {cfg.name}" + (f", {sequences} sequences" if sequences > 1 else ""))
    model = outline(shape, cfg.weight_bits)
    try:
        program, floor = build_program(Layout(model, cfg, sequences=sequences))
    except LpuError:
        return  # too large for it
    yield Subject(cfg, name, shape, model.shape, cfg.weight_bits, program, floor, sequences)
