"""Parameter registers: what the image and the host set before a run."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import Config, address_bits
from ..image import LoadBus, Param, Space
from ..primitives import delayed

NO_STOP = 1 << 31
"""A stop id with this bit is never met."""
LATENCY = 3
"""A row on ``load`` in cycle c is in its register from cycle c + LATENCY on."""


def param_bits(cfg: Config) -> dict[Param, int]:
    """Bits kept of each parameter. IMAGE is not among them: the host link keeps it (``hdl/host/host.py``)."""
    weight, scale, coef = (address_bits(d) for d in (cfg.weight_depth, cfg.scale_depth, cfg.coef_depth))
    position = cfg.position_bits
    return {
        Param.LAYERS: 8,
        Param.LAYER_W: weight, Param.LAYER_S: scale, Param.LAYER_C: coef,
        Param.EXPERT_W: weight, Param.EXPERT_S: scale,
        Param.TOKEN_WORDS: weight, Param.EMBED_WIDTH: 1,
        Param.KEY_WORDS: weight, Param.ROPE_ROWS: coef,
        Param.WINDOW: position, Param.CONTEXT: position, Param.VOCAB: cfg.token_bits + 1, Param.EPS: 64,
        Param.FLOOR: position, Param.SEQUENCES: 2,
        Param.PROMPT_LEN: position, Param.LIMIT: position,
        Param.SEED: 32, Param.TOPK: address_bits(cfg.topk_max + 1), Param.NOISE: 2,
        Param.STOP0: 32, Param.STOP1: 32, Param.CLEAR: 1,
        Param.PROMPT_LEN1: position, Param.SEED1: 32,
    }  # fmt: skip


class ParamRegisters(wiring.Component):
    """One register for each :class:`Param`, named like it in lower case; written over ``load``."""

    def __init__(self, cfg: Config):
        self.bits = param_bits(cfg)
        ports: dict[str, object] = {"load": In(LoadBus(cfg))}
        ports |= {p.name.lower(): Out(bits) for p, bits in self.bits.items()}
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Which register is meant is worked out in two steps.
        mine, which = Signal(), Signal(range(max(Param) + 1), reset_less=True)
        data = delayed(m, self.load.data, LATENCY - 1, name="data")[-1]
        m.d.sync += [
            mine.eq(self.load.valid & (self.load.space == Space.PARAM)),
            which.eq(self.load.addr),
        ]
        for p in self.bits:
            write = Signal(name=f"write_{p.name.lower()}")
            m.d.sync += write.eq(mine & (which == p.value))
            with m.If(write):
                m.d.sync += getattr(self, p.name.lower()).eq(data)
        return m
