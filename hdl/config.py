"""Every size of an LPU, in one frozen description with named instances.

Nothing else in the project states a size: HDL, compiler, reference and tests read it from here.
Each check gives its reason. Memory depths are in words of the memory they belong to:

=========  ==============================  ==================================================
space      one word                        holds
=========  ==============================  ==================================================
weight     ``lanes`` bytes, in each column  int8 / packed int4 weights, K rows, transposed V
act        ``lanes`` activations           quantised activation vectors, fed to the MXM
scale      ``vlanes`` x 16 bit             output-channel scales, K scales
coef       ``vlanes`` x 16 bit             RoPE cos/sin, norm gains, V scales
vector     ``vlanes`` x 32 bit             residual stream, attention scores
=========  ==============================  ==================================================
"""

from __future__ import annotations

import dataclasses
import hashlib
import json

BLOCK = 8
"""Elements that share one power-of-two exponent. A constant of the numerics, not of a size: results
must not depend on lanes or columns."""
ACT_BITS = 10
"""Mantissa of an activation, sign included: two int4 products of 14 bits still fit one 18 x 18 multiplier."""
ACT_EXP_BITS = 4
"""Shared exponent of a block, 0..15."""
ACT_RANGE = ACT_BITS + 15
"""Bits of the integer an activation stands for (mantissa << exponent)."""
KV_BITS = 8
KV_RANGE = KV_BITS + 14
"""Bits of the integer a cached K or V element stands for: exponents 0..14, so that 2**exponent is a
positive 16-bit coefficient."""
WORD = 32
"""Bits of one VXM lane's stream word."""
SCALE_BITS = 16
"""Bits of one scale or coefficient."""
PROB_BITS = 16
"""Fraction bits of exp2 and sigmoid results (1.0 = 65536)."""
SUMSQ_BITS = 64
"""A sum of squares travels with one bit more: set when it is larger than these bits hold."""
SCORE_FRAC = 12
"""Fraction bits of attention scores and router logits, in log2 units."""
LOGIT_FRAC = 16
"""Fraction bits of the LM head's logits, in nats."""
COEF_FRAC = 14
"""Fraction bits of RoPE cos/sin."""
SCALARS = 8
"""Scalar registers of the VXM; register 0 is the constant one."""
SOFTMAX_BANKS = 4
"""Banks of MAX and SUM: attention heads whose softmax may be in work at once."""
MAX_EXPERTS_PER_TOKEN = 3
"""Expert base registers of the instruction set."""
OPTION = {"option": True}
"""Metadata of a field that a configuration's identity does not depend on while it has its default."""


