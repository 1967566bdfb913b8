"""Small random Mixtral and Llama checkpoints on disk, for tests: any shape, seeded, without torch.

The same `Spec` gives the same weights on every machine, whatever the naming, sharding or order of writing:
each tensor has its own generator, seeded by the spec's seed and the tensor's name.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

Weights = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Spec:
    """A random checkpoint. `naming` is "hub", "fused", "mistral" or "llama"; the last two are dense.

    `scale` multiplies the standard deviation of every matrix, 1 / sqrt(inputs) at 1.0: large enough by
    default for logits that vary by several units and for routing that is not a coin toss.
    """

    vocab: int = 64
    d: int = 32
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int | None = None
    experts: int = 4
    top_k: int = 2
    ffn: int = 48
    context: int = 128
    window: int | None = None
    rope_theta: float = 1e4
    eps: float = 1e-5
    tied: bool = False
    naming: str = "hub"
    dtype: str = "F32"
    shards: int = 1
    scale: float = 1.5
    seed: int = 0

    @property
    def moe(self) -> bool:
        """Whether this is a Mixtral; otherwise it is dense, whatever `experts` says."""
        return self.naming in ("hub", "fused")

    def with_(self, **changes: Any) -> Spec:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def hub_shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor as the hub names them (dense: as Llama names them)."""
    head_dim = spec.head_dim or spec.d // spec.heads
    q, kv = spec.heads * head_dim, spec.kv_heads * head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (spec.vocab, spec.d)}
    for i in range(spec.layers):
        p = f"model.layers.{i}."
        shapes[p + "input_layernorm.weight"] = (spec.d,)
        shapes[p + "self_attn.q_proj.weight"] = (q, spec.d)
        shapes[p + "self_attn.k_proj.weight"] = (kv, spec.d)
        shapes[p + "self_attn.v_proj.weight"] = (kv, spec.d)
        shapes[p + "self_attn.o_proj.weight"] = (spec.d, q)
        shapes[p + "post_attention_layernorm.weight"] = (spec.d,)
        if spec.moe:
            shapes[p + "block_sparse_moe.gate.weight"] = (spec.experts, spec.d)
        for e in range(spec.experts if spec.moe else 1):
            names = ("w1", "w3", "w2") if spec.moe else ("gate_proj", "up_proj", "down_proj")
            r = f"{p}block_sparse_moe.experts.{e}." if spec.moe else p + "mlp."
            shapes[f"{r}{names[0]}.weight"] = (spec.ffn, spec.d)
            shapes[f"{r}{names[1]}.weight"] = (spec.ffn, spec.d)
            shapes[f"{r}{names[2]}.weight"] = (spec.d, spec.ffn)
    shapes["model.norm.weight"] = (spec.d,)
    if not spec.tied:
        shapes["lm_head.weight"] = (spec.vocab, spec.d)
    return shapes


