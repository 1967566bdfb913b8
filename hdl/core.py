"""The LPU: host link, ICU and the four slices, wired. No logic of its own but registers on long ways."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .config import Config
from .host.host import HostLink
from .icu.icu import HOST_PARAMS, Icu
from .image import LoadBus, Space, relay_load
from .mem import TableSlice, VectorSlice
from .mxm import Mxm
from .sxm import Sxm
from .vxm.vxm import Vxm


class Core(wiring.Component):
    """``rx``, ``tx``: the framed byte streams of ``docs/link.md``. ``busy``: a run is in progress;
    ``error``: the last frame was refused; ``fault``: the program missed an issue cycle (sticky); ``has_image``: an
    image is loaded, all of it."""

    def __init__(self, cfg: Config):
        self.cfg = cfg
        super().__init__({
            "rx": In(stream.Signature(8)),
            "tx": Out(stream.Signature(8)),
            "busy": Out(1),
            "error": Out(1),
            "fault": Out(1),
            "has_image": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg = self.cfg
        m.submodules.host = host = HostLink(cfg)
        m.submodules.icu = icu = Icu(cfg)
        # Before the MXM: where multiplier blocks run out, the MXM's, with their short operands, cost the fewest LUTs.
        m.submodules.vxm = vxm = Vxm(cfg)
        m.submodules.mxm = mxm = Mxm(cfg)
        m.submodules.sxm = sxm = Sxm(cfg)
        m.submodules.scale = scale = TableSlice(cfg, Space.SCALE)
        m.submodules.coef = coef = TableSlice(cfg, Space.COEF)
        m.submodules.vector = vector = VectorSlice(cfg)

        # Host.
        wiring.connect(m, wiring.flipped(self.rx), host.rx)
        wiring.connect(m, host.tx, wiring.flipped(self.tx))
        wiring.connect(m, host.run, icu.control)
        m.d.comb += [self.busy.eq(host.busy), self.error.eq(host.error), self.fault.eq(icu.fault)]
        m.d.comb += self.has_image.eq(host.has_image)
        # Words with errors: to who counts them, and to who ends the run.
        m.d.sync += [host.corrected.eq(mxm.corrected), host.uncorrectable.eq(mxm.uncorrectable)]
        m.d.sync += icu.memory_error.eq(mxm.uncorrectable != 0)
        load = LoadBus(cfg).create()
        relay_load(m, host.load, load)
        for unit in (icu, mxm, vxm, scale, coef):
            relay_load(m, load, unit.load)

        # Control: micro-ops and run state.
        m.d.comb += [
            mxm.abc.eq(icu.uop_abc), mxm.acc.eq(icu.uop_acc), vxm.acc.eq(icu.uop_acc), vxm.vx.eq(icu.uop_vx),
            vxm.sfu.eq(icu.uop_sfu), vxm.top.eq(icu.uop_top), sxm.uop.eq(icu.uop_sxm), scale.uop.eq(icu.uop_sr),
            coef.uop.eq(icu.uop_cr), vector.xr.eq(icu.uop_xr), vector.xw.eq(icu.uop_xw),
        ]  # fmt: skip
        m.d.comb += [unit.state.eq(icu.state) for unit in (mxm, vxm, sxm)]
        m.d.comb += [getattr(vxm, name).eq(getattr(icu, name)) for name in HOST_PARAMS]
        m.d.comb += [
            icu.expert_valid.eq(vxm.expert_valid),
            icu.expert_index.eq(vxm.expert_index),
            icu.expert_id.eq(vxm.expert_id),
            icu.next_token_valid.eq(vxm.token_valid),
            icu.next_token.eq(vxm.token),
            icu.next_sequence.eq(vxm.sequence),
        ]

        # Streams.
        m.d.comb += [
            vxm.value.eq(mxm.value), vxm.gather.eq(sxm.gather), vxm.scl.eq(scale.row), vxm.c.eq(coef.row),
            vxm.x.eq(vector.x), vxm.sumsq.eq(sxm.sumsq),
            sxm.gather_valid.eq(mxm.gather_valid), sxm.gather_word.eq(mxm.gather_word),
            sxm.y.eq(vxm.y), sxm.z.eq(vxm.z), vector.y.eq(vxm.y), vector.z.eq(vxm.z),
        ]  # fmt: skip
        wiring.connect(m, sxm.act, mxm.act_write)
        wiring.connect(m, sxm.kv, mxm.kv)
        wiring.connect(m, sxm.k_scale, scale.write)
        wiring.connect(m, sxm.v_scale, coef.write)
        return m
