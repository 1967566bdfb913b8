"""Several judges at work on one sample."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from .campaign import Campaign
from .judge import Judge, Stopped
from .result import Result
from .site import Site


class Team:
    """``until``: time (monotonic) from which on no other mutant is begun; ``baseline``: each plan is first run on the
    unchanged tree; ``told``: called with each mutant and its result; ``say``: with a line of text."""

    def __init__(
        self, campaign: Campaign, judges: Sequence[Judge], until: float, baseline: bool,
        told: Callable[[Site, Result], None], say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.campaign = campaign
        self.judges = judges
        self.until = until
        self.baseline = baseline
        self.told = told
        self.say = say
        self._turn = threading.Lock()
        self._plans: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._passed: set[str] = set()

    def work(self, files: tuple[str, ...] = ()) -> None:
        """Tries what waits, of all files or of these. Raises BrokenTarget, KeyboardInterrupt; what is known is kept."""
        for judge in self.judges:
            judge.tree.refresh()
        with ThreadPoolExecutor(len(self.judges)) as pool:
            futures = [pool.submit(self._share, judge, files) for judge in self.judges]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                # Where nothing went wrong all have ended, and it stops nothing.
                for judge in self.judges:
                    judge.stop()
        for future in futures:
            future.result()

    def _share(self, judge: Judge, files: tuple[str, ...]) -> None:
        while (site := self._next(files)) is not None:
            try:
                self._pass(judge, site)
                result = judge.judge(site)
            except Stopped:
                return
            with self._turn:
                self.campaign.keep(result)
                self.campaign.busy.discard(site.path)
                self.told(site, result)

    def _next(self, files: tuple[str, ...]) -> Site | None:
        with self._turn:
            site = self.campaign.waiting(files) if time.monotonic() < self.until else None
            if site is not None:
                self.campaign.tried.add(site.id)
                self.campaign.busy.add(site.path)
            return site

    def _pass(self, judge: Judge, site: Site) -> None:
        """Sees that the plan of a mutant's file passes with the unchanged tree, once."""
        pattern = self.campaign.pattern(site.path)
        if not self.baseline or pattern in self._passed:
            return
        with self._turn:
            lock = self._plans[pattern]
        with lock:
            if pattern not in self._passed:
                found = judge.baseline(site.path)
                self._passed.add(pattern)
                self.say(f"unchanged, {pattern}: passes in {found['seconds']:.0f} s")
