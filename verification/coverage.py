"""What random programs reached: operations, values of fields at their ends, latencies without a cycle to spare."""

from __future__ import annotations

from collections.abc import Iterable

from hdl.config import Config
from hdl.isa import Field, Program, get_isa

LATENCIES = frozenset({
    "acc", "act", "vector", "R+5", "R+7", "R+9", "MAX", "SUM", "SUMSQ", "P", "kvABC", "kvSR", "kvCR", "T",
    "expert", "INSERT", "noise",
})  # fmt: skip
"""What :attr:`verification.random_program.RandomProgram.exact` may hold, all of it."""
_LOOPS = ("time", "n1", "d1", "n2", "d2")
_DERIVED = ("end",)


def values(field: Field) -> dict[int, str]:
    """The values of a field that a test should see: all members of an enumeration, else both ends."""
    if field.enum is not None:
        return {int(m): field.text(m) for m in field.members}
    return {0: "0", (1 << field.bits) - 1: "max"}


def wanted(cfg: Config) -> set[str]:
    """Everything to reach, as ``QUEUE.field=value``; of distances and times, one and more than one."""
    out = set()
    for queue, fmt in get_isa(cfg).formats.items():
        for field in fmt.fields:
            if field.name in _LOOPS and field.name != "time":
                out |= {f"{queue.name}.{field.name}=1", f"{queue.name}.{field.name}>1"}
            elif field.name not in (*_LOOPS, *_DERIVED):
                out |= {f"{queue.name}.{field.name}={name}" for name in values(field).values()}
    return out


def reached(cfg: Config, programs: Iterable[Program]) -> set[str]:
    """What some of the programs hold of :func:`wanted`."""
    isa, out = get_isa(cfg), set()
    for program in programs:
        for queue, code in program.code.items():
            for field in isa.formats[queue].fields:
                names = values(field)
                for instr in code:
                    value = int(instr.get(field.name))
                    if field.name in _LOOPS:
                        out.add(f"{queue.name}.{field.name}{'=1' if value == 1 else '>1'}")
                    elif value in names:
                        out.add(f"{queue.name}.{field.name}={names[value]}")
    return out & wanted(cfg)
