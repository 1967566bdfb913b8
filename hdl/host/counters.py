"""Counts what the STATUS frame tells."""

from __future__ import annotations

from amaranth import Module, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .. import link

_BITS = {name: 8 * count for name, count in link.FIELDS[link.Reply.STATUS]}

TALLY = data.StructLayout(
    {name: unsigned(_BITS[name]) for name in ("frames_ok", "frames_bad", "tokens", "cycles")}
)
"""Counters of a STATUS frame; they wrap, and only a reset clears them."""


class Counters(wiring.Component):
    """``good``, ``bad``: a frame was carried out or refused; ``token``: one was sampled; ``busy``: a cycle of
    a run. All count the cycles in which they are high, a cycle later."""

    def __init__(self) -> None:
        super().__init__({"good": In(1), "bad": In(1), "token": In(1), "busy": In(1), "tally": Out(TALLY)})

    def elaborate(self, platform) -> Module:
        m = Module()
        for event, name in (
            (self.good, "frames_ok"), (self.bad, "frames_bad"), (self.token, "tokens"), (self.busy, "cycles"),
        ):  # fmt: skip
            happened = Signal(name=name)
            m.d.sync += [happened.eq(event), self.tally[name].eq(self.tally[name] + happened)]
        return m
