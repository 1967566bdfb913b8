"""The instruction control unit: sequencer, queues, registers, and the token loop that feeds itself."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import Config, address_bits
from ..image import REASON_BITS, LoadBus, Reason, RunControl, Space, drive_load
from ..isa import Queue
from ..mem import Bank, register_write
from ..uop import run_state_layout, uop_layout
from .params import ParamRegisters, param_bits
from .queue import InstructionQueue, base_names
from .registers import BaseRegisters
from .sequencer import Sequencer

HOST_PARAMS = ("eps", "seed", "topk", "noise")
"""Parameters that other slices use."""


class Icu(wiring.Component):
    """ICU. Ports: ``load``, ``control`` (to the host), one ``uop_Q`` per queue, ``state``, the parameters of
    :data:`HOST_PARAMS`, ``expert_*`` and ``next_token*`` from the top-k unit, ``fault`` (see
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
        """Which token next, and when to stop. All decisions fall in the last cycle of a token."""
        cfg, control = self.cfg, self.control
        m.submodules.prompt = prompt = Bank(width=cfg.token_bits, depth=cfg.context_max)
        read = prompt.r
        mine = self.load.valid & (self.load.space == Space.PROMPT)
        register_write(m, prompt.w, mine, self.load.addr, self.load.data)
        taken = Signal(cfg.position_bits)  # prompt tokens begun so far
        made = Signal(cfg.position_bits)  # tokens sampled so far
        best = Signal(cfg.token_bits)
        aborting = Signal()
        pending = Signal()
        m.d.comb += [read.en.eq(1), read.addr.eq(taken)]
        with m.If(self.next_token_valid):
            m.d.sync += best.eq(self.next_token)
        with m.If(control.abort & control.busy):
            m.d.sync += aborting.eq(1)

        # Start: two cycles to read the prompt's first token, one to set it. A run that would go on behind a full
        # context ends before its first token; behind a reset there is no context to go on from.
        reading = Signal()
        start = Signal()
        empty = Signal(init=1)
        full = Signal()
        refused = Signal()
        clear = Signal()
        last_position = Signal()
        m.d.comb += clear.eq(params.clear | empty)
        m.d.sync += [
            pending.eq(control.start & ~control.busy),
            reading.eq(pending),
            start.eq(reading),
            last_position.eq(regs.state.position + 1 >= params.context),
            full.eq(~clear & last_position),
        ]
        m.d.comb += refused.eq(start & full)
        with m.If(control.start & ~control.busy):
            m.d.sync += [control.busy.eq(1), taken.eq(0), made.eq(0), aborting.eq(0)]
        with m.If(refused):
            m.d.sync += control.busy.eq(0)
        with m.Elif(start):
            m.d.sync += [taken.eq(1), empty.eq(0)]
            m.d.comb += [seq.go.eq(1), regs.set_token.eq(1), regs.token.eq(read.data)]
            m.d.comb += [regs.clear.eq(clear), regs.advance.eq(~clear)]

        end = seq.token_end
        stop = Signal()
        reason = Signal(REASON_BITS)
        # Whether the run ends stands in a register by the token's last cycle (``Timing.token``).
        sampled = Signal()
        is_stop = Signal()
        at_limit = Signal()
        m.d.sync += [
            sampled.eq(taken == params.prompt_len),
            is_stop.eq((best == params.stop0) | (best == params.stop1)),
            at_limit.eq(made + 1 >= params.limit),
        ]
        # A memory error is kept until a run has ended with it, which may be the next one where it came so late.
        spoilt = Signal()
        lost = Signal()
        m.d.sync += [
            stop.eq((sampled & (is_stop | at_limit)) | last_position | aborting | spoilt),
            lost.eq(spoilt),
        ]
        with m.If(self.memory_error):
            m.d.sync += spoilt.eq(1)
        with m.Elif(end & lost):
            m.d.sync += spoilt.eq(0)
        with m.If(spoilt):
            m.d.sync += reason.eq(Reason.MEMORY)
        with m.Elif(sampled & is_stop):
            m.d.sync += reason.eq(Reason.STOP_TOKEN)
        with m.Elif(sampled & at_limit):
            m.d.sync += reason.eq(Reason.LIMIT)
        with m.Elif(last_position):
            m.d.sync += reason.eq(Reason.CONTEXT)
        with m.Else():
            m.d.sync += reason.eq(Reason.ABORT)
        m.d.comb += [
            seq.sampled.eq(sampled),
            seq.more.eq(~stop),
            control.record.eq(end & ~lost),
            control.sampled.eq(sampled),
            control.token.eq(best),
            control.cycles.eq(seq.cycles),
            control.done.eq((end & stop) | refused),
            control.reason.eq(Mux(refused, Reason.CONTEXT, reason)),
        ]
        with m.If(end):
            m.d.sync += made.eq(made + sampled)
            with m.If(stop):
                m.d.sync += control.busy.eq(0)
            with m.Else():
                m.d.comb += [regs.advance.eq(1), regs.set_token.eq(1), regs.token.eq(Mux(sampled, best, read.data))]
                with m.If(~sampled):
                    m.d.sync += taken.eq(taken + 1)
