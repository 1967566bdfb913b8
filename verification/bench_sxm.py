"""SXM: quantised activations, K rows, V columns and sums of squares, each write in its exact cycle."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np

from hdl.config import BLOCK, WORD, Config, address_bits
from hdl.isa import Queue, Source, SxmMode
from hdl.mem import act_layout, row_layout, stream_layout
from hdl.mxm.tile import gather_layout
from hdl.timing import get_timing
from hdl.uop import run_state_layout
from sim import numerics
from verification.context import context
from verification.script import Script, pack, uop


def random_words(rng: np.random.Generator, n: int) -> np.ndarray:
    """Stream words of all magnitudes, mostly alike within a vector; corners and powers of two often."""
    bits = int(rng.integers(1, WORD))
    x = rng.integers(-(1 << bits), 1 << bits, n)
    kind = rng.random()
    if kind < 0.3:
        x = rng.choice(np.array([-1, 1]), n) * (1 << rng.integers(0, bits + 1, n)) + rng.integers(-2, 3, n)
    elif kind < 0.5:
        x = np.where(rng.random(n) < 0.5, rng.choice(np.array([-(1 << 31), (1 << 31) - 1, 0]), n), x)
    return np.asarray(numerics.sat(x, WORD))


def random_shift(rng: np.random.Generator) -> int:
    return int(rng.integers(0, 64)) if rng.random() < 0.2 else int(rng.integers(0, 16))


class SxmDriver:
    """Issues SXM micro-ops; the stream that is not sampled carries something else."""

    def __init__(self, cfg: Config, rng: np.random.Generator, script: Script):
        self.cfg, self.rng, self.script = cfg, rng, script
        self.timing = get_timing(cfg)
        self.quantise = self.timing.sxm_act + self.timing.act_write
        """Cycles from a word's last row to the word."""

    def row(self, t: int, source: Source, row: np.ndarray, **fields: int) -> None:
        layout = stream_layout(self.cfg)
        other = pack(layout, random_words(self.rng, self.cfg.vlanes))
        y, z = (pack(layout, row), other) if source is Source.Y else (other, pack(layout, row))
        self.script.drive(t, y=y, z=z, uop=uop(self.cfg, Queue.SXM, source=int(source), **fields))

    def vector(
        self, t: int, op: SxmMode, x: np.ndarray, shift: int, dst: int, step: int = 1, **fields: int
    ) -> list[int]:
        """The inner loop of an instruction over ``x``; returns the cycle of each row."""
        source = Source(int(self.rng.choice([int(Source.Y), int(Source.Z)])))
        rows = x.reshape(-1, self.cfg.vlanes)
        cycles = [t + i * step for i in range(len(rows))]
        first, last = fields.pop("first", 1), fields.pop("last", 1)
        for i, cycle in enumerate(cycles):
            self.row(
                cycle, source, rows[i], op=int(op), shift=shift, dst=dst, i1=i,
                i1_first=int(i == 0), i1_last=int(i == len(rows) - 1),
                first=first & int(i == 0), last=last & int(i == len(rows) - 1), **fields,
            )  # fmt: skip
        return cycles


