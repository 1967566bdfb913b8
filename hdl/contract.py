"""Identity of the instruction set and its latencies: programs made for another one mean something else."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from .config import Config
from .image import Param
from .isa import PHASE_FIELDS, get_isa
from .timing import get_timing

PROPERTIES = (
    "dot", "gather", "acc", "max", "vx_rope", "act_write", "kv_write", "value_pace", "sxm_act", "sxm_kv",
    "memory_error", "top_insert_noise", "sfu_mul", "sfu_prob",
)  # fmt: skip
"""Latencies that depend on the configuration."""


def contract_hash(cfg: Config) -> str:
    """16 hex digits over instruction formats, phase format, latencies and parameters.

    It is in every image and in the hardware's INFO answer: an image runs where both are the same.
    """
    isa = get_isa(cfg)
    fields = [
        [q.name, [[f.name, f.bits, [m.name for m in f.enum] if f.enum else None] for f in fmt.fields]]
        for q, fmt in isa.formats.items()
    ]
    timing = get_timing(cfg)
    latencies = {f.name: getattr(timing, f.name) for f in dataclasses.fields(timing) if f.name != "cfg"}
    latencies |= {name: getattr(timing, name) for name in PROPERTIES}
    phase = [[f.name, f.bits] for f in PHASE_FIELDS]
    params = [[p.name, int(p)] for p in Param]
    text = json.dumps([fields, phase, latencies, params], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
