"""The full-size layer's weights, what is compared, and the way into memories outside the model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from click.testing import CliRunner

from firmware.checkpoint import ModelShape
from firmware.image_file import section
from firmware.lower import lower
from firmware.sim_transport import SimTransport
from hdl.banks import ARRAY, bank_path
from hdl.config import LARGE, TINY
from hdl.image import Space
from sim.float_model import FloatModel
from sim.reference import Reference
from sim.verilator import VerilatorModel
from verification.mixtral_layer.__main__ import main, run
from verification.mixtral_layer.compare import Expected, cosines, differences, expect, layer_utilisation, quantise_layer
from verification.mixtral_layer.rtl import LayerRun
from verification.mixtral_layer.weights import SeededCheckpoint, cut_shape, layer_shape

SHAPE = cut_shape(8, 16, 6)
IDS = np.array([3, 1, 4, 15])


def test_the_shape_is_that_of_mixtral() -> None:
    s = layer_shape(64, 16)
    assert (s.d, s.heads, s.kv_heads, s.head_dim, s.experts, s.top_k, s.ffn) == (4096, 32, 8, 128, 8, 2, 14336)
    assert (s.layers, s.rope_theta) == (1, 1e6)
    assert s.parameters_total - 2 * s.vocab * s.d == 1_451_274_240


def test_weights_are_the_same_at_every_call_and_differ_otherwise() -> None:
    a, b = SeededCheckpoint(SHAPE, 1).layer(0), SeededCheckpoint(SHAPE, 2).layer(0)
    for name in ("q", "k", "v", "o", "router", "attn_norm", "ffn_norm"):
        assert np.array_equal(getattr(a, name), getattr(a, name))
        assert not np.array_equal(getattr(a, name), getattr(b, name)), name
    assert not np.array_equal(a.w_gate[0], a.w_gate[1])
    assert all(np.array_equal(x, y) for x, y in zip(a.expert(2), (a.w_gate[2], a.w_up[2], a.w_down[2]), strict=True))


def test_hidden_states_lie_on_the_grid_of_embeddings() -> None:
    """So the integer model's input is the float model's."""
    ckpt = SeededCheckpoint(SHAPE, 1)
    model = quantise_layer(ckpt, TINY, 8, IDS)
    expected = expect(model, lower(model, TINY), IDS)
    assert np.allclose(expected.inputs, ckpt.embed[IDS], rtol=1e-4, atol=0)


@pytest.fixture(scope="module")
def expected() -> Expected:
    model = quantise_layer(SeededCheckpoint(SHAPE, 1), TINY, 8, IDS)
    return expect(model, lower(model, TINY), IDS)


def test_the_reference_is_close_to_float(expected: Expected) -> None:
    """The layer's change of the residual stream, and the experts chosen."""
    ckpt = SeededCheckpoint(SHAPE, 1)
    seen: dict[tuple[str, int], Any] = {}

    def observe(name: str, layer: int, expert: int, rows: Any) -> None:
        seen[name, layer] = rows

    FloatModel(ckpt).forward(IDS, observe=observe)
    change = seen["residual", -1] - ckpt.embed[IDS]
    experts = np.argsort(-seen["router", 0], axis=1, kind="stable")[:, :2]
    agree = [set(a) == set(b) for a, b in zip(experts, expected.experts, strict=True)]
    assert any(agree)
    assert cosines(expected.change, change)[agree].min() > 0.999


def test_logits_are_those_of_the_residual_stream() -> None:
    model = quantise_layer(SeededCheckpoint(SHAPE, 1), TINY, 8, IDS)
    whole, parts = Reference(model), Reference(model)
    assert np.array_equal(whole.forward(IDS), parts.logits(parts.residual(IDS)))
    assert whole.position == parts.position == len(IDS)
    assert np.array_equal(whole.chosen[0], parts.chosen[0])


def _as_run(expected: Expected) -> LayerRun:
    return LayerRun(
        expected.residual.copy(), list(expected.sampled), list(expected.cycles), list(expected.prompt_cycles),
        False, [0.0] * len(IDS), 1.0,
    )  # fmt: skip


