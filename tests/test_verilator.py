"""The Verilator harness: streams, cycle counts, ports, waveforms, caching and errors, on the echo design."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from amaranth.back import verilog

from sim import verilator
from sim.verilator import Library, VerilatorError, VerilatorModel
from verification.echo import Echo


@pytest.fixture(scope="module")
def echo_text() -> str:
    return verilog.convert(Echo(), name="echo", emit_src=False)


@pytest.fixture(scope="module")
def echo(echo_text: str) -> Library:
    return verilator.build(echo_text, "echo", name="test-echo")


def test_answers_and_cycles(echo: Library, rng: np.random.Generator) -> None:
    """Byte i is taken in cycle i and its answer leaves in cycle i + 1."""
    data = rng.bytes(300)
    with VerilatorModel(echo) as model:
        model.push_rx(data)
        assert model.rx_pending == 300
        assert model.run(10_000, stop_when_tx=len(data)) == len(data) + 1
        answer, stamps = model.pop_tx_timed()
        assert answer == bytes((byte + i) % 256 for i, byte in enumerate(data))
        assert stamps.tolist() == list(range(1, len(data) + 1))
        assert model.cycles == len(data) + 1
        assert (model.rx_pending, model.tx_pending) == (0, 0)
        assert model.get("count") == len(data)


def test_run_stops_where_asked(echo: Library) -> None:
    with VerilatorModel(echo) as model:
        assert model.run(17) == 17
        model.push_rx(b"abcd")
        assert model.run(100, until=("count", 2)) == 2
        assert model.run(100, stop_when_tx=1) == 0, "the answer to the first byte waits already"
        assert model.pop_tx(1) == b"a"
        assert model.run(100, until=("busy", 0)) == 3
        assert model.pop_tx() == bytes([98 + 1, 99 + 2, 100 + 3])
        # More cycles than one call of the library runs.
        assert model.run(600_000) == 600_000
        assert model.pop_tx() == b""


def test_a_stalled_host_and_an_input(echo: Library) -> None:
    with VerilatorModel(echo) as model:
        assert model.tx_ready
        model.tx_ready = False
        model.set("bias", 5)
        assert model.get("bias") == 5
        model.push_rx(b"\x00\x00")
        model.run(50)
        assert (model.tx_pending, model.rx_pending, model.get("busy")) == (0, 1, 1)
        model.tx_ready = True
        model.run(50)
        assert model.pop_tx() == bytes([5, 6])


def test_reset_starts_again_and_cycles_go_on(echo: Library) -> None:
    with VerilatorModel(echo) as model:
        model.push_rx(b"\x00\x00")
        model.run(10)
        model.reset()
        assert model.get("count") == 0
        assert model.cycles == 10
        model.push_rx(b"\x07")
        model.run(10)
        assert model.pop_tx() == bytes([0, 1, 7])


def test_two_models_are_independent(echo: Library, echo_text: str) -> None:
    """Two models of one library, and one of another with the same names inside, do not share state."""
    other_text = echo_text.replace("module echo", "module other")
    other = verilator.build(other_text, "other", name="test-echo")
    assert other.path != echo.path
    with VerilatorModel(echo) as a, VerilatorModel(echo) as b, VerilatorModel(other) as c:
        a.push_rx(b"\x01\x01")
        b.push_rx(b"\x02")
        c.push_rx(b"\x03")
        for model in (a, b, c):
            model.run(10)
        assert (a.pop_tx(), b.pop_tx(), c.pop_tx()) == (b"\x01\x02", b"\x02", b"\x03")


# An echo of levels: what is sent on rx comes back on tx, two cycles later.
WIRE = """
module wires(clk, rst, rx, tx, invert, ready);
  input clk;
  input rst;
  input rx;
  output tx;
  input invert;
  output ready;
  reg a = 1, b = 1;
  always @(posedge clk) begin
    a <= rst | rx;
    b <= (rst | a) ^ (invert & ~rst);
  end
  assign tx = b;
  assign ready = ~rst;
