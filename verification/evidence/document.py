"""The results in ``docs/verification.md``, made of the kept records."""

from __future__ import annotations

from pathlib import Path

from .record import BUILT, KEPT, ROOT, Record, read, write

PAGE = ROOT / "docs" / "verification.md"
BEGIN = "<!-- made by `python -m verification.evidence`; do not edit -->"
END = "<!-- end -->"


def section(record: Record) -> str:
    """A record as text."""
    lines = [f"### {record.title}", ""]
    lines += [
        f"`{record.command}` · {record.date}, commit {record.commit} · config {record.config} · seeds "
        f"{record.seeds} · {record.seconds} s [{record.evidence}]",
        "",
        "| figure | value |",
        "|---|---|",
    ]
    lines += [f"| {label} | {_shown(value)} |" for label, value in record.figures.items()]
    if record.open:
        lines += ["", "Not reached, and why:", "", *(f"- {line}" for line in record.open)]
    return "\n".join(lines)


def _shown(value: int | float | str) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else value


def results(folder: Path = KEPT) -> str:
    """Between the two marks."""
    parts = [section(read(path)) for path in sorted(folder.glob("*.json"))]
    return "\n\n".join([BEGIN, *parts, END])


def rewritten(text: str) -> str:
    """The page with the results in their place. Raises ValueError where it has lost its marks."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{PAGE}: the marks of the results must be there once: {BEGIN} and {END}")
    before, rest = text.split(BEGIN)
    return before + results() + rest.split(END)[1]


def keep(parts: list[str]) -> list[Path]:
    """Keep the last run of each part. Raises FileNotFoundError."""
    return [write(read(BUILT / f"{part}.json"), KEPT) for part in parts]
