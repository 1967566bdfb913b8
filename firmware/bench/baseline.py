"""What every baseline measures: a text read a token at a time, the latency of each, and what is likeliest behind it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from .processor import PEAK_METHOD, Power, peak_macs


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
    operand_bits: int
    """Of the multiplications that its vector instructions do: 8 for int8, 32 for float32."""
    vector_bits: int
    """Of the widest vector instructions that it uses, where the processor has them."""
    power: Power | None = None

    @property
    def utilisation(self) -> float | None:
        """Useful MACs a second over what the threads' vector multipliers could do; None where that is not known."""
        peak = peak_macs(self.threads, self.operand_bits, self.vector_bits)
        return None if peak is None else self.effective_macs / self.median / peak

    @property
    def tokens_per_joule(self) -> float | None:
        """Tokens a second per watt."""
        return None if self.power is None else 1 / self.median / self.power.watts

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
            "mac_utilisation": self.utilisation, "mac_utilisation_method": PEAK_METHOD,
            "watts": self.power and self.power.watts, "watts_method": self.power and self.power.method,
            "tokens_per_second_per_watt": self.tokens_per_joule,
            "top1_agreement": self.agreement, "evidence": "measured on this machine",
        }  # fmt: skip
