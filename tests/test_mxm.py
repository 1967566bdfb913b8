"""MXM in Amaranth's simulator: the scenarios of its bench at odd sizes, and the int4 packing exhaustively."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from amaranth.back import verilog
from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hdl.config import TINY, ULX3S_85F, Config
from hdl.mxm import Mxm
from hdl.mxm.column import MULTIPLY, add_carry, pack, shift_up, unpack_high, unpack_low
from hdl.primitives import Multiplier
from verification.bench_mxm import SCENARIOS, shallow

# No size is special: fewer vlanes than a block and as many, one block a word and several.
SIZES = {
    "tiny": TINY,
    "ulx3s": ULX3S_85F,
    "v8l16": dataclasses.replace(TINY, lanes=16, columns=8, vlanes=8),
    "v2l32": dataclasses.replace(TINY, lanes=32, columns=4, vlanes=2, acc_bits=44),
}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("size", SIZES)
def test_scenario(size: str, scenario) -> None:
    cfg = shallow(SIZES[size])
    scenario(cfg, np.random.default_rng([1, len(size)])).simulate(Mxm(cfg))
