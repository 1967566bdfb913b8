"""Layout, schedule and program: what fits, what is refused and why, and the cycle counts promised."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from firmware.errors import LpuError
from firmware.layout import Layout
from firmware.limits import experts_per_token, head_dim
from firmware.lower import Compiled, lower
from firmware.program import TokenProgram, build_program, head_orders
from firmware.schedule import Scheduler, Slot, token_cycles
from hdl.config import CONFIGS, LARGE, TINY, ULX3S_25F, ULX3S_85F, Config
from hdl.image import Space
from hdl.isa import Count, Queue, VxOp, get_isa, tail_of
from hdl.timing import get_timing
from tests.util_random import roomy
from verification.random_model import make_model, quantised, shape


def compiled(cfg: Config, weights: int = 8, seed: int = 0, **changes: Any) -> Compiled:
    s = shape(**changes)
    return lower(quantised(make_model(s, np.random.default_rng(seed)), cfg, weights), cfg)


HOLDING = {name: cfg if cfg.context_max >= 60 else roomy(cfg) for name, cfg in CONFIGS.items()}
"""The configurations; those too small for the models of these tests with memories that are not."""


def cycles(c: Compiled, position: int, sampled: bool = True) -> int:
    s = c.layout.model.shape
    return token_cycles(c.cfg, c.program.phases, s.layers, s.window, c.floor, position, sampled)


# -- the schedule ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS)
def test_cycles_follow_the_position(config: str) -> None:
    c = compiled(HOLDING[config], context=60, window=40)
    counts = [cycles(c, p) for p in range(60)]
    assert counts == sorted(counts)
    assert set(counts[39:]) == {counts[39]}, "a full window costs the same at every position"
    assert all(cycles(c, p, sampled=False) < cycles(c, p) for p in range(60))


def test_cycles_follow_the_layers() -> None:
    one, two, four = (cycles(compiled(ULX3S_85F, layers=n), 9) for n in (1, 2, 4))
    assert four - two == 2 * (two - one) > 0


def test_a_prompts_token_leaves_out_its_last_layer() -> None:
    """It costs its layers but one, and K and V; of one layer, or without room for a tail, it goes through all."""
    one, two, three = (compiled(ULX3S_85F, layers=n) for n in (1, 2, 3))
    assert [tail_of(c.program.phases) < len(c.program.phases) for c in (one, two, three)] == [False, True, True]
    prompt = [cycles(c, 9, sampled=False) for c in (one, two, three)]
    layer = cycles(three, 9) - cycles(two, 9)
    assert prompt[2] - prompt[1] == layer and prompt[1] - prompt[0] < layer // 2
    phases = len(two.program.phases)
    full = compiled(dataclasses.replace(ULX3S_85F, phase_depth=phases - 1), layers=2)
    assert full.program.phases == two.program.phases[:-1]
    assert cycles(full, 9, sampled=False) == prompt[0] + layer


def test_the_floor_is_the_best_of_those_tried() -> None:
    """Without a floor the same program takes no fewer cycles over the whole window."""
    layout = compiled(ULX3S_85F, context=48).layout
    program, floor = build_program(layout)
    plain = TokenProgram(layout, 1).build()
    s = layout.model.shape

    def total(phases: tuple, floor: int) -> int:
        return sum(token_cycles(layout.cfg, phases, s.layers, s.window, floor, p, True) for p in range(s.window))

    assert total(program.phases, floor) <= total(plain.phases, 1)


@pytest.mark.parametrize("heads", [1, 2, 3, 5])
def test_the_order_of_the_heads_is_the_best_of_those_tried(heads: int) -> None:
    """At the floor that was chosen no other lag and wait takes fewer cycles; and there are as many as buffers."""
    layout = compiled(ULX3S_85F, context=48, heads=heads, kv_heads=1, head_dim=16).layout
    program, floor = build_program(layout)
    s = layout.model.shape

    def total(phases: tuple) -> int:
        return sum(token_cycles(layout.cfg, phases, s.layers, s.window, floor, p, True) for p in range(s.window))

    orders = head_orders(layout)
    assert len(orders) == {1: 1, 2: 2}.get(heads, 4)
    tried = [total(TokenProgram(layout, floor, *order).build().phases) for order in orders]
    assert total(program.phases) == min(tried)


def test_a_phase_can_leave_instructions_to_the_next() -> None:
    """With ``last`` a phase ends behind that queue's issue; what is later keeps its cycle of the token."""
    sched = Scheduler(TINY, np.arange(1, 9))
    sched.place([Slot(Queue.XR, 0, {"n1": 3}), Slot(Queue.XW, 30, {"source": 0, "n1": 3})])
    sched.close("first", last=Queue.XR)
    second = sched.place([Slot(Queue.XR, 0, {"n1": 1}), Slot(Queue.XW, 40, {"source": 0, "n1": 1})])
    sched.close("second", final=1)
    program = sched.program()
    first = program.phases[0]
    assert [bool(p.queues >> Queue.XW & 1) for p in program.phases] == [False, True]
    read, write = program.code[Queue.XR], program.code[Queue.XW]
    assert read[0].time < first.dur < read[0].time + 30
    assert [first.dur + w.time for w in write] == [read[0].time + 30, int(second[0]) + 40]
    assert [w.get("end") for w in write] == [0, 1]


