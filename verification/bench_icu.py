"""ICU: random programs issue the micro-ops that the machine's unrolling says, each in its cycle; run control.

Programs are random but legal: they are placed by the compiler's own scheduler, as tightly as it can or with
gaps. The token loop is computed here from the documents (``hdl/image.py``: ``RunControl``, ``Param``).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import cocotb
import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from firmware.lower import pack_program
from firmware.schedule import Scheduler, Slot, token_cycles
from hdl.config import Config, address_bits
from hdl.icu.icu import HOST_PARAMS, Icu
from hdl.icu.params import LATENCY, NO_STOP, param_bits
from hdl.image import PROMPT_BITS, REASON_BITS, LoadBus, Param, Reason, Space, row_bytes
from hdl.isa import Address, Count, Instr, Phase, Program, Queue, VxOp, get_isa
from hdl.timing import get_timing
from hdl.uop import run_state_layout, uop_layout
from sim.machine import Machine, TokenRun, Uop
from verification.context import context
from verification.lockstep import uop_values
from verification.script import Script, pack

START = 4
"""Cycles from a start pulse to the first cycle of the first token."""
LOST = 2
"""Cycles before a token's last one in which a memory error is just in time for it."""


def record_layout(cfg: Config) -> data.StructLayout:
    """A token's end as :class:`IcuProbe` shows it; fields without a meaning are zero."""
    return data.StructLayout(
        {"record": 1, "sampled": 1, "token": cfg.token_bits, "cycles": 32, "done": 1, "reason": REASON_BITS}
    )


class IcuProbe(wiring.Component):
    """An ICU whose outputs are zero where they mean nothing."""

    def __init__(self, cfg: Config):
        self.cfg = cfg
        bits = {p.name.lower(): b for p, b in param_bits(cfg).items()}
        ports: dict[str, Any] = {
            "load": In(LoadBus(cfg)),
            "run_start": In(1),
            "run_abort": In(1),
            "expert_valid": In(1),
            "expert_index": In(2),
            "expert_id": In(address_bits(cfg.experts_max)),
            "next_token_valid": In(1),
            "next_token": In(cfg.token_bits),
            "next_sequence": In(1),
            "memory_error": In(1),
            "busy": Out(1),
            "fault": Out(1),
            "token_end": Out(record_layout(cfg).size),
            "state": Out(run_state_layout(cfg).size),
        }
        ports |= {f"uop_{q.name.lower()}": Out(uop_layout(cfg, q).size) for q in Queue}
        ports |= {name: Out(bits[name]) for name in HOST_PARAMS}
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.icu = icu = Icu(self.cfg)
        control = icu.control
        m.d.comb += [getattr(icu.load, name).eq(getattr(self.load, name)) for name in self.load.signature.members]
        m.d.comb += [
            control.start.eq(self.run_start),
            control.abort.eq(self.run_abort),
            icu.expert_valid.eq(self.expert_valid),
            icu.expert_index.eq(self.expert_index),
            icu.expert_id.eq(self.expert_id),
            icu.next_token_valid.eq(self.next_token_valid),
            icu.next_token.eq(self.next_token),
            icu.next_sequence.eq(self.next_sequence),
            icu.memory_error.eq(self.memory_error),
            self.busy.eq(control.busy),
            self.fault.eq(icu.fault),
        ]
        # What is there of a second token without a second sequence is what a prompt's memory holds.
        state = Signal(run_state_layout(self.cfg))
        two = Signal()
        with m.If(self.load.valid & (self.load.space == Space.PARAM) & (self.load.addr == Param.SEQUENCES)):
            m.d.sync += two.eq(self.load.data == 2)
        m.d.comb += [state.eq(icu.state), state.token1.eq(Mux(two, icu.state.token1, 0)), self.state.eq(state)]
        sampled = control.record & control.sampled
        cycles, token = Mux(control.record, control.cycles, 0), Mux(sampled, control.token, 0)
        end = Cat(
            control.record, sampled, token, cycles,
            control.done, Mux(control.done, control.reason, 0),
        )  # fmt: skip
        m.d.comb += self.token_end.eq(Mux(control.record | control.done, end, 0))
        for q in Queue:
            name = f"uop_{q.name.lower()}"
            uop = getattr(icu, name)
            m.d.comb += getattr(self, name).eq(Mux(uop.valid, Value.cast(uop), 0))
        m.d.comb += [getattr(self, name).eq(getattr(icu, name)) for name in HOST_PARAMS]
        return m


