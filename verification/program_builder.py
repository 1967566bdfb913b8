"""Places bundles of random programs: loops, addresses, and when what is read is there.

Times are vectors over the numbers of keys that a run can have, as in ``firmware/schedule.py``, and count issues;
a micro-op comes one cycle later, all of them alike. A *resource* is what instructions pass on beside streams: an
accumulator set, an activation word, a register. Its ``ready`` is the first cycle in which an instruction may use
what was written last, its ``used`` the last one in which somebody does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from firmware.schedule import Scheduler, Slot, Times
from hdl.config import BLOCK, SCALARS, SOFTMAX_BANKS, Config
from hdl.image import Space
from hdl.isa import EXPERT_BASES, AccSource, Base, Count, Init, Queue, SfuOp, Source, SxmMode, VxOp, Width, get_isa
from hdl.timing import get_timing
from sim.hazards import Hazards, MachineError
from sim.second_ports import ANY
from verification.program_memory import (
    Part,
    Region,
    constant_rows,
    place_region,
    random_sizes,
    region_parts,
    table_rows,
    weight_bytes,
)

Fields = dict[str, int]
Resource = tuple[Any, ...]
_NEVER = 1 << 40


class Bundle:
    """Instructions at fixed distances, and what they read and write."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.reads: list[tuple[Resource, Times, Times]] = []
        """(resource, first use, last use), relative to the bundle."""
        self.writes: list[tuple[Resource, Times, Times, int, int | None]] = []
        """(resource, first, last, latency, war): first comes at ``used`` + war at the earliest."""
        self.after: list[tuple[Times, Times]] = []
        """(absolute time, offset of what may not come before it)."""
        self.defines: set[str] = set()
        self.rows_read: set[tuple[int, int, int]] = set()
        """(number of keys, vector row, offset) of what XR reads."""
        self.vectors: list[tuple[int, Fields, bool]] = []
        """(offset, fields, K) of the instructions that write vectors to the cache."""
        self.state: Times | int = -_NEVER
        """Offset of the last cycle in which the token in work must be the same."""

    def add(self, queue: Queue, offset: int, fields: Fields) -> None:
        """An instruction; one of each queue, but for two of VX."""
        self.slots.append(Slot(queue, offset, fields))

    def has(self, queue: Queue) -> bool:
        """Whether an instruction of a queue is in it."""
        return any(slot.queue is queue for slot in self.slots)


