"""The instruction set, written once.

Every instruction queue of the LPU has one *format*: its operations, its operand fields and the loops its
issue engine can run. Decoder and issue engines (``hdl/icu.py``), assembler and disassembler
(``firmware/asm.py``), scheduler, instruction-level model (``sim/machine.py``) and ``docs/isa.md`` are
derived from the tables below; nothing else states an encoding.

An instruction issues at cycle ``time`` of its phase and then repeats by itself in two nested loops::

    for i2 in range(n2):            # max(d2, (n1 - 1)*d1 + 1) cycles apart
        for i1 in range(n1):        # d1 cycles apart
            micro-op with each address field f = f + base[f_sel] + i1*f_s1 + i2*f_s2

so that a slice sees at most one fully resolved micro-op in a cycle. A loop count is an immediate or one of
three counts that follow the number of keys n in the KV cache (:class:`Count`). This is the TSP's
``Repeat n,d`` with the address iteration of its MEM instructions (Abts et al., ISCA 2020, table I).
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any

from .config import MAX_EXPERTS_PER_TOKEN, SCALARS, SOFTMAX_BANKS, Config, address_bits

FETCH_BITS = 36
"""Bits of one word of instruction memory (an EBR's widest port)."""


class IsaError(ValueError):
    """An instruction that has no encoding; the message names queue, operation, field and range."""


class Queue(enum.IntEnum):
    """Instruction queues, one per slice port."""

    ABC = 0
    ACC = 1
    SR = 2
    XR = 3
    XW = 4
    CR = 5
    VX = 6
    SXM = 7
    SFU = 8
    TOP = 9


class Count(enum.IntEnum):
    """Where a loop count comes from; n = keys in the cache, the current one included."""

    IMM = 0
    SETS = 1  # ceil(n / columns): accumulator sets that hold n int8 outputs
    WORDS = 2  # ceil(n / lanes)
    ROWS = 3  # ceil(n / vlanes)


class Base(enum.IntEnum):
    """Base registers of an address field. What each adds depends on the memory addressed:

    =========  =======================  ===================  ====================
    register   weight (``w``, ``dst``)  scale (``s``)        coef (``c``)
    =========  =======================  ===================  ====================
    LAYER      layer * LAYER_W          layer * LAYER_S      layer * LAYER_C
    EXPERTi    LAYER + id * EXPERT_W    LAYER + id*EXPERT_S  -
    TOKEN      set of the token's row   token // vlanes      -
               * TOKEN_WORDS
    ROPE       -                        -                    position * ROPE_ROWS
    KEY        LAYER + slot // columns  LAYER + slot //      -
               * KEY_WORDS              vlanes
    VALUE      LAYER + slot // lanes    -                    LAYER + slot // vlanes
    =========  =======================  ===================  ====================

    EXPERTi exists for i below ``Config.experts_per_token_max``. ``srow`` of SXM means the scale memory with KEY and
    the coefficient memory with VALUE.
    """

    ZERO = 0
    LAYER = 1
    EXPERT0 = 2
    EXPERT1 = 3
    EXPERT2 = 4
    TOKEN = 5
    ROPE = 5  # TOKEN's number: no field can want both
    KEY = 6
    VALUE = 7
    TOKEN1 = 6  # KEY's number, for the same reason


EXPERT_BASES = (Base.EXPERT0, Base.EXPERT1, Base.EXPERT2)
assert len(EXPERT_BASES) == MAX_EXPERTS_PER_TOKEN


class AbcOp(enum.IntEnum):
    DOT = 0
    GATHER = 1


class Width(enum.IntEnum):
    INT4 = 0
    INT8 = 1

    @property
    def bits(self) -> int:
        return 4 if self is Width.INT4 else 8


def widths(cfg: Config) -> tuple[Width, ...]:
    """Widths of weights that the columns take."""
    return tuple(w for w in Width if w.bits >= cfg.narrowest)


class Init(enum.IntEnum):
    """Which micro-ops of a DOT start an accumulator from zero instead of adding to it."""

    NEVER = 0
    INNER = 1  # i1 = 0: output-major order, one accumulator at a time
    OUTER = 2  # i2 = 0: K-major order, i1 walks over accumulators


class AccSource(enum.IntEnum):
    ACC = 0
    GATHER = 1


class Source(enum.IntEnum):
    """Stream a VXM, SXM or write micro-op samples."""

    Y = 0  # dequantised rows (ACC)
    X = 1  # vector memory (XR)
    Z = 2  # results of the VXM (VX)
    T = 3  # the top-k unit's row of chosen logits


class VxOp(enum.IntEnum):
    PASS = 0
    ADD = 1
    GAIN = 2
    ROPE = 3
    EXP = 4
    SILU = 5


class SxmMode(enum.IntEnum):
    ACT = 0
    KEY = 1
    VALUE = 2


class SfuOp(enum.IntEnum):
    RSQRT = 0
    RECIP = 1
    MUL = 2
    CAPTURE = 3
    PROB = 4


class TopOp(enum.IntEnum):
    INSERT = 0
    EMIT = 1


class OneOp(enum.IntEnum):
    """Queues with a single operation."""

    RUN = 0


_ALIASES = {
    ("c_sel", int(Base.ROPE)): "ROPE", ("w_sel", int(Base.TOKEN1)): "TOKEN1", ("s_sel", int(Base.TOKEN1)): "TOKEN1",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Field:
    """An unsigned operand field of ``bits`` bits; an enumeration where ``enum`` is given."""

    name: str
    bits: int
    doc: str
    enum: type[enum.IntEnum] | None = None
    only: tuple[IntEnum, ...] | None = None
    """Members of ``enum`` that have a meaning here; None: all of them."""

    @property
    def members(self) -> tuple[IntEnum, ...]:
        """Values that the field may have; none where any number is one."""
        return tuple(self.enum or ()) if self.only is None else self.only

    def text(self, value: int) -> str:
        """A value as it is written: a member's name, or the number."""
        if self.enum is None:
            return str(value)
        if (name := _ALIASES.get((self.name, value))) is not None:
            return name  # Python would print TOKEN, KEY
        return self.enum(value).name

    def check(self, value: int, queue: Queue) -> None:
        """Raises :class:`IsaError` for a value that the field cannot have."""
        if not 0 <= value < 1 << self.bits:
            raise IsaError(f"{queue.name}: {self.name} = {value} is outside 0..{(1 << self.bits) - 1}")
        if self.enum is not None and value not in self.members:
            names = ", ".join(map(self.text, self.members))
            raise IsaError(f"{queue.name}: {self.name} = {value} is none of {names}")


@dataclasses.dataclass(frozen=True)
class Address:
    """An address operand: immediate, strides of both loops and, with ``based``, a base register.

    Arithmetic is modulo 2**bits, so a stride of 2**bits - 1 steps back.
    """

    name: str
    bits: int
    doc: str
    based: bool = False
    inner: bool = True
    outer: bool = True
    bases: tuple[Base, ...] = ()
    """Base registers it may name, with ``based``."""

    def fields(self) -> Iterator[Field]:
        yield Field(self.name, self.bits, self.doc)
        if self.based:
            yield Field(f"{self.name}_sel", 3, f"base register added to {self.name}", Base, self.bases)
        if self.inner:
            yield Field(f"{self.name}_s1", self.bits, f"added to {self.name} each inner step")
        if self.outer:
            yield Field(f"{self.name}_s2", self.bits, f"added to {self.name} each outer step")


@dataclasses.dataclass(frozen=True)
class Format:
    """Everything there is to know of one queue's instructions."""

    queue: Queue
    slice: str
    doc: str
    ops: type[enum.IntEnum]
    op_docs: Mapping[int, str]
    operands: tuple[Field | Address, ...]
    outer: bool = True
    """Has the outer loop (the inner one always exists)."""
    time_bits: int = 12
    count_bits: int = 12

    @functools.cached_property
    def fields(self) -> tuple[Field, ...]:
        """All encoded fields, least significant first."""
        out = [
            Field("time", self.time_bits, "issue cycle within the phase"),
            Field("end", 1, "last instruction of this queue in the phase"),
        ]
        if len(self.ops) > 1:
            out.append(Field("op", max(1, (max(self.ops)).bit_length()), "operation", self.ops))
        out += [
            Field("n1", self.count_bits, "inner count (n1_sel = IMM)"),
            Field("n1_sel", 2, "inner count source", Count),
            Field("d1", 8, "cycles between inner steps"),
        ]
        if self.outer:
            out += [
                Field("n2", self.count_bits, "outer count (n2_sel = IMM)"),
                Field("n2_sel", 2, "outer count source", Count),
                Field("d2", 12, "cycles between outer steps"),
            ]
        for o in self.operands:
            out += list(o.fields()) if isinstance(o, Address) else [o]
        return tuple(out)

    @functools.cached_property
    def by_name(self) -> dict[str, Field]:
        return {f.name: f for f in self.fields}

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple(o for o in self.operands if isinstance(o, Address))

    @property
    def bits(self) -> int:
        return sum(f.bits for f in self.fields)

    @property
    def words(self) -> int:
        """Instruction-memory words of one instruction."""
        return -(-self.bits // FETCH_BITS)

    @property
    def defaults(self) -> dict[str, int]:
        return {f.name: 1 if f.name in ("n1", "d1", "n2", "d2") else 0 for f in self.fields}


@dataclasses.dataclass(frozen=True)
class Instr:
    """One instruction: queue and field values (missing ones take the format's default)."""

    queue: Queue
    values: Mapping[str, int]
    note: str = ""
    """For people: what it is there for. Not encoded."""

    def get(self, name: str) -> int:
        return self.values.get(name, 1 if name in ("n1", "d1", "n2", "d2") else 0)

    @property
    def time(self) -> int:
        return self.get("time")


class Isa:
    """The instruction set of one configuration (field widths follow memory depths)."""

    def __init__(self, cfg: Config):
        self.cfg = cfg
        w, a = address_bits(cfg.weight_depth), address_bits(cfg.act_depth)
        s, c, x = (address_bits(d) for d in (cfg.scale_depth, cfg.coef_depth, cfg.vector_depth))
        acc = address_bits(cfg.accs)
        slot = address_bits(cfg.slots(cfg.narrowest))
        scalar = address_bits(SCALARS)
        bank = address_bits(SOFTMAX_BANKS)
        shift = Field("shift", 6, "right shift, rounded half up")
        one = {0: ""}
        rows = (Source.Y, Source.Z)  # what XW and SXM are wired to
        layers = (Base.ZERO, Base.LAYER)
        experts = EXPERT_BASES[: cfg.experts_per_token_max]
        weights = (*layers, *experts, Base.TOKEN, Base.TOKEN1)[: None if cfg.sequences == 2 else -1]
        # No loop counts more than the rows of a matrix (each has a row of scales), the words or rows of a vector, or
        # the keys of a context.
        count_bits = max(s, x, a, cfg.position_bits)

        def fmt(queue: Queue, slice_: str, doc: str, ops, op_docs, *operands, outer: bool = True) -> Format:
            return Format(queue, slice_, doc, ops, op_docs, tuple(operands), outer, cfg.time_bits, count_bits)

        self.formats: dict[Queue, Format] = {f.queue: f for f in (
            fmt(Queue.ABC, "MXM", "Activation control: feed activation words and weight words to the columns.",
                AbcOp,
                {AbcOp.DOT: "every column: acc[acc] (+)= dot(weights[w], activations[a]) << block exponents",
                 AbcOp.GATHER: "read the current token's weight word at w, unpack it onto the gather stream"},
                Field("width", 1, "weight width", Width),
                Field("sequence", 1, "GATHER: whose token"),
                Field("init", 2, "which micro-ops clear the accumulator first", Init),
                Address("w", w, "weight address", based=True, bases=weights),
                Address("a", a, "activation address"),
                Address("acc", acc, "accumulator set")),
            fmt(Queue.ACC, "VXM", "Drain accumulators row by row and dequantise them onto stream Y.",
                OneOp,
                {0: "Y = sat32(round(value * round(SCL * R[scalar]) >> (shift + exponent)))"},
                Field("source", 1, "accumulators or gather stream", AccSource),
                Field("width", 1, "width the accumulators were filled with: how slots map to columns", Width),
                Field("bcast", 1, "use the scale lane of the current token for all lanes"),
                Field("sequence", 1, "bcast: whose token"),
                Field("max", 1, "maximum over this instruction's first n values into MAX[bank]"),
                Field("bank", bank, "bank of MAX"),
                Field("scalar", scalar, "scalar register"),
                shift,
                Address("acc", acc, "accumulator set"),
                Address("slot", slot, "row within the set")),
            fmt(Queue.SR, "MEM", "Read rows of the scale memory onto stream SCL.", OneOp, one,
                Address("s", s, "scale row", based=True, bases=weights)),
            fmt(Queue.XR, "MEM", "Read rows of the vector memory onto stream X.", OneOp, one,
                Address("x", x, "vector row", outer=False),
                outer=False),
            fmt(Queue.XW, "MEM", "Write rows of stream Y or Z to the vector memory.", OneOp, one,
                Field("source", 2, "stream", Source, rows),
                Address("x", x, "vector row", outer=False),
                outer=False),
            fmt(Queue.CR, "MEM", "Read rows of the coefficient memory onto stream C.", OneOp, one,
                Address("c", c, "coefficient row", based=True, bases=(*layers, Base.ROPE))),
            fmt(Queue.VX, "VXM", "Vector ALU chain: sample operand streams, put a row on stream Z.",
                VxOp,
                {VxOp.PASS: "Z = source",
                 VxOp.ADD: "Z = sat32(source + X)",
                 VxOp.GAIN: "Z = round(sat18(round(source >> fshift)) * C >> shift), C signed",
                 VxOp.ROPE: "lane pairs (a, b), C = (cos, sin): Z = round((a cos - b sin, b cos + a sin) >> 14)",
                 VxOp.EXP: "p = exp2(source - MAX[bank]), 0 beyond the first n; SUM[bank] += p; "
                           "Z = round(p * C >> shift), or p when unit = 1",
                 VxOp.SILU: "rows in pairs (g, u): Z = round(sat18(g) sigmoid(g) * sat18(u) >> shift), one row a pair"},
                Field("source", 2, "stream", Source),
                Field("bank", bank, "bank of MAX and SUM"),
                Field("unit", 1, "EXP: do not multiply by C"),
                Field("fshift", 4, "SILU: fraction bits of g, minus 7; GAIN: right shift before the product"),
                shift,
                outer=False),
            fmt(Queue.SXM, "SXM", "Quantise rows to blocks; assemble activation words, K rows, V columns.",
                SxmMode,
                {SxmMode.ACT: "blocks of 8 elements -> activation words at dst, + i1 // rows of a word",
                 SxmMode.KEY: "all n1 rows are one K vector: int8 with one exponent -> weight words at dst; "
                              "2**exponent -> scale row srow",
                 SxmMode.VALUE: "all n1 rows are one V vector: int8 -> one byte of each column at dst, "
                                "+ vset per set of columns; 2**exponent -> coefficient row srow"},
                Field("source", 2, "stream", Source, rows),
                Field("sumsq", 1, "ACT: sum of squares of this instruction into SUMSQ"),
                shift,
                Address("dst", max(w, a), "destination address", based=True, inner=False,
                        bases=(*layers, Base.KEY, Base.VALUE)),
                Field("vset", w, "VALUE: weight words of one set of columns"),
                Address("srow", max(s, c), "KEY, VALUE: scale row", based=True, inner=False,
                        bases=(Base.ZERO, Base.KEY, Base.VALUE))),
            fmt(Queue.SFU, "VXM", "Scalar unit: registers R (mantissa, exponent).",
                SfuOp,
                {SfuOp.RSQRT: "R[dst] = 1 / sqrt(SUMSQ + EPS)",
                 SfuOp.RECIP: "R[dst] = 1 / SUM[bank]",
                 SfuOp.MUL: "R[dst] = R[a] * K[b]",
                 SfuOp.CAPTURE: "P = row on stream Z",
                 SfuOp.PROB: "R[dst] = P[b] * R[a]"},
                Field("dst", scalar, "destination register"),
                Field("a", scalar, "operand register"),
                Field("b", scalar, "constant or lane"),
                Field("bank", bank, "bank of SUM"),
                outer=False),
            fmt(Queue.TOP, "VXM", "Top-k unit: router and sampling.",
                TopOp,
                {TopOp.INSERT: "rows of Y with ids idx*vlanes + lane below limit enter the sorted lists; "
                               "noise = 1: with the Gumbel noise of each id if the host's noise mode is 2",
                 TopOp.EMIT: "inner step i takes the i-th best: expert = 1 -> expert register i and lane i of T; "
                             "expert = 0 -> candidate for the next token, with the Gumbel noise of step i if the "
                             "host's noise mode is 1; count = host's top-k when expert = 0"},
                Field("limit", 17, "ids from limit on do not enter"),
                Field("noise", 1, "INSERT for sampling"),
                Field("expert", 1, "EMIT to the expert registers"),
                Field("sequence", 1, "EMIT with expert = 0: whose next token"),
                outer=False),
        )}  # fmt: skip

    def encode(self, ins: Instr) -> int:
        """Instruction -> integer; a field out of range raises :class:`IsaError` naming it."""
        f = self.formats[ins.queue]
        unknown = set(ins.values) - set(f.by_name)
        if unknown:
            raise IsaError(f"{ins.queue.name}: no field {sorted(unknown)[0]!r}; fields: {', '.join(f.by_name)}")
        word, at = 0, 0
        for field in f.fields:
            value = int(ins.get(field.name))
            field.check(value, ins.queue)
            word |= value << at
            at += field.bits
        _check_loops(f, ins)
        return word

    def decode(self, queue: Queue, word: int) -> Instr:
        """Integer -> instruction with every field; one that :meth:`encode` would refuse raises."""
        f = self.formats[queue]
        values, at = {}, 0
        for field in f.fields:
            value = word >> at & (1 << field.bits) - 1
            field.check(value, queue)
            values[field.name] = value
            at += field.bits
        if word >> at:
            raise IsaError(f"{queue.name}: bits set beyond the instruction's {at}")
        instr = Instr(queue, values)
        _check_loops(f, instr)
        return instr

    def words(self, ins: Instr) -> list[int]:
        """Instruction as instruction-memory words, first fetched first."""
        word = self.encode(ins)
        return [word >> FETCH_BITS * i & (1 << FETCH_BITS) - 1 for i in range(self.formats[ins.queue].words)]


def _check_loops(fmt: Format, ins: Instr) -> None:
    for n, sel in (("n1", "n1_sel"), ("n2", "n2_sel")):
        if n in fmt.by_name and ins.get(sel) == Count.IMM and ins.get(n) == 0:
            raise IsaError(f"{ins.queue.name}: {n} = 0: a loop runs at least once")
    for d in ("d1", "d2"):
        if d in fmt.by_name and ins.get(d) == 0:
            raise IsaError(f"{ins.queue.name}: {d} = 0: steps are at least one cycle apart")


@dataclasses.dataclass(frozen=True)
class Phase:
    """One entry of the sequencer's table: how long a phase lasts and what follows it.

    Length in cycles = ``dur`` + ``slope`` * count, count as in :class:`Count` (IMM: no variable part).
    """

    dur: int
    slope: int = 0
    count: int = Count.IMM
    queues: int = 0
    """Bit q: queue q has instructions in this phase."""
    loop_begin: int = 0
    """First phase of the layer loop."""
    loop_end: int = 0
    """Last phase of the layer loop."""
    prompt_final: int = 0
    """Last phase of a token after which nothing is sampled (prompt tokens but the last)."""
    final: int = 0
    """Last phase of a token."""
    tail: int = 0
    """First phase of the tail: what a token after which nothing is sampled does instead of its last layer, if that is
    not its first one."""
    note: str = ""

    def cycles(self, counts: Mapping[int, int]) -> int:
        return self.dur + (self.slope * counts[self.count] if self.count else 0)


PHASE_FIELDS: tuple[Field, ...] = (
    Field("dur", 20, "cycles, without the variable part"),
    Field("slope", 6, "cycles per unit of the count"),
    Field("count", 2, "count register", Count),
    Field("queues", len(Queue), "queues with instructions in this phase"),
    Field("loop_begin", 1, "first phase of the layer loop"),
    Field("loop_end", 1, "last phase of the layer loop"),
    Field("prompt_final", 1, "last phase of a token after which nothing is sampled"),
    Field("final", 1, "last phase of a token"),
    Field("tail", 1, "first phase of what a token after which nothing is sampled does instead of its last layer"),
)


def encode_phase(p: Phase) -> int:
    """Phase -> integer, range-checked."""
    word, at = 0, 0
    for field in PHASE_FIELDS:
        value = int(getattr(p, field.name))
        if not 0 <= value < 1 << field.bits:
            raise IsaError(f"phase: {field.name} = {value} is outside 0..{(1 << field.bits) - 1}")
        word |= value << at
        at += field.bits
    return word


def decode_phase(word: int) -> Phase:
    """Integer -> phase."""
    values: dict[str, Any] = {}
    at = 0
    for field in PHASE_FIELDS:
        values[field.name] = word >> at & (1 << field.bits) - 1
        at += field.bits
    return Phase(**values)


PHASE_BITS = sum(f.bits for f in PHASE_FIELDS)


def tail_of(phases: Sequence[Phase]) -> int:
    """Index of the tail's first phase; the number of phases where there is none."""
    return next((i for i, p in enumerate(phases) if p.tail), len(phases))


def tail_address(cfg: Config) -> int:
    """Where the tail's instructions begin in each queue's memory."""
    return cfg.queue_depth // 2


@dataclasses.dataclass(frozen=True)
class Program:
    """A token's program: the phases in order, and for each queue its instructions in order; those of the tail, if
    there is one, are the last."""

    phases: tuple[Phase, ...]
    code: Mapping[Queue, tuple[Instr, ...]]

    def parts(self, queue: Queue) -> tuple[tuple[Instr, ...], tuple[Instr, ...]]:
        """A queue's instructions in front of the tail, and the tail's."""
        code, left = self.code.get(queue, ()), sum(p.queues >> queue & 1 for p in self.phases[: tail_of(self.phases)])
        at = 0
        while left and at < len(code):
            left -= code[at].get("end")
            at += 1
        return code[:at], code[at:]

    def words(self, cfg: Config, queue: Queue) -> tuple[int, int]:
        """Instruction-memory words that a queue needs, and those it has: where there is a tail, of the half that needs
        more."""
        formats, code = get_isa(cfg).formats, self.parts(queue)
        has = tail_address(cfg) if tail_of(self.phases) < len(self.phases) else cfg.queue_depth
        return max(map(len, code)) * formats[queue].words, has


@functools.cache
def get_isa(cfg: Config) -> Isa:
    return Isa(cfg)
