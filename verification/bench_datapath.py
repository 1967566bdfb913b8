"""MXM, SXM, MEM together: from a row on a stream to the product that uses it, in the cycles promised."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np
from amaranth.hdl import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hdl.config import SCALE_BITS, SUMSQ_BITS, Config
from hdl.image import LoadBus, Space
from hdl.isa import AbcOp, Init, Queue, SxmMode, Width, widths
from hdl.mem import TableSlice, row_layout, stream_layout
from hdl.mxm import Mxm
from hdl.sxm import Sxm
from hdl.uop import run_state_layout, uop_layout
from sim import numerics
from verification.bench_mxm import MxmModel, shallow
from verification.bench_sxm import SxmDriver, random_words
from verification.context import context
from verification.script import Script, pack, uop

_QUEUES = {q.name.lower(): q for q in (Queue.ABC, Queue.ACC, Queue.SR, Queue.CR)}


class Datapath(wiring.Component):
    """Everything between the streams Y, Z and the accumulators."""

    def __init__(self, cfg: Config):
        self.cfg = cfg
        super().__init__({
            "load": In(LoadBus(cfg)),
            "state": In(run_state_layout(cfg)),
            "uop": In(uop_layout(cfg, Queue.SXM)),
            **{name: In(uop_layout(cfg, queue)) for name, queue in _QUEUES.items()},
            "y": In(stream_layout(cfg)),
            "z": In(stream_layout(cfg)),
            "value": Out(row_layout(cfg, signed(cfg.acc_bits))),
            "gather": Out(row_layout(cfg, signed(8))),
            "scl": Out(row_layout(cfg, SCALE_BITS)),
            "c": Out(row_layout(cfg, SCALE_BITS)),
            "sumsq": Out(SUMSQ_BITS + 1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg = self.cfg
        m.submodules.mxm = mxm = Mxm(cfg)
        m.submodules.sxm = sxm = Sxm(cfg)
        m.submodules.scale = scale = TableSlice(cfg, Space.SCALE)
        m.submodules.coef = coef = TableSlice(cfg, Space.COEF)
        wiring.connect(m, sxm.act, mxm.act_write)
        wiring.connect(m, sxm.kv, mxm.kv)
        wiring.connect(m, sxm.k_scale, scale.write)
        wiring.connect(m, sxm.v_scale, coef.write)
        for slice_ in (mxm, scale, coef):
            wiring.connect(m, wiring.flipped(self.load), slice_.load)
        m.d.comb += [
            mxm.abc.eq(self.abc), mxm.acc.eq(self.acc), mxm.state.eq(self.state),
            sxm.uop.eq(self.uop), sxm.state.eq(self.state), sxm.y.eq(self.y), sxm.z.eq(self.z),
            sxm.gather_valid.eq(mxm.gather_valid), sxm.gather_word.eq(mxm.gather_word),
            scale.uop.eq(self.sr), coef.uop.eq(self.cr),
            self.value.eq(mxm.value), self.gather.eq(sxm.gather), self.sumsq.eq(sxm.sumsq),
            self.scl.eq(scale.row), self.c.eq(coef.row),
        ]  # fmt: skip
        return m


def activations(cfg: Config, rng: np.random.Generator) -> Script:
    """A DOT ``sxm_act`` after a word's last row reads the word; one cycle earlier it reads the one before."""
    s = Script()
    model, drv = MxmModel(cfg, rng, s), SxmDriver(cfg, rng, s)
    timing = model.timing
    t = model.load_all(0, 4)
    for n in range(16):
        addr, shift, w = n % 3, int(rng.integers(0, 12)), int(rng.integers(4))
        x = random_words(rng, cfg.lanes)
        mant, exp = numerics.quantise_act(x, shift)
        last = drv.vector(t, SxmMode.ACT, x, shift, addr, int(rng.integers(1, 3)))[-1]
        at = last + timing.sxm_act
        if n >= 3 and cfg.blocks == 1:  # with more blocks the word is partly new already
            model.dot(at - 1, widths(cfg)[0], w, addr, 1, True, Init.INNER, i1_first=1)
            model.drain_row(at - 1 + timing.dot, widths(cfg)[0], 1, 0, "word one cycle too early")
        model.mant[addr], model.exp[addr] = mant, exp
        model.dot(at, widths(cfg)[0], w, addr, 0, True, Init.INNER, i1_first=1)
        model.drain_row(at + timing.dot, widths(cfg)[0], 0, 0, "word just in time")
        t = at + timing.dot + 1
    return s


