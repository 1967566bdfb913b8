"""Every bench of the matrix. Adding one is one line here; see verification/README.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from amaranth.hdl import Elaboratable

from fpga.board import BoardCore
from fpga.board_sim import BAUD, CLOCK_HZ
from fpga.netlist import BLOCK_MODELS
from hdl.config import Config
from hdl.core import Core
from hdl.host.host import HostLink
from hdl.mxm import Mxm
from hdl.sxm import Sxm
from hdl.vxm.alu import VectorAlu
from hdl.vxm.dequant import Dequantiser
from hdl.vxm.scalar import ScalarUnit
from hdl.vxm.topk import TopK
from hdl.vxm.vxm import Vxm
from verification.bench_datapath import Datapath
from verification.bench_ecc_words import CodedColumn
from verification.bench_ecp5 import HardBlocks
from verification.bench_icu import IcuProbe
from verification.bench_mapped import BankKinds
from verification.bench_mem import MemSlices
from verification.bench_mxm import shallow
from verification.bench_uart import UartPair
from verification.echo import Echo
from verification.lockstep import ProbedCore
from verification.runner import Bench


def _uart(name: str, clock_hz: float, baud: float) -> Bench:
    return Bench(
        name,
        lambda cfg: UartPair(clock_hz, baud),
        "verification.bench_uart",
        params={"clock_hz": clock_hz, "baud": baud},
    )


BOTH = ("tiny", "lean")
"""A size with every feature, and one with every option that saves logic."""
_LATER = (("verilator", "lean"),)
"""Of what is run in both sizes: the build takes ten times as long as Icarus takes for the whole bench."""


def _random(
    name: str, what: str, *, configs: Sequence[str] = ("tiny",), slow: bool = False, **params: int | str
) -> Bench:
    """Random programs or models on the core that the bench of a block uses."""
    return Bench(name, ProbedCore, f"verification.bench_{what}", configs, params=params,
                 timeout_s=3600 if slow else 600, slow=slow, later=_LATER, exported=True, build="block")  # fmt: skip


def _slice(name: str, factory: Callable[[Config], Elaboratable]) -> Bench:
    """A slice in both sizes."""
    return Bench(name, factory, f"verification.bench_{name}", BOTH, later=_LATER)


BENCHES = [
    Bench("selftest", lambda cfg: Echo(), "verification.bench_selftest"),
    _slice("host", HostLink),
    _slice("icu", IcuProbe),
    _slice("mem", MemSlices),
    Bench("mem_exported", MemSlices, "verification.bench_mem", exported=True),
    Bench("mapped", lambda cfg: BankKinds(), "verification.bench_mapped", exported=True),
    _slice("mxm", lambda cfg: Mxm(shallow(cfg))),
    _slice("sxm", Sxm),
    _slice("vxm_dequant", Dequantiser),
    _slice("vxm_alu", VectorAlu),
    _slice("vxm_scalar", ScalarUnit),
    _slice("vxm_topk", TopK),
    _slice("vxm_chain", Vxm),
    _slice("datapath", lambda cfg: Datapath(shallow(cfg))),
    Bench("block", ProbedCore, "verification.bench_block", exported=True),
    Bench("block_lean", ProbedCore, "verification.bench_block", ("lean",), exported=True, slow=True, timeout_s=3600,
          build="block"),
    _random("programs", "programs", count=2, corrupted=2, thorough="verilator"),
    _random("programs_lean", "programs", configs=("lean",), count=2, corrupted=2, thorough="verilator", slow=True),
    _random("models", "models", configs=BOTH, count=1, most=12, context=6),
    Bench("mixtral_layer", ProbedCore, "verification.bench_mixtral_layer", exported=True, build="block"),
    _random("corners", "programs", count=4, directed=1, slow=True),
    _random("many_programs", "programs", count=60, corrupted=30, long=1, thorough="all", slow=True),
    _random("many_models", "models", count=5, most=24, context=64, slow=True),
    Bench("core", Core, "verification.bench_core", exported=True),
    Bench("core_lean", Core, "verification.bench_core", ("lean",), exported=True, slow=True, timeout_s=3600,
          build="core"),
    Bench("ecc_words", CodedColumn, "verification.bench_ecc_words"),
    Bench("ecc", Core, "verification.bench_ecc", params={"runs": 2}, later=(("icarus", "tiny"),), exported=True,
          build="core"),
    Bench("ecc_long", Core, "verification.bench_ecc", params={"runs": 60}, exported=True, slow=True, timeout_s=3600,
          build="core"),
    Bench("ecc_campaign", Core, "verification.bench_ecc_campaign", params={"runs": 12}, exported=True, build="core"),
    Bench("ecp5", lambda cfg: HardBlocks(), "verification.bench_ecp5", sources=BLOCK_MODELS, exported=True),
    _uart("uart", 100e6, 3e6),
    _uart("uart_coarse", 10e6, 2.5e6),
    Bench(
        "board",
        lambda cfg: BoardCore(cfg, CLOCK_HZ, BAUD),
        "verification.bench_board",
        params={"clock_hz": CLOCK_HZ, "baud": BAUD},
        exported=True,
    ),
]
