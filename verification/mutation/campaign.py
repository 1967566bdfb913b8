"""Which mutants are tried, and what is known of them; what is known already is not tried again."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

from . import kept, sample, target, tree
from .result import LATE, SAME, SURVIVED, Result
from .site import Site
from .sites import ROOT, all_sites

RESULTS = ROOT / "build" / "mutation" / "results.json"


class Store:
    """Results in a file that is whole at any time, whichever thread adds to them."""

    def __init__(self, path: Path = RESULTS) -> None:
        self.path = path
        self.data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self._lock = threading.Lock()

    def put(self, key: str, value: Any) -> None:
        """Keeps a value."""
        with self._lock:
            self.data = {**self.data, key: value}  # who goes through it meanwhile has the one before
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = self.path.with_suffix(".new")
            new.write_text(json.dumps(self.data, indent=1) + "\n", encoding="utf-8")
            new.replace(self.path)


class Campaign:
    """A run over a sample.

    ``trust``: a result stands although tests were added or changed since, as long as ``hdl/`` and ``sim/`` are the
    same; those of :mod:`.kept`, too. ``retry``: what survived or ran out of time in an earlier run is tried again.
    """

    def __init__(
        self, count: int, seed: int, *, trust: bool = False, retry: bool = False, store: Store | None = None
    ) -> None:
        self.sites = all_sites()
        self.sources = {path: (ROOT / path).read_bytes() for path in self.sites}
        self.quotas = sample.quotas(self.sites, count)
        self.orders = {path: sample.order(path, self.sites[path], seed) for path in self.quotas}
        self.by_id = {site.id: site for found in self.sites.values() for site in found}
        self.trust = trust
        self.retry = retry
        self.tried: set[str] = set()
        self.busy: set[str] = set()
        self.store = store or Store()
        self.kept = kept.read()
        self.target = tree.sources_hash()
        self.tested = tree.sources_hash(tree.MUTATED)

    # -- what is known -----------------------------------------------------------------------------------

    def known(self, site: Site) -> Result | None:
        """The result of an earlier run, if it still stands."""
        data = self.store.data.get(f"{site.id}@{self.target}")
        if data is None and self.trust:
            old = [d for k, d in self.store.data.items() if k.startswith(f"{site.id}@")]
            old = [d for d in old if d["sources"] == self.tested]
            data = old[-1] if old else None
        result = Result(**data) if data else None
        if result is None and self.trust:
            result = self.kept.get(site.id)
            result = result if result and result.sources == self.tested else None
        if result and result.verdict == SAME and result.by != target.looked_at(site.path):
            return None
        if result and self.retry and result.verdict in (SURVIVED, LATE) and site.id not in self.tried:
            return None
        return result

    def chosen(self, path: str) -> tuple[list[tuple[Site, Result]], Site | None]:
        """A file's mutants with their results, and the next one to try; equal texts are replaced by others."""
        done: list[tuple[Site, Result]] = []
        real = 0
        for site in self.orders[path]:
            if real == self.quotas[path]:
                return done, None
            result = self.known(site)
            if result is None:
                return done, site
            done.append((site, result))
            real += result.verdict != SAME
        return done, None

    def results(self) -> list[tuple[Site, Result]]:
        """All that is known of the sample."""
        return [pair for path in self.quotas for pair in self.chosen(path)[0]]

    def pattern(self, path: str) -> str:
        """Which plan a file has."""
        return target.plan(path).pattern

    def waiting(self, files: tuple[str, ...] = ()) -> Site | None:
        """What is to be tried next: of the files (all, or these) none of whose mutants is tried just now, that of which
        the largest part of the share is missing. None: there is no such file."""
        missing = []
        for path, quota in self.quotas.items():
            if path in self.busy or (files and path not in files):
                continue
            done, site = self.chosen(path)
            if site is not None:
                missing.append((sum(r.verdict != SAME for _, r in done) / quota, len(done), path, site))
        return min(missing, key=lambda m: m[:3])[3] if missing else None

    def keep(self, result: Result) -> None:
        """What came out of a mutant."""
        self.store.put(f"{result.id}@{self.target}", dataclasses.asdict(result))
