"""The token program: a quantised model's computation as instructions, phase by phase, top to bottom.

Reads in the order of the computation: embedding, layer loop (attention, experts), LM head, sampling. Each
``_product`` is one chained pass behind the MXM: accumulators -> dequantise -> vector ALU -> quantise / write,
a row a cycle, without a trip through memory between the steps.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from hdl.config import Config
from hdl.isa import (
    EXPERT_BASES,
    AbcOp,
    AccSource,
    Base,
    Count,
    Init,
    Program,
    Queue,
    SfuOp,
    Source,
    SxmMode,
    TopOp,
    VxOp,
    Width,
)
from sim.qmodel import QModel

from .layout import HEADS_IN_WORK, Layout, Matrix, ceil_div
from .limits import word_sets
from .schedule import Scheduler, Slot, Times

R_NORM, R_HEAD = 1, 2
R_EXPERT = R_LM = R_HEAD + HEADS_IN_WORK
"""Scalar registers: 1/rms; 1/sum of heads in turn; router weights; the LM head's, behind the layers."""
K_TEMPERATURE, K_LM = 1, 2
"""Scalar constants: 1/T (host), the LM head's (image)."""
AHEAD_MAX = 12
"""Words of x that the first product of a layer may read before the last one is there. More would save cycles in wide
layers, but a token's embedding waits for the same units."""


@dataclasses.dataclass(frozen=True)
class ValuePart:
    """Part of a head's P V: accumulator sets first..first + sets, which make ``rows`` result rows."""

    first: int
    sets: int
    rows: int


@dataclasses.dataclass
class _Heads:
    """Times of the heads of a layer, by head."""

    top: dict[int, Times] = dataclasses.field(default_factory=dict)
    """When scores and MAX may be used."""
    exp: dict[int, Times] = dataclasses.field(default_factory=dict)
    """First row of the softmax in the VXM."""
    recip: dict[int, Times] = dataclasses.field(default_factory=dict)
    """When 1 / SUM is formed."""
    values: dict[tuple[int, int], tuple[Times, list[int]]] = dataclasses.field(default_factory=dict)
    """By head and first set of a part: first micro-op of P V, and its accumulator sets."""
    drained: dict[int, Times] = dataclasses.field(default_factory=dict)
    """Last row of a part of the result that is read."""


