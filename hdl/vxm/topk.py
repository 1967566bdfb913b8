"""Top-k unit: sorted lists for the router's experts and for sampling the next token."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import MAX_EXPERTS_PER_TOKEN, WORD, Config
from ..isa import Queue, TopOp
from ..primitives import delayed, less, saturate
from ..timing import get_timing
from ..uop import run_state_layout, uop_layout
from .gumbel import GumbelNoise


def entry_layout(cfg: Config) -> data.StructLayout:
    """An element of the lists: ``key`` decides its rank."""
    return data.StructLayout({
        "valid": 1,
        "key": signed(WORD),
        "id": unsigned(max(cfg.token_bits, (cfg.experts_max - 1).bit_length())),
    })  # fmt: skip


class SortedList(wiring.Component):
    """The ``topk_max`` best entries so far, best first, kept by parallel insertion.

    ``clear`` empties the list, and ``insert.valid`` puts ``insert`` in, in the same cycle if both are set. Both
    take effect three cycles later: a register; comparison with all entries; the move. Entries come in rising id,
    so an equal key goes behind. ``taking`` with ``pop`` removes the head; the entries behind it move up a cycle later,
    which is why heads may be taken every other cycle only. Nothing may move in while ``taking``, which tells the
    multiplexers early what ``pop`` tells late.

    ``rank`` orders heads: valid before invalid, the larger key, the lower id. Keys and their complements come from
    registers of their own, and the entries hold complements: a comparison is then a sum, without the inverters
    that a difference has in front of its carry chain.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        layout = entry_layout(cfg)
        rank = unsigned(1 + WORD + layout["id"].width)
        super().__init__({
            "insert": In(layout),
            "clear": In(1),
            "pop": In(1),
            "taking": In(1),
            "head": Out(layout),
            "rank": Out(rank),
            "rank_not": Out(rank),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        depth = self.cfg.topk_max
        layout = entry_layout(self.cfg)
        valid = Signal(depth)
        # t + 1 (new): which entries stay in front of it, once the one before (placed) has taken its place.
        new = Signal(layout, reset_less=True)
        entering, wiping, wipe = Signal(), Signal(), Signal()
        stays = Signal(depth, init=-1)
        m.d.sync += [
            new.eq(self.insert),
            entering.eq(self.insert.valid),
            wiping.eq(self.clear),
            wipe.eq(wiping),
        ]
        # From here on, key is the complement.
        placed = Signal(layout, reset_less=True)
        entries = [Signal(layout, name=f"entry{i}", reset_less=True) for i in range(depth)]
        m.d.sync += [placed.eq(new), placed.key.eq(~new.key)]
        not_above = [(new.key + e.key)[-1] for e in (placed, *entries)]
        ahead = Signal(depth)
        m.d.comb += ahead.eq(Cat(*not_above[1:]) & valid & ~wipe.replicate(depth))
        for i in range(depth):
            moved = not_above[0] if i == 0 else Mux(stays[i - 1], not_above[0], ahead[i - 1])
            m.d.sync += stays[i].eq(~entering | (~wiping & Mux(stays[i], ahead[i], moved)))

        # t + 2: the move. The head has its key, too.
        key = Signal(signed(WORD), reset_less=True)
        pop_rest = Signal()
        m.d.sync += pop_rest.eq(self.taking & self.pop)
        kept = valid & ~wipe.replicate(depth)
        m.d.sync += valid.eq(kept)
        empty = Signal(layout)
        for i, e in enumerate(entries):
            behind, is_behind = (entries[i + 1], valid[i + 1]) if i + 1 < depth else (empty, Const(0))
            if i == 0:
                with m.If(Mux(self.taking, self.pop, ~stays[i])):
                    m.d.sync += [
                        e.eq(Mux(self.taking, behind, placed)),
                        valid[i].eq(~self.taking | is_behind),
                        key.eq(~Mux(self.taking, behind.key, placed.key)),
                    ]
                continue
            with m.If(pop_rest):
                m.d.sync += [e.eq(behind), valid[i].eq(is_behind)]
            with m.Elif(~stays[i]):
                m.d.sync += [
                    e.eq(Mux(stays[i - 1], placed, entries[i - 1])),
                    valid[i].eq(stays[i - 1] | kept[i - 1]),
                ]
        head = entries[0]
        m.d.comb += [
            self.head.eq(head),
            self.head.valid.eq(valid[0]),
            self.head.key.eq(key),
            self.rank.eq(Cat(~head.id, key[:-1], ~key[-1], valid[0])),
            self.rank_not.eq(Cat(head.id, head.key[:-1], ~head.key[-1], ~valid[0])),
        ]
        return m


class TopK(wiring.Component):
    """TOP micro-ops: INSERT samples ``y`` at t, EMIT takes the best candidate of all lanes.

    INSERT: element id = idx * V + lane enters if below ``limit``; the first micro-op of an instruction
    empties the lists. With noise = 1 and the host's ``noise`` mode 2, the key is ``y`` with the id's Gumbel noise.
    EMIT at t: ``expert_valid`` with ``expert_index``, ``expert_id`` in cycle t + 2; ``t`` (rows of T) and
    ``count`` (experts of this EMIT) from ``timing.top_row`` on. A sampling EMIT (expert = 0) takes candidates
    while its step is below the host's ``topk``, in ``noise`` mode 1 with the Gumbel noise of the step; ``token_valid``
    with ``token`` and its ``sequence`` ``timing.top_sample`` after the last step. All of them come from registers.
    Whoever takes noise first in a token gets that of ``seed``, the next one that of ``seed1``, and so on in turn.

    Without ``Config.noise`` the modes are nothing: the best candidate is the token.

    Rows with noise = 1 reach the lists two cycles later than others, whatever the mode: an INSERT with noise = 0
    comes at least three cycles behind the last row of one with noise = 1.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        row = data.ArrayLayout(signed(WORD), cfg.vlanes)
        super().__init__({
            "uop": In(uop_layout(cfg, Queue.TOP)),
            "state": In(run_state_layout(cfg)),
            "y": In(row),
            "seed": In(32),
            "seed1": In(32),
            "noise": In(2),
            "topk": In(range(cfg.topk_max + 1)),
            "t": Out(data.ArrayLayout(signed(WORD), cfg.vlanes * cfg.expert_rows)),
            "count": Out(range(MAX_EXPERTS_PER_TOKEN + 1)),
            "expert_valid": Out(1),
            "expert_index": Out(range(MAX_EXPERTS_PER_TOKEN)),
            "expert_id": Out(range(cfg.experts_max)),
            "token_valid": Out(1),
            "token": Out(cfg.token_bits),
            "sequence": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        cfg, uop = self.cfg, self.uop
        v = cfg.vlanes
        lane_bits = (v - 1).bit_length()
        timing = get_timing(cfg)
        assert (timing.top_insert, timing.top_insert_noise, timing.top_step) == (3, 5 if cfg.noise else 3, 2)
        assert (timing.top_row, timing.top_emit - timing.expert, timing.top_sample) == (2, 2, 6)
        inserting = Signal()
        m.d.comb += inserting.eq(uop.valid & (uop.op == TopOp.INSERT))

        if not cfg.noise:
            lists = [SortedList(cfg) for _ in range(v)]
            self._emit(m, lists, None)
            for lane, sorted_list in enumerate(lists):
                m.submodules[f"list{lane}"] = sorted_list
                element = Cat(Const(lane, lane_bits), uop.idx)
                m.d.comb += [
                    sorted_list.insert.valid.eq(inserting & (element < uop.limit)),
                    sorted_list.insert.key.eq(self.y[lane]),
                    sorted_list.insert.id.eq(element),
                    sorted_list.clear.eq(inserting & uop.first),
                ]
            return m

        by_id, by_rank = Signal(), Signal()
        m.d.sync += [by_id.eq(self.noise == 2), by_rank.eq(self.noise == 1)]
        m.submodules.gumbel = gumbel = GumbelNoise(cfg)
        lists = [SortedList(cfg) for _ in range(v)]
        sampled, sampled_last = self._emit(m, lists, Mux(by_rank, gumbel.noise[0], 0))
        # The second one's noise: until the next one has taken its own, or the token ends.
        second, taken = Signal(), Signal()
        turn = Signal()
        m.d.comb += taken.eq(gumbel.advance & gumbel.last)
        m.d.sync += [
            turn.eq(self.state.turn),
            second.eq((second ^ taken) & (turn == self.state.turn)),
        ]
        m.d.comb += [
            gumbel.seed.eq(Mux(second, self.seed1, self.seed)),
            gumbel.position.eq(self.state.position),
            gumbel.single.eq(self.noise == 1),
            gumbel.advance.eq((inserting & uop.noise & by_id) | (sampled & by_rank)),
            gumbel.last.eq(Mux(by_rank, sampled_last, uop.last)),
        ]
        # Rows with noise = 0 go straight to the lists; those with noise = 1 are two cycles at the adder.
        late = delayed(m, inserting & uop.noise, 2, reset=True, name="late")[-1]
        late_first = delayed(m, uop.first, 2, name="late_first")[-1]
        for lane, sorted_list in enumerate(lists):
            m.submodules[f"list{lane}"] = sorted_list
            element = Cat(Const(lane, lane_bits), uop.idx)
            enters = Signal(name=f"enters{lane}")
            m.d.comb += enters.eq(element < uop.limit)
            y = delayed(m, self.y[lane], 1, name=f"y{lane}")[-1]
            total = Signal(signed(WORD + 1), name=f"total{lane}", reset_less=True)
            m.d.sync += total.eq(y + Mux(by_id, gumbel.noise[lane], 0))
            late_enters = delayed(m, enters, 2, name=f"enters{lane}")[-1]
            late_element = delayed(m, element, 2, name=f"element{lane}")[-1]
            with m.If(late):
                m.d.comb += [
                    sorted_list.insert.valid.eq(late_enters),
                    sorted_list.insert.key.eq(saturate(total, WORD)),
                    sorted_list.insert.id.eq(late_element),
                    sorted_list.clear.eq(late_first),
                ]
            with m.Else():
                m.d.comb += [
                    sorted_list.insert.valid.eq(inserting & ~uop.noise & enters),
                    sorted_list.insert.key.eq(self.y[lane]),
                    sorted_list.insert.id.eq(element),
                    sorted_list.clear.eq(inserting & ~uop.noise & uop.first),
                ]
        return m

    def _emit(self, m: Module, lists: list[SortedList], noise: Value | None) -> tuple[Value, Value]:
        """EMIT at t: ``noise`` is added to its candidate in cycle t + 2; None: there is none, and the first is taken.

        Returns whether a sampling step was at t, and whether it was the last one, in cycle t + 1.
        """
        cfg, uop = self.cfg, self.uop
        v = cfg.vlanes
        emitting = Signal()
        m.d.comb += emitting.eq(uop.valid & (uop.op == TopOp.EMIT))

        # t: all pairs of heads.
        beats: list[list[Value]] = [[s.head.valid] for s in lists]
        for j in range(v):
            for i in range(j):
                above = Signal(reset_less=True, name=f"above{i}_{j}")
                m.d.sync += above.eq((lists[i].rank + lists[j].rank_not)[-1])
                beats[i].append(above)
                beats[j].append(~above)
        step = Signal()
        expert, first, last = Signal(reset_less=True), Signal(reset_less=True), Signal(reset_less=True)
        counts = Signal(reset_less=True)
        index = Signal(len(uop.i1), reset_less=True)
        m.d.sync += [
            step.eq(emitting),
            expert.eq(uop.expert),
            first.eq(uop.first),
            last.eq(uop.last),
            index.eq(uop.i1),
            counts.eq(uop.i1 < self.topk),
        ]

        # t + 1: take the best.
        layout = entry_layout(cfg)
        bits: Value = Const(0, layout.size)
        for s, wins in zip(lists, beats, strict=True):
            chosen = Cat(*wins).all()
            bits = bits | (s.head.as_value() & chosen.replicate(layout.size))
            m.d.comb += [s.taking.eq(step), s.pop.eq(chosen)]
        winner = Signal(layout)
        m.d.comb += winner.as_value().eq(bits)
        count = Signal.like(self.count)
        with m.If(step & expert):
            m.d.sync += count.eq(index + 1)
        m.d.comb += self.count.eq(count)
        for lane in range(v * cfg.expert_rows):
            row, enable = Signal(signed(WORD), name=f"t{lane}", reset_less=True), Signal(name=f"t_on{lane}")
            m.d.sync += enable.eq(emitting & uop.expert & (uop.i1 == lane))
            with m.If(enable):
                m.d.sync += row.eq(winner.key)
            m.d.comb += self.t[lane].eq(row)

        # t + 2: an expert leaves; a candidate gets its noise. It stays for two cycles.
        candidate, leads = Signal(layout, reset_less=True), Signal(reset_less=True)
        sampling, ends = Signal(), Signal()
        leaves, place = Signal(), Signal.like(index, reset_less=True)
        sampled = step & ~expert
        with m.If(step):
            m.d.sync += [candidate.eq(winner), candidate.valid.eq(winner.valid & counts), leads.eq(first)]
        m.d.sync += [
            leaves.eq(step & expert),
            place.eq(index),
            sampling.eq(sampled),
            ends.eq(sampled & last),
        ]
        total = Signal(signed(WORD + 1), reset_less=True)
        if noise is not None:
            m.d.sync += total.eq(candidate.key + noise)
        m.d.comb += [
            self.expert_valid.eq(leaves),
            self.expert_index.eq(place),
            self.expert_id.eq(candidate.id),
        ]
        whose = Signal()
        if noise is None:
            token = Signal.like(self.token, reset_less=True)
            with m.If(sampling & leads):
                m.d.sync += token.eq(candidate.id)
            self._token(m, token, ends, whose, emitting)
            return sampled, last

        # t + 3: saturation. t + 4: comparison with the best so far, which stays among equals.
        stages = delayed(m, sampling, 2, reset=True, name="sampling")
        z, next_z = Signal(signed(WORD), reset_less=True), Signal(signed(WORD), reset_less=True)
        token, next_token = Signal.like(self.token, reset_less=True), Signal.like(self.token, reset_less=True)
        begins, valid = Signal(reset_less=True), Signal(reset_less=True)
        with m.If(stages[1]):
            m.d.sync += [
                next_z.eq(saturate(total, WORD)),
                next_token.eq(candidate.id),
                begins.eq(leads),
                valid.eq(candidate.valid),
            ]
        take = Signal()
        m.d.sync += take.eq(stages[2] & (begins | (valid & less(z, next_z))))
        # t + 5: the best so far goes into its register, before the next candidate's comparison.
        with m.If(take):
            m.d.sync += [z.eq(next_z), token.eq(next_token)]
        self._token(m, token, ends, whose, emitting)
        return sampled, last

    def _token(self, m: Module, token: Value, ends: Value, whose: Signal, emitting: Value) -> None:
        """The next token's id leaves: ``ends``, the last step was at t, in cycle t + 2."""
        timing = get_timing(self.cfg)
        with m.If(emitting):
            m.d.sync += whose.eq(self.uop.sequence)
        m.d.comb += [
            self.token_valid.eq(delayed(m, ends, timing.top_sample - 2, reset=True, name="done")[-1]),
            self.token.eq(token),
            self.sequence.eq(delayed(m, whose, timing.top_sample - 1, name="whose")[-1]),
        ]
