"""What came out of a mutant."""

from __future__ import annotations

import dataclasses

KILLED, BUILT, HUNG = "killed", "killed at elaboration", "hung"
SURVIVED, LATE, SAME = "survived", "out of time", "same"
NOTICED = (KILLED, BUILT, HUNG)


@dataclasses.dataclass(frozen=True)
class Result:
    """``verdict``: one of the above; ``by``: the step and test that noticed, of the same text the designs
    that were looked at; ``target``: what it was judged by."""

    id: str
    verdict: str
    by: str
    seconds: float
    cpu: float
    target: str
    sources: str = ""
    """Hash of what was mutated."""
