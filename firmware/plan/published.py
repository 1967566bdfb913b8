"""Figures that others published, to stand beside a plan; none was measured here."""

from __future__ import annotations

import dataclasses

TIER = "published by others"


@dataclasses.dataclass(frozen=True)
class Figure:
    """A published speed of a model on chips of the TSP's kind."""

    model: str
    what: str
    rate: float | None
    """Tokens/s of a user."""
    chips: int | None
    source: str


FIGURES = (
    Figure("mixtral-8x7b", "Groq, public demo", 500, None, "press, early 2024 (\"about 500\"; TechPowerUp: 480)"),
    Figure("llama-2-70b", "Groq, public demo", 300, 576, "press, early 2024 (speed: TechPowerUp, context 4,096)"),
)  # fmt: skip
"""Neither the numbers' width, nor the users at once, nor the split of these runs is published."""


def figures(model: str) -> tuple[Figure, ...]:
    """Those of a model, by its name."""
    return tuple(f for f in FIGURES if f.model == model)
