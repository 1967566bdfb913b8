"""Check a model folder: python -m firmware.train.check_hf MODEL_DIR

`transformers.MixtralForCausalLM.from_pretrained` loads it, its logits equal those of the training code,
the tokenizer gives text back unchanged, and (with `--grid`) every weight row lies on a 4-bit grid (router:
8-bit).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoTokenizer, MixtralForCausalLM

from firmware.train.export import load_model
from firmware.train.fakequant import int_limit

TOLERANCE = 1e-4


def logit_difference(folder: Path, text: str) -> float:
    """Largest absolute difference of the two implementations' logits over two windows of `text`."""
    ours = load_model(folder)
    theirs, report = MixtralForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    wrong = {kind: list(report[kind]) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(wrong.values()):
        raise SystemExit(f"transformers did not take the checkpoint as it is: {wrong}")
    length = ours.shape.context
    ids = torch.tensor(AutoTokenizer.from_pretrained(folder)(text).input_ids[: 2 * length])
    ids = ids[: len(ids) // length * length].view(-1, length)
    with torch.no_grad():
        return (ours(ids)[0] - theirs.eval()(ids).logits).abs().max().item()


def grid_error(weight: Tensor, bits: int) -> float:
    """Largest distance from the nearest grid value, in steps of each row's grid. weight [out, in].

    A row's step is its abs-max over the k in 1..limit that fits best; 0 where the weight is exactly q * s.
    """
    best = torch.full(weight.shape[:1], float("inf"))
    absmax = weight.abs().amax(-1).clamp_min(1e-30)
    for k in range(1, int_limit(bits) + 1):
        q = weight / (absmax / k)[:, None]
        best = torch.minimum(best, (q - q.round()).abs().amax(-1))
    return best.max().item()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--grid", action="store_true", help="also require int4 (router int8) weight grids")
    options = parser.parse_args()
    text = (options.model / "heldout.txt").read_text()
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    if tokenizer.decode(tokenizer.encode(text).ids) != text:
        raise SystemExit("tokenizer: decode(encode(text)) differs from the text")
    difference = logit_difference(options.model, text)
    print(f"largest logit difference to transformers: {difference:.2e} (limit {TOLERANCE})")
    worst = 0.0
    if options.grid:
        for name, weight in load_file(str(options.model / "model.safetensors")).items():
            if weight.ndim == 2:
                worst = max(worst, grid_error(weight, 8 if "block_sparse_moe.gate" in name else 4))
            elif not bool((weight == 1).all()):
                raise SystemExit(f"{name} is not all ones")
        print(f"largest distance from a grid value: {worst:.2e} steps")
    if difference > TOLERANCE or worst > 1e-5:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