# Random programs --------------------------------------------------------------------------------------


def random_fields(cfg: Config, rng: np.random.Generator, queue: Queue) -> dict[str, int]:
    """Fields of a random instruction: any operands, short loops with every kind of count."""
    fmt = get_isa(cfg).formats[queue]
    fields: dict[str, int] = {}
    for n, d in (("n1", "d1"), ("n2", "d2")) if fmt.outer else (("n1", "d1"),):
        if rng.random() < 0.35:
            fields[f"{n}_sel"] = int(rng.integers(1, len(Count)))
        else:
            fields[n] = int(rng.choice([1, 1, 2, 3, int(rng.integers(1, 12))]))
        fields[d] = int(rng.choice([1, 1, 2, 3, int(rng.integers(1, 30))]))
    if "op" in fmt.by_name:
        fields["op"] = int(rng.choice([int(op) for op in fmt.ops]))
    for operand in fmt.operands:
        for field in operand.fields() if isinstance(operand, Address) else (operand,):
            if field.enum is not None:
                fields[field.name] = int(rng.choice([int(e) for e in field.members]))
            else:
                fields[field.name] = int(rng.integers(1 << field.bits))
    return fields


def random_program(cfg: Config, rng: np.random.Generator, keys: np.ndarray) -> Program:
    """Phases before, in and behind the layer loop, any of the queues in each; a tail, in two of three programs."""
    sched = Scheduler(cfg, keys)
    before, inside, behind = int(rng.integers(3)), int(rng.integers(1, 4)), int(rng.integers(1, 3))
    total = before + inside + behind
    # A prompt token may end with the loop or at any phase behind it.
    prompt_end = int(rng.integers(before + inside - 1, total))
    for i in range(total):
        for _ in range(int(rng.integers(0, 12))):
            queue = Queue(int(rng.integers(len(Queue))))
            wait = 0 if rng.random() < 0.6 else int(rng.integers(40))
            sched.place([Slot(queue, 0, random_fields(cfg, rng, queue))], sched.start + wait)
        target = i + 1 == before or i + 1 == before + inside or i >= prompt_end
        until = [sched.settle()] if target else []
        if rng.random() < 0.3:
            until.append(sched.start + int(rng.integers(60)))
        count = Count(int(rng.integers(len(Count))))
        sched.close(
            f"phase {i}", *until, slope=int(rng.integers(8)) if count else 0, count=count,
            loop_begin=int(i == before), loop_end=int(i == before + inside - 1),
            prompt_final=int(i == prompt_end), final=int(i == total - 1),
        )  # fmt: skip
        if target:
            sched.jump_target()
    for i in range(tail := int(rng.integers(3))):
        for _ in range(int(rng.integers(0, 8))):
            sched.place([Slot(queue := Queue(int(rng.integers(len(Queue)))), 0, random_fields(cfg, rng, queue))])
        ends = i == tail - 1
        until = [sched.settle()] if ends else []
        sched.close(f"tail {i}", *until, tail=int(i == 0), final=int(ends))
    return sched.program()


