"""Dequantiser: accumulator rows times scale and scalar onto stream Y, and the running maximum MAX."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import SCALARS, SCALE_BITS, WORD, Config
from ..isa import AccSource, Queue
from ..primitives import Multiplier, WideMultiplier, delayed, round_sat, shift_keep
from ..timing import get_timing
from ..uop import run_state_layout, uop_layout

_GROUP = 4
"""Values whose maximum is found in one stage (all pairs compared at once)."""


def best_of(m: Module, values: list[Any], enables: list[Any], name: str) -> tuple[Value, Value]:
    """Largest of the enabled signed values and whether there is one, in one stage: all pairs at once.

    Without an enabled value the first result is 0.
    """
    wins = []
    for i, (a, on) in enumerate(zip(values, enables, strict=True)):
        win = Signal(name=f"{name}_win{i}")
        beats = [~enables[j] | (a >= b if i < j else a > b) for j, b in enumerate(values) if j != i]
        m.d.comb += win.eq(Cat(on, *beats).all())
        wins.append(win)
    row: Value = Const(0, WORD)
    for win, a in zip(wins, values, strict=True):
        row = row | (a.as_unsigned() & win.replicate(WORD))
    return row.as_signed(), Cat(*wins).any()


class Dequantiser(wiring.Component):
    """ACC micro-ops -> stream Y (V lanes, 32 bit signed), ``timing.acc`` cycles later.

    At t: ``uop``, ``scl`` (V x 16 bit unsigned), ``gather`` (V x int8) and the scalar at ``scalar`` are
    sampled. At t + max(V, 4): ``value`` (V accumulators). ``maximum``: the two banks of MAX, in use
    ``timing.max`` after the last micro-op; the first micro-op of an instruction begins a new maximum.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        v = cfg.vlanes
        super().__init__({
            "uop": In(uop_layout(cfg, Queue.ACC)),
            "state": In(run_state_layout(cfg)),
            "scl": In(data.ArrayLayout(unsigned(SCALE_BITS), v)),
            "gather": In(data.ArrayLayout(signed(8), v)),
            "value": In(data.ArrayLayout(signed(cfg.acc_bits), v)),
            "scalar": Out(range(SCALARS)),
            "mantissa": In(unsigned(16)),
            "exponent": In(signed(8)),
            "y": Out(data.ArrayLayout(signed(WORD), v)),
            "maximum": Out(data.ArrayLayout(signed(WORD), 2)),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        cfg, uop, v = self.cfg, self.uop, self.cfg.vlanes
        timing = get_timing(cfg)
        lane_bits = (v - 1).bit_length()
        wide_stages = 2
        drain = timing.acc - (wide_stages + 1) - 2
        assert drain >= 3, "SCL * R is ready in cycle t + 3"
        m.d.comb += self.scalar.eq(uop.scalar)

        # Cycle t: the sum of both shifts, clamped to what a 63-bit product can use.
        total = Signal(signed(9))
        shift = Signal(6)
        m.d.comb += [
            total.eq(uop.shift + self.exponent),
            shift.eq(Mux(total < 0, 0, Mux(total > 63, 63, total[:6]))),
        ]
        shift_pipe = delayed(m, shift, timing.acc - 2, name="shift")
        from_gather = delayed(m, uop.source == AccSource.GATHER, drain, reset=True, name="from_gather")[-1]
        token_lane = self.state.token[:lane_bits]

        for lane in range(v):
            # m = round(SCL * R >> 15): product in cycle t + 2, rounded in t + 3, there until value arrives.
            m.submodules[f"scale{lane}"] = scale = Multiplier(stages=2, signed_a=False, signed_b=False)
            m.d.comb += [
                scale.a.eq(Mux(uop.bcast, self.scl[token_lane], self.scl[lane])),
                scale.b.eq(self.mantissa),
            ]
            factor = Signal(17, reset_less=True, name=f"factor{lane}")
            m.d.sync += factor.eq((scale.p[14:] + 1) >> 1)
            factor_in = delayed(m, factor, drain - 3, name=f"factor{lane}")[-1]
            gathered = delayed(m, self.gather[lane], drain, name=f"gather{lane}")[-1]

            m.submodules[f"wide{lane}"] = wide = WideMultiplier(cfg.acc_bits, stages=wide_stages)
            m.d.comb += [
                wide.a.eq(Mux(from_gather, gathered, self.value[lane])),
                wide.b.eq(factor_in),
            ]
            product = wide.p[: cfg.acc_bits + 17].as_signed()
            kept = Signal(signed(len(product) + 1), reset_less=True, name=f"kept{lane}")
            y = Signal(signed(WORD), reset_less=True, name=f"y{lane}")
            m.d.sync += [kept.eq(shift_keep(product, shift_pipe[-1])), y.eq(round_sat(kept, WORD))]
            m.d.comb += self.y[lane].eq(y)

        self._maximum(m)
        return m

    def _maximum(self, m: Module) -> None:
        cfg, uop, v = self.cfg, self.uop, self.cfg.vlanes
        acc = get_timing(cfg).acc
        lane_bits = (v - 1).bit_length()
        active = delayed(m, uop.valid & uop.max, acc, reset=True, name="max_on")[-1]
        first = delayed(m, uop.first, acc, name="max_first")[-1]
        bank = delayed(m, uop.bank, acc, name="max_bank")[-1]
        inside = Signal(v)
        for lane in range(v):
            m.d.comb += inside[lane].eq(Cat(Const(lane, lane_bits), uop.idx) < self.state.keys)
        inside = delayed(m, inside, acc, name="max_inside")[-1]

        values: list[Any] = [self.y[lane] for lane in range(v)]
        enables: list[Any] = [inside[lane] for lane in range(v)]
        level = 0
        while len(values) > 1:
            next_values: list[Any] = []
            next_enables: list[Any] = []
            for at in range(0, len(values), _GROUP):
                name = f"max{level}_{at}"
                best, some = best_of(m, values[at : at + _GROUP], enables[at : at + _GROUP], name)
                best_reg = Signal(signed(WORD), reset_less=True, name=f"{name}_best")
                some_reg = Signal(reset_less=True, name=f"{name}_some")
                m.d.sync += [best_reg.eq(best), some_reg.eq(some)]
                next_values.append(best_reg)
                next_enables.append(some_reg)
            active = delayed(m, active, 1, reset=True, name=f"max{level}_on")[-1]
            first, bank = (delayed(m, s, 1, name=f"max{level}_c{i}")[-1] for i, s in enumerate((first, bank)))
            values, enables = next_values, next_enables
            level += 1
        assert acc + level + 1 == get_timing(cfg).max
        lowest = Const(-(1 << WORD - 1), signed(WORD))
        for i in range(2):
            held = Signal(signed(WORD), name=f"maximum{i}")
            with m.If(active & (bank == i)):
                with m.If(first):
                    m.d.sync += held.eq(Mux(enables[0], values[0], lowest))
                with m.Elif(enables[0] & (values[0] > held)):
                    m.d.sync += held.eq(values[0])
            m.d.comb += self.maximum[i].eq(held)
