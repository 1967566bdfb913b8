"""What stands for memories in a proof: given to ``elaborate`` as the platform (hooks of ``hdl.mem.Bank`` and of
Amaranth's ``lib.memory``)."""

from __future__ import annotations

from collections.abc import Callable

from amaranth.asserts import AnyConst
from amaranth.hdl import Array, Elaboratable, Module, Signal, Value
from amaranth.lib import memory

from hdl.mem import Bank

Contents = Callable[[str, Value, int], Value]
"""(name of the memory, address, width) -> what is read there."""


class _BankOf(Elaboratable):
    """A bank that is never written, in a proof's own words. Drives the data of ``bank`` itself."""

    def __init__(self, bank: Bank, name: str, contents: Contents):
        self.bank, self.name, self.contents = bank, name, contents

    def elaborate(self, platform: object) -> Module:
        m = Module()
        r = self.bank.r
        value = self.contents(self.name, r.addr, self.bank.width)
        out = Signal(self.bank.width, name=f"{self.name}_array")
        with m.If(r.en):
            m.d.sync += out.eq(value)
        if self.bank.latency == 2:
            late = Signal(self.bank.width, name=f"{self.name}_out")
            m.d.sync += late.eq(out)
            out = late
        m.d.comb += r.data.eq(out)
        return m


class _MemoryOf(Elaboratable):
    """A ``lib.memory`` that is never written: combinational reads only."""

    def __init__(self, mem: memory.Memory, name: str, contents: Contents):
        self.mem, self.name, self.contents = mem, name, contents

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for port in self.mem.read_ports:
            data = Value.cast(port.data)
            m.d.comb += data.eq(self.contents(self.name, port.addr, len(data)))
        return m


class ReadOnly:
    """A platform whose banks and memories hold what ``contents`` says. Memories are named in the order in which
    they are elaborated: ``bank0``, ``bank1`` ... and ``memory0`` ..."""

    def __init__(self, contents: Contents):
        self.contents = contents
        self._banks = self._memories = 0

    def bank(self, bank: Bank) -> Elaboratable:
        self._banks += 1
        return _BankOf(bank, f"bank{self._banks - 1}", self.contents)

    def get_memory(self, mem: memory.Memory) -> Elaboratable:
        self._memories += 1
        return _MemoryOf(mem, f"memory{self._memories - 1}", self.contents)


class Words:
    """Contents of ``depth`` words that are arbitrary but stay: a program the solver may choose."""

    def __init__(self, m: Module, depth: int, width: int, name: str = "word"):
        self.words = [Signal(width, name=f"{name}{i}") for i in range(depth)]
        m.d.comb += [w.eq(AnyConst(width)) for w in self.words]

    def __call__(self, name: str, addr: Value, width: int) -> Value:
        return Array(self.words)[addr[: max(1, (len(self.words) - 1).bit_length())]]