class TokenProgram:
    """Builds the program of one model on one configuration.

    ``floor``: least n of the loop counts. ``lag``: heads that a softmax is behind the scores. ``wait``: heads that a
    drained result is behind its P V.
    """

    def __init__(self, layout: Layout, floor: int, lag: int = 1, wait: int = 1):
        self.layout = layout
        self.lag, self.wait = lag, wait
        self.cfg: Config = layout.cfg
        self.model: QModel = layout.model
        keys = np.arange(1, self.model.shape.window + 1)
        self.sched = Scheduler(self.cfg, np.maximum(keys, floor))
        self.t = self.sched.timing
        self._acc = 0
        self._acc_read: list[Times] = []
        """Last cycle in which a drain reads each set."""
        self._jump_target()

    def build(self) -> Program:
        """The whole token."""
        x_ready = self._embed()
        x_ready = self._boundary("embed", x_ready)
        x_ready = self._attention(x_ready)
        x_ready = self._experts(x_ready)
        x_ready = self._boundary("experts", x_ready, loop_end=1, prompt_final=1)
        self._head(x_ready)
        return self.sched.program()

    # Pieces -------------------------------------------------------------------------------------------

    def _product(
        self, m: Matrix, act: int, base: Base, words_ready: Times, scalar: int, shift: int, chain: list[Slot],
        *after: Times, note: str,
    ) -> Times:  # fmt: skip
        """Output-major product and its drain, with the slots of ``chain`` (offsets from row 0 on stream Y).

        ``words_ready``: when the last activation word can be read; ``after``: row 0 is on Y no sooner. Returns
        the time of row 0 on Y; the others follow ``m.pitch`` apart. The last set is drained to its end: rows
        behind the matrix's last go nowhere.
        """
        t, accs = self.t, self.cfg.accs
        first, self._acc = self._acc, (self._acc + m.sets) % accs
        drained = min(m.rows, m.slots)  # rows of a set
        period = m.period
        dot = {
            "op": AbcOp.DOT, "width": m.isa_width, "init": Init.INNER, "n1": m.words, "n2": m.sets, "d2": period,
            "w": m.w, "w_sel": base, "w_s1": 1, "w_s2": m.words, "a": act, "a_s1": 1, "acc": first, "acc_s2": 1,
        }  # fmt: skip
        loops = {"n1": drained, "d1": m.pitch, "n2": m.sets, "d2": m.slots * m.pitch}
        acc = {
            "width": m.isa_width, "scalar": scalar, "shift": shift, "acc": first, "acc_s2": 1, "slot_s1": 1, **loops,
        }  # fmt: skip
        scales = {"s": m.s, "s_sel": base, "s_s1": 1, "s_s2": m.slots, **loops}
        drain = [Slot(Queue.SR, -t.mem_read, scales, note), Slot(Queue.ACC, 0, acc, note)]
        drain += [Slot(s.queue, s.offset + t.acc, s.fields, note) for s in chain]
        after = tuple(a - t.acc for a in after)
        # The first sum of a set may not be written before the set's last drain has read it.
        free = [self._acc_read[(first + i) % accs] + 1 - t.dot - i * period for i in range(min(m.sets, accs))]
        if m.sets > accs:
            lead = accs * period + t.dot - (m.slots - 1) * m.pitch - 1
            free.append(self.sched.earliest(drain, *after) - lead)
        start = self.sched.place([Slot(Queue.ABC, 0, dot, note)], words_ready - (m.words - 1), *free)
        # A drain that is faster than the MXM begins so late that the last set is done when its turn comes.
        behind = max(0, (m.sets - 1) * (period - m.slots * m.pitch))
        row = self.sched.place(drain, start + behind + m.words - 1 + t.dot, *after)
        for i in range(m.sets):
            self._acc_read[(first + i) % accs] = row + (i * m.slots + drained - 1) * m.pitch
        return row + t.acc

    def _act(self, source: Source, rows: int, pitch: int, dst: int, shift: int, sumsq: int = 0) -> dict[str, int]:
        """SXM fields of one plain vector."""
        loop = {"n1": rows, "d1": pitch}
        return {"op": SxmMode.ACT, "source": source, "dst": dst, "shift": shift, "sumsq": sumsq, **loop}

    def _residual_chain(self, m: Matrix, final: bool) -> list[Slot]:
        """x += Y, the rows of ``m``; with ``final`` also quantise the new x and sum its squares."""
        t, lay = self.t, self.layout
        z = t.vx(VxOp.ADD)
        rows = {"n1": m.rows, "d1": m.pitch}
        chain = [
            Slot(Queue.XR, -t.mem_read, {"x": lay.x, "x_s1": 1, **rows}),
            Slot(Queue.VX, 0, {"op": VxOp.ADD, "source": Source.Y, **rows}),
            Slot(Queue.XW, z, {"source": Source.Z, "x": lay.x, "x_s1": 1, **rows}),
        ]
        if final:
            act = self._act(Source.Z, m.rows, m.pitch, lay.x_act, self.model.shifts.x_act, 1)
            chain.append(Slot(Queue.SXM, z, act))
        return chain

    def _norm(self, x_ready: Times, note: str) -> Times:
        """R_NORM from SUMSQ, given when the last word of x can be read; returns when an ACC may use it."""
        last_row = x_ready - self.t.sxm_act
        fields = {"op": SfuOp.RSQRT, "dst": R_NORM}
        return self.sched.place([Slot(Queue.SFU, 0, fields, note)], last_row + self.t.sxm_sumsq) + self.t.sfu_rsqrt

    def _boundary(self, note: str, x_ready: Times, loop_end: int = 0, prompt_final: int = 0) -> Times:
        """Close a phase before a jump target: what comes next may count on the same state each time.

        Behind the boundary x is ready at a fixed cycle, whichever way the boundary was reached.
        """
        until = [x_ready - self._x_behind, *self._settled()]
        if prompt_final and self.layout.cfg.ecc:
            # An error in the last words that are read is still this token's.
            until.append(self.sched.last[Queue.ABC] + self.t.issue + self.t.memory_error + 1)
        self.sched.close(note, *until, loop_end=loop_end, prompt_final=prompt_final)
        self._jump_target()
        return self.sched.start + self._x_behind

    @property
    def _x_behind(self) -> int:
        """Cycles from a jump to when the last word of x can be read: the MXM begins with the first one at once."""
        return self.sched.fetch_gap(Queue.ABC) + min(self.layout.d_words, AHEAD_MAX) - 1

    @property
    def _busy(self) -> dict[str, Any]:
        """Until when rows of x may be on their way behind a jump (arguments of ``Scheduler.jump_target``)."""
        z = self._x_behind - self.t.sxm_act
        y = z - self.t.vx(VxOp.ADD)
        last = {
            Queue.SXM: z, Queue.XW: z, Queue.VX: y, Queue.XR: y - self.t.mem_read, Queue.ACC: y - self.t.acc,
            Queue.SR: y - self.t.acc - self.t.mem_read,
        }  # fmt: skip
        return {"busy": last, "z_busy": z}

    def _settled(self) -> tuple[Times, Times]:
        """When a phase that is entered by a jump may begin."""
        first_sum = self.sched.fetch_gap(Queue.ABC) + self.t.dot
        return self.sched.settle(**self._busy), np.max(self._acc_read, axis=0) + 1 - first_sum

    def _jump_target(self) -> None:
        self.sched.jump_target(**self._busy)
        self._acc = 0
        first_sum = self.sched.fetch_gap(Queue.ABC) + self.t.dot
        self._acc_read = [self.sched.start + first_sum - 1] * self.cfg.accs

    # Phases -------------------------------------------------------------------------------------------

    def _embed(self) -> Times:
        """Embedding row of the token -> x, its blocks and sum of squares."""
        t, lay, cfg, model = self.t, self.layout, self.cfg, self.model
        m = lay.embed
        rows = m.words * cfg.word_rows
        z = t.vx(VxOp.PASS)
        gather = {
            "op": AbcOp.GATHER, "width": m.isa_width, "n1": m.words, "d1": cfg.word_rows,
            "w": m.w, "w_sel": Base.TOKEN, "w_s1": 1,
        }  # fmt: skip
        at = t.gather  # row 0 on the gather stream
        many = {"n1": rows}
        bundle = [
            Slot(Queue.ABC, 0, gather),
            Slot(Queue.SR, at - t.mem_read, {"s": m.s, "s_sel": Base.TOKEN, **many}),
            Slot(Queue.ACC, at, {"source": AccSource.GATHER, "bcast": 1, "shift": model.embed.shift, **many}),
            Slot(Queue.VX, at + t.acc, {"op": VxOp.PASS, "source": Source.Y, **many}),
            Slot(Queue.XW, at + t.acc + z, {"source": Source.Z, "x": lay.x, "x_s1": 1, **many}),
            Slot(Queue.SXM, at + t.acc + z, self._act(Source.Z, rows, 1, lay.x_act, model.shifts.x_act, 1)),
        ]
        start = self.sched.place([dataclasses.replace(s, note="embedding") for s in bundle])
        return start + at + t.acc + z + rows - 1 + t.sxm_act

    def _attention(self, x_ready: Times) -> Times:
        attn_ready = self._heads(*self._kqv(x_ready))
        t, lay, sched = self.t, self.layout, self.sched
        m = lay.o
        chain = self._residual_chain(m, final=True)
        shift = self.model.layers[0].o.shift
        y = self._product(m, lay.attn_act, Base.LAYER, attn_ready, 0, shift, chain, note="x += attention")
        x_ready = y + t.vx(VxOp.ADD) + (m.rows - 1) * m.pitch + t.sxm_act
        sched.close("output projection")
        return x_ready

    def _kqv(self, x_ready: Times) -> tuple[list[Times], Times, Times]:
        """K, Q and V, in the order in which they are needed; K and V go to the cache, Q to the activation memory.

        Returns when each head's q, the keys and the values can be read.
        """
        t, lay, model, sched = self.t, self.layout, self.model, self.sched
        layer, sh, shape = model.layers[0], model.shifts, model.shape
        norm = self._norm(x_ready, "attention norm")
        hr, rope = lay.head_rows, t.vx(VxOp.ROPE)

        def vectors(m: Matrix, n: int) -> dict[str, int]:
            return {"n1": hr, "d1": m.pitch, "n2": n, "d2": hr * m.pitch}

        value = {
            "op": SxmMode.VALUE, "source": Source.Y, "shift": sh.v_kv, "dst": lay.value_w, "dst_sel": Base.VALUE,
            "dst_s2": lay.value_head_w, "vset": lay.cache_words, "srow": lay.value_c, "srow_sel": Base.VALUE,
            "srow_s2": lay.cache_rows, **vectors(lay.v, shape.kv_heads),
        }  # fmt: skip
        key = {
            "op": SxmMode.KEY, "source": Source.Z, "shift": sh.k_kv, "dst": lay.key_w, "dst_sel": Base.KEY,
            "dst_s2": lay.key_head_w, "srow": lay.key_s, "srow_sel": Base.KEY, "srow_s2": lay.cache_rows,
            **vectors(lay.k, shape.kv_heads),
        }  # fmt: skip
        query = {
            "op": SxmMode.ACT, "source": Source.Z, "shift": sh.q_act, "dst": lay.q_act, "dst_s2": lay.head_words,
            **vectors(lay.q, shape.heads),
        }  # fmt: skip

        def rotated(m: Matrix, n: int, sxm: dict[str, int]) -> list[Slot]:
            coefficients = {"c": lay.rope_c, "c_sel": Base.ROPE, "c_s1": 1, **vectors(m, n)}
            return [
                Slot(Queue.CR, -t.mem_read, coefficients),
                Slot(Queue.VX, 0, {"op": VxOp.ROPE, "source": Source.Y, "n1": n * hr, "d1": m.pitch}),
                Slot(Queue.SXM, rope, sxm),
            ]

        def project(m: Matrix, shift: int, chain: list[Slot]) -> Times:
            """Returns the last row's time on Y."""
            y = self._product(m, lay.x_act, Base.LAYER, x_ready, R_NORM, shift, chain, norm + t.acc, note=m.name)
            return y + (m.rows - 1) * m.pitch

        k_last = project(lay.k, layer.k.shift, rotated(lay.k, shape.kv_heads, key)) + rope
        q_last = project(lay.q, layer.q.shift, rotated(lay.q, shape.heads, query)) + rope
        v_last = project(lay.v, layer.v.shift, [Slot(Queue.SXM, 0, value)])
        sched.close("K, Q, V", last=Queue.ABC, loop_begin=1)
        q_rows = (np.arange(shape.heads) + 1) * hr * lay.q.pitch
        q_ready = [q_last + t.sxm_act + int(q_rows[h] - q_rows[-1]) for h in range(shape.heads)]
        # Rows of V may leave the SXM more slowly than they come.
        return q_ready, k_last + hr + t.sxm_kv, v_last + (hr - 1) * t.value_pace + 1 + t.sxm_kv

    def _heads(self, q_ready: list[Times], k_ready: Times, v_ready: Times) -> Times:
        """Attention, heads pipelined: in step i scores of head i, softmax and P V of heads before.

        Each of the MXM's operations has a phase, as only a phase grows with n; what follows the MXM is placed in later
        ones, where its distance is the same for all n. Returns when the last head's activation words can be read.
        """
        heads, sched, parts = self.model.shape.heads, self.sched, self._value_parts
        lag, wait = self.lag, self.wait
        self._work = _Heads()
        self._value_acc = 0
        for i in range(heads + lag + 1):
            h = i - lag - 1
            if wait == 1 and h > 0:
                self._attn_out(h - 1, parts[-1])
            if i < heads:
                self._scores(i, q_ready[i], k_ready)
            if 0 <= i - lag < heads:
                self._softmax(i - lag, v_ready)
            if i < heads or h < 0:
                slope = self._score_period
                if h < 0:  # no P V gives the drain its time
                    slope = max(slope, self.cfg.slots(8) * self._score_pitch)
                sched.close(f"scores {i}", slope=slope, count=Count.SETS)
            if h < 0:
                continue
            if wait == 2 and h > 1:
                self._attn_out(h - 2, parts[-1])
            for part, before in zip(parts, (None, *parts), strict=False):
                if before is None:
                    self._recip(h)
                else:
                    self._attn_out(h, before)
                self._pv(h, part, v_ready)
                sched.close(f"P V {h}", slope=part.sets, count=Count.WORDS)
        if heads > 1 and wait == 2:
            self._attn_out(heads - 2, parts[-1])
        return self._attn_out(heads - 1, parts[-1])

    @property
    def _value_parts(self) -> list[ValuePart]:
        """The accumulator sets of a head's P V, in parts of no more than half of the accumulators."""
        lay, cfg = self.layout, self.cfg
        slots, most = cfg.slots(8), cfg.accs // 2
        if lay.value_sets > most:
            whole = word_sets(cfg)
            most -= most % whole
            assert most > 0, "see firmware.limits"
        parts = []
        for first in range(0, lay.value_sets, most):
            sets = min(most, lay.value_sets - first)
            parts.append(ValuePart(first, sets, min(sets * slots, lay.head_rows - first * slots)))
        return parts

    @property
    def _score_pitch(self) -> int:
        """Cycles between rows of scores."""
        return ceil_div(self.layout.head_words, self.cfg.slots(8))

    @property
    def _score_period(self) -> int:
        """Cycles between the sets of a head's scores: the MXM may run ahead of the drain by half its accumulators."""
        lay, banks = self.layout, self.cfg.accs // 2
        row = self.cfg.slots(8) * self._score_pitch
        behind = lay.key_sets - 1 - banks
        if behind < 0:
            return lay.head_words
        return min(row, max(lay.head_words, ceil_div(behind * row + row + lay.head_words, behind + banks)))

    def _scores(self, h: int, q_ready: Times, k_ready: Times) -> None:
        """Scores of head h to vector memory and their maximum."""
        t, lay, s, work = self.t, self.layout, self.model.shape, self._work
        buffer = h % HEADS_IN_WORK
        group = h // (s.heads // s.kv_heads)
        slots, pitch = self.cfg.slots(8), self._score_pitch
        dot = {
            "op": AbcOp.DOT, "width": Width.INT8, "init": Init.INNER, "n1": lay.head_words, "n2_sel": Count.SETS,
            "d2": self._score_period, "w": lay.key_w + group * lay.key_head_w, "w_sel": Base.LAYER, "w_s1": 1,
            "w_s2": lay.head_words, "a": lay.q_act + h * lay.head_words, "a_s1": 1, "acc": 0, "acc_s2": 2,
        }  # fmt: skip
        loops = {"n1": slots, "d1": pitch, "n2_sel": Count.SETS, "d2": slots * pitch}
        acc = {
            "width": Width.INT8, "max": 1, "bank": buffer, "shift": self.model.shifts.score, "acc": 0, "acc_s2": 2,
            "slot_s1": 1, **loops,
        }  # fmt: skip
        scales = {
            "s": lay.key_s + group * lay.cache_rows, "s_sel": Base.LAYER, "s_s1": 1, "s_s2": slots, **loops,
        }  # fmt: skip
        write = {
            "source": Source.Y, "x": lay.scores[buffer], "x_s1": 1, "n1_sel": Count.ROWS, "d1": pitch,
        }  # fmt: skip
        at = lay.head_words - 1 + t.dot
        note = f"scores of head {h}"
        bundle = [
            Slot(Queue.ABC, 0, dot, note),
            Slot(Queue.SR, at - t.mem_read, scales, note),
            Slot(Queue.ACC, at, acc, note),
            Slot(Queue.XW, at + t.acc, write, note),
        ]
        free = [self._acc_read[2 * b] + 1 - t.dot - b * self._score_period for b in range(self.cfg.accs // 2)]
        rows = self.sched.counts[Count.ROWS]
        if (before := h - HEADS_IN_WORK) in work.exp:
            # Neither the buffer's first row nor MAX may change before the softmax has read them.
            free += [work.exp[before] - t.mem_read - at - t.acc + 1, work.exp[before] + rows - at - t.max]
        start = self.sched.place(bundle, q_ready - (lay.head_words - 1), k_ready, *free)
        sets, banks = self.sched.counts[Count.SETS], self.cfg.accs // 2
        for b in range(banks):
            last = b + (sets - 1 - b) // banks * banks  # the last set in this accumulator
            read = start + at + (last * slots + slots - 1) * pitch
            self._acc_read[2 * b] = np.where(sets > b, read, self._acc_read[2 * b])
        # The softmax reads a row a cycle, ``mem_read`` ahead: the last one, too, has to be in memory by then.
        stored = start + at + t.acc + (rows - 1) * pitch + t.xw
        work.top[h] = np.maximum(start + at + self.sched.span(acc) + t.max, stored + t.mem_read - (rows - 1))

    def _softmax(self, h: int, v_ready: Times) -> None:
        """exp2(score - MAX) * V scale -> activation words, and their sum."""
        t, lay, s, sh, work = self.t, self.layout, self.model.shape, self.model.shifts, self._work
        buffer = h % HEADS_IN_WORK
        group = h // (s.heads // s.kv_heads)
        rows = {"n1_sel": Count.ROWS}
        scales = {"c": lay.value_c + group * lay.cache_rows, "c_sel": Base.LAYER, "c_s1": 1, **rows}
        act = {
            "op": SxmMode.ACT, "source": Source.Z, "dst": lay.prob_act[buffer], "shift": sh.prob_act, **rows,
        }  # fmt: skip
        exp = {"op": VxOp.EXP, "source": Source.X, "bank": buffer, "shift": sh.prob, **rows}
        bundle = [
            Slot(Queue.XR, -t.mem_read, {"x": lay.scores[buffer], "x_s1": 1, **rows}),
            Slot(Queue.CR, -t.mem_read, scales),
            Slot(Queue.VX, 0, exp),
            Slot(Queue.SXM, t.vx(VxOp.EXP), act),
        ]
        bundle = [dataclasses.replace(b, note=f"softmax of head {h}") for b in bundle]
        free = []
        if (before := h - HEADS_IN_WORK) in work.recip:
            # Neither SUM nor the first probabilities may change before they are used.
            last = self._value_parts[-1]
            multiplied = work.values[before, last.first][0] + last.sets * self.sched.counts[Count.WORDS]
            free = [work.recip[before] + 1 - t.vx_sum, multiplied - t.vx(VxOp.EXP) - t.sxm_act]
        work.exp[h] = self.sched.place(bundle, work.top[h], v_ready + t.mem_read, *free)

    def _recip(self, h: int) -> None:
        """1 / SUM of head h."""
        work, t = self._work, self.t
        summed = work.exp[h] + self.sched.counts[Count.ROWS] - 1 + t.vx_sum
        buffer = h % HEADS_IN_WORK
        free = [work.drained[before] + 1 - t.sfu_recip] if (before := h - HEADS_IN_WORK) in work.drained else []
        fields = {"op": SfuOp.RECIP, "dst": R_HEAD + buffer, "bank": buffer}
        work.recip[h] = self.sched.place([Slot(Queue.SFU, 0, fields, f"1 / sum of head {h}")], summed, *free)

    def _pv(self, h: int, part: ValuePart, v_ready: Times) -> None:
        """Probabilities of head h times a part of V."""
        t, lay, s, counts = self.t, self.layout, self.model.shape, self.sched.counts
        banks = self.cfg.accs // 2
        accs = [1 + 2 * ((self._value_acc + i) % banks) for i in range(part.sets)]
        self._value_acc += part.sets
        group = h // (s.heads // s.kv_heads)
        at = lay.value_w + group * lay.value_head_w + part.first * lay.cache_words
        fields = {
            "op": AbcOp.DOT, "width": Width.INT8, "init": Init.INNER, "n1_sel": Count.WORDS, "n2": part.sets,
            "w": at, "w_sel": Base.LAYER, "w_s1": 1, "w_s2": lay.cache_words, "a": lay.prob_act[h % HEADS_IN_WORK],
            "a_s1": 1, "acc": accs[0], "acc_s2": 2,
        }  # fmt: skip
        written = self._work.exp[h] + t.vx(VxOp.EXP) + t.sxm_act
        first = written + np.minimum(self.cfg.word_rows, counts[Count.ROWS]) - 1
        last = written + counts[Count.ROWS] - 1 - (counts[Count.WORDS] - 1)
        free = [self._acc_read[acc] + 1 - t.dot - i * counts[Count.WORDS] for i, acc in enumerate(accs)]
        pv = self.sched.place([Slot(Queue.ABC, 0, fields, f"P V of head {h}")], first, last, v_ready, *free)
        self._work.values[h, part.first] = pv, accs

    def _attn_out(self, h: int, part: ValuePart) -> Times:
        """A part of head h's result, divided by its sum of probabilities -> activation words.

        Returns when they can be read.
        """
        t, lay, words = self.t, self.layout, self.sched.counts[Count.WORDS]
        slots = self.cfg.slots(8)
        pv, accs = self._work.values[h, part.first]
        loops = {"n1": min(part.rows, slots), "n2": part.sets, "d2": slots}
        acc = {
            "width": Width.INT8, "scalar": R_HEAD + h % HEADS_IN_WORK, "shift": self.model.shifts.attn, "acc": accs[0],
            "acc_s2": 2, "slot_s1": 1, **loops,
        }  # fmt: skip
        # Rows come one a cycle, sets ``words`` cycles apart: either the first or the last set is the one to wait for.
        done = pv + words - 1 + t.dot
        done = np.maximum(done, pv + part.sets * words - 1 + t.dot - (part.sets - 1) * slots)
        dst = lay.attn_act + h * lay.head_words + part.first * slots // self.cfg.word_rows
        note = f"attention of head {h}"
        bundle = [
            Slot(Queue.SR, -t.mem_read, {"s": lay.ones_s, **loops}, note),
            Slot(Queue.ACC, 0, acc, note),
            Slot(Queue.SXM, t.acc, self._act(Source.Y, part.rows, 1, dst, self.model.shifts.attn_act), note),
        ]
        start = self.sched.place(bundle, done, self._work.recip[h] + t.sfu_recip)
        for i, a in enumerate(accs):
            self._acc_read[a] = start + i * slots + min(part.rows, slots) - 1
        self._work.drained[h] = start + part.rows - 1
        return start + t.acc + part.rows - 1 + t.sxm_act

    def _experts(self, x_ready: Times) -> Times:
        """Router, then each chosen expert's gate / up / down; returns when the new x can be read."""
        t, lay, s = self.t, self.layout, self.model.shape
        layer, sh = self.model.layers[0], self.model.shifts
        norm = self._norm(x_ready, "expert norm")
        # Base register of each expert in turn, the scalar with its weight; when bases and scalars may be used.
        bases, scalars = [Base.LAYER], [0]
        chosen, weighted = [self.sched.start], self.sched.start
        if lay.router is not None:
            bases = list(EXPERT_BASES[: s.top_k])
            chosen, weighted, scalars = self._route(lay.router, x_ready, norm)
        m = lay.gate_up
        p, silu = m.pitch, t.vx(VxOp.SILU)
        h_ready: list[Times] = []
        for base, known, h_act in zip(bases, chosen, lay.h_act, strict=True):
            chain = [
                Slot(Queue.VX, 0, {"op": VxOp.SILU, "source": Source.Y, "fshift": sh.gate_frac - 7, "shift": sh.silu,
                                   "n1": m.rows, "d1": p}),
                Slot(Queue.SXM, p + silu, self._act(Source.Z, lay.f_rows, 2 * p, h_act, sh.h_act)),
            ]  # fmt: skip
            words_ready = np.maximum(x_ready, known + m.words - 1)
            y = self._product(
                m, lay.x_act, base, words_ready, R_NORM, layer.gate[0].shift, chain, norm + t.acc,
                note="silu(gate) * up",
            )  # fmt: skip
            h_ready.append(y + (m.rows - 1) * p + silu + t.sxm_act)
        m = lay.down
        x_written = self.sched.start
        for j, base in enumerate(bases):
            chain = self._residual_chain(m, final=j == len(bases) - 1)
            y = self._product(
                m, lay.h_act[j], base, h_ready[j], scalars[j], layer.down[0].shift, chain, x_written + t.mem_read,
                weighted + t.acc, note="x += expert",
            )  # fmt: skip
            x_written = y + t.vx(VxOp.ADD) + t.xw
        return x_written - t.xw + (m.rows - 1) * m.pitch + t.sxm_act

    def _route(self, m: Matrix, x_ready: Times, norm: Times) -> tuple[list[Times], Times, list[int]]:
        """Top-k of the router and softmax over the chosen.

        Returns when each expert's base register may be used, when all weights may, and their scalar registers.
        """
        t, s, sched, router = self.t, self.model.shape, self.sched, self.model.layers[0].router
        assert router is not None
        insert = [Slot(Queue.TOP, 0, {"op": TopOp.INSERT, "limit": s.experts, "n1": m.rows, "d1": m.pitch})]
        y = self._product(
            m, self.layout.x_act, Base.LAYER, x_ready, R_NORM, router.shift, insert, norm + t.acc, note="router"
        )  # fmt: skip
        inserted = y + (m.rows - 1) * m.pitch + t.top_insert
        emit = {"op": TopOp.EMIT, "expert": 1, "n1": s.top_k, "d1": t.top_step}
        start = sched.place([Slot(Queue.TOP, 0, emit, "choose experts")], inserted)
        last = start + (s.top_k - 1) * t.top_step
        chosen = [start + j * t.top_step + t.top_emit for j in range(s.top_k)]
        if s.top_k == 1:
            return chosen, chosen[-1], [0]
        note = "router softmax"
        exp = {"op": VxOp.EXP, "source": Source.T, "unit": 1, "bank": 0}
        z = t.vx(VxOp.EXP)
        bundle = [Slot(Queue.VX, 0, exp, note), Slot(Queue.SFU, z, {"op": SfuOp.CAPTURE}, note)]
        e = sched.place(bundle, last + t.top_row)
        r = sched.place([Slot(Queue.SFU, 0, {"op": SfuOp.RECIP, "dst": R_HEAD, "bank": 0}, note)], e + t.vx_sum)
        ready, registers = r, []
        for j in range(s.top_k):
            prob = {"op": SfuOp.PROB, "dst": R_EXPERT + j, "a": R_HEAD, "b": j}
            ready = sched.place([Slot(Queue.SFU, 0, prob, note)], r + t.sfu_recip) + t.sfu_prob
            registers.append(R_EXPERT + j)
        return chosen, ready, registers

    def _head(self, x_ready: Times) -> None:
        """Final norm, LM head, sampling; the next token's id ends the token."""
        t, lay, sh, sched, model = self.t, self.layout, self.model.shifts, self.sched, self.model
        norm = self._norm(x_ready, "final norm")
        for dst, a, b in ((R_LM, R_NORM, K_LM), (R_LM + 1, R_LM, K_TEMPERATURE)):
            fields = {"op": SfuOp.MUL, "dst": dst, "a": a, "b": b}
            norm = sched.place([Slot(Queue.SFU, 0, fields, "LM head scale")], norm) + t.sfu_mul
        if model.final_gain is not None:
            rows, gain = lay.d_rows, t.vx(VxOp.GAIN)
            many, note = {"n1": rows}, "final gain"
            multiply = {"op": VxOp.GAIN, "source": Source.X, "fshift": sh.gain_pre, "shift": sh.gain, **many}
            bundle = [
                Slot(Queue.XR, -t.mem_read, {"x": lay.x, "x_s1": 1, **many}, note),
                Slot(Queue.CR, -t.mem_read, {"c": lay.gain_c, "c_s1": 1, **many}, note),
                Slot(Queue.VX, 0, multiply, note),
                Slot(Queue.SXM, gain, self._act(Source.Z, rows, 1, lay.x_act, sh.gain_act), note),
            ]
            x_written = x_ready - t.sxm_act + t.xw
            start = sched.place(bundle, x_written + t.mem_read - (rows - 1))
            x_ready = start + gain + rows - 1 + t.sxm_act
        m = lay.lm_head
        fields = {"op": TopOp.INSERT, "noise": 1, "limit": model.shape.vocab, "n1": m.rows, "d1": m.pitch}
        insert = [Slot(Queue.TOP, 0, fields)]
        y = self._product(
            m, lay.x_act, Base.ZERO, x_ready, R_LM + 1, model.lm_head.shift, insert, norm + t.acc, note="LM head"
        )  # fmt: skip
        inserted = y + (m.rows - 1) * m.pitch + t.top_insert_noise
        steps = self.cfg.topk_max
        emit = {"op": TopOp.EMIT, "n1": steps, "d1": t.top_step}
        start = sched.place([Slot(Queue.TOP, 0, emit, "sample")], inserted)
        known = start + t.issue + (steps - 1) * t.top_step + t.top_sample
        sched.close("LM head", known + t.token, *self._settled(), final=1)


def build_program(layout: Layout) -> tuple[Program, int]:
    """The program with the count floor and the order of the heads that suit all positions best.

    Loop counts follow max(n, floor): below the floor a token's attention is bound by latency, not by keys, and
    counting a few masked keys more makes the constants of the longer phases smaller. Tried are the first keys of
    a set (``columns`` keys), the cheapest of each, at most 32 of them. Taken is the smallest whose cycles, summed
    over all positions, are within half a percent of the least: early positions are the ones every run visits.
    """
    window = layout.model.shape.window
    step = layout.cfg.columns * ceil_div(window, 32 * layout.cfg.columns)

    def best_floor(order: tuple[int, int]) -> tuple[int, Program]:
        tried = [(floor, *_cost(layout, floor, order)) for floor in range(1, window + 1, step)]
        least = min(cycles for _, _, cycles in tried)
        return next((floor, program) for floor, program, cycles in tried if cycles <= 1.005 * least)

    first, *others = head_orders(layout)
    floor, program = best_floor(first)
    cycles = {order: _cost(layout, floor, order)[1] for order in (first, *others)}
    best = min(cycles, key=cycles.__getitem__)
    if best != first:
        floor, program = best_floor(best)
    return program, floor


def head_orders(layout: Layout) -> list[tuple[int, int]]:
    """(lag, wait) that a program may have (:class:`TokenProgram`): as many heads as there are, and buffers for them."""
    heads, slots = layout.model.shape.heads, layout.cfg.slots(8)
    sets = ceil_div(layout.head_rows, slots)
    lags = range(1, max(2, min(HEADS_IN_WORK, heads)))
    waits = range(1, 3 if 3 * sets <= layout.cfg.accs // 2 and heads > 1 else 2)
    return [(lag, wait) for lag in lags for wait in waits]


def _cost(layout: Layout, floor: int, order: tuple[int, int]) -> tuple[Program, int]:
    """A program of these choices, and its cycles summed over all n."""
    builder = TokenProgram(layout, floor, *order)
    program = builder.build()
    total, inside = 0, 0
    for phase in program.phases:
        inside |= phase.loop_begin
        variable = phase.slope * int(builder.sched.counts[phase.count].sum()) if phase.count else 0
        cycles = phase.dur * layout.model.shape.window + variable
        total += cycles * (layout.model.shape.layers if inside else 1)
        inside &= not phase.loop_end
    return program, total
