"""Runs a Verilog top in Verilator: a shared library, called through ctypes, with no cocotb and no VPI.

The top has ``clk``, ``rst``, a byte stream in (``rx__payload``, ``rx__valid``, ``rx__ready``) and one out
of it (``tx__payload``, ``tx__valid``, ``tx__ready``), as Amaranth names the members of two streams ``rx`` and
``tx``. Every other port up to 64 bits can be read, and inputs written, by name::

    library = build(verilog_text, "core", name="tiny", progress=lambda done, total, what: ...)
    with VerilatorModel(library) as model:
        model.push_rx(image)
        model.run(1_000_000, stop_when_tx=4)
        answer = model.pop_tx()

A board's top has the two wires of a UART instead, ``rx`` and ``tx``: such a library is built with ``serial``, and
its model takes and gives bytes all the same, at ``clocks_per_bit``.

A build is kept under ``build/sim/NAME-KEY``; KEY is a hash of everything that went into it.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from sim import tools

BUILD_ROOT = Path("build/sim")
"""Where builds are kept, relative to the working directory."""

CYCLE_NS = 10
"""Length of a cycle in a waveform: cycle c lies at ``CYCLE_NS * c`` ns and its rising edge in the middle."""

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what was done last); the totals are known from the first call on."""

_HARNESS = Path(__file__).parent / "harness"
_SOURCES = ("harness.cpp", "memory.cpp", "memory.h", "exports.map")
MEMORY_SOURCE = _HARNESS / "memory.cpp"
"""What a model needs whose Verilog has ``lpu_mapped_bank``s; builds here have it."""

_CLOCK_PORTS = {"clk": ("input", 1), "rst": ("input", 1)}
_STREAM_PORTS = {
    **_CLOCK_PORTS,
    "rx__payload": ("input", 8),
    "rx__valid": ("input", 1),
    "rx__ready": ("output", 1),
    "tx__payload": ("output", 8),
    "tx__valid": ("output", 1),
    "tx__ready": ("input", 1),
}
_SERIAL_PORTS = {**_CLOCK_PORTS, "rx": ("input", 1), "tx": ("output", 1)}

CLOCKS_PER_BIT = 4
"""Clocks of a bit on a UART unless told otherwise: the fewest that ``fpga/uart.py`` takes, so a simulation is short."""

ALLOWED_WARNINGS = (
    "CMPCONST",  # a bound that a small or a large size makes always or never true
    "CASEINCOMPLETE",  # Yosys gives the default before the case
    "DECLFILENAME",  # one file holds every module of an export
    "PROCASSINIT",  # Amaranth's registers have an initial value as well as a reset
    "UNUSEDPARAM",  # an instance may offer parameters that a size does not need
    "UNUSEDSIGNAL",  # every field of a struct and every port of a memory is declared, used or not
    "VARHIDDEN",  # a submodule may bear the name of a signal inside another module; every use is local
    "WIDTHEXPAND",  # Yosys relies on Verilog's rules for operands of unequal width
    "WIDTHTRUNC",  # likewise, `!vector`
)
"""Verilator warnings that an Amaranth export cannot avoid; every other one, style included, is an error."""

WARNING_FLAGS = ("-Wall", *(f"-Wno-{name}" for name in ALLOWED_WARNINGS))

# Measured on a 128-MAC array with its SRAM; see docs/testing.md.
_SPEED_FLAGS = (
    "-O3",
    "--x-assign", "fast",
    "--x-initial", "fast",
    "--no-assert",
    "--no-timing",
    "--timescale-override", "1ns/1ns",
    "--output-split", "20000",
    "--output-split-cfuncs", "5000",
)  # fmt: skip
_OPT = {"OPT_FAST": "-O3", "OPT_SLOW": "-O0", "OPT_GLOBAL": "-O1"}
_CFLAGS = "-fPIC -fvisibility=hidden -DVL_USER_FATAL -DVL_USER_STOP"

_CHUNK = 1 << 18
"""Cycles run in one call of the library, so that Ctrl-C is answered."""


