"""The matrix: every bench of ``verification/benches.py`` in every config, in Verilator and in Icarus."""

from __future__ import annotations

import pytest

from verification import runner


def test_bench(bench_run: tuple[runner.Bench, str, str], seed: int, request: pytest.FixtureRequest) -> None:
    """The bench passes in this simulator and config."""
    bench, sim, config = bench_run
    option = request.config.getoption
    result = runner.run(
        bench, sim=sim, config=config, seed=seed, waves=bool(option("--waves")), program=option("--program")
    )
    if result.waves is not None:
        print(f"waveform: {result.waves}")
        assert result.waves.stat().st_size > 0
