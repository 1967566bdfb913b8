"""Random programs that keep every rule of the machine: all operations, dense or loose, whole tokens.

A program is made of bundles, as the compiler's are: instructions at fixed distances that pass rows on to each
other. What a bundle reads and writes (accumulators, activation words, rows, registers) gives the earliest cycle
in which it may come; most bundles come just then. So chains run at their latencies exactly. Every kind of bundle
is in this file; places, times and values are in ``program_builder.py`` and ``program_memory.py``.

The machine has the last word: a program that it refuses is thrown away, and counted.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from firmware.errors import LpuError
from firmware.lower import pack_program
from hdl.config import SOFTMAX_BANKS, Config
from hdl.image import PROMPT_BITS, Param, Space, row_bytes
from hdl.isa import (
    FETCH_BITS,
    AbcOp,
    AccSource,
    Count,
    Init,
    IsaError,
    Program,
    Queue,
    SfuOp,
    Source,
    SxmMode,
    TopOp,
    VxOp,
    Width,
)
from sim.machine import Machine, MachineError
from verification.program_builder import Builder, Bundle, Fields
from verification.program_memory import Part


@dataclasses.dataclass(frozen=True)
class RandomProgram:
    """A program with all that is loaded before its run."""

    cfg: Config
    program: Program
    parts: tuple[Part, ...]
    params: dict[Param, int]
    prompt: tuple[int, ...]
    limit: int
    exact: frozenset[str] = frozenset()
    """Latencies that it keeps without a cycle to spare."""

    def load(self, machine: Machine) -> None:
        """Into the machine; the core gets the same over its link."""
        for space, sub, address, data in self.all_parts():
            machine.load(Space(space), sub, address, data)

    def corrupted(self, rng: np.random.Generator, flips: int) -> RandomProgram:
        """The program with some bits of its instruction words flipped."""
        parts = list(self.parts)
        code = [i for i, part in enumerate(parts) if part[0] == Space.PROGRAM]
        size = row_bytes(self.cfg, Space.PROGRAM)
        for _ in range(flips):
            at = code[int(rng.integers(len(code)))]
            data = bytearray(parts[at][3])
            word, bit = divmod(int(rng.integers(len(data) // size * FETCH_BITS)), FETCH_BITS)
            data[word * size + bit // 8] ^= 1 << bit % 8
            parts[at] = (*parts[at][:3], bytes(data))
        return dataclasses.replace(self, parts=tuple(parts))

    def all_parts(self) -> list[Part]:
        """Memories, program, parameters, prompt."""
        size, width = row_bytes(self.cfg, Space.PARAM), row_bytes(self.cfg, Space.PROMPT)
        # In two parts: the row between is the image's identity.
        params = [
            (int(Space.PARAM), 0, rows[0], b"".join(self.params[Param(r)].to_bytes(size, "little") for r in rows))
            for rows in (range(Param.LAYERS, Param.IMAGE), range(Param.PROMPT_LEN, max(Param) + 1))
        ]
        prompt = b"".join(token.to_bytes(width, "little") for token in self.prompt)
        return [*self.parts, *params, (int(Space.PROMPT), 0, 0, prompt)]


def random_program(
    cfg: Config, rng: np.random.Generator, *, long: bool = False, generator: type[Generator] | None = None
) -> tuple[RandomProgram, list[str]]:
    """A program that the machine runs, and what it said of those it refused before.

    ``long``: with the largest distances and counts, now and then: thousands of cycles. ``generator``: another one.
    """
    refused: list[str] = []
    while True:
        try:
            candidate = (generator or Generator)(cfg, rng, long).make()
            machine = Machine(cfg)
            candidate.load(machine)
            for _ in machine.run():
                pass
        except (IsaError, LpuError, MachineError) as error:  # a phase or a program that is too long, too
            refused.append(str(error))
            if len(refused) > 20:
                raise RuntimeError(f"no legal program in {len(refused)} tries: {refused}") from None
            continue
        return candidate, refused


class Generator(Builder):
    """Every kind of bundle."""

    endless = False
    """A loop of thousands of cycles may come."""

    splits = False
    """Whether the phase in work may be closed and go on as another one."""

    sampled: int | None = None
    """The sequence to sample for, any if None."""

    def finished(self, program: Program) -> Program:
        """The program as it is loaded; a subclass may change what the machine ignores."""
        return program

    def kinds(self) -> list[Callable[[], None]]:
        """The bundles to choose from, as often as they should come."""
        return [
            self.product, self.product, self.drain, self.drain, self.drain, self.rows, self.rows, self.embed,
            self.scalar, self.choice, self.stray, self.softmax, self.cache,
        ]  # fmt: skip

    def make(self) -> RandomProgram:
        """Phases before, in and behind the layer loop."""
        rng = self.rng
        before, inside, behind = int(rng.integers(3)), int(rng.integers(1, 4)), int(rng.integers(1, 3))
        total = before + inside + behind
        prompt_end = int(rng.integers(before + inside - 1, total))
        kinds = self.kinds()
        chosen = rng.choice(len(kinds), size=int(rng.integers(4, len(kinds) + 1)), replace=False)
        for i in range(total):
            # Its flag makes the layer loop's first phase the one that is closed last.
            self.splits = i != before
            self.behind = i >= before + inside
            if i == before:
                self.begin_loop()
            if i == 0:
                self.fill()
            last = i == total - 1
            self.endless = self.long and not last  # behind it, what is dumped would issue too late for its field
            for _ in range(int(rng.integers(1, 9))):
                if self.phase_time() < (1200 if self.long else 300):
                    kinds[int(rng.choice(chosen))]()
            if last:
                self.dump()
                for sequence in range(2 if self.sizes.sequences == 2 else 1):
                    self.sampled = sequence
                    self.choice(sampling=True)
            jump = i + 1 == before or i + 1 == before + inside or i >= prompt_end
            self.end_phase(
                f"phase {i}", jump=jump, token_end=last or i == prompt_end,
                loop_begin=int(i == before), loop_end=int(i == before + inside - 1),
                prompt_final=int(i == prompt_end), final=int(last),
            )  # fmt: skip
        return self._packed()

    def _packed(self) -> RandomProgram:
        cfg, rng, s = self.cfg, self.rng, self.sizes
        program = self.finished(self.sched.program())
        code = [(int(p.space), p.sub, p.address, p.data) for p in pack_program(cfg, program)]
        most = min(3, s.positions - 1)
        first, second = ([int(x) for x in rng.integers(0, s.vocab, int(rng.integers(1, most + 1)))] for _ in range(2))
        prompt = tuple(a | b << PROMPT_BITS for a, b in itertools.zip_longest(first, second, fillvalue=0))
        limit = int(rng.integers(1, 4))
        params = s.params(cfg) | {
            Param.EPS: [0, 1, (1 << 64) - 1, int(rng.integers(1 << 40))][int(rng.integers(4))],
            Param.PROMPT_LEN: len(first), Param.LIMIT: limit, Param.SEED: int(rng.integers(1 << 32)),
            Param.PROMPT_LEN1: len(second), Param.SEED1: int(rng.integers(1 << 32)),
            Param.TOPK: int(rng.integers(cfg.topk_max + 1)), Param.NOISE: int(rng.integers(3)) * cfg.noise,
            Param.STOP0: 1 << 31, Param.STOP1: 1 << 31, Param.CLEAR: 1,
        }  # fmt: skip
        return RandomProgram(cfg, program, (*self.memory_parts(), *code), params, prompt, limit, frozenset(self.exact))

    # Bundles -------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Every vector row and activation word has a value before anything reads it."""
        cfg, t = self.cfg, self.t
        words = self.act.size
        rows = words * cfg.word_rows
        gather = {"op": int(AbcOp.GATHER), "width": int(Width.INT8), "n1": words, "d1": cfg.word_rows}
        gather |= self.address("w", self.w8, {**gather, "n1": words})
        b = Bundle()
        b.add(Queue.ABC, 0, gather)
        self.gather_access(b, 0, gather)
        flat = {"n1": rows, "d1": 1}
        b.add(Queue.ACC, t.gather, flat | {"source": int(AccSource.GATHER)})
        b.add(Queue.SR, t.gather - t.mem_read, flat | self.address("s", self.scale, flat))
        at = t.gather + t.acc
        shift = int(self.rng.integers(2))
        # int8 times a scale: 24 bits.
        self.sxm_act(b, at, {"n1": rows, "d1": 1, "source": int(Source.Y), "shift": shift}, self.act.base, 24 - shift)
        vector = {"n1": self.vector.size, "d1": 1, "source": int(Source.Y), "x": self.vector.base, "x_s1": 1}
        self.xw(b, at, vector)
        self.place(b, tight=True)

    def product(self) -> None:
        """ABC.DOT in any order of loops, on accumulators that are cleared or hold sums of the same width."""
        rng = self.rng
        for _ in range(4):
            width = self.width()
            fields: Fields = {"op": int(AbcOp.DOT), "width": int(width), "init": int(rng.integers(3))}
            fields |= {"sequence": int(rng.integers(2))}
            fields |= self.loops(outer=True, most=24)
            pool = [self.w4] if width is Width.INT4 else [self.w4, self.w8, self.kv]
            region = pool[int(rng.integers(len(pool)))]
            fields |= self.address("w", region, fields)
            fields |= self.address("a", self.act, fields, sel=False)
            bits = self.bits("acc", Queue.ABC)
            fields |= {"acc": int(rng.integers(1 << bits))}
            fields |= {f"acc_s{i}": int(rng.choice([0, 1, 1, int(rng.integers(1 << bits))])) for i in (1, 2)}
            b = Bundle()
            b.add(Queue.ABC, 0, fields)
            if self.dot_access(b, 0, fields, cached=region is self.kv):
                self.place(b)
                return

    def drain(self) -> None:
        """Accumulators -> Y, and wherever Y goes."""
        rng, t = self.rng, self.t
        widths = self.filled()
        if not widths:
            self.product()
            widths = self.filled()
            if not widths:
                return
        flat = bool(rng.random() < 0.7)
        fields = self.loops(outer=not flat, most=24)
        width = Width(int(rng.choice([int(w) for w in widths.values()])))
        own = [s for s, w in widths.items() if w == width]
        bits, slots = self.bits("acc", Queue.ACC), self.bits("slot", Queue.ACC)
        fields |= {"width": int(width), "acc": int(rng.choice(own))}
        if len(own) == 1 << bits:
            fields |= {f"acc_s{i}": int(rng.choice([0, 1, int(rng.integers(1 << bits))])) for i in (1, 2)}
        fields |= {f"slot{s}": int(rng.integers(1 << slots)) for s in ("", "_s1", "_s2")}
        b = Bundle()
        lg = self.sum_lg
        lg = self.y_rows(b, 0, fields, lg, AccSource.ACC)
        self.consume(b, t.acc, fields, Source.Y, lg, flat)
        self.place(b)

    def embed(self) -> None:
        """GATHER of any row -> Y."""
        cfg, rng, t = self.cfg, self.rng, self.t
        words, apart = int(rng.choice([1, 1, 2, 3])), cfg.word_rows + int(rng.choice([0, 0, 1, 5]))
        width = self.width()
        gather: Fields = {"op": int(AbcOp.GATHER), "width": int(width), "n1": words, "d1": apart}
        gather |= self.address("w", self.w4 if width is Width.INT4 else self.w8, gather)
        gather |= {"init": int(rng.integers(3)), "a": int(rng.integers(self.cfg.act_depth))}
        gather |= {"sequence": self.sequence()}
        b = Bundle()
        b.add(Queue.ABC, 0, gather)
        self.gather_access(b, 0, gather)
        flat = apart == cfg.word_rows
        fields: Fields = {"n1": words * cfg.word_rows, "d1": 1}
        if not flat:
            fields = {"n1": cfg.word_rows, "d1": 1, "n2": words, "d2": apart}
        fields |= {"width": int(rng.integers(2)), "acc": int(rng.integers(cfg.accs))}
        lg = self.y_rows(b, t.gather, fields, 6, AccSource.GATHER)
        self.consume(b, t.gather + t.acc, fields, Source.Y, lg, flat)
        self.place(b)

    def y_rows(self, b: Bundle, offset: int, fields: Fields, lg: float, source: AccSource, scalar: int = -1) -> float:
        """ACC and its scales; returns log2 of what to expect on Y. ``scalar``: this one, or any."""
        rng, t = self.rng, self.t
        if scalar < 0:
            scalar = self.last_scalar if rng.random() < 0.4 else int(rng.choice(self.scalars()))
        lg += 15 + self.scalar_lg[scalar]
        shift = self.shift_to(lg, 4, 33)
        fields |= {"source": int(source), "shift": shift, "scalar": scalar, "bcast": int(rng.random() < 0.2)}
        fields |= {"sequence": self.sequence() if fields["bcast"] else int(rng.integers(2))}
        fields |= {"bank": int(rng.integers(SOFTMAX_BANKS)), "max": int(rng.random() < 0.3)}
        b.add(Queue.ACC, offset, fields)
        self.acc_access(b, offset, fields)
        loops = {k: v for k, v in fields.items() if k in self.LOOP}
        b.add(Queue.SR, offset - t.mem_read, loops | self.address("s", self.scale, loops))
        return lg - shift

    def rows(self) -> None:
        """Rows of the vector memory, or of T -> the vector ALU -> anywhere."""
        rng, t = self.rng, self.t
        fields = self.loops(outer=False, most=16)
        b = Bundle()
        if "T" in self.defined and rng.random() < 0.3:
            self.vx(b, 0, {"n1": 1, "d1": int(rng.integers(1, 256))}, Source.T, 12, {})
        else:
            read = fields | self.address("x", self.vector, fields, sel=False)
            b.add(Queue.XR, -t.mem_read, read)
            self.xr_access(b, -t.mem_read, read)
            self.vx(b, 0, fields, Source.X, self.vector_lg, read)
        self.place(b)

    def chosen(self) -> None:
        """The softmax of the experts' logits, as soon as they are there."""
        if self.rng.random() < 0.5:
            b = Bundle()
            self.vx(b, 0, {"n1": 1, "d1": 1}, Source.T, 12, {})
            self.place(b, tight=True)

    def softmax(self) -> None:
        """A maximum, the exponentials below it just when it is there, and the sum's reciprocal."""
        rng, t = self.rng, self.t
        if not self.filled():
            return
        width = next(iter(self.filled().values()))
        acc = next(iter(self.filled()))
        fields: Fields = {"n1": int(rng.choice([3, 6])), "d1": 1}
        if rng.random() < 0.5:
            fields["n1_sel"] = int(Count.ROWS)
        drain = fields | {"width": int(width), "acc": acc, "source": int(AccSource.ACC), "max": 1}
        drain |= {"bank": int(rng.integers(SOFTMAX_BANKS)), "shift": self.shift_to(self.sum_lg + 15, 12, 17)}
        b = Bundle()
        b.add(Queue.ACC, 0, drain)
        self.acc_access(b, 0, drain)
        b.add(Queue.SR, -t.mem_read, fields | self.address("s", self.scale, fields))
        store = fields | {"source": int(Source.Y), "x": int(rng.choice(self.vector.rows()))}
        self.xw(b, t.acc, store)
        self.place(b)
        # What was stored is there after the maximum; another row does not wait.
        read = fields | {"x": store["x"] if rng.random() < 0.3 else int(rng.choice(self.vector.rows()))}
        b = Bundle()
        b.add(Queue.XR, -t.mem_read, read)
        self.xr_access(b, -t.mem_read, read)
        exp = fields | {"op": int(VxOp.EXP), "source": int(Source.X), "bank": drain["bank"], "unit": 1}
        b.add(Queue.VX, 0, exp)
        self.vx_access(b, 0, exp)
        if rng.random() < 0.5:  # a row captured would come before the reciprocal
            self.sinks(b, t.vx_exp, fields, Source.Z, 14, unit=True)
        self.place(b)
        self.scalar(SfuOp.PROB if self.probe else SfuOp.RECIP, bank=drain["bank"])
        self.probe = False

    def consume(self, b: Bundle, offset: int, fields: Fields, source: Source, lg: float, flat: bool) -> None:
        """Whatever may sample a stream whose rows come as those of ``fields``, ``offset`` later."""
        loops = {k: v for k, v in fields.items() if k in self.LOOP}
        if not flat:
            self.sinks(b, offset, loops, source, lg, flat=False)
            return
        if self.rng.random() < 0.5:
            self.vx(b, offset, loops, source, lg, {})
        self.sinks(b, offset, loops, source, lg)

    def vx(self, b: Bundle, offset: int, loops: Fields, source: Source, lg: float, x: Fields) -> None:
        """An operation of the vector ALU on rows, a second one on its results, and what samples those."""
        rng, t = self.rng, self.t
        pattern = {k: v for k, v in loops.items() if k in self.LOOP}
        op = VxOp.EXP if source is Source.T else VxOp(int(rng.integers(6)))
        if op is VxOp.EXP and source is not Source.T and not self.maxima():
            op = VxOp.PASS
        if op is VxOp.ROPE and not self.paired(pattern):
            op = VxOp.PASS
        fields: Fields = pattern | {"op": int(op), "source": int(source), "bank": int(rng.integers(SOFTMAX_BANKS))}
        if op is VxOp.EXP and source is not Source.T:
            fields["bank"] = int(rng.choice(self.maxima()))
        fields |= {"unit": int(rng.random() < 0.4), "fshift": int(rng.integers(16)), "shift": int(rng.integers(64))}
        if op is VxOp.ADD and not x:
            read = pattern | self.address("x", self.vector, pattern, sel=False)
            b.add(Queue.XR, offset - t.mem_read, read)
            self.xr_access(b, offset - t.mem_read, read)
        if op in (VxOp.GAIN, VxOp.ROPE) or (op is VxOp.EXP and not fields["unit"]):
            b.add(Queue.CR, offset - t.mem_read, pattern | self.address("c", self.coef, pattern))
        if op is VxOp.GAIN:
            fields["fshift"] = int(rng.choice([0, 15, min(15, max(0, int(lg) - 17))]))
            lg = min(lg - fields["fshift"], 17.0) + 14
        elif op is VxOp.EXP:
            lg = 16.0 if fields["unit"] else 30.0
        elif op is VxOp.SILU:
            lg = 2 * min(lg, 17.0)
        if op in (VxOp.GAIN, VxOp.SILU) or (op is VxOp.EXP and not fields["unit"]):
            fields["shift"] = self.shift_to(lg, 8, 33)
            lg -= fields["shift"]
        b.add(Queue.VX, offset, fields)
        self.vx_access(b, offset, fields)
        after = offset + t.vx(op)
        if op is VxOp.SILU:
            # A row of results for two: those of a count that is not written here are not sampled.
            if fields.get("n1_sel", 0) or fields.get("n1", 1) < 2 or 2 * fields["d1"] > 255:
                return
            pattern = {"n1": fields["n1"] // 2, "d1": 2 * fields["d1"]}
            after += fields["d1"]
        unit = op is VxOp.EXP and bool(fields["unit"])
        chained = VxOp(int(rng.choice([0, 2, 3, 4, 5])))
        if chained is VxOp.EXP and not self.maxima():
            chained = VxOp.GAIN
        if chained is VxOp.ROPE and not self.paired(pattern):
            chained = VxOp.PASS
        room = self.longest(pattern)
        fits = after - offset >= 5 + self.longest(loops) and t.vx(chained) > room
        if fits and rng.random() < 0.4:
            second = pattern | {"op": int(chained), "source": int(Source.Z), "unit": 1, "fshift": 3, "shift": 15}
            if chained is VxOp.EXP:
                second["bank"] = int(rng.choice(self.maxima()))
            if chained in (VxOp.GAIN, VxOp.ROPE):
                b.add(Queue.CR, after - t.mem_read, pattern | self.address("c", self.coef, pattern))
            b.add(Queue.VX, after, second)
            self.vx_access(b, after, second)
        self.sinks(b, after, pattern, Source.Z, lg, unit=unit)

    def sinks(
        self, b: Bundle, offset: int, pattern: Fields, source: Source, lg: float, *, flat: bool = True,
        unit: bool = False,
    ) -> None:  # fmt: skip
        """XW, SXM, TOP.INSERT, SFU.CAPTURE on the rows of a stream, each once in a bundle at most."""
        rng = self.rng
        pattern = {k: v for k, v in pattern.items() if k in self.LOOP}
        one: Fields = {"n1": 1, "d1": 1}
        if flat and rng.random() < 0.5 and not b.has(Queue.XW):
            fields = (one if rng.random() < 0.1 else pattern) | {"source": int(source)}
            fields |= self.address("x", self.vector, fields, sel=False)
            self.xw(b, offset, fields)
            self.vector_lg = lg
        if rng.random() < 0.5 and not b.has(Queue.SXM):
            self.sxm(b, offset, pattern, source, lg)
        if source is Source.Z and not b.has(Queue.SFU) and rng.random() < (0.6 if unit else 0.15):
            # The last row stays; PROB can follow at once behind several.
            taken = pattern if rng.random() < 0.6 and self.captured(pattern) else one
            fields = {"op": int(SfuOp.CAPTURE), **taken, "dst": int(rng.integers(8))}
            b.add(Queue.SFU, offset, fields)
            self.capture_access(b, offset, fields, unit)
            self.probe = unit
        if source is Source.Y and flat and not b.has(Queue.TOP) and rng.random() < 0.2:
            self.insert(b, offset, pattern, sampling=bool(rng.integers(2)))

    def sxm(self, b: Bundle, offset: int, pattern: Fields, source: Source, lg: float) -> None:
        """ACT words, K rows or V columns of a stream's rows."""
        rng, cfg = self.rng, self.cfg
        mode = SxmMode(int(rng.choice([0, 0, 1, 2])))
        fields = pattern | {"op": int(mode), "source": int(source), "sumsq": int(rng.integers(2))}
        fields["shift"] = self.shift_to(lg, 6, 26) if mode is SxmMode.ACT else self.shift_to(lg, 4, 23)
        if mode is SxmMode.ACT:
            words = -(-self.most(fields, "n1") // cfg.word_rows)
            outer = self.most(fields, "n2")
            step = int(rng.choice([0, 1, words]))
            if words + (outer - 1) * step > self.act.size:
                step = 0
            if words > self.act.size:
                return
            room = self.act.size - words - (outer - 1) * step
            fields |= {"dst_s2": step, "srow": int(rng.integers(1 << self.bits("srow", Queue.SXM)))}
            fields["vset"] = self.any_value("vset", Queue.SXM)
            self.sxm_act(b, offset, fields, self.act.base + int(rng.integers(room + 1)), lg - fields["shift"])
            return
        self.cache_write(b, offset, fields, mode)

    def cache(self) -> None:
        """A K or V vector, and a product with it as soon as it can be read."""
        rng, t = self.rng, self.t
        rows = int(rng.choice([1, 2, self.cfg.word_rows, 5]))
        fields: Fields = {"n1": rows, "d1": int(rng.choice([1, 1, 2, 4]))}
        read = fields | self.address("x", self.vector, fields, sel=False)
        b = Bundle()
        b.add(Queue.XR, -t.mem_read, read)
        self.xr_access(b, -t.mem_read, read)
        op = VxOp.ROPE if rng.random() < 0.5 and self.paired(fields) else VxOp.PASS
        vx = fields | {"op": int(op), "source": int(Source.X)}
        b.add(Queue.VX, 0, vx)
        self.vx_access(b, 0, vx)
        if op is VxOp.ROPE:
            b.add(Queue.CR, -t.mem_read, fields | self.address("c", self.coef, fields))
        mode = SxmMode(int(rng.integers(1, 3)))
        sxm = fields | {"op": int(mode), "source": int(Source.Z), "sumsq": 1, "shift": int(rng.integers(20))}
        self.cache_write(b, t.vx(op), sxm, mode)
        self.place(b)
        b = Bundle()
        dot: Fields = {"op": 0, "width": int(Width.INT8), "init": int(Init.INNER), "n1": self.kv.size, "d1": 1}
        dot |= {"w": self.kv.base, "w_s1": 1, "a": self.act.base, "acc": int(rng.integers(self.cfg.accs))}
        b.add(Queue.ABC, 0, dot)
        if self.dot_access(b, 0, dot, cached=True):
            self.place(b)
        queue, region, name = ((Queue.SR, self.scale_all, "s"), (Queue.CR, self.coef_all, "c"))[int(rng.integers(2))]
        self.read_rows(queue, {"n1": region.size, "d1": 1, name: region.base, f"{name}_s1": 1})

    def scalar(self, op: SfuOp | None = None, bank: int | None = None) -> None:
        """An operation of the scalar unit whose operands exist."""
        rng = self.rng
        ops = [SfuOp.MUL]
        if "SUMSQ" in self.defined:
            ops += [SfuOp.RSQRT] * 2
        if self.sums():
            ops.append(SfuOp.RECIP)
        if "P" in self.defined:
            ops += [SfuOp.PROB] * 2
        op = SfuOp(int(rng.choice([int(o) for o in ops]))) if op is None or op not in ops else op
        fields: Fields = {"op": int(op), "d1": int(rng.choice([1, 1, 2, 9]))} | self._count("n1", [1, 1, 1, 2, 3])
        fields |= {"dst": int(rng.integers(8)), "b": int(rng.integers(8))}
        fields["a"] = self.last_scalar if rng.random() < 0.4 else int(rng.choice(self.scalars()))
        fields["bank"] = int(rng.integers(SOFTMAX_BANKS)) if op is not SfuOp.RECIP else bank or 0
        if op is SfuOp.RECIP and fields["bank"] not in self.sums():
            fields["bank"] = int(rng.choice(self.sums()))
        if op is SfuOp.PROB:
            fields["b"] = int(rng.integers(self.cfg.vlanes))
        b = Bundle()
        b.add(Queue.SFU, 0, fields)
        self.scalar_access(b, 0, fields)
        self.place(b)
        if fields["dst"] and rng.random() < 0.5:
            self.drain()

    def choice(self, sampling: bool | None = None) -> None:
        """Rows into the lists, and the best of them out: experts or the next token."""
        rng = self.rng
        if not self.filled():
            self.product()
        widths = self.filled()
        if not widths and sampling is None:
            return
        sampling = bool(rng.integers(2)) if sampling is None else sampling
        fields: Fields = {"n1": int(rng.choice([1, 2, 3, 8])), "d1": int(rng.choice([1, 1, 2, 3]))}
        b = Bundle()
        t = self.t
        if widths:
            acc = next(iter(widths))
            fields |= {"width": int(widths[acc]), "acc": acc, "slot_s1": 1}
            self.y_rows(b, 0, fields, self.sum_lg, AccSource.ACC)
            self.insert(b, t.acc, fields, sampling)
            self.place(b)
        else:
            gather: Fields = {"op": int(AbcOp.GATHER), "width": 1, "n1": 1, "d1": 1}
            gather |= self.address("w", self.w8, gather)
            b.add(Queue.ABC, 0, gather)
            self.gather_access(b, 0, gather)
            fields = {"n1": self.cfg.word_rows, "d1": 1}
            self.y_rows(b, t.gather, fields, 6, AccSource.GATHER)
            self.insert(b, t.gather + t.acc, fields, sampling)
            self.place(b)

    def insert(self, b: Bundle, offset: int, pattern: Fields, sampling: bool) -> None:
        """TOP.INSERT, with the EMIT that takes what it put in."""
        rng, cfg = self.rng, self.cfg
        loops = {k: v for k, v in pattern.items() if k in self.LOOP}
        least = self.least(loops, "n1") * cfg.vlanes
        most = min(self.sizes.vocab if sampling else self.sizes.experts, 1 << cfg.token_bits)
        rest = [n for n in (1, least, int(rng.integers(1, most + 1)), most) if n <= most]
        limit = int(rng.choice(rest))
        noise = int(rng.integers(2))
        listed = rng.random() > 0.15 or sampling
        if not listed:  # none enters, or all do, and nobody takes them
            limit = int(rng.choice([0, (1 << 17) - 1]))
        fields = loops | {"op": int(TopOp.INSERT), "limit": limit, "noise": noise, "expert": int(rng.integers(2))}
        fields |= {"sequence": int(rng.integers(2))}
        b.add(Queue.TOP, offset, fields)
        self.insert_access(b, offset, fields)
        step = self.t.top_step
        emit: Fields = {"op": int(TopOp.EMIT), "d1": step + int(rng.choice([0, 0, 1, 4])), "expert": int(not sampling)}
        if not listed:
            return
        emit |= {"limit": self.any_value("limit", Queue.TOP), "noise": int(rng.integers(2))}
        emit["sequence"] = int(rng.integers(2)) if self.sampled is None else self.sampled
        if sampling:
            emit["n1"] = int(rng.integers(1, cfg.topk_max + 1))
        else:
            most = min(cfg.experts_per_token_max, limit, least)
            emit["n1"] = int(rng.choice([most, int(rng.integers(1, most + 1))]))
        self.emit_later(emit, bool(noise))

    def stray(self) -> None:
        """Reads that nobody samples, with distances and counts at their ends."""
        rng = self.rng
        queue, name, region = (
            (Queue.SR, "s", self.scale_all), (Queue.CR, "c", self.coef_all), (Queue.XR, "x", self.vector),
        )[int(rng.integers(3))]  # fmt: skip
        fields: Fields = {"n1": 2, "d1": int(rng.choice([1, 255, int(rng.integers(1, 60))]))}
        if queue is not Queue.XR and rng.random() < 0.5:
            fields |= {"n2": 2, "d2": int(rng.integers(1, 300))}
        if rng.random() < 0.4:
            fields = self.loops(outer=queue is not Queue.XR, most=24)
        if self.endless and rng.random() < 0.1:
            top = (1 << self.bits("n1", queue)) - 1
            fields = {"n1": min(top, 2000), "d1": 1}
            if queue is not Queue.XR and rng.random() < 0.5:
                fields = {"n1": 1, "d1": 255, "n2": 2, "d2": 4095}
        fields |= self.address(name, region, fields, sel=queue is not Queue.XR)
        self.read_rows(queue, fields)

    def dump(self) -> None:
        """All that the program may have written, onto the streams and into sums: what differs shows here."""
        rng, cfg = self.rng, self.cfg
        for queue, name, region in (
            (Queue.XR, "x", self.vector), (Queue.SR, "s", self.scale_all), (Queue.CR, "c", self.coef_all),
        ):  # fmt: skip
            self.read_rows(queue, {"n1": region.size, "d1": 1, name: region.base, f"{name}_s1": 1})
        # Sums, and by two products with a constant all that an exponent can be, become scalars.
        steps: list[tuple[SfuOp, Fields]] = [(SfuOp.RECIP, {"bank": i, "dst": 4 + i}) for i in self.sums()]
        steps += [(SfuOp.RSQRT, {"dst": 3})] if "SUMSQ" in self.defined else []
        k = int(rng.integers(8))
        steps += [(SfuOp.MUL, {"a": 0, "b": k, "dst": 2}), (SfuOp.MUL, {"a": 2, "b": k, "dst": 2})]
        for op, fields in steps:
            b = Bundle()
            fields = {"op": int(op), "n1": 1, "d1": 1, "a": 0, "bank": 0} | fields
            b.add(Queue.SFU, 0, fields)
            self.scalar_access(b, 0, fields)
            self.place(b)
        width4 = int(not cfg.int4)
        sums: list[tuple[Fields, bool]] = [
            ({"width": width4, "n1": self.act.size, "a": self.act.base, "a_s1": 1, "w": self.w4.base, "w_s1": 1},
             False),
            ({"width": 1, "n1": self.kv.size, "w": self.kv.base, "w_s1": 1, "a": self.act.base}, True),
        ]
        for acc, (fields, cached) in enumerate(sums):
            b = Bundle()
            fields |= {"op": int(AbcOp.DOT), "init": int(Init.INNER), "d1": 1, "acc": acc}
            b.add(Queue.ABC, 0, fields)
            if not self.dot_access(b, 0, fields, cached=cached):
                continue
            self.place(b)
            width = Width(fields["width"])
            drain: Fields = {"width": int(width), "acc": acc, "n1": cfg.slots(width.bits), "d1": 1, "slot_s1": 1}
            b = Bundle()
            self.y_rows(b, 0, drain, 20, AccSource.ACC)
            self.place(b, tight=bool(rng.integers(2)))
        for scalar in self.scalars() if self.filled() else []:
            acc, width = next(iter(self.filled().items()))
            b = Bundle()
            drain = {"width": int(width), "acc": acc, "n1": 1, "d1": 1}
            self.y_rows(b, 0, drain, self.sum_lg, AccSource.ACC, scalar)
            self.place(b)
