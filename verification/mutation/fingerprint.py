"""What a source tree builds at the tiny size, as a hash: equal for two trees, none is a mutant of the other."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import re
from typing import Any

from amaranth.back import rtlil

from hdl import config, image, isa, link, tables, timing, uop
from hdl.export import SimulationPlatform, to_verilog
from verification.bench_mem import MemSlices

from . import target

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def fingerprint(designs: tuple[str, ...], exported: bool) -> str:
    """Of the RTLIL of parts of the core, and of what Python reads from the contract; ``exported``: and of the
    Verilog that ``hdl.export`` makes of a part. Raises whatever elaboration raises."""
    digest = hashlib.sha256(contract().encode())
    for name in designs:
        platform = SimulationPlatform() if name == "core" else None
        digest.update(rtlil.convert(target.design(name), name=name, platform=platform, emit_src=False).encode())
    if exported:
        digest.update(to_verilog(MemSlices(config.TINY), "mem").encode())
    return digest.hexdigest()


def contract() -> str:
    """What models, compiler and driver read from ``hdl``, for the tiny size."""
    cfg = config.TINY
    times = timing.get_timing(cfg)
    formats = isa.get_isa(cfg).formats
    found: list[Any] = [
        _properties(cfg), _properties(times), [times.vx(op) for op in isa.VxOp],
        [times.fetch_gap(f) for f in formats.values()],
        [(f.slice, f.doc, f.operands, f.outer, f.time_bits, f.count_bits, f.bits, f.words) for f in formats.values()],
        [[(x.name, x.bits, x.members) for x in f.fields] for f in formats.values()],
        [uop.uop_layout(cfg, q) for q in isa.Queue], uop.run_state_layout(cfg), isa.PHASE_FIELDS,
        [image.row_bytes(cfg, s) for s in image.Space], image.load_bits(cfg),
        [link.space_shape(cfg, s) for s in image.Space], {name: table() for name, table in tables.TABLES.items()},
        [_module(m) for m in (config, image, isa, link, tables, timing)],
    ]  # fmt: skip
    sample = isa.Instr(isa.Queue.ABC, {"time": 5, "n1": 3, "n2": 2, "w": 1000, "acc": 1})
    word = isa.get_isa(cfg).encode(sample)
    phase = isa.Phase(77, 3, isa.Count.ROWS, 5, 1, 0, 1, 1)
    found += [word, isa.get_isa(cfg).decode(isa.Queue.ABC, word), isa.get_isa(cfg).words(sample), phase.cycles({3: 9})]
    found += [isa.encode_phase(phase), isa.decode_phase(isa.encode_phase(phase))]
    return "\n".join(map(repr, found))


def _properties(thing: Any) -> list[tuple[str, Any]]:
    """Fields and properties without an argument of a dataclass, and its methods of one width."""
    names = [f.name for f in dataclasses.fields(thing)]
    names += [n for n, v in vars(type(thing)).items() if isinstance(v, property)]
    found = [(n, getattr(thing, n)) for n in names if n != "cfg"]
    for name in ("slots", "outputs", "macs_per_cycle"):
        if hasattr(thing, name):
            found.append((name, [getattr(thing, name)(w) for w in (4, 8)]))
    return found


def _module(module: Any) -> list[tuple[str, Any]]:
    """Numbers, enumerations and tables of a module."""
    found = []
    for name, value in sorted(vars(module).items()):
        if isinstance(value, (int, str, tuple, dict)) and not name.startswith("__"):
            found.append((name, _ADDRESS.sub("", repr(value))))
        elif isinstance(value, type) and issubclass(value, enum.Enum):
            found.append((name, repr([(m.name, m.value) for m in value])))
    return found
