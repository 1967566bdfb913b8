"""Survivors that were looked at: why no test can notice them, or why none does.

The key is the mutant's (``Site.key``): it holds the line, so that an explanation is lost where the line changes.
"""

from __future__ import annotations

EQUIVALENT: dict[str, str] = {
    (
        'hdl/vxm/alu.py | VectorAlu._silu | reset | magnitude, sign = Signal(WORD, reset_less=True, '
        'name=f"magnitude{lane}"), Signal(name=f"sign{lane}") | magnitude, sign = Signal(WORD, reset_less=True, '
        'name=f"magnitude{lane}"), Signal(name=f"sign{lane}", reset_less=True)'
    ): (
        "set with each row of g, beside a magnitude that has no reset, and used with the row of u behind it only"
    ),
    (
        'hdl/vxm/topk.py | SortedList.elaborate | reset | entering, wiping, wipe = Signal(), Signal(), Signal() | '
        'entering, wiping, wipe = Signal(), Signal(reset_less=True), Signal()'
    ): (
        "a list may be emptied once behind a reset; each token empties it before it uses it"
    ),
    (
        'hdl/vxm/topk.py | TopK.elaborate | reset | by_id, by_rank = Signal(), Signal() | by_id, by_rank = '
        'Signal(reset_less=True), Signal()'
    ): (
        "formed anew in every cycle from a parameter"
    ),
    (
        'hdl/host/loader.py | Loader.elaborate | reset | rows = Signal(range(link.ROWS_MAX + 1)) | rows = '
        'Signal(range(link.ROWS_MAX + 1), reset_less=True)'
    ): (
        "set to zero for each LOAD before its rows are counted"
    ),
    (
        "hdl/host/frame.py | FrameReceiver.elaborate | constant | oldest = Signal(8) | oldest = Signal(9)"
    ): (
        "the ninth bit is always zero: eight are assigned"
    ),
    (
        "hdl/icu/queue.py | InstructionQueue._fetch | reset | start = Signal.like(pc) # address of the instruction "
        "in the buffer (or being fetched) | start = Signal.like(pc, reset_less=True) # address of the instruction "
        "in the buffer (or being fetched)"
    ): (
        "set by the restart with which every run begins, before a mark can read it"
    ),
    (
        'hdl/icu/registers.py | BaseRegisters.__init__ | constant | "expert_index": In(2), | "expert_index": '
        "In(3),"
    ): (
        "a wider port: what is connected to it has two bits"
    ),
    (
        "hdl/icu/sequencer.py | Sequencer.elaborate | reset | again, ends, more_layers = Signal(), Signal(), "
        "Signal() | again, ends, more_layers = Signal(), Signal(reset_less=True), Signal()"
    ): (
        "formed anew in every cycle, and looked at only with last, which has a reset"
    ),
    (
        "hdl/icu/sequencer.py | Sequencer.elaborate | constant | last_but_one = Signal(20) | last_but_one = Signal(21)"
    ): (
        "the same up to 2^20 - 1 cycles in a phase; firmware/check.py refuses a longer one"
    ),
    (
        "hdl/icu/sequencer.py | Sequencer.elaborate | operator | settled.eq(settled | (upcoming == _SETTLED - 1)), | "
        "settled.eq((settled ^ (upcoming == _SETTLED - 1))),"
    ): (
        "a phase, of fewer than 2^20 cycles, has that cycle once, and begins without the flag"
    ),
    (
        'hdl/image.py | LoadBus.__init__ | constant | "space": Out(4), | "space": Out(3),'
    ): (
        "there are eight spaces, and the loader refuses any other"
    ),
    (
        "hdl/host/loader.py | Loader.elaborate | reset | left = Signal(range(link.PAYLOAD_MAX + 1)) | left = "
        "Signal(range(link.PAYLOAD_MAX + 1), reset_less=True)"
    ): (
        "written in every cycle of IDLE, where a reset leads, before any other state reads it"
    ),
    (
        "hdl/host/loader.py | Loader.elaborate | reset | row_size = Signal(range(row_max + 1)) | row_size = "
        "Signal(range(row_max + 1), reset_less=True)"
    ): (
        "written for each LOAD, behind its fields and before its rows are counted, and read from then on only"
    ),
    (
        "hdl/host/records.py | RecordStore.elaborate | reset | told = Signal() | told = Signal(reset_less=True)"
    ): (
        "looked at only once a run has finished, and cleared where it began"
    ),
    (
        'hdl/host/transmitter.py | Transmitter.__init__ | constant | "lost": In(1), | "lost": In(2),'
    ): (
        "a wider port: what is connected to it has one bit"
    ),
    (
        "hdl/sxm.py | ActQuantiser.elaborate | reset | first = Signal() | first = Signal(reset_less=True)"
    ): (
        "set with each block's first row, and looked at only with a block that is whole"
    ),
    (
        "hdl/sxm.py | KvQuantiser.elaborate | reset | column = Signal(cfg.superlane_columns, init=1) # one-hot, of "
        "the row's bytes in a V set | column = Signal(cfg.superlane_columns, init=0) # one-hot, of the row's bytes in "
        "a V set"
    ): (
        "set for each vector before its first row leaves; what the port shows without a row means nothing"
    ),
    (
        "hdl/mxm/tile.py | Superlane.elaborate | reset | forward = Signal() | forward = "
        "Signal(reset_less=True)"
    ): (
        "it picks an operand of an accumulation, and the register that says whether there is one has a reset"
    ),
    (
        "hdl/mxm/tile.py | Mxm.elaborate | reset | gather_int8 = Signal() | gather_int8 = Signal(reset_less=True)"
    ): (
        "set by each GATHER before its weights are picked, and used for nothing else"
    ),
    (
        "hdl/vxm/alu.py | VectorAlu.elaborate | reset | on[op] = delayed(m, active, at + _ON, reset=True, "
        'name=f"on_{op.name.lower()}") | on[op] = delayed(m, active, at + _ON, reset=False, '
        'name=f"on_{op.name.lower()}")'
    ): (
        "a stale operation behind a reset changes SUM at most, which a program sets before it reads it, and "
        "is gone before a program can be loaded"
    ),
    (
        "hdl/vxm/topk.py | SortedList.elaborate | constant | valid[i].eq(stays[i - 1] | kept[i - 1]), | "
        "valid[i].eq(stays[i - 0] | kept[i - 1]),"
    ): (
        "where an entry moves to place i and place i - 1 stays, that one is in the list: kept says so already"
    ),
    (
        'hdl/sxm.py | Sxm.__init__ | constant | "gather_word": In(data.ArrayLayout(signed(8), cfg.lanes)), | '
        '"gather_word": In(data.ArrayLayout(signed(9), cfg.lanes)),'
    ): (
        "a wider port: what is connected to it is extended with its sign"
    ),
    (
        "hdl/primitives.py | Multiplier.elaborate | condition | product: Value = product_of_rows(a, b) if "
        'hasattr(platform, "multiplier") else a * b | product: Value = product_of_rows(a, b) if (not '
        'hasattr(platform, "multiplier")) else a * b'
    ): (
        "two forms of one product, equal for any operands (tests/test_vxm.py): they differ in LUTs"
    ),
    (
        'hdl/sxm.py | ActQuantiser.__init__ | constant | "i1_last": In(1), | "i1_last": In(2),'
    ): (
        "a wider port: what is connected to it has one bit"
    ),
    (
        "hdl/vxm/alu.py | VectorAlu._silu | operator | always = 11 + (1 << len(fshift)) - 1 | "
        "always = ((11 + (1 << len(fshift))) + 1)"
    ): (
        "two bits more are compared with fshift, which no value of it can keep from reaching 16"
    ),
    (
        "hdl/vxm/topk.py | SortedList.elaborate | latency | m.d.sync += pop_rest.eq(self.taking & self.pop) | "
        "m.d.comb += pop_rest.eq(self.taking & self.pop)"
    ): (
        "the entries behind the head move up a cycle sooner: heads are taken every other cycle at most"
    ),
}
"""No input shows a difference. They do not count as mutants, and are listed apart."""

