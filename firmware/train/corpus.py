"""Build the corpus of one recipe: python -m firmware.train.corpus RECIPE --data DIR --out DIR

Writes for each part of the recipe's mix `PART.train.txt` and `PART.heldout.txt`, then `heldout.txt` (all
parts' held-out documents, shuffled) and `tokenizer.json`, trained on the training documents only.
Nothing held out is ever trained on: documents are split before anything else, and a held-out document
whose text also occurs in the training part is dropped.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from firmware.train.grammar import write_story
from firmware.train.recipes import RECIPES, Recipe
from firmware.train.story_filter import tidy
from firmware.train.textfiles import read_documents, split_heldout, write_documents
from firmware.train.tokenizer import letters_tokenizer, save_tokenizer, train_bpe

GRAMMAR_STORIES = 100_000
TOKENIZER_CHARACTERS = 6_000_000
SPLIT_SEED = 11


def part_documents(part: str, data: Path) -> list[str]:
    """All documents of a corpus part, before the held-out ones are taken."""
    if part == "grammar":
        rng = random.Random(2024)
        return list(dict.fromkeys(write_story(rng) for _ in range(GRAMMAR_STORIES)))
    if part == "tidy-stories":
        return [kept for story in read_documents(data / "stories.txt.xz") if (kept := tidy(story))]
    return read_documents(data / f"{part}.txt.xz")


def build(recipe: Recipe, data: Path, out: Path) -> None:
    """Write the files of `recipe` into `out`; print what they hold."""
    heldout_all: list[str] = []
    train_of: dict[str, list[str]] = {}
    for part, share in recipe.mix.items():
        documents = part_documents(part, data)
        train, heldout = split_heldout(documents, round(recipe.heldout_characters * share), SPLIT_SEED)
        known = set(train)
        heldout = [document for document in heldout if document not in known]
        write_documents(out / f"{part}.train.txt", train)
        write_documents(out / f"{part}.heldout.txt", heldout)
        print(
            f"{part}: {len(train)} documents, {sum(map(len, train))} characters to train on; "
            f"{len(heldout)} documents, {sum(map(len, heldout))} characters held out"
        )
        train_of[part] = train
        heldout_all += heldout
    random.Random(SPLIT_SEED).shuffle(heldout_all)
    write_documents(out / "heldout.txt", heldout_all)
    if recipe.mix.keys() == {"names"}:
        tokenizer = letters_tokenizer()
    else:
        sample: list[str] = []
        for part, share in recipe.mix.items():
            budget = TOKENIZER_CHARACTERS * share
            for document in train_of[part]:
                if budget <= 0:
                    break
                sample.append(document)
                budget -= len(document)
        tokenizer = train_bpe(sample, recipe.shape.vocab)
    save_tokenizer(tokenizer, out, recipe.shape.context)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=sorted(RECIPES))
    parser.add_argument("--data", type=Path, required=True, help="folder of the compressed texts")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    options = parser.parse_args()
    build(RECIPES[options.recipe], options.data, options.out)


if __name__ == "__main__":
    main()