class VerilatorError(RuntimeError):
    """The Verilog cannot be built or the model failed; the message holds the log's end and its path."""


@dataclasses.dataclass(frozen=True)
class Port:
    """A port of the top module; ``direction`` is ``input`` or ``output``, ``width`` in bits."""

    name: str
    direction: str
    width: int


@dataclasses.dataclass(frozen=True)
class Library:
    """A compiled model: the shared library and the ports, beside the streams, that it gives access to."""

    path: Path
    top: str
    ports: tuple[Port, ...]
    trace: str
    """Waveform format it can write: ``""``, ``"vcd"`` or ``"fst"``."""
    serial: bool = False
    """The top has the wires of a UART, not byte streams."""


def parse_ports(verilog: str, top: str) -> list[Port]:
    """Ports of module ``top`` in Verilog as Yosys writes it; VerilatorError where there is no such module."""
    body = re.search(rf"^module {re.escape(top)}\s*\(.*?^endmodule", verilog, re.MULTILINE | re.DOTALL)
    if body is None:
        raise VerilatorError(f"the Verilog has no module {top!r}")
    pattern = r"^\s*(input|output)\s+(?:wire\s+|reg\s+)?(?:signed\s+)?(?:\[(\d+):0\]\s*)?(\w+)\s*;"
    found = re.findall(pattern, body.group(), re.MULTILINE)
    return [Port(name, direction, int(msb) + 1 if msb else 1) for direction, msb, name in found]


def latch_reset(verilog: str, top: str) -> str:
    """Verilog (as Yosys writes it) in which all of ``top`` hangs on a copy of ``rst`` that follows its edges.

    Verilator evaluates what depends on an input at each call, twice a cycle, whether the input has changed or not; and
    the next state of every register depends on the reset. The copy is a register, so that is done at clock edges only.
    """

    def module(found: re.Match[str]) -> str:
        head, body = found.groups()
        body, declared = re.subn(r"^  (input|wire) rst;\n", "", body, flags=re.MULTILINE)
        if not declared:
            raise VerilatorError(f"module {top}: no declaration of rst as Yosys writes it")
        body = re.sub(r"(?<![\w.$\\])rst(?![\w$])", "rst_latched", body)
        latch = "  input rst;\n  wire rst;\n  reg rst_latched = 0;\n"
        latch += "  always @(posedge rst, negedge rst) rst_latched <= rst;\n"
        return f"{head}{latch}{body}"

    name = re.escape(top)
    return re.sub(rf"^(module {name}\s*\([^;]*;\n)(.*?^endmodule)", module, verilog, flags=re.MULTILINE | re.DOTALL)


def default_trace_format() -> str:
    """``fst`` where the headers it needs are installed, else ``vcd`` (much larger files)."""
    return "fst" if tools.fst_headers() else "vcd"


