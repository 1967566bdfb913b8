"""MEM slices: synchronous memory banks, the row memories beside the VXM and the activation memory.

Every block RAM of the core is a :class:`Bank` (one read port, one write port) or a :class:`Rom`, and those
are the only places that know what an array is made of. The memories of the slices are read in
``Timing.mem_read`` = 2 cycles (array, output register: without the latter no ECP5 block RAM passes 135 MHz).
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Module, Mux, ShapeLike, Signal, Value, ValueLike, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from .config import ACT_BITS, ACT_EXP_BITS, SCALE_BITS, WORD, Config, address_bits
from .image import LoadBus, Space
from .isa import Queue, Source
from .timing import get_timing
from .uop import uop_layout


def row_layout(cfg: Config, shape: ShapeLike) -> data.ArrayLayout:
    """One row of a stream: ``vlanes`` elements of ``shape``."""
    return data.ArrayLayout(shape, cfg.vlanes)


def stream_layout(cfg: Config) -> data.ArrayLayout:
    """A row of the streams Y, X, Z, T: ``vlanes`` signed 32-bit fixed-point words."""
    return row_layout(cfg, signed(WORD))


def act_layout(cfg: Config) -> data.StructLayout:
    """An activation word: ``lanes`` signed mantissas; one exponent for each block of eight."""
    return data.StructLayout({
        "mant": data.ArrayLayout(signed(ACT_BITS), cfg.lanes),
        "exp": data.ArrayLayout(unsigned(ACT_EXP_BITS), cfg.blocks),
    })  # fmt: skip


class ReadPort(wiring.Signature):
    """Read port of a memory: ``en`` and ``addr`` in cycle c, ``data`` in cycle c + the memory's latency."""

    def __init__(self, width: int, depth: int):
        super().__init__({"en": Out(1), "addr": Out(address_bits(depth)), "data": In(width)})


