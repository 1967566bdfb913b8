"""Text form of a program: assembler and disassembler, both derived from ``hdl/isa.py``.

A program in text::

    .config tiny
    PHASE dur=24 loop_begin                                         ; a product
      @6    ABC.DOT   n1=8 init=INNER w=40 w_sel=LAYER w_s1=1 a_s1=1  ; weights meet activations
      @18   SR.RUN    s_sel=LAYER
      @20   ACC.RUN   shift=4
    PHASE dur=10 slope=4 count=SETS loop_end final
      @8    XW.RUN    n1_sel=ROWS x=16 x_s1=1

``PHASE`` opens a phase; its flags are written by name. The instructions that follow issue in it, each at
cycle ``@time`` of the phase (``time=5`` says the same). An instruction is ``QUEUE.OPERATION`` and those
fields that differ from their default; queues with a single operation call it ``RUN``. Enumerated fields take
names; numbers are decimal or ``0x`` hexadecimal. What follows ``;`` is a note, for people, and kept.
``.config`` names the configuration, whose memories decide how wide the fields are.

Not written, because they follow from the rest: an instruction's ``end`` (last of its queue in the phase) and
a phase's ``queues``. The order of lines counts within a queue only; a disassembly lists each phase in order
of time.
"""

from __future__ import annotations

import dataclasses
import enum
import heapq
from collections.abc import Iterable, Iterator

from hdl.config import Config, get_config
from hdl.isa import (
    PHASE_FIELDS,
    Count,
    Field,
    Instr,
    Isa,
    IsaError,
    Phase,
    Program,
    Queue,
    encode_phase,
    get_isa,
)

from .errors import LpuError

_DERIVED = {"end", "queues"}
_MAX_ERRORS = 20


class AsmError(LpuError):
    """A text that is not a program; each line of the message names file, line, field and range."""


# ---------------------------------------------------------------------------------------------- instructions


def format_instr(isa: Isa, instr: Instr, hidden: Iterable[str] = ()) -> str:
    """``@time QUEUE.OP field=value ...``: fields that differ from their default, but for ``hidden``."""
    fmt = isa.formats[instr.queue]
    op = fmt.ops(instr.get("op")).name if "op" in fmt.by_name else fmt.ops(0).name
    words = [f"@{instr.time}", f"{instr.queue.name}.{op}"]
    for field in fmt.fields:
        value = int(instr.get(field.name))
        if field.name in ("op", "time", *hidden) or value == fmt.defaults[field.name]:
            continue
        words.append(f"{field.name}={field.text(value)}")
    return " ".join(words)


def parse_instr(isa: Isa, text: str) -> Instr:
    """The inverse of :func:`format_instr`, with a note behind ``;``. Raises IsaError naming the field."""
    code, _, note = text.partition(";")
    words = code.split()
    named = [w for w in words if "=" not in w and not w.startswith("@")]
    if len(named) != 1:
        raise IsaError(f"one QUEUE.OPERATION is needed, found {' '.join(named) or 'none'}")
    queue_name, _, op_name = named[0].partition(".")
    queue = Queue(_member(Queue, queue_name, "queue"))
    fmt = isa.formats[queue]
    op = _member(fmt.ops, op_name, f"{queue.name}: operation")
    values: dict[str, int] = {"op": op} if "op" in fmt.by_name else {}
    for word in words:
        if word is not named[0]:
            name, _, value = ("time", "=", word[1:]) if word.startswith("@") else word.partition("=")
            if name == "op" or name not in fmt.by_name:
                known = ", ".join(f for f in fmt.by_name if f != "op")
                raise IsaError(f"{queue.name}: no field {name!r}; fields: {known}")
            if name in values:
                raise IsaError(f"{queue.name}: {name} is given twice")
            values[name] = _number(fmt.by_name[name], value, queue.name)
    instr = Instr(queue, values, note.strip())
    isa.encode(instr)
    return instr


def _member(members: type[enum.IntEnum], name: str, what: str) -> int:
    """Value of an enumeration's member, aliases included."""
    known = members.__members__
    if name not in known:
        raise IsaError(f"{what} {name!r} is none of {', '.join(known)}")
    return int(known[name])


