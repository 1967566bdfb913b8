"""Instruction-level model of the LPU: executes a loaded program micro-op by micro-op, cycle by cycle.

Same ISA module, same latencies, same numerics as the RTL; no knowledge of models or schedules. Streams
exist only in the cycle in which a row is on them: an instruction that samples an empty stream is a bug in
the program and raises :class:`MachineError`, and so does one that breaks a rule of ``sim/hazards.py``. What it
computes can be compared with the RTL instruction by instruction, and with ``sim/reference.py`` token by token.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from hdl.config import BLOCK, MAX_EXPERTS_PER_TOKEN, SCALARS, SOFTMAX_BANKS, Config
from hdl.image import PROMPT_BITS, Param, Reason, Space, row_bytes
from hdl.isa import (
    FETCH_BITS,
    PHASE_BITS,
    AbcOp,
    AccSource,
    Base,
    Count,
    Init,
    Instr,
    Phase,
    Queue,
    SfuOp,
    Source,
    SxmMode,
    TopOp,
    VxOp,
    Width,
    decode_phase,
    get_isa,
    tail_address,
)
from hdl.timing import get_timing

from . import numerics as nx
from .hazards import Hazards, MachineError
from .second_ports import ANY, Place


@dataclasses.dataclass(frozen=True)
class Uop:
    """A micro-op: its instruction's fields with addresses resolved, and its place in the loops."""

    queue: Queue
    fields: Mapping[str, int]
    idx: int
    i1: int
    i2: int
    i1_last: bool
    last: bool

    def __getitem__(self, name: str) -> int:
        return self.fields[name]


@dataclasses.dataclass(frozen=True)
class Retired:
    """One executed micro-op, for traces: cycle of the token, queue, what it did."""

    cycle: int
    queue: Queue
    text: str


@dataclasses.dataclass(frozen=True)
class Record:
    """A token's end; of two sequences, each one's, one after the other."""

    token: int
    sampled: bool
    cycles: int


