"""ECP5 hard blocks: block RAM and multipliers with their registers, each beside its behavioural twin.

Yosys infers neither the multiplier's registers nor the block RAM's output register, so both are instances
here. Every class below is one hard block in one way of using it; elaborated for a platform with
``primitives`` it is the vendor's primitive, for any other its twin: same ports, same latency. What the
twins rely on is quoted from the vendor's documents by section, and what no tool here can confirm is listed in
``docs/fpga.md``.

Sources: FPGA-TN-02204 (ECP5 Memory Usage Guide), FPGA-TN-02205 (ECP5 sysDSP Usage Guide), FPGA-DS-02012 (data
sheet).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from amaranth.hdl import Array, Cat, ClockSignal, Const, Elaboratable, Instance, Module, Signal, Value
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hdl.config import address_bits
from hdl.mem import Bank, DualBank, Rom
from hdl.primitives import DSP_BITS, Multiplier

BYTE = 9
"""Bits of a block RAM that share one write enable (FPGA-TN-02204, byte enables)."""
EBR_BITS = 2048 * BYTE


@dataclasses.dataclass(frozen=True)
class Mode:
    """A shape of one block RAM: ``depth`` words of ``bytes`` times nine bits."""

    depth: int
    bytes: int

    @property
    def width(self) -> int:
        return self.bytes * BYTE

    @property
    def address_shift(self) -> int:
        """Lowest address bit of a word: the address pins count single bits of 16384 (FPGA-TN-02204)."""
        return 14 - (self.depth - 1).bit_length()


MODES = (Mode(2048, 1), Mode(1024, 2), Mode(512, 4))


@functools.cache
def tiling(depth: int, lanes: int, full: int = 0) -> tuple[Mode, ...]:
    """Shapes of the slices of a memory of ``lanes`` nine-bit bytes, from address 0 up: fewest blocks, then
    fewest slices. All but the last are full, and deeper slices come first.

    The lowest ``full`` words are read through both ports: 36 bits take both data ports for one word (FPGA-TN-02204,
    true dual-port RAM: up to 18 bits a port)."""
    if depth <= 0:
        return ()
    options = []
    for mode in MODES:
        if full <= 0 or mode.bytes <= 2:
            options.append((mode, *tiling(depth - mode.depth, lanes, full - mode.depth)))

    def cost(modes: tuple[Mode, ...]) -> tuple[int, int, list[int]]:
        return sum(-(-lanes // m.bytes) for m in modes), len(modes), [-m.depth for m in modes]

    return min(options, key=cost)


def byte_lanes(width: int, granularity: int) -> list[tuple[int, int]]:
    """(first bit, bits) of the nine-bit bytes that hold a word, each within one part of ``granularity`` bits."""
    lanes = []
    for part in range(0, width, granularity):
        count = -(-granularity // BYTE)
        each = -(-granularity // count)
        for at in range(0, granularity, each):
            lanes.append((part + at, min(each, granularity - at)))
    return lanes


@dataclasses.dataclass(frozen=True)
class Block:
    """One block RAM of a bank: words from ``base`` on, and the (first bit, bits) of a word in each of its bytes."""

    name: str
    mode: Mode
    base: int
    lanes: tuple[tuple[int, int], ...]

    def words(self, contents: Sequence[int]) -> list[int]:
        """The block's words, of the bank's."""
        out = []
        for word in contents[self.base : self.base + self.mode.depth]:
            parts = ((word >> at & (1 << bits) - 1) << BYTE * i for i, (at, bits) in enumerate(self.lanes))
            out.append(sum(parts))
        return out


def cut(width: int, depth: int, granularity: int | None = None, full: int = 0) -> list[list[Block]]:
    """The block RAMs of a bank: for each slice of its depth, from address 0 up, those beside each other."""
    lanes = byte_lanes(width, granularity or width)
    slices, base = [], 0
    for s, mode in enumerate(tiling(depth, len(lanes), full)):
        # The first slices are the deepest, so that a slice begins at a multiple of its depth.
        assert base % mode.depth == 0
        slices.append([
            Block(f"s{s}b{first}", mode, base, tuple(lanes[first : first + mode.bytes]))
            for first in range(0, len(lanes), mode.bytes)
        ])  # fmt: skip
        base += mode.depth
    return slices


def blocks(width: int, depth: int, granularity: int | None = None, full: int = 0) -> int:
    """Number of block RAMs of a bank."""
    return sum(len(group) for group in cut(width, depth, granularity, full))


class BlockRam(wiring.Component):
    """One EBR as a pseudo dual-port memory: write port, read port, optional output register.

    ``w_en``: one bit a byte of nine bits. ``r_en`` in cycle c: ``r_data`` in c + 1, or c + 2 with ``register``.
    Writes happen at the clock edge (FPGA-TN-02204, pseudo dual-port RAM timing); reading a word while it is
    being written gives data that no user here relies on. ``init``: words at power-on.
    """

    def __init__(self, mode: Mode, *, register: bool, init: Sequence[int] = ()):
        self.mode = mode
        self.register = register
        self.init = tuple(init)
        super().__init__({
            "r_en": In(1),
            "r_addr": In(address_bits(mode.depth)),
            "r_data": Out(mode.width),
            "w_en": In(mode.bytes),
            "w_addr": In(address_bits(mode.depth)),
            "w_data": In(mode.width),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ebr = self._primitive() if getattr(platform, "primitives", False) else self._twin()
        return m

    def _twin(self) -> Module:
        m = Module()
        m.submodules.array = array = memory.Memory(shape=self.mode.width, depth=self.mode.depth, init=self.init)
        wp, rp = array.write_port(granularity=BYTE), array.read_port()
        m.d.comb += [wp.en.eq(self.w_en), wp.addr.eq(self.w_addr), wp.data.eq(self.w_data)]
        m.d.comb += [rp.en.eq(self.r_en), rp.addr.eq(self.r_addr)]
        if self.register:
            out = Signal(self.mode.width, reset_less=True)
            m.d.sync += out.eq(rp.data)
            m.d.comb += self.r_data.eq(out)
        else:
            m.d.comb += self.r_data.eq(rp.data)
        return m

    def _primitive(self) -> Instance:
        mode = self.mode
        zeros = Const(0, mode.address_shift)
        common = dict(
            p_GSR="DISABLED", p_RESETMODE="SYNC", p_ASYNC_RESET_RELEASE="SYNC", **init_parameters(self.init, mode),
        )  # fmt: skip
        register = "OUTREG" if self.register else "NOREG"
        clock = ClockSignal()
        if mode.bytes == 4:
            # 36 bits need both data ports, which is the vendor's PDPW16KD. DO is numbered by port: its upper half is
            # the word's lower one. So connects the vendor's own generator, and nextpnr's packer and Yosys's map of
            # its inferred memories agree.
            return Instance(
                "PDPW16KD",
                **common,
                p_DATA_WIDTH_W=36, p_DATA_WIDTH_R=36, p_REGMODE=register,
                p_CSDECODE_W="0b000", p_CSDECODE_R="0b000",
                i_CLKW=clock, i_CEW=Const(1), **pins("i_CSW", Const(0, 3)),
                **pins("i_ADW", self.w_addr), **pins("i_BE", self.w_en), **pins("i_DI", self.w_data),
                i_CLKR=clock, i_CER=self.r_en, i_OCER=Const(1), **pins("i_CSR", Const(0, 3)), i_RST=Const(0),
                **pins("i_ADR", Cat(zeros, self.r_addr)), **pins("o_DO", Cat(self.r_data[18:], self.r_data[:18])),
            )  # fmt: skip
        # Two bytes: their write enables are the lowest address pins (FPGA-TN-02204, byte enables).
        w_addr = Cat(self.w_en, Const(0, mode.address_shift - 2), self.w_addr) if mode.bytes == 2 else (
            Cat(zeros, self.w_addr))  # fmt: skip
        return Instance(
            "DP16KD",
            **common,
            p_DATA_WIDTH_A=mode.width, p_DATA_WIDTH_B=mode.width, p_REGMODE_A="NOREG", p_REGMODE_B=register,
            p_CSDECODE_A="0b000", p_CSDECODE_B="0b000", p_WRITEMODE_A="NORMAL", p_WRITEMODE_B="NORMAL",
            i_CLKA=clock, i_CEA=Const(1), i_OCEA=Const(1), i_WEA=self.w_en.any(), i_RSTA=Const(0),
            **pins("i_CSA", Const(0, 3)), **pins("i_ADA", w_addr), **pins("i_DIA", self.w_data),
            i_CLKB=clock, i_CEB=self.r_en, i_OCEB=Const(1), i_WEB=Const(0), i_RSTB=Const(0),
            **pins("i_CSB", Const(0, 3)), **pins("i_ADB", Cat(zeros, self.r_addr)), **pins("o_DOB", self.r_data),
        )  # fmt: skip


class DualBlockRam(wiring.Component):
    """One EBR as a true dual-port memory of 9- or 18-bit words: port A writes whole words or reads, port B reads; both
    with output registers.

    ``a_en``: port A reads, unless ``a_write``; ``a_q`` two cycles later, as ``b_q`` after ``b_en``. Otherwise as
    :class:`BlockRam`. Port A's output behind a write of its own stays as it was (write mode NORMAL), which no user here
    relies on.
    """

    def __init__(self, mode: Mode):
        if mode.bytes > 2:
            raise ValueError(f"{mode.width} bits: a true dual-port block RAM has up to 18")
        self.mode = mode
        super().__init__({
            "a_en": In(1),
            "a_write": In(1),
            "a_addr": In(address_bits(mode.depth)),
            "a_data": In(mode.width),
            "a_q": Out(mode.width),
            "b_en": In(1),
            "b_addr": In(address_bits(mode.depth)),
            "b_q": Out(mode.width),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ebr = self._primitive() if getattr(platform, "primitives", False) else self._twin()
        return m

    def _twin(self) -> Module:
        m = Module()
        m.submodules.array = array = memory.Memory(shape=self.mode.width, depth=self.mode.depth, init=[])
        wp = array.write_port()
        m.d.comb += [wp.en.eq(self.a_write), wp.addr.eq(self.a_addr), wp.data.eq(self.a_data)]
        for en, addr, q in ((self.a_en & ~self.a_write, self.a_addr, self.a_q), (self.b_en, self.b_addr, self.b_q)):
            rp = array.read_port()
            out = Signal(self.mode.width, reset_less=True)
            m.d.comb += [rp.en.eq(en), rp.addr.eq(addr), q.eq(out)]
            m.d.sync += out.eq(rp.data)
        return m

    def _primitive(self) -> Instance:
        mode = self.mode
        zeros = Const(0, mode.address_shift)
        # Whole words are written: with two bytes, both write enables (the lowest address pins) are set.
        below = Cat(Const(3, 2), Const(0, mode.address_shift - 2)) if mode.bytes == 2 else zeros
        return Instance(
            "DP16KD",
            p_GSR="DISABLED", p_RESETMODE="SYNC", p_ASYNC_RESET_RELEASE="SYNC",
            p_DATA_WIDTH_A=mode.width, p_DATA_WIDTH_B=mode.width, p_REGMODE_A="OUTREG", p_REGMODE_B="OUTREG",
            p_CSDECODE_A="0b000", p_CSDECODE_B="0b000", p_WRITEMODE_A="NORMAL", p_WRITEMODE_B="NORMAL",
            i_CLKA=ClockSignal(), i_CEA=self.a_en | self.a_write, i_OCEA=Const(1), i_WEA=self.a_write, i_RSTA=Const(0),
            **pins("i_CSA", Const(0, 3)), **pins("i_ADA", Cat(below, self.a_addr)), **pins("i_DIA", self.a_data),
            **pins("o_DOA", self.a_q),
            i_CLKB=ClockSignal(), i_CEB=self.b_en, i_OCEB=Const(1), i_WEB=Const(0), i_RSTB=Const(0),
            **pins("i_CSB", Const(0, 3)), **pins("i_ADB", Cat(zeros, self.b_addr)), **pins("o_DOB", self.b_q),
        )  # fmt: skip


class RomBlock(wiring.Component):
    """One EBR as a ROM of 1024 x 18 bits with two read ports, each with an enable; ``register``: output registers."""

    def __init__(self, init: Sequence[int], *, register: bool = True):
        self.init = tuple(init)
        self.register = register
        super().__init__({
            name: direction(shape)
            for port in "ab"
            for name, direction, shape in ((f"{port}_en", In, 1), (f"{port}_addr", In, 10), (f"{port}_data", Out, 18))
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if getattr(platform, "primitives", False):
            m.submodules.ebr = self._primitive()
            return m
        m.submodules.array = array = memory.Memory(shape=18, depth=1024, init=self.init)
        for port in "ab":
            en, addr, data = (getattr(self, f"{port}_{name}") for name in ("en", "addr", "data"))
            rp = array.read_port()
            m.d.comb += [rp.en.eq(en), rp.addr.eq(addr)]
            if not self.register:
                m.d.comb += data.eq(rp.data)
                continue
            out = Signal(18, reset_less=True, name=f"{port}_out")
            m.d.comb += data.eq(out)
            with m.If(en):
                m.d.sync += out.eq(rp.data)
        return m

    def _primitive(self) -> Instance:
        ports: dict[str, object] = {}
        for port in "ab":
            up = port.upper()
            en, addr, data = (getattr(self, f"{port}_{name}") for name in ("en", "addr", "data"))
            ports |= {
                f"p_DATA_WIDTH_{up}": 18, f"p_REGMODE_{up}": "OUTREG" if self.register else "NOREG",
                f"p_CSDECODE_{up}": "0b000",
                f"p_WRITEMODE_{up}": "NORMAL",
                f"i_CLK{up}": ClockSignal(), f"i_CE{up}": en, f"i_OCE{up}": en, f"i_WE{up}": Const(0),
                f"i_RST{up}": Const(0),
            }  # fmt: skip
            ports |= pins(f"i_CS{up}", Const(0, 3)) | pins(f"i_AD{up}", Cat(Const(0, 4), addr))
            ports |= pins(f"o_DO{up}", data)
        return Instance(
            "DP16KD", p_GSR="DISABLED", p_RESETMODE="SYNC", p_ASYNC_RESET_RELEASE="SYNC",
            **init_parameters(self.init, MODES[1]), **ports,
        )  # fmt: skip


def pins(prefix: str, value: Value) -> dict[str, Value]:
    """One keyword of ``Instance`` for each bit: the vendor's primitives have no buses."""
    return {f"{prefix}{i}": value[i] for i in range(len(value))}


