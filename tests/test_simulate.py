"""``lpu sim``, ``lpu eval`` and ``lpu logits`` from the command line: RTL in Verilator, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import firmware.cli.sim as sim_command
from firmware.checkpoint import Checkpoint
from firmware.cli import main
from firmware.image_file import Image
from sim.float_model import FloatModel
from tests.util_models import Spec, write_model

SPEC = Spec(vocab=61, d=16, layers=2, heads=4, kv_heads=2, head_dim=4, experts=4, top_k=2, ffn=20, context=32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "random"
    write_model(folder, SPEC)
    return folder


def lpu(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def simulated(model: Path, out: Path, *more: object) -> Result:
    return lpu("sim", "--model", model, "--config", "tiny", "--report", out, *more)


def test_greedy_run_matches_and_reports(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    result = simulated(model, out, "--prompt", "5,6,7", "--tokens", 6)
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert report["matches_reference"] is True
    assert report["prompt_tokens"] == 3 and report["tokens"] == 6 == len(report["ids"])
    assert len(report["cycles_per_token"]) == 3 + 6 - 1
    assert report["cycles_per_token"] == report["predicted_cycles_per_token"]
    shape = Checkpoint(model).shape
    assert report["parameters_total"] == shape.parameters_total
    assert report["macs_per_cycle"] == 64 and report["config"] == "tiny" and report["model"] == "random"
    assert 0 < report["mac_utilisation"] < 1 and report["sim_khz"] > 0 and report["text"]


@pytest.mark.parametrize("topk", [0, 3])
def test_sampling_is_replayable(model: Path, tmp_path: Path, topk: int) -> None:
    ids = []
    for seed in (1, 1, 2):
        out = tmp_path / f"{seed}.json"
        options = ("--temperature", 1.5, "--topk", topk, "--seed", seed, "--tokens", 8)
        result = simulated(model, out, "--prompt", "1,2", *options)
        assert result.exit_code == 0, result.output
        ids.append(json.loads(out.read_text())["ids"])
    assert ids[0] == ids[1] != ids[2]


def test_two_texts_are_each_written_as_if_alone(model: Path, tmp_path: Path) -> None:
    options = ("--tokens", 5, "--temperature", 1.2, "--context", 16)
    out = tmp_path / "both.json"
    result = simulated(model, out, "--prompt", "5,6,7", "--second", "9", "--seed", 4, *options)
    assert result.exit_code == 0, result.output
    both = json.loads(out.read_text())
    assert both["matches_reference"] is True and both["sequences"] == 2
    assert both["cycles_per_token"] == both["predicted_cycles_per_token"]
    assert len(both["cycles_per_token"]) == 3 + 5 - 1
    alone = []
    for prompt, seed in (("5,6,7", 4), ("9", 5)):
        assert simulated(model, out, "--prompt", prompt, "--seed", seed, *options).exit_code == 0
        alone.append(json.loads(out.read_text()))
    assert [both["ids"], both["second"]["ids"]] == [one["ids"] for one in alone]
    assert both["second"]["prompt_tokens"] == 1 and both["second"]["tokens"] == 5
    most = max(one["cycles_per_token"][-1] for one in alone)
    assert most < both["cycles_per_token"][-1] < 2 * most


def test_full_context_is_reported_and_ends_the_run(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    result = simulated(model, out, "--prompt", "9", "--tokens", 100, "--weights", "int8")
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert report["ended"] == "CONTEXT" and len(report["cycles_per_token"]) == SPEC.context


def test_waveform_of_a_window(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    result = simulated(model, out, "--tokens", 1, "--waves", "--wave-window", "0:300")
    assert result.exit_code == 0, result.output
    (waves,) = tmp_path.glob("waves.*")
    assert waves.stat().st_size > 1000


def test_a_wrong_prediction_is_exit_code_1(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cycles = Image.cycles
    monkeypatch.setattr(Image, "cycles", lambda self, *a, **k: cycles(self, *a, **k) + 1)
    result = simulated(model, tmp_path / "report.json", "--tokens", 1)
    assert result.exit_code == 1
    assert json.loads((tmp_path / "report.json").read_text())["matches_reference"] is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--prompt", ",".join(["1"] * 32)), "context of 32"),
        (("--prompt", "1,61"), "ids are 0..60"),
        (("--prompt", "hello"), "takes ids"),
        (("--prompt", "1", "--topk", "5", "--temperature", "1"), "top-k"),
        (("--prompt", "1", "--temperature", "-1"), "temperature"),
        (("--waves", "--wave-window", "9"), "FIRST:LAST"),
        (("--config", "huge"), "known: tiny"),
        (("--model", "nowhere"), "no folder"),
    ],
)
def test_bad_requests(model: Path, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    result = simulated(model, tmp_path / "report.json", *options)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not (tmp_path / "report.json").exists()


def test_a_report_that_cannot_be_written_is_told_first(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim_command, "compile_model", None)
    (tmp_path / "file").touch()
    result = simulated(model, tmp_path / "file" / "report.json")
    assert (result.exit_code, "report.json: cannot be written" in result.output) == (2, True), result.output


def test_shipped_model_is_the_default() -> None:
    assert sim_command.resolve_model(sim_command.SHIPPED_MODEL).is_dir()


def test_logits_follow_the_float_model(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "logits.npy"
    result = lpu("logits", "--model", model, "--ids", "3,1,4,1,5", "--weights", "int8", "-o", out)
    assert result.exit_code == 0, result.output
    rows = np.load(out)
    wanted = FloatModel(Checkpoint(model)).forward([3, 1, 4, 1, 5])
    assert rows.dtype == np.float32 and rows.shape == wanted.shape
    assert np.sqrt(np.mean((rows - wanted) ** 2)) < 0.05 * wanted.std()


@pytest.mark.parametrize(
    ("ids", "message"), [("1,x", "integers"), ("1,99", "outside"), (",".join("1" * 33), "context")]
)
def test_bad_ids(model: Path, tmp_path: Path, ids: str, message: str) -> None:
    result = lpu("logits", "--model", model, "--ids", ids, "-o", tmp_path / "x.npy")
    assert result.exit_code == 2 and message in result.output
    assert not (tmp_path / "x.npy").exists()


def test_eval_prints_one_object(tmp_path: Path) -> None:
    heldout = sim_command.resolve_model("stories-500k") / "heldout.txt"
    result = lpu("eval", "--model", "stories-500k", "--text", heldout, "--tokens", 512, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert set(found) == {"ppl_float", "ppl_int8", "ppl_int4", "top1_int8", "top1_int4", "tokens"}
    assert found["tokens"] == 510
    assert found["ppl_int8"] < 1.02 * found["ppl_float"] and found["ppl_int4"] < 1.02 * found["ppl_float"]


def test_eval_of_a_missing_text(model: Path, tmp_path: Path) -> None:
    result = lpu("eval", "--model", model, "--text", tmp_path / "none.txt")
    assert result.exit_code == 2 and "none.txt" in result.output


def test_a_longer_context_is_cut_to_what_the_config_holds(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "long", SPEC.with_(context=4096, layers=1))
    out = tmp_path / "report.json"
    result = simulated(folder, out, "--prompt", "1,2", "--tokens", 100)
    assert result.exit_code == 0, result.output
    assert len(json.loads(out.read_text())["cycles_per_token"]) == 64
    short = simulated(folder, out, "--prompt", "1,2", "--tokens", 100, "--context", 16)
    assert short.exit_code == 0 and len(json.loads(out.read_text())["cycles_per_token"]) == 16
    assert simulated(folder, out, "--context", 65).exit_code == 2
    ids = ",".join(["1", "2"] * 150)  # logits need no memory of a configuration
    assert lpu("logits", "--model", folder, "--ids", ids, "-o", tmp_path / "x.npy").exit_code == 0
