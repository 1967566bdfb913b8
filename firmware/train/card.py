"""Write a model card: python -m firmware.train.card MODEL_DIR

`MODEL_DIR/README.md` is the prose in `cards/NAME.md` followed by what is measured here: shape, parameters,
perplexities, use of the experts, samples. NAME is the folder's name; every figure is computed, none typed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tokenizers import Tokenizer

from firmware.train.evaluate import (
    END_MARK,
    PROMPTS,
    STORY_PROMPTS,
    continuation,
    expert_shares,
    perplexity,
    quantised,
)
from firmware.train.export import load_model
from firmware.train.mixtral import Mixtral, Shape
from firmware.train.recipes import RECIPES

_PROSE = Path(__file__).parent / "cards"


def shape_section(shape: Shape) -> str:
    """Shape and parameter counts."""
    rows = {
        "width d": shape.d,
        "layers": shape.layers,
        "query heads x head size": f"{shape.heads} x {shape.head_dim}",
        "KV heads": shape.kv_heads,
        "experts, top k": f"{shape.experts}, {shape.top_k}",
        "expert width f": shape.f,
        "vocabulary": shape.vocab,
        "embeddings": "tied" if shape.tied else "untied",
        "context": shape.context,
        "RoPE theta, RMSNorm epsilon": f"{shape.rope_theta:g}, {shape.norm_eps:g}",
        "parameters, total": f"{shape.parameters_total:,}",
        "parameters, active per token": f"{shape.parameters_active:,}",
    }
    body = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"## Shape\n\n| | |\n|---|---|\n{body}\n"


def training_section(name: str) -> str:
    """Commands, seed and schedule, from the recipe."""
    recipe = RECIPES[name]
    corpus = f"build/corpus/{name}"
    mix = ", ".join(f"{part} {share:.0%}" for part, share in recipe.mix.items())
    text = (
        "## Training\n\n"
        f"    python -m firmware.train.corpus {name} --data firmware/train/data --out {corpus}\n"
        f"    python -m firmware.train.train {name} --corpus {corpus} --out build/models/{name}\n\n"
        f"Seed {recipe.seed}, {recipe.steps:,} steps of {recipe.batch} windows of {recipe.shape.context} "
        f"tokens ({recipe.tokens / 1e6:.1f} M tokens; windows: {mix}), AdamW {recipe.peak_lr:g}, "
        f"cosine to zero, weight decay {recipe.weight_decay:g}, load-balancing loss "
        f"{recipe.balance_weight:g}, one CPU thread, torch {torch.__version__}."
    )
    if recipe.quantise_from is not None and recipe.kv_from is not None:
        text += (
            f" Weights are on their int4 grids from {recipe.quantise_from:.0%} of the run on, "
            f"K and V in int8 from {recipe.kv_from:.0%}; norm gains stay at 1."
        )
    return text + "\n"


def perplexity_section(folder: Path, model: Mixtral, tokenizer: Tokenizer, text: str) -> str:
    """Held-out perplexity, float and with the chip's roundings faked, of `heldout.txt` and of its parts."""
    variants = [
        ("float32, as stored", model),
        ("int8 weights, int8 KV, 10-bit activations", quantised(folder, 8)),
        ("int4 weights (router int8), int8 KV, 10-bit activations", quantised(folder, 4)),
    ]
    rows = ""
    for file in [folder / "heldout.txt", *sorted(folder.glob("heldout-*.txt"))]:
        results = [perplexity(variant, tokenizer, file.read_text()) for _, variant in variants]
        for (name, _), one in zip(variants, results, strict=True):
            change = one["ppl"] / results[0]["ppl"] - 1
            rows += (
                f"| {file.name} | {name} | {one['ppl']:.4f} | {one['bits_per_byte']:.4f} | {change:+.2%} |\n"
            )
    base = perplexity(model, tokenizer, text)
    shares = "\n".join(
        f"| {layer} | " + " | ".join(f"{share:.0%}" for share in layer_shares) + " |"
        for layer, layer_shares in enumerate(expert_shares(model, tokenizer, text))
    )
    experts = range(model.shape.experts)
    return (
        "## Held-out perplexity\n\n"
        f"`heldout.txt`, {len(text.encode()):,} bytes, {base['tokens']:,} predicted tokens, "
        f"{base['bytes_per_token']:.2f} bytes per token.\n\n"
        f"| text | model | per token | bits per byte | against float |\n|---|---|---|---|---|\n{rows}\n"
        "The rule: the whole file, blank lines between documents included, is encoded as one string with\n"
        "`Tokenizer.encode(text).ids`; the ids are cut into windows of `max_position_embeddings` (the last\n"
        "may be shorter); the negative log-likelihood of every token but a window's first is averaged. The\n"
        "quantised rows fake the chip's roundings in float, weights rounded to nearest with one searched\n"
        "scale per row and no error compensation; the integer model is measured by `lpu eval`.\n\n"
        "Experts' shares of the router's choices on the first windows of that text:\n\n"
        "| layer | " + " | ".join(f"expert {e}" for e in experts) + " |\n"
        "|---|" + "---|" * len(experts) + f"\n{shares}\n"
    )


def samples_section(name: str, model: Mixtral, tokenizer: Tokenizer, limit: int, seed: int) -> str:
    """Continuations of the fixed prompts, greedy and sampled."""
    parts = [
        "## Ten fixed prompts\n",
        f"The float model, up to {limit} tokens or its own end ({END_MARK.strip()}). Not selected: prompt n\n"
        f"is sampled once, at temperature 0.8, with seed {seed} + n - 1.\n",
    ]
    for index, prompt in enumerate(PROMPTS.get(name, STORY_PROMPTS)):
        greedy = continuation(model, tokenizer, prompt, 0.0, seed, limit)
        sampled = continuation(model, tokenizer, prompt, 0.8, seed + index, limit)
        parts.append(f"{index + 1}. **{prompt}**\n   - greedy: {greedy}\n   - T = 0.8: {sampled}\n")
    return "\n".join(parts)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="Hugging Face folder named like its recipe")
    parser.add_argument("--limit", type=int, default=120, help="tokens of a continuation")
    parser.add_argument("--seed", type=int, default=1, help="of the sampled continuations")
    options = parser.parse_args()
    torch.set_num_threads(1)
    name = options.model.resolve().name
    model = load_model(options.model)
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    text = (options.model / "heldout.txt").read_text()
    sections = [
        (_PROSE / f"{name}.md").read_text(),
        shape_section(model.shape),
        training_section(name),
        perplexity_section(options.model, model, tokenizer, text),
        samples_section(name, model, tokenizer, options.limit, options.seed),
    ]
    (options.model / "README.md").write_text("\n".join(section.strip() + "\n" for section in sections))
    print(f"wrote {options.model / 'README.md'}")


if __name__ == "__main__":
    main()
