"""Counts what the STATUS frame tells."""

from __future__ import annotations

from amaranth import Module, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .. import link

_BITS = {name: 8 * count for name, count in link.FIELDS[link.Reply.STATUS]}

_NAMES = ("frames_ok", "frames_bad", "tokens", "cycles", "corrected", "uncorrectable")
TALLY = data.StructLayout({name: unsigned(_BITS[name]) for name in _NAMES})
"""Counters of a STATUS frame; they wrap, and only a reset clears them."""


class Counters(wiring.Component):
    """``good``, ``bad``: a frame was carried out or refused; ``token``: one was sampled; ``busy``: a cycle of
    a run. All count the cycles in which they are high, a cycle later. ``corrected``, ``uncorrectable``: so many weight
    words (``error_bits`` bits) in a cycle, likewise."""

    def __init__(self, error_bits: int) -> None:
        super().__init__({
            "good": In(1), "bad": In(1), "token": In(1), "busy": In(1), "corrected": In(error_bits),
            "uncorrectable": In(error_bits), "tally": Out(TALLY),
        })  # fmt: skip

    def elaborate(self, platform) -> Module:
        m = Module()
        for event, name in (
            (self.good, "frames_ok"), (self.bad, "frames_bad"), (self.token, "tokens"), (self.busy, "cycles"),
            (self.corrected, "corrected"), (self.uncorrectable, "uncorrectable"),
        ):  # fmt: skip
            happened = Signal(event.shape(), name=name)
            m.d.sync += [happened.eq(event), self.tally[name].eq(self.tally[name] + happened)]
        return m
