"""Judges the tree it runs in: ``python -m verification.mutation.worker PATH RESULT [FINGERPRINT [STEP ...]]``.

The tree is a scratch copy with one mutant of the file PATH in it. Each line of the file RESULT is a step that has
ended, as JSON. With the FINGERPRINT of the unchanged tree it ends early where nothing has changed. Each STEP is left
out.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest


class _First:
    """Notes the first test that failed, and why."""

    def __init__(self) -> None:
        self.failed = ""
        self.ran = 0

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.ran += report.when == "call"
        if report.failed and not self.failed:
            self.failed = report.nodeid
            crash = getattr(report.longrepr, "reprcrash", None)
            if crash is not None:
                self.failed += ": " + str(crash.message).splitlines()[0][:160]

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = f"{report.nodeid} (not imported)"


def main(path: str, result: str, before: str = "", *known: str) -> None:
    """``before``: fingerprint of the unchanged tree; ``-``: the tree is the unchanged one; ``?``: wanted alone;
    ``known``: steps to leave out."""
    began = time.monotonic()
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    def note(step: str, **what: object) -> None:
        with Path(result).open("a") as file:
            file.write(json.dumps({"step": step, "seconds": round(time.monotonic() - began, 1), **what}) + "\n")

    try:
        from . import target
        from .fingerprint import fingerprint

        plan = target.plan(path)
        print_ = fingerprint(plan.designs, path == "hdl/export.py") if plan.designs else "numerics"
    except BaseException as error:  # whatever it is, the mutant has not been built
        last = traceback.extract_tb(error.__traceback__)[-1]
        note("elaboration", failed=f"{type(error).__name__}: {str(error)[:160]} ({Path(last.filename).name})")
        return
    if plan.designs and print_ == before:
        note("same")
        return
    note("elaboration", fingerprint=print_)
    if before == "?":
        return
    for step in plan.steps:
        if " ".join(step) in known:
            continue
        first = _First()
        arguments = [a for a in step if not a.startswith("cocotb:")]
        os.environ.pop("COCOTB_TEST_FILTER", None)
        for one in set(step) - set(arguments):
            os.environ["COCOTB_TEST_FILTER"] = one.removeprefix("cocotb:")
        code = pytest.main(["-x", "-q", "--no-header", "-p", "no:xdist", "--tb=short", *arguments], plugins=[first])
        ok = code == 0 and first.ran > 0
        note(" ".join(step), **({} if ok else {"failed": first.failed or f"pytest ended with {code}"}))
        if not ok and before != "-":
            return
    note("end")


if __name__ == "__main__":
    main(*sys.argv[1:])
