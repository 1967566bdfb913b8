"""The benchmark: timelines are the schedule's, the C loop computes the model, the report has what it promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from firmware.bench import cpu, gguf_file, llama_cpp, processor
from firmware.bench.baseline import Baseline
from firmware.bench.rows import row
from firmware.bench.subjects import Subject, subjects
from firmware.bench.timeline import timeline
from firmware.checkpoint import Checkpoint
from firmware.cli import main
from firmware.errors import LpuError
from firmware.schedule import token_cycles
from firmware.simulate import resolve_model
from firmware.tokenizer import Tokenizer
from hdl.isa import AbcOp, Queue
from sim.float_model import FloatModel


@pytest.fixture(scope="module")
def found() -> list[Subject]:
    return list(subjects(["names-4k", "stories-500k"], lambda _: None))


def test_a_timeline_is_the_schedule(found: list[Subject]) -> None:
    for s in found:
        for position in s.positions:
            token = timeline(s.cfg, s.program, s.floor, s.qshape, position)
            predicted = token_cycles(
                s.cfg, s.program.phases, s.shape.layers, s.qshape.window, s.floor, position, sampled=True
            )
            assert token.cycles == predicted
            assert token.busy(Queue.ABC) + sum(token.waits().values()) == token.cycles
            for queue in Queue:
                issued = np.concatenate([w.cycles for w in token.of(queue)])
                assert len(np.unique(issued)) == len(issued), f"{queue.name}: two micro-ops in a cycle"


def test_the_mxm_is_busy_with_at_least_the_useful_products(found: list[Subject]) -> None:
    """A product takes no fewer cycles than its MACs at the peak of its width; padding and GATHERs come on top."""
    for s in found:
        token = timeline(s.cfg, s.program, s.floor, s.qshape, s.positions[-1])
        gathers = sum(
            i.get("n1") for i in s.program.code[Queue.ABC] if i.get("op") == AbcOp.GATHER
        )  # fmt: skip
        kinds = s.shape.macs_by_kind(s.positions[-1])
        floor = kinds["weight"] / s.cfg.macs_per_cycle(s.weights)
        floor += (kinds["router"] + kinds["kv"]) / s.cfg.macs_per_cycle(8)
        assert floor <= token.busy(Queue.ABC) - gathers


def test_every_model_is_on_the_board_and_a_wide_one_on_the_large(found: list[Subject]) -> None:
    names = {(s.cfg.name, s.name) for s in found}
    assert {("ulx3s-85f", "stories-500k"), ("ulx3s-85f", "names-4k"), ("large", "wide layers")} <= names


def test_rows(found: list[Subject]) -> None:
    s = next(s for s in found if (s.cfg.name, s.name) == ("ulx3s-85f", "stories-500k"))
    token = timeline(s.cfg, s.program, s.floor, s.qshape, 64)
    r = row(s.cfg, s.name, True, s.shape, s.weights, 64, token, "static schedule")
    assert r.cycles == token.cycles and r.macs == s.shape.macs(64)
    assert 0 < r.mac_utilisation_unweighted <= r.mac_utilisation < 1
    assert 0 < r.sram_bytes_per_cycle < r.sram_bytes_per_cycle_available
    assert r.tokens_per_second == pytest.approx(r.clock_mhz * 1e6 / r.cycles)
    assert r.joules_per_token and r.tokens_per_second_per_watt
    assert r.joules_per_token * r.tokens_per_second_per_watt == pytest.approx(1)
    assert r.macs_per_second == pytest.approx(r.macs * r.tokens_per_second)


def test_the_c_loop_computes_the_model(tmp_path: Path) -> None:
    folder = resolve_model("names-4k")
    ckpt = Checkpoint(folder)
    text = Tokenizer(folder, ckpt.shape.vocab).encode((folder / "heldout.txt").read_text())[: ckpt.shape.context]
    expected = np.asarray(FloatModel(ckpt).forward(np.array(text))).argmax(axis=-1).tolist()
    program = cpu.build(tmp_path)
    cpu.write_model(ckpt, tmp_path / "model.bin")
    macs = ckpt.shape.macs(len(text) - 1)
    for threads in (1, 2):
        found = cpu.measure(program, tmp_path / "model.bin", macs, text, expected, threads, 3, len(text) - 1)
        assert found.seconds.shape == (3, len(text))
        assert found.agreement >= 0.9, "int8 loses next to nothing"
        assert 0 < found.median <= found.p99


def test_llama_cpp_computes_the_model(tmp_path: Path) -> None:
    """Installed with the extra `llama` only."""
    if not llama_cpp.available():
        pytest.skip("llama-cpp-python is not installed (make bench LLAMA=1)")
    folder = resolve_model("stories-500k")
    ckpt = Checkpoint(folder)
    # Text of its kind: on ids in no order the two likeliest are too close together for int4.
    text = Tokenizer(folder, ckpt.shape.vocab).encode((folder / "heldout.txt").read_text())[:39]
    expected = np.asarray(FloatModel(ckpt).forward(np.array(text))).argmax(axis=-1).tolist()
    for matrices, least in (("float32", 0.95), ("Q8_0", 0.9), ("Q4_0", 0.7)):
        gguf_file.write(ckpt, matrices, tmp_path / "model.gguf")
        found = llama_cpp.measure(tmp_path / "model.gguf", matrices, ckpt.shape.macs(38), text, expected, 1, 2, 38)
        assert found.seconds.shape == (2, len(text))
        assert found.agreement >= least, matrices


def test_a_gguf_file_needs_whole_blocks(tmp_path: Path) -> None:
    """The message names the block and the row; nothing is written."""
    file = tmp_path / "model.gguf"
    with pytest.raises(LpuError, match="blocks of 32, a row has 16 weights"):
        gguf_file.write(Checkpoint(resolve_model("names-4k")), "Q8_0", file)
    assert not file.exists()


def test_rows_of_q_and_k_are_neighbours_for_llama_cpp() -> None:
    """Rows i and i + head_dim / 2, which RoPE turns together, come to lie side by side in each head."""
    rows = gguf_file.interleave(np.arange(16)[:, None], heads=2)[:, 0]
    assert rows.tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]


def test_power_is_counted_or_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "RAPL", tmp_path)
    with processor.power(2) as used:
        pass
    assert used.method == processor.TDP_METHOD
    assert used.watts == pytest.approx(2 * processor.TDP_WATTS / processor.TDP_CORES)
    for name, counter in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(counter + "\n")
        (tmp_path / name / "energy_uj").write_text("1000000\n")
    with processor.power(2) as used:
        (tmp_path / "intel-rapl:0" / "energy_uj").write_text("3000000\n")
    assert used.method == processor.RAPL_METHOD
    assert used.watts > 0
    with processor.power(2) as used:  # the counter wraps
        (tmp_path / "intel-rapl:0" / "energy_uj").write_text("5\n")
    assert used.method == processor.TDP_METHOD


def test_a_baseline_has_what_the_lpu_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    seconds = np.full((4, 8), 1e-3)
    found = Baseline("x", "int8", 2, seconds, 1.0, 128_000, 5, 8, 256, processor.Power(5.0, "assumed"))
    assert found.utilisation is None, "no clock, no peak"
    (tmp_path / "cpuinfo").write_text("processor\t: 0\ncpu MHz\t\t: 1000.0\nflags\t\t: avx2 avx512f\n")
    # 2 threads x 1 GHz x 2 units x 32 products.
    assert found.utilisation == pytest.approx(128e6 / 128e9)
    report = found.as_json()
    assert report["tokens_per_second"] == pytest.approx(1000)
    assert report["tokens_per_second_per_watt"] == pytest.approx(200)
    assert report["watts_method"] == "assumed"
    assert {"macs_per_second", "mac_utilisation", "median_seconds", "p99_seconds"} <= set(report)


def test_the_command_writes_a_report(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["bench", "--no-rtl", "--no-baselines", "--folder", str(tmp_path)])
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "report.json").read_text())
    wanted = {
        "config", "model", "default_model", "position", "sequences", "cycles", "macs", "mac_utilisation", "fmax_mhz",
        "tokens_per_second", "tokens_per_second_per_watt", "evidence",
    }  # fmt: skip
    assert all(wanted <= set(r) for r in report["rows"])
    board = [r for r in report["rows"] if r["default_model"] and r["config"] == "ulx3s-85f" and r["position"] == 64]
    assert [r["sequences"] for r in board] == [1, 2]
    one, two = board
    assert one["cycles"] < two["cycles"] < 2 * one["cycles"] and one["macs"] == two["macs"]
    assert two["mac_utilisation"] == pytest.approx(one["mac_utilisation"] * 2 * one["cycles"] / two["cycles"])
    assert report["simulators"] == []
