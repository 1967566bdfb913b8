"""The host link: wiring only."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..config import Config
from ..image import LoadBus, Param, RunControl, Space, error_bits
from .byte_transmitter import ByteTransmitter
from .cobs import DECODED, CobsDecoder, CobsEncoder
from .counters import Counters
from .frame import FrameReceiver
from .loader import Loader
from .records import RecordStore
from .skid import SkidBuffer
from .transmitter import Transmitter


class HostLink(wiring.Component):
    """Byte streams on one side, load bus and run control on the other.

    ``rx`` never waits for ``tx``, and for the frame in work a few hundred cycles at most; ``tx`` may wait as
    long as the reader likes. The last row of a LOAD is on ``load`` at least six cycles before a ``start``.
    ``busy``: a run is in progress, from its start to its ``done``. ``error``: the last frame was refused.
    ``corrected``, ``uncorrectable``: weight words in a cycle. Behind an uncorrectable one the image is no longer whole.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        super().__init__({
            "rx": In(stream.Signature(8)),
            "tx": Out(stream.Signature(8)),
            "load": Out(LoadBus(cfg)),
            "run": Out(RunControl(cfg)),
            "busy": Out(1),
            "error": Out(1),
            "has_image": Out(1),
            "corrected": In(error_bits(self.cfg)),
            "uncorrectable": In(error_bits(self.cfg)),
        })  # fmt: skip

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.decoder = decoder = CobsDecoder()
        m.submodules.receiver = receiver = FrameReceiver()
        m.submodules.loader = loader = Loader(self.cfg)
        m.submodules.records = records = RecordStore(self.cfg)
        m.submodules.counters = counters = Counters(error_bits(self.cfg))
        m.submodules.transmitter = transmitter = (ByteTransmitter if self.cfg.byte_frames else Transmitter)(self.cfg)
        m.submodules.encoder = encoder = CobsEncoder()

        # What is outside may be far away, and so may be the buffer of a frame.
        m.submodules.rx_edge = rx_edge = SkidBuffer(8)
        m.submodules.decoded = decoded = SkidBuffer(DECODED)
        m.submodules.tx_edge = tx_edge = SkidBuffer(8)
        connect(m, flipped(self.rx), rx_edge.i)
        connect(m, rx_edge.o, decoder.i)
        connect(m, decoder.o, decoded.i)
        connect(m, decoded.o, receiver.i)
        connect(m, receiver.frame, loader.frame)
        connect(m, loader.load, flipped(self.load))
        connect(m, loader.ledger, records.ledger)
        connect(m, loader.answer, transmitter.answer)
        connect(m, transmitter.o, encoder.i)
        connect(m, encoder.o, tx_edge.i)
        connect(m, tx_edge.o, flipped(self.tx))

        running = Signal()
        with m.If(self.run.done):
            m.d.sync += running.eq(0)
        with m.If(loader.start):
            m.d.sync += running.eq(1)
        with m.If(loader.bad):
            m.d.sync += self.error.eq(1)
        with m.If(loader.good):
            m.d.sync += self.error.eq(0)

        # Who asks INFO learns which image is loaded. Rows behind a reset are as lost as this register.
        image = Signal(64)
        load = loader.load
        with m.If(load.valid & (load.space == Space.PARAM.value) & (load.addr == Param.IMAGE.value)):
            m.d.sync += image.eq(load.data)
        with m.Elif(self.uncorrectable != 0):
            m.d.sync += image.eq(0)
        m.d.sync += self.has_image.eq(image != 0)

        m.d.comb += [
            self.busy.eq(running | self.run.busy),
            receiver.at.eq(loader.at), loader.byte.eq(receiver.byte),
            loader.busy.eq(self.busy),
            self.run.start.eq(loader.start), self.run.abort.eq(loader.abort),

            records.write.eq(self.run.record), records.token.eq(self.run.token),
            records.sampled.eq(self.run.sampled), records.cycles.eq(self.run.cycles),
            records.done.eq(self.run.done), records.reason.eq(self.run.reason),
            records.take.eq(transmitter.take), records.told.eq(transmitter.told),
            records.at.eq(transmitter.at),

            counters.good.eq(loader.good), counters.bad.eq(loader.bad), counters.busy.eq(self.busy),
            counters.token.eq(self.run.record & self.run.sampled),
            counters.corrected.eq(self.corrected), counters.uncorrectable.eq(self.uncorrectable),

            transmitter.last.eq(loader.last), transmitter.fault.eq(loader.fault),
            transmitter.busy.eq(self.busy), transmitter.tally.eq(counters.tally),
            transmitter.run.eq(records.run), transmitter.first.eq(records.first),
            transmitter.ready.eq(records.ready), transmitter.record.eq(records.record),
            transmitter.ended.eq(records.ended), transmitter.why.eq(records.why),
            transmitter.written.eq(records.written), transmitter.lost.eq(records.lost),
            transmitter.image.eq(image),
        ]  # fmt: skip
        return m
