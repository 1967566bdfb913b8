"""Reader of Hugging Face checkpoint folders of the Mixtral family.

A folder holds `config.json` and either `model.safetensors` or `model.safetensors.index.json` with its shards.
Mixtral is read under both expert namings found on disk; a dense Llama or Mistral checkpoint is the case
`experts == 1` (no router, the one expert is always chosen).

Opening a folder reads `config.json` and the safetensors headers only, and checks every name, dtype, shape and
byte range against what the configuration calls for. Values stay in memory-mapped files until a tensor is
asked for; they come back as float32 (exact for the three storage types float32, float16 and bfloat16).

The safetensors layout is read here directly (8 bytes little-endian header length, JSON header, raw data; see
https://github.com/huggingface/safetensors, "Format"), because numpy has no bfloat16 and because a damaged
file has to be named with what is wrong in it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware.errors import CheckpointError

F32 = NDArray[np.float32]

# Which operands an operation multiplies; the width of each kind is the hardware configuration's choice.
OP_KINDS: dict[str, str] = {
    "q": "weight",
    "k": "weight",
    "v": "weight",
    "scores": "kv",
    "pv": "kv",
    "o": "weight",
    "router": "router",
    "gate": "weight",
    "up": "weight",
    "down": "weight",
    "lm_head": "weight",
}

# Defaults of the Hugging Face configuration classes, used where config.json leaves a field out.
_COMMON: dict[str, Any] = {
    "hidden_act": "silu",
    "head_dim": None,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "sliding_window": None,
}
_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "MixtralForCausalLM": {
        **_COMMON,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
    },
    "MistralForCausalLM": {
        **_COMMON,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
        "sliding_window": 4096,
    },
    "LlamaForCausalLM": {
        **_COMMON,
        "num_key_value_heads": None,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
    },
}
_MODEL_TYPES = {"mixtral": "MixtralForCausalLM", "mistral": "MistralForCausalLM", "llama": "LlamaForCausalLM"}

FIELDS: dict[str, str] = {
    "vocab": "vocab_size",
    "d": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "experts": "num_local_experts",
    "top_k": "num_experts_per_tok",
    "ffn": "intermediate_size",
    "context": "max_position_embeddings",
    "window": "sliding_window",
    "rope_theta": "rope_theta",
    "eps": "rms_norm_eps",
    "tied": "tie_word_embeddings",
    "bos": "bos_token_id",
    "eos": "eos_token_id",
}
"""Fields of a `ModelShape` as `config.json` names them, which is how every message names them."""


class _ShapeError(CheckpointError):
    """A shape that no model has, before the file it was read from is known."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"field {FIELDS[field]}: {text}")


