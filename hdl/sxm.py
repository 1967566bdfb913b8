"""SXM: quantises stream rows into activation words, K rows and V columns; serialises gathered weights.

Every micro-op's row takes three common stages (shift by eights; by ones; round and saturate) and then one of
two ways. ACT: blocks of eight get their exponent and leave as activation words. KEY, VALUE: a whole
vector is kept until its exponent is known and then leaves row by row, while the next may arrive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from .config import (
    ACT_BITS,
    ACT_EXP_BITS,
    ACT_RANGE,
    BLOCK,
    KV_BITS,
    KV_RANGE,
    SCALE_BITS,
    SUMSQ_BITS,
    WORD,
    Config,
    address_bits,
)
from .isa import Queue, Source, SxmMode
from .mem import ActWrite, KvWrite, LaneWrite, row_layout, stream_layout
from .primitives import Multiplier, delayed, leading_one, round_sat, shift_keep
from .timing import get_timing
from .uop import run_state_layout, uop_layout

# Cycles after the micro-op in which a stage's inputs are valid.
FINE = 1
ROUND = 2
COLLECT = 3
EXPONENT = 4
REDUCE = 5
QUANTISE = 6


def magnitude(value: Value) -> Value:
    """x if x >= 0, else ~x: one bit less."""
    return value[:-1] ^ value[-1].replicate(len(value) - 1)


def any_of(values: Sequence[Value]) -> Value:
    """Bitwise OR."""
    total = values[0]
    for v in values[1:]:
        total = total | v
    return total


def block_exponent(m: Module, total: Value, bits: int, name: str) -> Value:
    """max(0, bitlen(total) - (bits - 1)): the shift that leaves ``bits``-bit mantissas, sign included."""
    high = total[bits - 1 :]
    return leading_one(m, Cat(Const(1, 1), high), name)


def quantised(kept: Value, bits: int) -> Value:
    """min(round(x), 2**(bits-1) - 1) of what :func:`shift_keep` gave; only rounding can overflow."""
    rounded = (kept[1 : bits + 1].as_signed() + Cat(kept[0], Const(0, 1)).as_signed())[: bits + 1]
    over = rounded[bits - 1] & ~rounded[bits]
    return Mux(over, (1 << bits - 1) - 1, rounded[:bits])


class ActQuantiser(wiring.Component):
    """Rows of rounded values -> activation words.

    Inputs belong to stage COLLECT: ``row`` (ACT_RANGE bits an element), the others as in the micro-op.
    ``write`` belongs to stage QUANTISE, when a block is complete. So do the block's ``mant`` and ``exp``;
    ``block_valid``: it counts for the sum of squares, ``start``: as the first of its instruction.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        layout = uop_layout(cfg, Queue.SXM)
        super().__init__({
            "valid": In(1),
            "row": In(row_layout(cfg, signed(ACT_RANGE))),
            "i1": In(layout["i1"].shape),
            "i1_last": In(1),
            "dst": In(layout["dst"].shape),
            "first": In(1),
            "sumsq": In(1),
            "write": Out(ActWrite(cfg)),
            "block_valid": Out(1),
            "start": Out(1),
            "mant": Out(data.ArrayLayout(signed(ACT_BITS), BLOCK)),
            "exp": Out(ACT_EXP_BITS),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg = self.cfg
        row_bits = (cfg.block_rows - 1).bit_length()
        block_bits = (cfg.blocks - 1).bit_length()
        word_bits = row_bits + block_bits

        # Collect a block's rows and the OR of its magnitudes.
        place = self.i1[:row_bits]
        rows = [Signal(data.ArrayLayout(signed(ACT_RANGE), cfg.vlanes), name=f"row{r}", reset_less=True)
                for r in range(cfg.block_rows)]  # fmt: skip
        total = Signal(ACT_RANGE - 1, reset_less=True)
        done = Signal()
        first = Signal()
        sumsq = Signal()
        block = Signal(max(1, block_bits))
        addr = Signal(address_bits(cfg.act_depth))
        fresh = any_of([magnitude(self.row[v]) for v in range(cfg.vlanes)])
        begins = (place == 0) if row_bits else Const(1, 1)
        with m.If(self.valid):
            for r in range(cfg.block_rows):
                with m.If(place == r if row_bits else Const(1, 1)):
                    m.d.sync += rows[r].eq(self.row)
                if r:
                    with m.Elif(begins):
                        m.d.sync += rows[r].eq(0)
            m.d.sync += [
                total.eq(fresh | Mux(begins, 0, total)),
                block.eq(self.i1[row_bits:word_bits]),
                addr.eq(self.dst + self.i1[word_bits:]),
                sumsq.eq(self.sumsq),
            ]
            with m.If(begins):
                m.d.sync += first.eq(self.first)
        ends = (place == cfg.block_rows - 1) if row_bits else Const(1, 1)
        m.d.sync += done.eq(self.valid & (ends | self.i1_last))

        # Stage EXPONENT; stage REDUCE: shift.
        values = [Signal(signed(ACT_RANGE), name=f"value{i}", reset_less=True) for i in range(BLOCK)]
        reduced = [Signal(signed(ACT_RANGE + 1), name=f"reduced{i}", reset_less=True) for i in range(BLOCK)]
        lead = Signal(ACT_EXP_BITS, reset_less=True)
        m.d.sync += [
            Cat(values).eq(Cat(rows)),
            lead.eq(block_exponent(m, total, ACT_BITS, "lead")),
            *(r.eq(shift_keep(v, lead)) for r, v in zip(reduced, values, strict=True)),
        ]
        exponent = delayed(m, lead, 1, name="exponent")[-1]
        done2 = delayed(m, done, 2, reset=True, name="done")[-1]
        first2, sumsq2, block2, addr2 = (
            delayed(m, value, 2, name=name)[-1]
            for value, name in ((first, "first"), (sumsq, "sumsq"), (block, "block"), (addr, "addr"))
        )

        # Stage QUANTISE: the new block, behind those of the same word that came before it.
        mant = Signal(data.ArrayLayout(signed(ACT_BITS), BLOCK))
        m.d.comb += [mant[i].eq(quantised(reduced[i], ACT_BITS)) for i in range(BLOCK)]
        self._write(m, mant, exponent, done2, block2, addr2)
        m.d.comb += [
            self.block_valid.eq(done2 & sumsq2),
            self.start.eq(first2),
        ]
        return m

    def _write(self, m: Module, mant: Value, exponent: Value, done2: Value, block2: Value, addr2: Value) -> None:
        """The word with a block that is complete in this cycle."""
        cfg = self.cfg
        word = self.write.data
        for b in range(cfg.blocks):
            at = slice(b * BLOCK * ACT_BITS, (b + 1) * BLOCK * ACT_BITS)
            out = word.mant.as_value()[at]
            if cfg.blocks == 1:
                m.d.comb += [out.eq(mant), word.exp[b].eq(exponent)]
                continue
            kept = Signal(BLOCK * ACT_BITS, name=f"kept{b}", reset_less=True)
            kept_exp = Signal(ACT_EXP_BITS, name=f"kept_exp{b}", reset_less=True)
            with m.If(block2 == b):
                m.d.comb += [out.eq(mant), word.exp[b].eq(exponent)]
                with m.If(done2):
                    m.d.sync += [kept.eq(mant), kept_exp.eq(exponent)]
            with m.Elif(block2 > b):
                m.d.comb += [out.eq(kept), word.exp[b].eq(kept_exp)]
        m.d.comb += [
            self.write.en.eq(done2),
            self.write.addr.eq(addr2),
            self.mant.eq(mant),
            self.exp.eq(exponent),
        ]


class RowQuantiser(ActQuantiser):
    """The same, a row of a block in a cycle: one shifter a lane, not one an element.

    Rows wait in a memory until their block's exponent is known. Of a block of R rows whose last one is here in cycle T,
    the last is read in cycle T + R + 1 and those before it right before it: blocks whose rows come no faster than one a
    cycle are then read one behind the other, however short they are.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg = self.cfg
        rows, depth = cfg.block_rows, 16
        assert rows + 3 <= depth, "rows that may wait, and the exponents of as many blocks"
        row_bits = (rows - 1).bit_length()
        block_bits = (cfg.blocks - 1).bit_length()
        word_bits = row_bits + block_bits

        # Collect: keep the row, and the OR of the block's magnitudes.
        place = self.i1[:row_bits] if row_bits else Const(0, 1)
        begins, ends = place == 0, place == rows - 1
        total = Signal(ACT_RANGE - 1, reset_less=True)
        first, sumsq, done = Signal(), Signal(), Signal()
        block, addr = Signal(max(1, block_bits)), Signal(address_bits(cfg.act_depth))
        fresh = any_of([magnitude(self.row[v]) for v in range(cfg.vlanes)])
        with m.If(self.valid):
            m.d.sync += [
                total.eq(fresh | Mux(begins, 0, total)),
                block.eq(self.i1[row_bits:word_bits] if block_bits else 0),
                addr.eq(self.dst + self.i1[word_bits:]),
                sumsq.eq(self.sumsq),
            ]
            with m.If(begins):
                m.d.sync += first.eq(self.first)
        whole = Signal()
        m.d.comb += whole.eq(self.valid & (ends | self.i1_last))
        m.d.sync += done.eq(whole)
        # Bit i: a row is read i cycles later.
        pending = Signal(rows + 1)
        turns = Cat(Const(0, 1), *(place >= rows - i for i in range(1, rows)), Const(1, 1))
        m.d.sync += pending.eq(pending[1:] | (turns & whole.replicate(rows + 1)))
        reading, last = pending[0], delayed(m, done, rows, reset=True, name="last")[-1]

        def queue(name: str, write: Value, entry: Value, step: Value) -> Value:
            """First in, first out: the entry that is next, which ``step`` takes."""
            shape = unsigned(len(entry))
            array = memory.Memory(shape=shape, depth=depth, init=[], attrs={"ram_style": "distributed"})
            m.submodules[name] = array
            wp, rp = array.write_port(), array.read_port(domain="comb")
            write_at, read_at = Signal(range(depth), name=f"{name}_write"), Signal(range(depth), name=f"{name}_read")
            m.d.comb += [wp.en.eq(write), wp.addr.eq(write_at), wp.data.eq(entry), rp.addr.eq(read_at)]
            with m.If(write):
                m.d.sync += write_at.eq(write_at + 1)
            with m.If(step):
                m.d.sync += read_at.eq(read_at + 1)
            return rp.data

        row = queue("rows", self.valid, self.row.as_value(), reading)
        lead = queue("exponents", done, block_exponent(m, total, ACT_BITS, "lead"), last)[:ACT_EXP_BITS]
        shift = delayed(m, lead, 3, name="exponent")
        index = Signal(range(rows)) if rows > 1 else Const(0, 1)
        if rows > 1:
            with m.If(last):
                m.d.sync += index.eq(0)
            with m.Elif(reading):
                m.d.sync += index.eq(index + 1)
        taken = delayed(m, reading, 2, reset=True, name="taken")[-1]
        at = delayed(m, index, 2, name="at")[-1]

        # Shift; then the mantissas go to their places, behind a first row nothing but zeros.
        mant = Signal(data.ArrayLayout(signed(ACT_BITS), BLOCK), reset_less=True)
        for v in range(cfg.vlanes):
            value = Signal(signed(ACT_RANGE), name=f"value{v}", reset_less=True)
            reduced = Signal(signed(ACT_RANGE + 1), name=f"reduced{v}", reset_less=True)
            m.d.sync += [
                value.eq(row[v * ACT_RANGE : (v + 1) * ACT_RANGE]), reduced.eq(shift_keep(value, shift[1])),
            ]  # fmt: skip
            for r in range(rows):
                with m.If(taken & (at == r)):
                    m.d.sync += mant[r * cfg.vlanes + v].eq(quantised(reduced, ACT_BITS))
                if r:
                    with m.Elif(taken & (at == 0)):
                        m.d.sync += mant[r * cfg.vlanes + v].eq(0)

        ended = delayed(m, last, 3, reset=True, name="ended")[-1]
        first2, sumsq2, block2, addr2 = (
            delayed(m, value, rows + 3, name=name)[-1]
            for value, name in ((first, "first"), (sumsq, "sumsq"), (block, "block"), (addr, "addr"))
        )
        self._write(m, mant, shift[3], ended, block2, addr2)
        m.d.comb += [self.block_valid.eq(ended & sumsq2), self.start.eq(first2)]
        return m


def lookup(table: Sequence[int], index: Value, bits: int) -> Value:
    """``table[index]``, a lookup table for each bit.

    Not an ``Array`` of constants: its Verilog is an ``always @*`` that Icarus never enters while the index
    stays what it was at time 0.
    """
    columns = [sum((value >> k & 1) << i for i, value in enumerate(table)) for k in range(bits)]
    return Cat(Const(column, len(table)).bit_select(index, 1) for column in columns)


class SumOfSquares(wiring.Component):
    """``total`` = sum of (mant << exp)**2 over blocks since one with ``start``; bit SUMSQ_BITS, once set, stays.

    Without ``multipliers`` no DSP blocks: with m = 32 h + l (h signed, l unsigned 5 bits),
    m**2 = (1024 h**2 + l**2) + 64 h l; the squares are tables whose results do not overlap, h l is five partial
    products. A block at t counts from t + ``latency`` on.

    With fewer ``lanes`` than a block has elements, a block is taken in beats and one more may wait: a block may come
    at most one beat less early than those before it have been taken (a vector's last one, when it is short, comes so
    soon).
    """

    def __init__(self, lanes: int = BLOCK, multipliers: bool = False) -> None:
        self.lanes = lanes
        self.multipliers = multipliers
        self.beats = BLOCK // lanes
        self.latency = 7 + (0 if self.beats == 1 else 1 + 2 * (self.beats - 1))
        super().__init__({
            "valid": In(1),
            "start": In(1),
            "mant": In(data.ArrayLayout(signed(ACT_BITS), BLOCK)),
            "exp": In(ACT_EXP_BITS),
            "total": Out(SUMSQ_BITS + 1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        half = ACT_BITS // 2
        halves = range(1 << half)
        low_squares = [i * i for i in halves]
        high_squares = [(i if i < 1 << half - 1 else i - (1 << half)) ** 2 for i in halves]

        def reg(value: Value, name: str) -> Signal:
            r = Signal(value.shape(), name=name, reset_less=True)
            m.d.sync += r.eq(value)
            return r

        def tree(values: Sequence[Value]) -> Value:
            if len(values) == 1:
                return values[0]
            middle = len(values) // 2
            return tree(values[:middle]) + tree(values[middle:])

        valid, start, exp, elements = self._taken(m)
        squares: list[Value] = []
        crosses: list[Value] = []
        for i in range(self.lanes):
            mant = reg(elements[i], f"mant{i}")
            if self.multipliers:
                m.submodules[f"square{i}"] = square_of = Multiplier(stages=2)
                m.d.comb += [square_of.a.eq(mant), square_of.b.eq(mant)]
                squares.append(square_of.p[: 2 * ACT_BITS - 1])
                continue
            low, high = mant[:half], mant[half:]
            square = Cat(lookup(low_squares, low, 2 * half), lookup(high_squares, high, 2 * half))
            squares.append(reg(square, f"squares{i}"))
            partial = [Mux(high[k], low << k, 0) for k in range(half - 1)]
            positive = reg(tree(partial[:2]), f"cross_a{i}"), reg(tree(partial[2:]), f"cross_b{i}")
            negative = reg(Mux(high[-1], low << half - 1, 0), f"cross_c{i}")
            crosses.append(reg(tree(positive) - negative, f"cross{i}"))
            squares[i] = reg(squares[i], f"squares_late{i}")
        half_lanes = max(1, self.lanes // 2)
        starts = range(0, self.lanes, half_lanes)
        square_sums = [reg(tree(squares[i : i + half_lanes]), f"square_sum{i}") for i in starts]
        cross_sums = [reg(tree(crosses[i : i + half_lanes]), f"cross_sum{i}") for i in starts if crosses]
        # Not negative: a sum of squares.
        block_bits = 2 * ACT_BITS - 1 + half_lanes.bit_length()
        total_of_squares = tree(square_sums)
        if cross_sums:
            total_of_squares = total_of_squares + (tree(cross_sums) << half + 1)
        block = reg(total_of_squares[:block_bits], "block")

        stages = 7
        for i in range(stages - 2):
            exp = reg(exp, f"exp{i + 1}")
        shifted = reg(block << Cat(Const(0, 1), exp), "shifted")
        for i in range(stages - 1):
            valid_next = Signal(name=f"valid{i + 1}")
            start_next = Signal(name=f"start{i + 1}")
            m.d.sync += [valid_next.eq(valid), start_next.eq(start)]
            valid, start = valid_next, start_next
        before, over = self.total[:SUMSQ_BITS], self.total[SUMSQ_BITS]
        total = (Mux(start, 0, before) + shifted)[: SUMSQ_BITS + 1]
        with m.If(valid):
            m.d.sync += self.total.eq(Cat(total[:SUMSQ_BITS], total[SUMSQ_BITS] | (over & ~start)))
        return m

    def _taken(self, m: Module) -> tuple[Value, Value, Value, list[Value]]:
        """What the multipliers get in a cycle: whether, whether to start a new sum, exponent, elements."""
        if self.beats == 1:
            return self.valid, self.start, self.exp, [self.mant[i] for i in range(BLOCK)]
        bits = self.lanes * ACT_BITS
        waiting = Signal()
        left = Signal(range(self.beats))
        next_mant = Signal(BLOCK * ACT_BITS)
        next_exp = Signal(ACT_EXP_BITS)
        next_start = Signal()
        mant = Signal((BLOCK - self.lanes) * ACT_BITS, reset_less=True)
        exp = Signal(ACT_EXP_BITS, reset_less=True)
        take = Signal()
        m.d.comb += take.eq(waiting & (left == 0))
        with m.If(self.valid):
            m.d.sync += [
                waiting.eq(1), next_mant.eq(self.mant), next_exp.eq(self.exp), next_start.eq(self.start)
            ]  # fmt: skip
        with m.Elif(take):
            m.d.sync += waiting.eq(0)
        with m.If(take):
            m.d.sync += [left.eq(self.beats - 1), mant.eq(next_mant[bits:]), exp.eq(next_exp)]
        with m.Elif(left != 0):
            m.d.sync += [left.eq(left - 1), mant.eq(mant[bits:])]
        now = Mux(left == 0, next_mant[:bits], mant[:bits])
        elements: list[Value] = [now.word_select(i, ACT_BITS).as_signed() for i in range(self.lanes)]
        return take | (left != 0), take & next_start, Mux(left == 0, next_exp, exp), elements


class KvQuantiser(wiring.Component):
    """K or V vectors: kept until the exponent is known, then written to the weight memories row by row.

    Inputs belong to stage COLLECT; ``row`` is saturated to KV_RANGE bits. The vector whose last row
    (``i1_last``) is that of a micro-op at t leaves in cycles t + QUANTISE + 1 + i pace, i = 0 .. rows - 1, its exponent
    with the first row; pace: 1, of values ``Timing.value_pace``. The last row of the next must come at t + rows pace or
    later: a vector that is not shorter may follow at once where the pace is 1; where it is 2, a longer one begins no
    sooner than one of as many rows could.

    ``fresh``: of the word of V that the slot is the first of, the other slots hold nothing yet.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        layout = uop_layout(cfg, Queue.SXM)
        super().__init__({
            "valid": In(1),
            "value": In(1),
            "row": In(row_layout(cfg, signed(KV_RANGE))),
            "i1": In(layout["i1"].shape),
            "i1_first": In(1),
            "i1_last": In(1),
            "dst": In(layout["dst"].shape),
            "vset": In(layout["vset"].shape),
            "srow": In(layout["srow"].shape),
            "slot": In(cfg.position_bits),
            "fresh": In(1),
            "kv": Out(KvWrite(cfg)),
            "k_scale": Out(LaneWrite(cfg, cfg.scale_depth)),
            "v_scale": Out(LaneWrite(cfg, cfg.coef_depth)),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg = self.cfg
        lane_bits = (cfg.vlanes - 1).bit_length()
        column_bits = (cfg.superlane_columns - 1).bit_length()
        byte_bits = (cfg.lanes - 1).bit_length()
        place_bits = (cfg.word_rows - 1).bit_length()
        depth = cfg.head_max // cfg.vlanes
        row = row_layout(cfg, signed(KV_RANGE))

        # Keep the row. It is read again, at the earliest, in the next cycle.
        m.submodules.buffer = buffer = memory.Memory(
            shape=unsigned(row.size), depth=depth, init=[], attrs={"ram_style": "distributed"}
        )
        wp, rp = buffer.write_port(), buffer.read_port(domain="comb")
        total = Signal(KV_RANGE - 1, reset_less=True)
        fresh = any_of([magnitude(self.row[v]) for v in range(cfg.vlanes)])
        done = Signal()
        value = Signal()
        alone = Signal()
        dst = Signal.like(self.dst)
        vset = Signal.like(self.vset)
        srow = Signal.like(self.srow)
        slot = Signal.like(self.slot)
        last_row = Signal(address_bits(depth))
        m.d.comb += [wp.en.eq(self.valid), wp.addr.eq(self.i1), wp.data.eq(self.row)]
        m.d.sync += done.eq(self.valid & self.i1_last)
        with m.If(self.valid):
            m.d.sync += [
                total.eq(fresh | Mux(self.i1_first, 0, total)),
                value.eq(self.value),
                alone.eq(self.fresh),
                dst.eq(self.dst),
                vset.eq(self.vset),
                srow.eq(self.srow),
                slot.eq(self.slot),
                last_row.eq(self.i1),
            ]

        # Stage EXPONENT: read row 0, then one row a cycle, or every other one.
        kept = Signal(row, reset_less=True)
        exponent = Signal(4, reset_less=True)
        reading = Signal()  # a row is read in this cycle
        busy = Signal()  # rows are left after this cycle
        at = Signal(address_bits(depth))
        stop = Signal(address_bits(depth))
        value2 = Signal()
        pause = Signal()
        m.d.comb += [reading.eq(done | (busy & ~pause)), rp.addr.eq(Mux(done, 0, at))]
        m.d.sync += kept.eq(rp.data)
        if get_timing(cfg).value_pace == 2:
            m.d.sync += pause.eq(reading & Mux(done, value, value2))
        with m.If(reading):
            m.d.sync += at.eq(rp.addr + 1)
        with m.If(done):
            m.d.sync += [busy.eq(last_row != 0), stop.eq(last_row)]
            m.d.sync += exponent.eq(block_exponent(m, total, KV_BITS, "lead"))
        with m.Elif(reading & (at == stop)):
            m.d.sync += busy.eq(0)

        # Stage REDUCE: shift, and where the bytes belong. Stage QUANTISE: the bytes, registered on the way to
        # the many columns.
        emit = Signal()
        begin = Signal()
        alone2 = Signal()
        addr = Signal.like(self.kv.addr)
        vset2 = Signal.like(vset)
        srow2 = Signal.like(srow)
        slot2 = Signal.like(slot)
        place = Signal(max(1, place_bits))  # of the row's bytes in a K word
        column = Signal(cfg.superlane_columns, init=1)  # one-hot, of the row's bytes in a V set
        m.d.sync += [emit.eq(reading), begin.eq(done)]
        with m.If(done):
            m.d.sync += [
                value2.eq(value), alone2.eq(alone), addr.eq(dst), vset2.eq(vset), srow2.eq(srow), slot2.eq(slot),
                place.eq(0), column.eq(1),
            ]  # fmt: skip
        with m.Elif(emit):
            with m.If(value2):
                m.d.sync += column.eq(column.rotate_left(1))
                with m.If(column[-1]):
                    m.d.sync += addr.eq(addr + vset2)
            with m.Else():
                if place_bits:
                    m.d.sync += place.eq(place + 1)
                with m.If(place == cfg.word_rows - 1):
                    m.d.sync += addr.eq(addr + 1)

        superlane = Cat(slot2[:lane_bits] == v for v in range(cfg.vlanes))
        place_of_slot = slot2[lane_bits : lane_bits + column_bits]
        slot_column = Cat(place_of_slot == c for c in range(cfg.superlane_columns))
        key_mask = Cat((place == b // cfg.vlanes) for b in range(cfg.lanes))
        value_mask = Cat((slot2[:byte_bits] == b) for b in range(cfg.lanes))

        def leave(port: Signal, value: Any, name: str, enables: bool = False) -> None:
            """Into a register for stage QUANTISE, and into the port's."""
            held = Signal(port.shape(), name=f"{name}_held", reset_less=not enables)
            m.d.sync += [held.eq(value), port.eq(held)]

        leave(self.kv.value, value2, "value")
        leave(self.kv.fresh, Mux(value2, alone2, place == 0), "fresh")
        leave(self.kv.superlane, Mux(emit, Mux(value2, (1 << cfg.vlanes) - 1, superlane), 0), "superlane", enables=True)
        leave(self.kv.column, Mux(value2, column, slot_column if column_bits else 1), "column")
        leave(self.kv.mask, Mux(value2, value_mask, key_mask), "mask")
        leave(self.kv.addr, addr, "addr")
        for v in range(cfg.vlanes):
            reduced = Signal(signed(KV_RANGE + 1), name=f"reduced{v}", reset_less=True)
            m.d.sync += [reduced.eq(shift_keep(kept[v], exponent)), self.kv.row[v].eq(quantised(reduced, KV_BITS))]
        for port, mine, name in ((self.k_scale, ~value2, "k"), (self.v_scale, value2, "v")):
            leave(port.en, Mux(begin & mine, superlane, 0), f"{name}_en", enables=True)
            leave(port.addr, srow2, f"{name}_addr")
            leave(port.data, Const(1, SCALE_BITS) << exponent, f"{name}_data")
        return m


class GatherSerialiser(wiring.Component):
    """A gathered word of ``lanes`` weights -> rows of ``vlanes``, the first in the word's own cycle."""

    def __init__(self, cfg: Config):
        self.cfg = cfg
        super().__init__({
            "valid": In(1),
            "word": In(data.ArrayLayout(signed(8), cfg.lanes)),
            "row": Out(row_layout(cfg, signed(8))),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = self.cfg.vlanes * 8
        rest = Signal(self.cfg.lanes * 8, reset_less=True)
        word = Signal.like(rest)
        m.d.comb += [word.eq(Mux(self.valid, self.word.as_value(), rest)), self.row.eq(word[:width])]
        m.d.sync += rest.eq(word[width:])
        return m


class Sxm(wiring.Component):
    """The SXM slice.

    ``uop``: micro-ops, sampling ``y`` or ``z`` in their cycle; ``state``: run state, for the key's slot.
    ``act``: to the activation memory, ``kv``: to the MXM's weight memories, ``k_scale``, ``v_scale``: to the
    scale and coef memories. ``sumsq``: total of the last sumsq instruction, complete ``Timing.sxm_sumsq``
    cycles after its last micro-op. ``gather_valid``, ``gather_word``: from the MXM; ``gather``: row i of the
    word i cycles later.
    """

    def __init__(self, cfg: Config):
        self.cfg = cfg
        super().__init__({
            "uop": In(uop_layout(cfg, Queue.SXM)),
            "state": In(run_state_layout(cfg)),
            "y": In(stream_layout(cfg)),
            "z": In(stream_layout(cfg)),
            "act": Out(ActWrite(cfg)),
            "kv": Out(KvWrite(cfg)),
            "k_scale": Out(LaneWrite(cfg, cfg.scale_depth)),
            "v_scale": Out(LaneWrite(cfg, cfg.coef_depth)),
            "sumsq": Out(SUMSQ_BITS + 1),
            "gather_valid": In(1),
            "gather_word": In(data.ArrayLayout(signed(8), cfg.lanes)),
            "gather": Out(row_layout(cfg, signed(8))),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cfg = self.cfg
        timing = get_timing(cfg)
        quantise = QUANTISE + (cfg.block_rows + 1 if cfg.row_quantiser else 0)
        assert timing.sxm_act == quantise - timing.act_write
        squares = SumOfSquares(cfg.square_lanes, cfg.spare_multipliers)
        assert timing.sxm_sumsq == quantise + squares.latency
        assert timing.sxm_kv == QUANTISE + 1 + timing.kv_write

        uops = [self.uop]
        for i in range(COLLECT):
            uops.append(Signal(uop_layout(cfg, Queue.SXM), name=f"uop{i + 1}"))
            m.d.sync += uops[-1].eq(uops[-2])
        uop = uops[COLLECT]
        slot = delayed(m, self.state.slot, COLLECT, name="slot")[-1]
        # The first slot of a word, and no key was there before: the cache has not wrapped.
        first_slot = self.state.slot[: (cfg.lanes - 1).bit_length()] == 0
        fresh = delayed(m, first_slot & (self.state.keys == self.state.slot + 1), COLLECT, name="fresh")[-1]
        is_act = uop.op == SxmMode.ACT.value
        m.submodules.act = act = (RowQuantiser if cfg.row_quantiser else ActQuantiser)(cfg)
        m.submodules.kv = kv = KvQuantiser(cfg)
        for v in range(cfg.vlanes):
            # Stage 0 and FINE: shift. Bit 0 of an element is the rounding bit. Stage ROUND.
            source = Mux(self.uop.source == Source.Z.value, self.z[v], self.y[v])
            coarse, kept = (Signal(signed(WORD + 1), name=f"{n}{v}", reset_less=True) for n in ("coarse", "kept"))
            act_row = Signal(signed(ACT_RANGE), name=f"act_row{v}", reset_less=True)
            kv_row = Signal(signed(KV_RANGE), name=f"kv_row{v}", reset_less=True)
            m.d.sync += [
                coarse.eq(shift_keep(source, Cat(Const(0, 3), self.uop.shift[3:]))),
                kept.eq(coarse >> uops[FINE].shift[:3]),
                act_row.eq(round_sat(kept, ACT_RANGE)),
                kv_row.eq(round_sat(kept, KV_RANGE)),
            ]
            m.d.comb += [act.row[v].eq(act_row), kv.row[v].eq(kv_row)]
        m.d.comb += [
            act.valid.eq(uop.valid & is_act),
            act.first.eq(uop.first),
            act.sumsq.eq(uop.sumsq),
            kv.valid.eq(uop.valid & ~is_act),
            kv.value.eq(uop.op == SxmMode.VALUE.value),
            kv.i1_first.eq(uop.i1_first),
            kv.vset.eq(uop.vset),
            kv.srow.eq(uop.srow),
            kv.slot.eq(slot),
            kv.fresh.eq(fresh),
        ]
        for way in (act, kv):
            m.d.comb += [way.i1.eq(uop.i1), way.i1_last.eq(uop.i1_last), way.dst.eq(uop.dst)]
        wiring.connect(m, act.write, wiring.flipped(self.act))
        wiring.connect(m, kv.kv, wiring.flipped(self.kv))
        wiring.connect(m, kv.k_scale, wiring.flipped(self.k_scale))
        wiring.connect(m, kv.v_scale, wiring.flipped(self.v_scale))

        m.submodules.squares = squares
        m.d.comb += [
            squares.valid.eq(act.block_valid),
            squares.start.eq(act.start),
            squares.mant.eq(act.mant),
            squares.exp.eq(act.exp),
            self.sumsq.eq(squares.total),
        ]

        m.submodules.serialiser = serialiser = GatherSerialiser(cfg)
        m.d.comb += [
            serialiser.valid.eq(self.gather_valid),
            serialiser.word.eq(self.gather_word),
            self.gather.eq(serialiser.row),
        ]
        return m