def _is_pow2(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0


class ConfigError(ValueError):
    """A configuration that cannot be built; the message names the field and the reason."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of one LPU."""

    name: str
    lanes: int
    """L: weights (and activations) of one MXM column consumed in a cycle."""
    columns: int
    """P: MXM columns, each with its own weight SRAM."""
    vlanes: int
    """V: superlanes; each owns ``columns / vlanes`` MXM columns and one VXM lane."""
    accs: int
    """Accumulator sets a column can keep apart."""
    acc_bits: int
    weight_depth: int
    act_depth: int
    scale_depth: int
    coef_depth: int
    vector_depth: int
    queue_depth: int
    """36-bit words of instruction memory of each queue."""
    phase_depth: int
    context_max: int
    """Longest context the position counters can hold (a program may use less)."""
    vocab_max: int
    experts_max: int
    topk_max: int
    """Entries of the top-k unit: the largest k of sampling and of the router."""
    head_max: int = 256
    """Elements of the longest K or V vector (head size) that can be quantised."""
    square_lanes: int = BLOCK
    """Squares of the residual stream formed in a cycle, for its norm: a whole block, or down to a row of the VXM."""
    ecc: bool = False
    """Weight memories hold words of :mod:`hdl.ecc`: single errors are corrected, double errors end a run."""
    value_depth: int = 0
    """With ``ecc``: weight words, from address 0 on, that the V cache may lie in; 0: all. A value is one byte of its
    word, so the word is read, corrected, changed and written back through a second port that also reads. A block RAM of
    ECP5 has that at up to 18 bits, not at 36 (``fpga/ecp5.py``)."""
    expert_rows: int = dataclasses.field(default=1, metadata=OPTION)
    """Rows of T, which holds the chosen experts' logits."""
    sequences: int = dataclasses.field(default=2, metadata=OPTION)
    """Sequences that may be worked on in turn: tokens that the run state has."""
    byte_frames: bool = dataclasses.field(default=False, metadata=OPTION)
    """Frames to the host are picked byte by byte, not shifted out of a register as long as the longest."""
    row_quantiser: bool = dataclasses.field(default=False, metadata=OPTION)
    """Activations are quantised a row in a cycle, once their block is whole, not the block at once."""
    spare_multipliers: bool = dataclasses.field(default=False, metadata=OPTION)
    """Multipliers also for the vector ALU's functions and for squares: where blocks are left over."""
    phase_bank: bool = dataclasses.field(default=False, metadata=OPTION)
    """The table of phases in a bank, which block RAM may hold, instead of LUT RAM."""
    scalar_ram: bool = dataclasses.field(default=False, metadata=OPTION)
    """Scalar registers in LUT RAM, which takes one result a cycle: all operations of the scalar unit are as long."""
    int4: bool = dataclasses.field(default=True, metadata=OPTION)
    """Two int4 products in a multiplier; a column without has one sum, and all weights are int8."""
    noise: bool = dataclasses.field(default=True, metadata=OPTION)
    """Sampling with noise; a core without its generator takes the likeliest token."""
    time_bits: int = 12
    """Bits of an instruction's issue time, relative to its phase."""
    weight_bits: int = 4
    """Width the compiler uses for weights unless told otherwise; the hardware runs both 4 and 8."""
    clock_hz: float = 100e6
    """What a board of this configuration sets its clock to; without a board, the clock that rates are stated for."""

    def __post_init__(self) -> None:
        def need(ok: bool, field: str, reason: str) -> None:
            if not ok:
                raise ConfigError(f"config {self.name!r}: {field} = {getattr(self, field)}: {reason}")

        for field in ("lanes", "columns", "vlanes", "accs"):
            need(_is_pow2(getattr(self, field)), field, "must be a power of two (addresses are bit slices)")
        need(self.lanes % BLOCK == 0, "lanes", f"must be a multiple of the block of {BLOCK} elements")
        need(self.vlanes <= BLOCK, "vlanes", f"a row of the VXM must lie within one block of {BLOCK}")
        need(self.columns >= self.vlanes, "columns", "each superlane owns at least one column")
        need(self.accs >= 4, "accs", "two operations in flight need two accumulators each")
        need(
            _is_pow2(self.square_lanes) and self.vlanes <= self.square_lanes <= BLOCK, "square_lanes",
            f"must be a power of two from vlanes to the block of {BLOCK}: a block comes every {BLOCK} / vlanes cycles",
        )  # fmt: skip
        need(
            self.expert_rows >= 1 and self.vlanes * (self.expert_rows - 1) < MAX_EXPERTS_PER_TOKEN, "expert_rows",
            f"rows of T hold the logits of at most {MAX_EXPERTS_PER_TOKEN} experts",
        )  # fmt: skip
        need(self.acc_bits <= 46, "acc_bits", "accumulator times 17-bit scale must stay within 63 bits")
        need(self.weight_bits in (4, 8), "weight_bits", "weights are int4 or int8")
        need(self.weight_bits == 8 or self.int4, "weight_bits", "without int4, weights are int8")
        need(self.topk_max >= self.experts_per_token_max, "topk_max", "the router uses the same unit")
        need(self.sequences in (1, 2), "sequences", "the run state has one token or two")
        need(self.value_depth >= 0, "value_depth", "is a number of words")
        long_enough = self.head_max >= BLOCK and _is_pow2(self.head_max)
        need(long_enough, "head_max", f"must be a power of two of at least {BLOCK}")

    @property
    def experts_per_token_max(self) -> int:
        """Experts a token may choose: their logits are rows of the VXM, their addresses base registers."""
        return min(self.vlanes * self.expert_rows, MAX_EXPERTS_PER_TOKEN)

    @property
    def superlane_columns(self) -> int:
        """C: columns of one superlane."""
        return self.columns // self.vlanes

    @property
    def skew(self) -> int:
        """Cycles from a row's first superlane to its last: one for each."""
        return self.vlanes

    @property
    def blocks(self) -> int:
        """Blocks in an activation word."""
        return self.lanes // BLOCK

    @property
    def block_rows(self) -> int:
        """VXM rows that make one block."""
        return BLOCK // self.vlanes

    @property
    def word_rows(self) -> int:
        """VXM rows that make one activation word."""
        return self.lanes // self.vlanes

    @property
    def value_words(self) -> int:
        """Weight words, from address 0 on, that can hold values."""
        return min(self.value_depth, self.weight_depth) if self.ecc and self.value_depth else self.weight_depth

    @property
    def narrowest(self) -> int:
        """Bits of the narrowest weights that the columns take."""
        return 4 if self.int4 else 8

    def slots(self, width: int) -> int:
        """Result rows of one accumulator set, for weights of ``width`` bits."""
        return self.superlane_columns * (2 if width == 4 else 1)

    def outputs(self, width: int) -> int:
        """Output channels of one accumulator set, for weights of ``width`` bits."""
        return self.slots(width) * self.vlanes

    def macs_per_cycle(self, width: int) -> int:
        """Peak multiply-accumulates in a cycle, for weights of ``width`` bits."""
        return self.columns * self.lanes * (2 if width == 4 else 1)

    @property
    def act_word_bits(self) -> int:
        return self.lanes * ACT_BITS + self.blocks * ACT_EXP_BITS

    @property
    def token_bits(self) -> int:
        return max(1, (self.vocab_max - 1).bit_length())

    @property
    def position_bits(self) -> int:
        """Holds 0..context_max."""
        return self.context_max.bit_length()

    def hash(self) -> str:
        """Identifies the hardware an image was made for (the name and the stated clock do not matter)."""
        d = dataclasses.asdict(self)
        for key in ("name", "clock_hz", "weight_bits"):
            del d[key]
        for field in dataclasses.fields(self):
            if field.metadata.get("option") and d[field.name] == field.default:
                del d[field.name]
        return hashlib.sha256(json.dumps(d, sort_keys=True).encode()).hexdigest()[:16]


def address_bits(depth: int) -> int:
    """Bits of an address into ``depth`` words."""
    return max(1, (depth - 1).bit_length())


TINY = Config(
    name="tiny", lanes=8, columns=4, vlanes=4, accs=4, acc_bits=40,
    weight_depth=2048, act_depth=128, scale_depth=1024, coef_depth=512, vector_depth=128,
    queue_depth=512, phase_depth=32, context_max=64, vocab_max=512, experts_max=8, topk_max=4,
    ecc=True,
)  # fmt: skip

# Error correction fits this device (57,321 LUT4, no block RAM more) but not yet its clock: docs/fpga.md.
ULX3S_85F = Config(
    name="ulx3s-85f", lanes=8, columns=16, vlanes=4, accs=16, acc_bits=36,
    weight_depth=2560, act_depth=512, scale_depth=2048, coef_depth=2560, vector_depth=512,
    queue_depth=512, phase_depth=32, context_max=256, vocab_max=1024, experts_max=16, topk_max=8,
    value_depth=2048,
)  # fmt: skip

ULX3S_45F = Config(
    name="ulx3s-45f", lanes=8, columns=8, vlanes=2, accs=16, acc_bits=36,
    weight_depth=2048, act_depth=512, scale_depth=2560, coef_depth=1024, vector_depth=512,
    queue_depth=512, phase_depth=32, context_max=256, vocab_max=1024, experts_max=8, topk_max=4,
    head_max=64, clock_hz=75e6,
)  # fmt: skip

ULX3S_25F = Config(
    name="ulx3s-25f", lanes=8, columns=2, vlanes=2, accs=16, acc_bits=36,
    weight_depth=3072, act_depth=512, scale_depth=1024, coef_depth=1024, vector_depth=512,
    queue_depth=512, phase_depth=32, context_max=128, vocab_max=512, experts_max=8, topk_max=3,
    head_max=64, square_lanes=2, clock_hz=75e6,
)  # fmt: skip

# Every option that saves logic, in memories that a simulation fills quickly.
LEAN = Config(
    name="lean", lanes=8, columns=1, vlanes=1, accs=16, acc_bits=36,
    weight_depth=4096, act_depth=128, scale_depth=2048, coef_depth=1024, vector_depth=256,
    queue_depth=512, phase_depth=64, context_max=64, vocab_max=512, experts_max=8, topk_max=3,
    head_max=64, square_lanes=1, expert_rows=2, sequences=1, byte_frames=True, row_quantiser=True,
    spare_multipliers=True, phase_bank=True, scalar_ram=True, int4=False, noise=False, weight_bits=8,
)  # fmt: skip

# As small as the options make it; its memories hold names-4k, and a few words more.
ULX3S_12F = Config(
    name="ulx3s-12f", lanes=8, columns=1, vlanes=1, accs=16, acc_bits=36,
    weight_depth=1024, act_depth=32, scale_depth=512, coef_depth=256, vector_depth=128,
    queue_depth=128, phase_depth=32, time_bits=10, context_max=32, vocab_max=32, experts_max=4, topk_max=2,
    head_max=8, square_lanes=1, expert_rows=2, sequences=1, byte_frames=True, row_quantiser=True,
    spare_multipliers=True, phase_bank=True, scalar_ram=True, int4=False, noise=False, weight_bits=8, clock_hz=50e6,
)  # fmt: skip

# No error correction: nothing upsets a simulator's arrays, and its memories are what a simulation of this size is
# made of.
LARGE = Config(
    name="large", lanes=32, columns=32, vlanes=8, accs=16, acc_bits=46,
    weight_depth=1 << 21, act_depth=4096, scale_depth=1 << 16, coef_depth=1 << 16, vector_depth=1 << 14,
    queue_depth=4096, phase_depth=256, context_max=4096, vocab_max=65536, experts_max=64, topk_max=16,
    time_bits=20, weight_bits=8,
)  # fmt: skip

CONFIGS = {c.name: c for c in (TINY, LEAN, ULX3S_12F, ULX3S_25F, ULX3S_45F, ULX3S_85F, LARGE)}


def get_config(name: str) -> Config:
    """Named config; an unknown name lists the known ones."""
    try:
        return CONFIGS[name]
    except KeyError:
        raise ConfigError(f"unknown config {name!r}; known: {', '.join(CONFIGS)}") from None