def build(
    verilog: str | Path,
    top: str,
    *,
    name: str = "model",
    trace: str | bool = False,
    serial: bool = False,
    threads: int = 1,
    jobs: int = 2,
    extra_sources: Sequence[Path] = (),
    extra_flags: Sequence[str] = (),
    build_root: Path | None = None,
    progress: Progress | None = None,
) -> Library:
    """Compiles a Verilog top into a shared library, or finds the one compiled before.

    Args:
        verilog: the text, or the path of a file that holds it.
        top: name of the top module.
        name: readable part of the build folder's name.
        trace: make it able to write waveforms: ``"vcd"``, ``"fst"``, or True for the best available. Such a
            model runs slower even while it records nothing.
        serial: the top has the wires of a UART, ``rx`` and ``tx``, not byte streams.
        threads: threads the model evaluates a cycle with.
        jobs: C++ compilers that run at once.
        extra_sources: more Verilog or C++ files (behavioural memories, say).
        extra_flags: more Verilator options.
        build_root: where builds are kept, ``build/sim`` unless given.
        progress: called after each step.

    Raises:
        VerilatorError: a port is missing, Verilator warns, or the C++ does not compile.
        ToolError: a program is missing.
    """
    text = verilog.read_text() if isinstance(verilog, Path) else verilog
    ports = _check_ports(text, top, _SERIAL_PORTS if serial else _STREAM_PORTS)
    text = latch_reset(text, top)
    trace_format = default_trace_format() if trace is True else (trace or "")
    variables = tools.make_variables() | _OPT
    native, processor = tools.native_flags(variables["CXX"])
    variables["OPT_FAST"] = " ".join([variables["OPT_FAST"], *native])
    flags = [
        *("--cc", "--exe", "--prefix", "Vlpu", "--top-module", top),
        *_SPEED_FLAGS,
        *WARNING_FLAGS,
        *((f"--trace-{trace_format}", "--trace-structs") if trace_format else ()),
        *(("--threads", str(threads)) if threads > 1 else ()),
        *extra_flags,
    ]
    macros = {"LPU_SERIAL": "1"} if serial else _stream_macros()
    harness_cflags = _CFLAGS + "".join(f" -D{key}={value}" for key, value in macros.items())
    key = hashlib.sha256(
        json.dumps(
            [
                text,
                flags,
                harness_cflags,
                {k: v for k, v in variables.items() if k != "OBJCACHE"},
                tools.cxx_version(variables["CXX"]),
                processor,
                str(tools.verilator_root()),
                [(_HARNESS / source).read_text() for source in _SOURCES],
                [source.read_text() for source in extra_sources],
            ]
        ).encode()
    ).hexdigest()[:12]
    folder = (build_root or BUILD_ROOT).resolve() / f"{name}-{key}"
    library = Library(folder / "model.so", top, ports, trace_format, serial)
    report = progress or (lambda done, total, what: None)
    with _locked(folder):
        if library.path.exists():
            report(1, 1, "already built")
            return library
        # What an interrupted build left may be half a file: start clean.
        for stale in folder.iterdir():
            if stale.name != _LOCK:
                shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        (folder / "top.v").write_text(text)
        (folder / "ports.h").write_text(_ports_header(ports))
        for source in _SOURCES:
            shutil.copy(_HARNESS / source, folder)
        sources = ["top.v", "harness.cpp", "memory.cpp", *(str(source.resolve()) for source in extra_sources)]
        link = f"-shared -pthread -Wl,--version-script={folder}/exports.map"
        command = ["verilator", *flags, "--Mdir", "obj", "-o", "../model.tmp.so"]
        command += ["-CFLAGS", f"{harness_cflags} -I{folder}", "-LDFLAGS", link, *sources]
        log = folder / "build.log"
        _run(command, folder, log, "Verilator")
        make = ["make", "-C", "obj", "-f", "Vlpu.mk", *(f"{k}={v}" for k, v in variables.items())]
        _compile(make, jobs, folder, log, report)
        os.replace(folder / "model.tmp.so", library.path)
        # Objects are several times the library's size and never used again.
        shutil.rmtree(folder / "obj")
    return library


