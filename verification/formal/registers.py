"""Proof of the base registers: run state stays in its ranges, and each base is what hdl/isa.py says it adds."""

from __future__ import annotations

import dataclasses

from amaranth.hdl import Module, Mux, Signal, Value

from hdl.icu.registers import BaseRegisters
from hdl.isa import EXPERT_BASES, Base, Width

from .harness import SMALL, Harness, Opened


def log2(n: int) -> int:
    """Of a power of two."""
    return n.bit_length() - 1


BIGGER = dataclasses.replace(SMALL, experts_max=4, vocab_max=16)
"""Ids of two bits and more: their products are sums of two halves."""


class Bases(Harness):
    """Each base equals its definition, products included, so that an address is in range where the compiler's sum is.

    Parameters stay during a run; the ICU advances only to positions below the context.
    """

    def build(self, m: Module) -> None:
        cfg = BIGGER
        unit = BaseRegisters(cfg)
        m.submodules.unit = opened = Opened(unit)
        for name in unit.PARAMS:
            port = getattr(unit, name)
            m.d.comb += port.eq(self.fixed(name, len(port)))
        self.drive_free(
            unit.clear, unit.advance, unit.set_token, unit.token, unit.token1, unit.next_layer, unit.first_layer,
            unit.expert_valid, unit.expert_index, unit.expert_id,
        )  # fmt: skip
        state, window = unit.state, unit.window
        begun = Signal()
        """A run has begun: before its first clear nothing is used."""
        m.d.sync += begun.eq(begun | unit.clear)
        self.assume((window >= 1) & (window <= cfg.context_max) & (unit.floor <= window))
        self.assume(~unit.advance | (state.position + 1 < cfg.context_max))
        self.assume(~unit.advance | begun)

        self.holds(state.position < cfg.context_max)
        self.holds(~begun | (state.slot < window))
        self.holds(~begun | (state.keys == Mux(state.position + 1 < window, state.position + 1, window)))
        self.holds(~begun | (state.position >= window) | (state.slot == state.position))
        self.holds(~begun | (state.slot <= state.position))
        old = self.was(begun, 2, "begun")
        keys = Value.cast(self.was(state.keys, 2, "keys"))
        counted = Mux(keys < unit.floor, unit.floor, keys)
        sizes = ((unit.count_sets, cfg.columns), (unit.count_words, cfg.lanes), (unit.count_rows, cfg.vlanes))
        for port, size in sizes:
            self.holds(~old | (port == (counted + size - 1) >> log2(size)))
            self.holds(~old | (port >= 1))
        counted_before = opened["counted"]
        keys_before = self.was(state.keys, 1, "keys_before")
        once = self.was(begun, 1, "begun_before")
        self.holds(~once | (counted_before == Mux(keys_before < unit.floor, unit.floor, keys_before)))
        self.holds(~once | (keys_before != 0))
        self.holds(~old | once)
        self.holds(~once | begun)
        self.holds(~old | (keys != 0))

        # Products, modulo the width of an address as everywhere.
        key_set = opened["$signal"]
        rope = opened["rope"]
        self.holds(~begun | (key_set == ((state.slot >> log2(cfg.columns)) * unit.key_words)[: len(key_set)]))
        self.holds(~begun | (rope == (state.position * unit.rope_rows)[: len(rope)]))
        self.holds(getattr(unit, f"base_c_{Base.ROPE.value}") == rope)
        layer_w, layer_s, layer_c = (opened[f"layer_base_{s}"] for s in "wsc")
        slot = state.slot
        started = self.was(begun, 1, "started")
        for name, value in (
            (f"base_dst_{Base.KEY.value}", layer_w + key_set),
            (f"base_dst_{Base.VALUE.value}", layer_w + (slot >> log2(cfg.lanes))),
            (f"base_srow_{Base.KEY.value}", layer_s + (slot >> log2(cfg.vlanes))),
            (f"base_srow_{Base.VALUE.value}", layer_c + (slot >> log2(cfg.vlanes))),
        ):
            port = getattr(unit, name)
            self.holds(~started | (port == self.was(value, 1, name)[: len(port)]))
        # An expert's base two cycles after its id; a token's row likewise.
        for i, base in enumerate(EXPERT_BASES[: cfg.experts_per_token_max]):
            given = self.was(unit.expert_valid & (unit.expert_index == i), 2, f"given{i}")
            for space, layer in (("w", layer_w), ("s", layer_s)):
                port = getattr(unit, f"base_{space}_{base.value}")
                words = getattr(unit, f"expert_{space}")
                place = self.was(unit.expert_id, 2, f"id{i}{space}") * words + self.was(layer, 1, f"layer{i}{space}")
                self.holds(~given | (port == place[: len(port)]))
        age = Signal(2)
        m.d.sync += age.eq(Mux(age == 3, age, age + 1))
        width = Mux(unit.embed_width == Width.INT8.value, log2(cfg.outputs(8)), log2(cfg.outputs(4)))
        for name, base in (("token", Base.TOKEN), ("token1", Base.TOKEN1)):
            token = self.was(state[name], 2, name)
            port = getattr(unit, f"base_w_{base.value}")
            self.holds((age < 2) | (port == ((token >> width) * unit.token_words)[: len(port)]))
        self.reached(begun & (state.slot == 0) & (state.position == 3))
        self.reached(begun & (key_set == 3))