class Machine:
    """One LPU. ``load`` memories, then ``run``."""

    def __init__(self, cfg: Config, trace: Callable[[Retired], None] | None = None):
        self.cfg, self.isa, self.t = cfg, get_isa(cfg), get_timing(cfg)
        self.trace = trace
        v = cfg.vlanes
        self.weight = np.zeros((cfg.columns, cfg.weight_depth, cfg.lanes), np.uint8)
        self.scale = np.zeros((cfg.scale_depth, v), np.int64)
        self.coef = np.zeros((cfg.coef_depth, v), np.int64)
        self.vector = np.zeros((cfg.vector_depth, v), np.int64)
        self.act = np.zeros((cfg.act_depth, cfg.lanes), np.int64)  # as values, mantissa << exponent
        depths = {"weight": cfg.weight_depth, "scale": cfg.scale_depth, "coef": cfg.coef_depth,
                  "vector": cfg.vector_depth, "act": cfg.act_depth}  # fmt: skip
        self.known = {name: np.zeros(depth, bool) for name, depth in depths.items()}
        """Rows of each memory that were loaded or written."""
        self.program: dict[Queue, dict[int, int]] = {q: {} for q in Queue}
        self.phase_rows: dict[int, Phase] = {}
        self.tail: int | None = None
        """Phase with which the tail begins."""
        self.prompt: dict[int, tuple[int, int]] = {}
        self.param = {p: 0 for p in Param}
        self.constants: list[nx.Scalar] = [nx.Scalar(0, 0)] * SCALARS
        self.position = -1

    # Loading ------------------------------------------------------------------------------------------

    def load(self, space: Space, sub: int, address: int, data: bytes) -> None:
        """Rows into a memory, as over the host link. Raises :class:`MachineError` beyond its end."""
        size = row_bytes(self.cfg, space)
        if len(data) % size:
            raise MachineError(f"{space.name}: {len(data)} bytes are not whole rows of {size}")
        rows = [data[i : i + size] for i in range(0, len(data), size)]
        end = address + len(rows)
        if space.name.lower() in self.known:
            self.known[space.name.lower()][address:end] = True
        if space is Space.WEIGHT:
            self._fits(end, self.cfg.weight_depth, space)
            self.weight[sub, address:end] = np.frombuffer(data, np.uint8).reshape(len(rows), -1)
        elif space is Space.SCALE:
            self._fits(end, self.cfg.scale_depth, space)
            self.scale[address:end] = np.frombuffer(data, "<u2").reshape(len(rows), -1)
        elif space is Space.COEF:
            self._fits(end, self.cfg.coef_depth, space)
            self.coef[address:end] = np.frombuffer(data, "<i2").reshape(len(rows), -1)
        else:
            for i, row in enumerate(rows, address):
                self._load_word(space, sub, i, row)

    @staticmethod
    def _fits(end: int, depth: int, space: Space) -> None:
        if end > depth:
            raise MachineError(f"{space.name}: row {end - 1} of {depth}")

    def _load_word(self, space: Space, sub: int, address: int, row: bytes) -> None:
        value = int.from_bytes(row, "little")
        if space is Space.PROGRAM:
            self.program[Queue(sub)][address] = value & (1 << FETCH_BITS) - 1
        elif space is Space.PHASE:
            phase = self.phase_rows[address] = decode_phase(value & (1 << PHASE_BITS) - 1)
            if phase.tail or address == 0:
                self.tail = address if phase.tail else None
        elif space is Space.PROMPT:
            self.prompt[address] = value & (1 << PROMPT_BITS) - 1, value >> PROMPT_BITS
        elif space is Space.PARAM and address in set(Param):
            self.param[Param(address)] = value
        elif space is Space.CONST:
            self.constants[address] = nx.Scalar(value & 0xFFFF, (value >> 16 ^ 0x80) - 0x80)

    def decode(self) -> dict[Queue, list[Instr]]:
        """The loaded program's instructions, queue by queue."""
        return {q: self._decode(q, 0) for q in Queue}

    def decode_tail(self) -> dict[Queue, list[Instr]]:
        """Likewise, of the tail."""
        return {q: self._decode(q, tail_address(self.cfg)) if self.tail is not None else [] for q in Queue}

    def _decode(self, q: Queue, at: int) -> list[Instr]:
        words, n, code = self.program[q], self.isa.formats[q].words, []
        end = tail_address(self.cfg) if self.tail is not None and at == 0 else self.cfg.queue_depth
        while at + n <= end and all(at + i in words for i in range(n)):
            code.append(self.isa.decode(q, sum(words[at + i] << FETCH_BITS * i for i in range(n))))
            at += n
        return code

    # Running ------------------------------------------------------------------------------------------

    def run(self) -> Iterable[Record]:
        """Run from the prompt until a stop; yields a record per token. ``reason`` tells how it ended."""
        p = self.param
        code = self.decode()
        if p[Param.CLEAR]:
            self.position = -1
        elif self.position + 1 >= p[Param.CONTEXT]:
            self.reason = Reason.CONTEXT
            return
        lengths = (p[Param.PROMPT_LEN], p[Param.PROMPT_LEN1])
        each = range(self.sequences)
        made, ended = [0, 0], [False, self.sequences == 1]
        tokens, taken = self.prompt[0], 1
        run: TokenRun | None = None
        while True:
            self.position += 1
            sampled = [s in each and taken >= lengths[s] for s in range(2)]
            run = self.begin(code, tokens, any(sampled), run)
            cycles = run.execute()
            stopped = False
            for s in each:
                told = sampled[s] and not ended[s]
                yield Record(run.next_tokens[s], told, cycles)
                made[s] += sampled[s]
                stops = told and run.next_tokens[s] in (p[Param.STOP0], p[Param.STOP1])
                ended[s] |= stops or (told and made[s] >= p[Param.LIMIT])
                stopped |= stops
            if all(ended):
                self.reason = Reason.STOP_TOKEN if stopped else Reason.LIMIT
            elif self.position + 1 >= p[Param.CONTEXT]:
                self.reason = Reason.CONTEXT
            else:
                given = tokens if all(sampled[s] for s in each) else self.prompt[taken]
                first, second = (run.next_tokens[s] if sampled[s] else given[s] for s in range(2))
                tokens = first, second
                taken += not all(sampled[s] for s in each)
                continue
            run.finish()
            return

    reason = Reason.LIMIT

    @property
    def sequences(self) -> int:
        """Sequences that a run works on."""
        return min(self.cfg.sequences, 2 if self.param[Param.SEQUENCES] == 2 else 1)

    def begin(
        self, code: dict[Queue, list[Instr]], tokens: tuple[int, int], sampled: bool, before: TokenRun | None = None
    ) -> TokenRun:
        """The execution of one token, behind that of the token ``before``; a subclass may watch it."""
        return TokenRun(self, code, tokens, sampled, before)


