"""Plain-text corpora: documents separated by blank lines, optionally xz-compressed."""

from __future__ import annotations

import lzma
import random
from collections.abc import Iterable
from pathlib import Path

SEPARATOR = "\n\n"


def read_documents(path: Path) -> list[str]:
    """Documents of a `.txt` or `.txt.xz` file, stripped, without empty ones."""
    raw = path.read_bytes()
    text = (lzma.decompress(raw) if path.suffix == ".xz" else raw).decode("utf-8")
    return [document.strip() for document in text.split(SEPARATOR) if document.strip()]


def write_documents(path: Path, documents: Iterable[str]) -> None:
    """Write documents with a blank line between and one at the end; `.xz` in the name compresses."""
    raw = "".join(document + SEPARATOR for document in documents).encode("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME) if path.suffix == ".xz" else raw)


def split_heldout(documents: list[str], characters: int, seed: int) -> tuple[list[str], list[str]]:
    """(training, held-out) documents: a seeded shuffle, then about `characters` characters are held out."""
    shuffled = list(documents)
    random.Random(seed).shuffle(shuffled)
    taken = count = 0
    while count < characters and taken < len(shuffled):
        count += len(shuffled[taken]) + len(SEPARATOR)
        taken += 1
    return shuffled[taken:], shuffled[:taken]