class WritePort(wiring.Signature):
    """Write port of a memory: one bit of ``en`` for each part of ``granularity`` bits of a word."""

    def __init__(self, width: int, depth: int, granularity: int):
        super().__init__({
            "en": Out(width // granularity),
            "addr": Out(address_bits(depth)),
            "data": Out(width),
        })  # fmt: skip


class UpdatePort(wiring.Signature):
    """Second port of a memory: writes ``data`` where ``write``, else, where ``en``, reads; ``q`` two cycles later."""

    def __init__(self, width: int, depth: int):
        super().__init__({
            "en": Out(1),
            "write": Out(1),
            "addr": Out(address_bits(depth)),
            "data": Out(width),
            "q": In(width),
        })  # fmt: skip


class LaneWrite(wiring.Signature):
    """Write of one 16-bit value into one lane (a bit of ``en``) of a row of the scale or coef memory."""

    def __init__(self, cfg: Config, depth: int):
        super().__init__({
            "en": Out(cfg.vlanes),
            "addr": Out(address_bits(depth)),
            "data": Out(SCALE_BITS),
        })  # fmt: skip


class ActWrite(wiring.Signature):
    """Write of one activation word."""

    def __init__(self, cfg: Config):
        super().__init__({
            "en": Out(1),
            "addr": Out(address_bits(cfg.act_depth)),
            "data": Out(act_layout(cfg)),
        })  # fmt: skip


class KvWrite(wiring.Signature):
    """Write of one row (``vlanes`` int8) of a K or V vector into the MXM's weight memories.

    ``column``, ``superlane``: one-hot, which columns are written (VALUE: that column of every superlane);
    ``mask``: byte lanes of the word. Byte lane b of superlane v takes ``row[v]`` when ``value``, else
    ``row[b % vlanes]``. ``fresh``: the word's other bytes hold nothing yet (first row of a word of K; first key of a
    word of V, in a cache that has not wrapped), so they may become zero.
    """

    def __init__(self, cfg: Config):
        super().__init__({
            "value": Out(1),
            "fresh": Out(1),
            "column": Out(cfg.superlane_columns),
            "superlane": Out(cfg.vlanes),
            "mask": Out(cfg.lanes),
            "addr": Out(address_bits(cfg.weight_depth)),
            "row": Out(row_layout(cfg, 8)),
        })  # fmt: skip


class Bank(wiring.Component):
    """``depth`` words of ``width`` bits, written in parts of ``granularity`` bits (default: whole words).

    ``latency`` 2: array and output register; 1: array alone, for a reader that is a register itself. ``r.en``
    holds the array's output; the output register follows one cycle later whatever ``r.en`` is by then.

    A write in cycle c is seen by a read from cycle c + 1 on; a read of the word being written in the same
    cycle returns the old word here, but is not to be relied on: block RAMs differ.
    """

    def __init__(self, *, width: int, depth: int, granularity: int | None = None, latency: int = 2):
        if latency not in (1, 2):
            raise ValueError(f"latency = {latency}: a bank is read in one cycle or two")
        self.width = width
        self.depth = depth
        self.granularity = granularity or width
        self.latency = latency
        super().__init__({
            "r": In(ReadPort(width, depth)),
            "w": In(WritePort(width, depth, self.granularity)),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # The platform may have memories of its own (a simulator's, an FPGA's): same ports, same latency.
        own = platform.bank(self) if hasattr(platform, "bank") else None
        if own is not None:
            m.submodules.array = own
            return m
        m.submodules.array = array = memory.Memory(shape=unsigned(self.width), depth=self.depth, init=[])
        # An undivided word: no granularity, so that the enable stays one bit.
        parts = None if self.granularity == self.width else self.granularity
        wp = array.write_port(granularity=parts)
        rp = array.read_port()
        m.d.comb += [
            wp.en.eq(self.w.en), wp.addr.eq(self.w.addr), wp.data.eq(self.w.data),
            rp.en.eq(self.r.en), rp.addr.eq(self.r.addr),
        ]  # fmt: skip
        data: Value = rp.data
        if self.latency == 2:
            out = Signal.like(self.r.data, reset_less=True)
            m.d.sync += out.eq(data)
            data = out
        m.d.comb += self.r.data.eq(data)
        return m


class DualBank(wiring.Component):
    """``depth`` words of ``width`` bits with a read port of two cycles (array, output register: as :class:`Bank`) and a
    second port that writes whole words or reads.

    ``full``: words, from address 0 on, that the second port can read; what it reads beyond is not to be relied on.
    Nor is a word that one port reads in the cycle in which the other one writes it.
    """

    def __init__(self, *, width: int, depth: int, full: int):
        self.width = width
        self.depth = depth
        self.full = full
        super().__init__({"r": In(ReadPort(width, depth)), "u": In(UpdatePort(width, depth))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        own = platform.dual_bank(self) if hasattr(platform, "dual_bank") else None
        if own is not None:
            m.submodules.array = own
            return m
        m.submodules.array = array = memory.Memory(shape=unsigned(self.width), depth=self.depth, init=[])
        wp, u = array.write_port(), self.u
        m.d.comb += [wp.en.eq(u.write), wp.addr.eq(u.addr), wp.data.eq(u.data)]
        for en, addr, q in ((self.r.en, self.r.addr, self.r.data), (u.en & ~u.write, u.addr, u.q)):
            rp = array.read_port()
            out = Signal(self.width, reset_less=True)
            m.d.comb += [rp.en.eq(en), rp.addr.eq(addr), q.eq(out)]
            m.d.sync += out.eq(rp.data)
        return m


class Rom(wiring.Component):
    """Constants with one read port or two (``ports``: their names).

    ``latency`` 2: array and output register; 1: array alone. ``en`` holds a port's array output and its output
    register.
    """

    def __init__(self, *, width: int, init: Sequence[int], ports: Sequence[str] = "a", latency: int = 2):
        if latency not in (1, 2):
            raise ValueError(f"latency = {latency}: a ROM is read in one cycle or two")
        self.width = width
        self.init = tuple(init)
        self.ports = tuple(ports)
        self.latency = latency
        super().__init__({name: In(ReadPort(width, len(self.init))) for name in ports})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if hasattr(platform, "rom"):
            m.submodules.array = platform.rom(self)
            return m
        m.submodules.array = array = memory.Memory(shape=unsigned(self.width), depth=len(self.init), init=self.init)
        for port in (getattr(self, name) for name in self.ports):
            rp = array.read_port()
            m.d.comb += [rp.en.eq(port.en), rp.addr.eq(port.addr)]
            if self.latency == 1:
                m.d.comb += port.data.eq(rp.data)
                continue
            out = Signal(self.width, reset_less=True)
            m.d.comb += port.data.eq(out)
            with m.If(port.en):
                m.d.sync += out.eq(rp.data)
        return m


def register_write(m: Module, port: wiring.PureInterface, en: ValueLike, addr: ValueLike, data: ValueLike) -> None:
    """A bank's write port driven from registers, so that the row is written a cycle later."""
    for name, value in (("en", en), ("addr", addr), ("data", data)):
        register = Signal.like(getattr(port, name), name=f"write_{name}", reset_less=name != "en")
        m.d.sync += register.eq(value)
        m.d.comb += getattr(port, name).eq(register)


class TableSlice(wiring.Component):
    """Scale or coefficient memory: read by SR or CR onto stream SCL or C, loaded by the host.

    While tokens are in work the SXM writes single lanes of it: exponents of cached K (scale) or V (coef).
    """

    def __init__(self, cfg: Config, space: Space):
        self.cfg = cfg
        self.space = space
        self.queue, self.field, self.depth, shape = {
            Space.SCALE: (Queue.SR, "s", cfg.scale_depth, unsigned(SCALE_BITS)),
            Space.COEF: (Queue.CR, "c", cfg.coef_depth, signed(SCALE_BITS)),
        }[space]
        super().__init__({
            "load": In(LoadBus(cfg)),
            "uop": In(uop_layout(cfg, self.queue)),
            "write": In(LaneWrite(cfg, self.depth)),
            "row": Out(row_layout(cfg, shape)),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = self.cfg.vlanes * SCALE_BITS
        m.submodules.bank = bank = Bank(width=width, depth=self.depth, granularity=SCALE_BITS)
        load = Signal()
        m.d.comb += [
            load.eq(self.load.valid & (self.load.space == self.space.value)),
            bank.r.en.eq(self.uop.valid),
            bank.r.addr.eq(self.uop[self.field]),
            self.row.as_value().eq(bank.r.data),
        ]
        # Both who write are far away.
        register_write(
            m, bank.w,
            en=self.write.en | load.replicate(self.cfg.vlanes),
            addr=Mux(load, self.load.addr, self.write.addr),
            data=Mux(load, self.load.data, self.write.data.replicate(self.cfg.vlanes)),
        )  # fmt: skip
        return m


class VectorSlice(wiring.Component):
    """Vector memory: XW writes rows of stream Y or Z, XR reads them onto stream X."""

    def __init__(self, cfg: Config):
        self.cfg = cfg
        super().__init__({
            "xr": In(uop_layout(cfg, Queue.XR)),
            "xw": In(uop_layout(cfg, Queue.XW)),
            "y": In(stream_layout(cfg)),
            "z": In(stream_layout(cfg)),
            "x": Out(stream_layout(cfg)),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.bank = bank = Bank(width=self.cfg.vlanes * WORD, depth=self.cfg.vector_depth)
        m.d.comb += [
            bank.r.en.eq(self.xr.valid),
            bank.r.addr.eq(self.xr.x),
            self.x.as_value().eq(bank.r.data),
        ]
        row = Mux(self.xw.source == Source.Z.value, self.z.as_value(), self.y.as_value())
        register_write(m, bank.w, self.xw.valid, self.xw.x, row)
        return m


class ActMemory(wiring.Component):
    """Activation memory, with the words just written forwarded to the words just read.

    A read in cycle c returns what was written in cycles up to c + 1: the quantiser's word need not go
    through the array before the MXM gets it, which takes two cycles off every boundary between
    dependent operations.
    """

    FORWARD = 1
    """A read sees writes of this many cycles after its own."""

    def __init__(self, cfg: Config):
        self.cfg = cfg
        super().__init__({
            "en": In(1),
            "addr": In(address_bits(cfg.act_depth)),
            "word": Out(act_layout(cfg)),
            "write": In(ActWrite(cfg)),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg = self.cfg
        assert get_timing(cfg).mem_read == 2, "the forwarding registers stand beside two memory stages"
        m.submodules.bank = bank = Bank(width=cfg.act_word_bits, depth=cfg.act_depth)
        w = self.write
        m.d.comb += [
            bank.r.en.eq(self.en),
            bank.r.addr.eq(self.addr),
            bank.w.en.eq(w.en),
            bank.w.addr.eq(w.addr),
            bank.w.data.eq(w.data),
        ]
        read_addr = Signal.like(self.addr)  # of the read one cycle ago
        same = Signal()  # that read met a write of its own cycle ...
        from_same = Signal()  # ... now two cycles ago
        from_next = Signal()  # ... and the read two cycles ago a write one cycle later, which is newer
        data1 = Signal(cfg.act_word_bits, reset_less=True)  # written one cycle ago
        data2 = Signal(cfg.act_word_bits, reset_less=True)  # written two cycles ago
        m.d.sync += [
            read_addr.eq(self.addr),
            same.eq(w.en & (w.addr == self.addr)),
            from_same.eq(same),
            from_next.eq(w.en & (w.addr == read_addr)),
            data1.eq(w.data),
            data2.eq(data1),
        ]
        m.d.comb += self.word.as_value().eq(Mux(from_next, data1, Mux(from_same, data2, bank.r.data)))
        return m


