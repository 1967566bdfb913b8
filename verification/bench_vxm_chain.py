"""Bench of the wired VXM: units feed each other at the least distances that ``hdl/timing.py`` promises."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np

from hdl.config import SOFTMAX_BANKS, WORD
from hdl.image import Space
from hdl.isa import Queue, SfuOp, Source, TopOp, VxOp
from hdl.timing import get_timing
from hdl.uop import run_state_layout
from hdl.vxm.vxm import Vxm
from sim import numerics as nx
from verification.bench_vxm_plan import Plan, micro_op, pack, port_widths, row
from verification.context import context


@cocotb.test()
async def softmax_router_and_token(dut: Any) -> None:
    """Scores with their maximum; exp, sum and reciprocal; a router; its weights as scalars; a token."""
    ctx = context()
    cfg, rng = ctx.config, ctx.rng(1)
    timing = get_timing(cfg)
    v = cfg.vlanes
    drain = max(v, 4)
    queues = ("acc", "vx", "sfu", "top")
    plan = Plan(port_widths(Vxm(cfg)), ctx.rng(2), quiet=("load__valid",), micro_ops=queues)
    layout = run_state_layout(cfg)
    k1 = nx.Scalar(40000, 3)
    plan.drive(1, load__valid=1, load__space=Space.CONST, load__addr=1, load__sub=0,
               load__data=40000 | 3 << 16)  # fmt: skip
    t = 2 + timing.top_noise

    def acc(at: int, values: np.ndarray[Any, Any], scalar: int, r: nx.Scalar, shift: int, **more: int) -> Any:
        """An ACC of whole rows; returns its rows of Y as one vector."""
        scl = rng.integers(1 << 14, 1 << 16, values.size)
        n = values.size // v
        y = nx.dequant(values, scl, r, shift)
        for i in range(n):
            part = slice(i * v, i * v + v)
            uop = micro_op(cfg, Queue.ACC, scalar=scalar, shift=shift, idx=i, first=int(i == 0),
                           last=int(i == n - 1), **more)  # fmt: skip
            plan.drive(at + i, acc=uop, scl=row(scl[part], 16))
            plan.drive(at + i + drain, value=row(values[part], cfg.acc_bits))
            plan.expect_row(at + i + timing.acc, "y", y[part], WORD, f"Y of the ACC at {at}")
        return y

    for case in range(12):
        bank, keys, rows = case % SOFTMAX_BANKS, int(rng.integers(1, 4 * v + 1)), 4
        position, seed = int(rng.integers(cfg.context_max)), int(rng.integers(1 << 32))
        noise, topk = ((1, cfg.topk_max), (2, 1))[case % 2] if cfg.noise else (0, 1)
        plan.hold(t - timing.top_noise, seed=seed, seed1=seed, noise=noise, topk=topk,
                  state=pack(layout, {"keys": keys, "position": position}))  # fmt: skip

        # RSQRT of a new sum of squares, times K[1], scales the scores.
        sumsq, eps = int(rng.integers(1 << 50)), 77
        plan.drive(t, sfu=micro_op(cfg, Queue.SFU, op=SfuOp.RSQRT, dst=3), sumsq=sumsq, eps=eps)
        t += timing.sfu_rsqrt
        plan.drive(t, sfu=micro_op(cfg, Queue.SFU, op=SfuOp.MUL, dst=4, a=3, b=1))
        r = nx.scalar_mul(nx.rsqrt(sumsq, eps), k1)
        t += timing.sfu_mul
        values = rng.integers(-(1 << 30), 1 << 30, rows * v)
        shift = int(np.clip(16 + 15 - int(r.exponent), 0, 63))
        y = acc(t, values, 4, r, shift, max=1, bank=bank)
        # The same rows again as the source of EXP, as soon as MAX may be used.
        last = t + rows - 1
        t = last + timing.max
        top = nx.masked_max(y, keys)
        p = nx.exp(y, top, keys)
        coef = rng.integers(1, 1 << 14, rows * v)
        z = nx.exp_out(p, coef, 6)
        for i in range(rows):
            part = slice(i * v, i * v + v)
            uop = micro_op(cfg, Queue.VX, op=VxOp.EXP, source=Source.X, bank=bank, shift=6, idx=i,
                           first=int(i == 0))  # fmt: skip
            plan.drive(t + i, vx=uop, x=row(y[part], WORD), c=row(coef[part], 16))
            plan.expect_row(t + i + timing.vx_exp, "z", z[part], WORD, f"case {case}: exp")
        t += rows - 1 + timing.vx_sum
        plan.drive(t, sfu=micro_op(cfg, Queue.SFU, op=SfuOp.RECIP, dst=5, bank=bank))
        t += timing.sfu_recip
        y = acc(t, rng.integers(-(1 << 30), 1 << 30, 2 * v), 5, nx.recip(p.sum()), 20)

        # Router: the rows of Y go straight into the lists.
        t += timing.acc
        for i in range(2):
            uop = micro_op(cfg, Queue.TOP, op=TopOp.INSERT, limit=cfg.experts_max, idx=i, first=int(i == 0))
            plan.drive(t + i, top=uop)
        t += 1 + timing.top_insert
        n = min(2 * v, cfg.experts_max)
        best = nx.topk(y[:n], None, 2)
        for i in range(2):
            at = t + i * timing.top_step
            uop = micro_op(cfg, Queue.TOP, op=TopOp.EMIT, expert=1, i1=i, first=int(i == 0), last=i)
            plan.drive(at, top=uop)
            plan.expect(at + 2, "expert_valid", 1, bits=1)
            plan.expect(at + 2, "expert_index", i, bits=2)
            plan.expect(at + 2, "expert_id", int(best[i]), bits=(cfg.experts_max - 1).bit_length())
        # Weights of the experts: softmax over the rows of T, then PROB.
        t += timing.top_step + timing.top_row
        p = nx.exp(y[best], y[best[0]])
        for i in range(-(-2 // v)):
            uop = micro_op(cfg, Queue.VX, op=VxOp.EXP, source=Source.T, unit=1, bank=bank, shift=9, idx=i,
                           first=int(i == 0))  # fmt: skip
            plan.drive(t + i, vx=uop)
            weights = np.pad(p, (0, max(0, v - 2)))[i * v : i * v + v]
            plan.expect_row(t + i + timing.vx_exp, "z", weights, WORD, f"case {case}: router weights")
            capture = micro_op(cfg, Queue.SFU, op=SfuOp.CAPTURE, idx=i)
            plan.drive(t + i + timing.vx_exp, sfu=capture)
        t += -(-2 // v) - 1
        plan.drive(t + timing.vx_sum, sfu=micro_op(cfg, Queue.SFU, op=SfuOp.RECIP, dst=6, bank=bank))
        t += max(timing.vx_sum + timing.sfu_recip, timing.vx_exp + timing.sfu_capture)
        plan.drive(t, sfu=micro_op(cfg, Queue.SFU, op=SfuOp.PROB, dst=7, a=6, b=1))
        t += timing.sfu_prob
        weight = nx.scalar_mul(nx.prob_scalar(p[1]), nx.recip(p.sum()))
        logits = acc(t, rng.integers(-(1 << 28), 1 << 28, 3 * v), 7, weight, 14)

        # A token from the same kind of rows, with noise.
        t += timing.acc
        for i in range(3):
            uop = micro_op(cfg, Queue.TOP, op=TopOp.INSERT, limit=3 * v - 1, noise=1, idx=i,
                           first=int(i == 0), last=int(i == 2))  # fmt: skip
            plan.drive(t + i, top=uop)
        t += 2 + timing.top_insert_noise
        for i in range(cfg.topk_max):
            uop = micro_op(cfg, Queue.TOP, op=TopOp.EMIT, i1=i, first=int(i == 0),
                           last=int(i == cfg.topk_max - 1))  # fmt: skip
            plan.drive(t + i * timing.top_step, top=uop)
        t += (cfg.topk_max - 1) * timing.top_step + timing.top_sample
        token = nx.sample(logits[:-1], topk_n=topk, noise=noise, seed=seed, position=position)
        plan.expect(t, "token_valid", 1, bits=1)
        plan.expect(t, "token", token, bits=cfg.token_bits, what=f"case {case}: token")
        t += timing.top_noise + int(rng.integers(3))
    print(f"seed {ctx.seed}: {await plan.run(dut)} comparisons")
