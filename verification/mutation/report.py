"""Tables of a mutation run, and its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from verification.evidence import Record

from .campaign import Campaign
from .explained import EQUIVALENT, OPEN
from .result import BUILT, HUNG, KILLED, LATE, NOTICED, SAME, SURVIVED, Result
from .site import KINDS, Site

Pair = tuple[Site, Result]
COLUMNS = (KILLED, BUILT, HUNG, SURVIVED, LATE)


def is_equivalent(site: Site) -> bool:
    """Whether it was looked at and no input shows a difference."""
    return site.key in EQUIVALENT


def counted(pairs: Iterable[Pair]) -> list[Pair]:
    """Mutants: neither equal in text nor explained as equivalent."""
    return [(s, r) for s, r in pairs if r.verdict != SAME and not (is_equivalent(s) and r.verdict not in NOTICED)]


def share(pairs: Iterable[Pair]) -> float:
    """Share of the mutants that was noticed."""
    found = counted(pairs)
    return sum(r.verdict in NOTICED for _, r in found) / len(found) if found else 0.0


def within_reach(campaign: Campaign) -> float:
    """The share if all that was not tried yet were noticed; once all was, the share."""
    pairs = campaign.results()
    found, missing = counted(pairs), untried(campaign, pairs)
    noticed = sum(r.verdict in NOTICED for _, r in found)
    return (noticed + missing) / (len(found) + missing) if found or missing else 0.0


def untried(campaign: Campaign, pairs: list[Pair]) -> int:
    """Mutants of the sample that were not tried."""
    return sum(campaign.quotas.values()) - sum(r.verdict != SAME for _, r in pairs)


def table(pairs: list[Pair]) -> str:
    """Verdicts by kind and by file."""
    lines = [f"{'':24}" + "".join(f"{name:>{max(10, len(name) + 2)}}" for name in COLUMNS) + "  not mutants"]

    def row(name: str, some: list[Pair]) -> None:
        numbers = Counter(r.verdict for _, r in counted(some))
        rest = len(some) - len(counted(some))
        cells = [f"{numbers[c] or '-':>{max(10, len(c) + 2)}}" for c in COLUMNS]
        lines.append(f"{name:24}{''.join(cells)}{rest:>13}")

    for kind in KINDS:
        row(kind, [p for p in pairs if p[0].kind == kind])
    lines.append("")
    for path in sorted({s.path for s, _ in pairs}):
        row(path, [p for p in pairs if p[0].path == path])
    lines.append("")
    row("all", pairs)
    return "\n".join(lines)


def survivors(pairs: list[Pair]) -> list[Pair]:
    """Mutants that nothing noticed, the equivalent ones, too."""
    return [(s, r) for s, r in pairs if r.verdict in (SURVIVED, LATE)]


def record(campaign: Campaign, command: str, seed: int, begun: tuple[str, str]) -> Record:
    """The record of what is known of a sample."""
    pairs = campaign.results()
    found = counted(pairs)
    numbers = Counter(r.verdict for _, r in found)
    equal = [s for s, r in pairs if r.verdict == SAME]
    same = [s for s, r in survivors(pairs) if is_equivalent(s)]
    missing = untried(campaign, pairs)
    older = sum(r.target != campaign.target for _, r in pairs)
    alive = [(s, r) for s, r in survivors(pairs) if not is_equivalent(s)]
    open_ = [f"`{s.id}` ({s.path}, {s.name}: `{_one(s.old)}` became `{_one(s.new)}`): "
             f"{OPEN.get(s.key, 'not looked at' if r.verdict == SURVIVED else r.by)}." for s, r in alive]  # fmt: skip
    open_ += [f"Not mutants: `{s.id}` ({s.path}, {s.name}: `{_one(s.old)}` became `{_one(s.new)}`): "
              f"{EQUIVALENT[s.key]}." for s in same]  # fmt: skip
    if missing:
        open_.append(f"{missing} mutants of the sample were not tried in the time given.")
    if older:
        open_.append(f"{older} results are of this source file under an earlier version of the tests.")
    return Record(
        part="mutation",
        title="Mutation: small mistakes in the hardware and its arithmetic",
        command=command,
        config="tiny",
        seeds=str(seed),
        evidence="simulated",
        figures={
            "places where a mistake was possible": sum(map(len, campaign.sites.values())),
            "mutants tried": len(found),
            "noticed": f"{share(pairs):.1%}",
            "killed by a test": numbers[KILLED],
            "killed at elaboration": numbers[BUILT],
            "hung, and that is noticed": numbers[HUNG],
            "survived": numbers[SURVIVED],
            "out of time": numbers[LATE],
            "not mutants: same text at the tiny size": len(equal),
            "not mutants: equivalent, explained below": len(same),
            "seconds of the processor, on average": round(sum(r.cpu for _, r in found) / len(found), 1) if found else 0,
        },
        open=tuple(open_),
        date=begun[0],
        commit=begun[1],
        seconds=round(sum(r.seconds for _, r in pairs)),
    )


def _one(text: bytes) -> str:
    return " ".join(text.decode().split()) or "nothing"
