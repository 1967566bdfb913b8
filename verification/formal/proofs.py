"""Every proof. Adding one is one entry here; see docs/formal.md."""

from __future__ import annotations

from hdl.config import TINY
from hdl.isa import Queue

from . import addresses, arithmetic, correction, host_link, icu_pair, icu_queue, icu_sequencer, registers, streams
from .mutate import Mutant
from .proof import Proof

_COLUMN = "hdl.mxm.column"
_PRIMITIVES = "hdl.primitives"

PROOFS = [
    Proof(
        "mac_packing", arithmetic.Packing, "bmc", 1, "-",
        "pack / unpack of a multiplier word: both int4 products (or the int8 one) exact, all weights, all activations",
        "int4 weights are -7..7 (excluded by the format)",
        (Mutant(_COLUMN, "(high - low[3])[:4]", "high"),
         Mutant(_COLUMN, "product[:SPACING].as_signed()", "product[:SPACING - 2].as_signed()")),
    ),
    Proof(
        "multiplier", arithmetic.Registers, "bmc", 6, "-",
        "Multiplier and LaneMultiplier: p = a * b, `stages` cycles later",
        "none",
        (Mutant(_PRIMITIVES, "if self.stages >= 2:", "if self.stages >= 3:"),),
    ),
    Proof(
        "product_of_rows", arithmetic.Rows, "bmc", 1, "-",
        "product_of_rows = a * b in the four signednesses, 7 by 5 bits",
        "none",
        (Mutant(_PRIMITIVES, "sign_row, ones=1))", "sign_row))"),),
    ),
    Proof(
        "column_adders", arithmetic.Column, "bmc", 1, "-",
        "add_carry, add_tree, shift_up of a column = plain sums and shifts",
        "none",
        (Mutant(_COLUMN, "carry.replicate(fill)", "Const(0, 1).replicate(fill)"),),
    ),
    Proof(
        "rounding", arithmetic.Rounding, "bmc", 1, "-",
        "round_sat, round_clamp, saturate, shift_coarse + shift_fine, less = their definitions,"
        " 32 bits to 8, 10, 18 and 25",
        "none",
        (Mutant(_PRIMITIVES, "fits & ~carried", "fits"),
         Mutant(_PRIMITIVES, "fits & ~at_limit", "fits")),
    ),
    Proof(
        "secded", correction.Secded, "prove", 3, "-",
        "the weight memories' code, all 64-bit data: encoded, with no bit flipped, any one or any two of the 72, and "
        "decoded, two cycles later: the data, nothing reported; the data, corrected; uncorrectable",
        "none",
        (Mutant("hdl.ecc", "raw ^ code.flips(syndrome)", "raw"),
         Mutant("hdl.ecc", "& ~single", "& single"),
         Mutant("hdl.ecc", "range(3, rows + 1, 2)", "range(2, rows + 1)")),
        cover=4,
        maps=("xor_chain.v",),
    ),
    Proof(
        "bit_search", arithmetic.BitSearch, "bmc", 1, "-",
        "highest_one, leading_one: the index of the highest set bit, 0 for 0; 3, 9, 16, 21 and 36 bits",
        "none",
        (Mutant(_PRIMITIVES, "x[1] & ~x[2]", "x[1]"),),
    ),
    Proof(
        "skid_buffer", streams.Skid, "prove", 2, "-",
        "SkidBuffer: no word lost, repeated or overtaken; o.valid and i.ready as a list of two words says",
        "none",
        (Mutant("hdl.host.skid", "waiting.eq(1)", "waiting.eq(0)", 8),
         Mutant("hdl.host.skid", "with m.If(~waiting):", "with m.If(self.i.valid):")),
        cover=8,
    ),
    Proof(
        "record_store", streams.Records, "prove", 2, "formal",
        "RecordStore: an offer of records lies within those made and those allowed; the next begins where it ended",
        "take only while something is offered, CREDIT's start as the loader checks it",
        (Mutant("hdl.host.records", "self.ready.eq(0), stale.eq(0b111)]\n        with m.If(self.done)",
                "self.ready.eq(0), stale.eq(0b001)]\n        with m.If(self.done)", 20),
         Mutant("hdl.host.records", "until < self.written, until, self.written",
                "until < self.written, self.written, until", 20)),
        cover=20,
    ),
    Proof(
        "uart", streams.Uart, "bmc", 50, "-",
        "a byte through UartTransmitter and UartReceiver arrives once, whole, within 43 clocks; no framing error",
        "4 clocks a bit, both on one clock, one byte",
        (Mutant("fpga.uart", "left.eq(bits)]", "left.eq(bits - 2)]"),),
        cover=50,
    ),
    Proof(
        "icu_two_copies", lambda: icu_pair.Pair(TINY), "prove", 1, "tiny",
        "time is independent of data: two ICUs whose token ids, prompts and chosen experts differ have equal issue "
        "traces (all of every micro-op but based addresses), token cycles, positions and records, for any program",
        "equal loads, run control and times of answers; a sampled token is a stop id in both or in neither",
        (Mutant("hdl.icu.registers", "self.floor, state.keys))", "self.floor, state.keys + state.token[0]))"),
         Mutant("hdl.icu.icu", "at_limit.eq(made + 1 >= params.limit)",
                "at_limit.eq(made + token[0] >= params.limit)")),
        cover=30,
    ),
    Proof(
        "icu_queue_one_loop", lambda: icu_queue.Issue(Queue.XW), "prove", 1, "formal",
        "queue XW: every instruction of every program issues once, in its cycle, its repeats in theirs and in number, "
        "with their addresses and flags; nothing else; no fault",
        "the scheduler's rules: fetch_gap, loops over before the next issue, phase not over before its last issue",
        (Mutant("hdl.icu.queue", "any1.eq(left1 != 2)", "any1.eq(left1 != 1)", 16),
         Mutant("hdl.icu.queue", "Mux(self.divert, tail_address(self.cfg), saved)", "saved", 20),
         Mutant("hdl.icu.queue", "(armed | self.enter)", "armed", 16)),
        cover=20,
    ),
    Proof(
        "icu_queue_two_loops", lambda: icu_queue.Issue(Queue.CR), "prove", 1, "formal",
        "queue CR: the same with the outer loop: based address, both strides, counts of all sources",
        "as icu_queue_one_loop",
        (Mutant("hdl.icu.queue", "left1.eq(n1), any1.eq(many1)", "left1.eq(n1), any1.eq(1)", 16),
         Mutant("hdl.icu.queue", "start.eq(start + s2)]", "start.eq(start)]", 16)),
        cover=20, slow=True,
    ),
    Proof(
        "icu_sequencer", icu_sequencer.Walk, "prove", 1, "formal",
        "every phase lasts dur + slope * count cycles; loops, ends, restarts, enter, mark, the way to the tail and the "
        "token's cycle count as the phase table says",
        "phases of phase_min to 2^20 - 1 cycles; the table ends; go three cycles behind an end; counts, layers fixed",
        (Mutant("hdl.icu.sequencer", "phase.dur + variable - 1", "phase.dur + variable", 10),
         Mutant("hdl.icu.sequencer", "layer + 1 != self.layers", "layer != self.layers", 10),
         Mutant("hdl.icu.sequencer", "m.If(~self.running | ends)", "m.If(ends)", 10),
         Mutant("hdl.icu.sequencer", "layer + 2 == self.layers", "layer + 1 == self.layers", 10),
         Mutant("hdl.icu.sequencer", "has_tail & ~self.sampled", "has_tail", 10),
         Mutant("hdl.icu.sequencer", "self.running.eq(0), last.eq(0)]", "last.eq(0)]", 14)),
        cover=34,
    ),
    Proof(
        "host_loader", host_link.Judge, "prove", 1, "tiny",
        "a frame that fails a check changes nothing (load, start, abort, credit, sequence number); rows written exist; "
        "each frame is counted once; none wedges the loader: a measure falls in every cycle until it is done",
        "a frame is kept until taken, at most 512 bytes of payload (frame_receiver)",
        (Mutant("hdl.host.loader", "with m.Elif(ordered & ~is_next):", "with m.Elif(ordered & is_late):"),
         Mutant("hdl.host.loader", "(addr + rows > depth)", "(addr > depth)"),
         Mutant("hdl.host.loader", "with m.If(rows == 1):", "with m.If(rows == 0):")),
        cover=20,
    ),
    Proof(
        "frame_receiver", host_link.Receive, "prove", 1, "-",
        "a frame is sound if and only if a bit-serial CRC-32, its length and COBS say so; it is kept until taken; only "
        "the end of the next one may wait",
        "`bad` comes with an end only, as the decoder gives it",
        (Mutant("hdl.host.frame", "crc.start.eq(count == 0)", "crc.start.eq(count <= 1)", 8),
         Mutant("hdl.host.frame", "~crc.match_detected", "crc.match_detected")),
        cover=14,
    ),
    Proof(
        "link_resync", host_link.Resync, "prove", 1, "-",
        "two receivers (COBS and frame) with different pasts are equal in all that counts after a delimiter both take: "
        "no bytes before it wedge or mislead them",
        "both take the delimiter in the same cycle, and wait for a slow reader alike behind it",
        (Mutant("hdl.host.cobs", "m.d.sync += [left.eq(0), zero.eq(0)]", "m.d.sync += [left.eq(0)]", 10),
         Mutant("hdl.host.frame", "m.d.sync += [count.eq(0), type_.eq(0), seq.eq(0)]",
                "m.d.sync += [type_.eq(0), seq.eq(0)]", 10)),
        cover=14,
    ),
    Proof(
        "base_registers", registers.Bases, "prove", 2, "formal",
        "position below the context, slot below the window, keys = min(position + 1, window); loop counts and every "
        "base (layer, expert, token, key, value, RoPE) equal their definitions",
        "parameters fixed, 1 <= floor <= window <= context_max; no position beyond the context (the ICU ends the run)",
        (Mutant("hdl.icu.registers", "Mux(wrap, 0, state.slot + 1)", "state.slot + 1", 12),
         Mutant("hdl.icu.registers", "low + (high << half)", "low + high", 12)),
        cover=12,
    ),
    Proof(
        "kv_places", addresses.KvPlaces, "bmc", 18, "formal",
        "KvQuantiser: each row of a K or V vector is written once, in its cycle, to its bytes, columns and address; "
        "its exponent once, to its row",
        "rows in order with any pauses; one kind, length and place in a run",
        (Mutant("hdl.sxm", "addr.eq(addr + vset2)", "addr.eq(addr + 1)"),
         Mutant("hdl.sxm", "(at == stop)", "(at == last_row)")),
        cover=18,
    ),
    Proof(
        "act_places", addresses.ActPlaces, "prove", 5, "formal",
        "ActQuantiser: a word is written when a block is whole or the instruction over, at dst + word of the row",
        "none",
        (Mutant("hdl.sxm", "self.i1[row_bits:word_bits]),\n                addr.eq(self.dst + self.i1[word_bits:])",
                "self.i1[row_bits:word_bits]),\n                addr.eq(self.dst + self.i1[row_bits - 1 :])", 8),),
        cover=8,
    ),
    Proof(
        "act_forwarding", streams.Forwarding, "bmc", 6, "formal",
        "ActMemory: a read in cycle c returns what was written in cycles up to c + 1",
        "none",
        (Mutant("hdl.mem", "from_same.eq(same)", "from_same.eq(0)"),
         Mutant("hdl.mem", "w.en & (w.addr == read_addr)", "w.en & (w.addr == self.addr)")),
        cover=8,
    ),
]  # fmt: skip


def get(name: str) -> Proof:
    """The proof with this name; an unknown name lists the known ones."""
    for proof in PROOFS:
        if proof.name == name:
            return proof
    raise KeyError(f"unknown proof {name!r}; known: {', '.join(p.name for p in PROOFS)}")
