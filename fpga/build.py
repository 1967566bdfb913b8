"""From a board's name to a bitstream: elaborate, synthesise, place and route, fill the memories, pack.

The hardware is built without contents; image and boot bytes are put into the block RAMs afterwards
(:mod:`fpga.bitstream`). The same sources, tools, seed and model give the same bitstream.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import amaranth_boards.ulx3s as ulx3s

from firmware.compiler import CACHE, compile_model
from firmware.errors import LpuError
from firmware.image_file import Image
from firmware.simulate import REPORT_POSITION, resolve_model
from fpga import bitstream, tools
from fpga.board import Board, BoardTop
from fpga.contents import demo_stream, power_on
from fpga.ecp5 import Ecp5
from fpga.floorplan import floorplan
from fpga.report import slowest
from fpga.ties import check_ties
from hdl.contract import contract_hash

ROOT = Path("build")
"""Each board has its folder here, relative to the working directory."""
NAME = "lpu"
_DEVICES = {"LFE5U-12F": "--12k", "LFE5U-25F": "--25k", "LFE5U-45F": "--45k", "LFE5U-85F": "--85k"}
_PACKAGES = {"BG381": "CABGA381"}

PLACER = "static"
"""Of nextpnr: with the blocks where the floorplan has them, it ends far nearer to the clock than "heap"."""

LOGIC_SHARE = 0.6
"""Of a period, for logic; the rest is for wires. Told that much time, Yosys' mapper saves LUTs where it need not save
levels. For dense boards only: the others have LUTs to spare, and are faster without."""

SLOWEST = 8
"""Endpoints that the report names: what to shorten for a faster clock."""

Stage = Callable[[str, str], None]
"""Called with a stage's name and what it is doing."""


def platform(board: Board) -> Any:
    """The board's platform, with memories and multipliers of ECP5."""
    base = getattr(ulx3s, board.platform)
    made = type(f"Lpu{board.platform}", (Ecp5, base), {
        "primitives": True, "multipliers": board.limits.dsp, "lut_ram_bits": board.lut_ram_bits,
    })  # fmt: skip
    return made()


def elaborate(board: Board, folder: Path) -> None:
    """Writes NAME.il (RTLIL) and NAME.lpf (pins, clocks)."""
    plan = platform(board).prepare(BoardTop(board), NAME, emit_src=False)
    for suffix in ("il", "lpf"):
        content = plan.files[f"{NAME}.{suffix}"]
        data = content if isinstance(content, bytes) else content.encode()
        (folder / f"{NAME}.{suffix}").write_bytes(data)


def write_script(board: Board, folder: Path) -> None:
    """Writes NAME.ys, the script of the synthesis."""
    synthesis = [tools.SYNTHESIS.format(top=NAME)]
    if board.dense:
        delay = f"scratchpad -set abc9.D {LOGIC_SHARE * 1e12 / board.clock_hz:.0f}"  # ps
        synthesis = [delay, f"{synthesis[0]} -nowidelut"]
    lines = [f"read_rtlil {NAME}.il", *synthesis, f"write_json {NAME}.json", ""]
    (folder / f"{NAME}.ys").write_text("\n".join(lines))


def synthesise(folder: Path, on_line: tools.OnLine = lambda line: None) -> tools.Cost:
    """NAME.il to the netlist NAME.json, by the script NAME.ys."""
    return tools.run("yosys", ["-q", "-l", "yosys.log", f"{NAME}.ys"], folder, "yosys.log", on_line)


def plan(board: Board, folder: Path) -> None:
    """The netlist with the floorplan's cells in their places: NAME.json to NAME.planned.json."""
    netlist = json.loads((folder / f"{NAME}.json").read_text())
    cells = netlist["modules"][NAME]["cells"]
    places = floorplan(platform(board).device, board.cfg, {name: cell["type"] for name, cell in cells.items()})
    for name, bel in places.items():
        cells[name]["attributes"]["BEL"] = bel
    (folder / f"{NAME}.planned.json").write_text(json.dumps(netlist))


def _device(board: Board) -> list[str]:
    """Arguments of nextpnr that say which device it is, and what is to be held there."""
    made = platform(board)
    return [
        _DEVICES[made.device], "--package", _PACKAGES[made.package], "--speed", made.speed, "--lpf", f"{NAME}.lpf",
    ]  # fmt: skip


