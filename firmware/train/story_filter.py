"""Keeps the better part of the sampled stories: few names, plain words, whole sentences."""

from __future__ import annotations

import re

from firmware.train.grammar_words import BOYS, GIRLS

KNOWN_NAMES = frozenset(GIRLS + BOYS)
"""The names that most of the sampled stories use; the grammar uses the same, so that the model learns few."""

_CAPITAL = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+")
_ALLOWED_CAPITALS = KNOWN_NAMES | {"I", "Mommy", "Daddy", "Mom", "Dad", "Mr", "Mrs"}
_ODD = re.compile(r"[0-9()&/=;-]|\.\.|\blil\b|[Tt]he end\b")
_SENTENCE = re.compile(r'[^.!?]*[.!?]+"?')
LONGEST_SENTENCE = 32
LONGEST_STORY = 620


def tidy(story: str) -> str | None:
    """The story cut to whole sentences and to a length that fits the context, or None where it is unfit.

    Unfit: unusual characters, a name out of the short list, more than two names, a girl's name for a boy
    (or the other way round) in the introduction, unbalanced quotes, very long sentences.
    """
    sentences = [sentence.strip() for sentence in _SENTENCE.findall(story)]
    kept: list[str] = []
    for sentence in sentences:
        if sum(map(len, kept)) + len(sentence) > LONGEST_STORY:
            break
        kept.append(sentence)
    while kept and " ".join(kept).count('"') % 2:
        kept.pop()
    if len(kept) < 4 or any(len(sentence.split()) > LONGEST_SENTENCE for sentence in kept):
        return None
    text = " ".join(kept)
    names = set(_CAPITAL.findall(text))
    people = names & KNOWN_NAMES
    if _ODD.search(text) or names - _ALLOWED_CAPITALS or not 1 <= len(people) <= 2:
        return None
    introduced = re.search(r"\b(girl|boy) named (\w+)", text)
    if introduced and (introduced.group(1) == "girl") != (introduced.group(2) in GIRLS):
        return None
    return text