class TokenRun:
    """Execution of one token: the machine's streams, pipelines and registers.

    The last micro-ops of the token before end while the first of this one are at work.
    """

    def __init__(
        self,
        machine: Machine,
        code: dict[Queue, list[Instr]],
        tokens: tuple[int, int],
        sampled: bool,
        before: TokenRun | None = None,
    ):
        self.m, self.cfg, self.t = machine, machine.cfg, machine.t
        self.code, self.tokens, self.sampled = code, tokens, sampled
        self.before = before
        self.cycles = 0
        # Cycle from which each queue can issue.
        self.ready: dict[Queue, int] = {q: before.ready[q] - before.cycles if before else -1 for q in Queue}
        self._jump(0)
        p = machine.param
        self.slot = machine.position % p[Param.WINDOW]
        self.keys = min(machine.position + 1, p[Param.WINDOW])
        n = max(self.keys, p[Param.FLOOR])
        self.counts: dict[int, int] = {
            Count.SETS: -(-n // self.cfg.columns),
            Count.WORDS: -(-n // self.cfg.lanes),
            Count.ROWS: -(-n // self.cfg.vlanes),
        }
        self.layer = 0
        self.experts = [0] * MAX_EXPERTS_PER_TOKEN
        last: Hazards | None = before.hazards if before else None
        self.hazards: Hazards = Hazards(self.cfg, self.t, last, before.cycles if before else 0)
        self.streams: dict[str, dict[int, np.ndarray]] = collections.defaultdict(dict)
        self.effects: dict[int, list[Callable[[], None]]] = collections.defaultdict(list)
        self.uops: dict[int, list[Uop]] = collections.defaultdict(list)
        self.acc = np.zeros((2, self.cfg.accs, self.cfg.columns), np.int64)
        self.acc_width: list[int | None] = [None] * self.cfg.accs
        self.scalars = [nx.UNIT] * SCALARS
        self.max = [0] * SOFTMAX_BANKS
        self.running_max = 0
        self.sum = [0] * SOFTMAX_BANKS
        self.sumsq = 0
        self._squares = -BLOCK
        self.blocks: list[np.ndarray] = []
        self.vector_rows: list[np.ndarray] = []
        # The last cycle in which each row of vector memory was written.
        self.vector_writes: dict[int, int] = {}
        self.gate = np.zeros(self.cfg.vlanes, np.int64)
        self.turning: tuple[int, np.ndarray, np.ndarray] | None = None
        """With one lane, the first row of a RoPE pair: its cycle, itself, its coefficient."""
        self.captured = np.zeros(self.cfg.vlanes * self.cfg.expert_rows, np.int64)
        self.listed: list[tuple[int, int]] = []  # (-key, id)
        self.row_t = np.zeros(self.cfg.vlanes * self.cfg.expert_rows, np.int64)
        self.chosen = 0
        self.emitted = 0
        """Expert of the last step of an EMIT to the base registers."""
        self.best: tuple[int, int] | None = None  # (z, id)
        self.next_tokens = [0, 0]
        self._noise_taken = 0  # by how many instructions

    def execute(self) -> int:
        """Run the phases; returns the token's cycles."""
        phases, index, loop = self.m.phase_rows, 0, 0
        at = {q: 0 for q in Queue}
        saved = dict(at)
        code = self.code
        start = cycle = 0
        issues: dict[int, list[tuple[Queue, Instr]]] = collections.defaultdict(list)
        while True:
            phase = phases.get(index)
            if phase is None:
                raise MachineError(f"phase {index}: there is none, and no phase before it ends the token")
            if phase.cycles(self.counts) < self.t.phase_min:
                raise MachineError(f"phase {index} is shorter than {self.t.phase_min} cycles")
            if phase.loop_begin:
                if self.layer == 0:
                    saved = dict(at)
                loop = index
            for q in Queue:
                if phase.queues >> q & 1:
                    while True:
                        if at[q] >= len(code[q]):
                            raise MachineError(f"phase {index}: queue {q.name} has no instruction left")
                        instr = code[q][at[q]]
                        at[q] += 1
                        issues[start + instr.time].append((q, instr))
                        if instr.get("end"):
                            break
            end = start + phase.cycles(self.counts)
            while cycle < end:
                if self.before is not None:
                    self.before.drain(self.before.cycles + cycle)
                self._step(cycle, issues.pop(cycle, []))
                cycle += 1
            if issues:
                raise MachineError(f"phase {index}: an instruction issues after its phase")
            start = end
            if phase.loop_end and self.layer + 1 < self.m.param[Param.LAYERS]:
                self.layer += 1
                at, index = dict(saved), loop
                if self.m.tail is not None and not self.sampled and self.layer + 1 == self.m.param[Param.LAYERS]:
                    code, at, index = self.m.decode_tail(), {q: 0 for q in Queue}, self.m.tail
                self._jump(start)
            elif phase.final or (phase.prompt_final and not self.sampled):
                self.before = None
                self.cycles = end
                self._ended()
                return end
            else:
                index += 1

    def _ended(self) -> None:
        self.hazards.ended(self.cycles, self.m.sequences if self.sampled else 0)

    def _jump(self, cycle: int) -> None:
        """The queues start to fetch from elsewhere."""
        for q in Queue:
            self.ready[q] = max(self.ready[q], cycle + self.t.fetch_gap(self.m.isa.formats[q]))

    def drain(self, cycle: int) -> None:
        """One more cycle for what is still under way behind the token's last."""
        if self.uops or self.effects:
            self._step(cycle, [])

    def finish(self) -> None:
        """Let all that is under way end."""
        cycle = self.cycles
        while self.uops or self.effects:
            self.drain(cycle)
            cycle += 1

    def _step(self, cycle: int, issues: list[tuple[Queue, Instr]]) -> None:
        for effect in self.effects.pop(cycle, []):
            effect()
        for q, instr in issues:
            self._issue(cycle + 1, q, instr)
        for uop in sorted(self.uops.pop(cycle, []), key=lambda u: u.queue):
            self._retire(cycle, uop)
        for rows in self.streams.values():
            rows.pop(cycle - 1, None)

    def _retire(self, cycle: int, uop: Uop) -> str:
        """Execute a micro-op; returns what it did, for people."""
        text = str(getattr(self, f"_{uop.queue.name.lower()}")(cycle, uop))
        if self.m.trace:
            self.m.trace(Retired(cycle, uop.queue, text))
        return text

    def _issue(self, cycle: int, q: Queue, instr: Instr) -> None:
        """Unroll an instruction's loops into the calendar; bases are sampled now."""
        fmt = self.m.isa.formats[q]
        if cycle - 1 < self.ready[q]:
            raise MachineError(f"{q.name} issues in cycle {cycle - 1}, but can from {self.ready[q]} on: {instr}")
        n1 = self.counts[instr.get("n1_sel")] if instr.get("n1_sel") else instr.get("n1")
        n2 = self.counts[instr.get("n2_sel")] if instr.get("n2_sel") else instr.get("n2")
        d1 = instr.get("d1")
        d2 = max(instr.get("d2"), (n1 - 1) * d1 + 1)
        plain = {o.name: instr.get(o.name) for o in fmt.operands}
        plain["op"] = instr.get("op")
        bases = {a.name: self._base(cycle, a.name, instr) for a in fmt.addresses}
        for i2 in range(n2):
            for i1 in range(n1):
                fields = dict(plain)
                for a in fmt.addresses:
                    step = i1 * instr.get(f"{a.name}_s1") * a.inner + i2 * instr.get(f"{a.name}_s2") * a.outer
                    fields[a.name] = (plain[a.name] + bases[a.name] + step) % (1 << a.bits)
                uop = Uop(q, fields, i2 * n1 + i1, i1, i2, i1 == n1 - 1, i1 == n1 - 1 and i2 == n2 - 1)
                self.uops[cycle + i2 * d2 + i1 * d1].append(uop)
        self.ready[q] = max(cycle - 1 + self.t.fetch_gap(fmt), cycle + (n2 - 1) * d2 + (n1 - 1) * d1)

    def _expert(self, cycle: int, index: int) -> int:
        """Id in an expert register."""
        self.hazards.expert_used(cycle, index, self.layer)
        return self.experts[index]

    def _token(self, sequence: int) -> int:
        """Id of a sequence's token."""
        if sequence >= self.m.sequences:
            raise MachineError("the second sequence's token is used, but there is one sequence")
        return self.tokens[sequence]

    def _base(self, cycle: int, name: str, instr: Instr) -> int:
        sel, p, cfg = instr.get(f"{name}_sel"), self.m.param, self.cfg
        if sel == Base.ZERO:
            return 0
        if name == "srow":
            name = "s" if sel == Base.KEY else "c"
        elif name == "dst":
            name = "w"
        layer = self.layer * p[{"w": Param.LAYER_W, "s": Param.LAYER_S, "c": Param.LAYER_C}[name]]
        if sel == Base.LAYER:
            return layer
        if Base.EXPERT0 <= sel <= Base.EXPERT2:
            expert = self._expert(cycle, sel - Base.EXPERT0)
            return layer + expert * p[Param.EXPERT_W if name == "w" else Param.EXPERT_S]
        if instr.queue is not Queue.SXM:
            if name == "c":
                return self.m.position * p[Param.ROPE_ROWS]
            token = self._token(sel == Base.TOKEN1)
            if name == "s":
                return token // cfg.vlanes
            return token // cfg.outputs(Width(p[Param.EMBED_WIDTH]).bits) * p[Param.TOKEN_WORDS]
        if sel == Base.KEY:
            return layer + (self.slot // cfg.columns * p[Param.KEY_WORDS] if name == "w" else self.slot // cfg.vlanes)
        return layer + self.slot // (cfg.lanes if name == "w" else cfg.vlanes)

    # Streams ------------------------------------------------------------------------------------------

    def _put(self, stream: str, cycle: int, row: np.ndarray) -> None:
        if cycle in self.streams[stream]:
            raise MachineError(f"two rows on stream {stream} in cycle {cycle}")
        self.streams[stream][cycle] = row

    def _get(self, stream: str, cycle: int, uop: Uop) -> np.ndarray:
        row = self.streams[stream].get(cycle)
        if row is None:
            raise MachineError(f"{uop.queue.name} samples stream {stream} in cycle {cycle}, nothing is on it: {uop}")
        return row

    def _source(self, cycle: int, uop: Uop) -> np.ndarray:
        source = Source(uop["source"])
        return self._sample_t(cycle, uop) if source is Source.T else self._get(source.name, cycle, uop)

    def _sample_t(self, cycle: int, uop: Uop) -> np.ndarray:
        """T is a row or a few, and only the elements of chosen experts hold something; EXP leaves out the others."""
        v, rows = self.cfg.vlanes, self.cfg.expert_rows
        exp = uop["op"] == VxOp.EXP
        if uop.idx >= rows and (exp or rows > 1):
            raise MachineError(f"{VxOp(uop['op']).name} of more rows than T has: {uop}")
        first = uop.idx * v if rows > 1 else 0
        for element in [0] if exp else range(first, first + v):
            self.hazards.need(f"T[{element}]", cycle)
        return self.row_t[first : first + v].copy()

    def _row(self, what: str, memory: np.ndarray, row: int, uop: Uop, read: bool = True) -> np.ndarray:
        """A row of a memory; what is beyond its end is not there, what nobody has written means nothing."""
        if row >= len(memory):
            raise MachineError(f"{what}[{row}] of {len(memory)} rows: {uop}")
        if read and what in self.m.known and not self.m.known[what][row]:
            raise MachineError(f"{what}[{row}] is read, but was neither loaded nor written: {uop}")
        return np.asarray(memory[row])

    # MEM ----------------------------------------------------------------------------------------------

    def _sr(self, cycle: int, uop: Uop) -> str:
        self.hazards.read("scale", uop["s"], cycle)
        self._put("SCL", cycle + self.t.mem_read, self._row("scale", self.m.scale, uop["s"], uop).copy())
        return f"scale[{uop['s']}]"

    def _xr(self, cycle: int, uop: Uop) -> str:
        written = self.vector_writes.get(uop["x"]) == cycle
        if self.before is not None:
            written |= self.before.vector_writes.get(uop["x"]) == cycle + self.before.cycles
        if written:
            raise MachineError(f"cycle {cycle}: vector row {uop['x']} is read while it is written: {uop}")
        self._put("X", cycle + self.t.mem_read, self._row("vector", self.m.vector, uop["x"], uop).copy())
        return f"vector[{uop['x']}]"

    def _cr(self, cycle: int, uop: Uop) -> str:
        self.hazards.read("coef", uop["c"], cycle)
        self._put("C", cycle + self.t.mem_read, self._row("coef", self.m.coef, uop["c"], uop).copy())
        return f"coef[{uop['c']}]"

    def _xw(self, cycle: int, uop: Uop) -> str:
        row, x = self._source(cycle, uop), uop["x"]
        self._row("vector", self.m.vector, x, uop, read=False)

        def write() -> None:
            self.m.known["vector"][x] = True
            self.m.vector[x] = row

        self.vector_writes[x] = cycle + self.t.xw - 1
        self.effects[cycle + self.t.xw].append(write)
        return f"vector[{x}] = {row.tolist()}"

    # MXM ----------------------------------------------------------------------------------------------

    def _halves(self, words: np.ndarray, width: Width) -> list[np.ndarray]:
        """Weight bytes [..., L] -> signed weights of the low and (int4) the high outputs."""
        signed = words.astype(np.int64)
        if width is Width.INT8:
            return [np.where(signed > 127, signed - 256, signed)]
        return [((h + 8) & 15) - 8 for h in (signed & 15, signed >> 4)]

    def _abc(self, cycle: int, uop: Uop) -> str:
        width = Width(uop["width"])
        if width.bits < self.cfg.narrowest:
            raise MachineError(f"config {self.cfg.name} has no int{width.bits} weights: {uop}")
        words = self._row("weight", self.m.weight.swapaxes(0, 1), uop["w"], uop)
        self.hazards.read("weight", uop["w"], cycle)
        if uop["op"] == AbcOp.GATHER:
            self.hazards.gathered(cycle, width, uop["sequence"])
            v, c = self.cfg.vlanes, self.cfg.superlane_columns
            token = self._token(uop["sequence"])
            slot = token // v % self.cfg.slots(width.bits)
            column, half = (slot // 2, slot % 2) if width is Width.INT4 else (slot, 0)
            word = self._halves(words[token % v * c + column], width)[half]
            for i in range(self.cfg.word_rows):
                self._put("G", cycle + self.t.gather + i, word[i * v : (i + 1) * v])
            return f"gather {word.tolist()}"
        act = self._row("act", self.m.act, uop["a"], uop).copy()
        sums = [h @ act for h in self._halves(words, width)]
        init = Init(uop["init"])
        clear = (init is Init.INNER and uop.i1 == 0) or (init is Init.OUTER and uop.i2 == 0)
        acc = uop["acc"]

        def accumulate() -> None:
            if not clear and self.acc_width[acc] != width:
                raise MachineError(f"accumulator {acc} is added to, but holds no sum of this width: {uop}")
            self.acc_width[acc] = width
            for half, s in enumerate(sums):
                self.acc[half, acc] = s + (0 if clear else self.acc[half, acc])
                if not nx.fits(self.acc[half, acc], self.cfg.acc_bits):
                    raise MachineError(f"accumulator {acc} overflows: {uop}")

        self.effects[cycle + self.t.dot].append(accumulate)
        return f"acc[{acc}] {'=' if clear else '+='} w[{uop['w']}] . act[{uop['a']}]"

    def _count(self, uop: Uop) -> None:
        """A micro-op whose index counts elements."""
        bits = max(self.cfg.token_bits, self.cfg.position_bits) + 1
        if uop.idx >= 1 << bits:
            raise MachineError(f"more than {1 << bits} rows in one instruction: {uop}")

    # VXM ----------------------------------------------------------------------------------------------

    def _acc(self, cycle: int, uop: Uop) -> str:
        v, c = self.cfg.vlanes, self.cfg.superlane_columns
        scl = self._get("SCL", cycle, uop)
        if uop["bcast"] or uop["max"]:
            self.hazards.state_used(cycle, self.cycles)
        if uop["bcast"]:
            scl = np.full(v, scl[self._token(uop["sequence"]) % v])
        if uop["source"] == AccSource.GATHER:
            value = self._get("G", cycle, uop)
        else:
            slot = uop["slot"]
            column, half = (slot // 2, slot % 2) if uop["width"] == Width.INT4 else (slot % c, 0)
            if self.acc_width[uop["acc"]] != uop["width"]:
                raise MachineError(f"accumulator {uop['acc']} is drained, but holds no sum of this width: {uop}")
            value = self.acc[half, uop["acc"]].reshape(v, c)[:, column]
        self.hazards.need(f"R[{uop['scalar']}]", cycle)
        y = nx.dequant(value, scl, self.scalars[uop["scalar"]], uop["shift"])
        self._put("Y", cycle + self.t.acc, y)
        if uop["max"]:
            self._count(uop)
            top = int(nx.masked_max(y, max(0, self.keys - uop.idx * v)))
            self.running_max = top = top if uop.idx == 0 else max(top, self.running_max)
            bank = uop["bank"]

            def commit() -> None:
                self.max[bank] = top
                self.hazards.define(f"MAX[{bank}]")

            self.effects[cycle + self.t.max].append(commit)
        return f"Y = {y.tolist()}"

    def _vx(self, cycle: int, uop: Uop) -> str:
        op = VxOp(uop["op"])
        source = self._source(cycle, uop)
        shift = uop["shift"]
        if op is VxOp.PASS:
            z = source
        elif op is VxOp.ADD:
            z = nx.add(source, self._get("X", cycle, uop))
        elif op is VxOp.GAIN:
            z = nx.gain(source, self._get("C", cycle, uop), uop["fshift"], shift)
        elif op is VxOp.ROPE and self.cfg.vlanes == 1:
            return self._rope_rows(cycle, uop, source, self._get("C", cycle, uop))
        elif op is VxOp.ROPE:
            z = nx.rope(source, self._get("C", cycle, uop))
        elif op is VxOp.EXP:
            z = self._exp(cycle, uop, source)
        elif uop.idx % 2 == 0:
            self.gate = source
            return "gate"
        else:
            z = nx.silu(self.gate, source, uop["fshift"], shift)
        self._put("Z", cycle + self.t.vx(op), z)
        return f"Z = {z.tolist()}"

    def _rope_rows(self, cycle: int, uop: Uop, source: np.ndarray, coef: np.ndarray) -> str:
        """The elements of a pair are rows: both results are known with the second one."""
        if uop.idx % 2 == 0:
            if uop.last:
                raise MachineError(f"ROPE of an odd number of rows: {uop}")
            self.turning = cycle, source, coef
            return "first of a pair"
        assert self.turning is not None, "it was of this instruction"
        first, other, cos = self.turning
        if cycle - first > self.t.rope_pitch:
            raise MachineError(f"ROPE: rows of a pair are more than {self.t.rope_pitch} cycles apart: {uop}")
        z = nx.rope(np.concatenate([other, source]), np.concatenate([cos, coef]))
        for at, row in ((first, z[:1]), (cycle, z[1:])):
            self._put("Z", at + self.t.vx(VxOp.ROPE), row)
        return f"Z = {z.tolist()}"

    def _exp(self, cycle: int, uop: Uop, source: np.ndarray) -> np.ndarray:
        v, bank = self.cfg.vlanes, uop["bank"]
        self._count(uop)
        self.hazards.state_used(cycle, self.cycles)
        routed = uop["source"] == Source.T
        if not routed:
            self.hazards.need(f"MAX[{bank}]", cycle)
        top = int(self.row_t[0]) if routed else self.max[bank]
        limit = self.chosen if routed else self.keys
        p = np.where(uop.idx * v + np.arange(v) < limit, nx.exp2_neg(top - source), 0)
        first, total = uop.idx == 0, int(p.sum())

        def add() -> None:
            self.hazards.define(f"SUM[{bank}]")
            self.sum[bank] = total + (0 if first else self.sum[bank])

        self.effects[cycle + self.t.vx_sum].append(add)
        return p if uop["unit"] else nx.exp_out(p, self._get("C", cycle, uop), uop["shift"])

    def _sfu(self, cycle: int, uop: Uop) -> str:
        op, dst = SfuOp(uop["op"]), uop["dst"]
        if op is SfuOp.CAPTURE:
            row, v, rows = self._get("Z", cycle, uop), self.cfg.vlanes, self.cfg.expert_rows
            if rows > 1 and uop.idx >= rows:
                raise MachineError(f"CAPTURE of more rows than P has: {uop}")
            first = uop.idx * v if rows > 1 else 0

            def capture() -> None:
                self.captured[first : first + v] = row
                self.hazards.define("P" if rows == 1 else f"P[{first // v}]")

            self.effects[cycle + self.t.sfu_capture].append(capture)
            return f"P = {row.tolist()}"
        if op is SfuOp.RSQRT:
            self.hazards.sumsq_read(cycle)
            value, latency = nx.rsqrt(self.sumsq, self.m.param[Param.EPS]), self.t.sfu_rsqrt
        elif op is SfuOp.RECIP:
            self.hazards.need(f"SUM[{uop['bank']}]", cycle)
            value, latency = nx.recip(self.sum[uop["bank"]]), self.t.sfu_recip
        elif op is SfuOp.MUL:
            self.hazards.need(f"R[{uop['a']}]", cycle)
            value, latency = nx.scalar_mul(self.scalars[uop["a"]], self.m.constants[uop["b"]]), self.t.sfu_mul
        else:
            self.hazards.need(f"R[{uop['a']}]", cycle)
            p = int(self._row("P", self.captured, uop["b"], uop))
            self.hazards.need("P" if self.cfg.expert_rows == 1 else f"P[{uop['b'] // self.cfg.vlanes}]", cycle)
            if not 0 <= p <= nx.ONE:
                raise MachineError(f"P[{uop['b']}] = {p} is no probability: {uop}")
            value = nx.scalar_mul(nx.prob_scalar(p), self.scalars[uop["a"]])
            latency = self.t.sfu_prob
        self.hazards.scalar_written(cycle, cycle + latency, dst)

        def write() -> None:
            if dst:  # R[0] is the constant one
                self.scalars[dst] = value
                self.hazards.define(f"R[{dst}]")

        self.effects[cycle + latency].append(write)
        return f"R[{dst}] = {int(value.mantissa)}, {int(value.exponent)}"

    # TOP ----------------------------------------------------------------------------------------------

    def _top(self, cycle: int, uop: Uop) -> str:
        p, v = self.m.param, self.cfg.vlanes
        first = uop.idx == 0
        if p[Param.NOISE] and not self.cfg.noise:
            raise MachineError(f"noise mode {p[Param.NOISE]}: config {self.cfg.name} has no noise")
        if uop["op"] == TopOp.INSERT:
            noisy = bool(uop["noise"]) and p[Param.NOISE] == 2
            self._count(uop)
            if noisy:
                self.hazards.state_used(cycle, self.cycles)
            self.hazards.insert(cycle, first, uop.last, bool(uop["noise"]), noisy)
            if first:
                self.listed = []
            row = self._get("Y", cycle, uop)
            ids = uop.idx * v + np.arange(v)
            keys = nx.sat(row + nx.gumbel(self._seed, self.m.position, ids), 32) if noisy else row
            self._noise_taken += noisy and uop.last
            self.listed += [(-int(k), int(i)) for k, i in zip(keys, ids, strict=True) if i < uop["limit"]]
            if self.listed and self.listed[-1][1] >= 1 << self.cfg.token_bits:
                raise MachineError(f"id {self.listed[-1][1]} of {1 << self.cfg.token_bits} enters: {uop}")
            return f"insert {row.tolist()}"
        sampling = not uop["expert"]
        noisy = sampling and p[Param.NOISE] == 1
        self.hazards.state_used(cycle, self.cycles)
        self.hazards.emit(cycle, first, uop.last, uop["sequence"] if sampling else None, noisy, bool(self.listed))
        if first:
            self.listed.sort()
            self.best = None
        taken = self.listed[uop.idx] if uop.idx < len(self.listed) else None
        if uop["expert"]:
            if taken is None:
                raise MachineError(f"TOP.EMIT: {len(self.listed)} entries in the lists: {uop}")
            self.hazards.choose(cycle, uop.idx, taken[1], self.layer)
            index, logit, expert = uop.idx, -taken[0], taken[1]
            self.emitted = expert

            def choose() -> None:
                self.experts[index] = expert

            # An instruction that issues in that cycle has its first micro-op in the next one.
            self.effects[cycle + self.t.top_emit - self.t.issue].append(choose)

            def show() -> None:
                self.row_t[index] = logit
                self.chosen = index + 1
                self.hazards.define(f"T[{index}]")

            self.effects[cycle + self.t.top_row].append(show)
            return f"expert {uop.idx} = {taken[1]}"
        if taken is not None and uop.idx < max(1, p[Param.TOPK]):
            noise = nx.gumbel(self._seed, self.m.position, uop.idx) if noisy else 0
            z = int(nx.sat(noise - taken[0], 32))
            if self.best is None or z > self.best[0]:
                self.best = z, taken[1]
        if uop.last and self.best is not None:
            self.next_tokens[uop["sequence"]] = self.best[1]
        self._noise_taken += noisy and uop.last
        return f"candidate {taken}"

    @property
    def _seed(self) -> int:
        """Of who takes noise now: the sequences in turn."""
        return self.m.param[Param.SEED1 if self._noise_taken % 2 else Param.SEED]

    # SXM ----------------------------------------------------------------------------------------------

    def _sxm(self, cycle: int, uop: Uop) -> str:
        row = self._source(cycle, uop)
        if uop["op"] == SxmMode.ACT:
            return self._quantise(cycle, uop, row)
        self.hazards.state_used(cycle, self.cycles)
        self.hazards.kv_row(cycle, uop.i1)
        if uop.i1 == 0:
            self.vector_rows = []
        self.vector_rows.append(row)
        if uop.i1_last:
            q, e = nx.quantise_kv(np.concatenate(self.vector_rows), uop["shift"])
            write = self._write_key if uop["op"] == SxmMode.KEY else self._write_value
            rows, key = len(self.vector_rows), uop["op"] == SxmMode.KEY
            places = self._kv_places(uop, rows)
            self.hazards.kv_written(cycle, places, "scale" if key else "coef", uop["srow"])
            for _, word in places:
                self._row("weight", self.m.weight[0], word, uop, read=False)
                if not key and word >= self.cfg.value_words:
                    raise MachineError(f"a value goes into weight[{word}] of {self.cfg.value_words} for values: {uop}")
            table = self.m.scale if key else self.m.coef
            self._row("scale" if key else "coef", table, uop["srow"], uop, read=False)
            visible = cycle + self.t.sxm_kv + (rows - 1) * (1 if key else self.t.value_pace) + 1
            self.effects[visible].append(lambda: write(uop, q, int(e)))
            return f"{SxmMode(uop['op']).name} {q.tolist()} exponent {int(e)}"
        return "collect"

    def _kv_places(self, uop: Uop, rows: int) -> list[Place]:
        """Column of a superlane and weight word that each row of a K or V vector goes to."""
        columns = self.cfg.superlane_columns
        if uop["op"] == SxmMode.KEY:
            return [(ANY, uop["dst"] + i // self.cfg.word_rows) for i in range(rows)]
        return [(i % columns, uop["dst"] + i // columns * uop["vset"]) for i in range(rows)]

    def _quantise(self, cycle: int, uop: Uop, row: np.ndarray) -> str:
        cfg = self.cfg
        word_row = uop.i1 % cfg.word_rows
        if word_row % cfg.block_rows == 0:
            self.blocks = []
        self.blocks.append(row)
        if not (uop.i1_last or (word_row + 1) % cfg.block_rows == 0):
            return "collect"
        m, e = nx.quantise_act(np.concatenate(self.blocks), uop["shift"])
        values = nx.act_value(m, e)
        address = uop["dst"] + uop.i1 // cfg.word_rows
        self._row("act", self.m.act, address, uop, read=False)
        at = word_row // cfg.block_rows * BLOCK
        first = uop.idx == len(self.blocks) - 1
        total = int((values.astype(object) ** 2).sum()) if uop["sumsq"] else 0

        def write() -> None:
            self.m.known["act"][address] = True
            self.m.act[address, at:] = 0
            self.m.act[address, at : at + len(values)] = values

        self.effects[cycle + self.t.sxm_act].append(write)
        if uop["sumsq"]:
            beats = BLOCK // self.cfg.square_lanes
            if beats > 1:
                # Beats of the blocks before: at most one less than a block takes may be left.
                self._squares = max(cycle, self._squares + beats)
                if self._squares - cycle >= beats:
                    raise MachineError(f"cycle {cycle}: SXM sums squares of a block before those before it are taken")

            self.hazards.squared(cycle)

            def add() -> None:
                self.hazards.define("SUMSQ")
                self.sumsq = min((1 << 64) - 1, total + (0 if first else self.sumsq))

            self.effects[cycle + self.t.sxm_sumsq].append(add)
        return f"act[{address}] = {values.tolist()}"

    def _write_key(self, uop: Uop, q: np.ndarray, e: int) -> None:
        cfg = self.cfg
        column = self.slot % cfg.vlanes * cfg.superlane_columns + self.slot // cfg.vlanes % cfg.superlane_columns
        if cfg.ecc:  # whole words: the last one is filled up with zeros
            self.m.weight[column, uop["dst"] : uop["dst"] + -(-len(q) // cfg.lanes)] = 0
        for i, byte in enumerate(q & 255):
            self.m.weight[column, uop["dst"] + i // cfg.lanes, i % cfg.lanes] = byte
        self.m.scale[uop["srow"], self.slot % cfg.vlanes] = 1 << e

    def _write_value(self, uop: Uop, q: np.ndarray, e: int) -> None:
        cfg = self.cfg
        for dim, value in enumerate(q):
            row, lane = divmod(dim, cfg.vlanes)
            group, column = divmod(row, cfg.superlane_columns)
            address = uop["dst"] + group * uop["vset"]
            word = self.m.weight[lane * cfg.superlane_columns + column, address]
            if cfg.ecc and self.slot % cfg.lanes == 0 and self.keys == self.slot + 1:
                word[:] = 0  # nothing else in it: no need to know what it held
            word[self.slot % cfg.lanes] = int(value) & 255
        self.m.coef[uop["srow"], self.slot % cfg.vlanes] = 1 << e
