"""Bench of the scalar unit: registers change in the cycle their latency says, to the numerics' value."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np

from hdl.config import SCALARS, SOFTMAX_BANKS, SUMSQ_BITS, WORD
from hdl.image import Space
from hdl.isa import Queue, SfuOp
from hdl.timing import get_timing
from hdl.vxm.scalar import ScalarUnit
from sim import numerics as nx
from verification.bench_vxm_plan import Plan, micro_op, port_widths, row
from verification.context import context


def _unsigned(rng: np.random.Generator, bits: int) -> int:
    """All magnitudes alike; often zero, one, a power of two or its neighbours."""
    value = int.from_bytes(rng.bytes(bits // 8), "little") >> int(rng.integers(bits))
    if rng.random() < 0.3:
        value = (1 << int(rng.integers(bits))) + int(rng.integers(-1, 2))
    return 0 if rng.random() < 0.05 else (1 << bits) - 1 if rng.random() < 0.05 else max(0, value)


@cocotb.test()
async def registers(dut: Any) -> None:
    """Random operations in flight together; every cycle one register is read."""
    ctx = context()
    cfg, rng = ctx.config, ctx.rng(1)
    timing = get_timing(cfg)
    plan = Plan(port_widths(ScalarUnit(cfg)), ctx.rng(2), quiet=("load__valid",))
    latency = {
        SfuOp.RSQRT: timing.sfu_rsqrt, SfuOp.RECIP: timing.sfu_recip,
        SfuOp.MUL: timing.sfu_mul, SfuOp.PROB: timing.sfu_prob,
    }  # fmt: skip
    constants = []
    for i in range(SCALARS):
        mantissa = int(rng.choice([0, 65535, int(rng.integers(65536))]))
        exponent = int(rng.integers(-128, 128))
        constants.append(nx.Scalar(mantissa, exponent))
        plan.drive(1 + i, load__valid=1, load__space=Space.CONST, load__addr=i, load__sub=0,
                   load__data=mantissa | (exponent & 255) << 16)  # fmt: skip
    history = [[(0, nx.Scalar(0, 0) if i else nx.UNIT)] for i in range(SCALARS)]
    writes: set[tuple[int, int]] = set()
    captured = np.full((cfg.expert_rows, cfg.vlanes), -1)

    def register(i: int, cycle: int) -> nx.Scalar:
        return max((h for h in history[i] if h[0] <= cycle), key=lambda h: h[0])[1]

    start, end = SCALARS + 2, 1200
    for t in range(start, end):
        op = SfuOp(int(rng.integers(len(SfuOp)))) if captured.min() >= 0 else SfuOp.CAPTURE
        dst, a, b, bank = (int(rng.integers(SCALARS)) for _ in range(4))
        bank %= SOFTMAX_BANKS
        if rng.random() < 0.2 or (op in latency and (dst, t + latency[op]) in writes):
            continue
        sumsq, eps = _unsigned(rng, 64), _unsigned(rng, 64) >> int(rng.integers(64))
        sums = [_unsigned(rng, 40) for _ in range(SOFTMAX_BANKS)]
        p_row = np.where(rng.random(cfg.vlanes) < 0.3, rng.choice([0, 1, 65536, 65535], cfg.vlanes),
                         rng.integers(0, 65537, cfg.vlanes) >> rng.integers(0, 17, cfg.vlanes))  # fmt: skip
        result, idx = None, int(rng.integers(cfg.expert_rows))
        if op == SfuOp.RSQRT:
            over = int(rng.random() < 0.1)
            result = nx.rsqrt((1 << SUMSQ_BITS) - 1 if over else sumsq, eps)
            sumsq |= over << SUMSQ_BITS
        elif op == SfuOp.RECIP:
            result = nx.recip(sums[bank])
        elif op == SfuOp.MUL:
            result = nx.scalar_mul(register(a, t), constants[b])
        elif op == SfuOp.PROB:
            result = nx.scalar_mul(nx.prob_scalar(int(captured.reshape(-1)[b % captured.size])), register(a, t))
        else:
            captured[idx] = p_row
        plan.drive(t, uop=micro_op(cfg, Queue.SFU, op=op, dst=dst, a=a, b=b, bank=bank, idx=idx), sumsq=sumsq, eps=eps,
                   sums=row(sums, 40), z=row(p_row, WORD))  # fmt: skip
        if result is not None and dst != 0:
            writes.add((dst, t + latency[op]))
            history[dst].append((t + latency[op], nx.Scalar(int(result.mantissa), int(result.exponent))))
            history[dst].sort(key=lambda h: h[0])
    # Read what has just changed, or is about to, as often as anything else.
    changes = {cycle + d: i for i, h in enumerate(history) for cycle, _ in h for d in (-1, 0)}
    for t in range(start, end):
        i = changes.get(t, int(rng.integers(SCALARS)))
        plan.drive(t, read=i)
        value = register(i, t)
        plan.expect(t, "mantissa", value.mantissa, bits=16, what=f"R[{i}]")
        plan.expect(t, "exponent", value.exponent, bits=8, what=f"R[{i}]")
    print(f"seed {ctx.seed}: {await plan.run(dut)} comparisons")
