"""The layer in transformers: ``MixtralDecoderLayer``, float32, with the same weights. Needs the extra ``bench``."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.float_model import CheckpointLike


def decoder_layer(
    ckpt: CheckpointLike, ids: NDArray[np.int64], progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(output of the layer [T, d], experts chosen [T, k] in falling order) for the embeddings of ``ids`` [T].

    Its weights are made one after the other; together they take 4 bytes a parameter.
    """
    import torch
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralDecoderLayer, MixtralRotaryEmbedding

    s, w = ckpt.shape, ckpt.layer(0)
    config = MixtralConfig(
        vocab_size=s.vocab, hidden_size=s.d, intermediate_size=s.ffn, num_hidden_layers=1,
        num_attention_heads=s.heads, num_key_value_heads=s.kv_heads, head_dim=s.head_dim,
        num_local_experts=s.experts, num_experts_per_tok=s.top_k, rms_norm_eps=s.eps,
        max_position_embeddings=s.context, rope_parameters={"rope_type": "default", "rope_theta": s.rope_theta},
        attn_implementation="eager", experts_implementation="eager",
    )  # fmt: skip
    with torch.device("meta"):
        layer = MixtralDecoderLayer(config, 0)
    layer = layer.to_empty(device="cpu").eval()
    named = dict(layer.named_parameters())
    total, done = 7 + 3 * s.experts, itertools.count(1)

    def put(name: str, values: NDArray[np.float32], *at: Any) -> None:
        target = named.pop(name) if not at else named[name][at]
        assert target.shape == values.shape, f"{name}: {tuple(target.shape)}, {values.shape}"
        target.copy_(torch.from_numpy(values))
        progress(next(done), total)

    with torch.inference_mode():
        for name, values in (
            ("input_layernorm.weight", w.attn_norm), ("post_attention_layernorm.weight", w.ffn_norm),
            ("self_attn.q_proj.weight", w.q), ("self_attn.k_proj.weight", w.k),
            ("self_attn.v_proj.weight", w.v), ("self_attn.o_proj.weight", w.o), ("mlp.gate.weight", w.router),
        ):  # fmt: skip
            assert values is not None
            put(name, values)
        for e in range(s.experts):
            put("mlp.experts.gate_up_proj", w.w_gate[e], e, slice(None, s.ffn))
            put("mlp.experts.gate_up_proj", w.w_up[e], e, slice(s.ffn, None))
            put("mlp.experts.down_proj", w.w_down[e], e)
        assert set(named) == {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"}, sorted(named)
        chosen: list[Any] = []
        layer.mlp.gate.register_forward_hook(lambda module, inputs, output: chosen.append(output))
        x = torch.from_numpy(ckpt.embed[ids])[None]  # [1, T, d]
        positions = torch.arange(len(ids))[None]
        mask = torch.full((len(ids), len(ids)), -torch.inf).triu(1)[None, None]
        rope = MixtralRotaryEmbedding(config)(x, positions)
        y = layer(x, position_embeddings=rope, attention_mask=mask, position_ids=positions)
        y = y[0] if isinstance(y, tuple) else y
        # The gate gives (logits, weights, experts).
        logits = chosen[0][0].reshape(len(ids), s.experts)
        experts = torch.argsort(logits, dim=-1, descending=True, stable=True)[:, : s.top_k]
    return y[0].numpy(), experts.numpy()
