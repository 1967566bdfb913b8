"""Tries mutants one after the other; what is known already is not tried again."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import sample, target, tree
from .site import Site
from .sites import ROOT, all_sites

RESULTS = ROOT / "build" / "mutation" / "results.json"
LIMIT = 120
"""Seconds for one mutant."""
KILLED, BUILT, HUNG = "killed", "killed at elaboration", "hung"
SURVIVED, LATE, SAME = "survived", "out of time", "same"
NOTICED = (KILLED, BUILT, HUNG)


@dataclasses.dataclass(frozen=True)
class Result:
    """``verdict``: one of the above; ``by``: the step and test that noticed; ``target``: what it was judged by."""

    id: str
    verdict: str
    by: str
    seconds: float
    cpu: float
    target: str
    sources: str = ""
    """Hash of what was mutated."""


class BrokenTarget(RuntimeError):
    """The unchanged tree does not pass."""


class Store:
    """Results in a file that is whole at any time."""

    def __init__(self, path: Path = RESULTS) -> None:
        self.path = path
        self.data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def put(self, key: str, value: Any) -> None:
        self.data[key] = value
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.data, indent=1) + "\n", encoding="utf-8")
        new.replace(self.path)


class Campaign:
    """A run over a sample.

    ``trust``: a result stands although tests were added or changed since, as long as ``hdl/`` and ``sim/`` are the
    same. ``retry``: what survived or ran out of time in an earlier run is tried again.
    """

    def __init__(self, count: int, seed: int, *, limit: float = LIMIT, trust: bool = False, retry: bool = False,
                 store: Store | None = None) -> None:  # fmt: skip
        self.sites = all_sites()
        self.sources = {path: (ROOT / path).read_bytes() for path in self.sites}
        self.quotas = sample.quotas(self.sites, count)
        self.orders = {path: sample.order(path, self.sites[path], seed) for path in self.quotas}
        self.by_id = {site.id: site for found in self.sites.values() for site in found}
        self.limit = limit
        self.trust = trust
        self.retry = retry
        self.tried: set[str] = set()
        self.store = store or Store()
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

    def waiting(self, files: tuple[str, ...] = ()) -> Iterator[Site]:
        """What is to be tried, the files (all, or these) in turn by how much of their share is missing."""
        while True:
            missing = []
            for path, quota in self.quotas.items():
                if files and path not in files:
                    continue
                done, site = self.chosen(path)
                if site is not None:
                    missing.append((sum(r.verdict != SAME for _, r in done) / quota, len(done), path, site))
            if not missing:
                return
            yield min(missing, key=lambda m: m[:3])[3]

    # -- runs --------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Makes the scratch copy."""
        tree.refresh()

    def baseline(self, path: str) -> dict[str, Any]:
        """Fingerprint and seconds of each step of the unchanged tree; each is run once, whichever plans have it. Raises
        BrokenTarget."""
        plan = target.plan(path)
        key = f"baseline:{plan.pattern}@{self.target}"
        if key in self.store.data:
            return dict(self.store.data[key])
        names = [" ".join(step) for step in plan.steps]
        steps = {n: self.store.data[f"step:{n}@{self.target}"] for n in names
                 if f"step:{n}@{self.target}" in self.store.data}  # fmt: skip
        lines, seconds, _ = self._run(path, "-", 10 * self.limit, *steps)
        bad = [line for line in lines if "failed" in line]
        if bad or not lines or lines[-1]["step"] != "end":
            raise BrokenTarget(f"{plan.pattern}: the unchanged tree fails: {bad or 'out of time'}")
        at = 0.0
        for line in lines:
            steps[line["step"]] = line["seconds"] - at
            at = line["seconds"]
            if line["step"] in names:
                self.store.put(f"step:{line['step']}@{self.target}", steps[line["step"]])
        found = {"fingerprint": lines[0].get("fingerprint", ""), "steps": steps, "seconds": seconds}
        self.store.put(key, found)
        return found

    def judge(self, site: Site) -> Result:
        """Runs the target on one mutant and keeps what comes out."""
        self.tried.add(site.id)
        before = self._fingerprint(site.path)
        with tree.mutated(site.path, site.applied(self.sources[site.path])):
            lines, seconds, cpu = self._run(site.path, before, self.limit)
        last = lines[-1] if lines else {"step": "nothing"}
        if last["step"] == "same":
            verdict, by = SAME, ""
        elif last["step"] == "elaboration" and "failed" in last:
            verdict, by = BUILT, str(last["failed"])
        elif "failed" in last:
            verdict, by = KILLED, f"{last['step']}: {last['failed']}"
        elif last["step"] == "end":
            verdict, by = SURVIVED, ""
        elif last["step"] == "nothing":
            verdict, by = HUNG, "elaboration takes a hundred times as long"
        elif hung := self._hung(site.path, lines, seconds):
            verdict, by = HUNG, hung
        else:
            verdict, by = LATE, f"behind {last['step']}"
        result = Result(site.id, verdict, by, round(seconds, 1), round(cpu, 1), self.target, self.tested)
        self.store.put(f"{site.id}@{self.target}", dataclasses.asdict(result))
        return result

    def _hung(self, path: str, lines: list[dict[str, Any]], seconds: float) -> str:
        """The step that was cut off, if it had taken several times what it takes with the unchanged tree."""
        plan = target.plan(path)
        step = " ".join(plan.steps[len(lines) - 1])
        usual = self.store.data.get(f"baseline:{plan.pattern}@{self.target}", {}).get("steps", {}).get(step)
        return step if usual is not None and seconds - lines[-1]["seconds"] > 10 + 4 * usual else ""

    def _fingerprint(self, path: str) -> str:
        """Of the unchanged tree, without running its tests."""
        plan = target.plan(path)
        key = f"fingerprint:{plan.pattern}:{path == 'hdl/export.py'}@{self.target}"
        if plan.designs and key not in self.store.data:
            lines, _, _ = self._run(path, "?", 10 * self.limit)
            if "fingerprint" not in lines[0]:
                raise BrokenTarget(f"{path}: the unchanged tree cannot be elaborated: {lines}")
            self.store.put(key, lines[0]["fingerprint"])
        return str(self.store.data.get(key, "numerics"))

    def _run(self, path: str, before: str, limit: float, *known: str) -> tuple[list[dict[str, Any]], float, float]:
        """Lines of the worker, which leaves out ``known`` steps; seconds, seconds of the processor. Ends all it started
        when it takes too long."""
        out = tree.TREE.parent / "result.jsonl"
        out.unlink(missing_ok=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        with open(tree.TREE.parent / "worker.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "verification.mutation.worker", path, str(out), before, *known],
                cwd=tree.TREE, env=tree.environment(), stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
            try:
                process.wait(limit)
            except BaseException as error:
                _end(process)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
            finally:
                _end(process)
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
        lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        return lines, time.monotonic() - began, cpu


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the processes of a worker, and those it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
