"""Reading of Hugging Face folders: namings, storage types, shards, shapes, and every kind of bad folder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firmware.checkpoint import FIELDS, OP_KINDS, ArrayCheckpoint, Checkpoint, ModelShape, read_shape
from firmware.errors import CheckpointError, LpuError
from tests.util_models import (
    Spec,
    edit_config,
    from_bfloat16,
    fuse,
    make_weights,
    to_bfloat16,
    write_model,
    write_weights,
)


def refused(folder: Path, *words: str) -> None:
    """Opening the folder (and reading all of it) fails, and the message has all these words."""
    with pytest.raises(CheckpointError) as caught:
        ArrayCheckpoint.of(Checkpoint(folder))
    assert isinstance(caught.value, LpuError)
    for word in words:
        assert word in str(caught.value)


# ---------------------------------------------------------------------------------------------- good folders


@pytest.mark.parametrize("naming", ["hub", "fused"])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("shards", [1, 3])
def test_weights_come_back_by_canonical_name(naming: str, dtype: str, shards: int, tmp_path: Path) -> None:
    spec = Spec(naming=naming, dtype=dtype, shards=shards)
    disk = make_weights(spec)
    ckpt = Checkpoint(write_model(tmp_path, spec))
    assert np.array_equal(ckpt.embed, disk["model.embed_tokens.weight"])
    assert np.array_equal(ckpt.lm_head, disk["lm_head.weight"])
    assert np.array_equal(ckpt.final_norm, disk["model.norm.weight"])
    for i in range(spec.layers):
        p, layer = f"model.layers.{i}.", ckpt.layer(i)
        for name in "qkvo":
            assert np.array_equal(getattr(layer, name), disk[f"{p}self_attn.{name}_proj.weight"])
        assert np.array_equal(layer.attn_norm, disk[p + "input_layernorm.weight"])
        assert np.array_equal(layer.ffn_norm, disk[p + "post_attention_layernorm.weight"])
        assert layer.router is not None
        assert np.array_equal(layer.router, disk[p + "block_sparse_moe.gate.weight"])
        for e in range(spec.experts):
            r = f"{p}block_sparse_moe.experts.{e}."
            for stacked, alone, name in zip(
                (layer.w_gate, layer.w_up, layer.w_down), layer.expert(e), ("w1", "w3", "w2"), strict=True
            ):
                assert stacked.dtype == np.float32
                assert np.array_equal(stacked[e], disk[f"{r}{name}.weight"])
                assert np.array_equal(alone, stacked[e])


@pytest.mark.parametrize("naming", ["llama", "mistral"])
def test_dense_models_are_one_expert(naming: str, tmp_path: Path) -> None:
    spec = Spec(naming=naming, tied=True)
    ckpt = Checkpoint(write_model(tmp_path, spec))
    layer = ckpt.layer(1)
    assert (ckpt.shape.experts, ckpt.shape.top_k, ckpt.shape.has_router) == (1, 1, False)
    assert layer.router is None and layer.w_gate.shape == (1, spec.ffn, spec.d)
    assert np.array_equal(layer.w_down[0], make_weights(spec)["model.layers.1.mlp.down_proj.weight"])
    assert np.array_equal(ckpt.lm_head, ckpt.embed)


def test_single_expert_mixtral_has_no_router(tmp_path: Path) -> None:
    assert Checkpoint(write_model(tmp_path, experts=1, top_k=1)).layer(0).router is None


def test_bfloat16_conversion_rounds_to_even() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -3.140625, 1e-30], np.float32)
    back = from_bfloat16(to_bfloat16(values))
    assert back.tolist()[:4] == [1.0, 1.0, 1.015625, -3.140625]
    assert abs(back[4] / values[4] - 1) < 2**-8


def test_rope_theta_is_found_in_every_place(tmp_path: Path) -> None:
    folder = write_model(tmp_path, rope_theta=12345.0)
    assert read_shape(folder).rope_theta == 12345.0
    assert read_shape(edit_config(folder, rope_theta=...)).rope_theta == 12345.0
    assert read_shape(edit_config(folder, rope_theta=777, rope_parameters=...)).rope_theta == 777.0
    assert read_shape(edit_config(folder, rope_theta=..., rope_scaling={"type": "default"})).rope_theta == 1e6


def test_defaults_are_those_of_hugging_face(tmp_path: Path) -> None:
    folder = edit_config(write_model(tmp_path), head_dim=None, rms_norm_eps=..., max_position_embeddings=...)
    shape = read_shape(folder)
    assert (shape.head_dim, shape.eps, shape.context, shape.window) == (8, 1e-5, 131072, None)
    assert read_shape(edit_config(folder, num_key_value_heads=None)).kv_heads == 4
    assert read_shape(edit_config(folder, architectures=...)).experts == 4  # model_type says enough
    shape = read_shape(edit_config(folder, eos_token_id=[2, 7, 900], bos_token_id=None))
    assert (shape.bos, shape.eos) == (None, (2, 7))


def test_harmless_fields_are_ignored(tmp_path: Path) -> None:
    folder = edit_config(
        write_model(tmp_path),
        attention_bias=False,
        router_jitter_noise=0.1,
        use_cache=True,
        transformers_version="x",
    )
    assert Checkpoint(folder).shape.vocab == 64


def test_a_tied_head_that_equals_the_embedding_is_accepted(tmp_path: Path) -> None:
    spec = Spec(tied=True)
    folder = write_model(tmp_path, spec)
    weights = make_weights(spec)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    write_weights(folder, weights)
    assert np.array_equal(Checkpoint(folder).lm_head, weights["lm_head.weight"])
    weights["lm_head.weight"] = weights["lm_head.weight"] + 1
    write_weights(folder, weights)
    refused(folder, "lm_head.weight", "tie_word_embeddings")


# ------------------------------------------------------------------------------------------------- counting


@pytest.mark.parametrize("changes", [{}, {"tied": True}, {"naming": "llama"}, {"top_k": 3, "experts": 8}])
def test_parameters_are_counted_as_stored(changes: dict[str, Any], tmp_path: Path) -> None:
    spec = Spec().with_(**changes)
    shape = read_shape(write_model(tmp_path, spec))
    stored = sum(w.size for w in make_weights(spec).values())
    assert shape.parameters_total == stored
    unused = spec.layers * (shape.experts - shape.top_k) * 3 * spec.ffn * spec.d
    assert shape.parameters_active == stored - unused


def test_useful_macs_of_the_board_model() -> None:
    """d 96, 2 layers, 8 experts top-2 of 96, 3 heads of 32 on one KV head, V 512."""
    shape = ModelShape(512, 96, 2, 3, 1, 32, 8, 2, 96, 256, None, 1e4, 1e-5, True, 1, (2,))
    assert shape.macs(64) == 235_392
    assert shape.parameters_total == 542_688
    assert shape.macs_by_kind(64) == {
        "weight": 2 * (96 * 96 * 2 + 32 * 96 * 2 + 2 * 3 * 96 * 96) + 512 * 96,
        "router": 2 * 8 * 96,
        "kv": 2 * 2 * 96 * 65,
    }
    assert set(shape.macs_by_op(0)) == set(OP_KINDS)


def test_keys_stop_growing_at_the_window(tmp_path: Path) -> None:
    shape = read_shape(write_model(tmp_path, window=7))
    assert [shape.keys(p) for p in (0, 5, 6, 7, 127)] == [1, 6, 7, 7, 7]
    with pytest.raises(ValueError):
        shape.keys(128)


# ----------------------------------------------------------------------------------------------- bad configs


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("architectures", ["GPT2LMHeadModel"], ["architectures", "GPT2LMHeadModel", "MixtralForCausalLM"]),
        ("architectures", 5, ["field architectures"]),
        ("architectures", [[]], ["field architectures"]),
        ("architectures", "MixtralForCausalLM", ["field architectures"]),
        ("hidden_size", ..., ["hidden_size", "missing"]),
        ("hidden_size", "64", ["hidden_size", "integer"]),
        ("hidden_act", "gelu", ["hidden_act", "gelu"]),
        ("attention_bias", True, ["attention_bias"]),
        ("mlp_bias", True, ["mlp_bias"]),
        ("quantization_config", {"bits": 4}, ["quantization_config"]),
        ("rope_scaling", {"type": "linear", "factor": 2.0}, ["rope_scaling", "linear"]),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}, ["rope_parameters", "yarn"]),
        ("rope_theta", 5e5, ["rope_theta", "contradicting"]),
        ("rope_theta", "big", ["rope_theta", "number"]),
        ("rms_norm_eps", None, ["rms_norm_eps"]),
        ("rms_norm_eps", -1.0, ["field rms_norm_eps", "positive"]),
        ("rms_norm_eps", 10**400, ["field rms_norm_eps", "out of range"]),
        ("rms_norm_eps", float("nan"), ["field rms_norm_eps", "out of range"]),
        ("rope_theta", 10**400, ["field rope_theta", "out of range"]),
        ("num_attention_heads", -3, ["num_attention_heads", "-3"]),
        ("num_attention_heads", 0, ["num_attention_heads", "0"]),
        ("num_key_value_heads", 3, ["field num_key_value_heads", "heads", "3"]),
        ("num_experts_per_tok", 5, ["field num_experts_per_tok", "top 5 of 4"]),
        ("num_hidden_layers", 0, ["field num_hidden_layers", "at least 1", "0"]),
        ("vocab_size", -1, ["field vocab_size", "at least 1"]),
        ("head_dim", 7, ["field head_dim", "odd"]),
        ("sliding_window", 0, ["field sliding_window"]),
        ("layer_types", ["full_attention", "sliding_attention"], ["layer_types"]),
        ("layer_types", 5, ["field layer_types"]),
        ("layer_types", [[]], ["field layer_types"]),
        ("partial_rotary_factor", 0.5, ["partial_rotary_factor"]),
    ],
    ids=lambda v: str(v)[:30],
)
def test_unsupported_fields_are_named(field: str, value: Any, words: list[str], tmp_path: Path) -> None:
    refused(edit_config(write_model(tmp_path), **{field: value}), "config.json", *words)


def test_a_message_names_the_file_once(tmp_path: Path) -> None:
    for fields in ({"num_hidden_layers": "two"}, {"num_hidden_layers": 0}):
        with pytest.raises(CheckpointError) as caught:
            read_shape(edit_config(write_model(tmp_path), **fields))
        assert str(caught.value).count("config.json: field num_hidden_layers: ") == 1
        assert str(caught.value).count("config.json") == 1


def test_a_model_type_that_is_no_text(tmp_path: Path) -> None:
    refused(edit_config(write_model(tmp_path), architectures=..., model_type=[]), "field architectures: missing")


def test_fields_are_those_of_the_shape() -> None:
    assert list(FIELDS) == [f.name for f in dataclasses.fields(ModelShape)]


def test_missing_or_broken_config(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere", "no such folder")
    refused(tmp_path, "config.json", "no such file")
    (tmp_path / "config.json").write_text("{")
    refused(tmp_path, "config.json", "JSON")
    (tmp_path / "config.json").write_text("[]")
    refused(tmp_path, "config.json", "object")
    (tmp_path / "config.json").write_text("[" * 100_000)
    refused(tmp_path, "config.json", "JSON")
    (tmp_path / "config.json").write_text('{"hidden_size": 1' + "0" * 5000 + "}")
    refused(tmp_path, "config.json", "JSON")


# ----------------------------------------------------------------------------------------------- bad weights


def test_missing_weights(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "model.safetensors").unlink()
    refused(folder, "model.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, -1])
def test_truncated_weights(keep: float, tmp_path: Path) -> None:
    file = write_model(tmp_path) / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data))] if keep == 0.5 else data[: int(keep)])
    refused(tmp_path, "model.safetensors", "truncated")


def test_header_damage(tmp_path: Path) -> None:
    file = write_model(tmp_path) / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[8] = ord("x")
    file.write_bytes(data)
    refused(tmp_path, "model.safetensors", "header")
    data[8] = ord("{")
    file.write_bytes(bytes(data).replace(b'"shape":[64,32]', b'"shape":[63,32]', 1))
    refused(tmp_path, "takes 8064 bytes, found 8192")


def test_missing_shard_and_wrong_index(tmp_path: Path) -> None:
    folder = write_model(tmp_path, shards=2)
    index = folder / "model.safetensors.index.json"
    good = json.loads(index.read_text())
    (folder / "model-00002-of-00002.safetensors").rename(folder / "kept")
    refused(folder, "model-00002-of-00002.safetensors", "no such file")
    (folder / "kept").rename(folder / "model-00002-of-00002.safetensors")
    swapped = dict(good["weight_map"])
    name = next(iter(swapped))
    swapped[name] = "model-00002-of-00002.safetensors"
    index.write_text(json.dumps({"weight_map": swapped}))
    refused(folder, name, "promises")
    index.write_text(json.dumps({"weight_map": {name: "../elsewhere.safetensors"}}))
    refused(folder, "plain file name")
    index.write_text(json.dumps({}))
    refused(folder, "weight_map")


def change_tensor(folder: Path, name: str, value: Any) -> Path:
    weights = make_weights(Spec())
    if value is None:
        del weights[name]
    else:
        weights[name] = value
    write_weights(folder, weights)
    return folder


def test_wrong_tensors_are_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    name = "model.layers.1.block_sparse_moe.experts.2.w2.weight"
    refused(change_tensor(folder, name, None), name, "missing")
    more = write_model(tmp_path / "more")
    refused(edit_config(more, num_hidden_layers=10**12), "model.layers.2.input_layernorm.weight is missing")
    refused(
        change_tensor(folder, name, np.zeros((48, 32))), name, "expected shape [32, 48]", "found [48, 32]"
    )
    bias = "model.layers.0.self_attn.q_proj.bias"
    refused(change_tensor(folder, bias, np.zeros(32)), bias)
    change_tensor(folder, "model.layers.0.self_attn.rotary_emb.inv_freq", np.zeros(4))
    assert Checkpoint(folder).shape.d == 32
    refused(
        edit_config(folder, intermediate_size=47), "w1.weight", "expected shape [47, 32]", "found [48, 32]"
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.block_sparse_moe.experts.3.w3.weight"])
def test_values_that_are_no_numbers_are_named(bad: float, name: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    value = make_weights(Spec())[name].copy()
    value.flat[3] = bad
    refused(change_tensor(folder, name, value), name, "1 of", "NaN or infinite")


def test_wrong_storage_type_is_named(tmp_path: Path) -> None:
    file = write_model(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes().replace(b'"dtype":"F32"', b'"dtype":"I32"'))
    refused(tmp_path, "dtype I32", "BF16")


def test_experts_missing_under_both_namings(tmp_path: Path) -> None:
    folder = write_model(tmp_path, naming="fused")
    weights = fuse(make_weights(Spec()), Spec())
    del weights["model.layers.1.mlp.experts.down_proj"]
    write_weights(folder, weights)
    refused(folder, "model.layers.1.mlp.experts.down_proj", "missing")