class VerilatorModel:
    """A running model. Use it as a context manager, or call ``close``.

    A cycle is one rising clock edge outside reset; cycles are counted from 0, through later resets.
    A byte is offered on ``rx`` in each cycle as long as some wait, and taken when the core is ready; a byte
    on ``tx`` is taken in the cycle it is offered, unless ``tx_ready`` is False. Of a ``serial`` library the bytes
    travel bit by bit: they wait until their start bit, and have arrived in the middle of their stop bit.
    """

    def __init__(
        self,
        library: Library,
        *,
        plusargs: Sequence[str] = (),
        reset_cycles: int = 2,
        clocks_per_bit: Fraction | int = CLOCKS_PER_BIT,
    ) -> None:
        """Loads ``library`` and resets it.

        Args:
            library: what ``build`` returned.
            plusargs: ``+name=value`` arguments for ``$value$plusargs``.
            reset_cycles: cycles of reset, which are not counted.
            clocks_per_bit: length of a bit, of a ``serial`` library.
        """
        self.library = library
        self._handle: int | None = None
        self._api = _load(library.path, library.serial)
        arguments = [b"lpu", *(argument.encode() for argument in plusargs)]
        argv = (ctypes.c_char_p * (len(arguments) + 1))(*arguments, None)
        self._handle = self._api.lpu_create(len(arguments), argv)
        if not self._handle:
            raise VerilatorError(f"{library.path}: {self._api.lpu_error(None).decode()}")
        self._ports = {port.name: (index, port) for index, port in enumerate(library.ports)}
        self._tx_ready = True
        if library.serial:
            self._api.lpu_set_bit_time(self._handle, *Fraction(clocks_per_bit).as_integer_ratio())
        self.reset(reset_cycles)

    def __enter__(self) -> VerilatorModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the model and completes its waveform; a second call does nothing."""
        if self._handle:
            self._api.lpu_destroy(self._handle)
            self._handle = None

    def reset(self, cycles: int = 2) -> None:
        """Holds ``rst`` for some uncounted cycles. Bytes that wait on either side are kept."""
        self._check(self._api.lpu_reset(self._open(), cycles))

    def push_rx(self, data: bytes) -> None:
        """Queues bytes for the core: one a cycle, or a UART's ten bits each."""
        self._api.lpu_push_rx(self._open(), data, len(data))

    def run(
        self, max_cycles: int, stop_when_tx: int = 0, until: tuple[str, int] | None = None
    ) -> int:
        """Runs until a condition holds, or for ``max_cycles``; returns the cycles run.

        Args:
            max_cycles: limit.
            stop_when_tx: stop after the cycle in which this many bytes wait in ``pop_tx`` (0: do not). Runs
                nothing when they wait already.
            until: ``(port, value)``: stop after the cycle at whose end the port reads this value.

        Raises:
            VerilatorError: the design called ``$finish`` or failed.
        """
        handle = self._open()
        port, value = (self._find(until[0])[0], until[1]) if until else (-1, 0)
        start = self.cycles
        end = start + max_cycles
        while (now := self.cycles) < end:
            if stop_when_tx and self.tx_pending >= stop_when_tx:
                break
            if until and now > start and self.get(until[0]) == value:
                break
            chunk = min(end - now, _CHUNK)
            self._check(self._api.lpu_run(handle, chunk, stop_when_tx, port, value))
        return self.cycles - start

    def pop_tx(self, limit: int | None = None) -> bytes:
        """Takes the bytes that left the core, oldest first, at most ``limit``."""
        return self.pop_tx_timed(limit)[0]

    def pop_tx_timed(self, limit: int | None = None) -> tuple[bytes, NDArray[np.uint64]]:
        """Like ``pop_tx``, with the cycle in which each byte left: uint64, shape (bytes,)."""
        count = self.tx_pending if limit is None else min(limit, self.tx_pending)
        data = ctypes.create_string_buffer(max(count, 1))
        stamps = np.zeros(count, dtype=np.uint64)
        pointer = stamps.ctypes.data_as(ctypes.POINTER(ctypes.c_uint64))
        self._api.lpu_pop_tx(self._open(), data, pointer, count)
        return data.raw[:count], stamps

    @property
    def cycles(self) -> int:
        """Cycles run so far."""
        return int(self._api.lpu_cycles(self._open()))

    @property
    def rx_pending(self) -> int:
        """Bytes that wait to enter the core (a UART: whose start bit has not begun)."""
        return int(self._api.lpu_rx_pending(self._open()))

    @property
    def tx_pending(self) -> int:
        """Bytes that wait in ``pop_tx``."""
        return int(self._api.lpu_tx_pending(self._open()))

    @property
    def tx_ready(self) -> bool:
        """Whether the host takes bytes; False makes it a stalled host."""
        return self._tx_ready

    @tx_ready.setter
    def tx_ready(self, ready: bool) -> None:
        if self.library.serial:
            raise VerilatorError("a UART cannot be told to wait")
        self._api.lpu_set_tx_ready(self._open(), int(ready))
        self._tx_ready = ready

    def drop_cut_bytes(self) -> None:
        """From now on a byte on ``tx`` without its start or stop bit is dropped, as a UART drops it, and no error."""
        self._api.lpu_set_strict(self._open(), 0)

    @cached_property
    def memories(self) -> Mapping[str, NDArray[np.uint8]]:
        """Words of the memories that lie outside the model, by instance path from the top module's inside on: views,
        uint8 [depth, bytes of a word, rounded up to eight], little endian. Not to be used once the model is closed.
        """
        found: dict[str, NDArray[np.uint8]] = {}
        path, parts, depth = ctypes.c_char_p(), ctypes.c_uint32(), ctypes.c_uint32()
        more = (ctypes.byref(path), ctypes.byref(parts), ctypes.byref(depth))
        while words := self._api.lpu_memory(self._open(), len(found), *more):
            assert path.value is not None
            name = path.value.decode().removeprefix(f"{self.library.top}.")
            found[name] = np.ctypeslib.as_array(ctypes.cast(words, _BYTES), (depth.value, parts.value * 8))
        return found

    def get(self, port: str) -> int:
        """Value of a port outside the streams; VerilatorError names the known ones."""
        value = ctypes.c_uint64()
        self._check(self._api.lpu_get(self._open(), self._find(port)[0], ctypes.byref(value)))
        return value.value

    def set(self, port: str, value: int) -> None:
        """Sets an input outside the streams from the next cycle on."""
        index, found = self._find(port)
        if found.direction != "input":
            raise VerilatorError(f"port {port} is an output")
        if not 0 <= value < 1 << found.width:
            raise VerilatorError(f"port {port}: {value} does not fit {found.width} bits")
        self._check(self._api.lpu_set(self._open(), index, value))

    def record(self, path: Path, first: int = 0, last: int | None = None) -> None:
        """Writes a waveform of cycles ``first`` to ``last`` (both included) to ``path``, once they are run.

        Needs a library built with ``trace``; its ``library.trace`` is the suffix the file should have.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        end = (1 << 64) - 1 if last is None else last
        self._check(self._api.lpu_trace(self._open(), str(path).encode(), first, end))

    def _open(self) -> int:
        if not self._handle:
            raise VerilatorError("the model is closed")
        return self._handle

    def _check(self, status: int) -> None:
        if status:
            raise VerilatorError(f"{self.library.top}: {self._api.lpu_error(self._open()).decode()}")

    def _find(self, name: str) -> tuple[int, Port]:
        try:
            return self._ports[name]
        except KeyError:
            known = ", ".join(self._ports) or "none"
            raise VerilatorError(f"{self.library.top} has no port {name!r}; known: {known}") from None


def _check_ports(text: str, top: str, needed: Mapping[str, tuple[str, int]]) -> tuple[Port, ...]:
    """Checks the harness's ports; returns the others that fit 64 bits, in a fixed order."""
    ports = {port.name: port for port in parse_ports(text, top)}
    for name, (direction, width) in needed.items():
        port = ports.get(name)
        if port is None or (port.direction, port.width) != (direction, width):
            have = f"is a {port.width}-bit {port.direction}" if port else "is missing"
            raise VerilatorError(f"module {top}: port {name} {have}; a {width}-bit {direction} is needed")
    others = [port for name, port in ports.items() if name not in needed and port.width <= 64]
    return tuple(sorted(others, key=lambda port: port.name))


