"""What is run on a mutant of a file, cheapest and likeliest to notice first.

All of it is at the tiny size, but for what that size does not have (some unit tests are at odd small sizes, too), and
in Icarus or in Amaranth's simulator: a mutant changes the Verilog, so Verilator would compile for most of a mutant's
time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fnmatch import fnmatch

from amaranth.hdl import Elaboratable

from hdl.config import TINY
from hdl.core import Core
from hdl.host.host import HostLink
from hdl.icu.icu import Icu
from hdl.mxm import Mxm
from hdl.sxm import Sxm
from hdl.vxm.alu import VectorAlu
from hdl.vxm.dequant import Dequantiser
from hdl.vxm.scalar import ScalarUnit
from hdl.vxm.topk import TopK
from hdl.vxm.vxm import Vxm
from verification.bench_mem import MemSlices
from verification.bench_mxm import shallow

Step = tuple[str, ...]
"""Arguments of pytest; one that begins with ``cocotb:`` names the tests of the bench that are run."""


def tests(name: str, only: str = "") -> Step:
    """Unit tests of one file; ``only``: as pytest's -k."""
    return (f"tests/test_{name}.py", "-m", "not slow and not bench", *(("-k", only) if only else ()))


def bench(name: str, *options: str, config: str = "tiny") -> Step:
    """A bench of the matrix in Icarus."""
    return (f"tests/test_benches.py::test_bench[{name}-icarus-{config}]", *options)


_DESIGNS: dict[str, Callable[[], Elaboratable]] = {
    "core": lambda: Core(TINY),
    "host": lambda: HostLink(TINY),
    "host of bytes": lambda: HostLink(dataclasses.replace(TINY, byte_frames=True)),
    "icu": lambda: Icu(TINY),
    "mem": lambda: MemSlices(TINY),
    "mxm": lambda: Mxm(shallow(TINY)),
    "sxm": lambda: Sxm(TINY),
    "alu": lambda: VectorAlu(TINY),
    "dequant": lambda: Dequantiser(TINY),
    "scalar": lambda: ScalarUnit(TINY),
    "topk": lambda: TopK(TINY),
    "vxm": lambda: Vxm(TINY),
}


def design(name: str) -> Elaboratable:
    """A part of the tiny core by name, for its text."""
    return _DESIGNS[name]()


