"""Toggles that are asked for and were not reached: why, in a word, by the signal's name. They count as missing."""

from __future__ import annotations

import re

UNEXPLAINED = "other signals: no run so far had such values"
_ANY = r"(\S*\.)?(control__)?"
_REASONS = {
    r"(load|write|row)__(addr|sub|space|data)|port\$": "addresses and data of the load bus and of memory ports: mostly "
    "upper bits of rows beyond those that the runs loaded; the loader refuses rows that no memory has",
    r"(state|layer|layers|keys|position|slot|counted|count_\w+|window|floor|context)\b": "position, layer and what is "
    "counted by them: mostly upper bits, which a longer context would reach",
    r"(i1|idx|first_n\d|left\d|n\d|element\w*|index|place|after|loop|uop|buffer|r__data)\b": "loop counts and the "
    "instructions that hold them: mostly upper bits, which an instruction of as many micro-ops would reach",
    r"(cycles|upcoming|mark|following|variable|dur|pc|start|saved|tally|STATUS_\w+|DONE_\w+|TOKENS_\w+|"
    r"INFO_\w+|ERROR_\w+|written|first|told|until|at|tokens|good|bad|records?|ready|lost|waiting|image)\b": "counters "
    "of 32 bits and program addresses: mostly upper bits, for which as many cycles, frames or tokens have to pass",
    r"(base_\w+|\w*_base\w*|layer_\w+|expert_\w+|\w*srow\w*|\w+_words|\w+_rows|stop\d|limit|seed|prompt_len|token|"
    r"next_token|best|id|vocab)\b": "parameters and ids: the runs' strides are small and their vocabularies short",
    r"(sums?\d?|total|running|maximum|partial\w*)\b": "upper bits of SUM: as many keys of probability 1",
    r"\$\d+": "expressions without a name, of signals like the above",
}


def why(signal: str) -> str:
    """The reason for a toggle of this name."""
    return next((reason for names, reason in _REASONS.items() if re.match(_ANY + f"({names})", signal)), UNEXPLAINED)
