"""Programs that no run could keep are refused before they are written or loaded, with the place."""

from __future__ import annotations

import numpy as np
import pytest

from firmware.asm import assemble
from firmware.check import check_program, problems
from firmware.errors import LpuError
from firmware.lower import lower
from hdl.config import CONFIGS, TINY, Config
from verification.random_model import make_model, quantised, shape
from verification.random_program import random_program
from verification.rules import RULES, program


@pytest.mark.parametrize("cfg", CONFIGS.values(), ids=CONFIGS)
def test_legal_programs_pass(cfg: Config, rng: np.random.Generator) -> None:
    for _ in range(3):
        whole, _ = random_program(cfg, rng)
        assert not list(problems(whole.program, cfg))
    for name in RULES:
        assert not list(problems(program(cfg, name, 0)[0].program, cfg)), name


def test_compiled_programs_pass() -> None:
    model = quantised(make_model(shape(context=9), np.random.default_rng(1)), TINY, 4)
    check_program(lower(model, TINY).program, TINY)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PHASE dur=6 final", "phase 0: 6 cycles, the shortest phase has 7"),
        ("PHASE dur=1048575 slope=1 count=SETS final", r"phase 0: 1,048,\d+ cycles, a phase has fewer than 1,048,576"),
        ("PHASE dur=20 final\nSR.RUN @5", "phase 0: SR @5: can issue from cycle 6 on"),
        ("PHASE dur=20\nPHASE dur=20 loop_begin loop_end final\nSR.RUN @5", "phase 1: SR @5: can issue from cycle 6"),
        ("PHASE dur=40 final\nSR.RUN @6\nSR.RUN @11", "phase 0: SR @11: can issue from cycle 12 on"),
        ("PHASE dur=90 final\nSR.RUN @6 n1=3 d1=4 n2=2 d2=20\nSR.RUN @34", "phase 0: SR @34: can issue from cycle 35"),
        ("PHASE dur=20 final\nSR.RUN @20", "phase 0: SR @20: the phase has 20 cycles"),
        ("PHASE dur=20 slope=1 count=ROWS final\nSR.RUN @36", "phase 0: SR @36: the phase has 36 cycles"),
        ("PHASE dur=20", "no phase is final: a token would not end"),
        ("PHASE dur=20 loop_begin\nPHASE dur=9 final", r"begins in phases \[0\] and ends in phases \[\]"),
        ("PHASE dur=9 loop_end\nPHASE dur=9 loop_begin final", r"begins in phases \[1\] and ends in phases \[0\]"),
        ("PHASE dur=9 loop_begin final\nPHASE dur=9 loop_end final", "phase 0: final within or before the layer loop"),
        ("PHASE dur=99 final\nSXM.KEY @9 n1=65", "a vector of 65 rows, the longest has 64"),
        ("PHASE dur=99 final\nTOP.EMIT @9 n1=2", "d1 = 1: steps are 2 cycles apart"),
        ("PHASE dur=99 final\nTOP.EMIT @9 n1=4 d1=2 expert=1", "4 experts, there are registers for 3"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(LpuError, match=message):
        check_program(assemble(text, TINY), TINY)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("XW.RUN source=X", "XW: source = 1 is none of Y, Z"),
        ("SXM.ACT source=T", "SXM: source = 3 is none of Y, Z"),
        ("CR.RUN c_sel=EXPERT0", "CR: c_sel = 2 is none of ZERO, LAYER, ROPE"),
        ("ABC.DOT w_sel=VALUE", "ABC: w_sel = 7 is none of ZERO, LAYER, EXPERT0"),
        ("SXM.KEY srow_sel=LAYER", "SXM: srow_sel = 1 is none of ZERO, KEY, VALUE"),
    ],
)
def test_fields_without_a_meaning_here(line: str, message: str) -> None:
    """Registers and streams that a field's hardware does not reach."""
    with pytest.raises(LpuError, match=message):
        assemble(f"PHASE dur=9 final\n{line} @7", TINY)