def act_words(cfg: Config, mant: np.ndarray, exp: np.ndarray) -> list[int]:
    """Activation words after each block of a vector: (word of block b, with the blocks behind b zero)."""
    full = np.zeros(-(-len(mant) // cfg.lanes) * cfg.lanes, dtype=np.int64)
    full[: len(mant)] = mant
    words = []
    for b in range(len(exp)):
        at, begin = b // cfg.blocks * cfg.lanes, b // cfg.blocks * cfg.blocks
        word, exps = full[at : at + cfg.lanes].copy(), np.zeros(cfg.blocks, dtype=np.int64)
        word[(b % cfg.blocks + 1) * BLOCK :] = 0
        exps[: b - begin + 1] = exp[begin : b + 1]
        words.append(pack(act_layout(cfg), {"mant": word, "exp": exps}))
    return words


def activations(cfg: Config, rng: np.random.Generator, instructions: int = 40) -> Script:
    """ACT instructions of all lengths and spacings, with and without sum of squares."""
    s = Script()
    drv = SxmDriver(cfg, rng, s)
    rows_of_block = cfg.block_rows
    t, total = 2, 0
    for _ in range(instructions):
        rows, outer = int(rng.integers(1, 3 * cfg.word_rows + 2)), int(rng.integers(1, 3))
        step, shift, sumsq = int(rng.choice([1, 1, 2, 3])), random_shift(rng), int(rng.integers(2))
        in_beats = cfg.square_lanes < BLOCK
        if sumsq and in_beats:  # a short vector may be the last, and the next sum begins when this one is complete
            outer = 1
        values: list[int] = []  # squares of each block of the instruction
        for i2 in range(outer):
            dst = int(rng.integers(cfg.act_depth))
            x = random_words(rng, rows * cfg.vlanes)
            mant, exp = numerics.quantise_act(x, shift)
            cycles = drv.vector(
                t, SxmMode.ACT, x, shift, dst, step,
                sumsq=sumsq, first=int(i2 == 0), last=int(i2 == outer - 1), i2_first=int(i2 == 0),
            )  # fmt: skip
            for b, word in enumerate(act_words(cfg, mant, exp)):
                done = cycles[min((b + 1) * rows_of_block, rows) - 1] + drv.quantise
                s.expect(done, "act__en", 1)
                s.expect(done, "act__addr", (dst + b // cfg.blocks) % cfg.act_depth)
                s.expect(done, "act__data", word, f"{x} >> {shift}, block {b}")
                block = slice(b * BLOCK, (b + 1) * BLOCK)
                values.append(int(numerics.sumsq(numerics.act_value(mant[block], exp[b : b + 1]))))
            t = cycles[-1] + 1 if rng.random() < 0.6 else cycles[-1] + int(rng.integers(2, 6))
        if sumsq:
            at = cycles[-1] + drv.timing.sxm_sumsq
            if in_beats:
                t = max(t, at - drv.quantise)
            else:
                s.expect(at - 1, "sumsq", sum(values[:-1]) if values[1:] else total, "before the last block")
            total = sum(values)
            s.expect(at, "sumsq", total)
        if rng.random() < 0.2:
            t += drv.timing.sxm_sumsq - 1
            s.expect(t, "sumsq", total, "held")
    s.expect(t + drv.quantise + 6, "act__en", 0)
    s.expect_default("act__en", 0)
    s.expect_default("kv__superlane", 0)
    return s


def keys_values(cfg: Config, rng: np.random.Generator, vectors: int = 40) -> Script:
    """K and V vectors, mostly without a gap, activations in between while rows still leave."""
    s = Script()
    drv = SxmDriver(cfg, rng, s)
    v_count, c_count, lanes = cfg.vlanes, cfg.superlane_columns, cfg.lanes
    scale_of = {SxmMode.KEY: ("k_scale", cfg.scale_depth), SxmMode.VALUE: ("v_scale", cfg.coef_depth)}
    t, rows, free, before = 2, 1, 0, 1
    for n in range(vectors):
        if n % 4 == 0:  # vectors of a run are of equal length
            rows = [cfg.head_max // v_count, 1][n // 4] if n // 4 < 2 else int(rng.integers(1, 12))
        t = max(t, free - min(rows, before) + 1)  # rows must not leave slower than the next vector arrives
        before = rows
        op, shift = SxmMode(int(rng.integers(1, 3))), random_shift(rng)
        pace = drv.timing.value_pace if op is SxmMode.VALUE else 1
        slot = int(rng.integers(cfg.context_max))
        if rng.random() < 0.5:
            slot -= slot % lanes
        wrapped = int(rng.random() < 0.5)
        dst, vset = int(rng.integers(cfg.weight_depth)), int(rng.integers(cfg.weight_depth))
        name, depth = scale_of[op]
        srow = int(rng.integers(depth))
        x = random_words(rng, rows * v_count)
        q, e = numerics.quantise_kv(x, shift)
        s.hold(t, state=pack(run_state_layout(cfg), {"slot": slot, "keys": cfg.context_max if wrapped else slot + 1}))
        last = drv.vector(t, op, x, shift, dst, vset=vset, srow=srow)[-1]
        leaves = last + drv.timing.sxm_kv - drv.timing.kv_write
        s.expect(leaves, f"{name}__en", 1 << slot % v_count)
        s.expect(leaves, f"{name}__addr", srow)
        s.expect(leaves, f"{name}__data", 1 << int(e), f"{x} >> {shift}")
        for i in range(rows):
            at = leaves + i * pace
            if op is SxmMode.KEY:
                mask = (1 << v_count) - 1 << i % cfg.word_rows * v_count
                column, superlane = 1 << slot // v_count % c_count, 1 << slot % v_count
                addr, fresh = dst + i // cfg.word_rows, i % cfg.word_rows == 0
            else:
                mask, column, superlane = 1 << slot % lanes, 1 << i % c_count, (1 << v_count) - 1
                addr = dst + i // c_count * vset
                fresh = slot % lanes == 0 and (not wrapped or slot + 1 == cfg.context_max)
            row = pack(row_layout(cfg, 8), q[i * v_count : (i + 1) * v_count] & 255)
            for port, value in (
                ("value", int(op is SxmMode.VALUE)), ("fresh", int(fresh)), ("mask", mask), ("column", column),
                ("superlane", superlane), ("row", row),
                ("addr", addr % (1 << address_bits(cfg.weight_depth))),
            ):  # fmt: skip
                s.expect(at, f"kv__{port}", value, f"{op.name} slot {slot} row {i}: {x} >> {shift}")
        free = last + rows * pace
        t = last + 1
        if rng.random() < 0.3:  # rows of the vector leave while activations are quantised
            x = random_words(rng, cfg.lanes)
            mant, exp = numerics.quantise_act(x, 0)
            cycles = drv.vector(t, SxmMode.ACT, x, 0, 5)
            s.expect(cycles[-1] + drv.quantise, "act__data", act_words(cfg, mant, exp)[-1])
            t = cycles[-1] + 1 + int(rng.integers(3))
    s.expect(t + cfg.head_max, "kv__superlane", 0)
    for name in ("kv__superlane", "k_scale__en", "v_scale__en"):
        s.expect_default(name, 0)
    return s


def serialiser(cfg: Config, rng: np.random.Generator) -> Script:
    """Gathered words leave row by row, the first in their own cycle."""
    s = Script()
    t = 1
    for _ in range(12):
        word = rng.integers(-128, 128, cfg.lanes)
        s.drive(t, gather_valid=1, gather_word=pack(gather_layout(cfg), word))
        for i in range(cfg.word_rows):
            row = word[i * cfg.vlanes : (i + 1) * cfg.vlanes] & 255
            s.expect(t + i, "gather", pack(row_layout(cfg, 8), row), f"row {i} of {word}")
            if i:
                s.drive(t + i, gather_word=pack(gather_layout(cfg), rng.integers(-128, 128, cfg.lanes)))
        t += cfg.word_rows
    return s


SCENARIOS = (activations, keys_values, serialiser)


async def _play(dut: Any, index: int) -> None:
    ctx = context()
    await SCENARIOS[index](ctx.config, ctx.rng(index)).play(dut)


@cocotb.test()
async def activations_are_quantised(dut: Any) -> None:
    await _play(dut, 0)


@cocotb.test()
async def keys_and_values_are_quantised(dut: Any) -> None:
    await _play(dut, 1)


@cocotb.test()
async def gathered_words_are_serialised(dut: Any) -> None:
    await _play(dut, 2)