def to_bfloat16(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Bit patterns of float32 values rounded to bfloat16, ties to even."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: NDArray[np.uint16]) -> NDArray[Any]:
    """Float32 values of bfloat16 bit patterns."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def make_weights(spec: Spec) -> Weights:
    """Float32 weights by hub name, already rounded to the storage type of the spec."""
    weights: Weights = {}
    for name, shape in hub_shapes(spec).items():
        rng = np.random.default_rng([spec.seed, zlib.crc32(name.encode())])
        values = rng.standard_normal(shape)
        if len(shape) == 1:
            values = 1 + 0.2 * values
        else:
            gain = 2.0 if name.startswith(("lm_head", "model.embed")) or ".gate.weight" in name else 1.0
            values *= gain * spec.scale / np.sqrt(shape[-1])
        rounded = values.astype(np.float32)
        if spec.dtype == "F16":
            rounded = rounded.astype(np.float16).astype(np.float32)
        elif spec.dtype == "BF16":
            rounded = from_bfloat16(to_bfloat16(rounded))
        weights[name] = rounded
    return weights


def checksum(weights: Weights) -> int:
    """CRC-32 over names and float32 values, to notice a change of the random generator."""
    value = 0
    for name in sorted(weights):
        value = zlib.crc32(weights[name].astype("<f4").tobytes(), zlib.crc32(name.encode(), value))
    return value


def fuse(weights: Weights, spec: Spec) -> Weights:
    """The same weights under the fused naming: gate_up_proj [E, 2f, d], the w1 rows, then the w3 rows."""
    fused = {name: value for name, value in weights.items() if "block_sparse_moe" not in name}
    for i in range(spec.layers):
        old, new = f"model.layers.{i}.block_sparse_moe.", f"model.layers.{i}.mlp."
        experts = [
            {w: weights[f"{old}experts.{e}.{w}.weight"] for w in ("w1", "w2", "w3")}
            for e in range(spec.experts)
        ]
        fused[new + "gate.weight"] = weights[old + "gate.weight"]
        fused[new + "experts.gate_up_proj"] = np.stack([np.concatenate([x["w1"], x["w3"]]) for x in experts])
        fused[new + "experts.down_proj"] = np.stack([x["w2"] for x in experts])
    return fused


def config_of(spec: Spec) -> dict[str, Any]:
    """The `config.json` of a spec."""
    kind = {"llama": "llama", "mistral": "mistral"}.get(spec.naming, "mixtral")
    config: dict[str, Any] = {
        "architectures": [f"{kind.capitalize()}ForCausalLM"],
        "model_type": kind,
        "vocab_size": spec.vocab,
        "hidden_size": spec.d,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "intermediate_size": spec.ffn,
        "max_position_embeddings": spec.context,
        "sliding_window": spec.window,
        "rms_norm_eps": spec.eps,
        "rope_theta": spec.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": spec.rope_theta},
        "tie_word_embeddings": spec.tied,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if spec.moe:
        config |= {"num_local_experts": spec.experts, "num_experts_per_tok": spec.top_k}
    return config


def write_safetensors(file: Path, weights: Weights, dtype: str = "F32") -> None:
    """One safetensors file; `dtype` is "F32", "F16" or "BF16"."""
    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    stored: Weights = {}
    for name, value in weights.items():
        kind = {"F32": "<f4", "F16": "<f2"}.get(dtype)
        stored[name] = np.ascontiguousarray(to_bfloat16(value) if kind is None else value.astype(kind))
    # numpy has no bfloat16, so the library is handed the buffers rather than arrays; `stored` keeps them
    # alive.
    specs = {
        name: safetensors.TensorSpec(
            dtype=names[dtype], shape=list(value.shape), data_ptr=value.ctypes.data, data_len=value.nbytes
        )
        for name, value in stored.items()
    }
    safetensors.serialize_file(specs, str(file), {"format": "pt"})


def write_weights(folder: Path, weights: Weights, dtype: str = "F32", shards: int = 1) -> None:
    """`model.safetensors`, or that many shards and their index."""
    if shards == 1:
        write_safetensors(folder / "model.safetensors", weights, dtype)
        return
    names = list(weights)
    weight_map: dict[str, str] = {}
    for n in range(shards):
        file = f"model-{n + 1:05d}-of-{shards:05d}.safetensors"
        part = names[n::shards]
        write_safetensors(folder / file, {name: weights[name] for name in part}, dtype)
        weight_map |= {name: file for name in part}
    index = {"metadata": {"total_size": sum(4 * w.size for w in weights.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def write_model(folder: Path, spec: Spec | None = None, **changes: Any) -> Path:
    """A whole model folder (without a tokenizer); `changes` are fields of the spec. Returns the folder."""
    spec = (spec or Spec()).with_(**changes)
    folder.mkdir(parents=True, exist_ok=True)
    weights = make_weights(spec)
    if spec.naming == "fused":
        weights = fuse(weights, spec)
    (folder / "config.json").write_text(json.dumps(config_of(spec), indent=1))
    write_weights(folder, weights, spec.dtype, spec.shards)
    return folder


def edit_config(folder: Path, **fields: Any) -> Path:
    """Change fields of a folder's `config.json`; the value `...` removes the field. Returns the folder."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    for name, value in fields.items():
        if value is ...:
            config.pop(name, None)
        else:
            config[name] = value
    file.write_text(json.dumps(config, indent=1))
    return folder


def write_tokenizer(folder: Path, vocab: int = 300) -> Path:
    """A byte-level BPE tokenizer, at most `vocab` >= 260 ids: <pad> 0, <s> 1, </s> 2. Returns the folder."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sat on the mat and the dog ran to the hill"] * 4, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