def cache(cfg: Config, rng: np.random.Generator) -> Script:
    """Keys and values with their scales can be used ``sxm_kv`` + rows after the last row, and no earlier."""
    s = Script()
    model, drv = MxmModel(cfg, rng, s), SxmDriver(cfg, rng, s)
    timing = model.timing
    c_count, vlanes, lanes = cfg.superlane_columns, cfg.vlanes, cfg.lanes
    scales = row_layout(cfg, SCALE_BITS)
    t = model.load_all(0, 8)
    for space in (Space.SCALE, Space.COEF):
        s.drive(t, load__valid=1, load__space=int(space), load__addr=3, load__data=0)
        t += 1
    rows_of = {Space.SCALE: [0] * vlanes, Space.COEF: [0] * vlanes}
    ones = np.full(lanes, 1 << 9, dtype=np.int64)
    mant, exp = numerics.quantise_act(ones, 0)
    last = drv.vector(t, SxmMode.ACT, ones, 0, 0)[-1]
    model.mant[0], model.exp[0] = mant, exp
    t = last + timing.sxm_act
    for n in range(24):
        op = SxmMode.KEY if n % 2 else SxmMode.VALUE
        # Superlane 0 for the check of a cycle too early: superlane s reads s cycles later.
        slot = int(rng.integers(cfg.context_max))
        if n % 4 < 2:
            slot -= slot % vlanes
        rows = cfg.word_rows if op is SxmMode.KEY else int(rng.integers(1, 2 * c_count + 1))
        dst, vset = int(rng.integers(4)), 3
        x = random_words(rng, rows * vlanes)
        q, e = numerics.quantise_kv(x, 3)
        q = q.reshape(rows, vlanes)
        s.hold(t, state=pack(run_state_layout(cfg), {"slot": slot, "keys": slot + 1 if n % 8 >= 4 else 0}))
        last = drv.vector(t, op, x, 3, dst, vset=vset, srow=3)[-1]
        s.hold(last + 1, state=0)  # the next token's slot must not matter
        pace = timing.value_pace if op is SxmMode.VALUE else 1
        at = last + timing.sxm_kv + (rows - 1) * pace + 1
        fresh = bool(n % 8 >= 4)
        # The word of the last row.
        if op is SxmMode.KEY:
            addr, space, port, queue, out, field = dst, Space.SCALE, "sr", Queue.SR, "scl", "s"
            slots = [slot // vlanes % c_count]
        else:
            addr, space, port, queue, out, field = (
                dst + (rows - 1) // c_count * vset, Space.COEF, "cr", Queue.CR, "c", "c"
            )  # fmt: skip
            slots = [(rows - 1) % c_count]

        def read(at: int, acc: int, why: str, addr: int = addr, slots: list[int] = slots) -> None:
            model.dot(at, Width.INT8, addr, 0, acc, True, Init.INNER, i1_first=1)
            for i, slot_ in enumerate(slots):
                model.drain_row(at + timing.dot + i, Width.INT8, acc, slot_, why)

        def write(
            upto: int, op: SxmMode = op, q: np.ndarray = q, dst: int = dst, slot: int = slot, vset: int = vset,
            fresh: bool = fresh and slot % lanes == 0 and cfg.ecc,
        ) -> None:  # fmt: skip
            if op is SxmMode.KEY and cfg.ecc:
                model.weights[slot % vlanes * c_count + slot // vlanes % c_count, dst] = 0
            for i in range(upto):
                if op is SxmMode.KEY:
                    column = slot % vlanes * c_count + slot // vlanes % c_count
                    model.weights[column, dst, i * vlanes : (i + 1) * vlanes] = q[i] & 255
                else:
                    for v in range(vlanes):
                        column = v * c_count + i % c_count
                        if fresh:
                            model.weights[column, dst + i // c_count * vset] = 0
                        model.weights[column, dst + i // c_count * vset, slot % lanes] = q[i, v] & 255

        if op is SxmMode.KEY and slot % vlanes == 0:
            write(rows - 1)
            read(at - 1, 2, "a cycle too early")
        write(rows)
        read(at, 3, f"{op.name} slot {slot}, {rows} rows")
        rows_of[space][slot % vlanes] = 1 << int(e)
        s.drive(at, **{port: uop(cfg, queue, **{field: 3})})
        s.expect(at + timing.mem_read, out, pack(scales, rows_of[space]), f"scale of {op.name} slot {slot}")
        t = at + timing.dot + 1
    return s


def gather(cfg: Config, rng: np.random.Generator) -> Script:
    """Row i of a gathered word comes ``gather`` + i cycles after the micro-op, words back to back."""
    s = Script()
    model = MxmModel(cfg, rng, s)
    t = model.load_all(0, 4)
    for width in widths(cfg):
        for token in map(int, rng.integers(0, cfg.vocab_max, 6)):
            s.hold(t, state=pack(run_state_layout(cfg), {"token": token}))
            row = token // cfg.vlanes % cfg.slots(width.bits)
            column, half = (row, 0) if width is Width.INT8 else (row // 2, row % 2)
            for addr in range(4):
                s.drive(t, abc=uop(cfg, Queue.ABC, op=int(AbcOp.GATHER), width=int(width), w=addr))
                word = model.halves(width, addr)[token % cfg.vlanes * cfg.superlane_columns + column, half]
                for i in range(cfg.word_rows):
                    part = word[i * cfg.vlanes : (i + 1) * cfg.vlanes]
                    due = t + model.timing.gather + i
                    s.expect(due, "gather", pack(row_layout(cfg, signed(8)), part), f"token {token} row {i}")
                t += cfg.word_rows
            t = due + 1
    return s


SCENARIOS = (activations, cache, gather)


async def _play(dut: Any, index: int) -> None:
    ctx = context()
    await SCENARIOS[index](shallow(ctx.config), ctx.rng(index)).play(dut)


@cocotb.test()
async def words_are_used_in_time(dut: Any) -> None:
    await _play(dut, 0)


@cocotb.test()
async def cache_is_used_in_time(dut: Any) -> None:
    await _play(dut, 1)


@cocotb.test()
async def embedding_is_gathered_in_time(dut: Any) -> None:
    await _play(dut, 2)
