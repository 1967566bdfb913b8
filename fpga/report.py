"""What a board's memories are, for its report."""

from __future__ import annotations

from hdl.config import ACT_BITS, ACT_EXP_BITS, SCALE_BITS, WORD, Config
from hdl.isa import FETCH_BITS, Queue


def memory_rows(cfg: Config) -> list[tuple[str, int, int, int, int]]:
    """(name, banks, words, bits, bits written together) of the memories made of block RAM, the small ones of
    link, sampling and scalar unit left out."""
    act = cfg.lanes * ACT_BITS + cfg.blocks * ACT_EXP_BITS
    table = cfg.vlanes * SCALE_BITS
    return [
        ("weights, K, V", cfg.columns, cfg.weight_depth, cfg.lanes * 8, 8),
        ("scales", 1, cfg.scale_depth, table, SCALE_BITS),
        ("coefficients", 1, cfg.coef_depth, table, SCALE_BITS),
        ("vectors", 1, cfg.vector_depth, cfg.vlanes * WORD, cfg.vlanes * WORD),
        ("activations", 1, cfg.act_depth, act, act),
        ("programs", len(Queue), cfg.queue_depth, FETCH_BITS, FETCH_BITS),
    ]
