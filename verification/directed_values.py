"""Values at the ends of the numerics, put where they meet: rows of chosen values, and the operations that mind them.

A chosen value is a byte times a scale: a weight word and rows of the scale memory are made for it, and ``GATHER``
brings it onto Y with the scalar one and no shift. From there it goes to the vector memory, and on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from hdl.config import SOFTMAX_BANKS
from hdl.image import Param, Space
from hdl.isa import AbcOp, AccSource, Init, Queue, SfuOp, Source, SxmMode, VxOp, Width
from hdl.timing import get_timing
from verification.program_builder import Bundle, Fields
from verification.program_memory import Part, Region, region_parts
from verification.random_program import Generator, RandomProgram

Pair = tuple[int, int]
_MIN18, _MIN21, _64K, _M32K = (-128, 1024), (-128, 16384), (64, 1024), (-128, 256)
_HIGH, _LOW, _ZERO, _ONE = (127, 0xFFFF), (-128, 0xFFFF), (0, 0), (1, 1)
# Below a maximum of 0, as EXP sees them: just so that 1 is left, a half of it, at the end, beyond, far beyond.
_LEAST, _NEXT, _LAST, _BEYOND, _FAR = (-64, 1024), (-69, 1000), (-73, 1000), (-74, 1000), (-100, 1000)


@dataclasses.dataclass(frozen=True)
class Theme:
    """Values of the first row, lane by lane, and of the others; ``then``: name of the method that uses them."""

    first: tuple[Pair, ...]
    others: tuple[Pair, ...]
    then: str
    op: VxOp = VxOp.PASS
    shift: int = 0
    coefficient: int = 0
    """Row of :data:`COEFFICIENTS`."""


COEFFICIENTS = (-0x8000, 0x2000, 0x7FFF)
"""Rows of the coefficient memory, all lanes alike."""
THEMES = (
    Theme((_MIN18,), (_MIN18,), "operate", VxOp.GAIN),
    Theme((_MIN18,), (_MIN18,), "operate", VxOp.ROPE),
    Theme((_MIN18, _HIGH), (_MIN18, _HIGH), "operate", VxOp.ROPE),
    Theme((_MIN18,), (_MIN18,), "operate", VxOp.SILU),
    Theme((_64K,), (_64K,), "operate", VxOp.GAIN),
    Theme((_64K,), (_64K,), "operate", VxOp.GAIN, shift=7),
    Theme((_64K,), (_M32K,), "operate", VxOp.SILU),
    Theme((_HIGH,), (_LOW,), "operate", VxOp.SILU),
    Theme((_HIGH,), (_HIGH,), "operate", VxOp.SILU),
    Theme(((120, 17), (89, 23), (-120, 17), _ONE), (_ONE, (3, 1), (-5, 1), _ZERO), "operate", VxOp.SILU, shift=1),
    Theme((_ONE, (-2, 1), (4, 1), (-7, 1)), ((-3, 1), (8, 1), _ZERO, _ONE), "operate", VxOp.ROPE, coefficient=1),
    Theme((_ZERO, _LEAST, _NEXT, _LAST), (_BEYOND, _FAR, (-64, 64), (-1, 16)), "exponential"),
    Theme((_ZERO, _LEAST, _NEXT, _LAST), (_BEYOND, _FAR, (-64, 64), (-1, 16)), "probability"),
    Theme((_LEAST, _FAR), (_FAR,), "least_sum"),
    Theme((_MIN21,), (_MIN21,), "cached"),
    Theme((_64K,), (_64K,), "least_word"),
    Theme((_HIGH,), (_HIGH,), "large_sum"),
    Theme((_LOW,), (_LOW,), "large_sum"),
)
EPS = (255 << 55, 1 << 61, 255 << 56, 1 << 62, 1, (1 << 64) - 1)
"""Beside a small SUMSQ, the pieces at both ends of both halves of the table for RSQRT."""
SEEDS = ((3037078, 3), (13330202, 2), (83474, 0), (18840, 1))
"""Seeds, and the ids whose noise at position 0 is the largest (first two) or the least there is."""


class ValueGenerator(Generator):
    """Programs with chosen values."""

    def kinds(self) -> list[Callable[[], None]]:
        """Those of random programs, and this."""
        own: list[Callable[[], None]] = [self.chosen_values] * 3
        return [*super().kinds(), *own, *([self.endless_squares] * 20 if self.long else [])]

    def _memories(self) -> None:
        super()._memories()
        if self.rng.random() < 0.5:  # rows with exponents of K and V before those that are only read
            self.scale, self.coef = (r.part(10, 20) for r in (self.scale_all, self.coef_all))
            self.k_rows, self.v_rows = (r.part(0, 10) for r in (self.scale_all, self.coef_all))
        count = min(self.w8.size, self.scale.size // self.cfg.word_rows, 8)
        self.themes = [THEMES[int(i)] for i in self.rng.permutation(len(THEMES))[:count]]
        self.endless = not self.long
        """Whether a sum of squares was driven beyond 64 bits, which takes thousands of rows."""
        if self.long:
            self.sizes = dataclasses.replace(self.sizes, layers=1)
            self.themes[0] = next(theme for theme in THEMES if theme.then == "large_sum")

    def memory_parts(self) -> list[Part]:
        """Contents of all memories, with the themes' over them."""
        cfg, parts = self.cfg, super().memory_parts()
        v, rows = cfg.vlanes, cfg.word_rows
        for i, theme in enumerate(self.themes):
            pairs = np.array([
                [(theme.others if row else theme.first)[lane % len(theme.others if row else theme.first)]
                 for lane in range(v)] for row in range(rows)
            ])  # fmt: skip
            word = (pairs[..., 0].reshape(1, -1) & 255).astype(np.uint8)
            for column in range(cfg.columns):
                parts += region_parts(cfg, Space.WEIGHT, column, self.w8.part(i, 1), word)
            parts += region_parts(cfg, Space.SCALE, 0, self.scale.part(i * rows, rows), pairs[..., 1])
        for i, value in enumerate(COEFFICIENTS):
            row = np.full((1, v), value)
            parts += region_parts(cfg, Space.COEF, 0, self.coef.part(i, 1), row)
        return parts

    def _packed(self) -> RandomProgram:
        program = super()._packed()
        rng, params = self.rng, dict(program.params)
        if rng.random() < 0.5:
            params[Param.EPS] = EPS[int(rng.integers(len(EPS)))]
        if rng.random() < 0.4:
            params |= {Param.SEED: SEEDS[int(rng.integers(len(SEEDS)))][0], Param.NOISE: 2 * self.cfg.noise}
        if self.long:  # thousands of cycles once, not for every token and layer
            params |= {Param.LIMIT: 1, Param.PROMPT_LEN: 1}
            return dataclasses.replace(program, params=params, prompt=program.prompt[:1], limit=1)
        return dataclasses.replace(program, params=params)

    def chosen_values(self) -> None:
        """A theme."""
        i = int(self.rng.integers(len(self.themes)))
        getattr(self, f"_{self.themes[i].then}")(i)

    # Rows ----------------------------------------------------------------------------------------------

    def _brought(self, i: int, *, maximum: int | None = None) -> tuple[Bundle, int, Fields]:
        """A theme's rows on Y and in the vector memory: the bundle, when they are on Y, where they are stored."""
        t, rows = get_timing(self.cfg), self.cfg.word_rows
        gather: Fields = {"op": int(AbcOp.GATHER), "width": int(Width.INT8), "n1": 1, "d1": 1}
        gather["w"] = self.w8.part(i, 1).base
        b = Bundle()
        b.add(Queue.ABC, 0, gather)
        self.gather_access(b, 0, gather)
        loop: Fields = {"n1": rows, "d1": 1}
        drain = loop | {"source": int(AccSource.GATHER), "scalar": 0, "shift": 0}
        if maximum is not None:
            drain |= {"max": 1, "bank": maximum}
        b.add(Queue.ACC, t.gather, drain)
        self.acc_access(b, t.gather, drain)
        b.add(Queue.SR, t.gather - t.mem_read, loop | self._walk("s", self.scale.part(i * rows, rows)))
        at = t.gather + t.acc
        room = self.vector.size - rows
        store = loop | self._walk("x", self.vector.part(int(self.rng.integers(room + 1)), rows))
        self.xw(b, at, store | {"source": int(Source.Y)})
        return b, at, store

    def _walk(self, name: str, region: Region) -> Fields:
        """Row after row."""
        return {name: region.base, f"{name}_s1": 1}

    def _read(self, b: Bundle, store: Fields, coefficient: int | None) -> None:
        """What was stored comes to X, with a row of coefficients beside each."""
        t = get_timing(self.cfg)
        b.add(Queue.XR, -t.mem_read, store)
        self.xr_access(b, -t.mem_read, store)
        if coefficient is not None:
            row: Fields = {"n1": store["n1"], "d1": 1, "c": self.coef.part(coefficient, 1).base}
            b.add(Queue.CR, -t.mem_read, row)

    def _operate(self, i: int) -> None:
        theme, t = self.themes[i], get_timing(self.cfg)
        b, _, store = self._brought(i)
        self.place(b)
        b = Bundle()
        self._read(b, store, theme.coefficient)
        vx = {"op": int(theme.op), "source": int(Source.X), "n1": store["n1"], "d1": 1, "shift": theme.shift}
        b.add(Queue.VX, 0, vx)
        self.vx_access(b, 0, vx)
        if theme.op is VxOp.GAIN and store["n1"] * self.cfg.vlanes <= self.cfg.lanes:
            act: Fields = {"n1": store["n1"], "d1": 1, "source": int(Source.Z), "shift": 0, "sumsq": 1}
            self.sxm_act(b, t.vx_gain, act, self.act.base + int(self.rng.integers(self.act.size)), 24)
        self.place(b)

    def _exponential(self, i: int) -> None:
        bank = int(self.rng.integers(SOFTMAX_BANKS))
        b, _, store = self._brought(i, maximum=bank)
        self.place(b)
        self._exp(store, bank, unit=bool(self.rng.integers(2)))

    def _exp(self, store: Fields, bank: int, *, unit: bool, capture: bool = False) -> None:
        t = get_timing(self.cfg)
        b = Bundle()
        self._read(b, store, 0)
        vx = {"op": int(VxOp.EXP), "source": int(Source.X), "n1": store["n1"], "d1": 1, "bank": bank,
              "unit": int(unit), "shift": int(self.rng.choice([0, 1, 16]))}  # fmt: skip
        b.add(Queue.VX, 0, vx)
        self.vx_access(b, 0, vx)
        if capture:
            first: Fields = {"op": int(SfuOp.CAPTURE), "n1": 1, "d1": 1}
            b.add(Queue.SFU, t.vx_exp, first)
            self.capture_access(b, t.vx_exp, first, True)
        self.place(b)

    def _probability(self, i: int) -> None:
        bank = int(self.rng.integers(SOFTMAX_BANKS))
        b, _, store = self._brought(i, maximum=bank)
        self.place(b)
        self._exp(store, bank, unit=True, capture=True)
        b = Bundle()
        prob: Fields = {"op": int(SfuOp.PROB), "n1": 1, "d1": 1, "dst": 1 + int(self.rng.integers(7)), "a": 0}
        prob["b"] = int(self.rng.choice([0, 1, 1]))  # one, and the least there is where two keys are in the cache
        b.add(Queue.SFU, 0, prob)
        self.scalar_access(b, 0, prob)
        self.place(b)

    def _least_sum(self, i: int) -> None:
        """A sum of one least probability: below a maximum of 0, if another theme has it."""
        zero = next((k for k, theme in enumerate(self.themes) if theme.first[0] == _ZERO), None)
        if zero is None:
            return
        bank = int(self.rng.integers(SOFTMAX_BANKS))
        b, _, _ = self._brought(zero, maximum=bank)
        self.place(b)
        b, _, store = self._brought(i)
        self.place(b)
        self._exp(store, bank, unit=True)
        self.scalar(SfuOp.RECIP, bank=bank)

    def _cached(self, i: int) -> None:
        b, at, store = self._brought(i)
        mode = SxmMode(int(self.rng.integers(1, 3)))
        kv: Fields = {"op": int(mode), "source": int(Source.Y), "n1": store["n1"], "d1": 1, "shift": 0}
        self.cache_write(b, at, kv, mode)
        self.place(b)

    def _large_sum(self, i: int, n: int = 16) -> None:
        """The largest activations by the theme's word, which is all of one weight, over and over."""
        high = next((k for k, theme in enumerate(self.themes) if theme.first == (_HIGH,) == theme.others), None)
        if high is None:
            return
        b, at, store = self._brought(high)
        act: Fields = {"n1": store["n1"], "d1": 1, "source": int(Source.Y), "shift": 0, "sumsq": 1}
        word = self.act.base + int(self.rng.integers(self.act.size))
        self.sxm_act(b, at, act, word, 24)
        self.place(b)
        rows = self.cfg.word_rows
        dot: Fields = {"op": int(AbcOp.DOT), "width": int(Width.INT8), "init": int(Init.INNER), "n1": n, "d1": 1}
        dot |= {"w": self.w8.part(i, 1).base, "a": word, "acc": int(self.rng.integers(self.cfg.accs))}
        b = Bundle()
        b.add(Queue.ABC, 0, dot)
        if not self.dot_access(b, 0, dot, cached=False):
            return
        self.place(b)
        # Beyond 32 bits: the end of the range, and its double.
        drain: Fields = {"width": int(Width.INT8), "acc": dot["acc"], "n1": 1, "d1": 1, "shift": 0, "scalar": 0}
        drain["source"] = int(AccSource.ACC)
        b = Bundle()
        b.add(Queue.SR, -get_timing(self.cfg).mem_read, {"n1": 1, "d1": 1, "s": self.scale.part(i * rows, 1).base})
        b.add(Queue.ACC, 0, drain)
        self.acc_access(b, 0, drain)
        store = {"n1": 1, "d1": 1, "x": int(self.rng.choice(self.vector.rows()))}
        self.xw(b, get_timing(self.cfg).acc, store | {"source": int(Source.Y)})
        self.place(b)
        b = Bundle()
        self._read(b, store, None)
        add: Fields = {"op": int(VxOp.ADD), "source": int(Source.X), "n1": 1, "d1": 1}
        b.add(Queue.VX, 0, add)
        self.vx_access(b, 0, add)
        self.place(b)

    def _least_word(self, i: int) -> None:
        """Activations of -2^17 by weights of 64: a sum that the dequantiser makes -2^31 of, and no less."""
        least = next((k for k, theme in enumerate(self.themes) if theme.first == (_MIN18,) == theme.others), None)
        if least is None:
            return
        cfg, t = self.cfg, get_timing(self.cfg)
        b, at, store = self._brought(least)
        word, acc = self.act.base + int(self.rng.integers(self.act.size)), int(self.rng.integers(cfg.accs))
        self.sxm_act(b, at, {"n1": store["n1"], "d1": 1, "source": int(Source.Y), "shift": 0}, word, 18)
        self.place(b)
        dot: Fields = {"op": int(AbcOp.DOT), "width": int(Width.INT8), "init": int(Init.INNER), "n1": 1, "d1": 1}
        dot |= {"w": self.w8.part(i, 1).base, "a": word, "acc": acc}
        b = Bundle()
        b.add(Queue.ABC, 0, dot)
        if not self.dot_access(b, 0, dot, cached=False):
            return
        self.place(b)
        # 64 * -2^17 in each lane, times a scale of 2^10.
        drain: Fields = {"width": int(Width.INT8), "acc": acc, "n1": 1, "d1": 1, "scalar": 0}
        drain |= {"source": int(AccSource.ACC), "shift": cfg.lanes.bit_length() - 1 + 23 + 10 - 31}
        b = Bundle()
        b.add(Queue.SR, -t.mem_read, {"n1": 1, "d1": 1, "s": self.scale.part(i * cfg.word_rows, 1).base})
        b.add(Queue.ACC, 0, drain)
        self.acc_access(b, 0, drain)
        self.place(b)

    def endless_squares(self) -> None:
        """Squares of the largest activations until their sum saturates, once in a program."""
        if self.endless or not self.splits:
            return
        cfg, t = self.cfg, get_timing(self.cfg)
        self._large_sum(0)
        acc = next((s for s, (_, bound) in self.acc[0].items() if bound >= 1 << cfg.acc_bits - 4), None)
        if acc is None or acc not in self.filled():
            return
        # All words there are, over and over: so no count is beyond its field.
        most = (1 << self.bits("n1", Queue.SXM)) // 2
        rows = min(cfg.act_depth, most // cfg.word_rows) * cfg.word_rows
        squares = 1 << 16
        loop: Fields = {"n1": rows, "d1": 1, "n2": -(-squares * 17 // 16 // (rows * cfg.vlanes)), "d2": 1}
        if loop["n2"] >= 1 << self.bits("n2", Queue.ACC):
            return
        b = Bundle()
        b.add(Queue.SR, -t.mem_read, loop | {"s": self.scale.part(0, 1).base})
        drain = loop | {"width": int(self.filled()[acc]), "acc": acc, "source": int(AccSource.ACC), "shift": 0}
        b.add(Queue.ACC, 0, drain)
        self.acc_access(b, 0, drain)
        act = loop | {"source": int(Source.Y), "shift": 0, "sumsq": 1}
        self.sxm_act(b, t.acc, act, 0, 24)
        self.place(b)
        self.sched.close("squares", self.sched.settle())
        self.endless = True
        self.scalar(SfuOp.RSQRT)
