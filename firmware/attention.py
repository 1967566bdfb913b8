"""Attention on the MXM: K, Q and V of every sequence, scores, softmax and P V head by head."""

from __future__ import annotations

import dataclasses

import numpy as np

from hdl.isa import AbcOp, Base, Count, Init, Queue, SfuOp, Source, SxmMode, VxOp, Width

from .chains import Chains, Offer, Passes
from .layout import HEADS_IN_WORK, Matrix, Places, ceil_div
from .limits import word_sets
from .schedule import Slot, Times


@dataclasses.dataclass(frozen=True)
class ValuePart:
    """Part of a head's P V: accumulator sets first..first + sets, which make ``rows`` result rows."""

    first: int
    sets: int
    rows: int


@dataclasses.dataclass(frozen=True)
class Projected:
    """When a sequence's queries (by head), keys and values can be read."""

    queries: list[Times]
    keys: Times
    values: Times


class Attention:
    """Attention of one layer. ``lag``: heads that a softmax is behind the scores; ``wait``: heads that a drained
    result is behind its P V. Heads of all sequences follow each other, sequence by sequence."""

    def __init__(self, chains: Chains, lag: int, wait: int):
        self.chains, self.lag, self.wait = chains, lag, wait
        self.layout, self.model, self.cfg = chains.layout, chains.model, chains.cfg
        self.sched, self.t = chains.sched, chains.t
        # Times of heads, by number.
        self.top: dict[int, Times] = {}
        """When scores and MAX may be used."""
        self.exp: dict[int, Times] = {}
        """First row of the softmax in the VXM."""
        self.recip: dict[int, Times] = {}
        """When 1 / SUM is formed."""
        self.values: dict[tuple[int, int], tuple[Times, list[int]]] = {}
        """By head and first set of a part: first micro-op of P V, and its accumulator sets."""
        self.ready: dict[int, Times] = {}
        """By sequence: when the last activation word of its heads can be read."""
        self._value_acc = 0
        self._sxm_free = self.sched.start
        """When another K vector may come: the V vector before it has left the SXM."""
        self._updated = self.sched.start
        """When a V vector may come: with error correction, those before it are written."""

    def project(self, x_ready: list[Times], norms: list[Times]) -> list[Projected]:
        """K, Q and V of every sequence, in the order in which they are needed: all keys, all queries, all values.

        By sequence: when x can be read, and when an ACC may use 1/rms.
        """
        t, lay, heads = self.t, self.layout, self.model.shape.heads
        each, hr = self.chains.sequences, lay.head_rows
        k_last = [self._keys(s, x_ready[s], norms[s]) for s in each]
        q_last = [self._queries(s, x_ready[s], norms[s]) for s in each]
        v_last = [self._values(s, x_ready[s], norms[s]) for s in each]
        rows = (np.arange(heads) + 1) * hr * lay.q.pitch
        return [
            Projected(
                [q + t.sxm_act + int(rows[h] - rows[-1]) for h in range(heads)],
                k + hr + t.sxm_kv,
                # Rows of V may leave the SXM more slowly than they come.
                v + (hr - 1) * t.value_pace + 1 + t.sxm_kv,
            )
            for k, q, v in zip(k_last, q_last, v_last, strict=True)
        ]

    def cached(self, x_ready: list[Times], norms: list[Times]) -> list[Times]:
        """K and V alone, of every sequence; returns when the last row of each is in the SXM."""
        each = self.chains.sequences
        k_last = [self._keys(s, x_ready[s], norms[s]) for s in each]
        return k_last + [self._values(s, x_ready[s], norms[s]) for s in each]

    def _keys(self, sequence: int, x_ready: Times, norm: Times) -> Times:
        """K to the cache; returns when its last row is on Z, as :meth:`_queries` does."""
        lay, place, n = self.layout, self.layout.sequences[sequence], self.model.shape.kv_heads
        key = {
            "op": SxmMode.KEY, "source": Source.Z, "shift": self.model.shifts.k_kv, "dst": place.key_w,
            "dst_sel": Base.KEY, "dst_s2": lay.key_head_w, "srow": place.key_s, "srow_sel": Base.KEY,
            "srow_s2": lay.cache_rows, **self._vectors(lay.k, n),
        }  # fmt: skip
        shift, free = self.model.layers[0].k.shift, self._sxm_free - self.t.vx(VxOp.ROPE)
        last = self._rotated(sequence, lay.k, n, shift, key, x_ready, norm, free)
        self._written(last + lay.head_rows)
        return last

    def _queries(self, sequence: int, x_ready: Times, norm: Times) -> Times:
        """Q to the activation memory."""
        lay, place, n = self.layout, self.layout.sequences[sequence], self.model.shape.heads
        query = {
            "op": SxmMode.ACT, "source": Source.Z, "shift": self.model.shifts.q_act, "dst": place.q_act,
            "dst_s2": lay.head_words, **self._vectors(lay.q, n),
        }  # fmt: skip
        return self._rotated(sequence, lay.q, n, self.model.layers[0].q.shift, query, x_ready, norm)

    def _values(self, sequence: int, x_ready: Times, norm: Times) -> Times:
        """V to the cache; returns when its last row is on Y."""
        lay, place, n = self.layout, self.layout.sequences[sequence], self.model.shape.kv_heads
        value = {
            "op": SxmMode.VALUE, "source": Source.Y, "shift": self.model.shifts.v_kv, "dst": place.value_w,
            "dst_sel": Base.VALUE, "dst_s2": lay.value_head_w, "vset": lay.cache_words, "srow": place.value_c,
            "srow_sel": Base.VALUE, "srow_s2": lay.cache_rows, **self._vectors(lay.v, n),
        }  # fmt: skip
        chain = [Slot(Queue.SXM, 0, value)]
        last = self._product(sequence, lay.v, self.model.layers[0].v.shift, chain, x_ready, norm, self._updated)
        self._sxm_free = last + lay.head_rows * (self.t.value_pace - 1) + 1
        self._written(self._sxm_free)
        return last

    def _written(self, left: Times) -> None:
        """A vector has left the SXM."""
        if self.cfg.ecc:
            self._updated = left + self.t.value_update

    def _vectors(self, m: Matrix, n: int) -> dict[str, int]:
        """Loops over the rows of a head, and over heads."""
        hr = self.layout.head_rows
        return {"n1": hr, "d1": m.pitch, "n2": n, "d2": hr * m.pitch}

    def _rotated(
        self, sequence: int, m: Matrix, n: int, shift: int, sxm: dict[str, int], x_ready: Times, *after: Times
    ) -> Times:
        """A product of n heads through RoPE to the SXM; the first of ``after`` is the norm's."""
        t, lay = self.t, self.layout
        rope = t.vx(VxOp.ROPE)
        coefficients = {"c": lay.rope_c, "c_sel": Base.ROPE, "c_s1": 1, **self._vectors(m, n)}
        chain = [
            Slot(Queue.CR, -t.mem_read, coefficients),
            Slot(Queue.VX, 0, {"op": VxOp.ROPE, "source": Source.Y, "n1": n * lay.head_rows, "d1": m.pitch}),
            Slot(Queue.SXM, rope, sxm),
        ]
        return self._product(sequence, m, shift, chain, x_ready, *after) + rope

    def _product(
        self, sequence: int, m: Matrix, shift: int, chain: list[Slot], x_ready: Times, norm: Times, *after: Times
    ) -> Times:
        """Of x with a matrix; returns the last row's time on Y."""
        act, scalar = self.layout.sequences[sequence].x_act, self.chains.r_norm(sequence)
        y = self.chains.product(
            m, act, Base.LAYER, x_ready, scalar, shift, chain, norm + self.t.acc, *after, note=m.name
        )  # fmt: skip
        return y + (m.rows - 1) * m.pitch

    def heads(self, projected: list[Projected]) -> Passes:
        """Heads pipelined: in step i scores of head i, softmax and P V of heads before.

        Each of the MXM's operations has a phase, as only a phase grows with n; what follows the MXM is placed in later
        ones, where its distance is the same for all n. Offers what could be placed between products where a P V waits
        for its softmax. :attr:`ready` tells when a sequence's last activation word can be read.
        """
        each, sched, parts = self.model.shape.heads, self.sched, self._value_parts
        heads = each * len(projected)
        lag, wait = self.lag, self.wait
        for i in range(heads + lag + 1):
            h = i - lag - 1
            if wait == 1 and h > 0:
                self._attn_out(h - 1, parts[-1])
            if i < heads:
                self._scores(i, projected[i // each].queries[i % each], projected[i // each].keys)
            if 0 <= i - lag < heads:
                self._softmax(i - lag, projected[(i - lag) // each].values)
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
                if i >= heads:
                    yield Offer(self._pv_start(h, part, projected[h // each].values))
                if before is None:
                    self._recip(h)
                else:
                    self._attn_out(h, before)
                self._pv(h, part, projected[h // each].values)
                sched.close(f"P V {h}", slope=part.sets, count=Count.WORDS)
        if heads > 1 and wait == 2:
            self._attn_out(heads - 2, parts[-1])
        return self._attn_out(heads - 1, parts[-1])

    def _of(self, number: int) -> tuple[Places, int, int]:
        """Places of the sequence of a head, the head in it, and its KV group."""
        s = self.model.shape
        sequence, h = divmod(number, s.heads)
        return self.layout.sequences[sequence], h, h // (s.heads // s.kv_heads)

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
        t, lay = self.t, self.layout
        buffer = h % HEADS_IN_WORK
        place, own, group = self._of(h)
        slots, pitch = self.cfg.slots(8), self._score_pitch
        dot = {
            "op": AbcOp.DOT, "width": Width.INT8, "init": Init.INNER, "n1": lay.head_words, "n2_sel": Count.SETS,
            "d2": self._score_period, "w": place.key_w + group * lay.key_head_w, "w_sel": Base.LAYER, "w_s1": 1,
            "w_s2": lay.head_words, "a": place.q_act + own * lay.head_words, "a_s1": 1, "acc": 0, "acc_s2": 2,
        }  # fmt: skip
        loops = {"n1": slots, "d1": pitch, "n2_sel": Count.SETS, "d2": slots * pitch}
        acc = {
            "width": Width.INT8, "max": 1, "bank": buffer, "shift": self.model.shifts.score, "acc": 0, "acc_s2": 2,
            "slot_s1": 1, **loops,
        }  # fmt: skip
        scales = {
            "s": place.key_s + group * lay.cache_rows, "s_sel": Base.LAYER, "s_s1": 1, "s_s2": slots, **loops,
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
        free = [self.chains.acc_read[2 * b] + 1 - t.dot - b * self._score_period for b in range(self.cfg.accs // 2)]
        rows = self.sched.counts[Count.ROWS]
        if (before := h - HEADS_IN_WORK) in self.exp:
            # Neither the buffer's first row nor MAX may change before the softmax has read them.
            free += [self.exp[before] - t.mem_read - at - t.acc + 1, self.exp[before] + rows - at - t.max]
        start = self.sched.place(bundle, q_ready - (lay.head_words - 1), k_ready, *free)
        sets, banks = self.sched.counts[Count.SETS], self.cfg.accs // 2
        for b in range(banks):
            last = b + (sets - 1 - b) // banks * banks  # the last set in this accumulator
            read = start + at + (last * slots + slots - 1) * pitch
            self.chains.acc_read[2 * b] = np.where(sets > b, read, self.chains.acc_read[2 * b])
        # The softmax reads a row a cycle, ``mem_read`` ahead: the last one, too, has to be in memory by then.
        stored = start + at + t.acc + (rows - 1) * pitch + t.xw
        self.top[h] = np.maximum(start + at + self.sched.span(acc) + t.max, stored + t.mem_read - (rows - 1))

    def _softmax(self, h: int, v_ready: Times) -> None:
        """exp2(score - MAX) * V scale -> activation words, and their sum."""
        t, lay, sh = self.t, self.layout, self.model.shifts
        buffer = h % HEADS_IN_WORK
        place, _, group = self._of(h)
        rows = {"n1_sel": Count.ROWS}
        scales = {"c": place.value_c + group * lay.cache_rows, "c_sel": Base.LAYER, "c_s1": 1, **rows}
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
        if (before := h - HEADS_IN_WORK) in self.recip:
            # Neither SUM nor the first probabilities may change before they are used.
            last = self._value_parts[-1]
            multiplied = self.values[before, last.first][0] + last.sets * self.sched.counts[Count.WORDS]
            free = [self.recip[before] + 1 - t.vx_sum, multiplied - t.vx(VxOp.EXP) - t.sxm_act]
        self.exp[h] = self.sched.place(bundle, self.top[h], v_ready + t.mem_read, *free)

    def _recip(self, h: int) -> None:
        """1 / SUM of head h."""
        summed = self.exp[h] + self.sched.counts[Count.ROWS] - 1 + self.t.vx_sum
        buffer = h % HEADS_IN_WORK
        fields = {"op": SfuOp.RECIP, "dst": self.chains.r_head(buffer), "bank": buffer}
        latency = self.t.sfu_recip
        self.recip[h] = self.chains.scalar(fields, latency, summed, note=f"1 / sum of head {h}") - latency

    def _pv_start(self, h: int, part: ValuePart, v_ready: Times) -> Times:
        """When a part of P V of head h can begin."""
        t, counts = self.t, self.sched.counts
        written = self.exp[h] + t.vx(VxOp.EXP) + t.sxm_act
        first = written + np.minimum(self.cfg.word_rows, counts[Count.ROWS]) - 1
        last = written + counts[Count.ROWS] - 1 - (counts[Count.WORDS] - 1)
        read = self.chains.acc_read
        free = [read[acc] + 1 - t.dot - i * counts[Count.WORDS] for i, acc in enumerate(self._value_accs(part))]
        return self.sched.latest(first, last, v_ready, *free)

    def _value_accs(self, part: ValuePart) -> list[int]:
        """Accumulator sets of the next P V: every other one, as those of the scores."""
        banks = self.cfg.accs // 2
        return [1 + 2 * ((self._value_acc + i) % banks) for i in range(part.sets)]

    def _pv(self, h: int, part: ValuePart, v_ready: Times) -> None:
        """Probabilities of head h times a part of V."""
        lay = self.layout
        start, accs = self._pv_start(h, part, v_ready), self._value_accs(part)
        self._value_acc += part.sets
        place, _, group = self._of(h)
        at = place.value_w + group * lay.value_head_w + part.first * lay.cache_words
        fields = {
            "op": AbcOp.DOT, "width": Width.INT8, "init": Init.INNER, "n1_sel": Count.WORDS, "n2": part.sets,
            "w": at, "w_sel": Base.LAYER, "w_s1": 1, "w_s2": lay.cache_words, "a": lay.prob_act[h % HEADS_IN_WORK],
            "a_s1": 1, "acc": accs[0], "acc_s2": 2,
        }  # fmt: skip
        pv = self.sched.place([Slot(Queue.ABC, 0, fields, f"P V of head {h}")], start)
        self.chains.hold(accs)
        self.values[h, part.first] = pv, accs

    def _attn_out(self, h: int, part: ValuePart) -> Times:
        """A part of head h's result, divided by its sum of probabilities -> activation words.

        Returns when they can be read.
        """
        t, lay, words = self.t, self.layout, self.sched.counts[Count.WORDS]
        slots = self.cfg.slots(8)
        pv, accs = self.values[h, part.first]
        scalar = self.chains.r_head(h % HEADS_IN_WORK)
        place, own, _ = self._of(h)
        loops = {"n1": min(part.rows, slots), "n2": part.sets, "d2": slots}
        acc = {
            "width": Width.INT8, "scalar": scalar, "shift": self.model.shifts.attn, "acc": accs[0],
            "acc_s2": 2, "slot_s1": 1, **loops,
        }  # fmt: skip
        # Rows come one a cycle, sets ``words`` cycles apart: either the first or the last set is the one to wait for.
        done = pv + words - 1 + t.dot
        done = np.maximum(done, pv + part.sets * words - 1 + t.dot - (part.sets - 1) * slots)
        dst = place.attn_act + own * lay.head_words + part.first * slots // self.cfg.word_rows
        note = f"attention of head {h}"
        bundle = [
            Slot(Queue.SR, -t.mem_read, {"s": lay.ones_s, **loops}, note),
            Slot(Queue.ACC, 0, acc, note),
            Slot(Queue.SXM, t.acc, self.chains.act(Source.Y, part.rows, 1, dst, self.model.shifts.attn_act), note),
        ]
        start = self.sched.place(bundle, done, self.recip[h] + t.sfu_recip)
        for i, a in enumerate(accs):
            self.chains.drained(a, start + i * slots + min(part.rows, slots) - 1)
        self.chains.scalar_used(scalar, start + self.sched.span(acc))
        ready = start + t.acc + part.rows - 1 + t.sxm_act
        if own == self.model.shape.heads - 1 and part == self._value_parts[-1]:
            self.ready[h // self.model.shape.heads] = ready
        return ready
