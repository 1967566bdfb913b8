"""Write a trained model as a Hugging Face folder, and read one back into the training code's own model."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from firmware.train.fakequant import GridWeight
from firmware.train.mixtral import Mixtral, Shape
from firmware.train.tokenizer import END_ID, save_tokenizer


def hf_config(shape: Shape) -> dict[str, object]:
    """`config.json`; RoPE's base both ways, because transformers 4.x and 5.x each read another field."""
    return {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "vocab_size": shape.vocab,
        "hidden_size": shape.d,
        "intermediate_size": shape.f,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "num_local_experts": shape.experts,
        "num_experts_per_tok": shape.top_k,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "sliding_window": None,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "rms_norm_eps": shape.norm_eps,
        "tie_word_embeddings": shape.tied,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "output_router_logits": False,
        "router_aux_loss_coef": 0.01,
        "router_jitter_noise": 0.0,
        "use_cache": True,
        "bos_token_id": END_ID,
        "eos_token_id": END_ID,
        "pad_token_id": None,
        "torch_dtype": "float32",
    }


def shape_of(config: dict) -> Shape:
    """The inverse of `hf_config`."""
    return Shape(
        vocab=config["vocab_size"],
        d=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        experts=config["num_local_experts"],
        f=config["intermediate_size"],
        context=config["max_position_embeddings"],
        tied=config["tie_word_embeddings"],
        top_k=config["num_experts_per_tok"],
        rope_theta=config["rope_theta"],
        norm_eps=config["rms_norm_eps"],
    )


def _weights(model: Mixtral) -> dict[str, tuple[GridWeight, int | None]]:
    """Hub name -> (module, expert index or None) of every matrix."""
    names: dict[str, tuple[GridWeight, int | None]] = {"model.embed_tokens.weight": (model.embedding, None)}
    if model.head is not None:
        names["lm_head.weight"] = (model.head, None)
    for n, block in enumerate(model.blocks):
        layer = f"model.layers.{n}"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            names[f"{layer}.self_attn.{part}.weight"] = (getattr(block.attention, part), None)
        names[f"{layer}.block_sparse_moe.gate.weight"] = (block.experts.gate, None)
        for expert in range(model.shape.experts):
            for part in ("w1", "w2", "w3"):
                name = f"{layer}.block_sparse_moe.experts.{expert}.{part}.weight"
                names[name] = (getattr(block.experts, part), expert)
    return names


def _gains(model: Mixtral) -> dict[str, Tensor]:
    """Hub name -> norm gain parameter [d]."""
    gains = {"model.norm.weight": model.final_norm.gain}
    for n, block in enumerate(model.blocks):
        gains[f"model.layers.{n}.input_layernorm.weight"] = block.input_norm.gain
        gains[f"model.layers.{n}.post_attention_layernorm.weight"] = block.post_norm.gain
    return gains


def state_dict(model: Mixtral) -> dict[str, Tensor]:
    """float32 tensors under their hub names; weights trained on a grid are written as exactly q * s."""
    exported = {id(m): m.exported() for m in model.modules() if isinstance(m, GridWeight)}
    tensors = {
        name: exported[id(module)] if expert is None else exported[id(module)][expert]
        for name, (module, expert) in _weights(model).items()
    }
    tensors |= {name: gain.detach() for name, gain in _gains(model).items()}
    return {name: tensor.float().contiguous().clone() for name, tensor in tensors.items()}


def export_model(model: Mixtral, tokenizer: Tokenizer, folder: Path) -> None:
    """Write config, weights, tokenizer and generation config into `folder`."""
    save_tokenizer(tokenizer, folder, model.shape.context)
    (folder / "config.json").write_text(json.dumps(hf_config(model.shape), indent=2) + "\n")
    generation = {"bos_token_id": END_ID, "eos_token_id": END_ID, "max_length": model.shape.context}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    weights = folder / "model.safetensors"
    save_file(state_dict(model), str(weights), metadata={"format": "pt"})
    weights.chmod(0o644)  # the library makes it readable by its owner only


def load_model(folder: Path) -> Mixtral:
    """The model of a folder that `export_model` wrote, in float32, not quantising."""
    model = Mixtral(shape_of(json.loads((folder / "config.json").read_text())))
    tensors = load_file(str(folder / "model.safetensors"))
    with torch.no_grad():
        for name, (module, expert) in _weights(model).items():
            (module.weight if expert is None else module.weight[expert]).copy_(tensors[name])
        for name, gain in _gains(model).items():
            gain.copy_(tensors[name])
    return model.eval()
