"""The core in lockstep with the instruction-level machine: every micro-op, every row, in its cycle.

``sim/machine.py`` runs first and leaves a list of what must be seen in which cycle; the simulated core is then
compared with it cycle by cycle, and the first difference ends the test with the last instructions.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Shape, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hdl.config import BLOCK, SCALE_BITS, WORD, Config, address_bits
from hdl.core import Core
from hdl.isa import AccSource, Instr, Queue, SxmMode, TopOp, Width
from hdl.mem import act_layout, row_layout
from hdl.uop import uop_layout
from sim import numerics as nx
from sim.machine import Machine, TokenRun, Uop
from verification.coverage.functional import Sampler
from verification.script import pack

STREAMS = {"Y": signed(WORD), "Z": signed(WORD), "X": signed(WORD), "SCL": unsigned(SCALE_BITS),
           "C": signed(SCALE_BITS), "G": signed(8)}  # fmt: skip
"""Streams that carry a row in some cycles and anything in the others, and the shape of an element."""
HISTORY = 15
"""Micro-ops listed with a difference."""


def event_ports(cfg: Config) -> dict[str, data.StructLayout]:
    """Ports that are zero unless something happens, with what they carry then."""
    ports = {f"uop_{q.name.lower()}": uop_layout(cfg, q) for q in Queue}
    ports["act"] = data.StructLayout({"en": 1, "addr": address_bits(cfg.act_depth), "data": act_layout(cfg)})
    ports["kv"] = data.StructLayout({
        "value": 1, "fresh": 1, "column": cfg.superlane_columns, "superlane": cfg.vlanes, "mask": cfg.lanes,
        "addr": address_bits(cfg.weight_depth), "row": row_layout(cfg, 8),
    })  # fmt: skip
    for name, depth in (("k_scale", cfg.scale_depth), ("v_scale", cfg.coef_depth)):
        ports[name] = data.StructLayout({"en": cfg.vlanes, "addr": address_bits(depth), "data": SCALE_BITS})
    ports["expert"] = data.StructLayout({"valid": 1, "index": 2, "id": address_bits(cfg.experts_max)})
    return ports


class ProbedCore(Core):
    """A core whose insides are visible at ports ``probe_*``: names that no converter changes."""

    def __init__(self, cfg: Config):
        self.cfg = cfg
        rows = {**STREAMS, "VALUE": signed(cfg.acc_bits)}
        ports: dict[str, Any] = {
            "rx": In(stream.Signature(8)),
            "tx": Out(stream.Signature(8)),
            "busy": Out(1),
            "error": Out(1),
            "fault": Out(1),
            "has_image": Out(1),
            "probe_running": Out(1),
        }
        ports |= {f"probe_{name.lower()}": Out(row_layout(cfg, shape).size) for name, shape in rows.items()}
        ports |= {f"probe_{name}": Out(layout.size) for name, layout in event_ports(cfg).items()}
        wiring.Component.__init__(self, ports)

    def elaborate(self, platform: object) -> Module:
        m = super().elaborate(platform)
        units = m.submodules
        icu, mxm, vxm, sxm = units.icu, units.mxm, units.vxm, units.sxm

        def flat(*values: Any) -> Value:
            return Cat(Value.cast(v) for v in values)

        rows = {"y": vxm.y, "z": vxm.z, "x": vxm.x, "scl": vxm.scl, "c": vxm.c, "g": vxm.gather, "value": mxm.value}
        m.d.comb += [getattr(self, f"probe_{name}").eq(Value.cast(row)) for name, row in rows.items()]
        events: dict[str, tuple[Any, Value]] = {}
        for q in Queue:
            uop = getattr(icu, f"uop_{q.name.lower()}")
            events[f"uop_{q.name.lower()}"] = uop.valid, Value.cast(uop)
        act, kv = sxm.act, sxm.kv
        events["act"] = act.en, flat(act.en, act.addr, act.data)
        events["kv"] = kv.superlane.any(), flat(kv.value, kv.fresh, kv.column, kv.superlane, kv.mask, kv.addr, kv.row)
        for name in ("k_scale", "v_scale"):
            port = getattr(sxm, name)
            events[name] = port.en.any(), flat(port.en, port.addr, port.data)
        events["expert"] = vxm.expert_valid, flat(vxm.expert_valid, vxm.expert_index, vxm.expert_id)
        for name, (valid, bits) in events.items():
            assert len(bits) == event_ports(self.cfg)[name].size, name
            m.d.comb += getattr(self, f"probe_{name}").eq(Mux(valid, bits, 0))
        m.d.comb += self.probe_running.eq(icu.control.busy)
        return m


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a port must show in a cycle, and because of what."""

    bits: int
    why: str


