"""The fidelity suite: random checkpoints are what they say, and the table tells who is within limits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from firmware import fidelity
from firmware.cli import main
from firmware.errors import LpuError
from firmware.evaluate import WINDOW, Evaluation, windows
from firmware.random_mixtral import OUTLIER_LANES, SHAPES, random_checkpoint
from sim.float_model import FloatModel, log_likelihood


@pytest.mark.parametrize("name", SHAPES)
def test_random_checkpoints_have_the_statistics_of_trained_ones(name: str) -> None:
    ckpt = random_checkpoint(SHAPES[name], 1)
    np.testing.assert_array_equal(ckpt.layers[1].w_down, random_checkpoint(SHAPES[name], 1).layers[1].w_down)
    assert not np.array_equal(ckpt.embed, random_checkpoint(SHAPES[name], 2).embed)
    model, lanes = FloatModel(ckpt), np.zeros(ckpt.shape.d)
    ids = model.sample(2, 48, 1)

    def observe(tensor: str, layer: int, expert: int, rows: np.ndarray) -> None:
        if tensor == "residual" and layer == -1:
            lanes[:] = np.sqrt(np.mean(rows * rows, axis=0))

    logits = model.forward(ids, observe=observe)
    perplexity = np.exp(-log_likelihood(logits, ids).mean())
    assert 3 < perplexity < ckpt.shape.vocab / 8
    assert (lanes > 5 * np.median(lanes)).sum() == OUTLIER_LANES


def test_windows_bound_the_memory() -> None:
    ids = np.arange(2 * WINDOW + 1)
    assert [len(w) for w in windows(ids, 4096)] == [WINDOW, WINDOW]
    assert [len(w) for w in windows(ids[:10], 4)] == [4, 4, 2]


def _row(ppl_int8: float, top1_int8: float) -> fidelity.Row:
    return fidelity.Row("m", 1, "tiny", "t.txt", Evaluation(10.0, ppl_int8, 12.0, top1_int8, 0.5, 100))


def test_limits() -> None:
    assert _row(10.3, 0.9).within_limits
    assert not _row(10.31, 0.95).within_limits and not _row(10.0, 0.89).within_limits


@pytest.mark.parametrize(("top1", "code"), [(0.95, 0), (0.5, 1)])
def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, top1: float, code: int) -> None:
    import firmware.cli.fidelity as command

    monkeypatch.setattr(command, "suite", lambda names, tokens, progress: iter([_row(10.1, top1)]))
    report = tmp_path / "new" / "fidelity.json"
    result = CliRunner().invoke(main, ["fidelity", "--model", "names-4k", "--report", str(report)])
    assert result.exit_code == code, result.output
    assert "+1.00%" in result.stdout
    (entry,) = json.loads(report.read_text())
    assert entry["change_int8"] == pytest.approx(0.01) and entry["within_limits"] is (code == 0)


def test_a_report_that_cannot_be_written_is_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firmware.cli.fidelity.suite", None)
    (tmp_path / "file").touch()
    report = tmp_path / "file" / "fidelity.json"
    result = CliRunner().invoke(main, ["fidelity", "--model", "names-4k", "--report", str(report)])
    assert (result.exit_code, f"{report}: cannot be written" in result.output) == (2, True), result.output


def test_a_shipped_model_and_a_random_one_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = SHAPES["random 6 experts, top 3, no shared heads"]
    small = {"random": dataclasses.replace(shape, vocab=512, d=96, layers=2, ffn=128)}
    monkeypatch.setattr(fidelity, "SHAPES", small)
    monkeypatch.setattr(fidelity, "_CALIBRATED", (2, 16))
    monkeypatch.setattr(fidelity, "_WRITTEN", (2, 16))
    rows = list(fidelity.suite(["names-4k", "random"], 60, lambda stage, done, total: None))
    assert [row.model for row in rows] == ["names-4k", "random"]
    assert all(row.result.top1_int8 > 0.8 for row in rows)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(LpuError, match=r"; names-4k; .*; random 6 experts, top 3, no shared heads$"):
        fidelity.check_names(["no-such-model"])
    assert "stories-500k" in fidelity.check_names([])