class Builder:
    """What all bundles share: memories, loops, resources, phases."""

    LOOP = ("n1", "n1_sel", "d1", "n2", "n2_sel", "d2")

    behind = False
    """The phase in work lies behind the layer loop."""

    def __init__(self, cfg: Config, rng: np.random.Generator, long: bool = False):
        self.cfg, self.rng, self.long = cfg, rng, long
        self.isa, self.t = get_isa(cfg), get_timing(cfg)
        self.sizes = s = random_sizes(cfg, rng)
        keys = np.unique(np.maximum(np.arange(1, min(s.window, s.positions) + 1), s.floor))
        self.sched = Scheduler(cfg, keys)
        self.zero = np.zeros(len(keys), np.int64)
        self.tight = float(rng.choice([1.0, 0.8, 0.5]))
        self._memories()
        self.ready: dict[Resource, Times] = {}
        self.used: dict[Resource, Times] = {}
        self.acc: list[dict[int, tuple[Width, float]]] = [{} for _ in keys]
        """Of each number of keys, the accumulators that hold a sum: its width, and a bound of its size."""
        self.act_bound = 0.0
        self.defined: set[str] = set()
        self.experts: set[int] = set()
        self.act_lg, self.sum_lg, self.vector_lg = 9.0, 20.0, 20.0
        self.scalar_lg = [0.0] * SCALARS
        self.last_scalar = 0
        self.probe = False
        """Probabilities were just captured."""
        self.ready["noise",] = self.zero + self.t.top_noise
        self.exact: set[str] = set()
        """What was used in the very first cycle in which it was there."""
        self._writer: dict[Resource, str] = {}
        self._emit: tuple[Fields, bool] | None = None
        self._state_end: Times = self.zero
        self._sample_end: Times = self.zero

    def _memories(self) -> None:
        cfg, rng = self.cfg, self.rng
        own = place_region(rng, 34, cfg.weight_depth, True)
        self.w4, self.w8 = own.part(0, 20), own.part(20, 14)
        taken = set(own.rows())
        self.kv = own
        while taken & set(self.kv.rows()):
            self.kv = place_region(rng, 10, cfg.weight_depth, False)
        # Rows with exponents of K and V lie behind those that are only read.
        self.scale_all = place_region(rng, 30, cfg.scale_depth, False)
        self.coef_all = place_region(rng, 30, cfg.coef_depth, False)
        self.scale, self.coef = (r.part(0, 20) for r in (self.scale_all, self.coef_all))
        self.k_rows, self.v_rows = (r.part(20, 10) for r in (self.scale_all, self.coef_all))
        self.vector = place_region(rng, 12, cfg.vector_depth, False)
        self.act = place_region(rng, 6, cfg.act_depth, False)

    def memory_parts(self) -> list[Part]:
        """Contents of all memories that a host can load."""
        cfg, rng, parts = self.cfg, self.rng, []
        for column in range(cfg.columns):
            for region, int4 in ((self.w4, True), (self.w8, False), (self.kv, False)):
                rows = weight_bytes(rng, int4, region.size, cfg.lanes)
                parts += region_parts(cfg, Space.WEIGHT, column, region, rows)
        for space, region in ((Space.SCALE, self.scale_all), (Space.COEF, self.coef_all)):
            parts += region_parts(cfg, space, 0, region, table_rows(rng, space, region.size, cfg.vlanes))
        return [*parts, (int(Space.CONST), 0, 0, constant_rows(rng))]

    # Fields --------------------------------------------------------------------------------------------

    def bits(self, name: str, queue: Queue) -> int:
        """Bits of a field."""
        return self.isa.formats[queue].by_name[name].bits

    def any_value(self, name: str, queue: Queue) -> int:
        """A value for a field that nobody looks at."""
        top = (1 << self.bits(name, queue)) - 1
        return int(self.rng.choice([0, top, int(self.rng.integers(top + 1))]))

    def _counts(self, fields: Fields, name: str) -> Times:
        return self.zero + self.sched.count(fields, name)

    def most(self, fields: Fields, name: str) -> int:
        """Largest loop count."""
        return int(self._counts(fields, name).max())

    def least(self, fields: Fields, name: str) -> int:
        """Least loop count."""
        return int(self._counts(fields, name).min())

    def longest(self, fields: Fields) -> int:
        """Cycles from the first micro-op to the last."""
        return int(self.sched.span(fields).max())

    def loops(self, *, outer: bool, most: int) -> Fields:
        """Loop fields of at most ``most`` micro-ops, dense or not, counted by a field or by a register."""
        rng = self.rng
        while True:
            fields: Fields = {"d1": int(rng.choice([1, 1, 1, 2, 3, int(rng.integers(1, 12))]))}
            fields |= self._count("n1", [1, 2, 2, 3, 4, 8, int(rng.integers(1, most + 1))])
            if outer and rng.random() < 0.6:
                fields |= self._count("n2", [1, 2, 3, int(rng.integers(1, 6))])
                fields["d2"] = int(rng.choice([1, 1, self.longest(fields) + 1, int(rng.integers(1, 60))]))
            if self.most(fields, "n1") * self.most(fields, "n2") <= most and self.longest(fields) < 200:
                return fields

    def _count(self, name: str, choices: list[int]) -> Fields:
        rng = self.rng
        if rng.random() < (0.3 if name == "n1" else 0.5):
            # The number that is not meant may be anything.
            ignored = int(rng.choice([0, 1, (1 << self.bits(name, Queue.SR)) - 1]))
            return {f"{name}_sel": int(rng.integers(1, len(Count))), name: ignored}
        return {name: int(rng.choice(choices))}

    def address(self, name: str, region: Region, fields: Fields, *, sel: bool = True) -> Fields:
        """An address with base register and strides whose every value lies in ``region``."""
        rng = self.rng
        queue = {"w": Queue.ABC, "a": Queue.ABC, "s": Queue.SR, "c": Queue.CR, "x": Queue.XR}[name]
        what = next(a for a in self.isa.formats[queue].addresses if a.name == name)
        counts = [self.most(fields, "n1")] + ([self.most(fields, "n2")] if what.outer else [])
        bases = [b for b in what.bases if b not in EXPERT_BASES or EXPERT_BASES.index(b) in self.experts]
        if self.sizes.sequences != 2:
            bases = [b for b in bases if b is not Base.TOKEN1]
        wrap = 1 << what.bits
        for attempt in range(12):
            base = Base(int(rng.choice([int(b) for b in bases]))) if what.based and sel and attempt < 8 else Base.ZERO
            told = Base.TOKEN if base is Base.TOKEN1 else base  # here, the second token's base has KEY's number
            low, high = self.sizes.reach(self.cfg, name, told, last=self.behind) if what.based else (0, 0)
            out: Fields = {f"{name}_sel": int(base)} if what.based else {}
            for i, count in enumerate(counts, 1):
                step = int(rng.choice([0, 1, 1, 1, 2, -1, int(rng.integers(-4, 5))])) if attempt < 10 else 0
                if count == 1:
                    step = int(rng.choice([0, 1, wrap - 1, int(rng.integers(wrap))]))  # never added
                else:
                    low, high = low + min(0, step * (count - 1)), high + max(0, step * (count - 1))
                out[f"{name}_s{i}"] = step % wrap
            if high - low < region.size:
                room = region.size - (high - low)
                start = region.base - low + int(rng.choice([0, room - 1, int(rng.integers(room))]))
                return out | {name: start % wrap}
        raise AssertionError("a single row always fits")

    def shift_to(self, lg: float, low: int, high: int) -> int:
        """A right shift that leaves about ``low`` .. ``high`` bits of 2**lg; now and then any."""
        rng = self.rng
        if rng.random() < 0.1:
            return int(rng.choice([0, 63, int(rng.integers(64))]))
        return int(np.clip(round(lg) - int(rng.integers(low, high + 1)), 0, 63))

    def filled(self) -> dict[int, Width]:
        """Accumulators that hold a sum, of one width whatever the number of keys."""
        return {s: w for s, (w, _) in self.acc[0].items() if all(s in a and a[s][0] == w for a in self.acc)}

    def scalars(self) -> list[int]:
        """Scalar registers with a value."""
        return [0, *(i for i in range(1, SCALARS) if f"R{i}" in self.defined)]

    def maxima(self) -> list[int]:
        """Banks of MAX with a value."""
        return [i for i in range(SOFTMAX_BANKS) if f"MAX{i}" in self.defined]

    def sums(self) -> list[int]:
        """Banks of SUM with a value."""
        return [i for i in range(SOFTMAX_BANKS) if f"SUM{i}" in self.defined]

    # What instructions read and write ------------------------------------------------------------------

    def _uops(self, fields: Fields) -> list[list[tuple[int, int, int]]]:
        """For each number of keys, (offset, i1, i2) of every micro-op."""
        n1s, n2s = self._counts(fields, "n1"), self._counts(fields, "n2")
        d1, d2 = fields.get("d1", 1), fields.get("d2", 1)
        return [
            [(i2 * max(d2, (n1 - 1) * d1 + 1) + i1 * d1, i1, i2) for i2 in range(n2) for i1 in range(n1)]
            for n1, n2 in zip(map(int, n1s), map(int, n2s), strict=True)
        ]

    def _touched(self, touches: list[list[tuple[Resource, int]]]) -> dict[Resource, tuple[Times, Times]]:
        """First and last offset at which each resource is touched, from (resource, offset) by number of keys."""
        out: dict[Resource, tuple[Times, Times]] = {}
        for k, row in enumerate(touches):
            for resource, at in row:
                low, high = out.setdefault(resource, (self.zero + _NEVER, self.zero - _NEVER))
                low[k], high[k] = min(low[k], at), max(high[k], at)
        return out

    def _rows(
        self, kind: str, name: str, fields: Fields, offset: int, wrap: int
    ) -> dict[Resource, tuple[Times, Times]]:
        start, s1, s2 = fields[name], fields.get(f"{name}_s1", 0), fields.get(f"{name}_s2", 0)
        return self._touched([
            [((kind, (start + i1 * s1 + i2 * s2) % wrap), offset + at) for at, i1, i2 in uops]
            for uops in self._uops(fields)
        ])  # fmt: skip

    def _ends(self, fields: Fields, offset: int) -> tuple[Times, Times]:
        return self.zero + offset, offset + self.sched.span(fields)

    def width(self) -> Width:
        """Any width that the columns take."""
        width = Width(int(self.rng.integers(2)))
        return width if self.cfg.int4 else Width.INT8

    def paired(self, fields: Fields) -> bool:
        """Whether rows are what ROPE takes: with one lane, pairs of them that come near each other."""
        close = fields["n1"] % 2 == 0 and not fields.get("n1_sel") and fields["d1"] <= self.t.rope_pitch
        return self.cfg.vlanes > 1 or close

    def captured(self, fields: Fields) -> bool:
        """Whether rows are what CAPTURE takes: of several rows of P, one after another, no more than there are."""
        several = self.cfg.expert_rows > 1
        short = fields["n1"] <= self.cfg.expert_rows and not fields.get("n1_sel") and "n2" not in fields
        return not several or short

    def sequence(self) -> int:
        """Whose token a micro-op uses."""
        return int(self.rng.integers(2)) if self.sizes.sequences == 2 else 0

    def _in_token(self, b: Bundle, last: Times) -> None:
        b.state = np.maximum(b.state, last)

    def xr_access(self, b: Bundle, offset: int, fields: Fields) -> None:
        """XR reads rows."""
        b.rows_read |= set(self._vector_rows(fields, offset))
        rows = self._rows("vector", "x", fields, offset, 1 << self.bits("x", Queue.XR))
        b.reads += [(r, low, high) for r, (low, high) in rows.items()]

    def _vector_rows(self, fields: Fields, offset: int) -> Iterator[tuple[int, int, int]]:
        wrap = 1 << self.bits("x", Queue.XR)
        for k, uops in enumerate(self._uops(fields)):
            yield from ((k, (fields["x"] + i1 * fields.get("x_s1", 0)) % wrap, offset + at) for at, i1, _ in uops)

    def xw(self, b: Bundle, offset: int, fields: Fields) -> None:
        """XW writes rows: not in the cycle before one is read, nor where the bundle itself would do that."""
        if any((k, row, at + 1) in b.rows_read for k, row, at in self._vector_rows(fields, offset)):
            return
        b.add(Queue.XW, offset, fields)
        rows = self._rows("vector", "x", fields, offset, 1 << self.bits("x", Queue.XW))
        b.writes += [(r, low, high, self.t.xw, 0) for r, (low, high) in rows.items()]

    def read_rows(self, queue: Queue, fields: Fields) -> None:
        """A bundle of its own: XR, SR or CR reads rows, those of K and V among them."""
        b = Bundle()
        b.add(queue, 0, fields)
        if queue is Queue.XR:
            self.xr_access(b, 0, fields)
        else:
            b.reads.append((("kv", queue), *self._ends(fields, 0)))
        self.place(b)

    def gather_access(self, b: Bundle, offset: int, fields: Fields) -> None:
        """GATHER looks at the token's id for a while; the rows of a word come before those of another one."""
        low, high = self._ends(fields, offset)
        b.reads.append((("gather",), low, high))
        b.writes.append((("gather",), low, high, self.cfg.word_rows, None))
        # The tile keeps the width of the last GATHER alone.
        b.reads.append((("gather width", 1 - fields["width"]), low, high))
        b.writes.append((("gather width", fields["width"]), low, high, self.t.gather - 3, None))
        sequence = fields.get("sequence", 0)
        b.reads.append((("gather sequence", 1 - sequence), low, high))
        b.writes.append((("gather sequence", sequence), low, high, self.t.gather_other, None))
        self._in_token(b, self._ends(fields, offset)[1] + self.t.gather - 2)

    def dot_access(self, b: Bundle, offset: int, fields: Fields, *, cached: bool) -> bool:
        """DOT; False where it would add to what holds no sum of its width, or overflow."""
        cfg = self.cfg
        width, init = Width(fields["width"]), Init(fields["init"])
        sets = 1 << self.bits("acc", Queue.ABC)
        step = cfg.lanes * (8 if width is Width.INT4 else 128) * 2.0**self.act_bound
        after, touches, steps = [], [], 1
        for held, uops in zip(self.acc, self._uops(fields), strict=True):
            now, row = dict(held), []
            for at, i1, i2 in uops:
                acc = (fields["acc"] + i1 * fields.get("acc_s1", 0) + i2 * fields.get("acc_s2", 0)) % sets
                clear = (init is Init.INNER and i1 == 0) or (init is Init.OUTER and i2 == 0)
                if not clear and (acc not in now or now[acc][0] != width):
                    return False
                now[acc] = width, step + (0 if clear else now[acc][1])
                if now[acc][1] >= 2.0 ** (cfg.acc_bits - 1):
                    return False
                row.append((("acc", acc), offset + at))
            after.append(now)
            touches.append(row)
            steps = max(steps, len(uops))
        self.acc = after
        self.sum_lg = self.act_lg + (2 if width is Width.INT4 else 6) + math.log2(cfg.lanes * steps) / 2
        b.writes += [(r, low, high, self.t.dot, 1 - self.t.dot) for r, (low, high) in self._touched(touches).items()]
        words = self._rows("act", "a", fields, offset, 1 << self.bits("a", Queue.ABC))
        b.reads += [(r, low, high) for r, (low, high) in words.items()]
        if cached:
            b.reads.append((("kv", Queue.ABC), *self._ends(fields, offset)))
        return True

    def acc_access(self, b: Bundle, offset: int, fields: Fields) -> None:
        """ACC drains accumulators with a scalar; it may find a maximum."""
        low, high = self._ends(fields, offset)
        if fields["source"] == AccSource.ACC:
            sets = self._rows("acc", "acc", fields, offset, 1 << self.bits("acc", Queue.ACC))
            b.reads += [(r, first, last) for r, (first, last) in sets.items()]
        if fields.get("scalar"):
            b.reads.append((("R", fields["scalar"]), low, high))
        if fields.get("max"):
            b.writes.append((("MAX", fields["bank"]), low, high, self.t.max, None))
            b.defines.add(f"MAX{fields['bank']}")
        if fields.get("max") or fields.get("bcast"):
            self._in_token(b, high)

    def vx_access(self, b: Bundle, offset: int, fields: Fields) -> None:
        """VX may sample T; EXP reads a maximum and makes a sum."""
        low, high = self._ends(fields, offset)
        routed = fields["source"] == Source.T
        if routed:
            b.reads.append((("T",), low, high))
        if fields["op"] == VxOp.EXP:
            if not routed:
                b.reads.append((("MAX", fields["bank"]), low, high))
            b.writes.append((("SUM", fields["bank"]), low, high, self.t.vx_sum, None))
            b.defines.add(f"SUM{fields['bank']}")
            self._in_token(b, high)

    def capture_access(self, b: Bundle, offset: int, fields: Fields, unit: bool) -> None:
        """CAPTURE; the rows hold probabilities with ``unit``."""
        b.writes.append((("P",), *self._ends(fields, offset), self.t.sfu_capture, None))
        self.defined.discard("P")
        if unit:
            b.defines.add("P")

    def scalar_access(self, b: Bundle, offset: int, fields: Fields) -> None:
        """RSQRT, RECIP, MUL, PROB: operands, and a result that overtakes none for the same register."""
        t, op, dst = self.t, SfuOp(fields["op"]), fields["dst"]
        low, high = self._ends(fields, offset)
        lg = self.scalar_lg[fields["a"]]
        if op is SfuOp.RSQRT:
            b.reads.append((("SUMSQ",), low, high))
            latency, lg = t.sfu_rsqrt, -self.act_lg - 2
        elif op is SfuOp.RECIP:
            b.reads.append((("SUM", fields["bank"]), low, high))
            latency, lg = t.sfu_recip, -17.0
        else:
            if fields["a"]:
                b.reads.append((("R", fields["a"]), low, high))
            latency = t.sfu_mul
            if op is SfuOp.PROB:
                b.reads.append((("P",), low, high))
                latency, lg = t.sfu_prob, lg + 12
        if dst:
            if ("R", dst) in self.ready:
                b.after.append((self.ready["R", dst] + 1, low + latency))
            b.writes.append((("R", dst), low, high, latency, None))
            b.defines.add(f"R{dst}")
            self.last_scalar = dst
            self.scalar_lg[dst] = float(np.clip(lg, -40, 40))

    def sxm_act(self, b: Bundle, offset: int, fields: Fields, dst: int, lg: float) -> None:
        """SXM.ACT to words from ``dst`` on."""
        cfg, t = self.cfg, self.t
        fields |= {"op": int(SxmMode.ACT), "dst": dst, "dst_sel": int(Base.ZERO)}
        short = self.most(fields, "n2") > 1 and (fields.get("n1_sel") or fields["n1"] % cfg.block_rows)
        if cfg.square_lanes < BLOCK and short:
            fields["sumsq"] = 0  # blocks would come sooner than their squares are summed
        b.add(Queue.SXM, offset, fields)
        step = fields.get("dst_s2", 0)
        words = self._touched([
            [(("act", dst + i2 * step + i1 // cfg.word_rows), offset + at) for at, i1, i2 in uops]
            for uops in self._uops(fields)
        ])  # fmt: skip
        b.writes += [(r, low, high, t.sxm_act, None) for r, (low, high) in words.items()]
        if fields.get("sumsq"):
            low, high = self._ends(fields, offset)
            b.writes.append((("SUMSQ",), low, high, t.sxm_sumsq, 0))
            b.defines.add("SUMSQ")
        self.act_bound = max(self.act_bound, min(24.0, 32.0 - fields["shift"]))
        self.act_lg = float(np.clip(lg, 0, 24))

    def cache_write(self, b: Bundle, offset: int, fields: Fields, mode: SxmMode) -> None:
        """SXM.KEY or VALUE into the regions kept for them; nothing where a vector does not fit."""
        cfg, rng, t = self.cfg, self.rng, self.t
        key = mode is SxmMode.KEY
        rows = self.most(fields, "n1")
        words = -(-rows // (cfg.word_rows if key else cfg.superlane_columns))
        vset = 1 if key else int(rng.choice([0, 1, 1, 2]))
        if not key and words == 1:
            vset = self.any_value("vset", Queue.SXM)
        span = (words - 1) * vset if not key else words - 1
        if rows * cfg.vlanes > cfg.head_max or span >= self.kv.size:
            return
        if not key and max(self.kv.rows()) >= cfg.value_words:
            return
        name, region, reader = ("s", self.k_rows, Queue.SR) if key else ("c", self.v_rows, Queue.CR)
        out = {"vset": vset if not key else self.any_value("vset", Queue.SXM)}
        out |= self._into("dst", "w", self.kv, fields, span)
        if not self._vectors_pass([*b.vectors, (offset, fields | out, key)]):
            return
        b.vectors.append((offset, fields | out, key))
        out |= self._into("srow", name, region, fields, 0)
        b.add(Queue.SXM, offset, fields | out)
        high = self._ends({k: fields[k] for k in ("n1", "n1_sel", "d1") if k in fields}, offset)[1]
        ends = self._ends(fields, offset)[1]
        g = self._counts(fields, "n1")
        pace = 1 if key else t.value_pace
        left = ends + (g - 1) * pace
        # The last row of the first vector; that of the last one.
        b.after.append((self.ready.get(("kvend",), self.zero), high))
        b.writes.append((("kvend",), high, ends + g * pace, 0, None))
        # Where rows leave more slowly than they come, the next vector's do not come before half of them have left.
        b.after.append((self.ready.get(("kvkept",), self.zero), self.zero + offset))
        b.writes.append((("kvkept",), high, ends + g, 0, None))
        if cfg.ecc:
            # Values are read behind all that was written. Closer vectors: those of one instruction, where they may be.
            if not key:
                b.after.append((self.ready.get(("kvport",), self.zero), high))
            b.writes.append((("kvport",), high, left + 1, t.value_update, None))
        b.writes.append((("kv", Queue.ABC), high, left + 1, t.sxm_kv, cfg.vlanes - t.sxm_kv))
        b.writes.append((("kv", reader), high, left + 1, t.sxm_kv, t.kv_write - t.sxm_kv))
        self._in_token(b, ends)

    def _vectors_pass(self, vectors: list[tuple[int, Fields, bool]]) -> bool:
        """Whether the vectors of a bundle's instructions (offset, fields, K) may follow each other as they do."""
        for k in range(len(self.zero)):
            rules = Hazards(self.cfg, self.t)
            for offset, fields, key in vectors:
                try:
                    self._play_vectors(rules, offset, fields, key, self._uops(fields)[k])
                except MachineError:
                    return False
        return True

    def _play_vectors(
        self, rules: Hazards, offset: int, fields: Fields, key: bool, uops: list[tuple[int, int, int]]
    ) -> None:
        """One instruction's vectors by the rules; raises MachineError. All base registers count as zero."""
        columns, wrap = self.cfg.superlane_columns, 1 << self.bits("dst", Queue.SXM)
        last = max(i1 for _, i1, _ in uops)
        for at, i1, i2 in uops:
            rules.kv_row(offset + at, i1)
            if i1 < last:
                continue
            start = fields["dst"] + i2 * fields["dst_s2"]
            places = [(ANY, start + i // self.cfg.word_rows) for i in range(last + 1)]
            if not key:
                places = [(i % columns, start + i // columns * fields["vset"]) for i in range(last + 1)]
            where = [(column, word % wrap) for column, word in places]
            rules.kv_written(offset + at, where, "scale" if key else "coef", i2)

    def _into(self, name: str, memory: str, region: Region, fields: Fields, span: int) -> Fields:
        """A destination of SXM in ``region`` with ``span`` more rows behind it."""
        rng = self.rng
        what = next(a for a in self.isa.formats[Queue.SXM].addresses if a.name == name)
        outer, wrap = self.most(fields, "n2"), 1 << what.bits
        for attempt in range(12):
            base = Base(int(rng.choice([int(b) for b in what.bases]))) if attempt < 8 else Base.ZERO
            # A row's register is that of the scale or of the coefficient memory, whichever is written.
            source = {Base.KEY: "s", Base.VALUE: "c"}.get(base, memory) if name == "srow" else memory
            low, high = self.sizes.reach(self.cfg, source, base, last=self.behind)
            step = int(rng.choice([0, 1, 2, -1])) if attempt < 10 else 0
            if outer == 1:
                step = int(rng.choice([0, int(rng.integers(wrap))]))
            else:
                low, high = low + min(0, step * (outer - 1)), high + max(0, step * (outer - 1))
            if high - low + span < region.size:
                starts = [(region.base - low + i) % wrap for i in range(region.size - (high - low) - span)]
                end = [start for start in starts if start in (0, wrap - 1)]
                start = int(rng.choice(end if end and rng.random() < 0.5 else starts))
                return {name: start, f"{name}_sel": int(base), f"{name}_s2": step % wrap}
        raise AssertionError("a single vector always fits")

    def insert_access(self, b: Bundle, offset: int, fields: Fields) -> None:
        """TOP.INSERT, with noise or without."""
        if fields["noise"]:
            self._noise(b, *self._ends(fields, offset))

    def _noise(self, b: Bundle, low: Times, high: Times) -> None:
        b.reads.append((("noise",), low, high))
        b.writes.append((("noise",), low, high, self.t.top_noise, None))
        self._in_token(b, high)

    # Placing -------------------------------------------------------------------------------------------

    def chosen(self) -> None:
        """Experts were just chosen."""

    def emit_later(self, emit: Fields, noise: bool) -> None:
        """The EMIT that follows the INSERT of the bundle about to be placed."""
        self._emit = emit, noise

    def place(self, b: Bundle, tight: bool = False) -> None:
        """A bundle at the earliest time that all rules allow, or a little later."""
        for slot in b.slots:
            for name in ("w_sel", "s_sel"):
                if slot.fields.get(name) in EXPERT_BASES:
                    at = self.zero + slot.offset
                    b.reads.append((("expert", EXPERT_BASES.index(Base(slot.fields[name]))), at, at))
        after: Times = self.zero
        for resource, low, _ in b.reads:
            if resource in self.ready:
                after = np.maximum(after, self.ready[resource] - low)
        for resource, low, _, _, war in b.writes:
            if war is not None and resource in self.used:
                after = np.maximum(after, self.used[resource] + war - low)
        for time, offset in b.after:
            after = np.maximum(after, time - offset)
        if not tight and self.rng.random() > self.tight:
            after = self.sched.earliest(b.slots, after) + int(self.rng.integers(1, 25))
        time = self.sched.place(b.slots, after)
        for resource, low, _ in b.reads:
            if resource in self.ready and (time + low == self.ready[resource]).any():
                self.exact.add(self._writer.get(resource, "start"))
        for time_of, offset in b.after:
            if b.slots[0].queue is Queue.TOP and (time + offset == time_of).any():
                self.exact.add("INSERT")
        for resource, _, high in b.reads:
            self.used[resource] = np.maximum(self.used.get(resource, self.zero), time + high)
        for resource, _, high, latency, _ in b.writes:
            self.ready[resource] = np.maximum(self.ready.get(resource, self.zero), time + high + latency)
            kind = resource[1].name if resource[0] == "kv" else f"+{latency}" if resource[0] == "R" else ""
            self._writer[resource] = f"{resource[0]}{kind}"
        self.defined |= b.defines
        self._state_end = np.maximum(self._state_end, time + b.state + 2)
        if self._emit is not None:
            inserted = next(time + s.offset + self.sched.span(s.fields) for s in b.slots if s.queue is Queue.TOP)
            (emit, noise), self._emit = self._emit, None
            self._place_emit(emit, inserted + (self.t.top_insert_noise if noise else self.t.top_insert))

    def _place_emit(self, emit: Fields, after: Times) -> None:
        t = self.t
        b = Bundle()
        b.add(Queue.TOP, 0, emit)
        low, high = self._ends(emit, 0)
        b.after.append((after, low))
        self._in_token(b, high)
        if emit["expert"]:
            for i in range(emit["n1"]):
                at = low + i * emit["d1"]
                b.writes.append((("expert", i), at, at, t.top_emit, 1))
            b.writes.append((("T",), low, high, t.top_row, None))
            b.defines.add("T")
        else:
            self._noise(b, low, high)
        self.place(b)
        if emit["expert"]:
            self.experts |= set(range(emit["n1"]))
            self.chosen()
        else:
            end = self.used["noise",] + t.issue + t.top_sample + t.token
            self._sample_end = np.maximum(self._sample_end, end)

    # Phases --------------------------------------------------------------------------------------------

    def phase_time(self) -> int:
        """Cycles of the phase in work so far."""
        return max(int(np.max(free - self.sched.start)) for free in self.sched.free.values())

    def begin_loop(self) -> None:
        """The layer loop begins: what a layer finds need not be what the one before found."""
        self.acc = [{} for _ in self.acc]
        self.defined.discard("P")
        self.experts.clear()

    def end_phase(self, note: str, *, jump: bool, token_end: bool, **flags: Any) -> None:
        """Ends the phase; behind ``jump``, a phase follows that can be reached in other ways, too."""
        rng = self.rng
        until: list[Times | int] = []
        if jump:
            until = [self.sched.settle(), *(t for r, t in self.ready.items() if r[0].startswith("kv"))]
            until.append(self.ready["noise",] - self.t.fetch_gap(self.isa.formats[Queue.TOP]))
        if token_end:
            until += [self._state_end, self._sample_end]
        if rng.random() < 0.3:
            until.append(self.sched.start + int(rng.integers(60)))
        count = Count(int(rng.integers(len(Count))))
        slope = int(rng.choice([0, 1, int(rng.integers(8))])) if count else int(rng.integers(64))
        self.sched.close(note, *until, slope=slope, count=count, **flags)
        if jump:
            self.sched.jump_target()
