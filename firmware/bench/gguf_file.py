"""A checkpoint as a GGUF file, which llama.cpp reads.

llama.cpp runs Mixtral, Mistral and Llama as its architecture "llama"; a Mixtral's experts of a kind are one tensor.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..checkpoint import Checkpoint
from ..errors import LpuError

FORMATS = {"float32": "F32", "Q8_0": "Q8_0", "Q4_0": "Q4_0"}
"""Formats of the matrices, as GGUF names them. The router and the gains stay float32, as in llama.cpp's own files."""


def write(ckpt: Checkpoint, matrices: str, path: Path) -> None:
    """Writes the file. ``matrices``: one of ``FORMATS``. Ids only: the file has no vocabulary.

    Raises:
        LpuError: a matrix has rows that the format's blocks do not divide, or a sliding window is asked for.
    """
    import gguf

    s = ckpt.shape
    kind = gguf.GGMLQuantizationType[FORMATS[matrices]]
    if s.window is not None and s.window < s.context:
        raise LpuError("llama.cpp has no sliding window for this architecture")
    block = gguf.GGML_QUANT_SIZES[kind][0]
    for columns in {s.d, s.q_dim, s.ffn}:
        if columns % block:
            raise LpuError(f"{matrices} takes blocks of {block}, a row has {columns} weights")
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(s.context)
    out.add_embedding_length(s.d)
    out.add_block_count(s.layers)
    out.add_feed_forward_length(s.ffn)
    out.add_head_count(s.heads)
    out.add_head_count_kv(s.kv_heads)
    out.add_key_length(s.head_dim)
    out.add_value_length(s.head_dim)
    out.add_rope_dimension_count(s.head_dim)
    out.add_rope_freq_base(s.rope_theta)
    out.add_layer_norm_rms_eps(s.eps)
    out.add_vocab_size(s.vocab)
    out.add_tokenizer_model("no_vocab")
    if s.has_router:
        out.add_expert_count(s.experts)
        out.add_expert_used_count(s.top_k)

    def exact(name: str, values: np.ndarray) -> None:
        out.add_tensor(f"{name}.weight", np.ascontiguousarray(values, dtype=np.float32))

    def matrix(name: str, values: np.ndarray) -> None:
        packed = gguf.quants.quantize(np.ascontiguousarray(values, dtype=np.float32), kind)
        out.add_tensor(f"{name}.weight", packed, raw_dtype=kind)

    matrix("token_embd", ckpt.embed)
    for i in range(s.layers):
        layer, prefix = ckpt.layer(i), f"blk.{i}."
        exact(f"{prefix}attn_norm", layer.attn_norm)
        matrix(f"{prefix}attn_q", interleave(layer.q, s.heads))
        matrix(f"{prefix}attn_k", interleave(layer.k, s.kv_heads))
        matrix(f"{prefix}attn_v", layer.v)
        matrix(f"{prefix}attn_output", layer.o)
        exact(f"{prefix}ffn_norm", layer.ffn_norm)
        gate, up, down = (np.stack(each) for each in zip(*(layer.expert(e) for e in range(s.experts)), strict=True))
        if layer.router is None:
            gate, up, down, suffix = gate[0], up[0], down[0], ""
        else:
            exact(f"{prefix}ffn_gate_inp", layer.router)
            suffix = "_exps"
        matrix(f"{prefix}ffn_gate{suffix}", gate)
        matrix(f"{prefix}ffn_up{suffix}", up)
        matrix(f"{prefix}ffn_down{suffix}", down)
    exact("output_norm", ckpt.final_norm)
    if not s.tied:
        matrix("output", ckpt.lm_head)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of Q or K in llama.cpp's order: RoPE turns neighbouring rows, not those half a head apart."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
