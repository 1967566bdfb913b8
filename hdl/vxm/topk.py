"""Top-k unit: sorted lists for the router's experts and for sampling the next token."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_EXPERTS_PER_TOKEN, WORD, Config
from ..isa import Queue, TopOp
from ..primitives import saturate
from ..timing import get_timing
from ..uop import run_state_layout, uop_layout
from .gumbel import GumbelNoise


def entry_layout(cfg: Config) -> data.StructLayout:
    """A candidate: its rank is by ``key``; ``z`` decides which candidate becomes the token."""
    return data.StructLayout({
        "valid": 1,
        "key": signed(WORD),
        "z": signed(WORD),
        "id": unsigned(max(cfg.token_bits, (cfg.experts_max - 1).bit_length())),
    })  # fmt: skip


class SortedList(wiring.Component):
    """The ``topk_max`` best entries so far, best first, kept by parallel insertion.

    ``clear`` empties the list, and ``insert.valid`` puts ``insert`` in, in the same cycle if both are set;
    ``pop`` removes the head. Entries come in rising id, so an equal key goes behind.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        super().__init__({
            "insert": In(entry_layout(cfg)),
            "clear": In(1),
            "pop": In(1),
            "head": Out(entry_layout(cfg)),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        depth = self.cfg.topk_max
        layout = entry_layout(self.cfg)
        entries = [Signal(layout, name=f"entry{i}") for i in range(depth)]
        stays = Signal(depth)
        for i, e in enumerate(entries):
            m.d.comb += stays[i].eq(e.valid & ~self.clear & (e.key >= self.insert.key))
        empty = Signal(layout)
        with m.If(self.insert.valid):
            for i, e in enumerate(entries):
                with m.If(~stays[i]):
                    if i == 0:
                        m.d.sync += e.eq(self.insert)
                    else:
                        before = entries[i - 1]
                        with m.If(stays[i - 1]):
                            m.d.sync += e.eq(self.insert)
                        with m.Else():
                            m.d.sync += [e.eq(before), e.valid.eq(before.valid & ~self.clear)]
        with m.Elif(self.clear):
            m.d.sync += [e.valid.eq(0) for e in entries]
        with m.Elif(self.pop):
            m.d.sync += [e.eq(behind) for e, behind in zip(entries, [*entries[1:], empty], strict=True)]
        m.d.comb += self.head.eq(entries[0])
        return m


class TopK(wiring.Component):
    """TOP micro-ops: INSERT samples ``y`` at t, EMIT takes the best candidate of all lanes.

    INSERT: element id = idx * V + lane enters if below ``limit``; the first micro-op of an instruction
    empties the lists. With noise = 1 the host's ``noise`` mode counts (0 none, 1 beside the key, 2 in it).
    EMIT at t: ``expert_valid`` with ``expert_index``, ``expert_id`` in cycle t + 1; ``t`` (row T) and
    ``count`` (experts of this EMIT) from ``timing.top_row`` on. A sampling EMIT (expert = 0) takes candidates
    while its step is below the host's ``topk``; ``token_valid`` with ``token`` ``timing.top_emit`` after the
    last step.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        row = data.ArrayLayout(signed(WORD), cfg.vlanes)
        super().__init__({
            "uop": In(uop_layout(cfg, Queue.TOP)),
            "state": In(run_state_layout(cfg)),
            "y": In(row),
            "seed": In(32),
            "noise": In(2),
            "topk": In(range(cfg.topk_max + 1)),
            "t": Out(row),
            "count": Out(range(MAX_EXPERTS_PER_TOKEN + 1)),
            "expert_valid": Out(1),
            "expert_index": Out(range(MAX_EXPERTS_PER_TOKEN)),
            "expert_id": Out(range(cfg.experts_max)),
            "token_valid": Out(1),
            "token": Out(cfg.token_bits),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        cfg, uop = self.cfg, self.uop
        v = cfg.vlanes
        lane_bits = (v - 1).bit_length()
        timing = get_timing(cfg)
        assert (timing.top_insert, timing.top_insert_noise, timing.top_step) == (1, 2, 2)
        assert (timing.top_row, timing.top_emit) == (2, 3)
        inserting = Signal()
        m.d.comb += inserting.eq(uop.valid & (uop.op == TopOp.INSERT))

        m.submodules.gumbel = gumbel = GumbelNoise(cfg)
        m.d.comb += [
            gumbel.seed.eq(self.seed),
            gumbel.position.eq(self.state.position),
            gumbel.advance.eq(inserting & uop.noise),
            gumbel.last.eq(uop.last),
        ]
        late = Signal()
        late_first = Signal(reset_less=True)
        m.d.sync += [late.eq(inserting & uop.noise), late_first.eq(uop.first)]

        lists = []
        for lane in range(v):
            m.submodules[f"list{lane}"] = sorted_list = SortedList(cfg)
            lists.append(sorted_list)
            element = Signal(len(uop.idx) + lane_bits, name=f"element{lane}")
            enters = Signal(name=f"enters{lane}")
            m.d.comb += [element.eq(Cat(Const(lane, lane_bits), uop.idx)), enters.eq(element < uop.limit)]
            # Rows without noise go straight in; rows with noise spend one cycle at the adder.
            noisy = Signal(entry_layout(cfg), name=f"noisy{lane}", reset_less=True)
            z = saturate(self.y[lane] + Mux(self.noise == 0, 0, gumbel.noise[lane]), WORD)
            m.d.sync += [
                noisy.valid.eq(enters),
                noisy.key.eq(Mux(self.noise == 2, z, self.y[lane])),
                noisy.z.eq(z),
                noisy.id.eq(element),
            ]
            with m.If(late):
                m.d.comb += [
                    sorted_list.insert.eq(noisy),
                    sorted_list.clear.eq(late_first),
                ]
            with m.Else():
                m.d.comb += [
                    sorted_list.insert.valid.eq(inserting & ~uop.noise & enters),
                    sorted_list.insert.key.eq(self.y[lane]),
                    sorted_list.insert.z.eq(self.y[lane]),
                    sorted_list.insert.id.eq(element),
                    sorted_list.clear.eq(inserting & ~uop.noise & uop.first),
                ]
        self._emit(m, lists)
        return m

    def _emit(self, m: Module, lists: list[SortedList]) -> None:
        cfg, uop = self.cfg, self.uop
        v = cfg.vlanes
        emitting = Signal()
        m.d.comb += emitting.eq(uop.valid & (uop.op == TopOp.EMIT))

        # t: which lane's head is best; the lower id wins a tie.
        ranks = [Cat(~s.head.id, s.head.key).as_signed() for s in lists]
        valid = [s.head.valid for s in lists]
        best = Signal(v)
        for i in range(v):
            beats = [~valid[j] | (ranks[i] > ranks[j]) for j in range(v) if j != i]
            m.d.comb += best[i].eq(Cat(valid[i], *beats).all())
        chosen = Signal(v)
        step = Signal()
        expert, first, last = Signal(reset_less=True), Signal(reset_less=True), Signal(reset_less=True)
        counts = Signal(reset_less=True)
        index = Signal(len(uop.i1), reset_less=True)
        m.d.sync += [
            chosen.eq(best),
            step.eq(emitting),
            expert.eq(uop.expert),
            first.eq(uop.first),
            last.eq(uop.last),
            index.eq(uop.i1),
            counts.eq(uop.i1 < self.topk),
        ]

        # t + 1: take it.
        layout = entry_layout(cfg)
        bits: Value = Const(0, layout.size)
        for i, s in enumerate(lists):
            bits = bits | (s.head.as_value() & chosen[i].replicate(layout.size))
            m.d.comb += s.pop.eq(step & chosen[i])
        winner = Signal(layout)
        m.d.comb += [
            winner.as_value().eq(bits),
            self.expert_valid.eq(step & expert),
            self.expert_index.eq(index),
            self.expert_id.eq(winner.id),
        ]
        row = Array(Signal(signed(WORD), name=f"t{lane}", reset_less=True) for lane in range(v))
        count = Signal.like(self.count)
        with m.If(step & expert):
            m.d.sync += count.eq(index + 1)
            with m.If(index < v):
                m.d.sync += row[index[: (v - 1).bit_length()]].eq(winner.key)
        m.d.comb += [self.count.eq(count), *(self.t[lane].eq(row[lane]) for lane in range(v))]
        candidate = Signal(layout, reset_less=True)
        sampling, begins = Signal(), Signal(reset_less=True)
        ends = Signal()
        m.d.sync += [
            candidate.eq(winner),
            candidate.valid.eq(winner.valid & counts),
            sampling.eq(step & ~expert),
            begins.eq(first),
            ends.eq(step & ~expert & last),
        ]

        # t + 2: the largest z so far, the lower id among equals.
        z, token = Signal(signed(WORD), reset_less=True), Signal.like(candidate.id, reset_less=True)
        better = Cat(~candidate.id, candidate.z).as_signed() > Cat(~token, z).as_signed()
        with m.If(sampling & (begins | (candidate.valid & better))):
            m.d.sync += [z.eq(candidate.z), token.eq(candidate.id)]
        done = Signal()
        m.d.sync += done.eq(ends)
        m.d.comb += [self.token_valid.eq(done), self.token.eq(token)]
