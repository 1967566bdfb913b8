"""The rows of the benchmark: a model on a configuration, at a position."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hdl.config import SCALE_BITS, WORD, Config
from hdl.isa import Queue

from ..checkpoint import ModelShape
from ..simulate import utilisation
from .timeline import Timeline

BOARD_WATTS = 2.5
"""Power a board is charged with: what USB 2.0 may supply (5 V, 500 mA), from which a ULX3S lives. An upper bound, not a
measurement: nothing has run on a board."""
ENERGY_METHOD = f"upper bound: {BOARD_WATTS} W, all that USB 2.0 supplies to the board, times the time of a token"
PLACED, STATED = "clock from static timing after place and route", "stated clock (estimate)"
BITSTREAMS = Path(__file__).parents[2] / "fpga" / "bitstreams"


@dataclasses.dataclass(frozen=True)
class Clock:
    """The clock a row is stated for, in MHz: ``fmax`` by static timing, ``pll`` what the board sets."""

    pll: float
    fmax: float | None
    evidence: str


def clock_of(cfg: Config) -> Clock:
    """The clock of a configuration's bitstream, or the one that is stated where there is none."""
    path = BITSTREAMS / cfg.name / "report.json"
    if not path.is_file():
        return Clock(cfg.clock_hz / 1e6, None, STATED)
    report = json.loads(path.read_text())
    return Clock(report["target_mhz"], report["fmax_mhz"], PLACED)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table and of ``report.json``. ``mac_utilisation`` is weighted by operand width."""

    config: str
    model: str
    default_model: bool
    position: int
    sequences: int
    cycles: int
    """Of the tokens of all sequences; ``macs`` are one's."""
    macs: int
    mac_utilisation: float
    mac_utilisation_unweighted: float
    sram_bytes_per_cycle: float
    sram_bytes_per_cycle_available: int
    clock_mhz: float
    fmax_mhz: float | None
    tokens_per_second: float
    macs_per_second: float
    joules_per_token: float | None
    tokens_per_second_per_watt: float | None
    """An estimate, as ``joules_per_token`` is."""
    evidence: str

    def as_json(self) -> Mapping[str, Any]:
        return dataclasses.asdict(self)


def row(
    cfg: Config, model: str, default_model: bool, shape: ModelShape, weights: int, position: int, token: Timeline,
    cycles_evidence: str, sequences: int = 1,
) -> Row:  # fmt: skip
    """The row of a token, or of one of each sequence, whose timeline is known."""
    clock = clock_of(cfg)
    weighted, plain = utilisation(shape, cfg, weights, position, token.cycles / sequences)
    rate = sequences * clock.pll * 1e6 / token.cycles
    watts = BOARD_WATTS if clock.fmax else None
    return Row(
        cfg.name, model, default_model, position, sequences, token.cycles, shape.macs(position), weighted, plain,
        sram_bytes(cfg, token) / token.cycles, sum(_port_bytes(cfg).values()), clock.pll, clock.fmax, rate,
        shape.macs(position) * rate, watts and watts / rate, watts and rate / watts,
        f"cycles: {cycles_evidence}; {clock.evidence}",
    )  # fmt: skip


def sram_bytes(cfg: Config, token: Timeline) -> int:
    """Bytes that a token moves through the ports of the big memories."""
    return sum(size * token.busy(queue) for queue, size in _port_bytes(cfg).items())


def _port_bytes(cfg: Config) -> dict[Queue, int]:
    """Bytes of a micro-op of each queue that moves memory: weights of all columns, or a row of the lanes."""
    scale, vector = cfg.vlanes * SCALE_BITS // 8, cfg.vlanes * WORD // 8
    return {
        Queue.ABC: cfg.columns * cfg.lanes, Queue.SR: scale, Queue.CR: scale, Queue.XR: vector, Queue.XW: vector,
    }  # fmt: skip
