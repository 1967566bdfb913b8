"""GGUF file -> Hugging Face folder: `config.json`, tokenizer, and weights as float32.

For files of the Llama architecture. Names and fields: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
Quantised blocks are read with the `gguf` package; each becomes the float32 number that it stands for. The rows of Q
and K lie in another order than in a Hugging Face checkpoint: llama.cpp rotates neighbouring lanes, so its converter
(`LlamaModel.permute` in convert_hf_to_gguf.py) brings the pair (j, j + D/2) of each head side by side. That is undone.
"""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from .errors import CheckpointError, LpuError
from .gguf_tokenizer import tokenizer_config, tokenizer_json

Progress = Callable[[int, int], None]
"""Called with tensors written and all."""

FORMAT = 1
"""Of the folders made here; one of another format is made again."""
_FORMAT_FIELD = "openlpu_gguf_format"
_CHUNK = 1 << 22
"""Elements that are dequantised at once."""
_NONE = object()

_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def is_converted(folder: Path) -> bool:
    """Whether a folder is one that :func:`convert` made, in the present format."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get(_FORMAT_FIELD) == FORMAT


def convert(source: Path, folder: Path, progress: Progress | None = None) -> Path:
    """Make ``folder``, whole or not at all, of a GGUF file; one that is there is replaced. Returns it.

    Weights pass through memory a few megabytes at a time. Raises CheckpointError naming the file and the field or
    tensor that is damaged or not supported, LpuError when the folder cannot be written.
    """
    gguf = _Gguf(source)
    config = gguf.config()
    tensors = dict(gguf.tensors(config))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            made = Path(temporary) / folder.name
            made.mkdir()
            with (made / "model.safetensors").open("wb") as out:
                _write_safetensors(out, tensors, progress or (lambda done, total: None))
            stop = {k: config[k] for k in ("bos_token_id", "eos_token_id") if k in config}
            texts = {"config.json": config, "generation_config.json": stop}
            texts["tokenizer_config.json"] = tokenizer_config(gguf.field)
            for name, value in texts.items():
                (made / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
            (made / "tokenizer.json").write_text(tokenizer_json(gguf.field, str(source)), encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(made, folder)
    except OSError as error:
        raise LpuError(f"{folder}: cannot be written: {error.strerror}") from None
    return folder


class _Gguf:
    """Metadata and tensors of a GGUF file of the Llama architecture."""

    def __init__(self, path: Path) -> None:
        import gguf  # half a second that only this needs

        self.path = path
        self._dequantize = gguf.quants.dequantize
        try:
            self._reader = gguf.GGUFReader(path)
        except (OSError, ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path}: cannot be read as a GGUF file: {error}") from None
        self._fields: dict[str, Any] = {}

    def error(self, field: str, text: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: field {field}: {text}")

    def field(self, name: str, default: Any = _NONE) -> Any:
        """A metadata value, or the default."""
        if name not in self._fields:
            found = self._reader.get_field(name)
            self._fields[name] = _NONE if found is None else found.contents()
        value = self._fields[name]
        if value is not _NONE:
            return value
        if default is _NONE:
            raise self.error(name, "missing")
        return default

    def number(self, name: str) -> float:
        """A float32 field as the shortest decimal that it stands for: 1e-05, not 9.999999747378752e-06."""
        return float(str(np.float32(self.field(name))))

    def config(self) -> dict[str, Any]:
        """`config.json`. Raises CheckpointError for what the Llama architecture here does not know."""
        arch = self.field("general.architecture")
        if arch != "llama":
            raise self.error("general.architecture", f"{arch!r} is not supported, only 'llama'")
        if self.field("llama.expert_count", 0):
            raise self.error("llama.expert_count", "files with experts are not supported; use the Hugging Face folder")
        scaling = self.field("llama.rope.scaling.type", "none")
        if scaling != "none":
            raise self.error("llama.rope.scaling.type", f"{scaling!r} is not supported, only 'none'")
        heads, d = self.field("llama.attention.head_count"), self.field("llama.embedding_length")
        rotated = self.field("llama.rope.dimension_count", d // heads)
        head_dim = self.field("llama.attention.key_length", rotated)
        if rotated != head_dim or self.field("llama.attention.value_length", head_dim) != head_dim:
            raise self.error("llama.rope.dimension_count", f"{rotated} of {head_dim} lanes; only all is supported")
        names = {tensor.name for tensor in self._reader.tensors}
        config: dict[str, Any] = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "vocab_size": self.field("llama.vocab_size", len(self.field("tokenizer.ggml.tokens"))),
            "hidden_size": d,
            "num_hidden_layers": self.field("llama.block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self.field("llama.attention.head_count_kv", heads),
            "head_dim": head_dim,
            "intermediate_size": self.field("llama.feed_forward_length"),
            "max_position_embeddings": self.field("llama.context_length"),
            "rms_norm_eps": self.number("llama.attention.layer_norm_rms_epsilon"),
            "rope_theta": self.number("llama.rope.freq_base") if "llama.rope.freq_base" in self._reader.fields else 1e4,
            "tie_word_embeddings": "output.weight" not in names,
            "torch_dtype": "float32",
            _FORMAT_FIELD: FORMAT,
        }
        for key in ("bos", "eos"):
            config[f"{key}_token_id"] = self.field(f"tokenizer.ggml.{key}_token_id", None)
        return config

    def tensors(self, config: dict[str, Any]) -> Iterator[tuple[str, tuple[tuple[int, ...], Callable[[], Any]]]]:
        """(Hugging Face name, (shape, chunks)): ``chunks()`` iterates over the values, float32, in order."""
        heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
        for tensor in self._reader.tensors:
            part = ""
            if tensor.name in _OUTER:
                name = _OUTER[tensor.name]
            else:
                pieces = tensor.name.split(".")
                part = pieces[2] if len(pieces) == 4 else ""
                if pieces[0] != "blk" or pieces[-1] != "weight" or part not in _INNER:
                    raise CheckpointError(f"{self.path}: tensor {tensor.name} is not part of a Llama model here")
                name = f"model.layers.{pieces[1]}.{_INNER[part]}.weight"
            shape = tuple(int(n) for n in reversed(tensor.shape))
            yield name, (shape, functools.partial(self._values, tensor, heads.get(part)))

    def _values(self, tensor: Any, heads: int | None) -> Iterator[np.ndarray]:
        """float32 values of a tensor in parts; with ``heads``, a matrix whose rows get back their half-split order."""
        columns = int(tensor.shape[0])
        rows = int(math.prod(tensor.shape[1:]))
        data = tensor.data.reshape(rows, -1) if len(tensor.shape) > 1 else tensor.data[None]
        step = rows if heads else max(1, _CHUNK // columns)
        for a in range(0, rows, step):
            try:
                values = np.asarray(self._dequantize(data[a : a + step], tensor.tensor_type), np.float32)
            except (NotImplementedError, ValueError) as error:
                raise CheckpointError(
                    f"{self.path}: tensor {tensor.name}: {tensor.tensor_type.name} cannot be read: {error}"
                ) from None
            yield half_split(values, heads) if heads else values


def half_split(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows [heads * D, K] with rotary pairs side by side -> pairs (j, j + D/2)."""
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def _write_safetensors(out: IO[bytes], tensors: dict[str, tuple[tuple[int, ...], Any]], progress: Progress) -> None:
    """https://github.com/huggingface/safetensors, "Format"; its own writer takes whole tensors only."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (shape, _) in tensors.items():
        size = 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    out.write(len(text).to_bytes(8, "little") + text)
    for done, (_, chunks) in enumerate(tensors.values()):
        progress(done, len(tensors))
        for values in chunks():
            out.write(np.ascontiguousarray(values, "<f4").data)
    progress(len(tensors), len(tensors))
