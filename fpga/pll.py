"""The ECP5's PLL: dividers for a frequency, and the primitive.

Limits are those of the family data sheet (FPGA-DS-02012, sysCLOCK PLL timing) and the PLL usage guide
(FPGA-TN-02200). With feedback from CLKOP the output is input x CLKFB_DIV / CLKI_DIV; CLKOP_DIV only places the
oscillator, at output x CLKOP_DIV.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from fractions import Fraction

from amaranth.hdl import Const, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

INPUT_HZ = (8_000_000, 400_000_000)
PFD_HZ = (10_000_000, 400_000_000)
"""Phase detector: the input divided by CLKI_DIV."""
VCO_HZ = (400_000_000, 800_000_000)
OUTPUT_HZ = (3_125_000, 400_000_000)
DIVIDER_MAX = 128
VCO_BEST_HZ = 600_000_000
"""The middle: the oscillator is placed as near to it as CLKOP_DIV allows, as ecppll does."""


@dataclasses.dataclass(frozen=True)
class PllSettings:
    """Dividers of an EHXPLLL with feedback from CLKOP."""

    input_hz: int
    clki_div: int
    clkfb_div: int
    clkop_div: int

    @property
    def output_hz(self) -> Fraction:
        return Fraction(self.input_hz * self.clkfb_div, self.clki_div)

    @property
    def vco_hz(self) -> Fraction:
        return self.output_hz * self.clkop_div

    @property
    def clkop_cphase(self) -> int:
        """Half a period, as ecppll sets it; the feedback takes whatever phase CLKOP has out again."""
        return (self.clkop_div - 1) // 2


def _within(value: Fraction | int, limits: tuple[int, int]) -> bool:
    return limits[0] <= value <= limits[1]


def _ratios(input_hz: int) -> Iterator[tuple[int, int]]:
    """(CLKI_DIV, CLKFB_DIV) that the phase detector and the output allow."""
    for clki in range(1, DIVIDER_MAX + 1):
        if _within(Fraction(input_hz, clki), PFD_HZ):
            for clkfb in range(1, DIVIDER_MAX + 1):
                if _within(Fraction(input_hz * clkfb, clki), OUTPUT_HZ):
                    yield clki, clkfb


def pll_settings(input_hz: int, output_hz: int) -> PllSettings:
    """Dividers that make exactly ``output_hz``, with the highest phase detector frequency.

    Raises ValueError, naming the nearest frequencies that can be made.
    """
    if not _within(input_hz, INPUT_HZ):
        raise ValueError(f"PLL input of {input_hz / 1e6:g} MHz: {INPUT_HZ[0] / 1e6:g} to {INPUT_HZ[1] / 1e6:g} MHz")
    ratios = list(_ratios(input_hz))
    for clki, clkfb in ratios:
        if input_hz * clkfb == output_hz * clki:
            # Every output within its limits has a CLKOP_DIV that brings the oscillator within its own.
            choices = [PllSettings(input_hz, clki, clkfb, clkop) for clkop in range(1, DIVIDER_MAX + 1)]
            possible = [s for s in choices if _within(s.vco_hz, VCO_HZ)]
            return min(possible, key=lambda s: abs(s.vco_hz - VCO_BEST_HZ))
    outputs = {Fraction(input_hz * clkfb, clki) for clki, clkfb in ratios}
    below = max((hz for hz in outputs if hz < output_hz), default=None)
    above = min((hz for hz in outputs if hz > output_hz), default=None)
    nearest = " and ".join(f"{float(hz) / 1e6:.6g}" for hz in (below, above) if hz is not None)
    raise ValueError(
        f"a PLL cannot make {output_hz / 1e6:.6g} MHz from {input_hz / 1e6:g} MHz; nearest: {nearest} MHz"
    )


class Pll(wiring.Component):
    """``clk_in`` at ``input_hz`` to ``clk`` at ``output_hz``; ``lock``: asynchronous, ``clk`` is good."""

    def __init__(self, input_hz: int, output_hz: int):
        self.settings = pll_settings(input_hz, output_hz)
        super().__init__({"clk_in": In(1), "clk": Out(1), "lock": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s = self.settings
        clk = Signal(name="pll_clk")
        if hasattr(platform, "add_clock_constraint"):
            platform.add_clock_constraint(clk, float(s.output_hz))
        m.submodules.pll = Instance(
            "EHXPLLL",
            # Attributes and parameters as ecppll (Project Trellis) writes them.
            a_FREQUENCY_PIN_CLKI=f"{s.input_hz / 1e6:g}", a_FREQUENCY_PIN_CLKOP=f"{float(s.output_hz) / 1e6:g}",
            a_ICP_CURRENT="12", a_LPF_RESISTOR="8", a_MFG_ENABLE_FILTEROPAMP="1", a_MFG_GMCREF_SEL="2",
            p_PLLRST_ENA="DISABLED", p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED", p_DPHASE_SOURCE="DISABLED",
            p_OUTDIVIDER_MUXA="DIVA", p_OUTDIVIDER_MUXB="DIVB", p_OUTDIVIDER_MUXC="DIVC", p_OUTDIVIDER_MUXD="DIVD",
            p_CLKI_DIV=s.clki_div, p_CLKFB_DIV=s.clkfb_div, p_FEEDBK_PATH="CLKOP",
            p_CLKOP_ENABLE="ENABLED", p_CLKOP_DIV=s.clkop_div, p_CLKOP_CPHASE=s.clkop_cphase, p_CLKOP_FPHASE=0,
            i_CLKI=self.clk_in, i_CLKFB=clk, o_CLKOP=clk, o_LOCK=self.lock, o_CLKINTFB=Signal(),
            i_RST=Const(0, 1), i_STDBY=Const(0, 1), i_PLLWAKESYNC=Const(0, 1), i_ENCLKOP=Const(0, 1),
            i_PHASESEL0=Const(0, 1), i_PHASESEL1=Const(0, 1), i_PHASEDIR=Const(1, 1), i_PHASESTEP=Const(1, 1),
            i_PHASELOADREG=Const(1, 1),
        )  # fmt: skip
        m.d.comb += self.clk.eq(clk)
        return m
