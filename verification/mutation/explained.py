"""Survivors that were looked at: why no test can notice them, or why none does.

The key is the mutant's (``Site.key``): it holds the line, so that an explanation is lost where the line changes.
"""

from __future__ import annotations

EQUIVALENT: dict[str, str] = {
    (
        "hdl/host/frame.py | FrameReceiver.elaborate | constant | oldest = Signal(8) | oldest = Signal(9)"
    ): (
        "the ninth bit is always zero: eight are assigned"
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
        "hdl/mxm/tile.py | Superlane.elaborate | reset | forward = Signal() | forward = "
        "Signal(reset_less=True)"
    ): (
        "it picks an operand of an accumulation, and the register that says whether there is one has a reset"
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
}
"""No input shows a difference. They do not count as mutants, and are listed apart."""

OPEN: dict[str, str] = {
    (
        "hdl/host/host.py | HostLink.elaborate | latency | m.d.sync += self.has_image.eq(image != 0) | "
        "m.d.comb += self.has_image.eq(image != 0)"
    ): (
        "an output for people and for the boot memory: in which cycle it changes is stated nowhere"
    ),
}
"""A difference that the suite does not look for; they count as survivors."""
