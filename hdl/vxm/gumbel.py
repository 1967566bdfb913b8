"""Gumbel noise for V token ids a cycle: a counter-based hash and a table of -ln(-ln U).

The ids come in order, so the generator runs ahead: it fills its pipeline with the first rows' noise when the
token's position is known, and steps on when a row is used. Its depth therefore never delays a row.
"""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .. import tables
from ..config import Config
from ..mem import Rom
from ..primitives import leading_one
from ..timing import get_timing
from ..uop import index_bits

NOISE_BITS = tables.GUMBEL_BASE_BITS
_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA
_DEPTH = 13
"""Registers from the row index to the noise: hash 8, leading one, shift, table 2, interpolation."""


def _rotated(x: Value, by: int) -> Value:
    return Cat(x[32 - by :], x[: 32 - by])


class GumbelNoise(wiring.Component):
    """``noise`` (V x 22 bit signed, 16 fraction bits) of the ids row * V + lane, row = 0, 1, 2 ...

    ``advance``: the row on ``noise`` is used in this cycle, the next one follows in the next cycle. ``last``
    (with ``advance``): begin again at row 0. A new ``seed`` or ``position`` also begins again. The first row
    stands on ``noise`` ``timing.top_noise`` cycles after either.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        super().__init__({
            "seed": In(32),
            "position": In(cfg.position_bits),
            "advance": In(1),
            "last": In(1),
            "noise": Out(data.ArrayLayout(signed(NOISE_BITS), cfg.vlanes)),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        cfg = self.cfg
        v = cfg.vlanes
        assert get_timing(cfg).top_noise >= _DEPTH + 3

        # What the pipeline was filled for. The constants behind it settle before the first row enters.
        seed, position = Signal(32), Signal(cfg.position_bits)
        fresh = Signal(init=1)
        stale = Signal()
        first_key, third_key = Signal(32, reset_less=True), Signal(32, reset_less=True)
        third_key_1 = Signal(32, reset_less=True)
        m.d.sync += [
            seed.eq(self.seed),
            position.eq(self.position),
            first_key.eq(seed + position),
            third_key.eq(seed ^ _PARITY),
            third_key_1.eq((seed ^ _PARITY) + 1),
            fresh.eq(0),
        ]
        m.d.comb += stale.eq(fresh | (seed != self.seed) | (position != self.position))
        filling = Signal(range(_DEPTH + 2))
        row = Signal(index_bits(cfg))
        step = Signal()
        m.d.comb += step.eq(self.advance | ((filling != 0) & (filling <= _DEPTH)))
        with m.If(stale | (self.advance & self.last)):
            m.d.sync += [filling.eq(_DEPTH + 1), row.eq(0)]
        with m.Else():
            with m.If(filling != 0):
                m.d.sync += filling.eq(filling - 1)
            with m.If(step):
                m.d.sync += row.eq(row + 1)

        addresses: list[Signal] = []
        rests: list[Signal] = []
        for lane in range(v):
            address, rest = self._index(m, lane, row, position, first_key, third_key, third_key_1, step)
            addresses.append(address)
            rests.append(rest)
        # Two lanes share a ROM: block RAM has two ports.
        words = tables.packed("GUMBEL")
        for lane in range(v):
            if lane % 2 == 0:
                m.submodules[f"rom{lane // 2}"] = rom = Rom(width=36, init=words, ports="ab")
            port = getattr(rom, "ab"[lane % 2])
            m.d.comb += [port.addr.eq(addresses[lane]), port.en.eq(step)]
            word = port.data
            rest_1 = Signal(3, reset_less=True, name=f"rest_1_{lane}")
            rest_2 = Signal(3, reset_less=True, name=f"rest_2_{lane}")
            noise = Signal(signed(NOISE_BITS), reset_less=True, name=f"noise{lane}")
            base, slope = word[:NOISE_BITS].as_signed(), word[NOISE_BITS:].as_signed()
            total = base << 3
            for bit in range(3):
                total = total + (Mux(rest_2[bit], slope, Const(0, signed(1))) << bit)
            with m.If(step):
                m.d.sync += [
                    rest_1.eq(rests[lane]),
                    rest_2.eq(rest_1),
                    noise.eq(total >> 3),
                ]
            m.d.comb += self.noise[lane].eq(noise)
        return m

    def _index(
        self, m: Module, lane: int, row: Signal, position: Signal,
        first_key: Signal, third_key: Signal, third_key_1: Signal, step: Signal,
    ) -> tuple[Signal, Signal]:  # fmt: skip
        """Threefry-2x32 of one lane, then table address (10 bit) and position in the piece (3 bit)."""
        lane_bits = (self.cfg.vlanes - 1).bit_length()
        counter = Signal(32, name=f"id{lane}")
        position_32 = Signal(32, name=f"position{lane}")
        m.d.comb += [counter.eq(Cat(Const(lane, lane_bits), row)), position_32.eq(position)]

        def reg(shape: Any, name: str) -> Signal:
            return Signal(shape, reset_less=True, name=f"{name}_{lane}")

        # Key (seed, 0): the second key word is zero, and the first is added ahead of time.
        x0: Value = counter
        x1: Value = position_32
        for r, rotation in enumerate(_ROTATIONS):
            total, mixed = Signal(32, name=f"sum{r}_{lane}"), Signal(32, name=f"mix{r}_{lane}")
            if r == 0:
                m.d.comb += total.eq(x0 + first_key)
            elif r == 4:  # key injection after round 4: x0 += 0, x1 += third + 1
                m.d.comb += total.eq(x0 + x1 + third_key_1)
                x1 = (x1 + third_key_1)[:32]
            elif r == 7:  # key injection after round 8, for the half of the state that is used
                m.d.comb += total.eq(x0 + x1 + third_key)
            else:
                m.d.comb += total.eq(x0 + x1)
            m.d.comb += mixed.eq(_rotated(x1, rotation) ^ total)
            x0_reg, x1_reg = reg(32, f"x0_{r}"), reg(32, f"x1_{r}")
            with m.If(step):
                m.d.sync += [x0_reg.eq(total), x1_reg.eq(mixed)]
            x0, x1 = x0_reg, x1_reg

        high = x0[31]
        x = Signal(23, name=f"x{lane}")
        m.d.comb += x.eq((x0[8:31] ^ high.replicate(23)) | 1)
        leading = leading_one(m, x, f"leading{lane}")
        octave = Signal(5, name=f"octave{lane}")
        m.d.comb += octave.eq(22 - leading)
        last = tables.GUMBEL_LOW - 1
        linear = ~high & (octave >= last)
        x_reg, n_reg = reg(23, "x_reg"), reg(5, "n_reg")
        high_reg, linear_reg = reg(1, "high_reg"), reg(1, "linear_reg")
        address, rest = reg(10, "address"), reg(3, "rest")
        fraction = Signal(8, name=f"fraction{lane}")
        m.d.comb += fraction.eq(Mux(linear_reg, x_reg[8:16], (x_reg << n_reg)[14:22]))
        with m.If(step):
            m.d.sync += [
                x_reg.eq(x),
                n_reg.eq(Mux(linear, last, octave)),
                high_reg.eq(high),
                linear_reg.eq(linear),
                address.eq(Cat(fraction[3:], Mux(high_reg, n_reg, n_reg | tables.GUMBEL_HIGH))),
                rest.eq(fraction[:3]),
            ]
        return address, rest
