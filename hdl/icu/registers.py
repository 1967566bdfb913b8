"""Run state (token, position, keys, slot) and the base registers derived from it."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import Config, address_bits
from ..isa import EXPERT_BASES, Base, Width
from ..uop import run_state_layout
from .params import param_bits


def _log2(n: int) -> int:
    return n.bit_length() - 1


class BaseRegisters(wiring.Component):
    """Run state and bases of the weight (w, dst), scale (s), coefficient (c) and KV scale (srow) addresses.

    Inputs: ``clear``: pulse, position 0; ``advance``: pulse, next position; ``token``, ``token1`` / ``set_token``: ids
    of the tokens about to be worked on; ``next_layer`` / ``first_layer``: pulses; ``expert_valid``: pulse,
    ``expert_index`` gets ``expert_id``; parameters by name. Every base and count is a register: a queue adds it
    to a field in the cycle in which it issues.
    """

    PARAMS = (
        "layer_w", "layer_s", "layer_c", "expert_w", "expert_s", "token_words", "embed_width",
        "key_words", "rope_rows", "window", "floor",
    )  # fmt: skip

    def __init__(self, cfg: Config):
        self.cfg = cfg
        bits = {p.name.lower(): b for p, b in param_bits(cfg).items()}
        w, s, c = (address_bits(d) for d in (cfg.weight_depth, cfg.scale_depth, cfg.coef_depth))
        self.widths = {"w": w, "dst": max(w, address_bits(cfg.act_depth)), "s": s, "c": c, "srow": max(s, c)}
        ports: dict[str, object] = {
            "clear": In(1),
            "advance": In(1),
            "set_token": In(1),
            "token": In(cfg.token_bits),
            "token1": In(cfg.token_bits),
            "next_layer": In(1),
            "first_layer": In(1),
            "expert_valid": In(1),
            "expert_index": In(2),
            "expert_id": In(address_bits(cfg.experts_max)),
            "state": Out(run_state_layout(cfg)),
            "count_sets": Out(cfg.position_bits),
            "count_words": Out(cfg.position_bits),
            "count_rows": Out(cfg.position_bits),
        }
        ports |= {name: In(bits[name]) for name in self.PARAMS}
        ports |= {f"base_{f}_{b}": Out(n) for f, n in self.widths.items() for b in range(8)}
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg, state = self.cfg, self.state
        wb, sb, cb = self.widths["w"], self.widths["s"], self.widths["c"]

        def base(field: str, which: Base, value: Value) -> None:
            m.d.comb += getattr(self, f"base_{field}_{which.value}").eq(value)

        # Position: the key's place in the ring of ``window`` keys, and the number of keys once it is written.
        key_set, rope = Signal(wb), Signal(cb)
        wrap = Signal()
        set_full = (state.slot & (cfg.columns - 1)) == cfg.columns - 1
        m.d.comb += wrap.eq(state.slot + 1 == self.window)
        with m.If(self.clear):
            m.d.sync += [state.position.eq(0), state.slot.eq(0), state.keys.eq(1), key_set.eq(0), rope.eq(0)]
        with m.Elif(self.advance):
            m.d.sync += [
                state.position.eq(state.position + 1),
                state.slot.eq(Mux(wrap, 0, state.slot + 1)),
                state.keys.eq(Mux(state.keys == self.window, state.keys, state.keys + 1)),
                rope.eq(rope + self.rope_rows),
            ]
            with m.If(wrap):
                m.d.sync += key_set.eq(0)
            with m.Elif(set_full):
                m.d.sync += key_set.eq(key_set + self.key_words)
        counted = Signal.like(state.keys)
        m.d.sync += counted.eq(Mux(state.keys < self.floor, self.floor, state.keys))
        sizes = ((self.count_sets, cfg.columns), (self.count_words, cfg.lanes), (self.count_rows, cfg.vlanes))
        for port, size in sizes:
            m.d.sync += port.eq((counted + size - 1) >> _log2(size))

        # Layer and expert.
        layer = {"w": Signal(wb, name="layer_base_w"), "s": Signal(sb, name="layer_base_s"),
                 "c": Signal(cb, name="layer_base_c")}  # fmt: skip
        for space, reg in layer.items():
            with m.If(self.first_layer):
                m.d.sync += reg.eq(0)
            with m.Elif(self.next_layer):
                m.d.sync += reg.eq(reg + getattr(self, f"layer_{space}"))
        # An expert's base takes two cycles: half products, sum (``Timing.expert``).
        experts = cfg.experts_per_token_max
        chosen = Signal(experts)
        m.d.sync += [chosen[i].eq(self.expert_valid & (self.expert_index == i)) for i in range(experts)]
        half = (len(self.expert_id) + 1) // 2
        for space in ("w", "s"):
            low, high = (
                Signal(self.widths[space], name=f"expert_{part}_{space}", reset_less=True) for part in ("low", "high")
            )
            words = getattr(self, f"expert_{space}")
            m.d.sync += [low.eq(self.expert_id[:half] * words), high.eq(self.expert_id[half:] * words)]
            for i in range(experts):
                reg = Signal(self.widths[space], name=f"expert{i}_{space}")
                with m.If(chosen[i]):
                    m.d.sync += reg.eq(layer[space] + low + (high << half))
                base(space, EXPERT_BASES[i], reg)
        base("w", Base.LAYER, layer["w"])
        base("dst", Base.LAYER, layer["w"])
        base("s", Base.LAYER, layer["s"])
        base("c", Base.LAYER, layer["c"])

        # Tokens: places of their embedding rows. Ready three cycles after set_token: half products, sum.
        sets = {w: _log2(cfg.outputs(max(w.bits, cfg.narrowest))) for w in Width}
        wide = self.embed_width == Width.INT8.value
        m.d.sync += state.turn.eq(state.turn ^ self.set_token)  # no enable: it would come last
        tokens = ((state.token, self.token, Base.TOKEN), (state.token1, self.token1, Base.TOKEN1))
        for i, (token, following, which) in enumerate(tokens[: cfg.sequences]):
            with m.If(self.set_token):
                m.d.sync += token.eq(following)
            embed_set: Value = token >> sets[Width.INT8]
            if cfg.int4:
                embed_set = Mux(wide, embed_set, token >> sets[Width.INT4])
            middle = len(embed_set) // 2
            low, high, token_w = (Signal(wb, name=f"token{i}_{part}") for part in ("low", "high", "w"))
            m.d.sync += [
                low.eq(embed_set[:middle] * self.token_words),
                high.eq(embed_set[middle:] * self.token_words),
                token_w.eq(low + (high << middle)),
            ]
            base("w", which, token_w)
            base("s", which, token >> _log2(cfg.vlanes))
        base("c", Base.ROPE, rope)

        # KV cache.
        row = state.slot >> _log2(cfg.vlanes)
        for field, which, value in (
            ("dst", Base.KEY, layer["w"] + key_set),
            ("dst", Base.VALUE, layer["w"] + (state.slot >> _log2(cfg.lanes))),
            ("srow", Base.KEY, layer["s"] + row),
            ("srow", Base.VALUE, layer["c"] + row),
        ):
            reg = Signal(self.widths[field], name=f"{which.name.lower()}_{field}")
            m.d.sync += reg.eq(value)
            base(field, which, reg)
        return m
