"""Gumbel noise for V token ids a cycle: a counter-based hash for each two and a table of -ln(-ln U).

The ids come in order, so the generator runs ahead: it fills its pipeline with the first rows' noise when the
token's position is known, and steps on when a row is used. Its depth therefore never delays a row.
"""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .. import tables
from ..config import Config
from ..mem import Rom
from ..primitives import highest_one
from ..timing import get_timing
from ..uop import index_bits

NOISE_BITS = tables.GUMBEL_BASE_BITS
_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA
_ROUNDS = len(_ROTATIONS) + 1
"""Registers of the hash's rounds and of the key injection between them."""
_DEPTH = 18
"""Registers from the row index to the noise: hash 10, argument, leading one, octave, shift, table 2, product 2."""


def _rotated(x: Value, by: int) -> Value:
    return Cat(x[32 - by :], x[: 32 - by])


class GumbelNoise(wiring.Component):
    """``noise`` (V x 22 bit signed, 16 fraction bits) of the ids row * V + lane, row = 0, 1, 2 ...

    With ``single`` only lane 0 counts, and has the noise of id = row: one rank a row, whatever V is.

    ``advance`` at t: the row on ``noise`` is used in cycle t + 1, the next one follows in the next cycle. ``last``
    (with ``advance``): begin again at row 0. A new ``seed``, ``position`` or ``single`` also begins again. The
    first ``advance`` comes ``timing.top_noise`` cycles after either.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        super().__init__({
            "seed": In(32),
            "position": In(cfg.position_bits),
            "single": In(1),
            "advance": In(1),
            "last": In(1),
            "noise": Out(data.ArrayLayout(signed(NOISE_BITS), cfg.vlanes)),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        cfg = self.cfg
        v = cfg.vlanes
        assert get_timing(cfg).top_noise >= _DEPTH + 4  # a new seed is one cycle behind the last advance

        # What the pipeline was filled for. The constants behind it settle before the first row enters.
        seed, position, single = Signal(32), Signal(cfg.position_bits), Signal()
        fresh = Signal(init=1)
        stale = Signal()
        first_key, third_key = Signal(32, reset_less=True), Signal(32, reset_less=True)
        third_key_1, last_key = Signal(32, reset_less=True), Signal(32, reset_less=True)
        m.d.sync += [
            seed.eq(self.seed),
            position.eq(self.position),
            single.eq(self.single),
            first_key.eq(seed + position),
            third_key.eq(seed ^ _PARITY),
            third_key_1.eq((seed ^ _PARITY) + 1),
            last_key.eq(seed + 2),
            fresh.eq(0),
        ]
        changed = (seed != self.seed) | (position != self.position) | (single != self.single)
        m.d.comb += stale.eq(fresh | changed)
        # The pipeline's enable goes to thousands of registers and is therefore one itself.
        filling = Signal(range(_DEPTH + 2))
        # The row's first id. Only with single its low bits are not zero.
        first_id = Signal(index_bits(cfg) + (v - 1).bit_length())
        step, again = Signal(), Signal()
        m.d.sync += [
            again.eq(stale | (self.advance & self.last)),
            # What is left of a filling that begins again does not count.
            step.eq(self.advance | ((filling != 0) & (filling <= _DEPTH) & ~again)),
        ]
        with m.If(again):
            m.d.sync += [filling.eq(_DEPTH + 1), first_id.eq(0)]
        with m.Else():
            with m.If(filling != 0):
                m.d.sync += filling.eq(filling - 1)
            with m.If(step):
                m.d.sync += first_id.eq(first_id + Mux(single, 1, v))

        indices: list[tuple[Signal, Signal]] = []
        for pair in range(0, v, 2):
            x0, x1 = self._rounds(m, pair, first_id, position, first_key, third_key_1, step)
            if pair == 0:
                # A row of one id takes lane 0, whichever word is the id's.
                odd = Signal(_ROUNDS, reset_less=True)
                with m.If(step):
                    m.d.sync += odd.eq(Cat(first_id[0], odd))
                x0, key_0 = Mux(odd[-1], x1, x0), Mux(odd[-1], last_key, third_key)
            else:
                key_0 = third_key
            # Key injection after the last round.
            for lane, x, key in ((pair, x0, key_0), (pair + 1, x1, last_key))[: v - pair]:
                hashed = Signal(32, reset_less=True, name=f"hashed_{lane}")
                with m.If(step):
                    m.d.sync += hashed.eq(x + key)
                indices.append(self._index(m, lane, hashed, step))
        # Two lanes share a ROM: block RAM has two ports.
        words = tables.packed("GUMBEL")
        for lane, (address, rest) in enumerate(indices):
            if lane % 2 == 0:
                m.submodules[f"rom{lane // 2}"] = rom = Rom(width=36, init=words, ports="ab")
            port = getattr(rom, "ab"[lane % 2])
            m.d.comb += [port.addr.eq(address), port.en.eq(step)]
            word = port.data
            rest_1 = Signal(3, reset_less=True, name=f"rest_1_{lane}")
            rest_2 = Signal(3, reset_less=True, name=f"rest_2_{lane}")
            noise = Signal(signed(NOISE_BITS), reset_less=True, name=f"noise{lane}")
            base, slope = word[:NOISE_BITS].as_signed(), word[NOISE_BITS:].as_signed()
            terms = [Mux(rest_2[bit], slope, Const(0, signed(1))) << bit for bit in range(3)]
            low = Signal(signed(NOISE_BITS + 4), reset_less=True, name=f"low{lane}")
            high = Signal((terms[1] + terms[2]).shape(), reset_less=True, name=f"high{lane}")
            with m.If(step):
                m.d.sync += [
                    rest_1.eq(rest),
                    rest_2.eq(rest_1),
                    low.eq((base << 3) + terms[0]),
                    high.eq(terms[1] + terms[2]),
                    noise.eq((low + high) >> 3),
                ]
            m.d.comb += self.noise[lane].eq(noise)
        return m

    def _rounds(
        self, m: Module, lane: int, first_id: Signal, position: Signal, first_key: Signal, third_key_1: Signal,
        step: Signal,
    ) -> tuple[Value, Value]:  # fmt: skip
        """Threefry-2x32 for ``lane`` and the next one, short of the last key injection, ``_ROUNDS`` registers long."""
        counter, position_32 = Signal(31, name=f"id{lane}"), Signal(32, name=f"position{lane}")
        lane_bits = (self.cfg.vlanes - 1).bit_length()
        low = Const(lane >> 1, lane_bits - 1) if lane else first_id[1 : max(1, lane_bits)]
        m.d.comb += [counter.eq(Cat(low, first_id[max(1, lane_bits) :])), position_32.eq(position)]

        def reg(shape: Any, name: str) -> Signal:
            return Signal(shape, reset_less=True, name=f"{name}_{lane}")

        # Key (seed, 0): the second key word is zero, and the first is added ahead of time.
        x0: Value = counter
        x1: Value = position_32
        for r, rotation in enumerate(_ROTATIONS):
            if r == 4:
                # Key injection after round 4, in a cycle of its own: x0 += 0, x1 += third + 1.
                x0_reg, x1_reg = reg(32, "x0_key"), reg(32, "x1_key")
                with m.If(step):
                    m.d.sync += [x0_reg.eq(x0), x1_reg.eq(x1 + third_key_1)]
                x0, x1 = x0_reg, x1_reg
            total, mixed = Signal(32, name=f"sum{r}_{lane}"), Signal(32, name=f"mix{r}_{lane}")
            m.d.comb += [total.eq(x0 + (x1 if r else first_key)), mixed.eq(_rotated(x1, rotation) ^ total)]
            x0_reg, x1_reg = reg(32, f"x0_{r}"), reg(32, f"x1_{r}")
            with m.If(step):
                m.d.sync += [x0_reg.eq(total), x1_reg.eq(mixed)]
            x0, x1 = x0_reg, x1_reg
        return x0, x1

    def _index(self, m: Module, lane: int, hashed: Signal, step: Signal) -> tuple[Signal, Signal]:
        """Of a hash: table address (10 bit) and position in the piece (3 bit)."""

        def reg(shape: Any, name: str) -> Signal:
            return Signal(shape, reset_less=True, name=f"{name}_{lane}")

        high = hashed[31]
        last = tables.GUMBEL_LOW - 1
        x, x_1, x_2 = (reg(23, f"x_arg{i}") for i in range(3))
        high_0, high_1, high_2 = (reg(1, f"high{i}") for i in range(3))
        leading, octave, linear = reg(5, "leading"), reg(5, "octave"), reg(1, "linear")
        address, rest = reg(10, "address"), reg(3, "rest")
        fraction = Signal(8, name=f"fraction{lane}")
        m.d.comb += fraction.eq(Mux(linear, x_2[8:16], (x_2 << octave)[14:22]))
        with m.If(step):
            m.d.sync += [
                x.eq((hashed[8:31] ^ high.replicate(23)) | 1),
                high_0.eq(high),
                leading.eq(highest_one(x)),
                x_1.eq(x),
                high_1.eq(high_0),
                # On side 0 the octaves from the last one on are one piece.
                linear.eq(~high_1 & (leading <= 22 - last)),
                octave.eq(Mux(~high_1 & (leading <= 22 - last), last, 22 - leading)),
                x_2.eq(x_1),
                high_2.eq(high_1),
                address.eq(Cat(fraction[3:], Mux(high_2, octave, octave | tables.GUMBEL_HIGH))),
                rest.eq(fraction[:3]),
            ]
        return address, rest
