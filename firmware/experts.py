"""The second half of a layer, a sequence's: output projection, router, and each chosen expert's gate, up and down."""

from __future__ import annotations

from hdl.config import SOFTMAX_BANKS
from hdl.isa import EXPERT_BASES, Base, Queue, SfuOp, Source, TopOp, VxOp

from .chains import Chains, Offer, Passes
from .layout import HEADS_IN_WORK, Matrix, ceil_div
from .schedule import Slot, Times

BANK = SOFTMAX_BANKS - 1
"""Of the router's softmax; the others are the heads'."""
assert HEADS_IN_WORK <= BANK


class Experts:
    """Second halves of one layer. The sum of squares, the logits in the lists, and then the chosen experts' bases and
    weights belong to one sequence at a time."""

    def __init__(self, chains: Chains):
        self.chains = chains
        self.layout, self.model = chains.layout, chains.model
        self.sched, self.t = chains.sched, chains.t
        self.heads_at_work = True
        self._squared = self._listed = self._chosen = False
        self._t_read = self._sum_read = self.sched.start
        """When T and SUM of the sequence before are read."""

    def passes(self, sequence: int, attn_ready: Times) -> Passes:
        """x += attention, x += experts."""
        t, lay, chains, layers = self.t, self.layout, self.chains, self.model.layers
        place, m = lay.sequences[sequence], lay.o
        while self._squared:
            yield None
        yield Offer(attn_ready - (m.words - 1), m.sets)
        self._squared = True
        y = chains.add_to_x(
            place, m, place.attn_act, Base.LAYER, attn_ready, 0, layers[0].o.shift, note="x += attention", final=True
        )  # fmt: skip
        x_ready = y + t.vx(VxOp.ADD) + (m.rows - 1) * m.pitch + t.sxm_act
        self.sched.close("output projection", last=Queue.ABC)
        while self.heads_at_work:  # whose phases, which grow with n, would have to last for what is placed here
            yield None
        norm = chains.norm(sequence, x_ready, "expert norm")
        self._squared = False
        # Base register of each expert in turn, the scalar with its weight; when bases and scalars may be used.
        bases, scalars = [Base.LAYER], [0]
        chosen, weighted = [self.sched.start], self.sched.start
        if lay.router is not None:
            bases = list(EXPERT_BASES[: self.model.shape.top_k])
            while self._listed:
                yield None
            yield Offer(x_ready - (lay.router.words - 1), lay.router.sets)
            self._listed = True
            inserted = self._logits(sequence, lay.router, x_ready, norm)
            while self._chosen:
                yield None
            self._listed, self._chosen = False, True
            chosen, weighted, scalars = self._choose(inserted, bases)
        h_ready = []
        for j, base in enumerate(bases):
            words_ready = self.sched.latest(x_ready, chosen[j] + lay.gate_up.words - 1)
            yield Offer(words_ready - (lay.gate_up.words - 1), lay.gate_up.sets)
            h_ready.append(self._gate_up(sequence, j, base, words_ready, norm))
        m = lay.down
        x_written = self.sched.start
        for j, base in enumerate(bases):
            final = j == len(bases) - 1
            yield Offer(h_ready[j] - (m.words - 1), m.sets)
            y = chains.add_to_x(
                place, m, place.h_act[j], base, h_ready[j], scalars[j], layers[0].down[0].shift,
                x_written + t.mem_read, weighted + t.acc, note="x += expert", final=final,
                last=final and sequence == chains.sequences[-1],
            )  # fmt: skip
            x_written = y + t.vx(VxOp.ADD) + t.xw
        self._chosen = False
        return x_written - t.xw + (m.rows - 1) * m.pitch + t.sxm_act

    def _gate_up(self, sequence: int, j: int, base: Base, words_ready: Times, norm: Times) -> Times:
        """silu(gate) * up of the j-th expert; returns when its words can be read."""
        t, lay, sh, m = self.t, self.layout, self.model.shifts, self.layout.gate_up
        place, p, silu = lay.sequences[sequence], m.pitch, t.vx(VxOp.SILU)
        chain = [
            Slot(Queue.VX, 0, {"op": VxOp.SILU, "source": Source.Y, "fshift": sh.gate_frac - 7, "shift": sh.silu,
                               "n1": m.rows, "d1": p}),
            Slot(Queue.SXM, p + silu, self.chains.act(Source.Z, lay.f_rows, 2 * p, place.h_act[j], sh.h_act)),
        ]  # fmt: skip
        y = self.chains.product(
            m, place.x_act, base, words_ready, self.chains.r_norm(sequence), self.model.layers[0].gate[0].shift,
            chain, norm + t.acc, note="silu(gate) * up",
        )  # fmt: skip
        return y + (m.rows - 1) * p + silu + t.sxm_act

    def _logits(self, sequence: int, m: Matrix, x_ready: Times, norm: Times) -> Times:
        """The router's product into the lists; returns when the best may be taken."""
        t, router, chains = self.t, self.model.layers[0].router, self.chains
        assert router is not None
        experts = self.model.shape.experts
        insert = [Slot(Queue.TOP, 0, {"op": TopOp.INSERT, "limit": experts, "n1": m.rows, "d1": m.pitch})]
        y = chains.product(
            m, self.layout.sequences[sequence].x_act, Base.LAYER, x_ready, chains.r_norm(sequence), router.shift,
            insert, norm + t.acc, note="router",
        )  # fmt: skip
        return y + (m.rows - 1) * m.pitch + t.top_insert

    def _choose(self, inserted: Times, bases: list[Base]) -> tuple[list[Times], Times, list[int]]:
        """Top-k of the router and softmax over the chosen.

        Returns when each expert's base register may be used, when all weights may, and their scalar registers.
        """
        t, s, sched, chains = self.t, self.model.shape, self.sched, self.chains
        emit = {"op": TopOp.EMIT, "expert": 1, "n1": s.top_k, "d1": t.top_step}
        start = sched.place([Slot(Queue.TOP, 0, emit, "choose experts")], inserted, self._t_read - t.top_row + 1,
                            *chains.expert_bases_free(bases))
        last = start + (s.top_k - 1) * t.top_step
        chosen = [start + j * t.top_step + t.top_emit for j in range(s.top_k)]
        if s.top_k == 1:
            return chosen, chosen[-1], [0]
        note, sum_register = "router softmax", chains.r_expert(s.top_k - 1)
        rows = ceil_div(s.top_k, self.layout.cfg.vlanes)
        exp = {"op": VxOp.EXP, "source": Source.T, "unit": 1, "bank": BANK, "n1": rows}
        z = t.vx(VxOp.EXP)
        bundle = [Slot(Queue.VX, 0, exp, note), Slot(Queue.SFU, z, {"op": SfuOp.CAPTURE, "n1": rows}, note)]
        e = (rows - 1) + sched.place(bundle, last + t.top_row, self._sum_read + 1 - t.vx_sum)
        recip = {"op": SfuOp.RECIP, "dst": sum_register, "bank": BANK}
        summed = chains.scalar(recip, t.sfu_recip, e + t.vx_sum, note=note)
        self._t_read, self._sum_read = e, summed - t.sfu_recip
        ready, registers = summed, []
        for j in range(s.top_k):
            prob = {"op": SfuOp.PROB, "dst": chains.r_expert(j), "a": sum_register, "b": j}
            ready = chains.scalar(prob, t.sfu_prob, summed, note=note)
            registers.append(chains.r_expert(j))
        return chosen, ready, registers