class Trace:
    """Everything that must be seen, by cycle since the first cycle of the first token."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.at: dict[int, dict[str, Expected]] = defaultdict(dict)
        self.layouts: dict[str, data.Layout] = dict(event_ports(cfg))
        self.layouts |= {name.lower(): row_layout(cfg, shape) for name, shape in STREAMS.items()}
        self.layouts["value"] = row_layout(cfg, signed(cfg.acc_bits))
        self.texts: dict[int, list[str]] = defaultdict(list)
        """Micro-ops for people, by cycle."""
        self.starts: list[int] = []
        """First cycle of each token, and the cycle behind the last one's last."""
        self._why = ""

    @property
    def cycles(self) -> int:
        """Cycles up to the last one in which something is to be seen."""
        return max(self.at, default=-1) + 1

    def uop(self, cycle: int, uop: Uop, text: str) -> None:
        """A micro-op valid at its slice; what it causes from now on is put down to it."""
        name = f"uop_{uop.queue.name.lower()}"
        layout = self.layouts[name]
        assert isinstance(layout, data.StructLayout)
        self.texts[cycle].append(f"cycle {cycle:6} {uop.queue.name:3} {text}")
        self._why = f"{uop.queue.name} in cycle {cycle}: {text}"
        self.expect(name, cycle, pack(layout, uop_values(layout, uop)))

    def row(self, name: str, cycle: int, row: Iterable[int]) -> None:
        """A row on a stream."""
        self.expect(name.lower(), cycle, pack(self.layouts[name.lower()], [int(x) for x in row]))

    def event(self, name: str, cycle: int, **values: Any) -> None:
        """A write or a pulse."""
        self.expect(name, cycle, pack(self.layouts[name], values))

    def expect(self, name: str, cycle: int, bits: int) -> None:
        """``name`` is a port without its ``probe_``."""
        assert name not in self.at[cycle], f"cycle {cycle}: two things at once at {name}: {self._why}"
        self.at[cycle][name] = Expected(bits, self._why)


def uop_values(layout: data.StructLayout, uop: Uop) -> dict[str, int]:
    """Field values of a micro-op as :func:`hdl.uop.uop_layout` has them."""
    values = {"valid": 1, "i1": uop.i1, "idx": uop.idx & (1 << layout["idx"].width) - 1}
    values |= {"first": int(uop.idx == 0), "last": int(uop.last), "i1_first": int(uop.i1 == 0),
               "i1_last": int(uop.i1_last), "i2_first": int(uop.i2 == 0)}  # fmt: skip
    return values | {name: value for name, value in uop.fields.items() if name in layout.members}


class TracedMachine(Machine):
    """A machine that writes down what it does; run it with :meth:`finish`. ``sampler`` follows it, if any."""

    def __init__(self, cfg: Config, sampler: Sampler | None = None):
        super().__init__(cfg)
        self.record = Trace(cfg)
        self.sampler = sampler
        self.start = 0

    def begin(
        self, code: dict[Queue, list[Instr]], tokens: tuple[int, int], sampled: bool, before: TokenRun | None = None
    ) -> TokenRun:
        return _TracedToken(self, code, tokens, sampled, before)

    def finish(self) -> list[int]:
        """Runs to the end; returns the sampled tokens."""
        with self.sampler.run() if self.sampler else contextlib.nullcontext():
            return self._finish()

    def _finish(self) -> list[int]:
        tokens = []
        for i, record in enumerate(self.run()):
            if i % self.sequences == 0:
                self.record.starts.append(self.start)
                self.start += record.cycles
            if record.sampled:
                tokens.append(record.token)
        self.record.starts.append(self.start)
        return tokens


