"""Results of a sample, kept beside the sources, a line of JSON a mutant: what was tried, what noticed it, how long it
took.

With ``--trust`` they stand as those of an earlier run on this machine do: as long as ``hdl/`` and ``sim/`` are the
same.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

from .result import Result

PATH = Path(__file__).resolve().parent / "kept.jsonl"


def read(path: Path = PATH) -> dict[str, Result]:
    """By id of the mutant."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    results = [Result(**json.loads(line)) for line in lines]
    return {result.id: result for result in results}


def write(results: Iterable[Result], path: Path = PATH) -> None:
    """Takes the place of what was kept."""
    lines = [json.dumps(dataclasses.asdict(result)) for result in sorted(results, key=lambda r: r.id)]
    new = path.with_suffix(".new")
    new.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    new.replace(path)
