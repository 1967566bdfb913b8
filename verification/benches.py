"""Every bench of the matrix. Adding one is one line here; see verification/README.md."""

from __future__ import annotations

from fpga.board import BoardCore
from fpga.board_sim import BAUD, CLOCK_HZ
from fpga.netlist import BLOCK_MODELS
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
from verification.bench_ecp5 import HardBlocks
from verification.bench_icu import IcuProbe
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


BENCHES = [
    Bench("selftest", lambda cfg: Echo(), "verification.bench_selftest"),
    Bench("host", HostLink, "verification.bench_host"),
    Bench("icu", IcuProbe, "verification.bench_icu"),
    Bench("mem", MemSlices, "verification.bench_mem"),
    Bench("mem_exported", MemSlices, "verification.bench_mem", exported=True),
    Bench("mxm", lambda cfg: Mxm(shallow(cfg)), "verification.bench_mxm"),
    Bench("sxm", Sxm, "verification.bench_sxm"),
    Bench("vxm_dequant", Dequantiser, "verification.bench_vxm_dequant"),
    Bench("vxm_alu", VectorAlu, "verification.bench_vxm_alu"),
    Bench("vxm_scalar", ScalarUnit, "verification.bench_vxm_scalar"),
    Bench("vxm_topk", TopK, "verification.bench_vxm_topk"),
    Bench("vxm_chain", Vxm, "verification.bench_vxm_chain"),
    Bench("datapath", lambda cfg: Datapath(shallow(cfg)), "verification.bench_datapath"),
    Bench("block", ProbedCore, "verification.bench_block", exported=True),
    Bench("core", Core, "verification.bench_core", exported=True),
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
