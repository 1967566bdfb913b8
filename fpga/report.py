"""What a board's memories are, for its report."""

from __future__ import annotations

from fpga.contents import BANKED, bank_shape
from hdl.config import WORD, Config
from hdl.image import Space
from hdl.link import space_shape

_NAMES = {
    Space.WEIGHT: "weights, K, V", Space.SCALE: "scales", Space.COEF: "coefficients", Space.PROGRAM: "programs",
}  # fmt: skip


def memory_rows(cfg: Config) -> list[tuple[str, int, int, int, int]]:
    """(name, banks, words, bits, bits written together) of the memories made of block RAM, the small ones of
    link, sampling and scalar unit left out."""
    vector = cfg.vlanes * WORD
    return [
        *((_NAMES[space], *space_shape(cfg, space), *bank_shape(cfg, space)) for space in BANKED),
        ("vectors", 1, cfg.vector_depth, vector, vector),
        ("activations", 1, cfg.act_depth, cfg.act_word_bits, cfg.act_word_bits),
    ]
