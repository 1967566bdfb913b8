"""What a bench, running inside the simulator, knows about its run."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from hdl.config import Config, get_config
from verification.coverage.functional import Sampler

VARIABLE = "LPU_BENCH"
"""Environment variable through which ``verification.runner`` hands a bench its parameters, as JSON."""

FIGURES = "figures.jsonl"
"""File of a run's counts, in the folder that the simulator runs in."""


@dataclasses.dataclass(frozen=True)
class Context:
    """One run of a bench."""

    bench: str
    sim: str
    config_name: str
    seed: int
    params: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Whatever the caller of ``run_bench`` passed on."""

    @property
    def config(self) -> Config:
        """The sizes under test."""
        return get_config(self.config_name)

    @functools.cached_property
    def sampler(self) -> Sampler | None:
        """Of functional coverage, where the run was asked for it: the parameter ``bins`` names the file, ``known``
        one with the bins reached before, if only programs with others are to be run."""
        known = self.params.get("known")
        path = self.params.get("bins")
        return None if path is None else Sampler(self.config, Path(path), None if known is None else Path(known))

    def rng(self, *stream: int) -> np.random.Generator:
        """A generator that depends on the seed and on ``stream`` only: the same in both simulators."""
        return np.random.default_rng([self.seed, *stream])

    def replay(self, **options: object) -> str:
        """The command that repeats the run, or a part of it: ``options`` are more variables of make."""
        return " ".join([
            f"make test BENCH={self.bench} SIM={self.sim} CONFIG={self.config_name} SEED={self.seed}",
            *(f"{name.upper()}={value}" for name, value in options.items()),
        ])  # fmt: skip

    def tell(self, **counts: int) -> None:
        """Adds to the counts that the run's result shows; the runner begins with an empty file."""
        with open(FIGURES, "a", encoding="utf-8") as out:
            out.write(json.dumps(counts) + "\n")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


@functools.cache
def context() -> Context:
    """The run this process is in; RuntimeError outside ``run_bench``."""
    text = os.environ.get(VARIABLE)
    if text is None:
        raise RuntimeError("not inside a bench: run it with `make test BENCH=NAME`")
    return Context(**json.loads(text))
