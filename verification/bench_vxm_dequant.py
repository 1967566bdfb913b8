"""Bench of the dequantiser and of MAX: every bit and every cycle against ``sim/numerics.py``."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np

from hdl.config import SCALARS, SOFTMAX_BANKS, WORD
from hdl.isa import AccSource, Queue
from hdl.timing import get_timing
from hdl.uop import run_state_layout
from hdl.vxm.dequant import Dequantiser
from sim import numerics as nx
from verification.bench_vxm_plan import Plan, corner_ints, micro_op, pack, port_widths, row
from verification.context import context


@cocotb.test()
async def rows(dut: Any) -> None:
    """Instructions of random length back to back and apart, from accumulators and from the gather stream."""
    ctx = context()
    cfg, rng = ctx.config, ctx.rng(1)
    timing = get_timing(cfg)
    v = cfg.vlanes
    drain = max(v, 4)
    plan = Plan(port_widths(Dequantiser(cfg)), ctx.rng(2))
    state_layout = run_state_layout(cfg)
    maxima: list[list[tuple[int, int]]] = [[] for _ in range(SOFTMAX_BANKS)]
    t = 2
    for _ in range(120):
        length = int(rng.integers(1, 7))
        use_max, bank = int(rng.random() < 0.6), int(rng.integers(SOFTMAX_BANKS))
        keys = int(rng.integers(0, min(length * v + 2, cfg.context_max + 1)))
        gather, bcast = int(rng.random() < 0.3), int(rng.random() < 0.3)
        step = 1 if rng.random() < 0.6 else int(rng.integers(1, 4))
        held: np.ndarray[Any, Any] = np.empty(0, dtype=np.int64)
        for idx in range(length):
            token = int(rng.integers(cfg.vocab_max))
            scalar = int(rng.integers(SCALARS))
            shift = int(rng.integers(64))
            mantissa = int(rng.choice([0, 32768, 65535, int(rng.integers(65536))]))
            exponent = int(rng.integers(-128, 128)) if rng.random() < 0.3 else int(rng.integers(-8, 24))
            scl = np.where(rng.random(v) < 0.2, rng.choice([0, 1, 65535], v), rng.integers(0, 65536, v))
            value = corner_ints(rng, cfg.acc_bits, v)
            gathered = corner_ints(rng, 8, v)
            if rng.random() < 0.5:  # so that not every result is a limit or zero
                shift = int(np.clip(cfg.acc_bits - 16 - exponent, 0, 63))
            if rng.random() < 0.2:  # the sum of both where it is clamped
                shift = int(rng.integers(64))
                exponent = int(rng.choice([-2, -1, 0, 1, 62, 63, 64, 65])) - shift
            plan.drive(
                t,
                uop=micro_op(
                    cfg, Queue.ACC, source=AccSource.GATHER if gather else AccSource.ACC, bcast=bcast,
                    max=use_max, bank=bank, scalar=scalar, shift=shift, idx=idx,
                    first=int(idx == 0), last=int(idx == length - 1),
                ),
                state=pack(state_layout, {"token": token, "keys": keys}),
                scl=row(scl, 16),
                gather=row(gathered, 8),
                mantissa=mantissa,
                exponent=exponent & 255,
            )  # fmt: skip
            plan.drive(t + drain, value=row(value, cfg.acc_bits))
            plan.expect(t, "scalar", scalar, bits=(SCALARS - 1).bit_length())
            scales = np.full(v, scl[token % v]) if bcast else scl
            y = nx.dequant(gathered if gather else value, scales, nx.Scalar(mantissa, exponent), shift)
            plan.expect_row(t + timing.acc, "y", y, WORD, f"row issued at {t}")
            held = np.concatenate([held, y])
            if use_max:
                maxima[bank].append((t + timing.max, int(nx.masked_max(held, keys))))
            t += step
        t += int(rng.integers(3))
    for bank, steps in enumerate(maxima):
        plan.expect_steps("maximum", steps, t, bits=WORD, lane=bank, what=f"MAX[{bank}]")
    print(f"seed {ctx.seed}: {await plan.run(dut)} comparisons")
