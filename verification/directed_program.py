"""Programs that look for what random ones seldom do: instructions back to back, whatever is ignored at random,
phases that end while streams run, long bursts beside which everything else happens.

Every kind of bundle here is one of :mod:`verification.random_program`'s more; the values at the ends of the numerics
are in :mod:`verification.directed_values`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from firmware.schedule import Times
from hdl.config import SOFTMAX_BANKS
from hdl.isa import (
    EXPERT_BASES,
    AbcOp,
    AccSource,
    Count,
    Init,
    Instr,
    Program,
    Queue,
    SfuOp,
    Source,
    SxmMode,
    TopOp,
    VxOp,
    Width,
)
from verification.coverage.pairs import closest
from verification.directed_values import ValueGenerator
from verification.program_builder import Bundle, Fields

_ACC = ("acc", "acc_s1", "acc_s2")
_SROW = ("srow", "srow_s2")
IGNORED: dict[tuple[Queue, int], tuple[str, ...]] = {
    (Queue.ABC, AbcOp.GATHER): ("init", "a", "a_s1", "a_s2", *_ACC),
    (Queue.VX, VxOp.PASS): ("bank", "unit", "fshift", "shift"),
    (Queue.VX, VxOp.ADD): ("bank", "unit", "fshift", "shift"),
    (Queue.VX, VxOp.GAIN): ("bank", "unit"),
    (Queue.VX, VxOp.ROPE): ("bank", "unit", "fshift", "shift"),
    (Queue.VX, VxOp.EXP): ("fshift",),
    (Queue.VX, VxOp.SILU): ("bank", "unit"),
    (Queue.SXM, SxmMode.ACT): ("vset", "srow_sel", *_SROW),
    (Queue.SXM, SxmMode.KEY): ("vset", "sumsq"),
    (Queue.SXM, SxmMode.VALUE): ("sumsq",),
    (Queue.SFU, SfuOp.RSQRT): ("a", "b", "bank"),
    (Queue.SFU, SfuOp.RECIP): ("a", "b"),
    (Queue.SFU, SfuOp.MUL): ("bank",),
    (Queue.SFU, SfuOp.CAPTURE): ("dst", "a", "b", "bank"),
    (Queue.SFU, SfuOp.PROB): ("bank",),
    (Queue.TOP, TopOp.INSERT): ("expert",),
    (Queue.TOP, TopOp.EMIT): ("limit", "noise"),
}
"""Fields that an operation does not look at."""


class DirectedGenerator(ValueGenerator):
    """Random programs with more corners."""

    def kinds(self) -> list[Callable[[], None]]:
        """Those of random programs, and these."""
        own: list[Callable[[], None]] = [
            self.vx_pair, self.vx_pair, self.vx_pair, self.sfu_pair, self.sfu_pair, self.sxm_pair, self.top_pair,
            self.sfu_burst, self.vx_burst, self.gather_burst, self.boundary, self.straddle, self.straddle,
            self.chained_add, self.outer_vectors, self.based_words, self.expert_product,
            self.table_loops,
        ]  # fmt: skip
        return [*super().kinds(), *own, *own] if self.rng.random() < 0.5 else [*super().kinds(), *own]

    def finished(self, program: Program) -> Program:
        """Whatever is ignored, at random."""
        return dataclasses.replace(
            program, code={q: tuple(self._ignored(i) for i in code) for q, code in program.code.items()}
        )

    def _ignored(self, instr: Instr) -> Instr:
        names = IGNORED.get((instr.queue, instr.get("op")), ())
        if instr.queue is Queue.ACC and instr.get("source") == AccSource.GATHER:
            names = (*_ACC, "slot", "slot_s1", "slot_s2")
        if self.rng.random() < 0.4:
            return instr
        fields = self.isa.formats[instr.queue].by_name
        values = dict(instr.values)
        for name in names:
            members = fields[name].members
            values[name] = int(self.rng.choice([int(m) for m in members])) if members else self.any_value(
                name, instr.queue)  # fmt: skip
        return Instr(instr.queue, values, instr.note)

    def emit_later(self, emit: Fields, noise: bool) -> None:
        """Now and then more steps than there is to take, in a number that a register gives."""
        if not emit["expert"] and self.rng.random() < 0.4:
            emit |= {"n1": int(self.rng.integers(1, 30))}
            if self.rng.random() < 0.5:
                emit |= {"n1_sel": int(self.rng.integers(1, len(Count)))}
        elif emit["n1"] == 1:
            emit["d1"] = 1
        super().emit_later(emit, noise)

    def _place_emit(self, emit: Fields, after: Times) -> None:
        if self.splits and self.rng.random() < 0.3:
            self.sched.close("emit", after)
        super()._place_emit(emit, after)

    # Back to back --------------------------------------------------------------------------------------

    def stream_x(self, b: Bundle, offset: int, rows: int, coefficients: bool) -> None:
        """Rows on X, and on C, in each of so many cycles from ``offset`` on."""
        t = self.t
        fields: Fields = {"n1": rows, "d1": 1}
        read = fields | self.address("x", self.vector, fields, sel=False)
        b.add(Queue.XR, offset - t.mem_read, read)
        self.xr_access(b, offset - t.mem_read, read)
        if coefficients:
            b.add(Queue.CR, offset - t.mem_read, fields | self.address("c", self.coef, fields))

    def vx_op(self) -> VxOp:
        """Any operation whose operands exist."""
        op = VxOp(int(self.rng.integers(6)))
        return VxOp.PASS if op is VxOp.EXP and not self.maxima() else op

    def vx_fields(self, op: VxOp) -> Fields:
        """Fields of an operation on X."""
        rng = self.rng
        fields: Fields = {"op": int(op), "source": int(Source.X), "unit": int(rng.integers(2))}
        fields |= {"fshift": int(rng.integers(16)), "shift": int(rng.integers(64))}
        fields["bank"] = int(rng.integers(SOFTMAX_BANKS))
        if op is VxOp.EXP:
            fields["bank"] = int(rng.choice(self.maxima()))
        return fields

    def _results(self, op: VxOp, first: int, n: int, d: int) -> set[int]:
        """Offsets of rows on Z."""
        rows = range(1, n, 2) if op is VxOp.SILU else range(n)
        return {first + i * d + self.t.vx(op) for i in rows}

    def vx_pair(self) -> None:
        """Two operations of the vector ALU, the second as soon as it can come; it may overtake the first."""
        rng, t = self.rng, self.t
        first, second = self.vx_op(), self.vx_op()
        gap = t.fetch_gap(self.isa.formats[Queue.VX])
        for _ in range(50):
            n, d = int(rng.integers(1, 13)), int(rng.choice([1, 1, 2, 3]))
            after = (n - 1) * d + closest(self.cfg, f"VX.{first.name}", f"VX.{second.name}")
            m, e = (2 if second is VxOp.SILU else int(rng.integers(1, 5))), int(rng.choice([1, 2]))
            if after < gap or (first is VxOp.SILU and n % 2):
                continue
            if not all(op is not VxOp.ROPE or self.paired(p) for op, p in (
                (first, {"n1": n, "d1": d}), (second, {"n1": m, "d1": e}),
            )):  # fmt: skip
                continue
            if not self._results(first, 0, n, d) & self._results(second, after, m, e):
                break
        else:
            return
        b = Bundle()
        self.stream_x(b, 0, after + (m - 1) * e + 1, True)
        for op, offset, loop in ((first, 0, {"n1": n, "d1": d}), (second, after, {"n1": m, "d1": e})):
            fields = self.vx_fields(op) | loop
            b.add(Queue.VX, offset, fields)
            self.vx_access(b, offset, fields)
        self.place(b)

    def scalar_fields(self, op: SfuOp) -> Fields | None:
        """Fields of an operation of the scalar unit; None where its operands do not exist."""
        rng = self.rng
        missing = {SfuOp.RSQRT: "SUMSQ", SfuOp.PROB: "P"}.get(op)
        if (missing and missing not in self.defined) or (op is SfuOp.RECIP and not self.sums()):
            return None
        fields: Fields = {"op": int(op), "dst": int(rng.integers(8)), "a": int(rng.choice(self.scalars()))}
        fields |= {"b": int(rng.integers(self.cfg.vlanes if op is SfuOp.PROB else 8))}
        fields["bank"] = int(rng.integers(SOFTMAX_BANKS))
        if op is SfuOp.RECIP:
            fields["bank"] = int(rng.choice(self.sums()))
        return fields

    def sfu_pair(self) -> None:
        """Two operations of the scalar unit in a row, each with a row of probabilities on Z if it wants one."""
        rng, t = self.rng, self.t
        ops = [SfuOp(int(rng.integers(5))) for _ in range(2)]
        if SfuOp.PROB in ops and "P" not in self.defined:
            self.operands(probabilities=True)
        probabilities = bool(self.maxima())
        if ops[0] is SfuOp.CAPTURE and ops[1] is SfuOp.PROB and not probabilities:
            return
        n = t.fetch_gap(self.isa.formats[Queue.SFU]) + int(rng.integers(3))
        if ops[0] is SfuOp.CAPTURE and not self.captured({"n1": n}):
            return
        b, offset = Bundle(), 0
        if SfuOp.CAPTURE in ops:
            op = VxOp.EXP if probabilities else VxOp.PASS
            self.stream_x(b, -t.vx(op), n + 1, False)
            vx = self.vx_fields(op) | {"n1": n + 1, "d1": 1, "unit": 1}
            b.add(Queue.VX, -t.vx(op), vx)
            self.vx_access(b, -t.vx(op), vx)
        operations = [self._pair_fields(op, i > 0 and ops[0] is SfuOp.CAPTURE) for i, op in enumerate(ops)]
        first, second = operations
        if first is None or second is None:
            return
        if second["dst"] == first["dst"]:
            second["dst"] = 0
        for fields, count, offset in ((first, n, 0), (second, 1, n)):
            fields |= {"n1": count, "d1": 1}
            b.add(Queue.SFU, offset, fields)
            if fields["op"] == SfuOp.CAPTURE:
                self.capture_access(b, offset, fields, probabilities)
                continue
            before = len(b.reads)
            self.scalar_access(b, offset, fields)
            if offset and ops[0] is SfuOp.CAPTURE:  # its P is the one that was just taken
                b.reads[before:] = [read for read in b.reads[before:] if read[0] != ("P",)]
        self.place(b)

    def _pair_fields(self, op: SfuOp, captured: bool) -> Fields | None:
        """``captured``: a row of probabilities comes right before."""
        rng = self.rng
        if op is SfuOp.CAPTURE:
            return {"op": int(op), "dst": int(rng.integers(8))}
        if op is SfuOp.PROB and captured:
            return {"op": int(op), "dst": int(rng.integers(8)), "a": 0, "b": int(rng.integers(self.cfg.vlanes))}
        return self.scalar_fields(op)

    def sxm_pair(self) -> None:
        """Two vectors for the SXM in a row, in whatever lengths and distances they may follow each other."""
        rng, t = self.rng, self.t
        modes = [SxmMode(int(rng.integers(3))) for _ in range(2)]
        for _ in range(20):
            n = t.fetch_gap(self.isa.formats[Queue.SXM]) + int(rng.integers(2))
            m, d = int(rng.integers(1, 9)), int(rng.choice([1, 2, 3]))
            rows = n + (m - 1) * d + 1
            b = Bundle()
            self.stream_x(b, -t.vx_pass, rows, False)
            fields: Fields = {"op": int(VxOp.PASS), "source": int(Source.X), "n1": rows, "d1": 1}
            b.add(Queue.VX, -t.vx_pass, fields)
            self.vx_access(b, -t.vx_pass, fields)
            self._vector(b, 0, modes[0], n, 1)
            self._vector(b, n, modes[1], m, d)
            if sum(slot.queue is Queue.SXM for slot in b.slots) == 2:
                self.place(b)
                return

    def _vector(self, b: Bundle, offset: int, mode: SxmMode, n: int, d: int) -> None:
        """Rows on Z into the SXM; nothing where they do not fit."""
        rng = self.rng
        fields: Fields = {"op": int(mode), "n1": n, "d1": d, "source": int(Source.Z), "shift": int(rng.integers(26))}
        words = -(-n // self.cfg.word_rows)
        if mode is not SxmMode.ACT:
            self.cache_write(b, offset, fields, mode)
        elif words <= self.act.size:
            fields |= {"sumsq": int(rng.integers(2)), "dst_s2": self.any_value("dst_s2", Queue.SXM)}
            dst = self.act.base + int(rng.integers(self.act.size - words + 1))
            self.sxm_act(b, offset, fields, dst, 20.0 - fields["shift"])

    def top_pair(self) -> None:
        """Two INSERTs in a row; the lists are the second one's."""
        rng, t, filled = self.rng, self.t, self.filled()
        if not filled:
            return
        acc = next(iter(filled))
        n = t.fetch_gap(self.isa.formats[Queue.TOP]) + int(rng.integers(3))
        fields: Fields = {"n1": 2 * n, "d1": 1, "width": int(filled[acc]), "acc": acc, "slot_s1": 1}
        b = Bundle()
        self.y_rows(b, 0, fields, self.sum_lg, AccSource.ACC)
        for i in range(2):
            most = min(n * self.cfg.vlanes, self.sizes.vocab)
            insert: Fields = {"op": int(TopOp.INSERT), "n1": n, "d1": 1, "noise": 0}
            insert["limit"] = int(rng.integers(1, most))
            b.add(Queue.TOP, t.acc + i * n, insert)
            self.insert_access(b, t.acc + i * n, insert)
        self.place(b)
        emit: Fields = {"op": int(TopOp.EMIT), "d1": t.top_step, "expert": 0, "n1": 1}
        self._place_emit(emit, self.sched.free[Queue.TOP] - 1 + t.top_insert)

    # Bursts --------------------------------------------------------------------------------------------

    def operands(self, probabilities: bool | None = None) -> None:
        """What the scalar unit reads: a sum of squares, or ``probabilities`` and their sum."""
        rng, t = self.rng, self.t
        if probabilities and not self.maxima():
            self.softmax()
        b = Bundle()
        self.stream_x(b, 0, 2, False)
        chosen = rng.random() > 0.4 if probabilities is None else probabilities
        op = VxOp.EXP if chosen and self.maxima() else VxOp.PASS
        fields = self.vx_fields(op) | {"n1": 2, "d1": 1, "unit": 1}
        b.add(Queue.VX, 0, fields)
        self.vx_access(b, 0, fields)
        if op is VxOp.EXP:
            capture: Fields = {"op": int(SfuOp.CAPTURE), "n1": 1, "d1": 1}
            b.add(Queue.SFU, t.vx_exp, capture)
            self.capture_access(b, t.vx_exp, capture, True)
        else:
            act: Fields = {"n1": 2, "d1": 1, "source": int(Source.Z), "shift": 15, "sumsq": 1}
            self.sxm_act(b, t.vx_pass, act, self.act.base, 12.0)
        self.place(b)

    def sfu_burst(self) -> None:
        """An operation of the scalar unit in many cycles, beside whatever else there is."""
        rng, t = self.rng, self.t
        op = SfuOp(int(rng.choice([0, 1, 2, 3, 4, 4, 4])))
        if op not in (SfuOp.MUL, SfuOp.CAPTURE) and (rng.random() < 0.5 or self.scalar_fields(op) is None):
            self.operands(probabilities=op is not SfuOp.RSQRT)
        loop: Fields = {"n1": int(rng.integers(10, 60)), "d1": int(rng.choice([1, 1, 2]))}
        if op is not SfuOp.CAPTURE and rng.random() < 0.3:
            loop["n1_sel"] = int(rng.integers(1, len(Count)))
        if op is SfuOp.CAPTURE and not self.captured(loop):
            return
        b = Bundle()
        if op is SfuOp.CAPTURE:
            rows = (loop["n1"] - 1) * loop["d1"] + 1
            self.stream_x(b, -t.vx_pass, rows, False)
            vx: Fields = {"op": int(VxOp.PASS), "source": int(Source.X), "n1": rows, "d1": 1}
            b.add(Queue.VX, -t.vx_pass, vx)
            self.vx_access(b, -t.vx_pass, vx)
            b.add(Queue.SFU, 0, {"op": int(op), **loop})
            self.capture_access(b, 0, {"op": int(op), **loop}, False)
        else:
            fields = self.scalar_fields(op)
            if fields is None:
                return
            b.add(Queue.SFU, 0, fields | loop)
            self.scalar_access(b, 0, fields | loop)
        self.place(b)
        if rng.random() < 0.5:  # vectors while it lasts
            self.sxm_pair()

    def vx_burst(self) -> None:
        """An operation of the vector ALU on many rows."""
        rng = self.rng
        op, loop = self.vx_op(), {"n1": 2 * int(rng.integers(5, 30)), "d1": 1}
        if op is not VxOp.SILU and rng.random() < 0.4:
            loop |= {"n1_sel": int(rng.integers(1, len(Count))), "d1": int(rng.integers(1, 3))}
        if op is VxOp.ROPE and not self.paired(loop):
            op = VxOp.PASS
        b = Bundle()
        self.stream_x(b, 0, self.longest(loop) + 1, True)
        fields = self.vx_fields(op) | loop
        b.add(Queue.VX, 0, fields)
        self.vx_access(b, 0, fields)
        self.place(b)

    def chained_add(self) -> None:
        """ADD of a result on Z and of another row on X."""
        t, rng = self.t, self.rng
        n = int(rng.integers(5, 12))
        b = Bundle()
        self.stream_x(b, 0, 2 * n + t.vx_silu, False)
        first: Fields = {"op": int(VxOp.PASS), "source": int(Source.X), "n1": 1, "d1": 1}
        b.add(Queue.VX, 0, first)
        self.vx_access(b, 0, first)
        if t.vx_pass >= t.fetch_gap(self.isa.formats[Queue.VX]):
            offset = t.vx_pass
        else:  # the results of a longer one, of which the last is taken
            offset = max(t.fetch_gap(self.isa.formats[Queue.VX]), t.vx_pass)
            first["n1"] = offset - t.vx_pass + 1
        b.add(Queue.VX, offset, {"op": int(VxOp.ADD), "source": int(Source.Z), "n1": 1, "d1": 1})
        self.vx_access(b, offset, {"op": int(VxOp.ADD), "source": int(Source.Z), "n1": 1, "d1": 1})
        self.place(b)

    def gather_burst(self) -> None:
        """GATHERs whose rows nobody takes, in any number."""
        rng, cfg = self.rng, self.cfg
        while True:
            fields: Fields = {"d1": int(rng.integers(cfg.word_rows, cfg.word_rows + 3))}
            fields |= self._count("n1", [1, 2, 5, 12])
            if rng.random() < 0.5:
                fields |= self._count("n2", [1, 2, 3])
                fields["d2"] = int(rng.choice([1, 40])) + self.longest(fields) + cfg.word_rows
            if self.longest(fields) < 150:
                break
        width = self.width()
        fields |= {"op": int(AbcOp.GATHER), "width": int(width)}
        region = self.w4 if width is Width.INT4 else self.w8
        for _ in range(8 if self.experts else 1):
            where = self.address("w", region, fields)
            if where["w_sel"] in EXPERT_BASES:
                break
        fields |= where
        b = Bundle()
        b.add(Queue.ABC, 0, fields)
        self.gather_access(b, 0, fields)
        self.place(b)

    def table_loops(self) -> None:
        """Coefficients by two loops, in a number that a register gives."""
        fields: Fields = {"n1": int(self.rng.integers(1, 4)), "d1": 1, "n2": 1, "d2": int(self.rng.integers(1, 6))}
        fields["n2_sel"] = int(self.rng.integers(1, len(Count)))
        self.read_rows(Queue.CR, fields | self.address("c", self.coef_all, fields))

    def expert_product(self) -> None:
        """A product, or a GATHER, with the weights of the last expert that was chosen."""
        rng = self.rng
        if not self.experts:
            self.choice(sampling=False)
        if not self.experts:
            return
        fields: Fields = {"op": int(AbcOp.DOT), "width": int(Width.INT8), "init": int(Init.INNER), "n1": 2, "d1": 1}
        fields |= {"a": self.act.base, "acc": int(rng.integers(self.cfg.accs))}
        wanted = int(EXPERT_BASES[max(self.experts)])
        where = next((w for w in (self.address("w", self.w8, fields) for _ in range(40)) if w["w_sel"] == wanted), None)
        if where is None:
            return
        b = Bundle()
        if rng.random() < 0.3:
            fields |= {"op": int(AbcOp.GATHER), "n1": 1}
        b.add(Queue.ABC, 0, fields | where)
        if fields["op"] == AbcOp.GATHER:
            self.gather_access(b, 0, fields | where)
        elif not self.dot_access(b, 0, fields | where, cached=False):
            return
        self.place(b)

    def outer_vectors(self) -> None:
        """Several K or V vectors by one instruction."""
        rng, t = self.rng, self.t
        n = int(rng.choice([1, 2, 2, 4]))
        fields: Fields = {"n1": n, "d1": 1, "d2": int(rng.integers(1, 6))} | self._count("n2", [2, 3, 4])
        fields |= {"source": int(Source.Z), "shift": int(rng.integers(24))}
        rows = self.longest(fields) + 1
        if rows > 80:
            return
        b = Bundle()
        self.stream_x(b, -t.vx_pass, rows, False)
        vx: Fields = {"op": int(VxOp.PASS), "source": int(Source.X), "n1": rows, "d1": 1}
        b.add(Queue.VX, -t.vx_pass, vx)
        self.vx_access(b, -t.vx_pass, vx)
        mode = SxmMode(int(rng.integers(1, 3)))
        self.cache_write(b, 0, fields | {"op": int(mode)}, mode)
        self.place(b)

    def based_words(self) -> None:
        """Activation words at an address with a base register: they may be any of the region."""
        rng, t, cfg = self.rng, self.t, self.cfg
        n = int(rng.integers(1, 2 * cfg.word_rows))
        fields: Fields = {"n1": n, "d1": 1} | (self._count("n2", [2, 3]) if rng.random() < 0.6 else {})
        fields |= {"op": int(SxmMode.ACT), "source": int(Source.Z), "shift": int(rng.choice([12, 63]))}
        rows, words = self.longest(fields) + 1, -(-n // cfg.word_rows)
        if rows > 80 or words > self.act.size:
            return
        b = Bundle()
        self.stream_x(b, -t.vx_pass, rows, False)
        vx: Fields = {"op": int(VxOp.PASS), "source": int(Source.X), "n1": rows, "d1": 1}
        b.add(Queue.VX, -t.vx_pass, vx)
        self.vx_access(b, -t.vx_pass, vx)
        fields |= self._into("dst", "w", self.act, fields, words - 1)
        b.add(Queue.SXM, 0, fields)
        low, high = self._ends(fields, 0)
        b.writes += [(("act", word), low, high, t.sxm_act, None) for word in self.act.rows()]
        self._in_token(b, high)
        self.place(b)

    # Phases --------------------------------------------------------------------------------------------

    def boundary(self) -> None:
        """A phase ends when everything is there; the next one begins with a scalar."""
        if self.splits:
            self.operands()
            ready = [self.ready[r] for r in self.ready if r[0] in ("P", "SUMSQ", "SUM", "R")]
            self.sched.close("boundary", self.sched.settle(), *ready)
            op = SfuOp(int(self.rng.choice([0, 1, 2, 4, 4])))
            if self.scalar_fields(op) is not None:
                self.scalar(op)

    def straddle(self) -> None:
        """A phase ends while streams run; the next one begins with what takes their rows."""
        rng, t, filled, n = self.rng, self.t, self.filled(), 160
        if not self.splits:
            return
        kind = int(rng.choice([0, 1, 2, 2, 3, 3]))
        b = Bundle()
        if kind < 2 and not filled:
            kind = 2
        fields: Fields = {"n1": n, "d1": 1}
        acc = next(iter(filled), 0)
        drain = fields | {"width": int(filled.get(acc, 0)), "acc": acc, "source": int(AccSource.ACC), "shift": 20}
        if kind < 2:
            b.add(Queue.SR, -t.mem_read, fields | self.address("s", self.scale, fields))
            if kind:
                b.add(Queue.ACC, 0, drain)
                self.acc_access(b, 0, drain)
        else:
            self.stream_x(b, 0, n, True)
            if kind == 3:
                vx: Fields = fields | {"op": int(VxOp.PASS), "source": int(Source.X)}
                b.add(Queue.VX, 0, vx)
                self.vx_access(b, 0, vx)
        self.place(b, tight=True)
        queue = (Queue.SR, Queue.ACC, Queue.XR, Queue.VX)[kind]
        end = self.sched.free[queue]
        self.sched.close("straddle", self.sched.start + t.phase_min)
        if ((end - self.sched.start) < 40).any() or (self.sched.start <= self.sched.free[queue] - n + t.acc).any():
            return
        if kind == 0:
            self._at_once(Queue.ACC, drain | {"n1": 3})
        elif kind == 1:
            self._take(Source.Y)
        elif kind == 3:
            self._take(Source.Z)
        else:
            self._at_once(Queue.VX, self.vx_fields(self.vx_op()) | {"n1": 2, "d1": 1})

    def _idle(self, queue: Queue) -> bool:
        return bool((self.sched.free[queue] <= self.sched.start).all())

    def _at_once(self, queue: Queue, fields: Fields) -> None:
        if not self._idle(queue):
            return
        b = Bundle()
        b.add(queue, 0, fields)
        (self.acc_access if queue is Queue.ACC else self.vx_access)(b, 0, fields)
        if all((self.ready.get(r, self.zero) - low <= self.sched.start).all() for r, low, _ in b.reads):
            self.place(b, tight=True)

    def _take(self, source: Source) -> None:
        """Whatever samples a stream, in the first cycle."""
        rng, pattern = self.rng, {"n1": 2, "d1": 1}
        kinds = [Queue.XW, Queue.SXM, Queue.SFU if source is Source.Z else Queue.TOP]
        for queue in kinds:
            if not self._idle(queue) or rng.random() < 0.3:
                continue
            b = Bundle()
            if queue is Queue.XW:
                store: Fields = pattern | {"source": int(source)}
                self.xw(b, 0, store | self.address("x", self.vector, store, sel=False))
            elif queue is Queue.SXM:
                self.sxm(b, 0, pattern, source, 12.0)
            elif queue is Queue.SFU:
                self.capture_access(b, 0, pattern, False)
                b.add(Queue.SFU, 0, pattern | {"op": int(SfuOp.CAPTURE)})
            else:
                self.insert(b, 0, pattern, sampling=True)
            late = [self.ready.get(r, self.zero) - low for r, low, _ in b.reads]
            late += [self.used[r] + war - low for r, low, _, _, war in b.writes if war is not None and r in self.used]
            late += [time - offset for time, offset in b.after]
            if b.slots and all((at <= self.sched.start).all() for at in late):
                self.place(b, tight=True)
            else:
                self._emit = None
