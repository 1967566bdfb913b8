"""Held-out perplexity and fixed-prompt samples: python -m firmware.train.evaluate MODEL_DIR [--text FILE]

The rule for perplexity, the same as `lpu eval`: encode the whole file as one string, cut the ids into
windows of max_position_embeddings (the last one may be shorter), and average the negative log-likelihood of
every token of a window but its first.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from firmware.train.export import load_model
from firmware.train.fakequant import block_mantissa
from firmware.train.mixtral import Mixtral
from firmware.train.tokenizer import END_ID

STORY_PROMPTS = [
    "Once upon a time",
    "Once upon a time, there was a little girl named Lily",
    "One day, Tom found a shiny key",
    "The big brown bear was hungry, so",
    '"Can I play with you?" asked the frog.',
    "Ben and his mom went to the beach",
    "It was raining, and the little cat",
    "Sue was sad because she lost her",
    "The dog and the duck were best friends.",
    "Max was scared of the dark.",
]
SCRIPTURE_PROMPTS = [
    "In the beginning",
    "And the LORD said unto Moses,",
    "Blessed are they that",
    "And it came to pass",
    "The king of Israel",
    "Then Jesus answered and said",
    "My son, hear",
    "And the children of Israel",
    "He that loveth",
    "Behold, I will",
]
NAME_PROMPTS = ["a", "be", "car", "d", "el", "jo", "ma", "ro", "s", "wil"]
PROMPTS = {"float-kjv": SCRIPTURE_PROMPTS, "names-4k": NAME_PROMPTS}
"""Prompts of the models whose text is not stories."""

END_MARK = " \u25a0"


@torch.no_grad()
def perplexity(model: Mixtral, tokenizer: Tokenizer, text: str) -> dict[str, float]:
    """Perplexity per token, bits per byte, and the number of predicted tokens of `text`."""
    ids = tokenizer.encode(text).ids
    total, count = 0.0, 0
    for start in range(0, len(ids), model.shape.context):
        window = torch.tensor(ids[start : start + model.shape.context])
        if len(window) < 2:
            continue
        logits, _ = model(window[None, :-1])
        total += F.cross_entropy(logits[0], window[1:], reduction="sum").item()
        count += len(window) - 1
    mean = total / count
    bytes_per_token = len(text.encode("utf-8")) / len(ids)
    return {
        "ppl": math.exp(mean),
        "bits_per_byte": mean / math.log(2) / bytes_per_token,
        "tokens": count,
        "bytes_per_token": bytes_per_token,
    }


def quantised(folder: Path, bits: int) -> Mixtral:
    """The model with the chip's roundings faked: weights to nearest on `bits`-bit rows, int8 KV cache,
    10-bit block mantissas into every product. The plain post-training way, without error compensation.
    """
    model = load_model(folder)
    model.start_quantising_weights(bits)
    model.quantise_kv()
    model.rounding = block_mantissa
    return model


@torch.no_grad()
def expert_shares(model: Mixtral, tokenizer: Tokenizer, text: str) -> list[list[float]]:
    """For each layer, each expert's share of all top-k choices on the first windows of `text`."""
    chosen: list[Tensor] = []
    hooks = []
    for block in model.blocks:

        def record(module: torch.nn.Module, inputs: tuple[Tensor, ...], _output: object) -> None:
            logits = F.linear(inputs[0], module.gate())
            top = logits.topk(model.shape.top_k, -1).indices.flatten()
            chosen.append(torch.bincount(top, minlength=model.shape.experts) / len(top))

        hooks.append(block.experts.register_forward_hook(record))
    ids = tokenizer.encode(text).ids[: 16 * model.shape.context]
    usable = len(ids) // model.shape.context * model.shape.context
    model(torch.tensor(ids[:usable]).view(-1, model.shape.context))
    for hook in hooks:
        hook.remove()
    return [[round(share, 3) for share in layer.tolist()] for layer in chosen]


@torch.no_grad()
def continuation(
    model: Mixtral, tokenizer: Tokenizer, prompt: str, temperature: float, seed: int, limit: int
) -> str:
    """Text that follows `prompt`, up to `limit` tokens, the context's end, or the end token (END_MARK)."""
    generator = torch.Generator().manual_seed(seed)
    ids = tokenizer.encode(prompt).ids
    begin = len(ids)
    while len(ids) < min(begin + limit, model.shape.context):
        logits = model(torch.tensor([ids]))[0][0, -1]
        if temperature == 0:
            chosen = int(logits.argmax())
        else:
            chosen = int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))
        if chosen == END_ID:
            return tokenizer.decode(ids)[len(prompt) :] + END_MARK
        ids.append(chosen)
    return tokenizer.decode(ids)[len(prompt) :]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="Hugging Face folder")
    parser.add_argument("--text", type=Path, help="held-out text; default MODEL/heldout.txt")
    parser.add_argument("--limit", type=int, default=120, help="tokens of a continuation")
    parser.add_argument("--seed", type=int, default=1, help="of the sampled continuations")
    parser.add_argument("--no-samples", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    text = (options.text or options.model / "heldout.txt").read_text()
    result = {"float": perplexity(model, tokenizer, text)}
    for bits in (8, 4):
        result[f"int{bits}"] = perplexity(quantised(options.model, bits), tokenizer, text)
    for name, figures in result.items():
        print(name, json.dumps(figures))
    for layer, shares in enumerate(expert_shares(model, tokenizer, text)):
        print(f"layer {layer}, experts' shares of the choices: {shares}")
    if options.no_samples:
        return
    for index, prompt in enumerate(PROMPTS.get(options.model.resolve().name, STORY_PROMPTS)):
        print(f"\nprompt: {prompt}")
        for temperature in (0.0, 0.8):
            seed = options.seed + index
            text = continuation(model, tokenizer, prompt, temperature, seed, options.limit)
            print(f"  T={temperature}: {text}")


if __name__ == "__main__":
    main()
