"""The core's ECP5 netlist, as Yosys makes it: whole tokens against the reference, in tokens and cycles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Instance, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from firmware.driver import Driver
from firmware.errors import LpuError
from firmware.sim_transport import SimTransport
from fpga.netlist import netlist_model, synthesise
from hdl.config import get_config
from hdl.core import Core
from hdl.image import Reason
from sim.verilator import VerilatorModel
from verification.echo import Echo
from verification.models import GREEDY, random_model


def test_echo(rng: np.random.Generator) -> None:
    """The smallest design that the harness drives: byte i is answered in cycle i + 1."""
    data = rng.bytes(300)
    with VerilatorModel(netlist_model(Echo(), "echo")) as model:
        model.push_rx(data)
        assert model.run(10_000, stop_when_tx=len(data)) == len(data) + 1
        answer, stamps = model.pop_tx_timed()
        assert answer == bytes((byte + i) % 256 for i, byte in enumerate(data))
        assert stamps.tolist() == list(range(1, len(data) + 1))
        assert model.get("count") == len(data)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "ulx3s-25f"])
def test_whole_tokens(name: str, seed: int) -> None:
    """The core, with bench_core's int4 model and then one in int8: tokens, cycles, no missed issue."""
    cfg = get_config(name)
    with VerilatorModel(netlist_model(Core(cfg), name)) as model:
        driver = Driver(SimTransport(model), timeout=60)  # seconds of this computer's: a netlist is slow
        for stream, changes in enumerate(({"ffn": 8, "context": 24}, {"width": 8, "layers": 1, "tied": False})):
            rng = np.random.default_rng([seed, stream])
            subject = random_model(cfg, rng, **changes)
            driver.load([(s.space, s.sub, s.address, s.data) for s in subject.compiled.sections])
            prompt = [int(token) for token in rng.integers(0, subject.model.shape.vocab, 3)]
            run = driver.run(prompt, 5, clear=True)
            records = list(run)
            assert run.reason == Reason.LIMIT
            assert [r.token for r in records if r.sampled] == subject.generate(prompt, 5, GREEDY)
            assert [r.cycles for r in records] == [subject.cycles(i, r.sampled) for i, r in enumerate(records)]
            assert model.get("fault") == 0


class _Unknown(wiring.Component):
    """Something Yosys cannot map."""

    def __init__(self) -> None:
        super().__init__({"d": In(1), "q": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.cell = Instance("NO_SUCH_CELL", i_d=self.d, o_q=self.q)
        return m


def test_a_failing_synthesis_shows_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fpga.netlist.NETLIST_ROOT", Path("build/netlist/test"))
    with pytest.raises(LpuError, match=r"(?s)yosys failed.*yosys\.log:.*NO_SUCH_CELL"):
        synthesise(_Unknown(), "unknown")
