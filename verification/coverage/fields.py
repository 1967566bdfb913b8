"""Bins of instructions: each operation of each queue with each of its fields at the ends of what the field can hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hdl.config import Config
from hdl.isa import Count, Field, Format, Instr, Program, get_isa

LATENCIES = frozenset({
    "acc", "act", "vector", "R+5", "R+7", "R+9", "MAX", "SUM", "SUMSQ", "P", "kvABC", "kvSR", "kvCR", "T",
    "expert", "INSERT", "noise",
})  # fmt: skip
"""What :attr:`verification.random_program.RandomProgram.exact` may hold, all of it."""
_LOOPS = ("n1", "d1", "n2", "d2")


def op_name(fmt: Format, op: int) -> str:
    """An operation's bin name, ``QUEUE.OP``."""
    return f"{fmt.queue.name}.{fmt.ops(op).name}"


def corners(field: Field) -> dict[int, str]:
    """The values of a field that a test should see: all members of an enumeration, else both ends.

    Of an issue time, the first cycle of a phase: the last one is a matter of how long a phase is.
    """
    if field.enum is not None:
        return {int(m): field.text(m) for m in field.members}
    return {0: "0"} if field.name == "time" else {0: "0", (1 << field.bits) - 1: "max"}


def wanted(cfg: Config) -> set[str]:
    """Everything to reach, as ``QUEUE.OP.field=value``; of counts and distances, one and more than one."""
    out = set()
    for fmt in get_isa(cfg).formats.values():
        for op in fmt.ops:
            for field in fmt.fields:
                if field.name in _LOOPS:
                    names = ["1", "many"]
                else:
                    names = list(corners(field).values()) if field.name != "op" else []
                out |= {f"{op_name(fmt, op)}.{field.name}={name}" for name in names}
    return out


def of_instruction(fmt: Format, instr: Instr) -> Iterator[str]:
    """The bins that an instruction reaches. The number of a count that a register gives is ignored, so not counted."""
    name = op_name(fmt, instr.get("op"))
    for field in fmt.fields:
        value = int(instr.get(field.name))
        if field.name in _LOOPS:
            if field.name[0] == "d" or instr.get(f"{field.name}_sel") == Count.IMM:
                yield f"{name}.{field.name}={'1' if value == 1 else 'many'}"
        elif field.name != "op":
            corner = corners(field).get(value)
            if corner is not None:
                yield f"{name}.{field.name}={corner}"


def reached(cfg: Config, programs: Iterable[Program]) -> set[str]:
    """What some of the programs hold of :func:`wanted`."""
    formats = get_isa(cfg).formats
    return {
        name
        for program in programs
        for queue, code in program.code.items()
        for instr in code
        for name in of_instruction(formats[queue], instr)
    }
