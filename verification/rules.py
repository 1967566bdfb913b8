"""A program for each rule of time: at the limit it runs, a cycle beyond it the machine refuses it.

``early`` is 0 at the limit and 1 beyond it. All times are those of issues; a micro-op comes a cycle later.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from firmware.lower import pack_program
from hdl.config import Config
from hdl.image import PROMPT_BITS, Param, Space
from hdl.isa import (
    AccSource,
    Base,
    Init,
    Instr,
    Phase,
    Program,
    Queue,
    SfuOp,
    Source,
    SxmMode,
    TopOp,
    VxOp,
    Width,
    get_isa,
)
from hdl.timing import Timing, get_timing
from verification.program_memory import Region, region_parts
from verification.random_program import RandomProgram

ROWS = 8
"""Rows loaded of each memory."""


class Code:
    """Instructions of one phase, and how the run around it is."""

    def __init__(self, cfg: Config, early: int):
        self.cfg, self.early = cfg, early
        self.t: Timing = get_timing(cfg)
        self.instrs: list[Instr] = []
        self.dur: int | None = None
        self.sampled = False
        self.noise = 0
        self.both = False
        """Two sequences."""

    def at(self, time: int, queue: Queue, **fields: int) -> int:
        """An instruction; returns the time of its first issue."""
        self.instrs.append(Instr(queue, {"time": time, **{k: int(v) for k, v in fields.items()}}))
        return time

    def gap(self, queue: Queue) -> int:
        """Least distance of two issues of a queue, and the first one's time."""
        return self.t.fetch_gap(get_isa(self.cfg).formats[queue])

    def y(self, time: int, rows: int, **acc: int) -> int:
        """Rows on Y from ``time`` on; returns the time of their ACC."""
        words = -(-rows // self.cfg.word_rows)
        drain = time - self.t.acc
        self.at(drain - self.t.gather, Queue.ABC, op=1, width=Width.INT8, n1=words, d1=self.cfg.word_rows)
        self.at(drain - self.t.mem_read, Queue.SR, n1=rows)
        return self.at(drain, Queue.ACC, n1=rows, source=AccSource.GATHER, **acc)

    def x(self, time: int, rows: int) -> None:
        """Rows on X from ``time`` on, all the same, written before: from cycle 60 on."""
        if not any(i.queue is Queue.XW for i in self.instrs):
            self.y(40, 1)
            self.at(40, Queue.XW)
        self.at(time - self.t.mem_read, Queue.XR, n1=rows)

    def dot(self, time: int, **fields: int) -> int:
        """A product of one word."""
        return self.at(time, Queue.ABC, op=0, width=Width.INT8, init=Init.INNER, **fields)

    def z(self, time: int, rows: int) -> None:
        """Rows on Z from ``time`` on."""
        self.x(time - self.t.vx_pass, rows)
        self.at(time - self.t.vx_pass, Queue.VX, op=VxOp.PASS, source=Source.X, n1=rows)

    def lists(self, time: int, rows: int = 2, **fields: int) -> int:
        """TOP.INSERT of rows; returns the time of the last one."""
        self.y(time, rows)
        limit = min(rows * self.cfg.vlanes, self.cfg.experts_max)
        self.at(time, Queue.TOP, op=TopOp.INSERT, n1=rows, limit=limit, **fields)
        return time + rows - 1


Rule = Callable[[Code], str]
"""Writes the code; returns what the machine says beyond the limit."""
RULES: dict[str, Rule] = {}


def rule(function: Rule) -> Rule:
    """Registers a rule by its name."""
    RULES[function.__name__] = function
    return function


def program(cfg: Config, name: str, early: int) -> tuple[RandomProgram, str]:
    """A rule's program, and what the machine says of it with ``early`` = 1."""
    code = Code(cfg, early)
    message = RULES[name](code)
    by_queue: dict[Queue, tuple[Instr, ...]] = {}
    queues, last = 0, 0
    for q in Queue:
        mine = sorted((i for i in code.instrs if i.queue is q), key=lambda i: i.time)
        by_queue[q] = tuple(Instr(q, {**i.values, "end": int(i is mine[-1])}) for i in mine)
        queues |= bool(mine) << q
        last = max([last, *(i.time for i in mine)])
    dur = last + 40 if code.dur is None else code.dur
    phase = Phase(dur, queues=queues, loop_begin=1, loop_end=1, prompt_final=1, final=1)
    whole = Program((phase,), by_queue)
    rng = np.random.default_rng(1)
    parts = [
        *(p for c in range(cfg.columns) for p in region_parts(
            cfg, Space.WEIGHT, c, Region(0, ROWS, cfg.weight_depth), rng.integers(1, 100, (ROWS, cfg.lanes)))),
        *region_parts(cfg, Space.SCALE, 0, Region(0, ROWS, cfg.scale_depth),
                      rng.integers(1, 1 << 16, (ROWS, cfg.vlanes))),
        *region_parts(cfg, Space.COEF, 0, Region(0, ROWS, cfg.coef_depth),
                      rng.integers(1, 1 << 15, (ROWS, cfg.vlanes))),
        (int(Space.CONST), 0, 0, (0x9000).to_bytes(2, "little") + b"\1"),
        *((int(p.space), p.sub, p.address, p.data) for p in pack_program(cfg, whole)),
    ]  # fmt: skip
    params = dict.fromkeys(Param, 0) | {
        Param.LAYERS: 1, Param.WINDOW: 4, Param.VOCAB: cfg.vocab_max, Param.LIMIT: 1, Param.CLEAR: 1,
        Param.STOP0: 1 << 31, Param.STOP1: 1 << 31, Param.NOISE: code.noise, Param.TOPK: 1,
        # One token: of two in the prompt where none is sampled, and the context ends behind the first.
        Param.PROMPT_LEN: 1 if code.sampled else 2, Param.CONTEXT: 4 if code.sampled else 1,
    }  # fmt: skip
    if code.both:
        params |= {Param.SEQUENCES: 2, Param.PROMPT_LEN1: params[Param.PROMPT_LEN]}
    del params[Param.IMAGE]
    row = 1 | code.both << PROMPT_BITS
    return RandomProgram(cfg, whole, tuple(parts), params, (row, row)[: params[Param.PROMPT_LEN]], 1), message


# Issue ------------------------------------------------------------------------------------------------


@rule
def first_fetch(c: Code) -> str:
    c.at(c.gap(Queue.SR) - c.early, Queue.SR)
    return "SR issues in cycle"


@rule
def next_fetch(c: Code) -> str:
    c.at(20, Queue.SR)
    c.at(20 + c.gap(Queue.SR) - c.early, Queue.SR)
    return "SR issues in cycle"


@rule
def still_repeating(c: Code) -> str:
    c.at(10, Queue.SR, n1=3, d1=3, n2=2, d2=30)
    c.at(10 + 30 + 6 + 1 - c.early, Queue.SR)
    return "SR issues in cycle"


@rule
def phase_ends(c: Code) -> str:
    c.at(20, Queue.SR)
    c.dur = 21 - c.early
    return "issues after its phase"


@rule
def shortest_phase(c: Code) -> str:
    c.dur = c.t.phase_min - c.early
    return "is shorter than"


# Streams and memories ---------------------------------------------------------------------------------


@rule
def empty_stream(c: Code) -> str:
    c.y(40, 2)
    c.at(40 - c.early, Queue.XW)
    return "XW samples stream Y"


@rule
def two_rows_on_z(c: Code) -> str:
    c.x(60, 12)
    c.at(58, Queue.CR)
    c.at(60, Queue.VX, op=VxOp.GAIN, source=Source.X)
    c.at(60 + c.t.vx_gain - c.t.vx_pass + 1 - c.early, Queue.VX, source=Source.X)
    return "two rows on stream Z"


@rule
def row_in_writing(c: Code) -> str:
    c.y(40, 2)
    c.at(40, Queue.XW, x=3)
    c.at(40 + c.t.xw - c.early, Queue.XR, x=3)
    return "is read while it is written"


@rule
def accumulator(c: Code) -> str:
    rows = c.cfg.word_rows
    c.y(40, rows)
    c.at(40, Queue.SXM, n1=rows)
    at = c.dot(60)
    c.at(at + c.t.dot - c.early, Queue.ACC, width=Width.INT8)
    c.at(at + c.t.dot - c.t.mem_read - c.early, Queue.SR)
    return "is drained, but holds no sum"


@rule
def activation_beyond_the_memory(c: Code) -> str:
    c.y(40, 2)
    c.at(40, Queue.SXM, n1=2, dst=c.cfg.act_depth - 1 + c.early)
    return r"act\[\d+\] of"


def _cached(c: Code, mode: SxmMode, reader: Callable[[int], object]) -> None:
    rows, pace = 4, 1 if mode is SxmMode.KEY else c.t.value_pace
    c.y(40, 24)
    c.at(40, Queue.SXM, n1=c.cfg.word_rows)
    c.at(56, Queue.SXM, op=mode, n1=rows, dst=1, vset=1, srow=2)
    reader(56 + rows - 1 + c.t.sxm_kv + (rows - 1) * pace + 1 - c.early)


@rule
def key_in_writing(c: Code) -> str:
    _cached(c, SxmMode.KEY, lambda at: c.dot(at, w=1))
    return r"weight\[1\] is read while K or V"


@rule
def value_in_writing(c: Code) -> str:
    _cached(c, SxmMode.VALUE, lambda at: c.dot(at, w=1))
    return r"weight\[1\] is read while K or V"


@rule
def key_exponent_in_writing(c: Code) -> str:
    _cached(c, SxmMode.KEY, lambda at: c.at(at, Queue.SR, s=2))
    return r"scale\[2\] is read while K or V"


@rule
def value_exponent_in_writing(c: Code) -> str:
    _cached(c, SxmMode.VALUE, lambda at: c.at(at, Queue.CR, c=2))
    return r"coef\[2\] is read while K or V"


@rule
def vector_behind_a_longer_one(c: Code) -> str:
    long = 8
    c.y(40, long + 20)
    c.at(40, Queue.SXM, op=SxmMode.KEY, n1=long, srow=3)
    c.at(40 + long - 1 + long - c.early, Queue.SXM, op=SxmMode.KEY, srow=4)
    return "ends before the one before it is written"


@rule
def vector_behind_values(c: Code) -> str:
    """Of values as many rows follow; where they leave at half the pace, so late that the first ones have left."""
    rows, pace = 8, c.t.value_pace
    c.y(40, 60)
    c.at(40, Queue.SXM, op=SxmMode.VALUE, n1=rows, dst=1, vset=1)
    c.at(40 + rows - 1 + rows * pace - c.early, Queue.SXM, op=SxmMode.KEY, dst=9, srow=4)
    return "ends before the one before it is written"


def _values(c: Code, apart: int, step: int) -> str:
    """Two vectors of V of one row; without error correction, where that is no rule, another one."""
    if not c.cfg.ecc:
        return vector_behind_values(c)
    c.y(40, 16)
    c.at(40, Queue.SXM, op=SxmMode.VALUE, n2=2, d2=apart - c.early, dst=1, dst_s2=step)
    return "second port writes" if step else "on its way there"


@rule
def value_in_a_word_under_way(c: Code) -> str:
    return _values(c, c.t.value_update + 1, 0)


@rule
def value_while_the_port_writes(c: Code) -> str:
    return _values(c, c.t.value_update + 1, 1)


@rule
def last_word_of_values(c: Code) -> str:
    c.y(40, 24)
    c.at(40, Queue.SXM, op=SxmMode.VALUE, dst=c.cfg.value_words - 1, n1=1 + c.early * c.cfg.superlane_columns, vset=1)
    return r"weight\[\d+\] of"


@rule
def longest_vector(c: Code) -> str:
    rows = c.cfg.head_max // c.cfg.vlanes + c.early
    c.z(70, rows)
    c.at(70, Queue.SXM, op=SxmMode.KEY, source=Source.Z, n1=rows)
    c.dur = 70 + rows + 20
    return "is longer than"


# Registers --------------------------------------------------------------------------------------------


@rule
def scalar_register(c: Code) -> str:
    c.at(30, Queue.SFU, op=SfuOp.MUL, dst=1)
    c.y(30 + c.t.sfu_mul - c.early + c.t.acc, 2, scalar=1)
    return r"R\[1\] is read"


@rule
def maximum(c: Code) -> str:
    at = c.y(60, 1, max=1, bank=1) + c.t.max - c.early
    c.x(at, 1)
    c.at(at, Queue.VX, op=VxOp.EXP, source=Source.X, bank=1, unit=1)
    return r"MAX\[1\] is read"


@rule
def sum_of_exponentials(c: Code) -> str:
    acc = c.y(60, 2, max=1)
    at = acc + 1 + c.t.max
    c.x(at, 1)
    c.at(at, Queue.VX, op=VxOp.EXP, source=Source.X, unit=1)
    c.at(at + c.t.vx_sum - c.early, Queue.SFU, op=SfuOp.RECIP, dst=2)
    return r"SUM\[0\] is read"


@rule
def sum_of_squares(c: Code) -> str:
    rows = c.cfg.block_rows
    c.y(40, rows)
    c.at(40, Queue.SXM, n1=rows, sumsq=1)
    c.at(40 + rows - 1 + c.t.sxm_sumsq - c.early, Queue.SFU, op=SfuOp.RSQRT, dst=2)
    return "SUMSQ is read"


# Top-k unit -------------------------------------------------------------------------------------------


@rule
def rows_before_emit(c: Code) -> str:
    last = c.lists(40, 8)
    c.at(last + c.t.top_insert - c.early, Queue.TOP, op=TopOp.EMIT)
    return "before the last row has entered"


@rule
def noisy_rows_before_emit(c: Code) -> str:
    last = c.lists(40, 8, noise=1)
    c.at(last + c.t.top_insert_noise - c.early, Queue.TOP, op=TopOp.EMIT)
    return "before the last row has entered"


@rule
def rows_behind_noisy_ones(c: Code) -> str:
    """Without noise, where that is no rule, another one."""
    if not c.cfg.noise:
        return emit_steps(c)
    c.y(40, 12)
    noisy, late = 5, c.t.top_insert_noise - c.t.top_insert
    c.at(40, Queue.TOP, op=TopOp.INSERT, n1=noisy, noise=1, limit=1)
    first = c.at(40 + noisy - 1 + late + 1 - c.early, Queue.TOP, op=TopOp.INSERT, limit=c.cfg.vlanes)
    c.at(first + 9, Queue.TOP, op=TopOp.EMIT, n1=2, d1=c.t.top_step, expert=1)
    return "meets rows with noise"


@rule
def emit_steps(c: Code) -> str:
    last = c.lists(40, 8)
    c.at(last + 9, Queue.TOP, op=TopOp.EMIT, n1=2, d1=c.t.top_step - c.early)
    return "steps are less than"


@rule
def noise_again(c: Code) -> str:
    """Without noise, where that is no rule, another one."""
    if not c.cfg.noise:
        return emit_steps(c)
    c.noise = 1
    last = c.lists(40, 8)
    emit = c.at(last + 9, Queue.TOP, op=TopOp.EMIT)
    c.lists(emit + 6, 4)
    c.at(emit + c.t.top_noise - c.early, Queue.TOP, op=TopOp.EMIT)
    return "takes noise"


@rule
def expert_base(c: Code) -> str:
    last = c.lists(40, 2)
    emit = c.at(last + 9, Queue.TOP, op=TopOp.EMIT, expert=1)
    c.at(emit + c.t.top_emit - c.early, Queue.SR, s_sel=Base.EXPERT0)
    return "its base is ready from"


@rule
def row_of_experts(c: Code) -> str:
    last = c.lists(40, 2)
    emit = c.at(last + 9, Queue.TOP, op=TopOp.EMIT, expert=1)
    c.at(emit + c.t.top_row - c.early, Queue.VX, op=VxOp.EXP, source=Source.T, unit=1)
    return r"T\[0\] is read"


# The token's end --------------------------------------------------------------------------------------


@rule
def sample_in_time(c: Code) -> str:
    c.sampled = True
    last = c.lists(40, 2)
    emit = c.at(last + 9, Queue.TOP, op=TopOp.EMIT)
    c.dur = emit + c.t.issue + c.t.top_sample + c.t.token - c.early
    return "its sample needs it to last"


@rule
def gathered_in_time(c: Code) -> str:
    at = c.at(20, Queue.ABC, op=1, width=Width.INT8)
    c.dur = at + c.t.issue + c.t.gather - 1 - c.early
    return "its row is gathered until"


@rule
def gathered_in_one_width(c: Code) -> str:
    int4 = c.cfg.int4
    rows, kept, n = c.cfg.word_rows, (c.t.gather - 3) * int4, 4
    last = c.at(20, Queue.ABC, op=1, width=Width.INT4 if int4 else Width.INT8, n1=n, d1=rows) + (n - 1) * rows
    c.at(last + max(rows, kept) - c.early, Queue.ABC, op=1, width=Width.INT8)
    # Where a word has many rows, its own are still on their way.
    return "GATHER of another width" if kept >= rows else "two rows on stream G"


@rule
def gathered_of_one_sequence(c: Code) -> str:
    c.both = c.cfg.sequences == 2
    rows, kept, n = c.cfg.word_rows, c.t.gather_other * c.both, 4
    last = c.at(20, Queue.ABC, op=1, width=Width.INT8, n1=n, d1=rows) + (n - 1) * rows
    c.at(last + max(rows, kept) - c.early, Queue.ABC, op=1, width=Width.INT8, sequence=c.both)
    return "GATHER of another sequence" if kept >= rows else "two rows on stream G"


@rule
def slot_of_the_token(c: Code) -> str:
    c.y(40, 2)
    c.at(40, Queue.SXM, op=SxmMode.KEY, n1=2, dst=1)
    c.dur = 40 + 1 + c.t.issue + 1 - c.early
    return "the run state of a token that ended"