@dataclass(frozen=True)
class ModelShape:
    """What a model is, apart from its weights. Sizes count elements, `window` and `context` count tokens.

    `window` is None or the number of keys (the query's own included) that a query sees. `experts == 1`
    means a dense feed-forward network without a router. `bos` is None where the model has no start token.
    """

    vocab: int
    d: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    experts: int
    top_k: int
    ffn: int
    context: int
    window: int | None
    rope_theta: float
    eps: float
    tied: bool
    bos: int | None
    eos: tuple[int, ...]

    def __post_init__(self) -> None:
        sizes = "vocab d layers heads kv_heads head_dim experts top_k ffn context"
        for name in sizes.split():
            if getattr(self, name) < 1:
                raise _ShapeError(name, f"must be at least 1, found {getattr(self, name)}")
        if self.heads % self.kv_heads:
            raise _ShapeError("kv_heads", f"{self.heads} heads do not divide into {self.kv_heads} key/value heads")
        if self.head_dim % 2:
            raise _ShapeError("head_dim", f"head size {self.head_dim} is odd; RoPE turns pairs")
        if self.top_k > self.experts:
            raise _ShapeError("top_k", f"top {self.top_k} of {self.experts} experts is not possible")
        if self.window is not None and self.window < 1:
            raise _ShapeError("window", f"must be at least 1, or null, found {self.window}")
        for name in ("rope_theta", "eps"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise _ShapeError(name, f"must be a positive number, found {value}")
        for name, tokens in (("bos", () if self.bos is None else (self.bos,)), ("eos", self.eos)):
            for token in tokens:
                if not 0 <= token < self.vocab:
                    raise _ShapeError(name, f"token id {token} is outside the vocabulary of {self.vocab}")

    @property
    def q_dim(self) -> int:
        """Width of all query heads side by side, heads * head_dim."""
        return self.heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Width of all key (or value) heads side by side, kv_heads * head_dim."""
        return self.kv_heads * self.head_dim

    @property
    def has_router(self) -> bool:
        """Whether there is a choice of experts at all."""
        return self.experts > 1

    def _parameters(self, experts: int) -> int:
        attention = 2 * self.q_dim * self.d + 2 * self.kv_dim * self.d
        router = self.experts * self.d if self.has_router else 0
        layer = 2 * self.d + attention + router + experts * 3 * self.ffn * self.d
        return self.vocab * self.d * (1 if self.tied else 2) + self.layers * layer + self.d

    @property
    def parameters_total(self) -> int:
        """Number of weights stored; tied embeddings count once."""
        return self._parameters(self.experts)

    @property
    def parameters_active(self) -> int:
        """Number of weights of the model that one token can touch: all but the experts not chosen."""
        return self._parameters(self.top_k)

    def keys(self, position: int) -> int:
        """Number of keys that the query at `position` (from 0) attends to."""
        if not 0 <= position < self.context:
            raise ValueError(f"position {position} outside the context of {self.context}")
        return position + 1 if self.window is None else min(position + 1, self.window)

    def macs_by_op(self, position: int) -> dict[str, int]:
        """Useful multiply-accumulates of the token at `position`, per operation, summed over the layers.

        Keys are those of `OP_KINDS`, in order of execution. No padding is counted; norms, RoPE, softmax and
        sampling are not products of an array and count nothing.
        """
        kv = self.q_dim * self.keys(position)
        expert = self.top_k * self.ffn * self.d
        per_layer = {
            "q": self.q_dim * self.d,
            "k": self.kv_dim * self.d,
            "v": self.kv_dim * self.d,
            "scores": kv,
            "pv": kv,
            "o": self.d * self.q_dim,
            "router": self.experts * self.d if self.has_router else 0,
            "gate": expert,
            "up": expert,
            "down": expert,
        }
        return {name: self.layers * macs for name, macs in per_layer.items()} | {
            "lm_head": self.vocab * self.d
        }

    def macs_by_kind(self, position: int) -> dict[str, int]:
        """`macs_by_op` summed by operand kind: "weight", "router", "kv"."""
        total = {"weight": 0, "router": 0, "kv": 0}
        for name, macs in self.macs_by_op(position).items():
            total[OP_KINDS[name]] += macs
        return total

    def macs(self, position: int) -> int:
        """Useful multiply-accumulates of the token at `position`, all operations."""
        return sum(self.macs_by_op(position).values())


# ---------------------------------------------------------------------------------------------- config.json


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; a Hugging Face model folder is needed") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: a JSON object is needed, found {type(value).__name__}")
    return value


class _Config:
    """Fields of `config.json` by type, each failure naming file and field."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.raw = _read_json(path)
        kind = self.raw.get("model_type")
        named = self.raw.get("architectures") or [name for key, name in _MODEL_TYPES.items() if key == kind]
        if named not in [[name] for name in _ARCHITECTURES]:
            raise self.error(
                "architectures",
                f"{named or 'missing'} is not supported; supported are {', '.join(sorted(_ARCHITECTURES))}",
            )
        self.architecture: str = named[0]
        self.defaults = _ARCHITECTURES[self.architecture]

    def error(self, field: str, text: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: field {field}: {text}")

    def get(self, field: str) -> Any:
        if field in self.raw:
            return self.raw[field]
        if field in self.defaults:
            return self.defaults[field]
        raise self.error(field, "missing")

    def integer(self, field: str) -> int:
        value = self.get(field)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(field, f"an integer is needed, found {value!r}")
        return value

    def number(self, field: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(field, f"a number is needed, found {value!r}")
        if not abs(value) <= sys.float_info.max:  # nor infinite, nor NaN
            raise self.error(field, f"out of range: {value!r}")
        return float(value)

    def optional(self, field: str) -> int | None:
        return None if self.get(field) is None else self.integer(field)

    def tokens(self, field: str) -> tuple[int, ...]:
        value = self.get(field)
        items = value if isinstance(value, list) else [] if value is None else [value]
        if any(isinstance(item, bool) or not isinstance(item, int) for item in items):
            raise self.error(field, f"a token id or a list of them is needed, found {value!r}")
        return tuple(item for item in items if item >= 0)

    def rope_theta(self) -> float:
        """RoPE base: 4.x writes `rope_theta`, 5.x `rope_parameters.rope_theta`; both may be there."""
        found: dict[str, float] = {}
        if self.raw.get("rope_theta") is not None:
            found["rope_theta"] = self.number("rope_theta", self.raw["rope_theta"])
        for field in ("rope_scaling", "rope_parameters"):
            group = self.raw.get(field)
            if group is None:
                continue
            if not isinstance(group, dict):
                raise self.error(field, f"an object is needed, found {group!r}")
            kind = group.get("rope_type", group.get("type", "default"))
            if kind != "default":
                raise self.error(f"{field}.rope_type", f"{kind!r} is not supported, only 'default'")
            if group.get("rope_theta") is not None:
                found[f"{field}.rope_theta"] = self.number(f"{field}.rope_theta", group["rope_theta"])
            if group.get("partial_rotary_factor") not in (None, 1, 1.0):
                raise self.error(f"{field}.partial_rotary_factor", "only 1.0 is supported")
        if len(set(found.values())) > 1:
            raise self.error("rope_theta", f"contradicting values {found}")
        return next(iter(found.values()), float(self.defaults["rope_theta"]))

    def check_supported(self) -> None:
        """Refuse every field that would change the arithmetic; other unknown fields are harmless."""
        if self.get("hidden_act") not in ("silu", "swish"):
            raise self.error("hidden_act", f"{self.get('hidden_act')!r} is not supported, only 'silu'")
        for field in ("attention_bias", "mlp_bias"):
            if self.raw.get(field):
                raise self.error(field, "true is not supported; linear layers have no bias")
        if self.raw.get("quantization_config") is not None:
            raise self.error("quantization_config", "already quantised weights are not supported")
        if self.raw.get("partial_rotary_factor") not in (None, 1, 1.0):
            raise self.error("partial_rotary_factor", "only 1.0 is supported")
        types = self.raw.get("layer_types")
        uniform = "full_attention" if self.get("sliding_window") is None else "sliding_attention"
        if types is not None and not (isinstance(types, list) and types and all(t == uniform for t in types)):
            raise self.error("layer_types", f"only {uniform!r} in every layer is supported here")

    def shape(self) -> ModelShape:
        self.check_supported()
        d, heads = self.integer("hidden_size"), self.integer("num_attention_heads")
        kv_heads, head_dim = self.optional("num_key_value_heads"), self.optional("head_dim")
        if head_dim is None and (heads < 1 or d % heads):
            raise self.error("head_dim", f"null, and hidden_size {d} does not divide by num_attention_heads {heads}")
        moe = self.architecture == "MixtralForCausalLM"
        bos = self.tokens("bos_token_id")
        try:
            return ModelShape(
                vocab=self.integer("vocab_size"),
                d=d,
                layers=self.integer("num_hidden_layers"),
                heads=heads,
                kv_heads=heads if kv_heads is None else kv_heads,
                head_dim=d // heads if head_dim is None else head_dim,
                experts=self.integer("num_local_experts") if moe else 1,
                top_k=self.integer("num_experts_per_tok") if moe else 1,
                ffn=self.integer("intermediate_size"),
                context=self.integer("max_position_embeddings"),
                # Llama has no such field: a stray one must not change the mask.
                window=None if self.architecture == "LlamaForCausalLM" else self.optional("sliding_window"),
                rope_theta=self.rope_theta(),
                eps=self.number("rms_norm_eps", self.get("rms_norm_eps")),
                tied=bool(self.get("tie_word_embeddings")),
                bos=bos[0] if bos and bos[0] < self.integer("vocab_size") else None,
                # Default ids that lie outside a small vocabulary belong to no token of it.
                eos=tuple(t for t in self.tokens("eos_token_id") if t < self.integer("vocab_size")),
            )
        except _ShapeError as error:
            raise CheckpointError(f"{self.path}: {error}") from None


def read_shape(folder: str | Path) -> ModelShape:
    """Shape of the model in a Hugging Face folder, from `config.json` alone.

    Raises CheckpointError naming the file and the field.
    """
    return _Config(Path(folder) / "config.json").shape()


# ---------------------------------------------------------------------------------------------- safetensors

_DTYPES: dict[str, Any] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


@dataclass(frozen=True)
class _Entry:
    """Where one tensor lies: file, storage type, shape, and byte offset in the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def load(self, name: str, index: int | None = None) -> F32:
        """Values as float32; `index` reads one slice of the first axis only. Checks for NaN and infinity."""
        shape, offset, storage = self.shape, self.offset, _DTYPES[self.dtype]
        if index is not None:
            shape = shape[1:]
            offset += index * math.prod(shape) * storage.itemsize
        raw = np.memmap(self.file, dtype=storage, mode="r", offset=offset, shape=shape)
        if self.dtype == "BF16":  # bfloat16 is the upper half of a float32
            values = (np.asarray(raw).astype(np.uint32) << np.uint32(16)).view(np.float32)
        else:
            values = np.array(raw, dtype=np.float32)
        bad = values.size - int(np.count_nonzero(np.isfinite(values)))
        if bad:
            raise CheckpointError(
                f"{self.file}: tensor {name}: {bad} of {values.size} values are NaN or infinite"
            )
        return values


def _read_header(file: Path) -> dict[str, _Entry]:
    """All tensors of one safetensors file, after checking that the bytes promised are there."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > size - 8:
                raise CheckpointError(
                    f"{file}: truncated or not safetensors: the header of {length} bytes does not fit "
                    f"a file of {size} bytes; copy or download the file again"
                )
            header = json.loads(stream.read(length))
    except FileNotFoundError:
        raise CheckpointError(f"{file}: no such file; the checkpoint is incomplete") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: safetensors header cannot be read: {error}") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{file}: safetensors header is not a JSON object")
    entries: dict[str, _Entry] = {}
    for name, item in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape = str(item["dtype"]), tuple(int(n) for n in item["shape"])
            begin, end = (int(n) for n in item["data_offsets"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise CheckpointError(f"{file}: tensor {name}: damaged header entry {item!r}") from None
        if dtype in _DTYPES:
            want = math.prod(shape) * _DTYPES[dtype].itemsize
            if begin < 0 or end - begin != want:
                raise CheckpointError(
                    f"{file}: tensor {name}: {dtype} {list(shape)} takes {want} bytes, found {end - begin}"
                )
        if 8 + length + end > size:
            raise CheckpointError(
                f"{file}: truncated: tensor {name} ends at byte {8 + length + end} of {size}; "
                f"copy or download the file again"
            )
        entries[name] = _Entry(file, dtype, shape, 8 + length + begin)
    return entries


def _read_entries(folder: Path) -> dict[str, _Entry]:
    """All tensors of a folder, from one file or from the shards that the index names."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if not index.exists():
        if not single.exists():
            raise CheckpointError(
                f"{folder}: neither model.safetensors nor model.safetensors.index.json is there; "
                f"other weight formats are not read"
            )
        return _read_header(single)
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(f, str) for f in weight_map.values()):
        raise CheckpointError(f"{index}: field weight_map: an object of tensor name to file name is needed")
    for name in set(weight_map.values()):
        if Path(name).name != name:
            raise CheckpointError(f"{index}: shard {name!r} must be a plain file name of the same folder")
    shards = {name: _read_header(folder / name) for name in sorted(set(weight_map.values()))}
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            raise CheckpointError(
                f"{folder / shard}: tensor {name} is missing, though {index.name} promises it"
            )
    return {name: shards[shard][name] for name, shard in weight_map.items()}


# -------------------------------------------------------------------------------------------------- weights


class Layer:
    """Weights of one layer as float32, each read from disk when first touched and kept with this object.

    Matrices are [outputs, inputs], as on disk. Raises CheckpointError for NaN or infinite values.
    """

    def __init__(self, owner: Checkpoint, index: int) -> None:
        self._owner = owner
        self.index = index

    def _load(self, name: str) -> F32:
        return self._owner.tensor(f"model.layers.{self.index}.{name}.weight")

    @cached_property
    def attn_norm(self) -> F32:
        """[d], gain of the norm in front of attention."""
        return self._load("input_layernorm")

    @cached_property
    def q(self) -> F32:
        """[heads * head_dim, d]"""
        return self._load("self_attn.q_proj")

    @cached_property
    def k(self) -> F32:
        """[kv_heads * head_dim, d]"""
        return self._load("self_attn.k_proj")

    @cached_property
    def v(self) -> F32:
        """[kv_heads * head_dim, d]"""
        return self._load("self_attn.v_proj")

    @cached_property
    def o(self) -> F32:
        """[d, heads * head_dim]"""
        return self._load("self_attn.o_proj")

    @cached_property
    def ffn_norm(self) -> F32:
        """[d], gain of the norm in front of router and experts."""
        return self._load("post_attention_layernorm")

    @cached_property
    def router(self) -> F32 | None:
        """[experts, d], or None where there is one expert only."""
        if not self._owner.shape.has_router:
            return None
        return self._load("mlp.gate" if self._owner.fused else "block_sparse_moe.gate")

    def expert(self, e: int) -> tuple[F32, F32, F32]:
        """(gate [ffn, d], up [ffn, d], down [d, ffn]) of expert `e`, read from disk at every call."""
        return self._owner.expert(self.index, e)

    @cached_property
    def _experts(self) -> tuple[F32, F32, F32]:
        each = [self.expert(e) for e in range(self._owner.shape.experts)]
        return np.stack([w[0] for w in each]), np.stack([w[1] for w in each]), np.stack([w[2] for w in each])

    @property
    def w_gate(self) -> F32:
        """[experts, ffn, d] (w1)"""
        return self._experts[0]

    @property
    def w_up(self) -> F32:
        """[experts, ffn, d] (w3)"""
        return self._experts[1]

    @property
    def w_down(self) -> F32:
        """[experts, d, ffn] (w2)"""
        return self._experts[2]


class Checkpoint:
    """A Hugging Face model folder: `shape`, `path`, and weights by their canonical names.

    Raises CheckpointError when opened if a file, field or tensor is missing, damaged or unsupported, and when
    a tensor is read if it holds NaN or infinity. ``context``: use so many positions at most; a checkpoint that
    allows more is cut to it, as `shape.context` then says.
    """

    def __init__(self, folder: str | Path, context: int | None = None) -> None:
        self.path = Path(folder)
        if not self.path.is_dir():
            raise CheckpointError(f"{self.path}: no such folder; a Hugging Face model folder is needed")
        config = _Config(self.path / "config.json")
        self.shape = config.shape()
        if context is not None and context < self.shape.context:
            self.shape = dataclasses.replace(self.shape, context=context)
        self.architecture = config.architecture
        self._entries = _read_entries(self.path)
        self._moe = self.architecture == "MixtralForCausalLM"
        # Both namings are found on disk: the hub's, and the fused one that transformers 5 holds in memory.
        self.fused = self._moe and "model.layers.0.mlp.experts.gate_up_proj" in self._entries
        self._check_tensors()

    def _expected(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor that the configuration calls for."""
        s = self.shape
        yield "model.embed_tokens.weight", (s.vocab, s.d)
        for i in range(s.layers):
            p = f"model.layers.{i}."
            yield p + "input_layernorm.weight", (s.d,)
            yield p + "self_attn.q_proj.weight", (s.q_dim, s.d)
            yield p + "self_attn.k_proj.weight", (s.kv_dim, s.d)
            yield p + "self_attn.v_proj.weight", (s.kv_dim, s.d)
            yield p + "self_attn.o_proj.weight", (s.d, s.q_dim)
            yield p + "post_attention_layernorm.weight", (s.d,)
            if not self._moe:
                yield p + "mlp.gate_proj.weight", (s.ffn, s.d)
                yield p + "mlp.up_proj.weight", (s.ffn, s.d)
                yield p + "mlp.down_proj.weight", (s.d, s.ffn)
            elif self.fused:
                yield p + "mlp.gate.weight", (s.experts, s.d)
                yield p + "mlp.experts.gate_up_proj", (s.experts, 2 * s.ffn, s.d)
                yield p + "mlp.experts.down_proj", (s.experts, s.d, s.ffn)
            else:
                yield p + "block_sparse_moe.gate.weight", (s.experts, s.d)
                for e in range(s.experts):
                    yield f"{p}block_sparse_moe.experts.{e}.w1.weight", (s.ffn, s.d)
                    yield f"{p}block_sparse_moe.experts.{e}.w2.weight", (s.d, s.ffn)
                    yield f"{p}block_sparse_moe.experts.{e}.w3.weight", (s.ffn, s.d)
        yield "model.norm.weight", (s.d,)
        if not s.tied:
            yield "lm_head.weight", (s.vocab, s.d)

    def _check_tensors(self) -> None:
        # Up to the first that is missing: a configuration may call for any number.
        missing = next((name for name, _ in self._expected() if name not in self._entries), None)
        if missing:
            raise CheckpointError(f"{self.path}: tensor {missing} is missing")
        expected = dict(self._expected())
        for name, shape in expected.items():
            entry = self._entries[name]
            if entry.dtype not in _DTYPES:
                raise CheckpointError(
                    f"{entry.file}: tensor {name}: dtype {entry.dtype} is not supported, "
                    f"expected F32, F16 or BF16"
                )
            if entry.shape != shape:
                raise CheckpointError(
                    f"{entry.file}: tensor {name}: expected shape {list(shape)}, found {list(entry.shape)}"
                )
        for name, entry in self._entries.items():
            # A tensor nobody reads would silently change the model (a bias, a further norm); two kinds are
            # safe.
            if name not in expected and not name.endswith("rotary_emb.inv_freq") and name != "lm_head.weight":
                raise CheckpointError(
                    f"{entry.file}: tensor {name} is not part of a {self.architecture} model here"
                )
        extra = self._entries.get("lm_head.weight") if self.shape.tied else None
        if extra is not None and not (
            extra.shape == expected["model.embed_tokens.weight"]
            and extra.dtype in _DTYPES
            and np.array_equal(extra.load("lm_head.weight"), self.embed)
        ):
            raise CheckpointError(
                f"{extra.file}: tensor lm_head.weight differs from the embedding, but config.json says "
                f"tie_word_embeddings; set it to false"
            )

    @property
    def files(self) -> list[Path]:
        """The safetensors files that hold the tensors, sorted."""
        return sorted({entry.file for entry in self._entries.values()})

    def tensor(self, name: str, index: int | None = None) -> F32:
        """One tensor by its name on disk as float32; `index` picks one slice of its first axis."""
        return self._entries[name].load(name, index)

    def stored_dtype(self, name: str) -> str:
        """Storage type of a tensor by its name on disk: "F32", "F16" or "BF16"."""
        return self._entries[name].dtype

    @property
    def embed(self) -> F32:
        """[vocab, d], read from disk at every access."""
        return self.tensor("model.embed_tokens.weight")

    @property
    def final_norm(self) -> F32:
        """[d]"""
        return self.tensor("model.norm.weight")

    @property
    def lm_head(self) -> F32:
        """[vocab, d]; the embedding itself where they are tied."""
        return self.embed if self.shape.tied else self.tensor("lm_head.weight")

    def layer(self, i: int) -> Layer:
        """Weights of layer `i`, lazily; keep the object to keep what it has read."""
        if not 0 <= i < self.shape.layers:
            raise IndexError(f"layer {i} of {self.shape.layers}")
        return Layer(self, i)

    def expert(self, i: int, e: int) -> tuple[F32, F32, F32]:
        """(gate [ffn, d], up [ffn, d], down [d, ffn]) of expert `e` in layer `i`, and of no other."""
        p = f"model.layers.{i}."
        if not self._moe:
            gate, up, down = (self.tensor(f"{p}mlp.{n}_proj.weight") for n in ("gate", "up", "down"))
        elif self.fused:
            gate, up = np.split(self.tensor(p + "mlp.experts.gate_up_proj", e), 2)
            down = self.tensor(p + "mlp.experts.down_proj", e)
        else:
            p += f"block_sparse_moe.experts.{e}."
            gate, up, down = (self.tensor(f"{p}{n}.weight") for n in ("w1", "w3", "w2"))
        return gate, up, down


@dataclass
class ArrayLayer:
    """Weights of one layer in memory; the same names and shapes as `Layer`."""

    attn_norm: F32
    q: F32
    k: F32
    v: F32
    o: F32
    ffn_norm: F32
    router: F32 | None
    w_gate: F32
    w_up: F32
    w_down: F32

    def expert(self, e: int) -> tuple[F32, F32, F32]:
        """(gate [ffn, d], up [ffn, d], down [d, ffn]) of expert `e`."""
        return self.w_gate[e], self.w_up[e], self.w_down[e]


@dataclass
class ArrayCheckpoint:
    """A model in memory with the interface of `Checkpoint`, so that weights can be replaced and evaluated."""

    shape: ModelShape
    embed: F32
    final_norm: F32
    lm_head: F32
    layers: list[ArrayLayer]

    def layer(self, i: int) -> ArrayLayer:
        """Weights of layer `i`."""
        return self.layers[i]

    @classmethod
    def of(cls, ckpt: Checkpoint | ArrayCheckpoint) -> ArrayCheckpoint:
        """A copy in memory; arrays may be changed in place without touching the original."""
        layers = []
        for i in range(ckpt.shape.layers):
            w = ckpt.layer(i)
            layers.append(
                ArrayLayer(
                    attn_norm=np.array(w.attn_norm),
                    q=np.array(w.q),
                    k=np.array(w.k),
                    v=np.array(w.v),
                    o=np.array(w.o),
                    ffn_norm=np.array(w.ffn_norm),
                    router=None if w.router is None else np.array(w.router),
                    w_gate=np.array(w.w_gate),
                    w_up=np.array(w.w_up),
                    w_down=np.array(w.w_down),
                )
            )
        embed = np.array(ckpt.embed)
        lm_head = embed if ckpt.shape.tied else np.array(ckpt.lm_head)
        return cls(ckpt.shape, embed, np.array(ckpt.final_norm), lm_head, layers)
