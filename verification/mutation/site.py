"""A place in a source file where a small mistake can be made, and the text with that mistake."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from pathlib import Path

KINDS = ("operator", "comparison", "constant", "latency", "reset", "swap", "condition", "statement")
"""What kinds of mistakes there are; see ``mutators``."""


@dataclasses.dataclass(frozen=True)
class Site:
    """In ``path``, bytes ``start`` to ``end`` become ``new``. ``name``: the function or class it is in."""

    path: str
    kind: str
    name: str
    line: int
    start: int
    end: int
    new: bytes
    old: bytes = b""
    lines: tuple[str, str] = ("", "")
    """The lines it is in, without and with it."""
    number: int = 0
    """Which one it is among those with the same kind, function and lines."""

    @property
    def key(self) -> str:
        """What the mistake is, in words that stay when other lines change."""
        number = (str(self.number),) if self.number else ()
        return " | ".join((self.path, self.name, self.kind, *self.lines, *number))

    @property
    def id(self) -> str:
        """Short name: the file's, and eight digits."""
        return f"{Path(self.path).stem}-{hashlib.sha256(self.key.encode()).hexdigest()[:8]}"

    def applied(self, source: bytes) -> bytes:
        """The file's text with the mistake."""
        return source[: self.start] + self.new + source[self.end :]

    def diff(self, source: bytes) -> str:
        """The mistake as a diff without context."""
        before, after = source.decode().splitlines(), self.applied(source).decode().splitlines()
        lines = list(difflib.unified_diff(before, after, self.path, self.path, lineterm="", n=0))
        return "\n".join([f"{self.path}:{self.line} {self.name} [{self.id}]", *lines[3:]])
