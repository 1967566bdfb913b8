"""Token ids to text on stdout, as they come."""

from __future__ import annotations

from collections.abc import Sequence

from ..tokenizer import Tokenizer


class Writer:
    """Writes text to stdout, or ids where there is no tokenizer.

    ``text``: what the tokens said; ``silent``: keep it to yourself.
    """

    def __init__(self, tokenizer: Tokenizer | None, silent: bool = False):
        self.tokenizer = tokenizer if tokenizer is not None and tokenizer.available else None
        self.stream = self.tokenizer.stream() if self.tokenizer else None
        self.silent = silent
        self.text = ""

    def prompt(self, ids: Sequence[int]) -> None:
        """The text that is continued; not part of ``text``."""
        if self.tokenizer:
            self._write(self.tokenizer.decode(list(ids)))

    def say(self, said: str) -> None:
        """What a user says, on a line of its own; not part of ``text``."""
        self._write(said + "\n")

    def token(self, token: int) -> None:
        """One token more."""
        self._add(self.stream.step(token) if self.stream else f"{token} ")

    def finish(self) -> None:
        """The rest, and the end of the line."""
        if self.stream:
            self._add(self.stream.finish())
        self._write("\n")

    def _add(self, piece: str) -> None:
        self.text += piece
        self._write(piece)

    def _write(self, piece: str) -> None:
        if not self.silent:
            print(piece, end="", flush=True)
