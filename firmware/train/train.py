"""Train one recipe: python -m firmware.train.train RECIPE --corpus DIR --out MODEL_DIR

`--corpus` is what `corpus.py` wrote; `--out` gets the Hugging Face folder. Prints its seed and all options
that matter; the same seed, torch version and thread count give the same numbers.
"""

from __future__ import annotations

import argparse
import math
import shutil
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from firmware.train.export import export_model
from firmware.train.mixtral import Mixtral
from firmware.train.recipes import RECIPES, Recipe
from firmware.train.windows import Stream, batch


def learning_rate(step: int, recipe: Recipe, steps: int) -> float:
    """Linear warm-up, then a cosine to zero at the last step."""
    warm = max(1, round(recipe.warmup * steps))
    if step < warm:
        return recipe.peak_lr * (step + 1) / warm
    return recipe.peak_lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def optimiser(model: Mixtral, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only, a smaller rate for the log-scales of the grids."""
    named = list(model.named_parameters())
    scales = [p for name, p in named if name.endswith("log_scale")]
    gains = [p for name, p in named if name.endswith("gain")]
    matrices = [p for name, p in named if name.endswith("weight")]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay, "factor": 1.0},
        {"params": gains, "weight_decay": 0.0, "factor": 1.0},
        {"params": scales, "weight_decay": 0.0, "factor": recipe.scale_lr},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)


def train(recipe: Recipe, corpus: Path, tokenizer: Tokenizer, steps: int, compiled: bool) -> Mixtral:
    """The trained model of `recipe`; `steps` replaces the recipe's own count (for a short try)."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    streams = []
    for part, share in recipe.mix.items():
        stream = Stream(corpus / f"{part}.train.txt", tokenizer)
        print(
            f"{part}: {len(stream.ids)} tokens, {stream.characters / len(stream.ids):.3f} characters a token",
            flush=True,
        )
        streams.append((share, stream))
    model = Mixtral(recipe.shape, frozen_norms=recipe.frozen_norms)
    step_of = {
        "weights": None if recipe.quantise_from is None else round(recipe.quantise_from * steps),
        "kv": None if recipe.kv_from is None else round(recipe.kv_from * steps),
    }
    forward = torch.compile(model) if compiled else model
    adam = optimiser(model, recipe)
    began, running = time.time(), 0.0
    for step in range(steps):
        if step == step_of["weights"]:
            print(f"step {step}: weights on their grids from here")
            model.start_quantising_weights()
        if step == step_of["kv"]:
            print(f"step {step}: KV cache in int8 from here")
            model.quantise_kv()
        for group in adam.param_groups:
            group["lr"] = learning_rate(step, recipe, steps) * group["factor"]
        ids = batch(streams, recipe.batch, recipe.shape.context, rng)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits, balance = forward(ids[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        (loss + recipe.balance_weight * balance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        running += loss.item()
        if (step + 1) % 100 == 0:
            seconds = time.time() - began
            rate = (step + 1) * recipe.batch * recipe.shape.context / seconds
            print(
                f"step {step + 1}/{steps} loss {running / 100:.4f} balance {balance.item():.3f} "
                f"{rate:.0f} tokens/s {seconds:.0f} s",
                flush=True,
            )
            running = 0.0
    return model


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=sorted(RECIPES))
    parser.add_argument("--corpus", type=Path, required=True, help="folder that corpus.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="Hugging Face folder to write")
    parser.add_argument("--steps", type=int, help="instead of the recipe's number")
    parser.add_argument(
        "--no-compile", action="store_true", help="do without torch.compile (no C++ compiler)"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = RECIPES[options.recipe]
    steps = options.steps or recipe.steps
    shape = recipe.shape
    print(f"{recipe}\nsteps {steps}, seed {recipe.seed}, torch {torch.__version__}, one thread")
    print(f"parameters: {shape.parameters_total} total, {shape.parameters_active} active")
    tokenizer = Tokenizer.from_file(str(options.corpus / "tokenizer.json"))
    model = train(recipe, options.corpus, tokenizer, steps, not options.no_compile)
    export_model(model, tokenizer, options.out)
    shutil.copy(options.corpus / "heldout.txt", options.out / "heldout.txt")
    if len(recipe.mix) > 1:
        for part in recipe.mix:
            shutil.copy(options.corpus / f"{part}.heldout.txt", options.out / f"heldout-{part}.txt")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
