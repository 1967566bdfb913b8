"""Where everything lies in the LPU's memories: addresses of a quantised model on a configuration.

Result rows. An accumulator set holds ``slots(width)`` rows of ``vlanes`` outputs. Row r of a matrix is row
r % slots of set r // slots; its lane v is column ``v * C + slot // halves`` of the tile. So the outputs of
a matrix leave the MXM in memory order, one row a cycle.
"""

from __future__ import annotations

import dataclasses

from hdl.config import SOFTMAX_BANKS, Config
from hdl.icu.params import param_bits
from hdl.image import Param
from hdl.isa import Width
from hdl.timing import get_timing
from sim.qmodel import QModel

from .errors import LpuError
from .limits import check_shape, check_width

LAYERS = "layers"
"""The need that the parameter's register limits, not a memory."""
HEADS_IN_WORK = 3
"""Heads whose scores or probabilities are kept at once: buffers for them, banks of MAX and SUM."""
assert HEADS_IN_WORK <= SOFTMAX_BANKS
SEQUENCES_MAX = 2
"""Sequences that may be worked on in turn: tokens that the run state has."""


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


@dataclasses.dataclass(frozen=True)
class Matrix:
    """A weight matrix in the MXM: ``rows`` result rows, ``words`` activation words of input."""

    name: str
    width: int
    rows: int
    words: int
    w: int
    """Weight address (relative to its base register)."""
    s: int
    """Scale row (relative to its base register)."""
    sets: int
    slots: int
    accs: int
    """Accumulator sets that the columns can keep apart."""
    step: int = 1
    """The pitch is a multiple of this."""

    @property
    def weight_words(self) -> int:
        return self.sets * self.words

    @property
    def pitch(self) -> int:
        """Cycles between result rows: one where all sets can wait for the drain, which then ends as soon as it can;
        else as many as the MXM needs for a row, so that neither overtakes the other."""
        least = 1 if self.sets <= self.accs else ceil_div(self.words, self.slots)
        return ceil_div(least, self.step) * self.step

    @property
    def period(self) -> int:
        """Cycles between sets in the MXM."""
        return self.words if self.sets <= self.accs else self.slots * self.pitch

    @property
    def isa_width(self) -> Width:
        return Width.INT4 if self.width == 4 else Width.INT8


@dataclasses.dataclass(frozen=True)
class Places:
    """Where what belongs to one sequence lies: its cache (relative to the layer's bases) and its vectors."""

    value_w: int
    """V cache, transposed as an int8 matrix over keys; _c: its scales, coefficient rows."""
    value_c: int
    key_w: int
    """K cache, an int8 matrix over head_dim; _s: its scales, scale rows."""
    key_s: int
    x: int
    """Residual stream, vector rows; the others are activation words."""
    x_act: int
    q_act: int
    attn_act: int
    h_act: tuple[int, ...]
    """By chosen expert."""


class _Region:
    """Bump allocator of one memory."""

    def __init__(self) -> None:
        self.used = 0

    def take(self, size: int) -> int:
        at = self.used
        self.used += size
        return at


@dataclasses.dataclass(frozen=True)
class Need:
    """Words a model needs of one memory, and what there is."""

    memory: str
    needed: int
    available: int

    def __str__(self) -> str:
        mark = "  <- too small" if self.needed > self.available else ""
        return f"  {self.memory:26} needs {self.needed:>9}  has {self.available:>9}{mark}"


