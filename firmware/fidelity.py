"""The fidelity suite: how closely the exact integer model follows the float model, over many models in one table.

Shipped models read their held-out text, public ones plain prose, random ones (:mod:`firmware.random_mixtral`) text that
they write themselves: what counts is the difference to the float model on the same tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from hdl.config import get_config
from sim.float_model import FloatModel
from sim.qmodel import QModel

from .calibrate import calibrate
from .checkpoint import Checkpoint
from .errors import LpuError
from .evaluate import Evaluation, evaluate, text_ids
from .public_models import PUBLIC, available, default_config, default_context
from .quantise import quantise
from .random_mixtral import SHAPES, random_checkpoint
from .simulate import resolve_model, shipped_models

Progress = Callable[[str, int, int], None]
"""Called with a stage, and how much of it is done of all."""

PROSE = Path(__file__).parent / "texts" / "prose.txt"
"""Ordinary text for models that come without one."""
SHIPPED_CONFIG, RANDOM_CONFIG = "ulx3s-85f", "large"
SEED = 1
_WRITTEN = (16, 128)
"""Sequences that a random model writes to be measured on, and tokens of each."""
_CALIBRATED = (32, 128)

LEAST_PARAMETERS = 100_000
"""Below, rounding is a large part of what a model knows (names-4k: 4 thousand parameters)."""
PPL_LIMIT, TOP1_LIMIT = 0.03, 0.90
"""int8 weights: largest rise of the perplexity, least agreement on the likeliest token."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One model of the suite."""

    model: str
    parameters: int
    config: str
    text: str
    result: Evaluation
    limited: bool = True
    """Whether the limits are held against it: not for random models, nor for those of very few parameters."""

    @property
    def within_limits(self) -> bool:
        """int8 is as close as it has to be. What int4 costs depends on how the model was trained."""
        r = self.result
        return r.ppl_int8 <= r.ppl_float * (1 + PPL_LIMIT) and r.top1_int8 >= TOP1_LIMIT


def known_models() -> list[str]:
    """Names of all models of the suite; public ones only where they need not be fetched."""
    return [*shipped_models(), *(name for name in PUBLIC if available(name)), *SHAPES]


def suite(names: list[str], tokens: int, progress: Progress) -> Iterator[Row]:
    """A row for each model: name of the suite, or a Hugging Face folder. ``tokens``: of a text, at most."""
    for name in names:
        def told(stage: str, done: int, total: int, name: str = name) -> None:
            progress(f"{name.split(',')[0]}: {stage}", done, total)

        yield _random(name, tokens, told) if name in SHAPES else _folder(name, tokens, told)


def _folder(name: str, tokens: int, progress: Progress) -> Row:
    cfg = get_config(default_config(name, SHIPPED_CONFIG))
    folder = resolve_model(name)
    ckpt = Checkpoint(folder, default_context(name, cfg) or cfg.context_max)
    text = folder / "heldout.txt"
    text = text if text.exists() else PROSE
    result = evaluate(ckpt, cfg, text_ids(ckpt, text, tokens), progress)
    size = ckpt.shape.parameters_total
    return Row(name, size, cfg.name, text.name, result, limited=size >= LEAST_PARAMETERS)


def _random(name: str, tokens: int, progress: Progress) -> Row:
    cfg = get_config(RANDOM_CONFIG)
    ckpt = random_checkpoint(SHAPES[name], SEED)
    shape = dataclasses.replace(ckpt.shape, context=_WRITTEN[1])
    ckpt = dataclasses.replace(ckpt, shape=shape)
    calibration = calibrate(ckpt, *_CALIBRATED, inputs={"lm_head_in"}, progress=progress)
    # Other text than that of the calibration.
    ids = FloatModel(ckpt).sample(*_WRITTEN, seed=SEED + 1).reshape(-1)

    def quantised(bits: int) -> QModel:
        stage = f"quantise to int{bits}"
        return quantise(ckpt, cfg, bits, calibration, lambda done, total: progress(stage, done, total))[0]

    result = evaluate(ckpt, cfg, ids[: max(tokens, 2)], progress, quantised)
    return Row(name, shape.parameters_total, cfg.name, "its own", result, limited=False)


def check_names(names: list[str]) -> list[str]:
    """All of the suite where none is named. Raises LpuError for a name that is neither of the suite nor a folder."""
    for name in names:
        known = name in SHAPES or name in PUBLIC or name in shipped_models()
        if not known and not (Path(name) / "config.json").is_file():
            raise LpuError(f"--model {name!r}: no folder with a config.json; known: {'; '.join(known_models())}")
    return names or known_models()
