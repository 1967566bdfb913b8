"""What is loaded into an LPU: memory spaces, parameters, and the load bus that carries rows to them."""

from __future__ import annotations

import enum

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from .config import SCALE_BITS, Config
from .isa import FETCH_BITS, PHASE_BITS


class Space(enum.IntEnum):
    """Memories the host can load, row by row. ``sub`` picks a bank within a space."""

    WEIGHT = 0
    """sub = MXM column; a row is ``lanes`` bytes (int4: output 2i in the low, 2i + 1 in the high nibbles)."""
    SCALE = 1
    """``vlanes`` unsigned 16-bit words."""
    COEF = 2
    """``vlanes`` signed 16-bit words."""
    PROGRAM = 3
    """sub = queue; a row is one 36-bit instruction-memory word."""
    PHASE = 4
    """Sequencer table; a row is one encoded phase. Row 0 comes first: with it the sequencer forgets the last tail."""
    PROMPT = 5
    """Token ids of the prompt, one a row; the second sequence's in the upper 16 bits."""
    PARAM = 6
    """addr = :class:`Param`; a row is one 64-bit value."""
    CONST = 7
    """Scalar constants K: mantissa (16 bit), exponent (8 bit signed)."""


class Param(enum.IntEnum):
    """Registers written through :attr:`Space.PARAM`. The image sets the first group, the host the second."""

    LAYERS = 0
    LAYER_W = 1
    """Weight words from one layer to the next; _S: scale rows, _C: coefficient rows."""
    LAYER_S = 2
    LAYER_C = 3
    EXPERT_W = 4
    """Weight words from one expert to the next; _S: scale rows."""
    EXPERT_S = 5
    TOKEN_WORDS = 6
    """Weight words of one accumulator set of the embedding."""
    EMBED_WIDTH = 7
    """Width of the embedding's weights (:class:`hdl.isa.Width`)."""
    KEY_WORDS = 8
    """Weight words of one key (of one set of ``columns`` keys)."""
    ROPE_ROWS = 9
    """Coefficient rows of one position."""
    WINDOW = 10
    """Keys the cache keeps: slot = position modulo this."""
    CONTEXT = 11
    """Positions the program may reach; at this position generation stops with CONTEXT."""
    VOCAB = 12
    EPS = 13
    """Added to SUMSQ before the reciprocal square root."""

    FLOOR = 14
    """Loop counts follow max(n, this)."""
    SEQUENCES = 15
    """Sequences that the program works on: 2, or else one."""
    IMAGE = 16
    """Identity of what is loaded, told in INFO; 0: nothing whole. Kept by the host link, and loaded last."""

    PROMPT_LEN = 17
    """Tokens in PROMPT; at least one."""
    LIMIT = 18
    """Tokens to generate at most, of each sequence."""
    SEED = 19
    TOPK = 20
    """Candidates of sampling (1: greedy or full-vocabulary Gumbel-max)."""
    NOISE = 21
    """0: none. 1: noise of its rank picks among the TOPK best logits. 2: noise of its id is part of the key."""
    STOP0 = 22
    """Stop ids; a value with bit 31 set is unused."""
    STOP1 = 23
    CLEAR = 24
    """1: the next start begins at position 0; 0: it continues behind the cached context (after a reset: at
    position 0; behind a full one the run ends with CONTEXT before its first token)."""
    PROMPT_LEN1 = 25
    """Of the second sequence, likewise its seed."""
    SEED1 = 26


class Reason(enum.IntEnum):
    """Why a run ended; of two sequences, the one that ended last."""

    STOP_TOKEN = 0
    LIMIT = 1
    CONTEXT = 2
    ABORT = 3
    MEMORY = 4
    """A weight word with an error that cannot be corrected was used. The token in work is not told."""


PROMPT_BITS = 16
"""Bits of a sequence's token id in a row of :attr:`Space.PROMPT`."""
REASON_BITS = max(Reason).bit_length()


def row_bytes(cfg: Config, space: Space) -> int:
    """Bytes of one row of a space, little endian, on the link and in the image file."""
    return {
        Space.WEIGHT: cfg.lanes,
        Space.SCALE: cfg.vlanes * SCALE_BITS // 8,
        Space.COEF: cfg.vlanes * SCALE_BITS // 8,
        Space.PROGRAM: -(-FETCH_BITS // 8),
        Space.PHASE: -(-PHASE_BITS // 8),
        Space.PROMPT: 4,
        Space.PARAM: 8,
        Space.CONST: 3,
    }[space]


def load_bits(cfg: Config) -> int:
    """Width of the load bus: the widest row."""
    return max(row_bytes(cfg, s) for s in Space) * 8


class LoadBus(wiring.Signature):
    """One row write in a cycle with ``valid``; only used while no token is in work."""

    def __init__(self, cfg: Config):
        self.cfg = cfg
        super().__init__({
            "valid": Out(1),
            "space": Out(4),
            "sub": Out(8),
            "addr": Out(24),
            "data": Out(load_bits(cfg)),
        })  # fmt: skip


def drive_load(m: Module, source: wiring.PureInterface, sink: wiring.PureInterface) -> None:
    """One load bus onto another: it has many listeners, so that ``wiring.connect`` does not apply."""
    m.d.comb += [getattr(sink, name).eq(getattr(source, name)) for name in source.signature.members]


def relay_load(m: Module, source: wiring.PureInterface, sink: wiring.PureInterface) -> None:
    """Likewise, with a register on the way: listeners lie all over the die, and loading has time."""
    m.d.sync += [getattr(sink, name).eq(getattr(source, name)) for name in source.signature.members]


def error_bits(cfg: Config) -> int:
    """Bits of a count of words with errors in one cycle: a read of all columns, a change in each superlane."""
    return (cfg.columns + cfg.vlanes).bit_length()


class RunControl(wiring.Signature):
    """Host side to ICU (``Out`` members are driven by the host side).

    ``start``: pulse, begins a run with the parameters loaded; ``abort``: pulse, ends it after the token in
    work. From the ICU: ``busy``; ``record``: pulse once for every token processed, with ``token`` (the id
    sampled; meaningless when ``sampled`` is low, i.e. a prompt token but the last) and ``cycles`` it took, but
    not for one that a memory error ends; ``done``: pulse with ``reason``. Of two sequences each token is two
    records, one after the other; ``sampled`` stays low behind the end of one of them.
    """

    def __init__(self, cfg: Config):
        super().__init__({
            "start": Out(1),
            "abort": Out(1),
            "busy": wiring.In(1),
            "record": wiring.In(1),
            "sampled": wiring.In(1),
            "token": wiring.In(cfg.token_bits),
            "cycles": wiring.In(32),
            "done": wiring.In(1),
            "reason": wiring.In(REASON_BITS),
        })  # fmt: skip