def _cpp_name(name: str) -> str:
    """Name of a port as a member of the C++ model: Verilator escapes double underscores."""
    return name.replace("__", "___05F")


def _stream_macros() -> dict[str, str]:
    streams = [name for name in _STREAM_PORTS if "__" in name]
    return {f"LPU_{name.replace('__', '_').upper()}": _cpp_name(name) for name in streams}


def _ports_header(ports: Sequence[Port]) -> str:
    def rows(direction: str) -> str:
        chosen = [(i, port) for i, port in enumerate(ports) if port.direction == direction]
        return "".join(f" \\\n    X({i}, {_cpp_name(port.name)})" for i, port in chosen)

    return (
        "// Ports of the top beside its streams: X(index, member of the model).\n"
        f"#define LPU_INPUTS(X){rows('input')}\n#define LPU_OUTPUTS(X){rows('output')}\n"
    )


_LOCK = ".lock"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a build folder: parallel tests that want the same model build it once."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / _LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str], folder: Path, log: Path, what: str) -> None:
    with open(log, "a") as out:
        out.write("$ " + " ".join(command) + "\n")
        out.flush()
        env = tools.tool_environment()
        result = subprocess.run(command, cwd=folder, env=env, stdout=out, stderr=out, check=False)
    if result.returncode:
        raise _build_error(what, result.returncode, log)


