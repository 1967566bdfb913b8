"""Random programs that are valid as text and as words, though not as computations."""

from __future__ import annotations

import numpy as np

from hdl.config import Config
from hdl.isa import PHASE_FIELDS, Count, Instr, Isa, Phase, Program, Queue, encode_phase, get_isa


def all_ops(isa: Isa) -> list[tuple[Queue, int]]:
    """Every operation of every queue."""
    return [(q, int(op)) for q, fmt in isa.formats.items() for op in fmt.ops]


def random_instr(isa: Isa, queue: Queue, op: int, rng: np.random.Generator, **fixed: int) -> Instr:
    """An instruction with any value that each of its fields may have; extremes are frequent."""
    fmt = isa.formats[queue]
    values: dict[str, int] = {}
    for field in fmt.fields:
        if field.enum is not None:
            values[field.name] = int(rng.choice([int(m) for m in field.members]))
        else:
            top = (1 << field.bits) - 1
            values[field.name] = int(rng.choice([0, top, int(rng.integers(0, top + 1))]))
    if "op" in values:
        values["op"] = op
    for name in ("n1", "n2"):
        if name in values and values[f"{name}_sel"] == Count.IMM:
            values[name] = max(1, values[name])
    for name in ("d1", "d2"):
        if name in values:
            values[name] = max(1, values[name])
    return Instr(queue, values | fixed)


def random_phase(rng: np.random.Generator, **fixed: int) -> Phase:
    """A phase with any value in each field, and the queues given."""
    values = {f.name: int(rng.integers(0, 1 << f.bits)) for f in PHASE_FIELDS} | fixed
    return Phase(**values, note=str(rng.choice(["", "a note"])))


def random_program(cfg: Config, rng: np.random.Generator, phases: int = 5) -> Program:
    """A program whose ``end`` and ``queues`` agree; times of a queue rise within a phase."""
    isa = get_isa(cfg)
    code: dict[Queue, list[Instr]] = {q: [] for q in Queue}
    table = []
    for _ in range(phases):
        queues = 0
        for q, fmt in isa.formats.items():
            count = int(rng.integers(0, 4))
            times = sorted(int(t) for t in rng.integers(0, 1 << fmt.time_bits, count))
            for i, time in enumerate(times):
                op = int(rng.choice([int(o) for o in fmt.ops]))
                code[q].append(random_instr(isa, q, op, rng, time=time, end=int(i == count - 1)))
            queues |= (count > 0) << q
        table.append(random_phase(rng, queues=queues))
    return Program(tuple(table), {q: tuple(c) for q, c in code.items()})


def words_of(cfg: Config, program: Program) -> tuple[list[list[int]], list[int]]:
    """All words of a program: of each queue, and the encoded phases."""
    isa = get_isa(cfg)
    code = [[w for i in program.code[q] for w in isa.words(i)] for q in Queue]
    return code, [encode_phase(p) for p in program.phases]
