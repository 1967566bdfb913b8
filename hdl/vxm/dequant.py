"""Dequantiser: accumulator rows times scale and scalar onto stream Y, and the running maximum MAX."""

from __future__ import annotations

from typing import Any

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import SCALARS, SCALE_BITS, SOFTMAX_BANKS, WORD, Config
from ..isa import AccSource, Queue
from ..primitives import Multiplier, WideMultiplier, delayed, less, round_clamp, shift_coarse, shift_fine
from ..timing import get_timing
from ..uop import run_state_layout, uop_layout

_GROUP = 4
"""Values whose maximum is found in two stages (all pairs compared at once, then one taken)."""
_LOWEST = Const(-(1 << WORD - 1), signed(WORD))


def best_of(m: Module, values: list[Any], enables: list[Any], name: str) -> tuple[Signal, Signal]:
    """Largest of the enabled signed values and whether there is one, two cycles later; else the lowest value.

    The first stage is nothing but the comparisons of all pairs.
    """
    # beats[i][j]: value i is to be taken rather than value j, were i enabled.
    beats = [[Signal(reset_less=True, name=f"{name}_beats{i}_{j}") for j in range(len(values))]
             for i in range(len(values))]  # fmt: skip
    for j in range(len(values)):
        for i in range(j):
            below = Signal(name=f"{name}_below{i}_{j}")
            m.d.comb += below.eq(less(values[i], values[j]))
            m.d.sync += [beats[i][j].eq(~enables[j] | ~below), beats[j][i].eq(~enables[i] | below)]
    values_1 = [delayed(m, value, 1, name=f"{name}_value{i}")[-1] for i, value in enumerate(values)]
    enables_1 = [delayed(m, on, 1, name=f"{name}_on{i}")[-1] for i, on in enumerate(enables)]
    row: Value = _LOWEST.as_unsigned() & (~Cat(*enables_1).any()).replicate(WORD)
    for i, value in enumerate(values_1):
        win = Cat(enables_1[i], *(b for j, b in enumerate(beats[i]) if j != i)).all()
        row = row | (value.as_unsigned() & win.replicate(WORD))
    best = Signal(signed(WORD), reset_less=True, name=f"{name}_best")
    some = Signal(reset_less=True, name=f"{name}_some")
    m.d.sync += [best.eq(row), some.eq(Cat(*enables_1).any())]
    return best, some


class Dequantiser(wiring.Component):
    """ACC micro-ops -> stream Y (V lanes, 32 bit signed), ``timing.acc`` cycles later.

    At t: ``uop``, ``scl`` (V x 16 bit unsigned), ``gather`` (V x int8) and the scalar at ``scalar`` are
    sampled. At t + max(V, 4): ``value`` (V accumulators). ``maximum``: the banks of MAX, in use
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
            "maximum": Out(data.ArrayLayout(signed(WORD), SOFTMAX_BANKS)),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        cfg, uop, v = self.cfg, self.uop, self.cfg.vlanes
        timing = get_timing(cfg)
        lane_bits = (v - 1).bit_length()
        wide_stages = 2
        # Behind value: the wide product, shift in two stages, rounding.
        drain = timing.acc - (wide_stages + 1) - 3
        assert drain >= 4, "SCL * R is ready in cycle t + 4"
        m.d.comb += self.scalar.eq(uop.scalar)

        # Operands of cycle t, each behind one multiplexer at most.
        mantissa = delayed(m, self.mantissa, 1, name="mantissa")[-1]
        exponent = delayed(m, self.exponent, 1, name="exponent")[-1]
        own_shift = delayed(m, uop.shift, 1, name="own_shift")[-1]
        bcast = delayed(m, uop.bcast, 1, name="bcast")[-1]
        # Of either token: which one is meant is known as early, but the tokens come from far away.
        second = delayed(m, uop.sequence, 1, name="second")[-1]
        each = [Signal(SCALE_BITS, reset_less=True, name=f"shared{i}") for i in range(2)]
        for own, token in zip(each, (self.state.token, self.state.token1), strict=True):
            m.d.sync += own.eq(Array(self.scl)[token[:lane_bits]])
        shared = Mux(second, each[1], each[0])
        # t + 1: the sum of both shifts; t + 2: clamped to what a 63-bit product can use.
        total = Signal(signed(9), reset_less=True)
        shift = Signal(6, reset_less=True)
        m.d.sync += [
            total.eq(own_shift + exponent),
            shift.eq(Mux(total < 0, 0, Mux(total > 63, 63, total[:6]))),
        ]
        shift_pipe = delayed(m, shift, timing.acc - 5, name="shift")
        from_gather = delayed(m, uop.source == AccSource.GATHER, drain, reset=True, name="from_gather")[-1]

        for lane in range(v):
            # m = round(SCL * R >> 15): product in cycle t + 3, rounded in t + 4, there until value arrives.
            own = delayed(m, self.scl[lane], 1, name=f"scl{lane}")[-1]
            m.submodules[f"scale{lane}"] = scale = Multiplier(stages=2, signed_a=False, signed_b=False)
            m.d.comb += [scale.a.eq(Mux(bcast, shared, own)), scale.b.eq(mantissa)]
            factor = Signal(17, reset_less=True, name=f"factor{lane}")
            m.d.sync += factor.eq((scale.p[14:] + 1) >> 1)
            factor_in = delayed(m, factor, drain - 4, name=f"factor{lane}")[-1]
            gathered = delayed(m, self.gather[lane], drain, name=f"gather{lane}")[-1]

            m.submodules[f"wide{lane}"] = wide = WideMultiplier(cfg.acc_bits, stages=wide_stages)
            m.d.comb += [
                wide.a.eq(Mux(from_gather, gathered, self.value[lane])),
                wide.b.eq(factor_in),
            ]
            product = wide.p[: cfg.acc_bits + 17].as_signed()
            coarse = Signal(signed(len(product) + 1), reset_less=True, name=f"coarse{lane}")
            kept = Signal(signed(len(product) + 1), reset_less=True, name=f"kept{lane}")
            y = Signal(signed(WORD), reset_less=True, name=f"y{lane}")
            m.d.sync += [
                coarse.eq(shift_coarse(product, shift_pipe[-2])),
                kept.eq(shift_fine(coarse, shift_pipe[-1])),
                y.eq(round_clamp(kept, WORD)),
            ]
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
        if v == 1:
            values = [Mux(enables[0], values[0], _LOWEST).as_signed()]
        while len(values) > 1:
            groups = [
                best_of(m, values[at : at + _GROUP], enables[at : at + _GROUP], f"max{level}_{at}")
                for at in range(0, len(values), _GROUP)
            ]
            values, enables = [best for best, _ in groups], [some for _, some in groups]
            active = delayed(m, active, 2, reset=True, name=f"max{level}_on")[-1]
            first, bank = (delayed(m, s, 2, name=f"max{level}_c{i}")[-1] for i, s in enumerate((first, bank)))
            level += 1
        assert acc + 2 * level + 1 == get_timing(cfg).max
        # A row without an element is the lowest value: it starts a maximum like any other and never exceeds one.
        # Instructions follow each other, so one running maximum serves all banks.
        running = Signal(signed(WORD), reset_less=True)
        held = Array(Signal(signed(WORD), reset_less=True, name=f"maximum{i}") for i in range(SOFTMAX_BANKS))
        with m.If(active & (first | less(running, values[0]))):
            m.d.sync += [running.eq(values[0]), held[bank].eq(values[0])]
        m.d.comb += [self.maximum[i].eq(held[i]) for i in range(SOFTMAX_BANKS)]
