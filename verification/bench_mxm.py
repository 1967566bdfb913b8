"""MXM tile: exact sums, accumulators, draining, gathering and writes, each in its exact cycle."""

from __future__ import annotations

import dataclasses
from typing import Any

import cocotb
import numpy as np

from hdl.config import Config
from hdl.image import Space
from hdl.isa import AbcOp, Init, Queue, Width, widths
from hdl.mem import act_layout, row_layout
from hdl.mxm.tile import gather_layout
from hdl.timing import get_timing
from hdl.uop import run_state_layout
from sim import numerics
from verification.context import context
from verification.script import Script, pack, uop


def shallow(cfg: Config) -> Config:
    """The same tile with memories just deep enough for these benches."""
    return dataclasses.replace(cfg, weight_depth=min(cfg.weight_depth, 256), act_depth=min(cfg.act_depth, 64))


class MxmModel:
    """Memories and accumulators of a tile, and the drivers that fill them."""

    def __init__(self, cfg: Config, rng: np.random.Generator, script: Script):
        self.cfg, self.rng, self.script = cfg, rng, script
        self.timing = get_timing(cfg)
        self.drain = max(cfg.vlanes, 4)
        self.weights = np.zeros((cfg.columns, cfg.weight_depth, cfg.lanes), dtype=np.uint8)
        self.mant = np.zeros((cfg.act_depth, cfg.lanes), dtype=np.int64)
        self.exp = np.zeros((cfg.act_depth, cfg.blocks), dtype=np.int64)
        # Last axis: low, high.
        self.acc = np.zeros((cfg.columns, cfg.accs, 2), dtype=np.int64)
        self.filled: dict[int, Width] = {}  # accumulators with a meaning
        self._due: list[tuple[int, int, np.ndarray, bool, Width]] = []

    def random_bytes(self, *shape: int) -> np.ndarray:
        """Weight bytes that mean something at both widths; corners are frequent."""
        nibble = self.rng.integers(-7, 8, (*shape, 2))
        corner = self.rng.choice(np.array([-7, -1, 0, 1, 7]), (*shape, 2))
        nibble = np.where(self.rng.random(nibble.shape) < 0.4, corner, nibble) & 15
        return np.asarray(nibble[..., 0] | nibble[..., 1] << 4, dtype=np.uint8)

    def load(self, cycle: int, column: int, addr: int, row: np.ndarray) -> None:
        self.weights[column, addr] = row
        self.script.drive(
            cycle, load__valid=1, load__space=int(Space.WEIGHT), load__sub=column, load__addr=addr,
            load__data=int.from_bytes(row.tobytes(), "little"),
        )  # fmt: skip

    def load_all(self, cycle: int, words: int) -> int:
        """Random words 0 .. words - 1 of all columns; returns the cycle in which they are in."""
        for column in range(self.cfg.columns):
            for addr in range(words):
                self.load(cycle, column, addr, self.random_bytes(self.cfg.lanes))
                cycle += 1
        # Rows of other spaces change nothing.
        for space in Space:
            if space is not Space.WEIGHT:
                self.script.drive(cycle, load__valid=1, load__space=int(space), load__addr=1, load__data=0)
                cycle += 1
        return cycle + 1 + self.timing.kv_write

    def kv_row(
        self, cycle: int, value: int, fresh: int, column: int, superlanes: range, places: list[int], addr: int,
        row: np.ndarray,
    ) -> None:  # fmt: skip
        """One row of K or V at the tile in a cycle, and in the model's weights."""
        cfg = self.cfg
        self.script.drive(
            cycle, kv__value=value, kv__fresh=fresh, kv__column=1 << column,
            kv__superlane=sum(1 << v for v in superlanes), kv__mask=sum(1 << b for b in places), kv__addr=addr,
            kv__row=pack(row_layout(cfg, 8), row),
        )  # fmt: skip
        for v in superlanes:
            word = self.weights[v * cfg.superlane_columns + column, addr]
            if cfg.ecc and fresh:
                word[:] = 0
            for b in places:
                word[b] = row[v] if value else row[b % cfg.vlanes]

    def random_act(self) -> tuple[np.ndarray, np.ndarray]:
        rng, cfg = self.rng, self.cfg
        mant = rng.integers(-512, 512, cfg.lanes)
        corners = np.array([-512, -1, 0, 511])
        mant = np.where(rng.random(cfg.lanes) < 0.4, rng.choice(corners, cfg.lanes), mant)
        exp = rng.integers(0, 16, cfg.blocks)
        return mant, np.where(rng.random(cfg.blocks) < 0.4, rng.choice(np.array([0, 15]), cfg.blocks), exp)

    def write_act(self, cycle: int, addr: int, mant: np.ndarray, exp: np.ndarray) -> None:
        """A DOT ``act_write`` cycles before it, or later, reads it."""
        word = pack(act_layout(self.cfg), {"mant": mant, "exp": exp})
        self.script.drive(cycle, act_write__en=1, act_write__addr=addr, act_write__data=word)
        self.mant[addr], self.exp[addr] = mant, exp

    def halves(self, width: Width, addr: int) -> np.ndarray:
        """Weights at ``addr`` [columns, 2 (low, high), lanes]; int8: low only."""
        byte = self.weights[:, addr].astype(np.int64)
        if width is Width.INT8:
            return np.stack([(byte ^ 128) - 128, np.zeros_like(byte)], axis=1)
        return np.stack([((byte & 15) ^ 8) - 8, ((byte >> 4) ^ 8) - 8], axis=1)

    def sums(self, width: Width, w: int, a: int) -> np.ndarray:
        """Dot products [columns, 2]."""
        values = numerics.act_value(self.mant[a], self.exp[a])
        return numerics.dot(self.halves(width, w).reshape(-1, self.cfg.lanes), values).reshape(-1, 2)

    def dot(
        self, cycle: int, width: Width, w: int, a: int, acc: int, clear: bool, init: Init, **flags: int
    ) -> None:
        op = int(AbcOp.DOT)
        bits = uop(
            self.cfg, Queue.ABC, op=op, width=int(width), w=w, a=a, acc=acc, init=int(init), **flags
        )
        self.script.drive(cycle, abc=bits)
        self._due.append((cycle + self.timing.dot, acc, self.sums(width, w, a), clear, width))

    def settle(self, cycle: int) -> None:
        """Accumulators as an ACC of this cycle reads them."""
        while self._due and self._due[0][0] <= cycle:
            _, acc, sums, clear, width = self._due.pop(0)
            self.acc[:, acc] = sums if clear else self.acc[:, acc] + sums
            self.filled[acc] = width

    def row(self, width: Width, acc: int, slot: int) -> list[int]:
        """Result row ``slot`` of a set."""
        c = self.cfg.superlane_columns
        column, half = (slot, 0) if width is Width.INT8 else (slot // 2, slot % 2)
        return [int(self.acc[v * c + column, acc, half]) for v in range(self.cfg.vlanes)]

    def drain_row(self, cycle: int, width: Width, acc: int, slot: int, why: str = "") -> None:
        """An ACC micro-op, its value expected."""
        self.settle(cycle)
        self.script.drive(cycle, acc=uop(self.cfg, Queue.ACC, width=int(width), acc=acc, slot=slot))
        layout = row_layout(self.cfg, self.cfg.acc_bits)
        mask = (1 << self.cfg.acc_bits) - 1
        row = [x & mask for x in self.row(width, acc, slot)]
        self.script.expect(cycle + self.drain, "value", pack(layout, row), f"{why} (ACC in cycle {cycle})")


def dots(cfg: Config, rng: np.random.Generator, steps: int = 300) -> Script:
    """Random DOTs, mostly back to back, while accumulators are drained and activations rewritten."""
    s = Script()
    model = MxmModel(cfg, rng, s)
    words, acts = 16, 8
    start = model.load_all(0, words)
    for addr in range(acts):
        model.write_act(start + addr, addr, *model.random_act())
    start += acts
    issued: dict[int, Width] = {}  # what an accumulator holds once all that has been issued is done
    walk: list[tuple[int, Width, Init, bool]] = []  # left of the loop under way: acc, width, init, clear
    for t in range(start, start + steps):
        if rng.random() < 0.3:  # a DOT of this cycle already gets it
            model.write_act(t + model.timing.act_write, int(rng.integers(acts)), *model.random_act())
        if not walk:
            width = widths(cfg)[int(rng.integers(len(widths(cfg))))]
            acc, n = int(rng.integers(cfg.accs)), int(rng.integers(1, 7))
            if rng.random() < 0.5:  # one accumulator, back to back
                clear = issued.get(acc) is not width or rng.random() < 0.3
                walk = [(acc, width, Init.INNER if clear else Init.NEVER, clear and i == 0) for i in range(n)]
            else:  # a walk over accumulators
                for i in range(n):
                    this = (acc + i) % cfg.accs
                    clear = issued.get(this) is not width or rng.random() < 0.3
                    walk.append((this, width, Init.OUTER, clear))
        if rng.random() < 0.85:
            acc, width, init, clear = walk.pop(0)
            issued[acc] = width
            # The flag of the other loop must not matter, nor any flag without init.
            flags = {name: int(rng.integers(2)) for name in ("i1_first", "i2_first", "first")}
            if init is not Init.NEVER:
                flags["i1_first" if init is Init.INNER else "i2_first"] = int(clear)
            model.dot(t, width, int(rng.integers(words)), int(rng.integers(acts)), acc, clear, init, **flags)
        model.settle(t)
        if model.filled and rng.random() < 0.7:
            acc = int(rng.choice(sorted(model.filled)))
            width = model.filled[acc]
            model.drain_row(t, width, acc, int(rng.integers(cfg.slots(width.bits))))
    return s


def latency(cfg: Config, rng: np.random.Generator) -> Script:
    """An ACC one cycle too early reads the accumulator before, one in time the sum; of every row."""
    s = Script()
    model = MxmModel(cfg, rng, s)
    t = model.load_all(0, 4)
    model.write_act(t, 0, *model.random_act())
    for width in widths(cfg):
        for slot in range(cfg.slots(width.bits)):
            model.dot(t, width, 0, 0, 1, True, Init.INNER, i1_first=1)
            at = t + model.timing.dot
            model.drain_row(at, width, 1, slot)
            model.dot(at, width, 1, 0, 1, False, Init.NEVER)
            for early in (2, 1):
                model.drain_row(at + model.timing.dot - early, width, 1, slot, "before the sum")
            model.drain_row(at + model.timing.dot, width, 1, slot, "after the sum")
            t = at + model.timing.dot + 1
    # A word written in time is the one the DOT reads; one written a cycle later is not.
    in_time = model.timing.act_write
    for lead in range(in_time + 1, -4, -1):
        old, new = model.random_act(), model.random_act()
        model.write_act(t, 3, *old)
        at = t + 8
        if lead <= in_time:
            model.write_act(at + lead, 3, *new)
        model.dot(at, widths(cfg)[0], 2, 3, 0, True, Init.INNER, i1_first=1)
        if lead > in_time:
            model.write_act(at + lead, 3, *new)
        model.drain_row(at + model.timing.dot, widths(cfg)[0], 0, 0, f"word written {lead} cycles after the DOT")
        t = at + 12
    return s


def kv_writes(cfg: Config, rng: np.random.Generator) -> Script:
    """Rows of K and V arrive in the right bytes, for a DOT of the next cycle."""
    s = Script()
    model = MxmModel(cfg, rng, s)
    c_count, vlanes, lanes = cfg.superlane_columns, cfg.vlanes, cfg.lanes
    t = model.load_all(0, 4)
    model.write_act(t, 0, rng.integers(-512, 512, lanes), rng.integers(0, 16, cfg.blocks))
    t += 1

    def read(at: int, addr: int, why: str) -> None:
        model.dot(at, Width.INT8, addr, 0, 0, True, Init.INNER, i1_first=1)
        for slot in range(c_count):
            model.drain_row(at + model.timing.dot + slot, Width.INT8, 0, slot, why)

    for i in range(24):
        addr, c = int(rng.integers(4)), int(rng.integers(c_count))
        value, fresh = i % 2, int(rng.random() < 0.5)
        # A key's word comes row by row; the last one may be short. A value is one byte.
        count = 1 if value else int(rng.integers(1, cfg.word_rows + 1))
        rows = rng.integers(0, 256, (count, vlanes))
        v = int(rng.integers(vlanes))
        superlanes = range(vlanes) if value else range(v, v + 1)
        # Superlane s of a DOT reads s cycles later, so only from vlanes before on is the write surely unseen.
        read(t, addr, "before the write")
        t += max(vlanes, c_count)
        for j, row in enumerate(rows):
            places = [int(rng.integers(lanes))] if value else list(range(j * vlanes, (j + 1) * vlanes))
            first = fresh if value else int(j == 0)
            model.kv_row(t + j, value, first, c, superlanes, places, addr, row)
        t += count
        read(t + model.timing.kv_write, addr, "after the write")
        t += model.timing.kv_write + max(vlanes, c_count)
    return s


def value_bursts(cfg: Config, rng: np.random.Generator) -> Script:
    """Values as the SXM sends them, column after column, at full pace: every one of them arrives."""
    s = Script()
    model = MxmModel(cfg, rng, s)
    c_count, vlanes, lanes, pace = cfg.superlane_columns, cfg.vlanes, cfg.lanes, model.timing.value_pace
    words = 16
    t = model.load_all(0, words)
    model.write_act(t, 0, rng.integers(-512, 512, lanes), rng.integers(0, 16, cfg.blocks))
    t += 1
    for fresh in (0, 1, 0, 0):
        # Vectors begin an even number of cycles apart.
        rows, byte, at = 2 * int(rng.integers(2, 6)), int(rng.integers(lanes)), t
        base = 0
        for _ in range(2):
            for i in range(rows):
                row = rng.integers(0, 256, vlanes)
                model.kv_row(at + i * pace, 1, fresh, i % c_count, range(vlanes), [byte], base + i // c_count, row)
            at += rows * pace
            base += -(-rows // c_count) if c_count > 1 else 0
            byte = (byte + (c_count == 1)) % lanes  # the same words again, when they are written
            if c_count == 1:
                at += model.timing.kv_write
        t = at + model.timing.kv_write + vlanes
        for addr in range(words):
            model.dot(t, Width.INT8, addr, 0, 0, True, Init.INNER, i1_first=1)
            for slot in range(c_count):
                model.drain_row(t + model.timing.dot + slot, Width.INT8, 0, slot, f"word {addr}")
            t += max(c_count, vlanes)
        t += model.timing.dot
    return s


def gather(cfg: Config, rng: np.random.Generator) -> Script:
    """The word of the token's column and half, sign-extended, as a stream of words."""
    s = Script()
    model = MxmModel(cfg, rng, s)
    t = model.load_all(0, 4)
    state, word = run_state_layout(cfg), gather_layout(cfg)
    tokens = [0, 1, cfg.vlanes, cfg.outputs(cfg.narrowest) - 1, cfg.vocab_max - 1, *rng.integers(0, cfg.vocab_max, 16)]
    for token in map(int, tokens):
        s.hold(t, state=pack(state, {"token": token}))
        width = widths(cfg)[int(rng.integers(len(widths(cfg))))]
        row = token // cfg.vlanes % cfg.slots(width.bits)
        column, half = (row, 0) if width is Width.INT8 else (row // 2, row % 2)
        for addr in range(4):
            s.drive(t, abc=uop(cfg, Queue.ABC, op=int(AbcOp.GATHER), width=int(width), w=addr))
            weights = model.halves(width, addr)[token % cfg.vlanes * cfg.superlane_columns + column, half]
            due = t + model.timing.gather
            s.expect(due, "gather_word", pack(word, weights), f"token {token}")
            s.expect(due, "gather_valid", 1)
            t += cfg.word_rows
        t = due + 1
    s.expect_default("gather_valid", 0)
    return s


SCENARIOS = (dots, latency, kv_writes, gather, value_bursts)


async def _play(dut: Any, index: int) -> None:
    ctx = context()
    scenario = SCENARIOS[index]
    await scenario(shallow(ctx.config), ctx.rng(index)).play(dut)


@cocotb.test()
async def sums_are_exact(dut: Any) -> None:
    await _play(dut, 0)


@cocotb.test()
async def sums_are_in_time(dut: Any) -> None:
    await _play(dut, 1)


@cocotb.test()
async def keys_and_values_are_written(dut: Any) -> None:
    await _play(dut, 2)


@cocotb.test()
async def tokens_are_gathered(dut: Any) -> None:
    await _play(dut, 3)


@cocotb.test()
async def values_come_at_full_pace(dut: Any) -> None:
    await _play(dut, 4)
