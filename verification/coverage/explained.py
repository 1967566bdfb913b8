"""Lines and toggles that are asked for and were not reached: why, in a word. They count as missing."""

from __future__ import annotations

import re

UNEXPLAINED = "other signals: no run so far had such values"
NOT_YET = "no run so far did this"
_LINES = {
    r"icu\.queue_(cr|sr|sxm): 3'h\d:": "a base register that this address field has no code for: the assembler refuses "
    "it, so only a program with flipped bits has it, by chance",
    r"icu\.queue_\w+: if \(\\\$\d+ ?\) begin": "`fault`: an issue of this queue was missed, which only a program "
    "with flipped bits does, by chance",
    r"host\.loader: 3'h0:": "an `if` around it takes place 0",
    r"host\.loader: .*": "a request that no driver sends (unknown type or space, wrong length, at a wrong time): each "
    "is tried by tests/test_host.py in Amaranth's simulator, which counts nothing",
    r"host\.encoder: .*": "a block of 254 bytes without a zero: tried by tests/test_host.py in Amaranth's simulator, "
    "which counts nothing",
    r"host\.transmitter(\.crc)?: .*": "the host was never so slow that the encoder's ring was full "
    "in this place of a frame",
    r"host\.records: .*": "a count at its end, or records asked for again: tried by the bench `host`, in whose design "
    "this module has another text",
    r"sxm\.act: .*": "a block has two rows at this size, and the arms before are those two",
    r"sxm\.kv: if \(column\) begin": "at this size a superlane has one column: it is always the last one",
    r"vxm\.scalar: .*8'h7f.*": "the exponent of a product with a probability beyond 127",
    r"vxm\.top: if \(t_on3\) begin": "a fourth expert: a token has three at most",
    r"vxm\.top\.gumbel: 4'h\d:": "a piece of the logarithm's table into which no hash fell in this lane",
}
"""By module and source line."""
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


def why_line(name: str) -> str:
    """The reason for a line, given as ``module: source line``."""
    return next((reason for lines, reason in _LINES.items() if re.fullmatch(lines, name)), NOT_YET)
