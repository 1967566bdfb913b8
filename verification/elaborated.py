"""One component several times over, each elaborated for another platform: what a bench compares."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Fragment


class ElaboratedFor(Elaboratable):
    """A component elaborated, with all it holds, for a platform of its own."""

    def __init__(self, component: Elaboratable, platform: object):
        self.component = component
        self.platform = platform

    def elaborate(self, platform: object) -> Fragment:
        return Fragment.get(self.component, self.platform)
