"""The instruction set's one definition: every field survives its encoding, every error names its field."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from firmware import isa_doc
from hdl.config import CONFIGS, SOFTMAX_BANKS, Config
from hdl.isa import (
    FETCH_BITS,
    PHASE_BITS,
    PHASE_FIELDS,
    Count,
    Instr,
    IsaError,
    Phase,
    Queue,
    decode_phase,
    encode_phase,
    get_isa,
)
from hdl.timing import Timing

from .util_programs import all_ops, random_instr, random_phase

each_config = pytest.mark.parametrize("cfg", CONFIGS.values(), ids=CONFIGS)


@each_config
def test_round_trip(cfg: Config, rng: np.random.Generator) -> None:
    """Instruction -> words -> instruction, for every operation of every queue."""
    isa = get_isa(cfg)
    for queue, op in all_ops(isa):
        for _ in range(20):
            instr = random_instr(isa, queue, op, rng)
            words = isa.words(instr)
            assert len(words) == isa.formats[queue].words
            assert all(0 <= w < 1 << FETCH_BITS for w in words)
            word = sum(w << FETCH_BITS * i for i, w in enumerate(words))
            assert isa.decode(queue, word) == instr


@each_config
def test_defaults(cfg: Config) -> None:
    """Fields left out take their default."""
    isa = get_isa(cfg)
    for queue, fmt in isa.formats.items():
        assert isa.decode(queue, isa.encode(Instr(queue, {}))).values == fmt.defaults


@each_config
def test_formats(cfg: Config) -> None:
    """Each queue has a format; names are unique; every operation is documented."""
    isa = get_isa(cfg)
    assert list(isa.formats) == list(Queue)
    for fmt in isa.formats.values():
        names = [f.name for f in fmt.fields]
        assert len(set(names)) == len(names)
        assert set(fmt.op_docs) == set(fmt.ops)
        assert fmt.doc and all(f.doc for f in fmt.fields)
        assert fmt.bits <= fmt.words * FETCH_BITS
        for field in fmt.fields:
            assert field.enum is None or max(field.enum) < 1 << field.bits


@each_config
def test_every_code_of_a_bank_is_one(cfg: Config) -> None:
    """A field that names a bank of MAX and SUM has no code without a bank."""
    fields = [f for fmt in get_isa(cfg).formats.values() for f in fmt.fields if f.name == "bank"]
    assert len(fields) >= 3
    assert {1 << f.bits for f in fields} == {SOFTMAX_BANKS}


@each_config
def test_out_of_range(cfg: Config) -> None:
    """A value that does not fit is an error with queue, field and range."""
    isa = get_isa(cfg)
    for queue, fmt in isa.formats.items():
        for field in fmt.fields:
            for value in (-1, 1 << field.bits):
                with pytest.raises(IsaError) as error:
                    isa.encode(Instr(queue, {field.name: value}))
                expected = f"{queue.name}: {field.name} = {value} is outside 0..{(1 << field.bits) - 1}"
                assert str(error.value) == expected


@each_config
def test_undefined_enumeration_values(cfg: Config) -> None:
    """A value between the members of an enumeration has no encoding and no meaning."""
    isa = get_isa(cfg)
    tried = 0
    for queue, fmt in isa.formats.items():
        at = 0
        for field in fmt.fields:
            if field.enum is not None:
                for value in set(range(1 << field.bits)) - set(field.members):
                    tried += 1
                    with pytest.raises(IsaError, match=rf"{queue.name}: {field.name} = {value} is none of"):
                        isa.encode(Instr(queue, {field.name: value}))
                    with pytest.raises(
                        IsaError, match=rf"{queue.name}: {field.name} = {value} is none of"
                    ):
                        isa.decode(queue, value << at)
            at += field.bits
    assert tried > 0


def test_loops_run_once_at_least() -> None:
    """Counts and distances of zero are refused, but for the count that a register replaces."""
    isa = get_isa(CONFIGS["tiny"])
    for name in ("n1", "n2", "d1", "d2"):
        with pytest.raises(IsaError, match=f"ABC: {name} = 0"):
            isa.encode(Instr(Queue.ABC, {name: 0}))
    isa.encode(Instr(Queue.ABC, {"n1": 0, "n1_sel": Count.SETS}))


def test_unknown_field() -> None:
    """A field that the queue does not have is named, with those it has."""
    with pytest.raises(IsaError, match="SR: no field 'acc'; fields: time, end"):
        get_isa(CONFIGS["tiny"]).encode(Instr(Queue.SR, {"acc": 1}))


@each_config
def test_bits_beyond(cfg: Config) -> None:
    """Bits that belong to no field are refused."""
    isa = get_isa(cfg)
    for queue, fmt in isa.formats.items():
        word = isa.encode(Instr(queue, {})) | 1 << fmt.bits
        with pytest.raises(IsaError, match=f"{queue.name}: bits set beyond"):
            isa.decode(queue, word)


def test_phases(rng: np.random.Generator) -> None:
    """Phase -> word -> phase; out of range names the field."""
    for _ in range(50):
        phase = dataclasses.replace(random_phase(rng), note="")
        word = encode_phase(phase)
        assert 0 <= word < 1 << PHASE_BITS
        assert decode_phase(word) == phase
    for field in PHASE_FIELDS:
        with pytest.raises(IsaError, match=f"phase: {field.name} = {1 << field.bits} is outside"):
            encode_phase(Phase(**{"dur": 1, field.name: 1 << field.bits}))  # type: ignore[arg-type]


def test_phase_length() -> None:
    """A constant, and a multiple of the count named."""
    counts = {int(Count.SETS): 3, int(Count.WORDS): 5, int(Count.ROWS): 7}
    assert Phase(10).cycles(counts) == 10
    assert Phase(10, 4, Count.IMM).cycles(counts) == 10
    assert Phase(10, 4, Count.WORDS).cycles(counts) == 30


def test_document_is_current() -> None:
    """docs/isa.md is what the tables say."""
    assert isa_doc.DOC.read_text(encoding="utf-8") == isa_doc.document(), "run: python -m firmware.isa_doc"


def test_document_is_complete() -> None:
    """Every operation has a latency, every latency a place and words."""
    isa = get_isa(CONFIGS["tiny"])
    assert set(isa_doc.LATENCIES) == set(all_ops(isa))
    docs = isa_doc.timing_docs()
    used = {n for names in isa_doc.LATENCIES.values() for n in names} | set(isa_doc.GENERAL)
    assert used == set(docs)
    assert all(docs.values())
    numbers = {f.name for f in dataclasses.fields(Timing)} - {"cfg"}
    assert numbers <= used


def test_markdown() -> None:
    """The docstrings' markup becomes markdown."""
    text = "Words::\n\n    a = ``b``\n\n    c\n\nSee :class:`hdl.isa.Count` and ``x``."
    assert isa_doc.markdown(text) == "Words:\n\n```\na = ``b``\n\nc\n```\n\nSee `hdl.isa.Count` and `x`."
