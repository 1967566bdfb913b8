"""Assembler and disassembler: text and words say the same, and every error names its line and field."""

from __future__ import annotations

import dataclasses
import textwrap

import numpy as np
import pytest

from firmware import asm
from firmware.asm import AsmError, assemble, config_of, disassemble, format_instr, parse_instr
from hdl.config import CONFIGS, TINY, Config
from hdl.isa import Instr, IsaError, Phase, Program, Queue, get_isa

from .util_programs import all_ops, random_instr, random_phase, random_program, words_of

each_config = pytest.mark.parametrize("cfg", CONFIGS.values(), ids=CONFIGS)


@each_config
def test_every_instruction(cfg: Config, rng: np.random.Generator) -> None:
    """Words -> text -> words, for random values of every operation's fields."""
    isa = get_isa(cfg)
    for queue, op in all_ops(isa):
        for _ in range(20):
            instr = random_instr(isa, queue, op, rng)
            text = format_instr(isa, instr)
            again = parse_instr(isa, text)
            assert isa.words(again) == isa.words(instr), text
            assert format_instr(isa, isa.decode(queue, isa.encode(again))) == text


@each_config
def test_every_phase(cfg: Config, rng: np.random.Generator) -> None:
    """Phases, too; ``queues`` follows from the instructions."""
    for _ in range(50):
        phase = random_phase(rng, queues=0)
        assert asm.parse_phase(f"{asm.format_phase(phase)} ; {phase.note}") == phase


@each_config
def test_programs(cfg: Config, rng: np.random.Generator) -> None:
    """Program -> text -> program, and the text again."""
    for _ in range(5):
        program = random_program(cfg, rng)
        text = disassemble(program, cfg)
        again = assemble(text, cfg)
        assert words_of(cfg, again) == words_of(cfg, program)
        assert [p.note for p in again.phases] == [p.note for p in program.phases]
        assert disassemble(again, cfg) == text


def test_reads_well() -> None:
    """Names, order of time, only what is not default, notes."""
    program = Program(
        (Phase(20, 4, 1, 0b11, loop_begin=1, note="scores"),),
        {
            Queue.ABC: (
                Instr(
                    Queue.ABC, {"time": 3, "width": 1, "n1": 8, "w_sel": 1, "end": 1, "init": 1}, "first; one"
                ),
            ),
            Queue.ACC: (
                Instr(Queue.ACC, {"time": 2}),
                Instr(Queue.ACC, {"time": 9, "n2_sel": 1, "end": 1}),
            ),
        },
    )
    text = disassemble(program, TINY)
    lines = [" ".join(line.split()) for line in text.splitlines() if line and not line.startswith(";")]
    assert lines == [
        ".config tiny",
        "PHASE dur=20 slope=4 count=SETS loop_begin ; scores",
        "@2 ACC.RUN",
        "@3 ABC.DOT n1=8 width=INT8 init=INNER w_sel=LAYER ; first; one",
        "@9 ACC.RUN n2_sel=SETS",
    ]
    assert "20 + 4 * SETS cycles" in text
    assert assemble(text, TINY).code[Queue.ABC][0].note == "first; one"


def test_alias_of_a_base() -> None:
    """The coefficient memory's base has its own name, and both names are read."""
    isa = get_isa(TINY)
    rope = parse_instr(isa, "CR.RUN c_sel=ROPE")
    assert format_instr(isa, rope) == "@0 CR.RUN c_sel=ROPE"
    assert format_instr(isa, parse_instr(isa, "ABC.GATHER w_sel=TOKEN")) == "@0 ABC.GATHER w_sel=TOKEN"
    assert parse_instr(isa, "CR.RUN c_sel=TOKEN") == rope


def test_the_example_in_the_documentation() -> None:
    """What the docstring, and with it docs/isa.md, shows can be assembled."""
    block = (asm.__doc__ or "").split("::\n\n", 1)[1].split("\n\n", 1)[0]
    program = assemble(textwrap.dedent(block), TINY)
    assert len(program.phases) == 2
    assert program.phases[0].note == "a product"


