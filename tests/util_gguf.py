"""A tiny GGUF file of the Llama architecture, written as llama.cpp's converter would, and what it stands for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers import Tokenizer

from tests.util_models import write_tokenizer

TEMPLATE = (
    "{% for message in messages %}{{ '<s>' + message['role'] + ': ' + message['content'] + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant: ' }}{% endif %}"
)
Q = gguf.GGMLQuantizationType


@dataclasses.dataclass(frozen=True)
class Tiny:
    """Sizes; 32 is the block of the quantised types."""

    d: int = 32
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 64
    context: int = 64
    tied: bool = True
    seed: int = 1

    @property
    def head_dim(self) -> int:
        return self.d // self.heads


def permute(rows: np.ndarray, heads: int) -> np.ndarray:
    """`LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py: half-split rotary pairs -> neighbours."""
    return (
        rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
    )


def write_gguf(
    path: Path, tiny: Tiny | None = None, fields: dict[str, Any] | None = None, extra: str | None = None
) -> dict[str, np.ndarray]:
    """Write the file; returns the tensors of the Hugging Face checkpoint that it stands for, as float32.

    ``fields``: strings or integers that replace or add metadata; None leaves one out. ``extra``: a tensor more.
    """
    t, rng = tiny or Tiny(), np.random.default_rng((tiny or Tiny()).seed)
    tokens, types, merges = _vocabulary(path.parent)
    meta: dict[str, Any] = {
        "llama.block_count": t.layers,
        "llama.context_length": t.context,
        "llama.embedding_length": t.d,
        "llama.feed_forward_length": t.ffn,
        "llama.attention.head_count": t.heads,
        "llama.attention.head_count_kv": t.kv_heads,
        "llama.rope.freq_base": 10000.0,
        "llama.rope.dimension_count": t.head_dim,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": TEMPLATE,
        **(fields or {}),
    }
    writer = gguf.GGUFWriter(str(path), meta.pop("general.architecture", "llama"))
    for name, value in meta.items():
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif value is not None:
            writer.add_uint32(name, value)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)

    truth: dict[str, np.ndarray] = {}

    def add(name: str, hf: str, values: np.ndarray, kind: Any, heads: int | None = None) -> None:
        stored = permute(values, heads) if heads else values
        packed = gguf.quants.quantize(stored, kind) if kind != Q.F32 else stored
        writer.add_tensor(name, packed, raw_dtype=None if kind == Q.F32 else kind)
        # What the quantised rows stand for, in Hugging Face's order.
        exact = gguf.quants.quantize(values, kind) if kind != Q.F32 else values
        truth[hf] = gguf.quants.dequantize(exact, kind).reshape(values.shape) if kind != Q.F32 else values

    def matrix(o: int, i: int) -> np.ndarray:
        return rng.normal(0, i**-0.5, (o, i)).astype(np.float32)

    def gain() -> np.ndarray:
        return rng.uniform(0.5, 1.5, t.d).astype(np.float32)

    add("token_embd.weight", "model.embed_tokens.weight", matrix(len(tokens), t.d), Q.Q8_0)
    for n in range(t.layers):
        b, p = f"blk.{n}.", f"model.layers.{n}."
        add(b + "attn_norm.weight", p + "input_layernorm.weight", gain(), Q.F32)
        add(b + "attn_q.weight", p + "self_attn.q_proj.weight", matrix(t.d, t.d), Q.Q4_1, t.heads)
        kv = t.kv_heads * t.head_dim
        add(b + "attn_k.weight", p + "self_attn.k_proj.weight", matrix(kv, t.d), Q.Q4_1, t.kv_heads)
        add(b + "attn_v.weight", p + "self_attn.v_proj.weight", matrix(kv, t.d), Q.Q4_1)
        add(b + "attn_output.weight", p + "self_attn.o_proj.weight", matrix(t.d, t.d), Q.F16)
        add(b + "ffn_norm.weight", p + "post_attention_layernorm.weight", gain(), Q.F32)
        add(b + "ffn_gate.weight", p + "mlp.gate_proj.weight", matrix(t.ffn, t.d), Q.Q4_1)
        add(b + "ffn_up.weight", p + "mlp.up_proj.weight", matrix(t.ffn, t.d), Q.BF16)
        add(b + "ffn_down.weight", p + "mlp.down_proj.weight", matrix(t.d, t.ffn), Q.Q8_0)
    add("output_norm.weight", "model.norm.weight", gain(), Q.F32)
    if not t.tied:
        add("output.weight", "lm_head.weight", matrix(len(tokens), t.d), Q.F32)
    if extra:
        add(extra, extra, gain(), Q.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return truth


def _vocabulary(folder: Path) -> tuple[list[str], list[int], list[str]]:
    """Tokens, their types and the merges of a small byte-level tokenizer."""
    made = folder / "tokenizer-source"
    made.mkdir(exist_ok=True)
    text = json.loads((write_tokenizer(made) / "tokenizer.json").read_text())
    ids = Tokenizer.from_file(str(made / "tokenizer.json")).get_vocab(with_added_tokens=True)
    tokens = sorted(ids, key=lambda token: int(ids[token]))
    special = {entry["content"] for entry in text["added_tokens"]}
    merges = [m if isinstance(m, str) else " ".join(m) for m in text["model"]["merges"]]
    return tokens, [3 if token in special else 1 for token in tokens], merges