def test_the_same_model_makes_the_same_sections() -> None:
    first, again = ([(s.space, s.sub, s.address, s.data) for s in compiled(TINY).sections] for _ in range(2))
    assert first == again


@pytest.mark.parametrize("config", CONFIGS)
def test_instructions_encode_and_come_back(config: str) -> None:
    """Every instruction of a program, and the program memory in the sections, is the one that was scheduled."""
    c = compiled(HOLDING[config], context=20)
    isa = get_isa(c.cfg)
    for q, code in c.program.code.items():
        for instruction in code:
            back = isa.decode(q, isa.encode(instruction))
            assert all(back.get(name) == value for name, value in instruction.values.items())
    rows: dict[int, int] = collections.Counter()
    for s in c.sections:
        if s.space is Space.PROGRAM:
            rows[s.sub] += len(s.data) // 5
    assert rows == {int(q): len(code) * isa.formats[q].words for q, code in c.program.code.items() if code}


def scheduler(keys: int = 20) -> Scheduler:
    return Scheduler(TINY, np.arange(1, keys + 1))


def test_a_queue_is_busy_while_its_loops_run() -> None:
    s = scheduler()
    rows = Slot(Queue.XR, 0, {"n1_sel": Count.ROWS})
    first, second = s.place([rows]), s.place([rows])
    gap = get_timing(TINY).fetch_gap(s.isa.formats[Queue.XR])
    assert np.all(first == gap), "a queue that has jumped fetches first"
    assert np.all(second - first >= np.maximum(s.counts[Count.ROWS], gap))
    assert np.max(second - first) == max(s.counts[Count.ROWS].max(), gap), "and no later than needed"


def test_a_bundle_keeps_its_distances() -> None:
    s = scheduler()
    at = s.place([Slot(Queue.XR, -2, {}), Slot(Queue.VX, 0, {"op": VxOp.ADD}), Slot(Queue.XW, 2, {})], 30)
    assert np.all(at == 30)
    s.close("bundle")
    assert [s.code[q][0].time for q in (Queue.XR, Queue.VX, Queue.XW)] == [28, 30, 32]


def test_looking_does_not_place() -> None:
    s = scheduler()
    bundle = [Slot(Queue.XR, 0, {"n1": 9})]
    assert np.array_equal(s.earliest(bundle, 12), s.earliest(bundle, 12))
    assert np.array_equal(s.earliest(bundle, 12), s.place(bundle, 12))
    assert np.all(s.earliest(bundle) >= 21)


def test_results_stay_in_order_behind_operations_of_different_latency() -> None:
    s, t = scheduler(), get_timing(TINY)
    slow = s.place([Slot(Queue.VX, 0, {"op": VxOp.SILU, "n1": 4})])
    fast = s.place([Slot(Queue.VX, 0, {"op": VxOp.PASS})])
    assert np.all(fast + t.vx(VxOp.PASS) > slow + 3 + t.vx(VxOp.SILU))


def test_a_phase_lasts_for_what_is_in_it() -> None:
    s = scheduler()
    s.close("empty")
    assert s.phases[0].dur == get_timing(TINY).phase_min
    s.place([Slot(Queue.XR, 0, {})], s.start + 17)
    s.close("one", slope=2, count=Count.ROWS)
    assert s.phases[1].dur + 2 * s.counts[Count.ROWS].min() == 18
    assert s.phases[1].queues == 1 << Queue.XR and s.code[Queue.XR][0].get("end") == 1


# -- what does not fit -------------------------------------------------------------------------------------