def test_numbers_and_order() -> None:
    """Hexadecimal, ``time=``, numbers for names, comments and empty lines."""
    text = "; nothing\n\nPHASE dur=0x10 final=1\n  SR.RUN s=0x20 time=4 ; note\n  ABC.DOT @1 width=1\n"
    program = assemble(text, TINY)
    assert program.phases[0] == Phase(16, final=1, queues=1 << Queue.SR | 1 << Queue.ABC)
    assert program.code[Queue.SR][0].values == {"s": 32, "time": 4, "end": 1}
    assert program.code[Queue.ABC][0].values == {"op": 0, "width": 1, "time": 1, "end": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("FOO.RUN", "queue 'FOO' is none of ABC, ACC"),
        ("VX.FLY", "VX: operation 'FLY' is none of PASS, ADD"),
        ("ABC", "ABC: operation '' is none of DOT, GATHER"),
        ("SR.RUN s=1024", "SR: s = 1024 is outside 0..1023"),
        ("SR.RUN s=-1", "SR: s = -1 is outside 0..1023"),
        ("SR.RUN s=many", "SR: s = 'many' is not a number"),
        ("SR.RUN s_sel=HOME", "SR: s_sel = 'HOME' is not one of ZERO, LAYER"),
        ("XW.RUN source=W", "XW: source = 'W' is not one of Y, X, Z, T"),
        ("SR.RUN w=1", "SR: no field 'w'; fields: time, end, n1"),
        ("SR.RUN op=0", "SR: no field 'op'"),
        ("SR.RUN s=1 s=2", "SR: s is given twice"),
        ("SR.RUN @1 time=2", "SR: time is given twice"),
        ("SR.RUN n1=0", "SR: n1 = 0: a loop runs at least once"),
        ("SR.RUN d1=0", "SR: d1 = 0: steps are at least one cycle apart"),
        ("ABC.DOT init=3", "ABC: init = 3 is none of NEVER, INNER, OUTER"),
        ("SR.RUN XR.RUN", "one QUEUE.OPERATION is needed, found SR.RUN XR.RUN"),
        ("s=1", "one QUEUE.OPERATION is needed, found none"),
        ("SR.RUN end=1", "SR: end is set by the assembler"),
        ("PHASE dur=1048576", "PHASE: dur = 1048576 is outside 0..1048575"),
        ("PHASE slope=1", "PHASE: dur is missing"),
        ("PHASE dur=1 queues=3", "PHASE: no field 'queues'; fields: dur, slope"),
        ("PHASE dur=1 count", "PHASE: count needs a value"),
        ("PHASE dur=1 final final", "PHASE: final is given twice"),
        ("PHASE dur=1 count=KEYS", "PHASE: count = 'KEYS' is not one of IMM, SETS"),
        (".config large", "the program is for config 'large', not for config 'tiny'"),
        (".config", ".config takes one name"),
        (".org 5", "no directive '.org'; there is .config"),
    ],
)
def test_errors(line: str, message: str) -> None:
    """Each names file and line, the field and what it may be."""
    with pytest.raises(AsmError) as error:
        assemble(f"PHASE dur=9\n  SR.RUN @1\n{line}\n", TINY, "p.s")
    assert str(error.value).startswith(f"p.s:3: {message}")
    assert "\n" not in str(error.value)


def test_all_errors_at_once() -> None:
    """A text is read to its end; a long list is cut."""
    with pytest.raises(AsmError) as error:
        assemble("SR.RUN\nPHASE dur=1\nSR.RUN s=9999\n" + "X\n" * 30, TINY, "p.s")
    lines = str(error.value).splitlines()
    assert lines[0] == "p.s:1: an instruction before the first PHASE"
    assert lines[1].startswith("p.s:3: SR: s = 9999")
    assert lines[-1] == "... and 12 more"


def test_time_must_rise() -> None:
    """A queue issues in order."""
    with pytest.raises(AsmError, match=r"p:4: SR: time = 4 is before .* time = 5 in line 2"):
        assemble("PHASE dur=9\nSR.RUN @5\nXR.RUN @1\nSR.RUN @4\n", TINY, "p")
    assemble("PHASE dur=9\nSR.RUN @5\nPHASE dur=9\nSR.RUN @4\n", TINY)


def test_capacity() -> None:
    """More than the instruction memories hold."""
    with pytest.raises(AsmError, match="queue SR needs 600 words, config tiny has 512"):
        assemble("PHASE dur=9\n" + "SR.RUN\n" * 200, TINY)
    with pytest.raises(AsmError, match="33 phases, config tiny has 32"):
        assemble("PHASE dur=9\n" * 33, TINY)
    with pytest.raises(AsmError, match="no PHASE"):
        assemble("; empty\n", TINY)


def test_inconsistent_programs(rng: np.random.Generator) -> None:
    """Words whose ``queues`` and ``end`` disagree have no text."""
    program = random_program(TINY, rng)
    more = dict(program.code) | {Queue.SR: (*program.code[Queue.SR], Instr(Queue.SR, {}))}
    with pytest.raises(IsaError, match="queue SR: the last 1 instructions belong to no phase"):
        disassemble(dataclasses.replace(program, code=more), TINY)
    none = {q: () for q in Queue}
    with pytest.raises(IsaError, match="phase 0: queue ABC has no instruction with end = 1 left"):
        disassemble(Program((Phase(1, queues=1),), none), TINY)


def test_config_of() -> None:
    """The configuration a text names."""
    assert config_of("; x\n.config large ; big\nPHASE dur=1") is CONFIGS["large"]
    assert config_of("PHASE dur=1") is None
