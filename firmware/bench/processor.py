"""What this processor is charged with beside the LPU: watts, and the multiplications it could do."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

RAPL = Path("/sys/class/powercap")
CPUINFO = Path("/proc/cpuinfo")
TDP_WATTS, TDP_CORES = 350, 56
"""Thermal design power and cores of a server processor (Intel Xeon Platinum 8480+, as published)."""
RAPL_METHOD = "measured: mean of the processor packages' energy counters (RAPL) while the program ran, load included"
TDP_METHOD = (
    f"estimate: {TDP_WATTS / TDP_CORES:.2f} W for each thread, a core's share of a server processor's TDP "
    f"({TDP_WATTS} W, {TDP_CORES} cores); memory and board come on top"
)
VECTOR_UNITS = 2
"""Units of a core that multiply vectors, of full width."""
PEAK_METHOD = (
    f"threads x /proc/cpuinfo's MHz x {VECTOR_UNITS} vector multipliers a core, as wide as the widest instructions "
    "that the program uses; no turbo, no matrix unit (AMX)"
)


@dataclasses.dataclass
class Power:
    """Mean power while a program ran."""

    watts: float
    method: str


@contextlib.contextmanager
def power(threads: int) -> Iterator[Power]:
    """Power of what runs inside: counted where the processor's counters can be read, else estimated."""
    found = Power(threads * TDP_WATTS / TDP_CORES, TDP_METHOD)
    before, begin = _joules(), time.perf_counter()
    yield found
    after, seconds = _joules(), time.perf_counter() - begin
    # A counter that has wrapped is smaller than before.
    if before is not None and after is not None and after > before:
        found.watts, found.method = (after - before) / seconds, RAPL_METHOD


def _joules() -> float | None:
    """Energy counters of all packages; None where there are none or reading them is not allowed."""
    try:
        zones = [zone for zone in RAPL.glob("*:*") if (zone / "name").read_text().startswith("package")]
        return sum(int((zone / "energy_uj").read_text()) for zone in zones) * 1e-6 if zones else None
    except (OSError, ValueError):
        return None


def peak_macs(threads: int, operand_bits: int, widest: int = 512) -> float | None:
    """MACs a second that vector instructions of up to ``widest`` bits could do; None where the clock is not known.

    ``operand_bits``: of the narrower multiplication that the instructions offer, 8 for int8 and 32 for float32.
    """
    mhz = _cpuinfo("cpu MHz")
    if mhz is None:
        return None
    flags = (_cpuinfo("flags") or "").split()
    width = min(widest, 512 if "avx512f" in flags else 256)
    return threads * float(mhz) * 1e6 * VECTOR_UNITS * width / operand_bits


def describe() -> str:
    """The processor's name and its threads."""
    name = _cpuinfo("model name") or platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} threads"


def _cpuinfo(field: str) -> str | None:
    """A field of the first core; None where the system does not tell."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == field), None)
