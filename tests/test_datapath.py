"""MXM, SXM and MEM together in Amaranth's simulator: the latencies that reach across slices."""

from __future__ import annotations

import numpy as np
import pytest

from tests.test_mxm import SIZES
from verification.bench_datapath import SCENARIOS, Datapath
from verification.bench_mxm import shallow


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("size", SIZES)
def test_scenario(size: str, scenario) -> None:
    cfg = shallow(SIZES[size])
    scenario(cfg, np.random.default_rng([4, len(size)])).simulate(Datapath(cfg))