def _number(field: Field, text: str, where: str) -> int:
    if field.enum is not None and text in field.enum.__members__:
        return int(field.enum[text])
    try:
        value = int(text, 0)
    except ValueError:
        kind = "a number" if field.enum is None else f"one of {', '.join(field.enum.__members__)}"
        raise IsaError(f"{where}: {field.name} = {text!r} is not {kind}") from None
    if not 0 <= value < 1 << field.bits:
        raise IsaError(f"{where}: {field.name} = {value} is outside 0..{(1 << field.bits) - 1}")
    return value


# ---------------------------------------------------------------------------------------------------- phases


def format_phase(phase: Phase) -> str:
    """``PHASE dur=... field=value ... flag ...``: what is not zero, but for ``queues``."""
    words = ["PHASE"]
    for field in PHASE_FIELDS:
        value = int(getattr(phase, field.name))
        if (value or field.name == "dur") and field.name not in _DERIVED:
            flag = field.name if _is_flag(field) else f"{field.name}={field.text(value)}"
            words.append(flag)
    return " ".join(words)


def _is_flag(field: Field) -> bool:
    return field.bits == 1 and field.enum is None


def parse_phase(text: str) -> Phase:
    """The inverse of :func:`format_phase`. Raises IsaError naming the field."""
    code, _, note = text.partition(";")
    fields = {f.name: f for f in PHASE_FIELDS if f.name not in _DERIVED}
    values: dict[str, int] = {}
    for word in code.split()[1:]:
        name, equals, value = word.partition("=")
        if name not in fields:
            raise IsaError(f"PHASE: no field {name!r}; fields: {', '.join(fields)}")
        if name in values:
            raise IsaError(f"PHASE: {name} is given twice")
        if not equals and not _is_flag(fields[name]):
            raise IsaError(f"PHASE: {name} needs a value: {name}=...")
        values[name] = _number(fields[name], value, "PHASE") if equals else 1
    if "dur" not in values:
        raise IsaError("PHASE: dur is missing")
    phase = Phase(**values, note=note.strip())
    encode_phase(phase)
    return phase


# -------------------------------------------------------------------------------------------- whole programs


def split_phases(program: Program) -> list[dict[Queue, list[Instr]]]:
    """Instructions of each phase by queue. Raises IsaError where ``queues`` and ``end`` do not agree."""
    rest = {q: iter(program.code.get(q, ())) for q in Queue}
    out = []
    for index, phase in enumerate(program.phases):
        here: dict[Queue, list[Instr]] = {}
        for q in Queue:
            if not phase.queues >> q & 1:
                continue
            here[q] = list(_until_end(rest[q]))
            if not here[q] or not here[q][-1].get("end"):
                raise IsaError(f"phase {index}: queue {q.name} has no instruction with end = 1 left")
        out.append(here)
    for q in Queue:
        left = list(rest[q])
        if left:
            raise IsaError(f"queue {q.name}: the last {len(left)} instructions belong to no phase")
    return out


def _until_end(instrs: Iterator[Instr]) -> Iterator[Instr]:
    for instr in instrs:
        yield instr
        if instr.get("end"):
            return


def disassemble(program: Program, cfg: Config) -> str:
    """A program as text, phase by phase, instructions in order of time. Errors as split_phases's."""
    isa = get_isa(cfg)
    total = sum(len(code) for code in program.code.values())
    lines = [
        f"; {len(program.phases)} phases, {total} instructions; @cycle of the phase, then QUEUE.OPERATION",
        "; and the fields that differ from their default. docs/isa.md explains them.",
        f".config {cfg.name}",
    ]
    for index, (phase, queues) in enumerate(zip(program.phases, split_phases(program), strict=True)):
        lines += ["", f"; phase {index}: {_length(phase)}", _noted(format_phase(phase), phase.note)]
        # A merge keeps each queue's own order, whatever the times.
        for instr in heapq.merge(*queues.values(), key=lambda i: (i.time, i.queue)):
            time, op, *fields = format_instr(isa, instr, _DERIVED).split()
            lines.append(_noted(" ".join([f"  {time:<5} {op:<11}", *fields]).rstrip(), instr.note))
    return "\n".join(lines) + "\n"


