"""The token program: a quantised model's computation as instructions, phase by phase, top to bottom.

Reads in the order of the computation: embedding, layer loop (attention, experts), LM head, sampling. Where the
configuration works on several sequences, each stage is placed for one after the other, so that one fills the other's
waits; the second halves of a layer, all of constant length, are merged product by product.
"""

from __future__ import annotations

import dataclasses

from hdl.config import Config
from hdl.isa import AbcOp, AccSource, Base, Program, Queue, SfuOp, Source, TopOp, VxOp, tail_of

from .attention import Attention, Projected
from .chains import R_LM, Chains, Offer, Passes
from .errors import LpuError
from .experts import Experts
from .layout import HEADS_IN_WORK, Layout, ceil_div
from .schedule import Slot, Times

K_TEMPERATURE, K_LM = 1, 2
"""Scalar constants: 1/T (host), the LM head's (image)."""
AHEAD_MAX = 12
"""Words of x that the first product of a layer may read before the last one is there. More would save cycles in wide
layers, but a token's embedding waits for the same units."""
TOKEN_BASES = (Base.TOKEN, Base.TOKEN1)


class TokenProgram:
    """Builds the program of one model on one configuration.

    ``floor``: least n of the loop counts; ``lag`` and ``wait``: see :class:`Attention`; ``behind``: cycles behind a
    jump after which the last sequence's x is there, None: as soon as the MXM can use it.
    """

    def __init__(self, layout: Layout, floor: int, lag: int = 1, wait: int = 1, behind: int | None = None):
        self.layout = layout
        self.lag, self.wait = lag, wait
        self.cfg: Config = layout.cfg
        self.model = layout.model
        self.chains = chains = Chains(layout, floor)
        self.sched, self.t = chains.sched, chains.t
        least = self.sched.fetch_gap(Queue.ABC) + min(layout.d_words, AHEAD_MAX) - 1
        chains.x_behind = least if behind is None else max(least, behind)
        self._norms: dict[int, Times] = {}
        """When a sequence's 1/rms may be used; the last one's is formed behind the jump."""
        self._norm_behind = self.sched.fetch_gap(Queue.ABC) + layout.d_words - 1 + self.t.dot
        """Cycles behind a jump after which those of the others may be used: when the first product of x is drained."""
        self._gather_from = self.sched.start
        """When the row of another sequence's token may be gathered."""
        self._noise_from = self.sched.start
        """When the next sampling may take noise."""
        self.late: list[int] = []
        """Cycles that x of the last sequence is ready behind all else that a jump waits for but its own rows."""
        chains.jump_target()

    def build(self) -> Program:
        """The whole token."""
        x_ready = self._boundary("embed", [self._embed(s) for s in self.chains.sequences])
        x_ready = self._layer(x_ready)
        x_ready = self._boundary("experts", x_ready, loop_end=1, prompt_final=1)
        self._heads(x_ready)
        program = self.sched.program()
        if self.model.shape.layers == 1:
            return program
        self._tail()
        try:
            return self.sched.program()
        except LpuError:  # no room for it: a prompt's tokens go through the whole layer
            return program

    def _boundary(self, note: str, x_ready: list[Times], loop_end: int = 0, prompt_final: int = 0) -> list[Times]:
        """Close a phase before a jump target: what comes next may count on the same state each time.

        Behind the boundary x is ready at a fixed cycle, whichever way the boundary was reached; the norms of all
        sequences but the last are there.
        """
        chains = self.chains
        *first, last = x_ready
        early = self.sched.fetch_gap(Queue.ABC)
        until = [t - early for t in first] + [t - self._norm_behind for t in self._norms.values()]
        alone = self.sched.latest(self.sched.start, self.sched.issued, *until)
        self.late.append(int((last - alone).max()))
        until += chains.settled()
        if prompt_final and self.layout.cfg.ecc:
            # An error in the last words that are read is still this token's.
            until.append(self.sched.last[Queue.ABC] + self.t.issue + self.t.memory_error + 1)
        self.sched.close(note, last - chains.x_behind, *until, loop_end=loop_end, prompt_final=prompt_final)
        chains.jump_target()
        return self._behind()

    def _behind(self) -> list[Times]:
        """When each sequence's x is ready behind a jump."""
        first = [self.sched.start + self.sched.fetch_gap(Queue.ABC)] * (len(self.chains.sequences) - 1)
        return [*first, self.sched.start + self.chains.x_behind]

    # Phases -------------------------------------------------------------------------------------------

    def _embed(self, sequence: int) -> Times:
        """Embedding row of a sequence's token -> x, its blocks and sum of squares."""
        t, lay, cfg, model = self.t, self.layout, self.cfg, self.model
        m, place, base = lay.embed, lay.sequences[sequence], TOKEN_BASES[sequence]
        rows = m.words * cfg.word_rows
        z = t.vx(VxOp.PASS)
        gather = {
            "op": AbcOp.GATHER, "width": m.isa_width, "n1": m.words, "d1": cfg.word_rows,
            "w": m.w, "w_sel": base, "w_s1": 1, "sequence": sequence,
        }  # fmt: skip
        at = t.gather  # row 0 on the gather stream
        many = {"n1": rows}
        acc = {
            "source": AccSource.GATHER, "bcast": 1, "shift": model.embed.shift, "sequence": sequence, **many
        }  # fmt: skip
        squares = self.chains.act(Source.Z, rows, 1, place.x_act, model.shifts.x_act, 1)
        bundle = [
            Slot(Queue.ABC, 0, gather),
            Slot(Queue.SR, at - t.mem_read, {"s": m.s, "s_sel": base, **many}),
            Slot(Queue.ACC, at, acc),
            Slot(Queue.VX, at + t.acc, {"op": VxOp.PASS, "source": Source.Y, **many}),
            Slot(Queue.XW, at + t.acc + z, {"source": Source.Z, "x": place.x, "x_s1": 1, **many}),
            Slot(Queue.SXM, at + t.acc + z, squares),
        ]
        bundle = [dataclasses.replace(s, note="embedding") for s in bundle]
        start = self.sched.place(bundle, self.chains.squares_free - bundle[-1].offset, self._gather_from)
        self._gather_from = start + (m.words - 1) * cfg.word_rows + t.gather_other
        x_ready = start + at + t.acc + z + rows - 1 + t.sxm_act
        self._finish(sequence, x_ready)
        return x_ready

    def _finish(self, sequence: int, x_ready: Times) -> None:
        """x is what the next layer begins with: its norm, where there is time before the jump."""
        if sequence != self.chains.sequences[-1]:
            self._norms[sequence] = self.chains.norm(sequence, x_ready, "norm")

    def _norms_used(self, x_ready: list[Times], note: str) -> list[Times]:
        """When each sequence's 1/rms may be used, behind a jump."""
        last = self.chains.norm(self.chains.sequences[-1], x_ready[-1], note)
        return [*[self.sched.start + self._norm_behind] * len(self._norms), last]

    def _layer(self, x_ready: list[Times]) -> list[Times]:
        chains, sched = self.chains, self.sched
        attention = Attention(chains, self.lag, self.wait)
        norms = self._norms_used(x_ready, "attention norm")
        projected = attention.project(x_ready, norms)
        sched.close("K, Q, V", last=Queue.ABC, loop_begin=1)
        return self._merged(attention, projected)

    def _tail(self) -> None:
        """K and V of the last layer: all that a token after which nothing is sampled leaves behind there."""
        chains, t = self.chains, self.t
        chains.jump_target()
        x_ready = self._behind()
        written = Attention(chains, self.lag, self.wait).cached(x_ready, self._norms_used(x_ready, "attention norm"))
        until = [last + t.issue + 1 for last in written] + chains.settled()
        if self.layout.cfg.ecc:
            until.append(self.sched.last[Queue.ABC] + t.issue + t.memory_error + 1)
        self.sched.close("K, V of the last layer", *until, tail=1, final=1)

    def _merged(self, attention: Attention, projected: list[Projected]) -> list[Times]:
        """The rest of the layer of all sequences: each time the product that can begin first."""
        chains, experts, heads = self.chains, Experts(self.chains), -1
        work: dict[int, Passes] = {heads: attention.heads(projected)}
        offers: dict[int, Offer | None] = {}
        done: dict[int, Times] = {}

        def go_on(key: int) -> None:
            """Places what was offered, up to the next offer."""
            try:
                offers[key] = next(work[key])
                return
            except StopIteration as end:
                done[key] = end.value
                offers.pop(key, None)
            if key == heads:
                experts.heads_at_work = False
            else:
                self._finish(key, done[key])

        go_on(heads)
        while len(done) < len(chains.sequences) + 1:
            for s in attention.ready.keys() - work.keys():
                work[s] = experts.passes(s, attention.ready[s])
                go_on(s)
            for key in [key for key, offer in offers.items() if offer is None]:
                go_on(key)  # what it waited for may have happened
            able = {key: offer.start for key, offer in offers.items() if offer and chains.room(offer.sets)}
            go_on(min(sorted(able), key=lambda key: int((able[key] - self.sched.start).max())))
        return [done[s] for s in chains.sequences]

    def _heads(self, x_ready: list[Times]) -> None:
        """Final norm, LM head and sampling of each sequence; the next tokens' ids end the token."""
        norms = self._norms_used(x_ready, "final norm")
        self._noise_from = self.sched.start
        known = [self._head(s, x_ready[s], norms[s]) for s in self.chains.sequences]
        self.sched.close("LM head", known[-1] + self.t.token, *self.chains.settled(), final=1)

    def _head(self, sequence: int, x_ready: Times, norm: Times) -> Times:
        """Returns when the next token's id is known."""
        t, lay, sh, sched, model, chains = self.t, self.layout, self.model.shifts, self.sched, self.model, self.chains
        place = lay.sequences[sequence]
        for dst, a, b in ((R_LM, chains.r_norm(sequence), K_LM), (R_LM + 1, R_LM, K_TEMPERATURE)):
            fields = {"op": SfuOp.MUL, "dst": dst, "a": a, "b": b}
            norm = chains.scalar(fields, t.sfu_mul, norm, note="LM head scale")
        if model.final_gain is not None:
            rows, gain = lay.d_rows, t.vx(VxOp.GAIN)
            many, note = {"n1": rows}, "final gain"
            multiply = {"op": VxOp.GAIN, "source": Source.X, "fshift": sh.gain_pre, "shift": sh.gain, **many}
            bundle = [
                Slot(Queue.XR, -t.mem_read, {"x": place.x, "x_s1": 1, **many}, note),
                Slot(Queue.CR, -t.mem_read, {"c": lay.gain_c, "c_s1": 1, **many}, note),
                Slot(Queue.VX, 0, multiply, note),
                Slot(Queue.SXM, gain, chains.act(Source.Z, rows, 1, place.x_act, sh.gain_act), note),
            ]
            x_written = x_ready - t.sxm_act + t.xw
            start = sched.place(bundle, x_written + t.mem_read - (rows - 1))
            x_ready = start + gain + rows - 1 + t.sxm_act
        m = lay.lm_head
        fields = {"op": TopOp.INSERT, "noise": 1, "limit": model.shape.vocab, "n1": m.rows, "d1": m.pitch}
        insert = [Slot(Queue.TOP, 0, fields)]
        y = chains.product(
            m, place.x_act, Base.ZERO, x_ready, R_LM + 1, model.lm_head.shift, insert, norm + t.acc,
            self._noise_from, note="LM head",
        )  # fmt: skip
        inserted = y + (m.rows - 1) * m.pitch + t.top_insert_noise
        steps = self.cfg.topk_max
        emit = {"op": TopOp.EMIT, "n1": steps, "d1": t.top_step, "sequence": sequence}
        start = sched.place([Slot(Queue.TOP, 0, emit, "sample")], inserted)
        last = start + (steps - 1) * t.top_step
        self._noise_from = last + t.top_noise
        return last + t.issue + t.top_sample


