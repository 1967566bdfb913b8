"""Proofs of what carries words: stream register, record store, UART, the activation memory's forwarding."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value

from fpga.uart import UartReceiver, UartTransmitter
from hdl import link
from hdl.host.records import RecordStore
from hdl.host.skid import SkidBuffer
from hdl.mem import ActMemory

from .harness import SMALL, Harness, Opened


class Skid(Harness):
    """Against a list of at most two words: none is lost, repeated or overtaken, and ``i.ready`` is a register."""

    def build(self, m: Module) -> None:
        unit = SkidBuffer(8)
        m.submodules.unit = opened = Opened(unit)
        self.drive_free(unit.i.valid, unit.i.payload, unit.o.ready)
        count = Signal(2)
        words = [Signal(8, name=f"word{i}") for i in range(2)]
        put, get = Signal(), Signal()
        m.d.comb += [put.eq(unit.i.valid & unit.i.ready), get.eq(unit.o.valid & unit.o.ready)]
        m.d.sync += count.eq(count + put - get)
        kept = Mux(get, words[1], words[0])
        place = count - get
        m.d.sync += [
            words[0].eq(Mux(put & (place == 0), unit.i.payload, kept)),
            words[1].eq(Mux(put & (place == 1), unit.i.payload, words[1])),
        ]
        self.holds(count <= 2)
        self.holds(unit.o.valid == (count != 0))
        self.holds(unit.i.ready == (count != 2))
        self.holds((count == 0) | (unit.o.payload == words[0]))
        self.holds((count != 2) | (opened["kept"] == words[1]))  # for the induction
        self.reached((count == 2) & get)


class Records(Harness):
    """The record store offers only records that were made and are allowed, and moves on by what it offered.

    Told after a ``take``: the next offer begins where that one ended, unless the host said otherwise.
    """

    def build(self, m: Module) -> None:
        unit = RecordStore(SMALL)
        m.submodules.unit = opened = Opened(unit)
        led = unit.ledger
        self.drive_free(
            unit.write, unit.token, unit.sampled, unit.cycles, unit.done, unit.reason, led.begin, led.seq, led.grant,
            led.rewind, led.start, led.until, unit.take, unit.at, unit.told,
        )  # fmt: skip
        until = opened["until"]
        # The transmitter takes only what is offered; the loader refuses a start beyond the records made, and never
        # asks for two things at once.
        self.assume(~unit.take | (unit.ready != 0))
        self.assume(~(led.grant & led.rewind) | (led.start <= unit.written))
        self.assume(~(led.grant & led.begin))
        # A run's records come behind its begin, which resets the count.
        self.assume(~(unit.write & led.begin))
        offered = unit.ready != 0
        end = Signal(17)
        m.d.comb += end.eq(unit.first + unit.ready)
        self.holds(~offered | (end <= unit.written))
        self.holds(~offered | (end <= until))
        self.holds(unit.ready <= link.BATCH_MAX)
        self.holds(unit.written <= SMALL.context_max)
        self.holds(unit.first <= unit.written)
        taken, last_end = self.was(unit.take & ~led.grant & ~led.begin), self.was(end)
        self.holds(~taken | (unit.first == last_end))
        self.holds(~unit.ended | (unit.first == unit.written))
        # For the induction: the pipeline is void while stale, else it is behind by records that were added.
        stale, behind, waiting = opened["stale"], opened["behind"], opened["waiting"]
        limit = Mux(until < unit.written, until, unit.written)
        e = opened["end"]
        self.holds((stale == 7) | (stale == 3) | (stale == 1) | (stale == 0))
        self.holds(stale[1] & stale[0] | (e <= limit))
        self.holds((stale != 1) & (stale != 0) | behind | (unit.first + waiting <= limit))
        self.holds(~stale[0] | (unit.ready == 0))
        self.reached(unit.take & (unit.ready == 2) & (unit.first == 1))
        self.reached(unit.ended & (unit.written == SMALL.context_max))


class Uart(Harness):
    """A byte sent through the transmitter arrives in the receiver, whole and alone; 4 clocks a bit."""

    def build(self, m: Module) -> None:
        m.submodules.tx = tx = UartTransmitter(4e6, 1e6)
        m.submodules.rx = rx = UartReceiver(4e6, 1e6)
        byte = self.fixed("byte", 8)
        sent, got = Signal(2), Signal(2)
        m.d.comb += [
            tx.i.valid.eq(sent == 0),
            tx.i.payload.eq(byte),
            rx.rx.eq(tx.tx),
            rx.o.ready.eq(1),
        ]
        m.d.sync += sent.eq(sent + (tx.i.valid & tx.i.ready))
        m.d.sync += got.eq(got + rx.o.valid)
        self.holds(~rx.framing & ~rx.overrun)
        self.holds(~rx.o.valid | (rx.o.payload == byte))
        self.holds(got <= sent)
        age = Signal(6)
        with m.If((sent != 0) & (age != 63)):
            m.d.sync += age.eq(age + 1)
        # Start bit, eight bits, half of the stop bit; two cycles of synchroniser, one of FIFO, two of registers.
        self.holds((age < 4 * 9 + 2 + 5) | (got == 1))
        self.reached(got == 1)


class Forwarding(Harness):
    """A word of the activation memory that is read in cycle c is the one last written in cycles up to c + 1."""

    def build(self, m: Module) -> None:
        m.submodules.unit = unit = ActMemory(SMALL)
        width = len(Value.cast(unit.word))
        self.drive_free(unit.en, unit.addr, unit.write.en, unit.write.addr, unit.write.data)
        watched = self.fixed("watched", len(unit.addr))
        content = Signal(width)
        with m.If(unit.write.en & (unit.write.addr == watched)):
            m.d.sync += content.eq(Value.cast(unit.write.data))
        read = self.was(unit.en & (unit.addr == watched), 2, "read")
        self.holds(~read | (Value.cast(unit.word) == content))
        self.reached(read & (content == 5) & self.was(content == 4))
