"""What every baseline measures: a text read a token at a time, the latency of each, and what is likeliest behind it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Baseline:
    """Another program that runs the same checkpoint, batch 1, on this machine."""

    name: str
    precision: str
    threads: int
    seconds: np.ndarray
    """[runs, positions]: latency of each token of the text."""
    agreement: float
    """Share of positions whose likeliest next token is that of the LPU's integer model."""
    effective_macs: int
    """Useful MACs of a token at ``position``."""
    position: int

    @property
    def median(self) -> float:
        """Seconds of the token at ``position``, over the runs."""
        return float(np.median(self.seconds[:, self.position]))

    @property
    def p99(self) -> float:
        """99th percentile of the same."""
        return float(np.percentile(self.seconds[:, self.position], 99))

    def as_json(self) -> Mapping[str, Any]:
        return {
            "name": self.name, "precision": self.precision, "threads": self.threads, "position": self.position,
            "runs": len(self.seconds), "median_seconds": self.median, "p99_seconds": self.p99,
            "tokens_per_second": 1 / self.median, "macs_per_second": self.effective_macs / self.median,
            "top1_agreement": self.agreement, "evidence": "measured on this machine",
        }  # fmt: skip
