"""The bench runner reports failures, with the line that repeats them."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from hdl.config import get_config
from sim import tools
from verification import runner
from verification.context import Context, context
from verification.echo import Echo

MODULE = "verification.bench_selftest"


@pytest.mark.bench
@pytest.mark.parametrize("sim", runner.SIMULATORS)
def test_a_failing_bench_prints_its_replay_line(sim: str) -> None:
    """A wrong answer fails the run; the report names the test, the reason and how to see it again."""
    with pytest.raises(runner.BenchFailure) as failure:
        runner.run_bench(
            "selftest",
            component_factory=lambda cfg: Echo(),
            module=MODULE,
            sim=sim,
            config="tiny",
            seed=7,
            params={"fail": True},
        )
    report = str(failure.value)
    assert "1 of 2 tests" in report
    assert "answers_under_back_pressure: Traceback" in report
    assert "AssertionError: assert [" in report
    assert report.endswith(f"repeat with: make test BENCH=selftest SIM={sim} CONFIG=tiny SEED=7")


def test_verilog_that_does_not_compile_is_reported(tmp_path: Path) -> None:
    """The end of the compiler's log is in the message."""
    broken = tmp_path / "broken.v"
    broken.write_text("module broken(input clk);\n  assign nothing = missing;\nendmodule\n")
    expected = r"(?s)build: .*missing.*repeat with: make test BENCH=broken"
    with pytest.raises(runner.BenchFailure, match=expected):
        runner.run_bench("broken", verilog=broken, module=MODULE, sim="verilator", config="tiny")


def test_unknown_simulator() -> None:
    with pytest.raises(ValueError, match="'vcs' is not one of verilator, icarus"):
        runner.run_bench("selftest", module=MODULE, sim="vcs", config="tiny")


def test_missing_simulator_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "find", lambda program: None)
    with pytest.raises(tools.ToolError, match="apt-get install iverilog"):
        runner.run_bench("selftest", module=MODULE, sim="icarus", config="tiny")


def test_context_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the runner writes is what the bench reads; both simulators draw the same numbers."""
    with pytest.raises(RuntimeError, match="make test BENCH"):
        context()
    sent = Context("vxm", "icarus", "tiny", 5, {"rows": [1, 2]})
    monkeypatch.setenv("LPU_BENCH", sent.to_json())
    assert context() == sent
    assert context().config is get_config("tiny")
    assert sent.rng(3).integers(1 << 30) == context().rng(3).integers(1 << 30)
    assert sent.rng(3).integers(1 << 30) != sent.rng(4).integers(1 << 30)


def test_the_environment_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run leaves nothing behind, and keeps an outer make's variables from the simulator."""
    monkeypatch.setenv("WAVES", "1")
    monkeypatch.setenv("MAKEFLAGS", "-- BENCH=x")
    before = dict(os.environ)
    with runner._environment("verilator", Context("x", "verilator", "tiny", 1), 10, {"EXTRA": "1"}):
        assert "WAVES" not in os.environ
        assert "BENCH" not in os.environ["MAKEFLAGS"]
        assert os.environ["EXTRA"] == "1"
    assert dict(os.environ) == before


def test_who_ends_the_process_group_ends_the_simulation() -> None:
    """A mutant's bench that is cut off must not go on beside the next ones."""
    with runner._environment("icarus", Context("x", "icarus", "tiny", 1), 100, {}):
        prefix = os.environ.get("SIM_CMD_PREFIX", "").split()
    script = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    told = "echo started; exec sleep 60"
    with subprocess.Popen(
        [sys.executable, "-c", script, *prefix, "sh", "-c", told], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        os.killpg(process.pid, signal.SIGKILL)
        ended, _, _ = select.select([process.stdout], [], [], 30)
        assert ended, "the simulation goes on: it still holds its output open"


def test_tool_check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing program, and a Python that is too old, are named with what to do about them."""
    assert tools.main([]) == 0
    monkeypatch.setattr(tools, "find", lambda program: None if program == "perl" else "/bin/true")
    old = types.SimpleNamespace(version_info=(3, 9), version="3.9.2 x", stderr=sys.stderr)
    monkeypatch.setattr(tools, "sys", old)
    assert tools.main([]) == 2
    errors = capsys.readouterr().err
    assert re.search(r"Python 3\.11 or newer is needed, this is 3\.9\.2", errors)
    assert "apt-get install perl" in errors


def test_icarus_runs_combinational_blocks_at_time_0() -> None:
    """Each block reads the register that changes once, whatever form it and its module's header have."""
    text = "module a(x,\n  y);\n  always @* begin\n    y = x;\n  end\n  always @*\n    z[0] = \\$1 ;\nendmodule\n"
    woken = runner._wake(text)
    assert woken.count("reg _wake = 0;") == 1
    assert woken.count("always @* begin if (_wake) begin end") == 2
    assert "z[0] = \\$1 ; end\n" in woken