class _Issues(TokenRun):
    """A token whose micro-ops are issued but not executed; experts are chosen at random."""

    m: _IssueMachine

    def _retire(self, cycle: int, uop: Uop) -> str:
        self.m.uops.append((self.m.start_of[self] + cycle, uop))
        return ""

    def _step(self, cycle: int, issues: list[tuple[Queue, Instr]]) -> None:
        if not self.cycles:  # 0 as long as phases run
            if cycle == 0 or self.layer != self._last_layer:
                # An expert's base holds the layer's as of its choice: choose anew in each.
                for i in range(self.cfg.experts_per_token_max):
                    self._choose(cycle + i, i)
                self._last_layer = self.layer
            elif cycle > self._chosen and self.m.rng.random() < 0.05:
                self._choose(cycle, int(self.m.rng.integers(self.cfg.experts_per_token_max)))
        super()._step(cycle, issues)

    def _ended(self) -> None:
        pass  # nothing was executed, and the next token is the script's

    def _expert(self, cycle: int, index: int) -> int:
        return self.experts[index]  # the base register's, whenever it was chosen

    def _token(self, sequence: int) -> int:
        return self.tokens[sequence]  # whether the program works on two or not

    _last_layer = 0
    _chosen = 0

    def _choose(self, cycle: int, index: int) -> None:
        expert = int(self.m.rng.integers(self.cfg.experts_max))
        self.m.choices.append((self.m.start_of[self] + cycle, index, expert))
        self._chosen = max(self._chosen, cycle)

        def choose() -> None:
            self.experts[index] = expert

        self.effects[cycle + self.t.expert - 1].append(choose)


class _IssueMachine(Machine):
    """Keeps micro-ops and choices of experts, with the script's cycle of each."""

    def __init__(self, cfg: Config, rng: np.random.Generator):
        super().__init__(cfg)
        self.rng = rng
        self.uops: list[tuple[int, Uop]] = []
        self.choices: list[tuple[int, int, int]] = []
        self.start_of: dict[TokenRun, int] = {}

    def issue(self, start: int, tokens: tuple[int, int], sampled: bool, before: TokenRun | None) -> TokenRun:
        """Runs one token that begins in cycle ``start`` of the script."""
        run = _Issues(self, self.decode(), tokens, sampled, before)
        self.start_of[run] = start
        run.execute()
        return run


