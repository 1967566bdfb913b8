"""Remake the committed golden logits with Hugging Face transformers: `python -m tests.golden.make_golden`.

Needs `pip install torch==2.13.0`, then `pip install .[train]`. Each case is a seeded random checkpoint; it
is written to a temporary folder, loaded by transformers as any user would load it, and run in float32 on
the CPU. Committed are the token ids, the logits, the `Spec` and a checksum of the weights, a few kilobytes
a case; the test makes the weights again from the spec.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.util_models import Spec, checksum, make_weights, write_model

HERE = Path(__file__).parent
TOKENS = 24

CASES: dict[str, Spec] = {
    "gqa_e4k2": Spec(seed=1),
    "mha_e8k2_tied": Spec(seed=2, kv_heads=4, experts=8, tied=True, rope_theta=1e6),
    "mqa_e8k3": Spec(seed=3, heads=6, kv_heads=1, head_dim=8, experts=8, top_k=3, ffn=24),
    "e4k1_untied": Spec(seed=4, heads=2, kv_heads=2, top_k=1, eps=1e-6),
    "window_7": Spec(seed=5, window=7, rope_theta=1e6),
    "head_dim_apart": Spec(seed=6, d=40, heads=4, kv_heads=2, head_dim=16, ffn=56, rope_theta=5e4),
    "bfloat16_sharded": Spec(seed=7, dtype="BF16", shards=3, experts=8, tied=True),
    "float16": Spec(seed=8, dtype="F16", layers=3, ffn=32),
    "llama_dense": Spec(seed=9, naming="llama", tied=True),
    "mistral_window_5": Spec(seed=10, naming="mistral", window=5, heads=4, kv_heads=1),
}


def tokens_of(spec: Spec) -> np.ndarray:
    """Token ids [TOKENS] of a case, from its seed."""
    return np.random.default_rng([spec.seed, TOKENS]).integers(spec.vocab, size=TOKENS)


def reference(folder: Path, ids: np.ndarray) -> tuple[np.ndarray, str]:
    """Logits [T, V] of transformers for a model folder, and the versions that computed them."""
    # Imported here and untyped: the test imports this module's cases without torch being installed.
    torch, transformers = (importlib.import_module(name) for name in ("torch", "transformers"))
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    model.eval()
    with torch.no_grad():
        logits: np.ndarray = model(torch.from_numpy(ids)[None]).logits[0].numpy()
    return logits, f"torch {torch.__version__}, transformers {transformers.__version__}"


def main() -> int:
    """Write one npz per case beside this file."""
    for name, spec in CASES.items():
        ids = tokens_of(spec)
        with tempfile.TemporaryDirectory() as folder:
            logits, versions = reference(write_model(Path(folder), spec), ids)
        np.savez_compressed(
            HERE / f"{name}.npz",
            ids=ids.astype(np.int32),
            logits=logits.astype(np.float32),
            spec=np.array(json.dumps(dataclasses.asdict(spec))),
            checksum=np.array(checksum(make_weights(spec)), np.uint32),
            made_by=np.array(versions),
        )
        print(f"{name}: logits {logits.shape}, standard deviation {logits.std():.2f}; {versions}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