def count(board: Board, folder: Path) -> dict[str, dict[str, int]]:
    """Resources that NAME.planned.json takes, as :func:`used` has them; packed only, in seconds."""
    report = f"{NAME}.packed.json"
    tools.run(
        "nextpnr-ecp5",
        [*_device(board), "--json", f"{NAME}.planned.json", "--pack-only", "--report", report,
         "--log", f"{NAME}.packed.log"],
        folder, f"{NAME}.packed.log",
    )  # fmt: skip
    return used(json.loads((folder / report).read_text()), board)


def place_and_route_arguments(board: Board, seed: int) -> list[str]:
    """What nextpnr is told.

    One run does both: a placed design that is written and read again has lost each pin of a block RAM or multiplier
    that no net reaches, and with it the setting that ties the pin to its level (:mod:`fpga.ties`).
    """
    stem = f"{NAME}.{seed}"
    return [
        *_device(board), "--json", f"{NAME}.planned.json",
        "--textcfg", f"{stem}.config", "--write", f"{stem}.routed.json", "--report", f"{stem}.report.json",
        "--log", f"{stem}.log", "--seed", str(seed), "--timing-allow-fail", "--placer", PLACER,
        "--detailed-timing-report",
    ]  # fmt: skip


def place_and_route(board: Board, folder: Path, seed: int, on_line: tools.OnLine = lambda line: None) -> tools.Cost:
    """NAME.planned.json to NAME.SEED.config, .report.json and .routed.json. A missed clock is not an error here."""
    return tools.run("nextpnr-ecp5", place_and_route_arguments(board, seed), folder, f"{NAME}.{seed}.log", on_line)


def core_fmax(report: dict[str, object]) -> float:
    """MHz that the core's clock reaches; the slowest of all clocks, should there be more."""
    clocks = report["fmax"]
    assert isinstance(clocks, dict) and clocks
    return min(float(c["achieved"]) for c in clocks.values())


def used(report: dict[str, object], board: Board) -> dict[str, dict[str, int]]:
    """Resources: used, and what the vendor publishes for the device."""
    utilisation = report["utilization"]
    assert isinstance(utilisation, dict)
    names = {"lut4": "TRELLIS_COMB", "ff": "TRELLIS_FF", "dsp": "MULT18X18D", "ebr": "DP16KD"}
    limits = dataclasses.asdict(board.limits)
    return {key: {"used": utilisation[cell]["used"], "available": limits[key]} for key, cell in names.items()}


def check_limits(board: Board, resources: dict[str, dict[str, int]]) -> None:
    """Raises LpuError when a design takes more than the vendor publishes for the device: nextpnr itself takes an
    LFE5U-12F for a 25F, which is the same die."""
    over = [f"{key} {r['used']:,} of {r['available']:,}" for key, r in resources.items() if r["used"] > r["available"]]
    if over:
        raise LpuError(
            f"{board.name}: more than the vendor publishes for the device: {', '.join(over)}; "
            f"make config {board.config} smaller (hdl/config.py)"
        )


@dataclasses.dataclass
class Result:
    """A finished build."""

    board: Board
    folder: Path
    report: dict[str, object]
    image: Image

    @property
    def timing_met(self) -> bool:
        return float(self.report["fmax_mhz"]) >= float(self.report["target_mhz"])  # type: ignore[arg-type]


