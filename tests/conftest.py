"""Options, seeds and order of the tests.

Every random choice comes from ``--seed`` (default 1, printed in the header), so that a run can be repeated.
Tests run cheapest first: a typing error should not wait for a simulation.
"""

from __future__ import annotations

import os
import random
import time
import zlib
from collections.abc import Iterator

import numpy as np
import pytest

from sim import tools
from verification.benches import BENCHES
from verification.runner import DEFAULT_SEED, SIMULATORS, Bench

# Read by NumPy's thread pools: the tests themselves run in parallel.
os.environ.setdefault("OMP_NUM_THREADS", "1")
_STARTED = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lpu", "cocotb benches")
    group.addoption("--bench", help="run this bench alone, or those of this slice", default=None)
    group.addoption("--sim", help="run benches in this simulator only", choices=SIMULATORS, default=None)
    group.addoption("--config", help="run benches in this config only", default=None)
    group.addoption("--seed", help="seed of every generator", type=int, default=DEFAULT_SEED)
    group.addoption("--program", help="run this one of a bench's random programs alone", type=int, default=None)
    group.addoption("--minutes", help="leave out, in an order of the seed's, what would begin later", type=float)
    group.addoption("--waves", help="record waveforms of benches", action="store_true", default=False)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "bench: a cocotb bench in a simulator")
    config.addinivalue_line("markers", "slow: left to `make regress`")


def pytest_report_header(config: pytest.Config) -> list[str]:
    missing = tools.missing("c++", "make", "perl", "iverilog")
    return [f"seed: {config.getoption('--seed')}", *(f"warning: {line}" for line in missing)]


def _selected(config: pytest.Config) -> list[tuple[Bench, str, str]]:
    """(bench, simulator, config) of every run that the options leave."""
    name, sim, size = (config.getoption(option) for option in ("--bench", "--sim", "--config"))
    if name is not None and not any(_meant(bench, name) for bench in BENCHES):
        known = ", ".join(bench.name for bench in BENCHES)
        raise pytest.UsageError(f"unknown bench {name!r}; known: {known}")
    runs = []
    for bench in BENCHES:
        if name is None or _meant(bench, name):
            # A config that is asked for by name need not be one that the matrix holds.
            configs = bench.configs if size is None or name is None else (size,)
            for one in configs:
                for simulator in SIMULATORS:
                    if sim in (None, simulator) and size in (None, one):
                        runs.append((bench, simulator, one))
    return runs


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "bench_run" in metafunc.fixturenames:
        runs = _selected(metafunc.config)
        metafunc.parametrize(
            "bench_run",
            [
                pytest.param(run, id=f"{run[0].name}-{run[1]}-{run[2]}", marks=_marks(*run))
                for run in runs
            ],
        )


def _meant(bench: Bench, name: str) -> bool:
    """Whether ``--bench`` means this one: by its name, or by the slice it belongs to (vxm: vxm_alu and others)."""
    return bench.name == name or bench.name.startswith(name + "_")


def _marks(bench: Bench, simulator: str, config: str) -> list[pytest.MarkDecorator]:
    slow = bench.slow or (simulator, config) in bench.later
    return [pytest.mark.bench, *([pytest.mark.slow] if slow else [])]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def cost(item: pytest.Item) -> int:
        return 2 if item.get_closest_marker("slow") else 1 if item.get_closest_marker("bench") else 0

    if config.getoption("--minutes") is not None:
        random.Random(config.getoption("--seed")).shuffle(items)
    items.sort(key=cost)


def pytest_runtest_setup(item: pytest.Item) -> None:
    minutes = item.config.getoption("--minutes")
    if minutes is not None and time.monotonic() - _STARTED > 60 * minutes:
        pytest.skip(f"{minutes:g} minutes are over")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The run's seed."""
    return int(request.config.getoption("--seed"))


@pytest.fixture
def rng(request: pytest.FixtureRequest, seed: int) -> np.random.Generator:
    """A generator of this test's own: it depends on the seed and the test's name, not on what ran before."""
    return np.random.default_rng([seed, zlib.crc32(request.node.nodeid.encode())])


@pytest.fixture(autouse=True)
def _fixed_global_seeds(request: pytest.FixtureRequest) -> Iterator[None]:
    """Seeds the global generators too, for code under test that uses them."""
    value = int(request.config.getoption("--seed"))
    random.seed(value)
    np.random.seed(value)
    yield
