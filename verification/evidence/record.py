"""One long run of one part of the verification: what was run, with which seeds, and the figures it printed."""

from __future__ import annotations

import dataclasses
import datetime
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILT = ROOT / "build" / "regress"
"""Where a run leaves its record."""
KEPT = Path(__file__).resolve().parent / "kept"
"""The records that ``docs/verification.md`` is made of."""


@dataclasses.dataclass(frozen=True)
class Record:
    """``part``: its name, and the file's; ``command`` repeats the run; ``config``, ``seeds``: of the run, in words;
    ``evidence``: the figures' tier; ``figures``: label to value, in the order to be shown; ``open``: what is not
    reached or not covered, with the reason, a sentence each."""

    part: str
    title: str
    command: str
    config: str
    seeds: str
    evidence: str
    figures: Mapping[str, int | float | str]
    open: tuple[str, ...] = ()
    date: str = ""
    commit: str = ""
    seconds: int = 0


def begin() -> tuple[str, str]:
    """Date and commit of a run that begins now; the commit ends in ``+`` where the sources were changed since."""
    command = ["git", "describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return datetime.date.today().isoformat(), done.stdout.strip() or "unknown"


def write(record: Record, folder: Path = BUILT) -> Path:
    """The record as a file; the new one is whole before it takes the old one's place."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.part}.json"
    new = path.with_suffix(".new")
    new.write_text(json.dumps(dataclasses.asdict(record), indent=2) + "\n", encoding="utf-8")
    return new.replace(path)


def read(path: Path) -> Record:
    """Raises ValueError, which names the file, where it is no record."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Record(**{**fields, "open": tuple(fields.get("open", ()))})
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not the record of a verification run ({error}); run its part again") from None
