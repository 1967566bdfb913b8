"""The MXM tile: superlanes in a row, activations and control hopping from each to the next.

Superlane s does everything s cycles after superlane 0: weight addresses, activation words, accumulator
reads. Results leave aligned, because the tile delays the early superlanes.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import Config, address_bits
from ..image import LoadBus, Space, error_bits
from ..isa import AbcOp, Init, Queue, Width
from ..mem import ActMemory, ActWrite, KvWrite, WritePort, act_layout, row_layout
from ..primitives import delayed
from ..timing import get_timing
from ..uop import run_state_layout, uop_layout
from .column import Column, check_latency, get_stages
from .write import WordSource, WordWriter, change_layout, request_layout


def hop_layout(cfg: Config) -> data.StructLayout:
    """Activation control as it hops: ``read`` a weight word, for a ``dot`` or (else) to gather it."""
    return data.StructLayout({
        "read": 1,
        "dot": 1,
        "int8": 1,
        "clear": 1,
        "w": address_bits(cfg.weight_depth),
        "acc": address_bits(cfg.accs),
    })  # fmt: skip


def drain_layout(cfg: Config) -> data.StructLayout:
    """Accumulator read as it hops: set ``acc``, ``half`` = 2 * column + (1 for the high accumulator)."""
    return data.StructLayout({"acc": address_bits(cfg.accs), "half": half_bits(cfg)})


def half_bits(cfg: Config) -> int:
    """Bits of an index into the accumulators (low, high of column 0, low, high of column 1, ...)."""
    return address_bits(2 * cfg.superlane_columns)


def gather_layout(cfg: Config) -> data.ArrayLayout:
    """A gathered weight word: ``lanes`` signed weights."""
    return data.ArrayLayout(signed(8), cfg.lanes)


def sum_of(values: Sequence[Value]) -> Value:
    """Balanced sum."""
    if len(values) == 1:
        return values[0]
    half = len(values) // 2
    return sum_of(values[:half]) + sum_of(values[half:])


class Superlane(wiring.Component):
    """``C`` columns that share control, activations and one result port.

    ``abc``, ``drain`` are this superlane's micro-ops (cycle 0); the ``_out`` twins reach the next superlane a
    cycle later, as do the activation word ``act`` (given in stage ``pack``) and the gathered ``word``, into
    which this superlane puts its own when ``mine`` (given a cycle behind ``pack``, output a cycle later).
    ``half``: which column and half a gather takes, given a cycle before stage ``pack`` at the latest; it hops, too.
    ``value``: accumulator, a cycle after ``drain``; two with
    ``in_steps``, which makes the way from the columns shorter.
    ``w``: write port of all columns, ``column`` tells which of them is meant; written two cycles later. With error
    correction instead ``request`` and ``change``, see :mod:`hdl.mxm.write`; and ``corrected``, ``uncorrectable``: words
    that were, of those a micro-op read and those read for a change, in a cycle.
    """

    def __init__(self, cfg: Config, *, in_steps: bool):
        self.cfg = cfg
        self.in_steps = in_steps
        hop, drain, act, word = hop_layout(cfg), drain_layout(cfg), act_layout(cfg), gather_layout(cfg)
        memory_ports: dict[str, object] = {
            "w": In(WritePort(cfg.lanes * 8, cfg.weight_depth, 8)),
            "column": In(cfg.superlane_columns),
        }
        if cfg.ecc:
            found = range(cfg.superlane_columns + 2)
            memory_ports = {
                "request": In(request_layout(cfg)),
                "change": In(change_layout(cfg)),
                "corrected": Out(found),
                "uncorrectable": Out(found),
            }
        super().__init__({
            **memory_ports,
            "abc": In(hop),
            "abc_out": Out(hop),
            "act": In(act),
            "act_out": Out(act),
            "drain": In(drain),
            "drain_out": Out(drain),
            "value": Out(signed(cfg.acc_bits)),
            "mine": In(1),
            "half": In(half_bits(cfg)),
            "half_out": Out(half_bits(cfg)),
            "word": In(word),
            "word_valid": Out(1),
            "word_out": Out(word),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg = self.cfg
        check_latency(cfg)
        act = Signal(act_layout(cfg), reset_less=True)
        value = Signal(signed(cfg.acc_bits), reset_less=True)
        word_out = Signal(gather_layout(cfg), reset_less=True)
        gathered = Signal(half_bits(cfg))
        m.d.sync += [
            self.abc_out.eq(self.abc),
            act.eq(self.act),
            self.drain_out.eq(self.drain),
            gathered.eq(self.half),
        ]
        m.d.comb += [
            self.act_out.eq(act), self.value.eq(value), self.word_out.eq(word_out), self.half_out.eq(gathered),
        ]  # fmt: skip

        # Control, delayed to the stages. Only what a later stage still needs is used, the rest falls away.
        stages = get_stages(cfg)
        last = stages.accumulate
        hop = hop_layout(cfg)
        stage = [self.abc]
        for i in range(last):
            stage.append(Signal(hop, name=f"abc{i + 1}"))
            m.d.sync += stage[i + 1].eq(stage[i])
        exp = self.act.exp
        for i in range(stages.pack, stages.shift):
            late = Signal.like(exp, name=f"exp{i + 1}", reset_less=True)
            m.d.sync += late.eq(exp)
            exp = late

        # Of two operations in a row on one accumulator, the second finds the first one's sum at the adder.
        forward = Signal()
        m.d.sync += forward.eq(stage[last - 1].dot & (stage[last - 1].acc == stage[last - 2].acc))

        columns = [Column(cfg) for _ in range(cfg.superlane_columns)]
        if cfg.ecc:
            self._coded_writes(m, columns, stage[stages.pack].read)
        else:
            self._plain_writes(m, columns)

        halves: list[Value] = []
        words: list[Value] = []
        which = self.drain.half
        for i, column in enumerate(columns):
            m.submodules[f"column{i}"] = column
            m.d.comb += [
                column.en.eq(self.abc.read),
                column.addr.eq(self.abc.w),
                column.mant.eq(self.act.mant),
                column.exp.eq(exp),
                column.control.pack_int8.eq(stage[stages.pack].int8),
                column.control.sum_int8.eq(stage[stages.product].int8),
                column.control.clear.eq(stage[last - 1].clear),
                column.control.forward.eq(forward),
                column.control.acc.eq(stage[last].dot),
                column.acc_addr.eq(stage[last - 1].acc),
                column.drain_addr.eq(self.drain.acc),
            ]
            if self.in_steps:
                picked = Signal.like(value, name=f"picked{i}")
                m.d.sync += picked.eq(Mux(self.drain.half[0], column.high, column.low) if cfg.int4 else column.low)
                halves.append(picked)
            else:
                halves += [column.low, column.high] if cfg.int4 else [column.low, column.low]
            words.append(column.word)
        if self.in_steps:
            which = Signal(max(1, len(which) - 1), reset_less=True)
            m.d.sync += which.eq(self.drain.half[1:])
        m.d.sync += value.eq(Array(halves)[which] if len(halves) > 1 else halves[0])

        # Gather: the chosen half of the chosen column's word.
        word = Array(words)[gathered[1:]] if len(words) > 1 else words[0]
        behind = stage[stages.pack + 1]
        m.d.sync += self.word_valid.eq(behind.read & ~behind.dot)
        for lane in range(cfg.lanes):
            byte = word.word_select(lane, 8)
            nibble = byte.word_select(gathered[0], 4)
            weight = Signal(signed(8), name=f"weight{lane}", reset_less=True)
            m.d.sync += [
                weight.eq(
                    Mux(stage[stages.pack].int8, byte.as_signed(), nibble.as_signed()) if cfg.int4 else byte.as_signed()
                ),
                word_out[lane].eq(Mux(self.mine, weight, self.word[lane])),
            ]
        return m

    def _plain_writes(self, m: Module, columns: list[Column]) -> None:
        """Bytes of a word, straight to the columns."""
        w = WritePort(self.cfg.lanes * 8, self.cfg.weight_depth, 8).create()
        column_en = Signal(len(columns))
        m.d.sync += [w.en.eq(self.w.en), w.addr.eq(self.w.addr), w.data.eq(self.w.data), column_en.eq(self.column)]
        for i, column in enumerate(columns):
            m.d.comb += [
                column.w.en.eq(w.en & column_en[i].replicate(self.cfg.lanes)),
                column.w.addr.eq(w.addr),
                column.w.data.eq(w.data),
            ]

    def _coded_writes(self, m: Module, columns: list[Column], used: Value) -> None:
        """Whole words, and the errors found: in words that the columns read, where ``used``, and in those changed."""
        m.submodules.writer = writer = WordWriter(self.cfg)
        m.d.comb += [writer.request.eq(self.request), writer.change.eq(self.change)]
        for i, column in enumerate(columns):
            m.d.comb += [column.port.eq(writer.port[i]), writer.stored[i].eq(column.stored)]
        for name in ("corrected", "uncorrectable"):
            flags = [getattr(writer, name), *(getattr(column, name) & used for column in columns)]
            found = Signal(len(flags), name=f"{name}_found")
            m.d.sync += [found.eq(Cat(*flags)), getattr(self, name).eq(sum_of(list(found)))]


class Mxm(wiring.Component):
    """The whole tile with its activation memory.

    ``load``: weight rows from the host, ``sub`` = global column index (superlane * C + column).
    ``abc``, ``acc``: micro-ops. ``state``: run state, for GATHER's token. ``act_write``, ``kv``: from the
    SXM. ``value``: accumulator row of an ACC micro-op at t, all superlanes, in cycle t + max(V, 4) (while
    the VXM forms its scale). ``gather_word``: weights of a GATHER at t, with ``gather_valid``, in cycle
    t + ``Timing.gather``. ``corrected``, ``uncorrectable``: weight words that were, of those used in a cycle (read
    by a micro-op, in all columns, or for a value to be put in); always zero without error correction.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        super().__init__({
            "load": In(LoadBus(cfg)),
            "abc": In(uop_layout(cfg, Queue.ABC)),
            "acc": In(uop_layout(cfg, Queue.ACC)),
            "state": In(run_state_layout(cfg)),
            "act_write": In(ActWrite(cfg)),
            "kv": In(KvWrite(cfg)),
            "value": Out(row_layout(cfg, signed(cfg.acc_bits))),
            "gather_valid": Out(1),
            "gather_word": Out(gather_layout(cfg)),
            "corrected": Out(error_bits(cfg)),
            "uncorrectable": Out(error_bits(cfg)),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg = self.cfg
        vlanes, columns = cfg.vlanes, cfg.superlane_columns
        lane_bits = (vlanes - 1).bit_length()
        column_bits = (columns - 1).bit_length()
        timing = get_timing(cfg)
        drain_cycles = max(vlanes, 4)
        stages = get_stages(cfg)
        assert timing.gather == stages.pack + 1 + vlanes
        assert timing.memory_error == stages.pack + vlanes + 5

        abc = Signal(hop_layout(cfg))
        m.d.comb += [
            abc.read.eq(self.abc.valid),
            abc.dot.eq(self.abc.valid & (self.abc.op == AbcOp.DOT.value)),
            abc.int8.eq(self.abc.width == Width.INT8.value),
            abc.w.eq(self.abc.w),
            abc.acc.eq(self.abc.acc),
        ]
        with m.Switch(self.abc.init):
            with m.Case(Init.INNER.value):
                m.d.comb += abc.clear.eq(self.abc.i1_first)
            with m.Case(Init.OUTER.value):
                m.d.comb += abc.clear.eq(self.abc.i2_first)

        m.submodules.act = act = ActMemory(cfg)
        wiring.connect(m, wiring.flipped(self.act_write), act.write)
        # The activation is wanted in stage pack, two cycles after it is asked for.
        ask = stages.pack - timing.mem_read
        assert timing.act_write == ask + ActMemory.FORWARD
        m.d.comb += [
            act.en.eq(delayed(m, abc.dot, ask, reset=True, name="act_en")[-1]),
            act.addr.eq(delayed(m, self.abc.a, ask, name="act_addr")[-1]),
        ]

        # Result row r of a set is column r (int8), or the low and high half of column r / 2 (int4).
        drain = Signal(drain_layout(cfg))
        slot = self.acc.slot
        if cfg.int4:
            slot = Mux(self.acc.width == Width.INT8.value, slot << 1, slot)
        m.d.comb += [drain.acc.eq(self.acc.acc), drain.half.eq(slot if cfg.int4 else slot << 1)]

        # The token's row of the embedding: result row token // V, superlane token % V. The word's width and whose token
        # it is are the micro-op's; the tile's columns see it some cycles and a hop for each superlane later, so
        # both are kept from the last GATHER. Chosen in two cycles, and in a third at superlane 0.
        assert stages.pack >= 3
        gather_int8 = Signal()
        second = Signal()
        with m.If(self.abc.valid & (self.abc.op == AbcOp.GATHER.value)):
            m.d.sync += [gather_int8.eq(self.abc.width == Width.INT8.value), second.eq(self.abc.sequence)]
        token = Mux(second, self.state.token1, self.state.token)
        row = token[lane_bits:]
        half = Signal(half_bits(cfg))
        set_column = row[:column_bits] << 1
        m.d.sync += half.eq(Mux(gather_int8, set_column, row[: column_bits + 1]) if cfg.int4 else set_column)

        # One register between the many columns and the two that write them.
        load = Signal()
        load_addr = Signal(address_bits(cfg.weight_depth))
        load_column = Signal(unsigned(max(1, column_bits + lane_bits)))
        load_data = Signal(cfg.lanes * 8, reset_less=True)
        m.d.sync += [
            load.eq(self.load.valid & (self.load.space == Space.WEIGHT.value)),
            load_addr.eq(self.load.addr),
            load_column.eq(self.load.sub),
            load_data.eq(self.load.data),
        ]

        if cfg.ecc:
            m.submodules.source = source = WordSource(cfg)
            wiring.connect(m, wiring.flipped(self.kv), source.kv)
            m.d.comb += [
                source.load.eq(load), source.load_column.eq(load_column), source.load_addr.eq(load_addr),
                source.load_data.eq(load_data),
            ]  # fmt: skip

        lanes: list[Superlane] = []
        for s in range(vlanes):
            # Cycles until the last superlane's accumulator is there; one of them is made use of.
            spare = drain_cycles - 1 - s
            m.submodules[f"superlane{s}"] = lane = Superlane(cfg, in_steps=spare > 0)
            previous = lanes[-1] if lanes else None
            m.d.comb += [
                lane.abc.eq(previous.abc_out if previous else abc),
                lane.act.eq(previous.act_out if previous else act.word),
                lane.drain.eq(previous.drain_out if previous else drain),
                lane.half.eq(previous.half_out if previous else half),
            ]
            m.d.sync += lane.mine.eq(token[:lane_bits] == s)
            if previous:
                m.d.comb += lane.word.eq(previous.word_out)

            if cfg.ecc:
                m.d.comb += [lane.request.eq(source.request[s]), lane.change.eq(source.change[s])]
            else:
                here = load & (load_column[column_bits:] == s)
                replicated = Cat(self.kv.row[b % vlanes] for b in range(cfg.lanes))
                kv_data = Mux(self.kv.value, self.kv.row[s].replicate(cfg.lanes), replicated)
                kv_mask = self.kv.mask & self.kv.superlane[s].replicate(cfg.lanes)
                which = Cat(load_column[:column_bits] == c for c in range(columns)) if columns > 1 else 1
                m.d.comb += [
                    lane.w.en.eq(Mux(load, here.replicate(cfg.lanes), kv_mask)),
                    lane.w.addr.eq(Mux(load, load_addr, self.kv.addr)),
                    lane.w.data.eq(Mux(load, load_data, kv_data)),
                    lane.column.eq(Mux(load, which, self.kv.column)),
                ]

            value = lane.value
            for i in range(max(0, spare - 1)):
                late = Signal.like(value, name=f"value{s}_{i}", reset_less=True)
                m.d.sync += late.eq(value)
                value = late
            m.d.comb += self.value[s].eq(value)
            lanes.append(lane)

        m.d.comb += [self.gather_valid.eq(lanes[-1].word_valid), self.gather_word.eq(lanes[-1].word_out)]
        if cfg.ecc:
            for name in ("corrected", "uncorrectable"):
                total = sum_of([getattr(lane, name) for lane in lanes])
                m.d.sync += getattr(self, name).eq(total)
        return m
