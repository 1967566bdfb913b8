"""Writes ``docs/isa.md`` from ``hdl/isa.py`` and ``hdl/timing.py``: ``python -m firmware.isa_doc``.

Nothing about an instruction is stated here: names, meanings, widths and latencies come from the tables and
docstrings of those two modules, so that the document cannot say anything else than the hardware does. A test
fails when the file on disk is not what this module writes.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hdl import isa as isa_module
from hdl import timing as timing_module
from hdl.config import CONFIGS, Config
from hdl.isa import (
    PHASE_FIELDS,
    Base,
    Count,
    Field,
    Format,
    Init,
    Phase,
    Queue,
    SfuOp,
    SxmMode,
    TopOp,
    VxOp,
    get_isa,
)
from hdl.timing import Timing, get_timing

from . import asm

DOC = Path(__file__).resolve().parent.parent / "docs" / "isa.md"

LATENCIES: dict[tuple[Queue, int], tuple[str, ...]] = {
    (Queue.ABC, 0): ("dot",),
    (Queue.ABC, 1): ("gather", "gather_other"),
    (Queue.ACC, 0): ("acc", "max"),
    (Queue.SR, 0): ("mem_read",),
    (Queue.XR, 0): ("mem_read",),
    (Queue.XW, 0): ("xw",),
    (Queue.CR, 0): ("mem_read",),
    **{(Queue.VX, op): (f"vx_{op.name.lower()}",) for op in VxOp},
    (Queue.VX, VxOp.EXP): ("vx_exp", "vx_sum"),
    (Queue.SXM, SxmMode.ACT): ("sxm_act", "sxm_sumsq"),
    (Queue.SXM, SxmMode.KEY): ("sxm_kv",),
    (Queue.SXM, SxmMode.VALUE): ("sxm_kv",),
    **{(Queue.SFU, op): (f"sfu_{op.name.lower()}",) for op in SfuOp},
    (Queue.TOP, TopOp.INSERT): ("top_insert", "top_insert_noise", "top_noise"),
    (Queue.TOP, TopOp.EMIT): ("top_step", "top_row", "top_emit", "top_sample", "top_noise"),
}
"""Names in :class:`hdl.timing.Timing` of what follows from an operation, and when."""
GENERAL = (
    "issue", "phase_min", "expert", "token", "act_write", "kv_write", "value_update", "value_pace", "memory_error",
    "table_write", "rope_pitch",
)  # fmt: skip
"""Names in :class:`hdl.timing.Timing` that belong to no operation."""


def document() -> str:
    """The whole document."""
    queues = [_queue(q) for q in Queue]
    sections = [_head(), _queues(), *queues, _bases(), _counts(), _phases(), _latencies(), _text()]
    return "\n\n".join(section.strip() for section in sections) + "\n"


# -------------------------------------------------------------------------------------------------- sections


def _head() -> str:
    rest = (inspect.getdoc(isa_module) or "").split("\n", 1)[1].strip()
    return (
        "# Instruction set\n\n"
        "This file is generated from `hdl/isa.py` and `hdl/timing.py`; change them, then run\n"
        "`python -m firmware.isa_doc`.\n\n" + markdown(rest)
    )


def _queues() -> str:
    columns = ["queue", "slice", "operations", "loops", *(f"{name}: bits, words" for name in CONFIGS)]
    rows = []
    for q in Queue:
        fmt = _format(q)
        sizes = [f"{f.bits}, {f.words}" for f in map(_of(q), CONFIGS.values())]
        ops = ", ".join(op.name for op in fmt.ops)
        rows.append([f"[{q.name}](#{q.name.lower()})", fmt.slice, ops, str(1 + fmt.outer), *sizes])
    return "\n\n".join([
        "## Queues",
        "One instruction queue for each port of a slice; an instruction is a number of 36-bit words of its "
        "queue's instruction memory, the first one fetched holding the least significant bits.",
        _table(columns, rows),
    ])  # fmt: skip


def _queue(q: Queue) -> str:
    fmt = _format(q)
    ops = []
    for op in fmt.ops:
        times = [f"`{name}` = {_value(name)}" for name in LATENCIES[q, op]]
        ops.append([f"`{q.name}.{op.name}`", str(int(op)), fmt.op_docs[op] or fmt.doc, ", ".join(times)])
    fields = []
    places = [_places(f) for f in map(_of(q), CONFIGS.values())]
    for field in fmt.fields:
        default = fmt.defaults[field.name]
        shown = field.enum(default).name if field.enum else str(default)
        fields.append([f"`{field.name}`", *(p[field.name] for p in places), shown, _meaning(field)])
    return "\n\n".join([
        f"## {q.name}",
        f"Slice {fmt.slice}. {fmt.doc}",
        _table(["operation", "op", "meaning", "latency, cycles"], ops),
        _table(["field", *CONFIGS, "default", "meaning"], fields),
    ])  # fmt: skip


def _bases() -> str:
    values = [[f"`{name}`", str(int(b))] for name, b in Base.__members__.items()]
    doc = markdown(inspect.getdoc(Base) or "")
    return f"## Base registers\n\n{doc}\n\n{_table(['register', 'value of a _sel field'], values)}"


def _counts() -> str:
    return "\n\n".join([
        "## Counts and initialisation",
        "Loop counts come from the instruction or from one of three registers that all queues share:",
        _source(Count),
        "An accumulator is started from zero by some micro-ops of a `DOT`:",
        _source(Init),
    ])  # fmt: skip


def _phases() -> str:
    at, rows = 0, []
    for field in PHASE_FIELDS:
        rows.append([f"`{field.name}`", _bits(at, field.bits), _meaning(field)])
        at += field.bits
    doc = markdown(inspect.getdoc(Phase) or "")
    return f"## Phases\n\n{doc}\n\n{_table(['field', 'bits', 'meaning'], rows)}"


def _latencies() -> str:
    docs = timing_docs()
    used = {name for names in LATENCIES.values() for name in names} | set(GENERAL)
    rows = [[f"`{name}`", _value(name), docs[name]] for name in docs if name in used]
    intro = (inspect.getdoc(timing_module) or "").split("\n\n", 1)[1]
    gap = inspect.getdoc(Timing.fetch_gap) or ""
    gaps = []
    for q in Queue:
        each = [get_timing(c).fetch_gap(get_isa(c).formats[q]) for c in CONFIGS.values()]
        gaps.append([q.name, *map(str, each)])
    return "\n\n".join([
        "## Latencies",
        markdown(intro),
        f"Where the configurations differ: {' / '.join(CONFIGS)}.",
        _table(["name", "cycles", "meaning"], rows),
        markdown(gap),
        _table(["queue", *CONFIGS], gaps),
    ])  # fmt: skip


def _text() -> str:
    rest = (inspect.getdoc(asm) or "").split("\n", 1)[1].strip()
    return f"## Text form\n\n{markdown(rest)}\n\n`lpu disasm` prints it and `lpu asm` reads it."


# ------------------------------------------------------------------------------------------------ the pieces


def _of(q: Queue) -> Callable[[Config], Format]:
    return lambda cfg: get_isa(cfg).formats[q]


def _format(q: Queue) -> Format:
    return _of(q)(next(iter(CONFIGS.values())))


def _bits(at: int, bits: int) -> str:
    return f"{at + bits - 1}:{at}" if bits > 1 else str(at)


def _places(fmt: Format) -> dict[str, str]:
    """Bit range of each field."""
    out, at = {}, 0
    for field in fmt.fields:
        out[field.name] = _bits(at, field.bits)
        at += field.bits
    return out


def _meaning(field: Field) -> str:
    if field.enum is None:
        return field.doc
    if field.enum is Base:
        names = ", ".join(map(field.text, field.members))
        return f"{field.doc}: {names}; see [Base registers](#base-registers)"
    if field.name == "op":
        return field.doc
    return f"{field.doc}: " + ", ".join(f"{m.name} {int(m)}" for m in field.members)


def _value(name: str) -> str:
    """A latency, once if it is the same everywhere."""
    each = [str(getattr(get_timing(cfg), name)) for cfg in CONFIGS.values()]
    return each[0] if len(set(each)) == 1 else " / ".join(each)


def timing_docs() -> dict[str, str]:
    """What :class:`hdl.timing.Timing` says of each of its public numbers, in its order.

    A name without words of its own shares those of its family: ``sfu_recip`` those of ``sfu_rsqrt``, the
    ``vx_...`` those of the method ``vx``.
    """
    body = ast.parse(textwrap.dedent(inspect.getsource(Timing))).body[0]
    assert isinstance(body, ast.ClassDef)
    own: dict[str, str] = {}
    methods: dict[str, str] = {}
    for node, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            own[node.target.id] = str(after.value.value) if told else ""  # type: ignore[union-attr]
        elif isinstance(node, ast.FunctionDef):
            (own if node.decorator_list else methods)[node.name] = ast.get_docstring(node) or ""
    del own["cfg"]
    out = {}
    for name, doc in own.items():
        family = name.split("_")[0]
        shared = [d for n, d in own.items() if d and n.startswith(family + "_")]
        if not name.startswith("_"):
            out[name] = " ".join((doc or methods.get(family) or next(iter(shared), "")).split())
    return out


def _source(kind: type) -> str:
    """A short class as its source: the comments behind its members are the documentation."""
    return f"```python\n{inspect.getsource(kind).strip()}\n```"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = []
    for row in (columns, ["---"] * len(columns), *rows):
        cells = [" ".join(cell.replace("|", "\\|").split()) for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def markdown(text: str) -> str:
    """The little reStructuredText that the docstrings use: literals, roles, literal blocks, simple tables."""
    out: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        literal = out and out[-1].endswith("::") and block.startswith(" ")
        if literal:
            out[-1] = out[-1][:-1]
            out.append(f"```\n{textwrap.dedent(block)}\n```")
        elif re.match(r"=+( +=+)+$", block.split("\n")[0]):
            out.append(f"```\n{block}\n```")
        elif block.startswith("    ") and out and out[-1].endswith("```"):
            # A blank line within a literal block.
            out[-1] = out[-1][:-4] + f"\n\n{textwrap.dedent(block)}\n```"
        else:
            block = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", block)
            out.append(re.sub(r"``([^`]+)``", r"`\1`", block))
    return "\n\n".join(out)


def main() -> None:
    """Write the document."""
    DOC.write_text(document(), encoding="utf-8")
    print(f"wrote {DOC.relative_to(Path.cwd()) if DOC.is_relative_to(Path.cwd()) else DOC}", file=sys.stderr)


if __name__ == "__main__":
    main()