endmodule
"""


def test_a_serial_top(rng: np.random.Generator) -> None:
    """Bytes travel bit by bit on the wires of a UART, at any rate, without a pause; and without a ready."""
    library = verilator.build(WIRE, "wires", name="test-wires", serial=True)
    assert library.serial and [port.name for port in library.ports] == ["invert", "ready"]
    data = rng.bytes(200)
    rates: list[int | Fraction] = [4, 7, Fraction(100, 3)]
    for clocks in rates:
        with VerilatorModel(library, clocks_per_bit=clocks) as model:
            model.run(50)
            assert model.pop_tx() == b""
            model.push_rx(data)
            took = model.run(100_000, stop_when_tx=len(data))
            received, stamps = model.pop_tx_timed()
            assert received == data
            byte = 10 * float(clocks)
            assert abs(took - byte * len(data)) <= float(clocks)
            assert abs(int(stamps[-1] - stamps[0]) - byte * (len(data) - 1)) <= 1
            with pytest.raises(VerilatorError, match="cannot be told to wait"):
                model.tx_ready = False
            model.set("invert", 1)
            with pytest.raises(VerilatorError, match="without its start or stop bit"):
                model.run(1000)


def test_a_build_is_made_once(echo: Library, echo_text: str) -> None:
    steps: list[tuple[int, int, str]] = []
    again = verilator.build(echo_text, "echo", name="test-echo", progress=lambda *step: steps.append(step))
    assert again == echo
    assert steps == [(1, 1, "already built")]


def test_waveform_of_a_window(echo_text: str, tmp_path: Path) -> None:
    """Cycle c lies at 10 c ns; nothing outside the window is recorded; building reports its progress."""
    steps: list[tuple[int, int, str]] = []
    library = verilator.build(
        echo_text, "echo", trace="vcd", build_root=tmp_path / "b", progress=lambda *step: steps.append(step)
    )
    totals = {total for _, total, _ in steps}
    assert len(totals) == 1 and steps[-1][0] == steps[-1][1] > 3
    assert [done for done, _, _ in steps] == sorted(done for done, _, _ in steps)
    path = tmp_path / "waves" / "echo.vcd"
    with VerilatorModel(library) as model:
        model.record(path, 3, 6)
        model.push_rx(bytes(20))
        model.run(30)
        # The window is over: the file is complete while the model goes on.
        times = [int(line[1:]) for line in path.read_text().splitlines() if line.startswith("#")]
        assert times == [30, 35, 40, 45, 50, 55, 60, 65]
        model.record(tmp_path / "second.vcd", 40)
        model.run(20)
    second = (tmp_path / "second.vcd").read_text()
    assert "$timescale 1ns $end" in second and "\n#400\n" in second and "\n#390\n" not in second


def test_recording_needs_a_traced_build(echo: Library, tmp_path: Path) -> None:
    with VerilatorModel(echo) as model, pytest.raises(VerilatorError, match="built without waveforms"):
        model.record(tmp_path / "x.vcd")


def test_misuse_is_named(echo: Library) -> None:
    model = VerilatorModel(echo)
    with pytest.raises(VerilatorError, match=r"no port 'bussy'; known: bias, busy, count"):
        model.get("bussy")
    with pytest.raises(VerilatorError, match="port busy is an output"):
        model.set("busy", 1)
    with pytest.raises(VerilatorError, match="256 does not fit 8 bits"):
        model.set("bias", 256)
    model.close()
    model.close()
    with pytest.raises(VerilatorError, match="closed"):
        model.run(1)


def test_a_top_without_the_streams_is_refused(echo_text: str) -> None:
    with pytest.raises(VerilatorError, match="no module 'core'"):
        verilator.build(echo_text, "core")
    with pytest.raises(VerilatorError, match="port rx__valid is missing; a 1-bit input is needed"):
        verilator.build(echo_text.replace("rx__valid", "rx_valid"), "echo")
    with pytest.raises(VerilatorError, match="port rx is missing; a 1-bit input is needed"):
        verilator.build(echo_text, "echo", serial=True)
    with pytest.raises(VerilatorError, match="port tx__payload is a 9-bit output; a 8-bit output"):
        verilator.build(echo_text.replace("output [7:0] tx__payload", "output [8:0] tx__payload"), "echo")


def test_warnings_are_errors(echo_text: str, tmp_path: Path) -> None:
    """A latch in the Verilog stops the build, with the log's end and path in the message."""
    text = echo_text.replace("endmodule", "  reg latch;\n  always @* if (clk) latch = rst;\nendmodule")
    with pytest.raises(VerilatorError, match=r"(?s)Verilator failed.*build\.log:.*LATCH"):
        verilator.build(text, "echo", build_root=tmp_path)


def test_a_failing_design_raises(echo_text: str, tmp_path: Path) -> None:
    """``$finish`` and ``$stop`` end the run with an error, not this process."""
    for task, message in (("$finish", r"called \$finish"), ("$stop", r"\$stop")):
        text = echo_text.replace("endmodule", f"  always @(posedge clk) if (count == 3) {task};\nendmodule")
        library = verilator.build(text, "echo", name="test-ends", build_root=tmp_path)
        with VerilatorModel(library) as model:
            model.push_rx(bytes(10))
            with pytest.raises(VerilatorError, match=message):
                model.run(100)
            assert model.cycles in (3, 4)
