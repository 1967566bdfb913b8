"""Statistics of a model's activations on text that the model itself writes.

Quantisation needs to know which inputs of a linear layer matter (their second moments, see `firmware.gptq`)
and how large the values on the chip get. No text comes with a checkpoint, so the float model samples its own:
Liu et al. 2023, "LLM-QAT: Data-Free Quantization Aware Training" (arXiv 2305.17888), section 3.1. The result
is the same on every run.

The chip folds the gain of a norm into the weights behind it, so the second moments for q, k, v, the router,
gate and up are those of the gain-free input x / rms(x), to go with weights W * gain. The LM head has both:
"lm_head" with the gain in its input (tied embeddings cannot take it), "lm_head_folded" with the gain in its
weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.float_model import CheckpointLike, FloatModel

F64 = NDArray[np.float64]

# Name of the observed input (see FloatModel.forward) of each linear layer; per expert where the third is
# True.
LINEAR_INPUTS: dict[str, tuple[str, bool]] = {
    "q": ("qkv_in", False),
    "k": ("qkv_in", False),
    "v": ("qkv_in", False),
    "o": ("attn", False),
    "router": ("ffn_in", False),
    "gate": ("expert_in", True),
    "up": ("expert_in", True),
    "down": ("h", True),
    "lm_head": ("lm_head_in", False),
    "lm_head_folded": ("lm_head_in", False),
}

_INPUT_NAMES = frozenset(name for name, _ in LINEAR_INPUTS.values())

Progress = Callable[[str, int, int], None]
"""Called with a stage, and how much of it is done of all."""

# Text that a model writes for its calibration: sequences of so many tokens; for a model of many parameters less, since
# its text takes minutes.
SEQUENCES, LENGTH = 128, 256
LARGE_PARAMETERS = 20_000_000
LARGE_SEQUENCES, LARGE_LENGTH = 64, 128


def calibration_size(parameters: int) -> tuple[int, int]:
    """(sequences, tokens of each) that calibrate a model of so many parameters per token."""
    return (SEQUENCES, LENGTH) if parameters <= LARGE_PARAMETERS else (LARGE_SEQUENCES, LARGE_LENGTH)


@dataclass(frozen=True)
class Calibration:
    """What was seen while the model read `ids` [n_seqs, length].

    `moments[input, layer, expert]` is the sum of x x^T, float64 [K, K], over the tokens that reached that
    input (`counts` of them); layer and expert are -1 where there is none. `lanes[name, layer]` is the
    largest magnitude of each lane, float32 [width], of every tensor that the float model names, experts
    taken together. `final_gain` is the gain of the final norm, [d].
    """

    ids: NDArray[np.int64]
    moments: dict[tuple[str, int, int], F64]
    counts: dict[tuple[str, int, int], int]
    lanes: dict[tuple[str, int], NDArray[np.float32]]
    final_gain: NDArray[np.float32]

    @property
    def tokens(self) -> int:
        """Number of tokens read."""
        return int(self.ids.size)

    def hessian(self, layer: int | None, linear: str, expert: int | None = None) -> F64 | None:
        """Mean of x x^T, float64 [K, K], at the input of a linear layer: a key of LINEAR_INPUTS.

        `layer` is None for the LM head; `expert` is needed for gate, up and down (0 in a dense model). None
        is returned where second moments were not collected, or no token reached the expert.
        """
        name, per_expert = LINEAR_INPUTS[linear]
        if per_expert and expert is None:
            raise ValueError(f"{linear} belongs to an expert: say which")
        key = (name, -1 if layer is None else layer, expert if per_expert and expert is not None else -1)
        if key not in self.moments:
            return None
        mean = self.moments[key] / self.counts[key]
        if linear == "lm_head":
            mean = mean * np.outer(self.final_gain, self.final_gain)
        return mean

    def max_abs(self, name: str, layer: int | None = None) -> float:
        """Largest magnitude of a named tensor in a layer (None: in all of them), 0 if it was never seen."""
        found = [v for (n, i), v in self.lanes.items() if n == name and layer in (None, i)]
        return max((float(v.max(initial=0.0)) for v in found), default=0.0)

    @cached_property
    def ranges(self) -> dict[str, float]:
        """Largest magnitude of each named tensor over all layers and experts."""
        return {name: self.max_abs(name) for name in sorted({name for name, _ in self.lanes})}


class _Collector:
    """An observer of the float model that sums up what it sees."""

    def __init__(self, max_width: int, inputs: Collection[str], report: Progress, total: int) -> None:
        self.max_width = max_width
        self.inputs = inputs
        self.report, self.total = report, total
        self.moments: dict[tuple[str, int, int], F64] = {}
        self.counts: dict[tuple[str, int, int], int] = defaultdict(int)
        self.lanes: dict[tuple[str, int], NDArray[np.float32]] = {}

    def __call__(self, name: str, layer: int, expert: int, rows: NDArray[Any]) -> None:
        peak = np.abs(rows).max(axis=0)
        seen = self.lanes.get((name, layer))
        self.lanes[name, layer] = peak if seen is None else np.maximum(seen, peak)
        key = (name, layer, expert)
        self.counts[key] += len(rows)
        if name == "logits":
            self.report("calibrate: read", self.counts[key], self.total)
        if name in self.inputs and rows.shape[1] <= self.max_width:
            # One batch is summed in float32 by the matrix product, batches in float64.
            moment = (rows.T @ rows).astype(np.float64)
            self.moments[key] = self.moments[key] + moment if key in self.moments else moment


def calibrate(
    ckpt: CheckpointLike,
    n_seqs: int = SEQUENCES,
    length: int = LENGTH,
    seed: int = 0,
    *,
    temperature: float = 1.0,
    max_width: int = 4096,
    ids: NDArray[np.int64] | Sequence[Sequence[int]] | None = None,
    batch: int = 16,
    keep: bool = True,
    inputs: Collection[str] = _INPUT_NAMES,
    progress: Progress | None = None,
) -> Calibration:
    """Sample `n_seqs` sequences of `length` tokens (at most the context) from the model, and read them again.

    Second moments are kept for inputs of at most `max_width` lanes (memory: 8 * width^2 bytes per input); 0
    collects ranges only. `ids` gives the text instead of sampling it. `batch` sequences are read at once.
    `keep=False` reads the weights anew at each pass, for models larger than memory. `inputs` names the inputs
    (the first items of LINEAR_INPUTS' values) whose second moments are kept.
    """
    report = progress or (lambda stage, done, total: None)
    model = FloatModel(ckpt, keep=keep)
    if ids is None:
        length = min(length, int(ckpt.shape.context))
        # Sampling goes token by token, so its cost is in the number of steps: all sequences run side by side.
        ids = model.sample(
            n_seqs, length, seed, temperature, progress=lambda done, total: report("calibrate: write", done, total)
        )
    text = np.atleast_2d(np.asarray(ids, np.int64))
    collector = _Collector(max_width, inputs, report, text.size)
    for a in range(0, len(text), batch):
        model.forward(text[a : a + batch], observe=collector)
    gain = np.asarray(ckpt.final_norm, np.float32)
    return Calibration(text, collector.moments, dict(collector.counts), collector.lanes, gain)