class _TracedToken(TokenRun):
    """Adds to each result the cycle in which the core shows it."""

    def __init__(self, machine: TracedMachine, *args: Any) -> None:
        super().__init__(machine, *args)
        self.trace = machine.record
        self.sampler = machine.sampler
        self.first = machine.start
        """The token's first cycle. Its last results may lie behind the next one's."""
        self._later: list[tuple[str, int, Any]] = []

    def _retire(self, cycle: int, uop: Uop) -> str:
        # Once to get the text, which names the cause of what the micro-op puts on the streams.
        self._later = []
        text = super()._retire(cycle, uop)
        self.trace.uop(self.first + cycle, uop, text)
        for name, at, what in self._later:
            if isinstance(what, dict):
                self.trace.event(name, self.first + at, **what)
            else:
                self.trace.row(name, self.first + at, what)
        if self.sampler:
            self.sampler.retired(self, self.first + cycle, uop)
        return text

    def _issue(self, cycle: int, q: Queue, instr: Instr) -> None:
        super()._issue(cycle, q, instr)
        if self.sampler:
            self.sampler.issued(instr)

    def _put(self, stream: str, cycle: int, row: np.ndarray) -> None:
        super()._put(stream, cycle, row)
        self._later.append((stream, cycle, row))

    def _acc(self, cycle: int, uop: Uop) -> str:
        if uop["source"] == AccSource.ACC:
            slot, columns = uop["slot"], self.cfg.superlane_columns
            column, half = (slot // 2, slot % 2) if uop["width"] == Width.INT4 else (slot % columns, 0)
            row = self.acc[half, uop["acc"]].reshape(self.cfg.vlanes, columns)[:, column]
            self._later.append(("VALUE", cycle + max(self.cfg.vlanes, 4), row.copy()))
        return super()._acc(cycle, uop)

    def _quantise(self, cycle: int, uop: Uop, row: np.ndarray) -> str:
        text = super()._quantise(cycle, uop, row)
        if text != "collect":
            cfg = self.cfg
            mant, exp = nx.quantise_act(np.concatenate(self.blocks), uop["shift"])
            block = uop.i1 % cfg.word_rows // cfg.block_rows
            if block == 0:
                self.word = np.zeros(cfg.lanes, np.int64), np.zeros(cfg.blocks, np.int64)
            self.word[0][block * BLOCK : block * BLOCK + len(mant)] = mant
            self.word[1][block] = int(exp[0])
            word = {"mant": self.word[0].copy(), "exp": self.word[1].copy()}
            address = uop["dst"] + uop.i1 // cfg.word_rows
            at = cycle + self.t.sxm_act + self.t.act_write
            self._later.append(("act", at, {"en": 1, "addr": address, "data": word}))
        return text

    def _sxm(self, cycle: int, uop: Uop) -> str:
        text = super()._sxm(cycle, uop)
        mode = SxmMode(uop["op"])
        if mode is not SxmMode.ACT and uop.i1_last:
            cfg, slot = self.cfg, self.slot
            q, e = nx.quantise_kv(np.concatenate(self.vector_rows), uop["shift"])
            rows = q.reshape(-1, cfg.vlanes) & 255
            at = cycle + self.t.sxm_kv - self.t.kv_write
            name = "k_scale" if mode is SxmMode.KEY else "v_scale"
            lane = 1 << slot % cfg.vlanes
            self._later.append((name, at, {"en": lane, "addr": uop["srow"], "data": 1 << int(e)}))
            for i, row in enumerate(rows):
                if mode is SxmMode.KEY:
                    place = {"addr": uop["dst"] + i // cfg.word_rows, "superlane": lane,
                             "column": 1 << slot // cfg.vlanes % cfg.superlane_columns,
                             "fresh": int(i % cfg.word_rows == 0),
                             "mask": (1 << cfg.vlanes) - 1 << i % cfg.word_rows * cfg.vlanes}  # fmt: skip
                else:
                    place = {"addr": uop["dst"] + i // cfg.superlane_columns * uop["vset"],
                             "superlane": (1 << cfg.vlanes) - 1, "column": 1 << i % cfg.superlane_columns,
                             "fresh": int(slot % cfg.lanes == 0 and self.keys == slot + 1),
                             "mask": 1 << slot % cfg.lanes}  # fmt: skip
                value = int(mode is SxmMode.VALUE)
                pace = self.t.value_pace if value else 1
                self._later.append(("kv", at + i * pace, {"value": value, "row": row.tolist(), **place}))
        return text

    def _top(self, cycle: int, uop: Uop) -> str:
        text = super()._top(cycle, uop)
        if uop["op"] == TopOp.EMIT and uop["expert"]:
            expert = {"valid": 1, "index": uop.idx, "id": self.emitted}
            self._later.append(("expert", cycle + self.t.top_emit - self.t.expert, expert))
        return text


class Lockstep:
    """Compares a :class:`ProbedCore` in a simulator with a trace; ``watch`` is a :class:`Device`'s."""

    def __init__(self, dut: Any, trace: Trace, lead: int, replay: str = "") -> None:
        self.trace = trace
        self.replay = replay
        """Last line of a difference: how to see it again."""
        self.lead = lead
        """Cycles from ``busy`` to the first cycle of the first token."""
        self.compared = 0
        """Cycles compared so far."""
        self.checks = 0
        """Micro-ops, rows and events found as expected."""
        self._events = [(name, getattr(dut, f"probe_{name}")) for name in event_ports(trace.cfg)]
        self._ports = {name: getattr(dut, f"probe_{name}") for name in trace.layouts}
        self._running = dut.probe_running
        self._zero: int | None = None

    @property
    def done(self) -> bool:
        """Everything in the trace has been compared."""
        return self.compared >= self.trace.cycles

    def watch(self, cycle: int) -> None:
        """Compares one cycle. Raises AssertionError at the first difference."""
        if self._zero is None:
            if not self._running.value:
                return
            self._zero = cycle + self.lead
        now = cycle - self._zero
        if now < 0:
            return
        expected = self.trace.at.get(now, {})
        for name, handle in self._events:
            want = expected.get(name)
            bits = handle.value
            if not bits.is_resolvable or int(bits) != (want.bits if want else 0):
                raise AssertionError(self._difference(now, name, bits, want))
        for name, want in expected.items():
            bits = self._ports[name].value
            if not bits.is_resolvable or int(bits) != want.bits:
                raise AssertionError(self._difference(now, name, bits, want))
        self.checks += len(expected)
        self.compared = now + 1

    def _difference(self, now: int, name: str, bits: Any, want: Expected | None) -> str:
        starts = self.trace.starts
        token = max((i for i, start in enumerate(starts[:-1]) if start <= now), default=0)
        layout = self.trace.layouts[name]
        got = decoded(layout, int(bits)) if bits.is_resolvable else str(bits)
        lines = [
            f"cycle {now} (cycle {now - starts[token]} of token {token}), {name}:",
            f"  core:    {got}",
            f"  machine: {decoded(layout, want.bits) if want else 'nothing'}",
        ]
        if want:
            lines.append(f"  by {want.why}")
        history: deque[str] = deque(maxlen=HISTORY)
        for cycle in sorted(c for c in self.trace.texts if c <= now):
            history.extend(self.trace.texts[cycle])
        lines += ["last micro-ops:", *(f"  {line[:160]}" for line in history)]
        return "\n".join([*lines, self.replay] if self.replay else lines)


def decoded(layout: data.Layout, bits: int) -> Any:
    """A value of a layout as plain Python, fields that are zero left out."""
    if isinstance(layout, data.ArrayLayout):
        names: list[Any] = list(range(layout.length))
    else:
        names = list(layout.members) if isinstance(layout, data.StructLayout) else []
    values = {}
    for name in names:
        field = layout[name]
        part = bits >> field.offset & (1 << field.width) - 1
        if isinstance(field.shape, data.Layout):
            values[name] = decoded(field.shape, part)
        else:
            negative = Shape.cast(field.shape).signed and part >> field.width - 1
            values[name] = part - (1 << field.width) if negative else part
    if isinstance(layout, data.ArrayLayout):
        return list(values.values())
    return {name: value for name, value in values.items() if value} if bits else "nothing"