def init_words(words: Sequence[int], mode: Mode) -> list[int]:
    """The 64 INITVAL parameters, 320 bits each: sixteen 18-bit units, each in 20 bits, in address order."""
    total = 0
    for i, word in enumerate(words):
        if word >> mode.width:
            raise ValueError(f"word {i} has more than {mode.width} bits")
        total |= word << (i * mode.width)
    units = [total >> (18 * u) & 0x3FFFF for u in range(1024)]
    return [sum(unit << (20 * i) for i, unit in enumerate(units[16 * k : 16 * k + 16])) for k in range(64)]


def init_parameters(words: Sequence[int], mode: Mode) -> dict[str, Const]:
    """INITVAL_00..3F as keywords of ``Instance``; none for a memory that starts empty."""
    if not words:
        return {}
    return {f"p_INITVAL_{k:02X}": Const(value, 320) for k, value in enumerate(init_words(words, mode))}


class Dsp(wiring.Component):
    """One MULT18X18D: ``p`` = ``a`` * ``b`` after ``stages`` cycles.

    stages 3: input, pipeline and output register; 2: input and output; 1: output alone (FPGA-TN-02205,
    MULT18X18D). No register has a reset or an enable, so none waits.
    """

    def __init__(self, *, stages: int, signed_a: bool, signed_b: bool):
        self.stages = stages
        self.signed_a = signed_a
        self.signed_b = signed_b
        super().__init__({"a": In(DSP_BITS), "b": In(DSP_BITS), "p": Out(2 * DSP_BITS)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if getattr(platform, "primitives", False):
            m.submodules.dsp = self._primitive()
            return m
        value = (
            (self.a.as_signed() if self.signed_a else self.a) * (self.b.as_signed() if self.signed_b else self.b)
        )[: 2 * DSP_BITS]
        for i in range(self.stages):
            reg = Signal(2 * DSP_BITS, reset_less=True, name=f"stage{i}")
            m.d.sync += reg.eq(value)
            value = reg
        m.d.comb += self.p.eq(value)
        return m

    def _primitive(self) -> Instance:
        registers = {
            "INPUTA": self.stages >= 2, "INPUTB": self.stages >= 2, "INPUTC": False,
            "PIPELINE": self.stages == 3, "OUTPUT": True,
        }  # fmt: skip
        ports: dict[str, object] = {}
        for name, used in registers.items():
            ports |= {
                f"p_REG_{name}_CLK": "CLK0" if used else "NONE", f"p_REG_{name}_CE": "CE0", f"p_REG_{name}_RST": "RST0"
            }  # fmt: skip
        for i in range(4):
            ports |= {f"i_CLK{i}": ClockSignal() if i == 0 else Const(0), f"i_CE{i}": Const(1), f"i_RST{i}": Const(0)}
        return Instance(
            "MULT18X18D",
            p_CLK0_DIV="ENABLED", p_GSR="DISABLED", p_RESETMODE="SYNC", p_MULT_BYPASS="DISABLED",
            p_SOURCEB_MODE="B_SHIFT", p_CAS_MATCH_REG="FALSE",
            i_SIGNEDA=Const(int(self.signed_a)), i_SIGNEDB=Const(int(self.signed_b)),
            i_SOURCEA=Const(0), i_SOURCEB=Const(0),
            **ports, **pins("i_A", self.a), **pins("i_B", self.b), **pins("o_P", self.p),
        )  # fmt: skip


LUT_RAM_BITS = 2560
"""Banks of up to so many bits (the prompt's) are not worth a block RAM: on the LFE5U-85F all of them are in use."""


class Ecp5:
    """Elaboration for ECP5: the hooks of :mod:`hdl.mem` and :mod:`hdl.primitives`.

    A platform class of amaranth-boards inherits it; alone, with ``primitives`` false, it gives the twins.
    """

    primitives = False
    multipliers: int | None = None
    """Blocks that may be used; what comes after them (the last columns of the MXM) is built of LUTs."""
    lut_ram_bits: int = LUT_RAM_BITS
    """Banks of so many bits and less are LUT RAM."""
    _multipliers_used = 0

    def bank(self, bank: Bank) -> Elaboratable | None:
        """A bank cut into byte lanes and depth slices; None for one so small that LUT RAM takes it."""
        return _TiledBank(bank) if bank.width * bank.depth > self.lut_ram_bits else None

    def dual_bank(self, bank: DualBank) -> Elaboratable:
        """A bank with two ports, cut likewise."""
        return _TiledDualBank(bank)

    def rom(self, rom: Rom) -> Elaboratable:
        """A ROM: two ports share blocks of 1024 x 18; one port of up to 512 x 36 uses both ports of one."""
        return _TiledRom(rom)

    def multiplier(self, multiplier: Multiplier) -> Elaboratable | None:
        """A multiplier's block, wired to it; None when all are used."""
        if self._multipliers_used == self.multipliers:
            return None
        self._multipliers_used += 1
        return _WiredDsp(multiplier)


class _TiledBank(Elaboratable):
    def __init__(self, bank: Bank):
        self.bank = bank

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bank = self.bank
        r, w = bank.r, bank.w
        slices = cut(bank.width, bank.depth, bank.granularity)
        outputs: list[Value] = []
        chosen: list[Value] = []
        for s, group in enumerate(slices):
            mode, base = group[0].mode, group[0].base
            high = (mode.depth - 1).bit_length()
            write_here, read_here = Signal(name=f"write{s}"), Signal(name=f"read{s}")
            m.d.comb += [
                write_here.eq(w.addr[high:] == base // mode.depth),
                read_here.eq(r.addr[high:] == base // mode.depth),
            ]
            chosen.append(read_here)
            word: list[Value] = []
            for block in group:
                m.submodules[block.name] = ram = BlockRam(mode, register=bank.latency == 2)
                m.d.comb += [ram.r_en.eq(r.en), ram.r_addr.eq(r.addr[:high]), ram.w_addr.eq(w.addr[:high])]
                for i, (at, bits) in enumerate(block.lanes):
                    m.d.comb += [
                        ram.w_data[BYTE * i : BYTE * i + bits].eq(w.data[at : at + bits]),
                        ram.w_en[i].eq(w.en[at // bank.granularity] & write_here),
                    ]
                    word.append(ram.r_data[BYTE * i : BYTE * i + bits])
            outputs.append(Cat(*word))
        m.d.comb += r.data.eq(_slice_read(m, r.en, chosen, outputs, bank.latency))
        return m


def _slice_read(m: Module, en: Value, chosen: Sequence[Value], outputs: Sequence[Value], latency: int) -> Value:
    """What the slice that was read gives: the choice is held like the array's output and delayed like its register."""
    if len(outputs) == 1:
        return outputs[0]
    index = Signal(range(len(outputs)))
    with m.If(en):
        m.d.sync += index.eq(sum((Const(s, len(index)) & c.replicate(len(index))).as_unsigned()
                                 for s, c in enumerate(chosen)))  # fmt: skip
    if latency == 2:
        late = Signal.like(index, reset_less=True)
        m.d.sync += late.eq(index)
        index = late
    return Array(outputs)[index]


class _TiledDualBank(Elaboratable):
    """Slices below ``bank.full`` of true dual-port block RAM; the second port only writes those above."""

    def __init__(self, bank: DualBank):
        self.bank = bank

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bank = self.bank
        r, u = bank.r, bank.u
        outputs: list[Value] = []
        chosen: list[Value] = []
        stored: list[Value] = []
        asked: list[Value] = []
        for s, group in enumerate(cut(bank.width, bank.depth, full=bank.full)):
            mode, base = group[0].mode, group[0].base
            high = (mode.depth - 1).bit_length()
            here, read_here = Signal(name=f"here{s}"), Signal(name=f"read{s}")
            m.d.comb += [
                here.eq(u.addr[high:] == base // mode.depth),
                read_here.eq(r.addr[high:] == base // mode.depth),
            ]
            word: list[Value] = []
            word_u: list[Value] = []
            for block in group:
                ram = BlockRam(mode, register=True) if mode.bytes > 2 else DualBlockRam(mode)
                m.submodules[block.name] = ram
                if isinstance(ram, BlockRam):
                    m.d.comb += [
                        ram.r_en.eq(r.en), ram.r_addr.eq(r.addr[:high]), ram.w_addr.eq(u.addr[:high]),
                        ram.w_en.eq((u.write & here).replicate(mode.bytes)),
                    ]  # fmt: skip
                    written, read = ram.w_data, ram.r_data
                else:
                    m.d.comb += [
                        ram.b_en.eq(r.en), ram.b_addr.eq(r.addr[:high]), ram.a_addr.eq(u.addr[:high]),
                        ram.a_en.eq(u.en), ram.a_write.eq(u.write & here),
                    ]  # fmt: skip
                    written, read = ram.a_data, ram.b_q
                for i, (at, bits) in enumerate(block.lanes):
                    place = slice(BYTE * i, BYTE * i + bits)
                    m.d.comb += written[place].eq(u.data[at : at + bits])
                    word.append(read[place])
                    if isinstance(ram, DualBlockRam):
                        word_u.append(ram.a_q[place])
            outputs.append(Cat(*word))
            chosen.append(read_here)
            if word_u:
                stored.append(Cat(*word_u))
                asked.append(here)
        m.d.comb += [
            r.data.eq(_slice_read(m, r.en, chosen, outputs, 2)),
            u.q.eq(_slice_read(m, u.en & ~u.write, asked, stored, 2)),
        ]
        return m


class _TiledRom(Elaboratable):
    def __init__(self, rom: Rom):
        self.rom = rom

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rom = self.rom
        if len(rom.init) > 1024:
            raise ValueError(f"a ROM of {len(rom.init)} words: at most 1024 here")
        if len(rom.ports) == 1 and rom.width > 18 and len(rom.init) <= 512:
            # Both halves of a word at once, through the two ports.
            port = getattr(rom, rom.ports[0])
            low = [word & 0x3FFFF for word in rom.init]
            high = [word >> 18 for word in rom.init]
            m.submodules.block = block = RomBlock(
                low + [0] * (512 - len(low)) + high, register=rom.latency == 2
            )
            for name, half in (("a", 0), ("b", 1)):
                m.d.comb += [
                    getattr(block, f"{name}_en").eq(port.en),
                    getattr(block, f"{name}_addr").eq(Cat(port.addr, Const(0, 9 - len(port.addr)), half)),
                ]
            m.d.comb += port.data.eq(Cat(block.a_data, block.b_data))
            return m
        for at in range(0, rom.width, 18):
            words = [word >> at & 0x3FFFF for word in rom.init]
            m.submodules[f"block{at}"] = block = RomBlock(words, register=rom.latency == 2)
            for name, own in zip(rom.ports, "ab", strict=False):
                port = getattr(rom, name)
                m.d.comb += [
                    getattr(block, f"{own}_en").eq(port.en),
                    getattr(block, f"{own}_addr").eq(port.addr),
                    port.data[at : at + 18].eq(getattr(block, f"{own}_data")),
                ]
        return m


class _WiredDsp(Elaboratable):
    def __init__(self, multiplier: Multiplier):
        self.multiplier = multiplier

    def elaborate(self, platform: object) -> Module:
        m = Module()
        mul = self.multiplier
        signed_a, signed_b = mul.a.shape().signed, mul.b.shape().signed
        m.submodules.dsp = dsp = Dsp(stages=mul.stages, signed_a=signed_a, signed_b=signed_b)
        # Shorter operands are extended by their own sign.
        m.d.comb += [dsp.a.eq(mul.a), dsp.b.eq(mul.b), mul.p.eq(dsp.p)]
        return m
