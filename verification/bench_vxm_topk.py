"""Bench of the top-k unit: router and sampling, with ties, at the least distances the latencies allow."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np

from hdl.config import MAX_EXPERTS_PER_TOKEN, WORD
from hdl.isa import Queue, TopOp
from hdl.timing import get_timing
from hdl.uop import run_state_layout
from hdl.vxm.topk import TopK
from sim import numerics as nx
from verification.bench_vxm_plan import Plan, corner_ints, micro_op, pack, port_widths, row
from verification.context import context


@cocotb.test()
async def router_and_sampling(dut: Any) -> None:
    """Lists of random length, dense and sparse; each output is compared in every cycle."""
    ctx = context()
    cfg, rng = ctx.config, ctx.rng(1)
    timing = get_timing(cfg)
    v = cfg.vlanes
    plan = Plan(port_widths(TopK(cfg)), ctx.rng(2))
    layout = run_state_layout(cfg)
    t = 3
    experts: dict[int, tuple[int, int]] = {}
    tokens: dict[int, int] = {}
    whose: dict[int, int] = {}
    elements = v * cfg.expert_rows
    rows: list[list[tuple[int, int]]] = [[] for _ in range(elements)]
    counts: list[tuple[int, int]] = []
    position, turn, seeds = 5, 0, [0x12345678, 0x9ABCDEF0]
    second = 0
    """Whose seed the next noise has: the sequences in turn, from the first one on in each token."""
    state = pack(layout, {"position": position, "turn": turn})
    plan.hold(0, state=state, seed=seeds[0], seed1=seeds[1], topk=1, noise=0)
    mode = 0
    clear_from = timing.top_noise  # first cycle in which a micro-op that takes noise may stand

    def insert(start: int, values: np.ndarray[Any, Any], limit: int, noise: int) -> int:
        """Micro-ops of one INSERT; returns the cycle of the last one."""
        at = start
        n = -(-values.size // v)
        padded = np.concatenate([values, corner_ints(rng, WORD, n * v - values.size)])
        dense = rng.random() < 0.5
        for idx in range(n):
            if idx and not dense:
                at += int(rng.integers(3))
            plan.drive(at, y=row(padded[idx * v : idx * v + v], WORD),
                       uop=micro_op(cfg, Queue.TOP, op=TopOp.INSERT, limit=limit, noise=noise, idx=idx,
                                    first=int(idx == 0), last=int(idx == n - 1)))  # fmt: skip
            at += 1
        return at - 1

    def emit(start: int, steps: int, expert: int, sequence: int = 0) -> int:
        for i in range(steps):
            plan.drive(start + i * timing.top_step,
                       uop=micro_op(cfg, Queue.TOP, op=TopOp.EMIT, expert=expert, i1=i, idx=i, sequence=sequence,
                                    first=int(i == 0), last=int(i == steps - 1)))  # fmt: skip
        return start + (steps - 1) * timing.top_step

    for trial in range(100):
        whole = trial in (30, 60, 90)  # a whole vocabulary, with the noise of every id
        deep = trial % 3 == 1 and cfg.noise  # one lane's list to its end
        if rng.random() < 0.4 and not whole and not deep:  # router
            n = int(rng.integers(MAX_EXPERTS_PER_TOKEN, cfg.experts_max + 1))
            logits = corner_ints(rng, WORD, n)
            if rng.random() < 0.4:
                logits = rng.choice([-7, 3, 3, 9], n)
            k = int(rng.integers(1, MAX_EXPERTS_PER_TOKEN + 1))
            last = insert(t, logits, n, 0)
            start = last + timing.top_insert
            best = nx.topk(logits, None, k)
            for i in range(k):
                at = start + i * timing.top_step
                experts[at + 2] = (i, int(best[i]))
                if i < elements:
                    rows[i].append((at + timing.top_row, int(logits[best[i]])))
                counts.append((at + timing.top_row, i + 1))
            t = emit(start, k, 1) + timing.top_step + int(rng.integers(3))
            continue
        before = mode
        if rng.random() < 0.6:
            mode = int(rng.integers(3))
        mode = 2 if whole else 1 if deep else mode
        if not cfg.noise:
            mode = 0
        topk = cfg.topk_max if deep and mode else int(rng.integers(1, cfg.topk_max + 1)) if mode == 1 else 1
        if rng.random() < 0.6:
            # Another token: of the next run at the same position, now and then.
            if rng.random() < 0.7:
                position = int(rng.integers(cfg.context_max))
                seeds = [int(s) for s in rng.integers(1 << 32, size=2)]
            second, turn = 0, turn ^ 1
            plan.hold(t, state=pack(layout, {"position": position, "turn": turn}), seed=seeds[0], seed1=seeds[1])
            clear_from = max(clear_from, t + timing.top_noise)
        plan.hold(t, topk=topk, noise=mode)
        if mode != before:
            clear_from = max(clear_from, t + timing.top_noise)
        n = int(rng.integers(1, rng.choice([3 * v, 120])))
        n = cfg.vocab_max if whole else (cfg.topk_max + 1) * v if deep else n
        logits = rng.integers(-1 << 18, 1 << 18, n)
        if deep:  # its logits are the best, so close that noise may pick any; most come in falling order
            lane, falling = int(rng.integers(v)), -16 * np.arange(cfg.topk_max + 1)
            logits[lane::v] = (1 << 20) + (falling if rng.random() < 0.8 else rng.permutation(falling))
        elif rng.random() < 0.3 and not whole:
            logits = rng.choice([nx.INT32_MAX, nx.INT32_MAX - 1000, nx.INT32_MIN, 5], n)
        last = insert(max(t, clear_from) if mode == 2 else t, logits, n, 1)
        start = last + timing.top_insert_noise
        sequence = int(rng.integers(2))
        end = emit(max(start, clear_from) if mode == 1 else start, cfg.topk_max, 0, sequence)
        whose[end + timing.top_sample] = sequence
        if mode:
            clear_from = (last if mode == 2 else end) + timing.top_noise
        tokens[end + timing.top_sample] = nx.sample(
            logits, topk_n=min(topk, n), noise=mode, seed=seeds[second], position=position
        )
        second ^= mode != 0
        t = end + timing.top_step + 1 + int(rng.integers(3))
    for cycle in range(3, t + timing.top_sample):
        plan.expect(cycle, "expert_valid", int(cycle in experts), bits=1, what="expert pulse")
        plan.expect(cycle, "token_valid", int(cycle in tokens), bits=1, what="token pulse")
    for cycle, (i, expert_id) in experts.items():
        plan.expect(cycle, "expert_index", i, bits=2)
        bits = (cfg.experts_max - 1).bit_length()
        plan.expect(cycle, "expert_id", expert_id, bits=bits, what=f"expert {i}")
    for cycle, token in tokens.items():
        plan.expect(cycle, "token", token, bits=cfg.token_bits, what="token")
        plan.expect(cycle, "sequence", whose[cycle], bits=1, what="whose token")
    for lane in range(elements):
        plan.expect_steps("t", rows[lane], t, bits=WORD, lane=lane, what="row T")
    plan.expect_steps("count", counts, t, bits=2, what="count")
    print(f"seed {ctx.seed}: {await plan.run(dut)} comparisons, {len(experts)} experts, {len(tokens)} tokens")