def _build_error(what: str, status: int, log: Path) -> VerilatorError:
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
    return VerilatorError(f"{what} failed (exit {status}); end of {log}:\n{tail}")


def _compile(make: list[str], jobs: int, folder: Path, log: Path, report: Progress) -> None:
    """Runs the generated makefile and reports each C++ file it compiles."""
    env = tools.tool_environment()
    compiles = re.compile(r"(?:-c\b|c\+\+-header).*?(\w+\.(?:cpp|h))\b")

    def step(line: str) -> str | None:
        found = compiles.search(line)
        return found.group(1) if found else None

    dry = subprocess.run([*make, "-n"], cwd=folder, env=env, capture_output=True, text=True, check=False)
    total = sum(step(line) is not None for line in dry.stdout.splitlines()) + 1
    report(0, total, "Verilog translated to C++")
    done = 0
    # make prints a command when it starts it: a step counts as done when the next one starts.
    with (
        open(log, "a") as out,
        subprocess.Popen(
            [*make, f"-j{jobs}"],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                out.write(line)
                if (name := step(line)) is not None:
                    done += 1
                    report(max(0, min(done - jobs, total - 1)), total, name)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise _build_error("the C++ compiler", process.returncode, log)
    report(total, total, "linked")


_BYTES = ctypes.POINTER(ctypes.c_uint8)


def _load(path: Path, serial: bool) -> ctypes.CDLL:
    """Loads the library and declares its functions.

    The dynamic linker would hand the same loaded library, with its one set of globals, to every model of the
    same path; that is what is wanted, as each model is an object of its own in it.
    """
    api = ctypes.CDLL(str(path), mode=os.RTLD_LOCAL | os.RTLD_NOW)
    handle, u64, size = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t
    signatures: dict[str, tuple[object, list[object]]] = {
        "lpu_create": (handle, [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]),
        "lpu_destroy": (None, [handle]),
        "lpu_error": (ctypes.c_char_p, [handle]),
        "lpu_reset": (ctypes.c_int, [handle, u64]),
        "lpu_push_rx": (None, [handle, ctypes.c_char_p, size]),
        "lpu_rx_pending": (size, [handle]),
        "lpu_tx_pending": (size, [handle]),
        "lpu_cycles": (u64, [handle]),
        "lpu_set_tx_ready": (None, [handle, ctypes.c_int]),
        "lpu_run": (ctypes.c_int, [handle, u64, u64, ctypes.c_int, u64]),
        "lpu_pop_tx": (size, [handle, ctypes.c_char_p, ctypes.POINTER(u64), size]),
        "lpu_get": (ctypes.c_int, [handle, ctypes.c_int, ctypes.POINTER(u64)]),
        "lpu_set": (ctypes.c_int, [handle, ctypes.c_int, u64]),
        "lpu_memory": (ctypes.c_void_p, [handle, size, *[ctypes.c_void_p] * 3]),
        "lpu_trace": (ctypes.c_int, [handle, ctypes.c_char_p, u64, u64]),
    }
    if serial:
        signatures["lpu_set_bit_time"] = (None, [handle, u64, u64])
        signatures["lpu_set_strict"] = (None, [handle, ctypes.c_int])
    for function, (result, arguments) in signatures.items():
        entry = getattr(api, function)
        entry.restype, entry.argtypes = result, arguments
    return api
