"""Second ports of the weight memories with error correction: when a row of K or V may come there.

A row of V reads a word, and writes it ``Timing.value_update`` cycles later; a row of K only writes, as late. Cycles
here are those in which the last row of a vector comes to the SXM: its first row asks a fixed time later, as all do.
"""

from __future__ import annotations

from collections.abc import Sequence

from hdl.timing import Timing

ANY = -1
"""As a column: that of K, which follows the position, so that a program is legal at all of them or at none."""
Place = tuple[int, int]
"""Column of a superlane, and weight word."""


class SecondPorts:
    """What the rows of a token, and of the one before, do there; ``cycles``: that one's."""

    def __init__(self, timing: Timing, before: SecondPorts | None = None, cycles: int = 0):
        self.t = timing
        # The column that is written in a cycle; the last cycle in which a word is written.
        self._writes: dict[int, int] = {}
        self._words: dict[Place, int] = {}
        if before is not None:
            self._writes = {c - cycles: column for c, column in before._writes.items() if c >= cycles}
            self._words = {place: c - cycles for place, c in before._words.items() if c >= cycles}

    def problem(self, cycle: int, value: bool, places: Sequence[Place]) -> str:
        """Takes note of a vector whose last row comes in ``cycle``; returns what is wrong with it, or nothing.

        ``places``: of each row, in order.
        """
        pace = self.t.value_pace if value else 1
        found = ""
        for i, (column, word) in enumerate(places):
            at = cycle + i * pace
            if value and any(self._words.get((c, word), at - 1) >= at for c in (column, ANY)):
                found = found or f"a value goes into weight[{word}] while another is on its way there"
            if value and self._writes.get(at) in (column, ANY):
                found = found or f"a value goes into weight[{word}] while its column's second port writes"
            self._writes[at + self.t.value_update] = column
            self._words[column, word] = at + self.t.value_update
        return found
