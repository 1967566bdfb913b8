"""Bench of the vector ALU and of SUM: all operations mixed as densely as stream Z allows."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np

from hdl.config import SOFTMAX_BANKS, WORD
from hdl.isa import Queue, Source, VxOp
from hdl.timing import get_timing
from hdl.uop import run_state_layout
from hdl.vxm.alu import SUM_BITS, VectorAlu
from sim import numerics as nx
from verification.bench_vxm_plan import Plan, corner_ints, micro_op, pack, port_widths, row
from verification.context import context


@cocotb.test()
async def operations(dut: Any) -> None:
    """Random operations, sources and shifts; a result must stand on Z in its cycle and in no other."""
    ctx = context()
    cfg, rng = ctx.config, ctx.rng(1)
    timing = get_timing(cfg)
    v = cfg.vlanes
    plan = Plan(port_widths(VectorAlu(cfg)), ctx.rng(2))
    state_layout = run_state_layout(cfg)
    on_z: dict[int, Any] = {}
    sums = [0] * SOFTMAX_BANKS
    histories: list[list[tuple[int, int]]] = [[] for _ in range(SOFTMAX_BANKS)]
    waiting: tuple[Any, int] | None = None  # row of g of a SILU, and its index
    turning: dict[int, tuple[int, Any, Any]] = {}
    """With one lane: cycle of a second row of ROPE -> cycle, row and coefficient of the first one."""
    exp_idx, exp_bank = 0, 0
    done = dict.fromkeys(VxOp, 0)

    # What comes out of the table's block RAM before the first read of a simulation, Icarus has as X: it is let through.
    for t in range(timing.vx_silu, 1500 + timing.vx_silu):
        first_row = turning.pop(t, None)
        if rng.random() < 0.15 and first_row is None:
            continue
        op = VxOp.SILU if waiting and rng.random() < 0.5 else VxOp(int(rng.integers(len(VxOp))))
        op = VxOp.ROPE if first_row else op
        finish = t + timing.vx(op)
        apart = int(rng.integers(1, timing.rope_pitch + 1)) if op == VxOp.ROPE and v == 1 else 0
        if first_row is None and (finish in on_z or finish + apart in on_z) and not (
            op == VxOp.SILU and waiting is None
        ):
            continue
        if apart and first_row is None and turning:
            continue
        data = {s: corner_ints(rng, WORD, v) for s in (Source.Y, Source.X)}
        data[Source.T] = corner_ints(rng, WORD, v * cfg.expert_rows)
        kind = rng.random()
        if kind < 0.5:  # within 18 bits, as they mostly are
            data = {s: d >> 14 for s, d in data.items()}
        source = Source(int(rng.integers(4)))
        if first_row and source == Source.Z and t not in on_z:
            source = Source.X
        if source == Source.Z:
            if t not in on_z:
                continue
            data[Source.Z] = on_z[t]
        coef = corner_ints(rng, 16, v)
        bank, unit, fshift = int(rng.integers(SOFTMAX_BANKS)), int(rng.random() < 0.4), int(rng.integers(16))
        shift = int(rng.integers(64)) if rng.random() < 0.2 else int(rng.integers(24))
        maxima, count, keys = corner_ints(rng, WORD, SOFTMAX_BANKS), int(rng.integers(4)), int(rng.integers(3 * v))
        idx, first = int(rng.integers(4)), int(rng.random() < 0.5)
        if op == VxOp.EXP:
            # Instructions of several rows; others may stand between them.
            if exp_idx == 0 or rng.random() < 0.3:
                exp_idx, exp_bank = 0, bank
            idx, first, bank = exp_idx, int(exp_idx == 0), exp_bank
            exp_idx += 1
        elif op == VxOp.SILU:
            idx = idx & ~1 if waiting is None else waiting[1] + 1
        elif op == VxOp.ROPE:
            idx = idx & ~1 | (first_row is not None)
        src = data[source]
        if source == Source.T:
            at = min(idx % (1 << (cfg.expert_rows - 1).bit_length()), cfg.expert_rows - 1) * v
            src = src[at : at + v]
        z: Any = None
        if op == VxOp.PASS:
            z = src
        elif op == VxOp.ADD:
            z = nx.add(src, data[Source.X])
        elif op == VxOp.GAIN:
            z = nx.gain(src, coef, fshift, shift)
        elif op == VxOp.ROPE and v > 1:
            z = nx.rope(src, coef)
        elif op == VxOp.ROPE and first_row is None:
            turning[t + apart] = t, src, coef
            on_z[finish] = on_z[finish + apart] = None  # kept free
        elif first_row:
            before, other, cos = first_row
            pair = nx.rope(np.concatenate([other, src]), np.concatenate([cos, coef]))
            z, on_z[before + timing.vx(op)] = pair[1:], pair[:1]
            plan.expect_row(before + timing.vx(op), "z", pair[:1], WORD, f"ROPE issued at {before} and {t}")
        elif op == VxOp.EXP:
            top = data[Source.T][0] if source == Source.T else maxima[bank]
            if source != Source.T and rng.random() < 0.8:
                # Near the maximum, where something is left.
                top = int(nx.sat(src.max() + int(rng.integers(-3, 9000)), WORD))
                maxima[bank] = top
            element = np.arange(v) + idx * v * (source != Source.T or cfg.expert_rows > 1)
            inside = element < (count if source == Source.T else keys)
            p = np.where(inside, nx.exp2_neg(int(top) - src), 0)
            z = p if unit else nx.exp_out(p, coef, shift)
            sums[bank] = (0 if first else sums[bank]) + int(p.sum())
            histories[bank].append((t + timing.vx_sum, sums[bank]))
        elif waiting is None:
            waiting = (src, idx)
        else:
            z = nx.silu(waiting[0], src, fshift, shift)
            waiting = None
        plan.drive(
            t,
            uop=micro_op(cfg, Queue.VX, op=op, source=source, bank=bank, unit=unit, fshift=fshift,
                         shift=shift, idx=idx, first=first),
            state=pack(state_layout, {"keys": keys}),
            y=row(data[Source.Y], WORD), x=row(data[Source.X], WORD), t=row(data[Source.T], WORD),
            c=row(coef, 16), maximum=row(maxima, WORD), count=count,
        )  # fmt: skip
        if z is not None:
            on_z[finish] = z
            done[op] += 1
            plan.expect_row(finish, "z", z, WORD, f"{op.name} issued at {t}, shift {shift}, fshift {fshift}")
    assert min(done.values()) > 20, done
    on_z = {at: row_z for at, row_z in on_z.items() if row_z is not None}  # without a pair that was not finished
    for bank, steps in enumerate(histories):
        plan.expect_steps("sums", steps, max(on_z) + 1, bits=SUM_BITS, lane=bank, what=f"SUM[{bank}]")
    print(f"seed {ctx.seed}: {await plan.run(dut)} comparisons, {done}")