class Layout:
    """Addresses of every tensor. Raises :class:`LpuError` with a table when a memory is too small.

    ``whole``: the configuration has to hold the model; else it may be one chip of several (:mod:`firmware.plan`).
    ``sequences``: that are worked on in turn, each with a cache of its own.
    """

    def __init__(self, model: QModel, cfg: Config, whole: bool = True, sequences: int = 1):
        self.model, self.cfg = model, cfg
        s, each = model.shape, range(sequences)
        check_shape(s, cfg)
        if not 1 <= sequences <= cfg.sequences:
            raise LpuError(f"{sequences} sequences: config {cfg.name} works on 1..{cfg.sequences}")
        v, lanes = cfg.vlanes, cfg.lanes
        self.head_rows = ceil_div(s.head_dim, v)
        self.head_words = ceil_div(s.head_dim, lanes)
        self.d_rows, self.d_words = ceil_div(s.d, v), ceil_div(s.d, lanes)
        self.f_rows, self.f_words = ceil_div(s.ffn, v), ceil_div(s.ffn, lanes)
        self.q_rows = s.heads * self.head_rows
        self.kv_rows = s.kv_heads * self.head_rows
        self.attn_words = s.heads * self.head_words
        self.cache_rows = ceil_div(s.window, v)
        self.cache_words = ceil_div(s.window, lanes)

        weight, scale = _Region(), _Region()
        # The V cache lies first in a layer: not every word of the memory may hold values.
        self.value_sets = ceil_div(self.head_rows, cfg.slots(8))
        self.value_head_w = self.value_sets * self.cache_words
        value_w = [weight.take(s.kv_heads * self.value_head_w) for _ in each]

        def matrix(name: str, width: int, rows: int, words: int, step: int = 1) -> Matrix:
            check_width(width, cfg)
            slots = cfg.slots(width)
            sets = ceil_div(rows, slots)
            at = weight.take(sets * words), scale.take(rows)
            return Matrix(name, width, rows, words, *at, sets, slots, cfg.accs, step)

        layer = model.layers[0]
        # Vectors of V that follow each other begin an even number of cycles apart, and no faster than their rows leave
        # (``Timing.value_pace``).
        even = cfg.ecc and s.kv_heads > 1 and (self.head_rows % 2 or get_timing(cfg).value_pace == 2)
        self.v = matrix("v", layer.v.width, self.kv_rows, self.d_words, 2 if even else 1)
        self.k = matrix("k", layer.k.width, self.kv_rows, self.d_words)
        self.q = matrix("q", layer.q.width, self.q_rows, self.d_words)
        self.o = matrix("o", layer.o.width, self.d_rows, self.attn_words)
        self.router = None
        if layer.router is not None:
            self.router = matrix("router", layer.router.width, ceil_div(s.experts, v), self.d_words)
        w0, s0 = weight.used, scale.used
        self.gate_up = matrix("gate, up", layer.gate[0].width, 2 * self.f_rows, self.d_words)
        self.down = matrix("down", layer.down[0].width, self.d_rows, self.f_words)
        self.expert_w, self.expert_s = weight.used - w0, scale.used - s0
        weight.take((s.experts - 1) * self.expert_w)
        scale.take((s.experts - 1) * self.expert_s)

        self.key_sets = ceil_div(s.window, cfg.columns)
        self.key_head_w = self.key_sets * self.head_words
        key_w = [weight.take(s.kv_heads * self.key_head_w) for _ in each]
        # A drain reads whole sets: not what another sequence is about to write.
        beyond = max(0, self.key_sets * cfg.slots(8) - self.cache_rows)
        key_s = [scale.take(s.kv_heads * self.cache_rows + beyond * (sequences > 1)) for _ in each]
        coef = _Region()
        value_c = [coef.take(s.kv_heads * self.cache_rows) for _ in each]
        self.layer_w, self.layer_s, self.layer_c = weight.used, scale.used, coef.used

        for region in (weight, scale, coef):
            region.take((s.layers - 1) * region.used)
        values_end = weight.used - self.layer_w + sequences * s.kv_heads * self.value_head_w
        v_rows = ceil_div(s.vocab, v)
        self.embed = matrix("embedding", model.embed.width, v_rows, self.d_words)
        self.lm_head = self.embed if model.tied else matrix("lm head", model.lm_head.width, v_rows, self.d_words)
        self.ones_s = scale.take(1)
        scale.take(max(cfg.slots(cfg.narrowest), beyond))
        self.rope_c = coef.take(s.context * self.head_rows)
        self.gain_c = coef.take(self.d_rows)

        vector, act = _Region(), _Region()
        x = [vector.take(self.d_words * cfg.word_rows) for _ in each]
        self.score_rows = self.key_sets * cfg.slots(8)
        self.scores = [vector.take(self.score_rows) for _ in range(HEADS_IN_WORK)]
        x_act = [act.take(self.d_words) for _ in each]
        q_act = [act.take(self.attn_words) for _ in each]
        self.prob_act = [act.take(self.cache_words) for _ in range(HEADS_IN_WORK)]
        attn_act = [act.take(self.attn_words) for _ in each]
        h_act = [tuple(act.take(self.f_words) for _ in range(s.top_k)) for _ in each]
        self.sequences = tuple(map(Places, value_w, value_c, key_w, key_s, x, x_act, q_act, attn_act, h_act))

        self.needs = [
            Need("weight words per column", weight.used, cfg.weight_depth),
            Need("weight words up to the V cache", values_end, cfg.value_words),
            Need("scale rows", scale.used, cfg.scale_depth),
            Need("coefficient rows", coef.used, cfg.coef_depth),
            Need("vector rows", vector.used, cfg.vector_depth),
            Need("activation words", act.used, cfg.act_depth),
            Need("positions", sequences * s.context, cfg.context_max),
            Need("vocabulary", s.vocab, cfg.vocab_max),
            Need("experts", s.experts, cfg.experts_max),
            Need(LAYERS, s.layers, (1 << param_bits(cfg)[Param.LAYERS]) - 1),
        ]
        if whole and any(n.needed > n.available for n in self.needs):
            raise LpuError("\n".join([f"the model does not fit config {cfg.name}:", *map(str, self.needs)]))
