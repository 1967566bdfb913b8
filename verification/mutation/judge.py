"""Tries a mutant: runs, in a scratch copy with the mistake in it, what should notice it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from . import target
from .campaign import Campaign
from .result import BUILT, HUNG, KILLED, LATE, SAME, SURVIVED, Result
from .site import Site
from .tree import Tree

LIMIT = 120
"""Seconds for one mutant."""
_LOOK = 0.05
"""Seconds after which it is looked whether a worker has ended."""


class BrokenTarget(RuntimeError):
    """The unchanged tree does not pass."""


class Stopped(RuntimeError):
    """The run ends: what was being tried has no result."""


class Judge:
    """Tries one mutant at a time, in a copy of its own; several may work for one campaign."""

    def __init__(self, campaign: Campaign, tree: Tree, limit: float = LIMIT) -> None:
        self.campaign = campaign
        self.store = campaign.store
        self.tree = tree
        self.limit = limit
        self._stop = threading.Event()

    def stop(self) -> None:
        """From any thread: ends what is being tried."""
        self._stop.set()

    def baseline(self, path: str) -> dict[str, Any]:
        """Fingerprint and seconds of each step of the unchanged tree; each is run once, whichever plans have it. Raises
        BrokenTarget."""
        plan = target.plan(path)
        key = f"baseline:{plan.pattern}@{self.campaign.target}"
        if key in self.store.data:
            return dict(self.store.data[key])
        names = [" ".join(step) for step in plan.steps]
        steps = {n: self.store.data[f"step:{n}@{self.campaign.target}"] for n in names
                 if f"step:{n}@{self.campaign.target}" in self.store.data}  # fmt: skip
        lines, seconds, _ = self._run(path, "-", 10 * self.limit, *steps)
        bad = [line for line in lines if "failed" in line]
        if bad or not lines or lines[-1]["step"] != "end":
            raise BrokenTarget(f"{plan.pattern}: the unchanged tree fails: {bad or 'out of time'}")
        at = 0.0
        for line in lines:
            steps[line["step"]] = line["seconds"] - at
            at = line["seconds"]
            if line["step"] in names:
                self.store.put(f"step:{line['step']}@{self.campaign.target}", steps[line["step"]])
        found = {"fingerprint": lines[0].get("fingerprint", ""), "steps": steps, "seconds": seconds}
        self.store.put(key, found)
        return found

    def judge(self, site: Site) -> Result:
        """Runs the target on one mutant."""
        before = self._fingerprint(site.path)
        with self.tree.mutated(site.path, site.applied(self.campaign.sources[site.path])):
            lines, seconds, cpu = self._run(site.path, before, self.limit)
        last = lines[-1] if lines else {"step": "nothing"}
        if last["step"] == "same":
            verdict, by = SAME, target.looked_at(site.path)
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
        found = self.campaign
        return Result(site.id, verdict, by, round(seconds, 1), round(cpu, 1), found.target, found.tested)

    def _hung(self, path: str, lines: list[dict[str, Any]], seconds: float) -> str:
        """The step that was cut off, if it had taken several times what it takes with the unchanged tree."""
        plan = target.plan(path)
        step = " ".join(plan.steps[len(lines) - 1])
        usual = self.store.data.get(f"baseline:{plan.pattern}@{self.campaign.target}", {}).get("steps", {}).get(step)
        return step if usual is not None and seconds - lines[-1]["seconds"] > 10 + 4 * usual else ""

    def _fingerprint(self, path: str) -> str:
        """Of the unchanged tree, without running its tests."""
        plan = target.plan(path)
        key = f"fingerprint:{plan.pattern}:{path == 'hdl/export.py'}@{self.campaign.target}"
        if plan.designs and key not in self.store.data:
            lines, _, _ = self._run(path, "?", 10 * self.limit)
            if "fingerprint" not in lines[0]:
                raise BrokenTarget(f"{path}: the unchanged tree cannot be elaborated: {lines}")
            self.store.put(key, lines[0]["fingerprint"])
        return str(self.store.data.get(key, "numerics"))

    def _run(self, path: str, before: str, limit: float, *known: str) -> tuple[list[dict[str, Any]], float, float]:
        """Lines of the worker, which leaves out ``known`` steps; seconds, seconds of the processor. Ends all it started
        when it takes too long."""
        out = self.tree.result
        out.unlink(missing_ok=True)
        began = time.monotonic()
        with open(self.tree.log, "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "verification.mutation.worker", path, str(out), before, *known],
                cwd=self.tree.path, env=self.tree.environment(), stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
            cpu = self._wait(process, began + limit)
        if self._stop.is_set():
            raise Stopped
        lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        return lines, time.monotonic() - began, cpu

    def _wait(self, process: subprocess.Popen[bytes], end: float) -> float:
        """Seconds of the processor of a worker and what it waited for. Nothing of it is left."""
        try:
            while True:
                pid, status, used = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    break
                if self._stop.is_set() or time.monotonic() >= end:
                    _kill(process.pid)
                    pid, status, used = os.wait4(process.pid, 0)
                    break
                time.sleep(_LOOK)
            process.returncode = os.waitstatus_to_exitcode(status)
            return used.ru_utime + used.ru_stime
        finally:
            _kill(process.pid)


def _kill(group: int) -> None:
    """Ends the processes of a worker, and those it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
