"""Quantised model -> memory contents: weights into columns, scales and tables into rows, program, parameters."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from hdl.config import Config
from hdl.image import Param, Space, row_bytes
from hdl.isa import IsaError, Program, Queue, Width, encode_phase, get_isa, tail_address
from sim.qmodel import QLinear, QModel

from .errors import LpuError
from .layout import Layout, Matrix
from .program import K_LM, build_program


@dataclasses.dataclass(frozen=True)
class Section:
    """Rows for one bank of one memory: consecutive rows from ``address`` on."""

    space: Space
    sub: int
    address: int
    rows: NDArray[np.uint8]
    """uint8 [bytes]."""

    @property
    def data(self) -> bytes:
        """A copy of the rows."""
        return self.rows.tobytes()


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A model compiled for a configuration."""

    cfg: Config
    layout: Layout
    program: Program
    sections: tuple[Section, ...]
    floor: int
    """Least n of the loop counts (see :func:`firmware.program.build_program`)."""


def lower(model: QModel, cfg: Config, sequences: int = 1) -> Compiled:
    """Lay out, schedule and pack. Raises :class:`firmware.errors.LpuError` when something does not fit."""
    layout = Layout(model, cfg, sequences=sequences)
    program, floor = build_program(layout)
    try:
        code = pack_program(cfg, program)
    except IsaError as error:
        raise LpuError(f"the program cannot be encoded for config {cfg.name}: {error}") from None
    memory = _Memory(layout)
    sections = [
        *memory.weight_sections(),
        *_table(cfg, Space.SCALE, memory.scale.astype("<u2")),
        *_table(cfg, Space.COEF, memory.coef.astype("<i2")),
        *code,
        _params(layout, floor),
        _constants(model),
    ]
    return Compiled(cfg, layout, program, tuple(sections), floor)


