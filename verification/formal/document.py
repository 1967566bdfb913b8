"""The table of proofs in ``docs/formal.md``, from the registry: ``python -m verification.formal --document``."""

from __future__ import annotations

from pathlib import Path

from .proof import Proof
from .proofs import PROOFS

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "formal.md"
BEGIN = "<!-- made by `python -m verification.formal --document`; do not edit -->"
END = "<!-- end -->"


def extent(proof: Proof) -> str:
    """How far it reaches, in words."""
    if proof.mode == "prove":
        return f"unbounded ({proof.depth}-induction)"
    return "all inputs (no state)" if proof.depth == 1 else f"bounded: {proof.depth} cycles from reset"


def table() -> str:
    """Between the two marks."""
    rows = ["| proof | what it proves | assumes | extent | config |", "|---|---|---|---|---|"]
    for p in PROOFS:
        name = f"`{p.name}`{' (slow)' if p.slow else ''}"
        rows.append(f"| {name} | {p.proves} | {p.assumes} | {extent(p)} | {p.config} |")
    return "\n".join([BEGIN, *rows, END])


def rewrite() -> None:
    """Put the table into the page. Raises ValueError where the page has lost its marks."""
    text = PAGE.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{PAGE}: the table's marks must be there once: {BEGIN} and {END}")
    before, rest = text.split(BEGIN)
    PAGE.write_text(before + table() + rest.split(END)[1], encoding="utf-8")
