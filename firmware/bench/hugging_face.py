"""Baseline: Hugging Face transformers, float32, with its key-value cache. Needs the extra ``bench``."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .baseline import Baseline


def available() -> bool:
    """Whether torch and transformers are installed."""
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def measure(
    folder: Path, macs: int, text: Sequence[int], expected: Sequence[int], threads: int, runs: int, position: int
) -> Baseline:
    """Reads ``text`` a token at a time; the first run warms up and does not count."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    seconds = np.zeros((runs + 1, len(text)))
    ids: list[int] = []
    with torch.inference_mode():
        for run in range(runs + 1):
            cache = transformers.DynamicCache(config=model.config)
            ids = []
            for p, token in enumerate(text):
                begin = time.perf_counter()
                logits = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True).logits
                ids.append(int(logits[0, -1].argmax()))
                seconds[run, p] = time.perf_counter() - begin
    same = float(np.mean(np.array(ids) == np.array(expected)))
    return Baseline("transformers", "float32", threads, seconds[1:], same, macs, position, 32, 512)
