"""The instruction control unit: sequencer, queues, registers, and the token loop that feeds itself."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config, address_bits
from ..image import PROMPT_BITS, REASON_BITS, LoadBus, Reason, RunControl, Space, drive_load
from ..isa import Queue
from ..mem import Bank, register_write
from ..uop import run_state_layout, uop_layout
from .params import ParamRegisters, param_bits
from .queue import InstructionQueue, base_names
from .registers import BaseRegisters
from .sequencer import Sequencer

HOST_PARAMS = ("eps", "seed", "seed1", "topk", "noise")
"""Parameters that other slices use."""


class Icu(wiring.Component):
    """ICU. Ports: ``load``, ``control`` (to the host), one ``uop_Q`` per queue, ``state``, the parameters of
    :data:`HOST_PARAMS`, ``expert_*`` and ``next_*`` from the top-k unit, ``fault`` (see
    :class:`InstructionQueue`; sticky), ``memory_error``: a word was used that could not be corrected."""

    def __init__(self, cfg: Config):
        self.cfg = cfg
        bits = {p.name.lower(): b for p, b in param_bits(cfg).items()}
        ports: dict[str, object] = {
            "load": In(LoadBus(cfg)),
            "control": In(RunControl(cfg)),
            "state": Out(run_state_layout(cfg)),
            "expert_valid": In(1),
            "expert_index": In(2),
            "expert_id": In(address_bits(cfg.experts_max)),
            "next_token_valid": In(1),
            "next_token": In(cfg.token_bits),
            "next_sequence": In(1),
            "fault": Out(1),
            "memory_error": In(1),
        }
        ports |= {f"uop_{q.name.lower()}": Out(uop_layout(cfg, q)) for q in Queue}
        ports |= {name: Out(bits[name]) for name in HOST_PARAMS}
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg = self.cfg
        m.submodules.params = params = ParamRegisters(cfg)
        m.submodules.sequencer = seq = Sequencer(cfg)
        m.submodules.registers = regs = BaseRegisters(cfg)
        for unit in (params, seq):
            drive_load(m, self.load, unit.load)
        m.d.comb += [getattr(self, name).eq(getattr(params, name)) for name in HOST_PARAMS]
        m.d.comb += [getattr(regs, name).eq(getattr(params, name)) for name in regs.PARAMS]
        m.d.comb += [
            self.state.eq(regs.state),
            seq.layers.eq(params.layers),
            regs.next_layer.eq(seq.jump),
            regs.first_layer.eq(seq.restart),
            regs.expert_valid.eq(self.expert_valid),
            regs.expert_index.eq(self.expert_index),
            regs.expert_id.eq(self.expert_id),
        ]
        counts = ("count_sets", "count_words", "count_rows")
        m.d.comb += [getattr(seq, c).eq(getattr(regs, c)) for c in counts]

        faults = []
        for q in Queue:
            queue = InstructionQueue(cfg, q)
            m.submodules[f"queue_{q.name.lower()}"] = queue
            drive_load(m, self.load, queue.load)
            m.d.comb += [getattr(queue, c).eq(getattr(regs, c)) for c in counts]
            m.d.comb += [
                queue.begin.eq(seq.begin),
                queue.upcoming.eq(seq.upcoming),
                queue.enter.eq(seq.enter[q]),
                queue.restart.eq(seq.restart),
                queue.mark.eq(seq.mark),
                queue.jump.eq(seq.jump),
                queue.divert.eq(seq.divert),
                getattr(self, f"uop_{q.name.lower()}").eq(queue.uop),
            ]
            for field in base_names(cfg, q):
                m.d.comb += [
                    getattr(queue, f"base_{field}_{b}").eq(getattr(regs, f"base_{field}_{b}")) for b in range(8)
                ]
            faults.append(queue.fault)
        m.d.sync += self.fault.eq(Cat(*faults).any())

        self._token_loop(m, params, seq, regs)
        return m

    def _token_loop(self, m: Module, params: ParamRegisters, seq: Sequencer, regs: BaseRegisters) -> None:
        """Which tokens next, and when to stop. All decisions fall in the last cycle of a token.

        Two sequences are at the same position: one with the shorter prompt samples while the other's goes on, and what
        comes behind a sequence's end is worked on and not told.
        """
        cfg, control = self.cfg, self.control
        taken = Signal(cfg.position_bits)  # prompt tokens begun so far
        mine = self.load.valid & (self.load.space == Space.PROMPT)
        given = []
        for i in range(cfg.sequences):
            m.submodules[f"prompt{i}"] = prompt = Bank(width=cfg.token_bits, depth=cfg.context_max)
            register_write(m, prompt.w, mine, self.load.addr, self.load.data[i * PROMPT_BITS :][: cfg.token_bits])
            m.d.comb += [prompt.r.en.eq(1), prompt.r.addr.eq(taken)]
            given.append(prompt.r.data)
        given += [Const(0)] * (2 - cfg.sequences)
        two = Signal()
        aborting = Signal()
        pending = Signal()
        if cfg.sequences == 2:
            m.d.sync += two.eq(params.sequences == 2)
        with m.If(control.abort & control.busy):
            m.d.sync += aborting.eq(1)

        # Start: two cycles to read the prompt's first token, one to set it. A run that would go on behind a full
        # context ends before its first token; behind a reset there is no context to go on from.
        reading = Signal()
        begin = Signal()
        start = Signal()
        empty = Signal(init=1)
        full = Signal()
        refused = Signal()
        clear = Signal()
        last_position = Signal()
        m.d.comb += [clear.eq(params.clear | empty), begin.eq(control.start & ~control.busy)]
        m.d.sync += [
            pending.eq(begin),
            reading.eq(pending),
            start.eq(reading),
            last_position.eq(regs.state.position + 1 >= params.context),
            full.eq(~clear & last_position),
        ]
        m.d.comb += refused.eq(start & full)
        with m.If(begin):
            m.d.sync += [control.busy.eq(1), taken.eq(0), aborting.eq(0)]
        with m.If(refused):
            m.d.sync += control.busy.eq(0)
        with m.Elif(start):
            m.d.sync += [taken.eq(1), empty.eq(0)]
            m.d.comb += [seq.go.eq(1), regs.set_token.eq(1), regs.token.eq(given[0]), regs.token1.eq(given[1])]
            m.d.comb += [regs.clear.eq(clear), regs.advance.eq(~clear)]

        # Whether the run ends stands in a register by the token's last cycle (``Timing.token``).
        end = seq.token_end
        stop = Signal()
        reason = Signal(REASON_BITS)
        sampled, is_stop, ended, best = Signal(2), Signal(2), Signal(2), []
        told, over = Signal(2), Signal(2)
        for i, prompt_len in enumerate((params.prompt_len, params.prompt_len1)[: cfg.sequences]):
            token = Signal(cfg.token_bits, name=f"best{i}")
            made = Signal(cfg.position_bits, name=f"made{i}")  # tokens sampled so far
            at_limit = Signal(name=f"at_limit{i}")
            with m.If(self.next_token_valid & (self.next_sequence == i)):
                m.d.sync += token.eq(self.next_token)
            m.d.sync += [
                sampled[i].eq((taken >= prompt_len) & (two if i else 1)),
                is_stop[i].eq((token == params.stop0) | (token == params.stop1)),
                at_limit.eq(made + 1 >= params.limit),
            ]
            m.d.comb += [
                told[i].eq(sampled[i] & ~ended[i]),
                over[i].eq(ended[i] | (sampled[i] & (is_stop[i] | at_limit))),
            ]
            with m.If(begin):
                m.d.sync += [made.eq(0), ended[i].eq(i & ~two)]
            with m.Elif(end):
                m.d.sync += [made.eq(made + sampled[i]), ended[i].eq(over[i])]
            best.append(token)
        if cfg.sequences == 1:
            best.append(Const(0))
            m.d.comb += [ended[1].eq(1), over[1].eq(1)]
        # A memory error is kept until a run has ended with it, which may be the next one where it came so late.
        spoilt = Signal()
        lost = Signal()
        m.d.sync += [
            stop.eq(over.all() | last_position | aborting | spoilt),
            lost.eq(spoilt),
        ]
        with m.If(self.memory_error):
            m.d.sync += spoilt.eq(1)
        with m.Elif(end & lost):
            m.d.sync += spoilt.eq(0)
        with m.If(spoilt):
            m.d.sync += reason.eq(Reason.MEMORY)
        with m.Elif(over.all() & (told & is_stop).any()):
            m.d.sync += reason.eq(Reason.STOP_TOKEN)
        with m.Elif(over.all()):
            m.d.sync += reason.eq(Reason.LIMIT)
        with m.Elif(last_position):
            m.d.sync += reason.eq(Reason.CONTEXT)
        with m.Else():
            m.d.sync += reason.eq(Reason.ABORT)

        # The second sequence's record follows the first one's, and the run's end the last record.
        following = Signal()
        closing = Signal()
        second = Signal(data.StructLayout({"sampled": 1, "cycles": 32}), reset_less=True)
        m.d.sync += [
            following.eq(end & ~lost & two),
            closing.eq(end & stop & two),
            second.sampled.eq(told[1]),
            second.cycles.eq(seq.cycles),
        ]
        m.d.comb += [
            seq.sampled.eq(sampled.any()),
            seq.more.eq(~stop),
            control.record.eq((end & ~lost) | following),
            control.sampled.eq(Mux(following, second.sampled, told[0])),
            control.token.eq(Mux(following, best[1], best[0])),
            control.cycles.eq(Mux(following, second.cycles, seq.cycles)),
            control.done.eq((end & stop & ~two) | closing | refused),
            control.reason.eq(Mux(refused, Reason.CONTEXT, reason)),
        ]
        with m.If(control.done):
            m.d.sync += control.busy.eq(0)
        with m.If(end & ~stop):
            m.d.comb += [
                regs.advance.eq(1),
                regs.set_token.eq(1),
                regs.token.eq(Mux(sampled[0], best[0], given[0])),
                regs.token1.eq(Mux(sampled[1], best[1], given[1])),
            ]
            m.d.sync += taken.eq(taken + ~(sampled.all() | (sampled[0] & ~two)))