class IcuSession:
    """Loads programs and runs them, in the machine and on the script."""

    def __init__(self, cfg: Config, rng: np.random.Generator):
        self.cfg, self.rng = cfg, rng
        self.script = Script()
        self.now = 1
        """First cycle of the script that is not planned yet."""
        self.machine = _IssueMachine(cfg, rng)
        self.position = -1
        self.turn = 0
        self.spoilt = False
        """A memory error came too late for its token: it ends the next one, of whichever run."""
        self._programs = 0

    def load(self, space: Space, sub: int, address: int, rows: bytes) -> None:
        """Rows over the load bus, one a cycle, now and then with a pause."""
        self.machine.load(space, sub, address, rows)
        size = row_bytes(self.cfg, space)
        for i in range(len(rows) // size):
            value = int.from_bytes(rows[i * size : (i + 1) * size], "little")
            self.script.drive(
                self.now, load__valid=1, load__space=int(space), load__sub=sub, load__addr=address + i,
                load__data=value,
            )  # fmt: skip
            self.now += 1 + int(self.rng.random() < 0.02)

    def params(self, values: dict[Param, int]) -> None:
        """Parameters, one by one."""
        for param, value in values.items():
            self.load(Space.PARAM, 0, int(param), value.to_bytes(8, "little"))
        for param, value in values.items():
            if param.name.lower() in HOST_PARAMS:
                self.script.expect(self.now - 1 + LATENCY, param.name.lower(), value)

    def program(self, program: Program, **values: int) -> None:
        """A program and its parameters; ``values`` replace random ones."""
        cfg, rng = self.cfg, self.rng
        self.machine.program = {q: {} for q in Queue}
        self.machine.phase_rows = {}
        for section in pack_program(cfg, program):
            self.load(section.space, section.sub, section.address, section.data)
        bits = param_bits(cfg)
        random = (Param.LAYER_W, Param.LAYER_S, Param.LAYER_C, Param.EXPERT_W, Param.EXPERT_S, Param.TOKEN_WORDS,
                  Param.EMBED_WIDTH, Param.KEY_WORDS, Param.ROPE_ROWS, Param.EPS, Param.VOCAB)  # fmt: skip
        chosen = {p: int(rng.integers(1 << min(bits[p], 62))) for p in random}
        # A KV scale's address has the bits of the deeper memory: stay where the other one does not wrap.
        chosen |= {q: chosen[q] % ((1 << bits[q]) // 4 - cfg.context_max) for q in (Param.LAYER_S, Param.LAYER_C)}
        fixed = {Param[name.upper()]: value for name, value in values.items()}
        self.params(chosen | {Param.LAYERS: 1, Param.WINDOW: 1, Param.FLOOR: 0, Param.CONTEXT: 1} | fixed)
        self.phases = program.phases

    def begin(self, prompts: list[list[int]], limit: int, stops: list[int] | None = None, clear: bool = True) -> int:
        """Parameters of a run and its start; returns the cycle of the start pulse."""
        cfg, rng = self.cfg, self.rng
        size = row_bytes(cfg, Space.PROMPT)
        rows = [a | b << PROMPT_BITS for a, b in itertools.zip_longest(*prompts, fillvalue=0)]
        self.load(Space.PROMPT, 0, 0, b"".join(row.to_bytes(size, "little") for row in rows))
        stop0, stop1 = stops or (NO_STOP, NO_STOP)
        self.params({
            Param.PROMPT_LEN: len(prompts[0]), Param.PROMPT_LEN1: len(prompts[1]), Param.LIMIT: limit,
            Param.STOP0: stop0, Param.STOP1: stop1, Param.CLEAR: int(clear), Param.SEED: int(rng.integers(1 << 32)),
            Param.SEED1: int(rng.integers(1 << 32)), Param.NOISE: int(rng.integers(3)),
            Param.TOPK: int(rng.integers(cfg.topk_max + 1)),
        })  # fmt: skip
        self.now += int(rng.integers(3))
        self.script.drive(self.now, run_start=1)
        return self.now

    def run(
        self,
        prompt: list[int],
        limit: int,
        *,
        second: list[int] | None = None,
        stop_after: int | None = None,
        clear: bool = True,
        abort_in: int | None = None,
        errors: Sequence[tuple[int, int | None]] = (),
    ) -> Reason:
        """One run, every pulse at random; ``second``: prompt of a second sequence; ``stop_after``: this many samples of
        the first one, the last one is a stop id;
        ``abort_in``: token in which to abort; ``errors``: memory errors, each with its token and how many cycles
        before that one's last (None: any time in the token that is early enough). Returns how it must end."""
        cfg, rng, s, p = self.cfg, self.rng, self.script, self.machine.param
        each = 1 if second is None else 2
        # What is there of a second prompt without a second sequence means nothing.
        prompts = [prompt, self.prompt(int(rng.integers(1, len(prompt) + 1))) if second is None else second]
        self.params({Param.SEQUENCES: 2 if each == 2 else int(rng.choice([0, 1, 3]))})
        samples = [[int(x) for x in rng.integers(0, cfg.vocab_max, limit)] for _ in range(2)]
        stops = [NO_STOP, NO_STOP]
        if stop_after is not None:
            stops[int(rng.integers(2))] = samples[0][stop_after - 1]
            samples[0] = [x if i >= stop_after - 1 or x not in stops else x ^ 1 for i, x in enumerate(samples[0])]
        begin = self.begin(prompts, limit, stops, clear)
        if clear:
            self.position = -1
        elif self.position + 1 >= p[Param.CONTEXT]:
            refused = {"done": 1, "reason": Reason.CONTEXT}
            s.expect(begin + START - 1, "token_end", pack(record_layout(cfg), refused), "the context is full")
            for cycle in range(begin + 1, begin + START):
                s.expect(cycle, "busy", 1)
            self.now = begin + START
            return Reason.CONTEXT
        tokens, taken, start = self.machine.prompt[0], 1, begin + START
        made, over = [0, 0], [False, each == 1]
        before: TokenRun | None = None
        aborted = False
        index = -1
        while True:
            self.position += 1
            index += 1
            sampled = [taken >= len(prompts[i]) and i < each for i in range(2)]
            self.machine.position = self.position
            self.turn ^= 1
            before = self.machine.issue(start, tokens, any(sampled), before)
            cycles, end = before.cycles, start + before.cycles - 1
            promised = token_cycles(cfg, self.phases, p[Param.LAYERS], p[Param.WINDOW], p[Param.FLOOR],
                                    self.position, any(sampled))  # fmt: skip
            assert cycles == promised, f"machine: {cycles} cycles, scheduler: {promised}"
            state = {"token": tokens[0], "token1": tokens[1] if each == 2 else 0, "position": self.position,
                     "slot": before.slot, "keys": before.keys, "turn": self.turn}  # fmt: skip
            for cycle in (start, int(rng.integers(start, end + 1)), end):
                s.expect(cycle, "state", pack(run_state_layout(cfg), state), f"token {index}")
            best = self._candidates(start, end, [
                samples[i][made[i]] if sampled[i] and made[i] < limit else None for i in range(each)
            ])  # fmt: skip
            if rng.random() < 0.3:
                s.drive(int(rng.integers(start, end + 1)), run_start=1)  # ignored
            if index == abort_in:
                at = int(rng.choice([end - 1, end, int(rng.integers(start, end + 1))]))
                s.drive(at, run_abort=1)
                aborted = at < end - 1
            lost, late = self.spoilt, False
            for early in (early for where, early in errors if where == index):
                at = int(rng.integers(start, end - 1)) if early is None else end - early
                s.drive(at, memory_error=1)
                lost |= at <= end - LOST
                late |= (at == end - 1 and not lost) or at >= end  # a lost token takes with it what came before its end
            self.spoilt = late
            told = [sampled[i] and not over[i] for i in range(2)]
            stopped = any(told[i] and best[i] in stops for i in range(each))
            for i in range(each):
                made[i] += sampled[i]
                over[i] |= told[i] and (best[i] in stops or made[i] >= limit)
            reason = None
            if lost:
                reason = Reason.MEMORY
            elif all(over):
                reason = Reason.STOP_TOKEN if stopped else Reason.LIMIT
            elif self.position + 1 >= p[Param.CONTEXT]:
                reason = Reason.CONTEXT
            elif aborted:
                reason = Reason.ABORT
            for i in range(each):
                record = {"record": 1, "sampled": int(told[i]), "token": best[i] if told[i] else 0, "cycles": cycles}
                last = reason is not None and i == each - 1
                ended = ({} if lost else record) | {"done": int(last), "reason": reason if last else 0}
                s.expect(end + i, "token_end", pack(record_layout(cfg), ended), f"end of token {index}")
            start = end + 1
            if reason is not None:
                break
            aborted = aborted or index == abort_in
            given = self.machine.prompt.get(taken, (0, 0))
            first, other = (best[i] if sampled[i] else given[i] for i in range(2))
            tokens = first, other
            taken += not all(sampled[i] for i in range(each))
        for cycle in range(begin + 1, start + each - 1):
            s.expect(cycle, "busy", 1)
        before.finish()
        self.now = start + each - 1
        return reason

    def _candidates(self, start: int, end: int, wanted: list[int | None]) -> list[int]:
        """Candidates for the next token of each sequence, any if None, the last of which counts; the latest is just in
        time. Returns those that count."""
        rng, s, timing, vocab = self.rng, self.script, get_timing(self.cfg), self.cfg.vocab_max
        best = [int(rng.integers(vocab)) if token is None else token for token in wanted]
        last = end + 1 - timing.token
        at = last if rng.random() < 0.5 else int(rng.integers(start + 1, last + 1))
        times = [at] if len(best) == 1 else [int(rng.integers(start, at)), at]
        if rng.random() < 0.5:
            times.reverse()
        for i, (token, time) in enumerate(zip(best, times, strict=True)):
            s.drive(time, next_token_valid=1, next_token=token, next_sequence=i)
        free = [c for c in range(start, min(times)) if c not in times]
        if free and rng.random() < 0.5:
            other = int(rng.integers(len(best)))
            s.drive(int(rng.choice(free)), next_token_valid=1, next_token=int(rng.integers(vocab)), next_sequence=other)
        return best

    def prompt(self, count: int) -> list[int]:
        """Random ids."""
        return [int(x) for x in self.rng.integers(0, self.cfg.vocab_max, count)]

    def finish(self, fault: bool = False) -> Script:
        """The script with all that was collected."""
        s, cfg = self.script, self.cfg
        for cycle, index, expert in self.machine.choices:
            s.drive(cycle, expert_valid=1, expert_index=index, expert_id=expert)
        for cycle, uop in self.machine.uops:
            layout = uop_layout(cfg, uop.queue)
            name = f"uop_{uop.queue.name.lower()}"
            s.expect(cycle, name, pack(layout, uop_values(layout, uop)), f"micro-op {uop.idx}, {dict(uop.fields)}")
        s.expect(s.cycles + 20, "fault", int(fault))
        if not fault:
            for name in ("busy", "fault", "token_end", *(f"uop_{q.name.lower()}" for q in Queue)):
                s.expect_default(name, 0)
        return s


# Scenarios --------------------------------------------------------------------------------------------


def _program(session: IcuSession, context_length: int, window: int, layers: int) -> None:
    rng = session.rng
    floor = int(rng.integers(window + 1))
    keys = np.maximum(np.arange(1, window + 1), floor)
    program = random_program(session.cfg, rng, keys)
    session.program(program, layers=layers, window=window, floor=floor, context=context_length)


def programs(cfg: Config, rng: np.random.Generator, count: int = 6) -> Script:
    """Random programs for one to three layers, each for a few tokens at low positions and behind a window's wrap."""
    session = IcuSession(cfg, rng)
    for i in range(count):
        window = int(rng.integers(2, 8))
        _program(session, cfg.context_max, window, 1 + i % 3)
        assert session.run(session.prompt(2), window) is Reason.LIMIT
        session.run(session.prompt(int(rng.integers(1, 3))), 2, clear=False)
    return session.finish()


def run_control(cfg: Config, rng: np.random.Generator) -> Script:
    """Every way to end, with prompts of several lengths, from an empty context and behind an earlier one."""
    session = IcuSession(cfg, rng)
    context_length = 12
    _program(session, context_length, int(rng.integers(3, 12)), 2)
    run = session.run
    assert run(session.prompt(1), 1, clear=False) is Reason.LIMIT  # nothing to go on from: position 0
    assert run(session.prompt(3), 3, clear=False) is Reason.LIMIT
    assert run(session.prompt(2), 5, stop_after=3) is Reason.STOP_TOKEN
    assert run(session.prompt(1), 5, stop_after=1, clear=False) is Reason.STOP_TOKEN
    assert run(session.prompt(2), 20, clear=False) is Reason.CONTEXT
    assert run(session.prompt(1), 1, clear=False) is Reason.CONTEXT  # not one token more
    assert run(session.prompt(4), 8, abort_in=1) is Reason.ABORT  # a prompt's token
    assert run(session.prompt(1), 8, abort_in=3, clear=False) is Reason.ABORT
    assert run(session.prompt(context_length - 1), 8) is Reason.CONTEXT
    # A stop id, the limit and the end of the context at once, and an abort: the first in this order counts.
    full = session.prompt(context_length)
    assert run(full, 1, stop_after=1, abort_in=context_length - 1) is Reason.STOP_TOKEN
    assert run(session.prompt(context_length), 1) is Reason.LIMIT
    assert run(session.prompt(2), 2, abort_in=2) is Reason.LIMIT  # an abort with the last token
    assert run(session.prompt(1), 2) is Reason.LIMIT  # which is forgotten by then
    return session.finish()


def two_sequences(cfg: Config, rng: np.random.Generator) -> Script:
    """Prompts of any lengths; either sequence ends first, or both at once; one of them by a stop id. Of a core that has
    one sequence only, a run of that."""
    session = IcuSession(cfg, rng)
    context_length = 12
    _program(session, context_length, int(rng.integers(3, 12)), 2)
    if cfg.sequences == 1:
        assert session.run(session.prompt(2), 2) is Reason.LIMIT
        return session.finish()

    def run(first: int, second: int, limit: int, **more: Any) -> Reason:
        return session.run(session.prompt(first), limit, second=session.prompt(second), **more)

    assert run(1, 1, 1) is Reason.LIMIT
    assert run(1, 4, 3) is Reason.LIMIT  # the first one ends before the other's prompt
    assert run(4, 2, 3) is Reason.LIMIT
    assert run(2, 3, 4, stop_after=2) is Reason.LIMIT
    assert run(5, 1, 2, stop_after=1) is Reason.STOP_TOKEN
    assert run(3, 3, 2, stop_after=2) is Reason.STOP_TOKEN  # with the other one's limit
    assert run(2, 1, 20) is Reason.CONTEXT
    assert run(2, 4, 8, abort_in=2) is Reason.ABORT
    assert run(3, 1, 3, errors=((2, None),)) is Reason.MEMORY
    assert session.run(session.prompt(2), 2) is Reason.LIMIT  # one sequence behind two
    assert run(3, 2, 3, errors=((1, 1),)) is Reason.MEMORY  # in the next token
    assert run(1, 2, 2) is Reason.LIMIT
    return session.finish()


def memory_errors(cfg: Config, rng: np.random.Generator) -> Script:
    """A token in which a word could not be corrected is not told, and its run ends; in the last two cycles an error is
    the next token's, and behind a run the next run's, whether or not that begins anew; then it is forgotten."""
    session = IcuSession(cfg, rng)
    _program(session, 12, int(rng.integers(3, 12)), 2)

    def run(prompt: int, limit: int, *errors: tuple[int, int | None], **more: Any) -> Reason:
        return session.run(session.prompt(prompt), limit, errors=errors, **more)

    assert run(3, 4, (0, None)) is Reason.MEMORY  # a prompt's token
    assert run(3, 4, (2, None)) is Reason.MEMORY  # the first that is sampled
    assert run(2, 5, (4, LOST)) is Reason.MEMORY
    assert run(1, 3, (1, LOST), abort_in=1) is Reason.MEMORY
    assert run(1, 3, (0, LOST), stop_after=1) is Reason.MEMORY  # before any other reason
    assert run(3, 1, (0, 1)) is Reason.MEMORY  # in its last cycles: the next one is not told
    assert run(1, 3, (0, 0)) is Reason.MEMORY
    assert run(2, 2) is Reason.LIMIT
    for late in (1, 0, -1, -3):
        assert run(1, 1, (0, late)) is Reason.LIMIT  # no next one in this run
        assert run(2, 2, clear=bool(late & 1)) is Reason.MEMORY
        assert run(2, 2) is Reason.LIMIT
    assert run(1, 2, (0, LOST), (0, 1)) is Reason.MEMORY
    assert run(1, 2) is Reason.LIMIT
    assert run(1, 2, (0, LOST), (0, 0)) is Reason.MEMORY  # its last cycle: what comes is kept
    assert run(1, 2) is Reason.MEMORY
    assert run(1, 2, clear=False) is Reason.LIMIT
    return session.finish()


def _two(cfg: Config, queue: Queue, first: dict[str, int], gap: int, dur: int) -> Program:
    """A program of one queue's two instructions, ``gap`` cycles apart, in a single phase."""
    at = get_timing(cfg).fetch_gap(get_isa(cfg).formats[queue])
    code = (
        Instr(queue, {"time": at, **first}),
        Instr(queue, {"time": at + gap, "end": 1, **({"op": int(VxOp.ADD)} if queue is Queue.VX else {})}),
    )
    phases = (Phase(dur, queues=1 << queue, loop_begin=1, loop_end=1, prompt_final=1, final=1),)
    return Program(phases, {q: code if q is queue else () for q in Queue})


def _misses(cfg: Config, rng: np.random.Generator, program: Program, fault: bool) -> Script:
    session = IcuSession(cfg, rng)
    session.program(program, context=4, window=4)
    if fault:
        session.begin([[1], []], 2)
        session.script.expect(session.now + 4 * program.phases[0].dur, "fault", 1)
    else:
        session.run([1], 2)
    return session.finish(fault)


def early(cfg: Config, rng: np.random.Generator, queue: Queue, fault: bool) -> Script:
    """The second instruction's time comes a cycle before it can be fetched, or (no fault) as soon as it can."""
    gap = get_timing(cfg).fetch_gap(get_isa(cfg).formats[queue])
    return _misses(cfg, rng, _two(cfg, queue, {}, gap - fault, 100), fault)


def overlap(cfg: Config, rng: np.random.Generator, queue: Queue, fault: bool) -> Script:
    """The second instruction's time is that of the first one's last repetition, or (no fault) the next cycle."""
    return _misses(cfg, rng, _two(cfg, queue, {"n1": 5, "d1": 8}, 33 - fault, 100), fault)


def late(cfg: Config, rng: np.random.Generator, queue: Queue, fault: bool) -> Script:
    """The phase ends in the cycle before the second instruction's time, or (no fault) in that cycle."""
    at = get_timing(cfg).fetch_gap(get_isa(cfg).formats[queue])
    return _misses(cfg, rng, _two(cfg, queue, {}, 30, at + 30 + 1 - fault), fault)


def outlasted(cfg: Config, rng: np.random.Generator, queue: Queue, fault: bool) -> Script:
    """Likewise; a phase without this queue, in which that time comes again, ends the token."""
    at = get_timing(cfg).fetch_gap(get_isa(cfg).formats[queue])
    program = _two(cfg, queue, {}, 30, at + 30 + 1 - fault)
    phase = program.phases[0]
    own = dataclasses.replace(phase, loop_end=0, prompt_final=0, final=0)
    other = dataclasses.replace(phase, dur=at + 40, queues=0, loop_begin=0)
    return _misses(cfg, rng, dataclasses.replace(program, phases=(own, other)), fault)


SCENARIOS: tuple[Callable[[Config, np.random.Generator], Script], ...] = (
    programs, run_control, memory_errors, two_sequences,
)  # fmt: skip
MISSES: tuple[Callable[[Config, np.random.Generator, Queue, bool], Script], ...] = (early, overlap, late, outlasted)


async def _play(dut: Any, scenario: Callable[..., Script], stream: int, *args: Any) -> None:
    ctx = context()
    script = scenario(ctx.config, ctx.rng(stream), *args)
    dut._log.info("seed %d: %s in %d cycles", ctx.seed, scenario.__name__, script.cycles)
    await script.play(dut)


@cocotb.test()
async def programs_issue_in_time(dut: Any) -> None:
    await _play(dut, programs, 1)


@cocotb.test()
async def runs_begin_and_end(dut: Any) -> None:
    await _play(dut, run_control, 2)


@cocotb.test()
async def memory_errors_end_runs(dut: Any) -> None:
    await _play(dut, memory_errors, 4)


@cocotb.test()
async def two_sequences_take_turns(dut: Any) -> None:
    await _play(dut, two_sequences, 5)


@cocotb.test()
@cocotb.parametrize(miss=[f.__name__ for f in MISSES], queue=[q.name for q in Queue], fault=[False, True])
async def missed_issues_are_reported(dut: Any, miss: str, queue: str, fault: bool) -> None:
    scenario = next(f for f in MISSES if f.__name__ == miss)
    await _play(dut, scenario, 3, Queue[queue], fault)