class _Memory:
    """Images of the weight, scale and coefficient memories."""

    def __init__(self, layout: Layout):
        self.layout = lay = layout
        self.cfg = cfg = layout.cfg
        model, s = layout.model, layout.model.shape
        v = cfg.vlanes
        needs = {n.memory: n.needed for n in layout.needs}
        self.weight = np.zeros((cfg.columns, needs["weight words per column"], cfg.lanes), np.uint8)
        self.scale = np.zeros((needs["scale rows"], v), np.int64)
        self.coef = np.zeros((needs["coefficient rows"], v), np.int64)
        for i, layer in enumerate(model.layers):
            w, sc = i * lay.layer_w, i * lay.layer_s
            pairs = _pair_order(s.head_dim)
            x_in = (s.d,)
            self._matrix(lay.v, _heads(layer.v, s.kv_heads, s.head_dim, lay.head_rows * v), x_in, w, sc)
            self._matrix(lay.k, _heads(layer.k, s.kv_heads, s.head_dim, lay.head_rows * v, pairs), x_in, w, sc)
            self._matrix(lay.q, _heads(layer.q, s.heads, s.head_dim, lay.head_rows * v, pairs), x_in, w, sc)
            self._matrix(lay.o, _rows(layer.o), (s.head_dim,) * s.heads, w, sc)
            if lay.router is not None and layer.router is not None:
                self._matrix(lay.router, _rows(layer.router), x_in, w, sc)
            for e in range(s.experts):
                we, se = w + e * lay.expert_w, sc + e * lay.expert_s
                self._matrix(lay.gate_up, _gate_up(layer.gate[e], layer.up[e], v), x_in, we, se)
                self._matrix(lay.down, _rows(layer.down[e]), (s.ffn,), we, se)
        self._matrix(lay.embed, _rows(model.embed), (s.d,), 0, 0)
        if lay.lm_head is not lay.embed:
            self._matrix(lay.lm_head, _rows(model.lm_head), (s.d,), 0, 0)
        self.scale[lay.ones_s] = 1 << 15
        self._coefficients()

    def _matrix(self, m: Matrix, rows: tuple[np.ndarray, np.ndarray], parts: tuple[int, ...], w: int, s: int) -> None:
        """Place a matrix: output channels ``rows`` (weights, scl), input split into parts padded to whole words."""
        cfg = self.cfg
        weights, scl = rows
        v, lanes = cfg.vlanes, cfg.lanes
        padded = np.zeros((m.sets * m.slots * v, m.words * lanes), np.int8)
        at = read = 0
        for size in parts:
            padded[: len(weights), at : at + size] = weights[:, read : read + size]
            read += size
            at += -(-size // lanes) * lanes
        # [set, slot, superlane, word, lane] -> [superlane, column, set, word, lane]
        grid = padded.reshape(m.sets, m.slots, v, m.words, lanes)
        if m.width == 4:
            grid = grid.reshape(m.sets, m.slots // 2, 2, v, m.words, lanes)
            grid = (grid[:, :, 0] & 15) | (grid[:, :, 1] & 15) << 4
        # A view of the columns' words, so that the bytes move once.
        place = self.weight[:, w + m.w : w + m.w + m.weight_words]
        shape = (v, cfg.superlane_columns, m.sets, m.words, lanes)
        place.reshape(shape)[...] = grid.transpose(2, 1, 0, 3, 4).view(np.uint8)
        padded_scl = np.zeros(m.rows * v, np.int64)
        padded_scl[: len(scl)] = scl
        self.scale[s + m.s : s + m.s + m.rows] = padded_scl.reshape(m.rows, v)

    def _coefficients(self) -> None:
        lay, model, s = self.layout, self.layout.model, self.layout.model.shape
        v = self.cfg.vlanes
        rope = np.zeros((s.context, lay.head_rows * v), np.int64)
        rope[:, : s.head_dim] = model.rope.reshape(s.context, s.head_dim)
        self.coef[lay.rope_c : lay.rope_c + s.context * lay.head_rows] = rope.reshape(-1, v)
        if model.final_gain is not None:
            gain = np.zeros(lay.d_rows * v, np.int64)
            gain[: s.d] = model.final_gain
            self.coef[lay.gain_c : lay.gain_c + lay.d_rows] = gain.reshape(-1, v)

    def weight_sections(self) -> list[Section]:
        return [Section(Space.WEIGHT, c, 0, self.weight[c].reshape(-1)) for c in range(self.cfg.columns)]


def _rows(linear: QLinear) -> tuple[np.ndarray, np.ndarray]:
    return linear.weight, linear.scl


def _pair_order(head_dim: int) -> np.ndarray:
    """Half-split order -> RoPE pairs (i, i + head_dim / 2) side by side."""
    return np.arange(head_dim).reshape(2, -1).T.reshape(-1)


def _heads(
    linear: QLinear, heads: int, head_dim: int, padded: int, order: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a projection head by head, each head padded to whole VXM rows."""
    order = np.arange(head_dim) if order is None else order
    weights = np.zeros((heads, padded, linear.weight.shape[1]), np.int8)
    scl = np.zeros((heads, padded), np.int64)
    weights[:, :head_dim] = linear.weight.reshape(heads, head_dim, -1)[:, order]
    scl[:, :head_dim] = linear.scl.reshape(heads, head_dim)[:, order]
    return weights.reshape(heads * padded, -1), scl.reshape(-1)


def _gate_up(gate: QLinear, up: QLinear, v: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of gate and up in turn, a VXM row of each: what SILU takes as a pair."""
    f, d = gate.weight.shape
    rows = -(-f // v)
    weights, scl = np.zeros((rows, 2, v, d), np.int8), np.zeros((rows, 2, v), np.int64)
    for j, linear in enumerate((gate, up)):
        padded = np.zeros((rows * v, d), np.int8)
        padded[:f] = linear.weight
        weights[:, j] = padded.reshape(rows, v, d)
        flat = np.zeros(rows * v, np.int64)
        flat[:f] = linear.scl
        scl[:, j] = flat.reshape(rows, v)
    return weights.reshape(-1, d), scl.reshape(-1)


def _section(space: Space, sub: int, address: int, data: bytes) -> Section:
    return Section(space, sub, address, np.frombuffer(data, np.uint8))


def _table(cfg: Config, space: Space, rows: np.ndarray) -> list[Section]:
    return [_section(space, 0, 0, rows.tobytes())]


def pack_program(cfg: Config, program: Program) -> list[Section]:
    """Words of each queue that has instructions, and the phase table."""
    isa = get_isa(cfg)
    size = row_bytes(cfg, Space.PROGRAM)
    out = []
    for q in Queue:
        for at, code in zip((0, tail_address(cfg)), program.parts(q), strict=True):
            words = [w for ins in code for w in isa.words(ins)]
            if words:
                out.append(_section(Space.PROGRAM, int(q), at, b"".join(w.to_bytes(size, "little") for w in words)))
    size = row_bytes(cfg, Space.PHASE)
    phases = b"".join(encode_phase(p).to_bytes(size, "little") for p in program.phases)
    return [*out, _section(Space.PHASE, 0, 0, phases)]


def _params(layout: Layout, floor: int) -> Section:
    """The image's group of parameters as one section (:class:`hdl.image.Param` 0 up)."""
    model, s = layout.model, layout.model.shape
    values = {
        Param.LAYERS: s.layers,
        Param.LAYER_W: layout.layer_w,
        Param.LAYER_S: layout.layer_s,
        Param.LAYER_C: layout.layer_c,
        Param.EXPERT_W: layout.expert_w,
        Param.EXPERT_S: layout.expert_s,
        Param.TOKEN_WORDS: layout.embed.words,
        Param.EMBED_WIDTH: int(Width.INT4 if model.embed.width == 4 else Width.INT8),
        Param.KEY_WORDS: layout.head_words,
        Param.ROPE_ROWS: layout.head_rows,
        Param.WINDOW: s.window,
        Param.CONTEXT: s.context,
        Param.VOCAB: s.vocab,
        Param.EPS: model.eps,
        Param.FLOOR: floor,
        Param.SEQUENCES: len(layout.sequences),
    }
    rows = [values.get(Param(i), 0) if i in set(Param) else 0 for i in range(max(values) + 1)]
    return _section(Space.PARAM, 0, 0, b"".join(v.to_bytes(8, "little") for v in rows))


def _constants(model: QModel) -> Section:
    mant, exp = model.lm_scalar
    return _section(Space.CONST, 0, K_LM, mant.to_bytes(2, "little") + exp.to_bytes(1, "little", signed=True))