def build_program(layout: Layout) -> tuple[Program, int]:
    """The program with the count floor and the order of the heads that suit all positions best.

    Loop counts follow max(n, floor): below the floor a token's attention is bound by latency, not by keys, and
    counting a few masked keys more makes the constants of the longer phases smaller. Tried are the first keys of
    a set (``columns`` keys), the cheapest of each, at most 32 of them. Taken is the smallest whose cycles, summed
    over all positions, are within half a percent of the least: early positions are the ones every run visits.
    """
    window = layout.model.shape.window
    step = layout.cfg.columns * ceil_div(window, 32 * layout.cfg.columns)

    def best_floor(order: tuple[int, int]) -> tuple[int, Program]:
        tried = [(floor, *_cost(layout, floor, order)) for floor in range(1, window + 1, step)]
        least = min(cycles for _, _, cycles in tried)
        return next((floor, program) for floor, program, cycles in tried if cycles <= 1.005 * least)

    first, *others = head_orders(layout)
    floor, program = best_floor(first)
    cycles = {order: _cost(layout, floor, order)[1] for order in (first, *others)}
    best = min(cycles, key=cycles.__getitem__)
    if best != first:
        floor, program = best_floor(best)
    return program, floor


def head_orders(layout: Layout) -> list[tuple[int, int]]:
    """(lag, wait) that a program may have (:class:`TokenProgram`): as many heads as there are, and buffers for them."""
    heads, slots = layout.model.shape.heads, layout.cfg.slots(8)
    sets = ceil_div(layout.head_rows, slots)
    lags = range(1, max(2, min(HEADS_IN_WORK, heads)))
    waits = range(1, 3 if 3 * sets <= layout.cfg.accs // 2 and heads > 1 else 2)
    return [(lag, wait) for lag in lags for wait in waits]


def _cost(layout: Layout, floor: int, order: tuple[int, int]) -> tuple[Program, int]:
    """A program of these choices, and its cycles summed over all n.

    Of several sequences, the last one's x may come later than the MXM begins behind a jump: as late as it would, if
    that makes the token shorter.
    """
    first = TokenProgram(layout, floor, *order)
    built = _summed(first)
    if len(layout.sequences) > 1:
        built = min(built, _summed(TokenProgram(layout, floor, *order, max(first.late))), key=lambda b: b[1])
    return built


def _summed(builder: TokenProgram) -> tuple[Program, int]:
    """The program, and its cycles summed over all n."""
    layout, program = builder.layout, builder.build()
    total, inside = 0, 0
    for phase in program.phases[: tail_of(program.phases)]:
        inside |= phase.loop_begin
        variable = phase.slope * int(builder.sched.counts[phase.count].sum()) if phase.count else 0
        cycles = phase.dur * layout.model.shape.window + variable
        total += cycles * (layout.model.shape.layers if inside else 1)
        inside &= not phase.loop_end
    return program, total
