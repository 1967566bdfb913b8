"""One recipe for each shipped checkpoint: shape, corpus mix, schedule, seed."""

from __future__ import annotations

import dataclasses

from firmware.train.mixtral import Shape


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that `train.py` needs besides the corpus files.

    `mix` gives the share of training windows drawn from each corpus part (`corpus.py` names them).
    `quantise_from` and `kv_from` are fractions of the run after which weights and KV cache are
    fake-quantised; None means never.
    """

    name: str
    shape: Shape
    mix: dict[str, float]
    steps: int
    batch: int
    peak_lr: float
    warmup: float = 0.02
    weight_decay: float = 0.1
    balance_weight: float = 0.01
    scale_lr: float = 0.25
    quantise_from: float | None = None
    kv_from: float | None = None
    frozen_norms: bool = False
    heldout_characters: int = 80_000
    seed: int = 1234

    @property
    def tokens(self) -> int:
        """Training tokens of the whole run."""
        return self.steps * self.batch * self.shape.context


_STORIES = Shape(
    vocab=512, d=96, layers=2, heads=3, kv_heads=1, head_dim=32, experts=8, f=96, context=256, tied=True
)
_KJV = Shape(
    vocab=512, d=96, layers=3, heads=6, kv_heads=2, head_dim=16, experts=4, f=96, context=256, tied=False
)
_NAMES = Shape(
    vocab=28, d=16, layers=1, heads=4, kv_heads=2, head_dim=4, experts=4, f=16, context=32, tied=True
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="stories-500k",
            shape=_STORIES,
            mix={"grammar": 0.72, "tidy-stories": 0.28},
            steps=20000,
            batch=8,
            peak_lr=3e-3,
            quantise_from=0.55,
            kv_from=0.85,
            frozen_norms=True,
        ),
        Recipe(
            name="float-stories",
            shape=_STORIES,
            mix={"stories": 1.0},
            steps=3000,
            batch=16,
            peak_lr=4e-3,
            seed=2345,
        ),
        Recipe(
            name="float-kjv",
            shape=_KJV,
            mix={"kjv": 1.0},
            steps=5000,
            batch=8,
            peak_lr=3e-3,
            seed=3456,
        ),
        Recipe(
            name="names-4k",
            shape=_NAMES,
            mix={"names": 1.0},
            steps=4000,
            batch=64,
            peak_lr=1e-2,
            heldout_characters=3_000,
            seed=4567,
        ),
    )
}
