"""Which mutants are tried: a seeded choice in which every file has its share and every kind of mistake."""

from __future__ import annotations

import random
from collections import defaultdict

from .site import KINDS, Site


def quotas(sites: dict[str, list[Site]], count: int, least: int = 2) -> dict[str, int]:
    """Mutants of each file: in proportion to its places, but at least two; ``count`` in all."""
    sites = {path: found for path, found in sites.items() if found}
    total = sum(map(len, sites.values()))
    exact = {path: count * len(found) / total for path, found in sites.items()}
    given = {path: max(min(least, len(sites[path])), int(x)) for path, x in exact.items()}
    by_rest = sorted(exact, key=lambda path: (given[path] - exact[path], path))
    while sum(given.values()) < count and any(given[p] < len(sites[p]) for p in given):
        path = min(by_rest, key=lambda p: (given[p] - exact[p], p))
        given[path] += 1
    while sum(given.values()) > count:
        path = max(given, key=lambda p: (given[p] - exact[p] if given[p] > least else -count, p))
        if given[path] <= least:
            break
        given[path] -= 1
    return given


def order(path: str, sites: list[Site], seed: int) -> list[Site]:
    """A file's places in the order in which they are tried: the kinds in turn."""
    rng = random.Random(f"{seed}:{path}")
    kinds = list(KINDS)
    rng.shuffle(kinds)
    piles: dict[str, list[Site]] = defaultdict(list)
    for site in sites:
        piles[site.kind].append(site)
    for pile in piles.values():
        rng.shuffle(pile)
    out: list[Site] = []
    while len(out) < len(sites):
        out += [piles[kind].pop() for kind in kinds if piles[kind]]
    return out