def test_every_difference_is_told(expected: Expected) -> None:
    good = _as_run(expected)
    assert differences(good, expected) == []
    bent = good.residual.copy()
    bent[2, 5] += 1
    for change, text in (
        ({"residual": bent}, "token 2, lane 5 of the residual stream"),
        ({"sampled": [*good.sampled[:-1], good.sampled[-1] ^ 1]}, "sampled tokens"),
        ({"cycles": [c + 1 for c in good.cycles]}, "cycles:"),
        ({"prompt_cycles": [good.prompt_cycles[0] + 1, *good.prompt_cycles[1:]]}, "cycles as a prompt"),
        ({"fault": True}, "fault"),
    ):
        (told,) = differences(dataclasses.replace(good, **cast(Any, change)), expected)
        assert text in told


def test_utilisation_counts_the_layer_alone() -> None:
    s: ModelShape = dataclasses.replace(SHAPE, vocab=1000)
    kinds = s.macs_by_kind(0)
    floor = (kinds["weight"] - 1000 * s.d + kinds["kv"] + kinds["router"]) / TINY.macs_per_cycle(8)
    assert layer_utilisation(s, TINY, 8, 0, 2 * round(floor)) == pytest.approx(floor / (2 * round(floor)))


def test_sections_go_to_the_memory_that_is_theirs(rng: np.random.Generator) -> None:
    """Rows at their address, padded to whole parts of 64 bits; what has no memory outside stays for the link."""
    cfg = LARGE
    weight, scale = f"{bank_path(cfg, Space.WEIGHT, 5)}.{ARRAY}", f"{bank_path(cfg, Space.SCALE, 0)}.{ARRAY}"

    class Model:  # a simulator's model, as far as it is asked
        memories: ClassVar = {weight: np.zeros((64, 32), np.uint8), scale: np.zeros((64, 16), np.uint8)}

    transport = SimTransport(cast(VerilatorModel, Model()))
    rows = rng.integers(0, 256, (3, 32), np.uint8)
    assert transport.place(cfg, section(Space.WEIGHT, 5, 7, rows.tobytes()))
    assert np.array_equal(Model.memories[weight][7:10], rows)
    assert Model.memories[weight].any(axis=1).sum() == 3
    assert transport.place(cfg, section(Space.SCALE, 0, 60, rows[:, :16].tobytes()))
    assert np.array_equal(Model.memories[scale][60:63], rows[:, :16])
    for space, sub in ((Space.WEIGHT, 4), (Space.COEF, 0), (Space.PROGRAM, 1), (Space.PARAM, 0)):
        assert not transport.place(cfg, section(space, sub, 0, rows.tobytes()))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--config", "huge"], "unknown config 'huge'"),
        (["--config", "tiny"], "--config tiny: its vector memory is too small"),
        (["--config", "large", "--oracle"], "transformers is not installed"),
        (["--report", "/dev/null/report.json"], "/dev/null/report.json: cannot be written"),
    ],
)
def test_bad_input(options: list[str], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = CliRunner().invoke(main, ["--no-oracle", *options])
    assert (done.exit_code, text in done.output) == (2, True), done.output


def test_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("verification.mixtral_layer.__main__.build_core", interrupt)
    report = tmp_path / "new" / "report.json"
    done = CliRunner().invoke(main, ["--no-oracle", "--report", str(report)])
    assert (done.exit_code, "interrupted" in done.output, report.exists()) == (130, True, False), done.output


@pytest.mark.slow
def test_the_cut_layer_on_large(tmp_path: Path) -> None:
    """The command itself, without transformers: RTL in Verilator, memories outside the model."""
    report = tmp_path / "report.json"
    assert run("large", "int8", 5, 2, cut=True, oracle=False, report=report) == 0
    result = json.loads(report.read_text())
    assert result["differences"] == [] and len(result["cycles"]) == 5
