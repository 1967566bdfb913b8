"""Micro-ops: what a slice receives in a cycle, derived from the instruction formats.

A micro-op holds the instruction's plain operand fields, its resolved addresses and where it stands in the
instruction's loops. ``valid`` low means: do nothing in this cycle.
"""

from __future__ import annotations

from amaranth.lib import data

from .config import Config
from .isa import Address, Queue, get_isa

_LOOP_FLAGS = ("first", "last", "i1_first", "i1_last", "i2_first")


def uop_layout(cfg: Config, queue: Queue) -> data.StructLayout:
    """Layout of one queue's micro-op.

    ``valid``; ``op`` when the queue has several; each operand field; each address, resolved; ``idx``: linear
    index of the micro-op in its instruction; ``i1``: inner index; flags ``first`` / ``last`` (of the
    instruction), ``i1_first`` / ``i1_last`` (of an inner loop), ``i2_first`` (in the first outer step).
    """
    fmt = get_isa(cfg).formats[queue]
    members: dict[str, int] = {"valid": 1}
    if len(fmt.ops) > 1:
        members["op"] = fmt.by_name["op"].bits
    for operand in fmt.operands:
        members[operand.name] = operand.bits
    members["i1"] = fmt.count_bits
    members["idx"] = index_bits(cfg)
    for flag in _LOOP_FLAGS:
        members[flag] = 1
    return data.StructLayout(members)


def index_bits(cfg: Config) -> int:
    """Bits of a linear micro-op index: rows of the largest vocabulary or score vector."""
    return max(cfg.token_bits, cfg.position_bits) + 1


def address_names(cfg: Config, queue: Queue) -> list[str]:
    """Names of a queue's address fields."""
    return [o.name for o in get_isa(cfg).formats[queue].operands if isinstance(o, Address)]


def run_state_layout(cfg: Config) -> data.StructLayout:
    """What only run time knows, as the ICU holds it for the token in work.

    ``token``: id; ``token1``: the second sequence's; ``position``; ``slot``: place of this token's key in the cache
    (position modulo window); ``keys``: n, keys in the cache with this one; ``turn``: changes with every token, when
    nothing else may.
    """
    return data.StructLayout({
        "token": cfg.token_bits,
        "token1": cfg.token_bits,
        "position": cfg.position_bits,
        "slot": cfg.position_bits,
        "keys": cfg.position_bits,
        "turn": 1,
    })  # fmt: skip