CORE = (bench("programs", "--program", "0", "cocotb:programs_run|a_reset"), bench("block"))
"""The whole core in lockstep with the machine."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """For files that match ``pattern``: ``designs`` whose text shows whether a mutant is one; ``steps`` to run."""

    pattern: str
    designs: tuple[str, ...]
    steps: tuple[Step, ...]


_VXM = (tests("vxm", "latencies or pieces or interpolator or functions or test_multiplier or wide"),)
_LONG = "driver or bad_frames or byte_a_cycle_is or slow_reader"
_HOST = (tests("host", f"not convert and not ({_LONG})"), bench("host"), tests("host", f"not convert and ({_LONG})"))

PLANS = (
    Plan("hdl/config.py", ("core",), (tests("isa", "tiny"), tests("link"), tests("program", "tiny"),
         bench("mxm"), bench("sxm"), bench("vxm_chain"), bench("host"), *CORE)),
    Plan("hdl/isa.py", ("core",), (tests("isa"), tests("asm", "tiny"), tests("icu", "programs and v2"),
         tests("program", "tiny"), *CORE)),
    Plan("hdl/timing.py", ("core",), (tests("vxm", "latencies"), tests("mem", "tiny"), tests("isa", "document"),
         bench("vxm_alu"), bench("vxm_scalar"), bench("vxm_topk"), bench("datapath"), *CORE)),
    Plan("hdl/image.py", ("core",), (tests("image_file"), tests("link"), tests("driver", "run_parameters"),
         bench("mem"), bench("host"), *CORE)),
    Plan("hdl/link.py", ("host",), (tests("link"), *_HOST)),
    Plan("hdl/tables.py", ("alu", "scalar", "topk"), (tests("numerics"), bench("vxm_topk"))),
    Plan("hdl/export.py", ("core",), (tests("mem", "large_banks"), bench("mem_exported"), *CORE)),
    Plan("hdl/mem.py", ("mem", "mxm", "scalar", "icu"), (tests("mem"), bench("mem"),
         bench("vxm_scalar"), tests("datapath", "tiny"), *CORE)),
    Plan("hdl/uop.py", ("core",), (tests("machine", "index"), tests("icu", "programs and v2"),
         tests("mem", "tiny"), bench("vxm_alu"), bench("sxm"), *CORE)),
    Plan("hdl/core.py", ("core",), (*CORE, bench("core"))),
    Plan("hdl/sxm.py", ("sxm",), (tests("sxm", "tiny or overflows or waits"), tests("sxm", "v2l16 or 25f"),
         bench("sxm"), tests("datapath", "tiny"), *CORE)),
    Plan("hdl/primitives.py", ("dequant", "alu", "scalar", "sxm", "topk", "mxm"), (*_VXM, tests("sxm", "v2l16"),
         bench("vxm_dequant"), bench("vxm_alu"), bench("vxm_scalar"), bench("sxm"), bench("mxm"), bench("ecp5"),
         *CORE)),
    Plan("hdl/ecc.py", ("mxm",), (tests("ecc"), bench("ecc_words"), bench("mxm"), *CORE)),
    Plan("hdl/mxm/*", ("mxm",), (tests("mxm", "tiny or packing or carry or sums"), bench("mxm"), tests("mxm", "v2l32"),
         tests("datapath", "tiny"), *CORE)),
    Plan("hdl/vxm/topk.py", ("topk",), (bench("vxm_topk"), bench("vxm_chain"), *CORE)),
    Plan("hdl/vxm/gumbel.py", ("topk",), (tests("vxm", "noise"), bench("vxm_topk"), bench("vxm_chain"), *CORE)),
    Plan("hdl/vxm/alu.py", ("alu",), (bench("vxm_alu"), bench("vxm_chain"), *CORE)),
    Plan("hdl/vxm/function.py", ("alu", "scalar", "topk"), (tests("vxm", "interpolator or functions"),
         bench("vxm_alu"), bench("vxm_scalar"), bench("vxm_topk"), *CORE)),
    Plan("hdl/vxm/dequant.py", ("dequant",), (bench("vxm_dequant"), bench("vxm_chain"), *CORE)),
    Plan("hdl/vxm/scalar.py", ("scalar",), (bench("vxm_scalar"), bench("vxm_chain"), *CORE)),
    Plan("hdl/vxm/vxm.py", ("vxm",), (tests("vxm", "ports_are"), bench("vxm_chain"), *CORE)),
    Plan("hdl/icu/*", ("icu",), (tests("icu", "not verilog and not ulx3s"), bench("icu"), *CORE)),
    Plan("hdl/host/byte_transmitter.py", ("host of bytes",), (tests("host", "of_bytes"), bench("host", config="lean"))),
    Plan("hdl/host/*", ("host",), _HOST),
    Plan("sim/numerics.py", (), (tests("numerics"), tests("reference"), bench("vxm_alu"), bench("vxm_scalar"),
         bench("vxm_topk"), bench("vxm_dequant"), bench("sxm"), bench("mxm"), bench("block"))),
)  # fmt: skip
"""The first that matches a file is its plan."""


def looked_at(path: str) -> str:
    """In which designs a mutant of the file shows: with others, one that was none may be one."""
    return ", ".join(plan(path).designs)


def plan(path: str) -> Plan:
    """The plan of a file. Raises KeyError where a new file has none."""
    for one in PLANS:
        if fnmatch(path, one.pattern):
            return one
    raise KeyError(f"{path}: no plan in {__name__} matches it")
