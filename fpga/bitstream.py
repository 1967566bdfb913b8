"""Contents of block RAMs in a finished bitstream: put in, or exchanged, without place and route.

nextpnr gives every block RAM a number (WID) under which its contents stand in the bitstream. A build keeps the
numbers of the banks' blocks, with what else ``lpu patch`` has to know, in a comment of the bitstream itself.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from firmware.errors import LpuError
from fpga import tools
from fpga.boot import DEPTH
from fpga.contents import BOOT, BankShape, bank_shape, core_path
from fpga.ecp5 import BYTE, Block, cut
from hdl.banks import ARRAY, BANKED
from hdl.config import Config
from hdl.contract import contract_hash
from hdl.link import space_shape

_MARK = "open-lpu "
"""Begins the comment."""
CORE = "board"
"""Path of the BoardCore in the top module."""
_PACK = ("--compress",)


@dataclasses.dataclass(frozen=True)
class Label:
    """What the comment says."""

    board: str
    config: str
    """Config.hash() of the hardware."""
    contract: str
    """contract_hash() of the hardware."""
    clock_hz: int
    model: str
    image: str
    """Identity of the image in the banks."""
    wids: tuple[int, ...]
    """WIDs in the order of :func:`cells`."""

    def text(self) -> str:
        return _MARK + json.dumps(dataclasses.asdict(self), separators=(",", ":"))


def cells(cfg: Config) -> Iterator[tuple[str, str, Block]]:
    """(cell, bank's path in the BoardCore, block) of every block RAM that has contents at power-on."""
    for space in BANKED:
        shape = bank_shape(cfg, space)
        for sub in range(space_shape(cfg, space)[0]):
            yield from _cells_of(core_path(cfg, space, sub), shape)
    yield from _cells_of(BOOT, BankShape(BYTE, DEPTH, BYTE))


def _cells_of(path: str, shape: BankShape) -> Iterator[tuple[str, str, Block]]:
    for group in cut(shape.width, shape.depth, shape.granularity, shape.full):
        for block in group:
            yield f"{CORE}.{path}.{ARRAY}.{block.name}.ebr", path, block


def find_wids(netlist: Path, cfg: Config) -> tuple[int, ...]:
    """WIDs from the netlist that nextpnr wrote. Raises LpuError when a block is not in it."""
    found: dict[str, int] = {}
    cell = re.compile(r'^        "([^"]+)": \{$')
    wid = re.compile(r'^ +"WID": "([01]+)"')
    name = ""
    with netlist.open() as lines:
        for line in lines:
            if match := cell.match(line):
                name = match.group(1)
            elif match := wid.match(line):
                found[name] = int(match.group(1), 2)
    missing = [c for c, _, _ in cells(cfg) if c not in found]
    if missing:
        raise LpuError(f"{netlist}: {len(missing)} block RAMs are not in it, {missing[0]} among them")
    return tuple(found[c] for c, _, _ in cells(cfg))


def init_text(words: Sequence[int], block: Block) -> str:
    """Contents of a block as Trellis writes them: 2048 values of nine bits, eight a line."""
    total = 0
    for i, word in enumerate(words):
        total |= word << i * block.mode.width
    raw = [total >> BYTE * i & 0x1FF for i in range(2048)]
    return "".join(" ".join(f"{v:03x}" for v in raw[i : i + 8]) + "\n" for i in range(0, 2048, 8))


def put(config: str, cfg: Config, label: Label, contents: Mapping[str, Sequence[int]]) -> str:
    """A bitstream's text with these contents and this label, whatever it had before."""
    fresh = {
        w: init_text(block.words(contents[path]), block)
        for w, (_, path, block) in zip(label.wids, cells(cfg), strict=True)
    }
    kept = []
    for section in re.split(r"(?m)^(?=\.)", config):
        match = re.match(r"\.bram_init (\d+)\n", section)
        if section.startswith(f".comment {_MARK}") or (match and int(match.group(1)) in fresh):
            continue
        kept.append(section.rstrip("\n") + "\n\n" if match else section)
    at = next((i for i, section in enumerate(kept) if section.startswith(".comment")), 1)
    kept.insert(at, f".comment {label.text()}\n")
    text = "".join(kept).rstrip("\n") + "\n\n"
    return text + "".join(f".bram_init {w}\n{fresh[w]}\n" for w in sorted(fresh))


def read_label(config: str) -> Label:
    """Raises LpuError for a bitstream that is not one of ours."""
    match = re.search(rf"(?m)^\.comment {_MARK}(\{{.*\}})$", config)
    if not match:
        raise LpuError("the bitstream carries no open-lpu label: it was not built by `lpu bitstream`")
    values = json.loads(match.group(1))
    return Label(**values | {"wids": tuple(values["wids"])})


def check_label(label: Label, cfg: Config) -> None:
    """Raises LpuError for a bitstream of other hardware than these sources describe."""
    for what, mine, its in (
        ("config", cfg.hash(), label.config), ("ISA and latencies", contract_hash(cfg), label.contract)
    ):  # fmt: skip
        if mine != its:
            raise LpuError(f"the bitstream was built from another version ({what} {its}, not {mine}): build it again")


def pack(folder: Path, config: str, bit: str) -> tools.Cost:
    """Text file ``config`` to bitstream ``bit``, both in ``folder``."""
    return tools.run("ecppack", ["--input", config, "--bit", bit, *_PACK], folder, "ecppack.log")


def unpack(folder: Path, bit: str, config: str) -> tools.Cost:
    """The other way."""
    return tools.run("ecpunpack", ["--input", bit, "--textcfg", config], folder, "ecpunpack.log")