def test_a_model_that_does_not_fit_says_what_is_missing() -> None:
    with pytest.raises(LpuError) as error:
        compiled(TINY, d=96, ffn=96, experts=9, vocab=600, context=70, heads=4)
    text = str(error.value)
    assert "config tiny" in text
    for memory in ("weight words per column", "scale rows", "positions", "vocabulary", "experts"):
        line = next(line for line in text.splitlines() if memory in line)
        assert "needs" in line and "has" in line and "<- too small" in line
    assert "too small" not in next(line for line in text.splitlines() if "activation words" in line)


@pytest.mark.parametrize(
    ("cfg", "changes", "message"),
    [
        (dataclasses.replace(TINY, queue_depth=64), {}, r"needs \d+ words in queue ABC, config tiny has 64"),
        (dataclasses.replace(TINY, phase_depth=8), {}, r"needs \d+ phases, config tiny has 8"),
        (dataclasses.replace(TINY, vlanes=2), {"top_k": 3}, r"num_experts_per_tok = 3: .* up to 2 \(vlanes = 2\)"),
        (LARGE, {"top_k": 4, "experts": 5}, "num_experts_per_tok = 4: config large supports up to 3 .*base registers"),
        (LARGE, {"head_dim": 258, "heads": 1, "kv_heads": 1, "layers": 1}, r"head_dim = 258: .* \(head_max = 256\)"),
        (ULX3S_25F, {"head_dim": 66, "heads": 1, "kv_heads": 1, "layers": 1}, r"head_dim = 66: .* \(head_max = 64\)"),
        (dataclasses.replace(TINY, time_bits=5), {}, "cannot be encoded for config tiny: .*time = "),
        (
            dataclasses.replace(TINY, lanes=64), {"head_dim": 64, "heads": 1, "kv_heads": 1},
            r"head_dim = 64: config tiny supports up to 8 \(half of accs = 4 sets of 4 columns\)",
        ),
    ],
)  # fmt: skip
def test_programs_that_cannot_be(cfg: Config, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LpuError, match=message):
        compiled(cfg, **changes)


@pytest.mark.parametrize("sequences", [1, 2])
def test_layout_regions_do_not_overlap(sequences: int) -> None:
    """Weights of one layer: every tensor and each cache have words of their own, and layers follow each other."""
    lay = Layout(compiled(ULX3S_85F, weights=4, experts=3).layout.model, ULX3S_85F, sequences=sequences)
    s = lay.model.shape
    assert len(lay.sequences) == sequences
    spans = [(m.w, m.w + m.weight_words) for m in (lay.v, lay.k, lay.q, lay.o) if m]
    assert lay.router is not None
    spans.append((lay.router.w, lay.router.w + lay.router.weight_words))
    for e in range(s.experts):
        spans += [(m.w + e * lay.expert_w, m.w + e * lay.expert_w + m.weight_words) for m in (lay.gate_up, lay.down)]
    for own in lay.sequences:
        spans.append((own.key_w, own.key_w + s.kv_heads * lay.key_head_w))
        spans.append((own.value_w, own.value_w + s.kv_heads * lay.value_head_w))
    spans.sort()
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    assert spans[-1][1] == lay.layer_w
    assert lay.embed.w >= s.layers * lay.layer_w


@pytest.mark.parametrize(
    "cfg", [*CONFIGS.values(), dataclasses.replace(TINY, lanes=64)], ids=lambda c: f"{c.name}-{c.lanes}"
)
def test_limits_are_where_they_are_said_to_be(cfg: Config) -> None:
    """The largest of each is compiled, the next one refused."""
    large = dataclasses.replace(
        roomy(cfg), act_depth=1 << 12, coef_depth=1 << 13, vector_depth=1 << 12, queue_depth=4096, phase_depth=256,
    )  # fmt: skip
    changes = {"heads": 1, "kv_heads": 1, "layers": 1, "context": 6}
    experts, size = experts_per_token(large).largest, head_dim(large).largest
    compiled(large, experts=5, top_k=experts, head_dim=size, **changes)
    with pytest.raises(LpuError, match=f"num_experts_per_tok = {experts + 1}: .*supports up to {experts} "):
        compiled(large, experts=5, top_k=experts + 1, **changes)
    with pytest.raises(LpuError, match=f"head_dim = {size + 2}: .*supports up to {size} "):
        compiled(large, head_dim=size + 2, **changes)