OPEN: dict[str, str] = {
    (
        "hdl/mxm/column.py | Column._coded_memory | reset | port = Signal(port_layout(cfg)) | "
        "port = Signal(port_layout(cfg), reset_less=True)"
    ): (
        "a row on its way is written behind a reset, which clears the image's identity: all of it is loaded again"
    ),
    (
        "hdl/sxm.py | KvQuantiser.elaborate | reset | emit = Signal() | emit = Signal(reset_less=True)"
    ): (
        "a row on its way is written behind a reset, which clears the image's identity: all of it is loaded again"
    ),
    (
        'hdl/mxm/write.py | WordSource.elaborate | reset | superlane_late = late(superlane, "superlane", reset=True) | '
        'superlane_late = late(superlane, "superlane", reset=False)'
    ): (
        "a row on its way is written behind a reset, which clears the image's identity: all of it is loaded again"
    ),
    (
        "hdl/host/host.py | HostLink.elaborate | latency | m.d.sync += self.has_image.eq(image != 0) | "
        "m.d.comb += self.has_image.eq(image != 0)"
    ): (
        "an output for people and for the boot memory: in which cycle it changes is stated nowhere"
    ),
    (
        'hdl/vxm/scalar.py | ScalarUnit.elaborate | reset | enable = Signal(SCALARS, name=f"enable{i}") | '
        'enable = Signal(SCALARS, name=f"enable{i}", reset_less=True)'
    ): (
        "a scalar may be written once behind a reset of one cycle: no test resets in that cycle"
    ),
}
"""A difference that the suite does not look for; they count as survivors."""
