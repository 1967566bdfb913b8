"""Baseline: llama.cpp through llama-cpp-python, with its key-value cache. Needs the extra ``llama``."""

from __future__ import annotations

import ctypes
import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import LpuError
from .baseline import Baseline

PRECISIONS = {
    "float32": "float32",
    "Q8_0": "int8 (Q8_0)",
    "Q4_0": "int4 (Q4_0)",
}
"""Formats of the matrices that are measured, and what they mean."""


def available() -> bool:
    """Whether llama-cpp-python and the writer of its files are installed."""
    return all(importlib.util.find_spec(name) for name in ("llama_cpp", "gguf"))


def measure(
    model: Path, matrices: str, macs: int, text: Sequence[int], expected: Sequence[int], threads: int, runs: int,
    position: int,
) -> Baseline:  # fmt: skip
    """Reads ``text`` a token at a time; the first run warms up and does not count.

    ``model``: a GGUF file whose matrices are in the format ``matrices``.
    """
    import llama_cpp as api

    @api.llama_log_callback
    def silent(level: int, message: bytes, data: object) -> None:
        pass

    api.llama_log_set(silent, ctypes.c_void_p())
    api.llama_backend_init()
    loaded = api.llama_model_load_from_file(str(model).encode(), api.llama_model_default_params())
    if not loaded:
        raise LpuError(f"llama.cpp does not read {model}")
    wanted = api.llama_context_default_params()
    wanted.n_ctx, wanted.n_batch, wanted.n_ubatch = len(text), 1, 1
    wanted.n_threads = wanted.n_threads_batch = threads
    context = api.llama_init_from_model(loaded, wanted)
    if not context:
        api.llama_model_free(loaded)
        raise LpuError(f"llama.cpp cannot run {model}")
    vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(loaded))
    token = (api.llama_token * 1)()
    batch = api.llama_batch_get_one(token, 1)
    seconds = np.zeros((runs + 1, len(text)))
    ids: list[int] = []
    try:
        for run in range(runs + 1):
            api.llama_memory_clear(api.llama_get_memory(context), True)
            ids = []
            for p, token[0] in enumerate(text):
                begin = time.perf_counter()
                if api.llama_decode(context, batch):
                    raise LpuError(f"llama.cpp fails at position {p} of {model}")
                ids.append(int(np.ctypeslib.as_array(api.llama_get_logits_ith(context, -1), (vocab,)).argmax()))
                seconds[run, p] = time.perf_counter() - begin
    finally:
        api.llama_free(context)
        api.llama_model_free(loaded)
    same = float(np.mean(np.array(ids) == np.array(expected)))
    # Quantised rows are multiplied by activations quantised to int8.
    bits = 32 if matrices == "float32" else 8
    return Baseline("llama.cpp", PRECISIONS[matrices], threads, seconds[1:], same, macs, position, bits, 512)
