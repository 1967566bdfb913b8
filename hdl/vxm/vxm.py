"""VXM: wires dequantiser, vector ALU, scalar unit and top-k unit together."""

from __future__ import annotations

from typing import Any

from amaranth import Module, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_EXPERTS_PER_TOKEN, SCALE_BITS, SUMSQ_BITS, WORD, Config
from ..image import LoadBus
from ..isa import Queue
from ..uop import run_state_layout, uop_layout
from .alu import VectorAlu
from .dequant import Dequantiser
from .scalar import ScalarUnit
from .topk import TopK


class Vxm(wiring.Component):
    """The vector slice.

    Micro-ops ``acc``, ``vx``, ``sfu``, ``top``. Streams in: ``value`` (V accumulators, max(V, 4) cycles
    after their ACC), ``gather`` (V x int8), ``scl`` (V x 16 bit unsigned), ``x`` (V x 32 bit signed), ``c``
    (V x 16 bit signed). Streams out: ``y``, ``z`` (V x 32 bit signed). ``sumsq`` comes from the SXM, ``eps``
    is a parameter; ``seed``, ``topk`` and ``noise`` are the host's sampling parameters, stable while a token
    is in work. Experts leave as pulses, the next token as a pulse with its id.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        v = cfg.vlanes
        row = data.ArrayLayout(signed(WORD), v)
        super().__init__({
            "acc": In(uop_layout(cfg, Queue.ACC)),
            "vx": In(uop_layout(cfg, Queue.VX)),
            "sfu": In(uop_layout(cfg, Queue.SFU)),
            "top": In(uop_layout(cfg, Queue.TOP)),
            "state": In(run_state_layout(cfg)),
            "value": In(data.ArrayLayout(signed(cfg.acc_bits), v)),
            "gather": In(data.ArrayLayout(signed(8), v)),
            "scl": In(data.ArrayLayout(unsigned(SCALE_BITS), v)),
            "x": In(row),
            "c": In(data.ArrayLayout(signed(SCALE_BITS), v)),
            "y": Out(row),
            "z": Out(row),
            "sumsq": In(unsigned(SUMSQ_BITS + 1)),
            "eps": In(unsigned(64)),
            "seed": In(32),
            "seed1": In(32),
            "topk": In(range(cfg.topk_max + 1)),
            "noise": In(2),
            "load": In(LoadBus(cfg)),
            "expert_valid": Out(1),
            "expert_index": Out(range(MAX_EXPERTS_PER_TOKEN)),
            "expert_id": Out(range(cfg.experts_max)),
            "token_valid": Out(1),
            "token": Out(cfg.token_bits),
            "sequence": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.dequant = dequant = Dequantiser(self.cfg)
        m.submodules.alu = alu = VectorAlu(self.cfg)
        m.submodules.scalar = scalar = ScalarUnit(self.cfg)
        m.submodules.top = top = TopK(self.cfg)
        wiring.connect(m, scalar.load, wiring.flipped(self.load))
        m.d.comb += [
            dequant.uop.eq(self.acc),
            dequant.state.eq(self.state),
            dequant.scl.eq(self.scl),
            dequant.gather.eq(self.gather),
            dequant.value.eq(self.value),
            scalar.read.eq(dequant.scalar),
            dequant.mantissa.eq(scalar.mantissa),
            dequant.exponent.eq(scalar.exponent),
            self.y.eq(dequant.y),
            alu.uop.eq(self.vx),
            alu.state.eq(self.state),
            alu.y.eq(dequant.y),
            alu.x.eq(self.x),
            alu.t.eq(top.t),
            alu.c.eq(self.c),
            alu.maximum.eq(dequant.maximum),
            alu.count.eq(top.count),
            self.z.eq(alu.z),
            scalar.uop.eq(self.sfu),
            scalar.sumsq.eq(self.sumsq),
            scalar.eps.eq(self.eps),
            scalar.sums.eq(alu.sums),
            scalar.z.eq(alu.z),
            top.uop.eq(self.top),
            top.state.eq(self.state),
            top.y.eq(dequant.y),
            top.seed.eq(self.seed),
            top.seed1.eq(self.seed1),
            top.noise.eq(self.noise),
            top.topk.eq(self.topk),
            self.expert_valid.eq(top.expert_valid),
            self.expert_index.eq(top.expert_index),
            self.expert_id.eq(top.expert_id),
            self.token_valid.eq(top.token_valid),
            self.token.eq(top.token),
            self.sequence.eq(top.sequence),
        ]
        return m
