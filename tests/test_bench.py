"""The benchmark: timelines are the schedule's, the C loop computes the model, the report has what it promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from firmware.bench import cpu
from firmware.bench.rows import row
from firmware.bench.subjects import Subject, subjects
from firmware.bench.timeline import timeline
from firmware.checkpoint import Checkpoint
from firmware.cli import main
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


def test_the_command_writes_a_report(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["bench", "--no-rtl", "--no-baselines", "--folder", str(tmp_path)])
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "report.json").read_text())
    wanted = {
        "config", "model", "default_model", "position", "sequences", "cycles", "macs", "mac_utilisation", "fmax_mhz",
        "tokens_per_second", "evidence",
    }  # fmt: skip
    assert all(wanted <= set(r) for r in report["rows"])
    assert sum(r["default_model"] and r["config"] == "ulx3s-85f" and r["position"] == 64 for r in report["rows"]) == 1