def build(
    board: Board, model: str | None, seeds: Sequence[int], stage: Stage = lambda name, what: None, again: bool = False
) -> Result:
    """Builds ROOT/BOARD/lpu.bit and report.json; of several seeds the fastest is taken.

    ``again``: run the tools even where their inputs are those of the last build. Raises LpuError for a model
    or a design that does not fit, and for a failing tool.
    """
    folder = ROOT / board.name
    folder.mkdir(parents=True, exist_ok=True)
    model = model or board.model
    stage("compile", model)
    cfg = board.cfg
    image = compile_model(resolve_model(model), cfg, cfg.weight_bits, cache=CACHE).image
    stage("elaborate", board.name)
    elaborate(board, folder)
    write_script(board, folder)
    costs: dict[str, tools.Cost | None] = {}

    def step(
        name: str, arguments: Sequence[str], inputs: Sequence[str], outputs: Sequence[str],
        run: Callable[[tools.OnLine], tools.Cost],
    ) -> None:  # fmt: skip
        """Runs a tool unless its outputs were made with these very arguments from these very inputs."""
        digest = hashlib.sha256(json.dumps([tools.versions(), list(arguments)]).encode())
        for file in inputs:
            digest.update((folder / file).read_bytes())
        stamp = folder / f"{outputs[0]}.made"
        fresh = stamp.is_file() and all((folder / file).is_file() for file in outputs)
        known = json.loads(stamp.read_text()) if fresh else {}
        if not again and known.get("inputs") == digest.hexdigest():
            costs[name] = tools.Cost(known["seconds"], known["peak_mib"])
            return
        stamp.unlink(missing_ok=True)
        stage(name, "")
        cost = costs[name] = run(lambda line: stage(name, line))
        stamp.write_text(json.dumps({"inputs": digest.hexdigest(), **dataclasses.asdict(cost)}))

    step("synthesis", [], [f"{NAME}.il", f"{NAME}.ys"], [f"{NAME}.json"], lambda on_line: synthesise(folder, on_line))
    stage("floorplan", board.name)
    plan(board, folder)
    check_limits(board, count(board, folder))
    for seed in seeds:
        stem = f"{NAME}.{seed}"
        step(
            f"place and route, seed {seed}",
            place_and_route_arguments(board, seed),
            [f"{NAME}.planned.json", f"{NAME}.lpf"],
            [f"{stem}.config", f"{stem}.report.json", f"{stem}.routed.json"],
            lambda on_line, seed=seed: place_and_route(board, folder, seed, on_line),  # type: ignore[misc]
        )
    reports = {seed: json.loads((folder / f"{NAME}.{seed}.report.json").read_text()) for seed in seeds}
    fmax = {seed: core_fmax(report) for seed, report in reports.items()}
    best = max(seeds, key=lambda seed: fmax[seed])

    stage("memories", f"seed {best}")
    check_ties(folder / f"{NAME}.{best}.config", folder / f"{NAME}.{best}.routed.json")
    wids = bitstream.find_wids(folder / f"{NAME}.{best}.routed.json", cfg)
    label = bitstream.Label(
        board.name, cfg.hash(), contract_hash(cfg), board.clock_hz, str(image.meta["model"]),
        f"{image.identity:016x}", wids,
    )  # fmt: skip
    text = (folder / f"{NAME}.{best}.config").read_text()
    (folder / f"{NAME}.config").write_text(bitstream.put(text, cfg, label, power_on(image, cfg, demo_stream(image))))
    stage("pack", f"{NAME}.bit")
    costs["pack"] = bitstream.pack(folder, f"{NAME}.config", f"{NAME}.bit")

    position = min(REPORT_POSITION, image.context - 1)
    cycles = image.cycles(position, True)
    report: dict[str, object] = {
        "board": board.name,
        "fmax_mhz": round(fmax[best], 2),
        "target_mhz": board.clock_hz / 1e6,
        **used(reports[best], board),
        "cycles_per_token": cycles,
        "position": position,
        "tokens_per_second": round(board.clock_hz / cycles),
        "model": str(image.meta["model"]),
        "image": label.image,
        "slowest_ns": slowest(reports[best], SLOWEST),
        "seed": best,
        "seeds": {str(seed): round(value, 2) for seed, value in fmax.items()},
        "seeds_median_mhz": round(statistics.median(fmax.values()), 2),
        "tools": tools.versions(),
        "config": cfg.name,
        "config_hash": cfg.hash(),
        "contract_hash": contract_hash(cfg),
        "bitstream_sha256": hashlib.sha256((folder / f"{NAME}.bit").read_bytes()).hexdigest(),
        "stages": {name: dataclasses.asdict(cost) for name, cost in costs.items() if cost},
        "evidence": "clock: static timing after place and route; cycles: static schedule; nothing has run on a board",
    }
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    return Result(board, folder, report, image)


def patch(bit: Path, image: Image, board: Board, output: Path, boot: bytes) -> None:
    """``bit`` with another model's weights, program and boot bytes, as ``output``.

    Raises LpuError for a bitstream that is not of this board, or not one of ours.
    """
    with tempfile.TemporaryDirectory(dir=ROOT if ROOT.is_dir() else None) as name:
        folder = Path(name)
        (folder / "in.bit").write_bytes(bit.read_bytes())
        try:
            bitstream.unpack(folder, "in.bit", "in.config")
        except LpuError as error:
            raise LpuError(f"{bit}: not an ECP5 bitstream: {error}") from None
        text = (folder / "in.config").read_text()
        label = bitstream.read_label(text)
        bitstream.check_label(label, board.cfg)
        label = dataclasses.replace(label, model=str(image.meta["model"]), image=f"{image.identity:016x}")
        (folder / "out.config").write_text(bitstream.put(text, board.cfg, label, power_on(image, board.cfg, boot)))
        bitstream.pack(folder, "out.config", "out.bit")
        output.write_bytes((folder / "out.bit").read_bytes())