def _length(phase: Phase) -> str:
    variable = f" + {phase.slope} * {Count(phase.count).name}" if phase.slope and phase.count else ""
    return f"{phase.dur}{variable} cycles"


def _noted(text: str, note: str) -> str:
    note = " ".join(note.split())
    return f"{text:<70}  ; {note}" if note else text


def config_of(text: str) -> Config | None:
    """The configuration that a program names with ``.config``; None without. Raises ConfigError."""
    for line in text.splitlines():
        words = line.partition(";")[0].split()
        if len(words) == 2 and words[0] == ".config":
            return get_config(words[1])
    return None


def assemble(text: str, cfg: Config, file: str = "program") -> Program:
    """Text -> program. Raises AsmError listing what is wrong, each with ``file:line``."""
    isa = get_isa(cfg)
    phases: list[Phase] = []
    code: list[dict[Queue, list[tuple[int, Instr]]]] = []
    errors: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition(";")[0].split()
        if not words:
            continue
        try:
            if words[0] == ".config":
                _check_config(words, cfg)
            elif words[0] == "PHASE":
                # Opened before it is read, so that an error in it is not one in all that follow.
                phases.append(Phase(1))
                code.append({})
                phases[-1] = parse_phase(line)
            elif words[0].startswith("."):
                raise IsaError(f"no directive {words[0]!r}; there is .config")
            else:
                instr = parse_instr(isa, line)
                if not code:
                    raise IsaError("an instruction before the first PHASE")
                if "end" in instr.values:
                    raise IsaError(f"{instr.queue.name}: end is set by the assembler: leave it out")
                before = code[-1].setdefault(instr.queue, [])
                if before and before[-1][1].time > instr.time:
                    raise IsaError(
                        f"{instr.queue.name}: time = {instr.time} is before the queue's last instruction of "
                        f"this phase, time = {before[-1][1].time} in line {before[-1][0]}"
                    )
                before.append((number, instr))
        except IsaError as error:
            errors.append(f"{file}:{number}: {error}")
    if not phases and not errors:
        errors.append(f"{file}: there is no PHASE in it")
    if errors:
        more = [f"... and {len(errors) - _MAX_ERRORS} more"] if len(errors) > _MAX_ERRORS else []
        raise AsmError("\n".join([*errors[:_MAX_ERRORS], *more]))
    return _link(isa, phases, code, file)


def _check_config(words: list[str], cfg: Config) -> None:
    if len(words) != 2:
        raise IsaError(".config takes one name")
    if words[1] != cfg.name:
        raise IsaError(f"the program is for config {words[1]!r}, not for config {cfg.name!r}")


def _link(
    isa: Isa, phases: list[Phase], code: list[dict[Queue, list[tuple[int, Instr]]]], file: str
) -> Program:
    """Fill in what follows from the rest, and check that it fits."""
    cfg = isa.cfg
    out: dict[Queue, list[Instr]] = {q: [] for q in Queue}
    for index, queues in enumerate(code):
        mask = 0
        for q, instrs in queues.items():
            mask |= 1 << q
            for place, (_, instr) in enumerate(instrs, 1):
                values = dict(instr.values) | {"end": int(place == len(instrs))}
                out[q].append(dataclasses.replace(instr, values=values))
        phases[index] = dataclasses.replace(phases[index], queues=mask)
    program = Program(tuple(phases), {q: tuple(v) for q, v in out.items()})
    for q in Queue:
        words, available = program.words(cfg, q)
        if words > available:
            raise AsmError(f"{file}: queue {q.name} needs {words} words, config {cfg.name} has {available}")
    if len(phases) > cfg.phase_depth:
        raise AsmError(f"{file}: {len(phases)} phases, config {cfg.name} has {cfg.phase_depth}")
    return program
