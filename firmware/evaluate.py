"""How well the integer model agrees with the float one: perplexity and top-1 on a text."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hdl.config import Config
from sim.float_model import FloatModel
from sim.qmodel import QModel
from sim.reference import Reference, logits_float

from .checkpoint import ArrayCheckpoint, Checkpoint
from .compiler import quantise_model
from .errors import LpuError
from .tokenizer import Tokenizer

Progress = Callable[[str, int, int], None]

WINDOW = 512
"""Tokens of a window at most: bounds the memory of the logits."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Perplexities per token, and the share of positions at which integer and float model rank the same id first."""

    ppl_float: float
    ppl_int8: float
    ppl_int4: float
    top1_int8: float
    top1_int4: float
    tokens: int
    """Predicted tokens: those behind the first of each window."""


def text_ids(ckpt: Checkpoint, text: Path, tokens: int | None) -> np.ndarray:
    """Ids of a text file, at most ``tokens``. Raises :class:`LpuError` for a missing, empty or non-UTF-8 file."""
    try:
        content = text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LpuError(f"{text}: cannot be read as UTF-8 text: {error}") from None
    ids = Tokenizer(ckpt.path, ckpt.shape.vocab).encode(content)[:tokens]
    if len(ids) < 2:
        raise LpuError(f"{text}: {len(ids)} tokens; perplexity needs at least two")
    return np.asarray(ids, np.int64)


def windows(ids: np.ndarray, context: int) -> list[np.ndarray]:
    """Consecutive windows of ``context`` ids, WINDOW at most; a last one of a single id predicts nothing: dropped."""
    context = min(context, WINDOW)
    return [w for w in (ids[i : i + context] for i in range(0, len(ids), context)) if len(w) > 1]


def negative_log_likelihood(logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """[T - 1] nats: of each id but the first, given the logits [T, V] before it."""
    x = logits[:-1].astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    return np.log(np.exp(x).sum(axis=1)) - x[np.arange(len(x)), ids[1:]]


def evaluate(
    ckpt: Checkpoint | ArrayCheckpoint,
    cfg: Config,
    ids: np.ndarray,
    progress: Progress | None = None,
    quantised: Callable[[int], QModel] | None = None,
) -> Evaluation:
    """Perplexity of the float model and of the exact integer model with int8 and int4 weights, on the same windows.

    ``quantised``: the integer model with weights of 8 or 4 bits, for a checkpoint without a folder.
    """
    report = progress or (lambda stage, done, total: None)
    parts = windows(ids, ckpt.shape.context)
    predicted = sum(len(w) - 1 for w in parts)

    def run(stage: str, forward: Callable[[np.ndarray], np.ndarray]) -> tuple[float, np.ndarray]:
        loss, best = [], []
        for i, w in enumerate(parts):
            report(stage, i, len(parts))
            logits = forward(w)
            loss.append(negative_log_likelihood(logits, w))
            best.append(logits[:-1].argmax(axis=1))
        report(stage, len(parts), len(parts))
        return float(np.exp(np.concatenate(loss).mean())), np.concatenate(best)

    def integer(bits: int) -> QModel:
        if quantised is not None:
            return quantised(bits)
        assert isinstance(ckpt, Checkpoint)

        def told(stage: str, done: int = 0, total: int = 1) -> None:
            report(stage, done, total)

        return quantise_model(ckpt.path, cfg, bits, told, context=ckpt.shape.context).model

    ppl, best = run("float", FloatModel(ckpt).forward)
    results = {}
    for bits in (8, 4):
        model = integer(bits)
        results[bits] = run(f"int{bits}", lambda w, m=model: logits_float(Reference(m).forward(w)))  # type: ignore[misc]
    agree = {bits: float((top == best).mean()) for bits, (_, top) in results.items()}
    return Evaluation(ppl, results[8][0], results[4][0], agree[8], agree[4], predicted)
