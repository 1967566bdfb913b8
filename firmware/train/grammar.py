"""A templated grammar of short children's stories with consistent characters, one problem and one ending.

Templates (`grammar_plots.py`) are written in a small language:

    [a|b|c]        one of the alternatives, which may nest
    {pool}         an entry of a pool of `grammar_words.py`, drawn at first use, the same one after that
    {pool2}        another entry of the same pool, different from the first
    {pool.form}    another form of that entry, such as a pronoun; {Pool.form} starts with a capital
    {macro}        a template of MACROS, expanded in the same story

The text is synthetic and means nothing beyond its templates.
"""

from __future__ import annotations

import random
import re

from firmware.train.grammar_plots import MACROS, PLOTS
from firmware.train.grammar_words import POOLS, Entry

_KEY = re.compile(r"\{([A-Za-z]+)(\d?)(?:\.(\w+))?\}")
_INNER_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SAME_NAMES = {"pal": "hero"}
"""Pools that draw from the same names: a `pal` never has the name of a `hero`."""


class Teller:
    """Expands templates for one story; remembers which entry each key stands for."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.chosen: dict[str, Entry] = {}
        self.told: set[str] = set()

    def expand(self, template: str) -> str:
        """Text of a template. Choices are made from the inside out, then keys are filled from the left."""
        while match := _INNER_CHOICE.search(template):
            pick = self.rng.choice(match.group(1).split("|"))
            template = template[: match.start()] + pick + template[match.end() :]
        return _KEY.sub(self._fill, template)

    def _fill(self, match: re.Match[str]) -> str:
        key, number, form = match.groups()
        name = key.lower()
        if name in MACROS:
            return self.expand(self._untold(MACROS[name]))
        if name + number not in self.chosen:
            self.chosen[name + number] = self._draw(name)
        value = self.chosen[name + number][form or "it"]
        return value[0].upper() + value[1:] if key[0].isupper() else value

    def _untold(self, templates: list[str]) -> str:
        """One of a macro's templates that this story has not used yet."""
        template = self.rng.choice([one for one in templates if one not in self.told])
        self.told.add(template)
        return template

    @staticmethod
    def _group(pool: str) -> str:
        return _SAME_NAMES.get(pool, pool)

    def _draw(self, pool: str) -> Entry:
        group = self._group(pool)
        taken = {entry["it"] for key, entry in self.chosen.items() if self._group(key.rstrip("123")) == group}
        while True:
            entry = self.rng.choice(POOLS[pool])
            if entry["it"] not in taken:
                return entry


def write_story(rng: random.Random) -> str:
    """One story, one paragraph."""
    text = Teller(rng).expand(rng.choice(PLOTS))
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
