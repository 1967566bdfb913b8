"""What a board's memories hold at power-on: an image, and the bytes that start a run of it.

Weights, scales, coefficients and the queues' programs lie in banks and come with the bitstream. Everything
else of an image, and the run itself, is what a host would send: the boot memory plays it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from firmware.driver import STOP_IDS_MAX, run_parts
from firmware.errors import LpuError
from firmware.image_file import Image
from firmware.image_text import image_tokenizer
from firmware.link import Frame, load_payloads
from fpga.boot import BYTES_MAX, boot_words
from hdl import link
from hdl.banks import ARRAY, BANKED, bank_path
from hdl.config import SCALE_BITS, Config
from hdl.ecc import get_code
from hdl.image import Space, row_bytes
from hdl.isa import FETCH_BITS
from hdl.link import Request, space_shape

BOOT = "boot.rom"
"""Path of the boot memory in a BoardCore."""
DEMO_PROMPT = "Once upon a time, there was a little"

def core_path(cfg: Config, space: Space, sub: int) -> str:
    """Path in a BoardCore of the bank that holds bank ``sub`` of a space in BANKED."""
    return f"core.{bank_path(cfg, space, sub)}"


@dataclasses.dataclass(frozen=True)
class BankShape:
    """Banks of a space, as :func:`fpga.ecp5.cut` takes them."""

    width: int
    """Bits of a word."""
    depth: int
    granularity: int
    """Bits written together."""
    full: int = 0
    """Words that a second port reads too."""


def bank_shape(cfg: Config, space: Space) -> BankShape:
    """Of the banks of a space in BANKED."""
    depth = space_shape(cfg, space)[1]
    if space is Space.WEIGHT and cfg.ecc:
        width = get_code(cfg.lanes * 8).width
        return BankShape(width, depth, width, cfg.value_words)
    width, granularity = {
        Space.WEIGHT: (cfg.lanes * 8, 8),
        Space.SCALE: (cfg.vlanes * SCALE_BITS, SCALE_BITS),
        Space.COEF: (cfg.vlanes * SCALE_BITS, SCALE_BITS),
        Space.PROGRAM: (FETCH_BITS, FETCH_BITS),
    }[space]
    return BankShape(width, depth, granularity)


def power_on(image: Image, cfg: Config, boot: bytes) -> dict[str, list[int]]:
    """Words of each bank of a BoardCore that has contents at power-on, all of its words, by the bank's path; with
    their check bits where the bank has some.

    Raises LpuError for an image made for other hardware, or that does not fit it.
    """
    if image.cfg.hash() != cfg.hash():
        raise LpuError(
            f"{image.label} is for config {image.cfg.name} ({image.cfg.hash()}), not for {cfg.name} ({cfg.hash()})"
        )
    contents = {}
    for space in BANKED:
        banks, depth = space_shape(cfg, space)
        for sub in range(banks):
            contents[core_path(cfg, space, sub)] = [0] * depth
    for part in image.parts():
        if part.space not in BANKED:
            continue
        space = Space(part.space)
        size = row_bytes(cfg, space)
        rows = [int.from_bytes(part.rows[at : at + size], "little") for at in range(0, len(part.rows), size)]
        if space is Space.WEIGHT and cfg.ecc:
            rows = get_code(cfg.lanes * 8).encode(rows)
        words = contents[core_path(cfg, space, part.sub)]
        end = part.address + len(rows)
        if end > len(words):
            raise LpuError(f"{image.label}: {space.name} {part.sub}: row {end - 1}; config {cfg.name} has {len(words)}")
        words[part.address : end] = rows
    contents[BOOT] = boot_words(boot)
    return contents


def boot_stream(
    image: Image,
    prompt_ids: Sequence[int],
    limit: int,
    temperature: float = 0.0,
    topk: int = 0,
    seed: int = 0,
    stop_ids: Sequence[int] = (),
) -> bytes:
    """What a host would send to an LPU whose banks hold ``image``, to load the rest of it and start a run.

    Arguments as of :meth:`firmware.driver.Driver.run`. Raises LpuError for a bad one, and for more bytes than
    the boot memory holds.
    """
    rest = [part for part in image.parts() if part.space not in BANKED]
    run = run_parts(
        image.cfg, prompt_ids, limit, temperature, topk, seed, stop_ids, context=image.context, vocab=image.vocab
    )
    requests = [(Request.INFO, b"")]
    requests += [(Request.LOAD, payload) for payload in load_payloads(image.cfg, [*rest, *run])]
    requests += [(Request.RUN, link.pack(Request.RUN, until=link.EVERYTHING))]
    first = link.BOOT_RUN - (len(requests) - 1)
    data = b"".join(Frame(r, (first + i) % 256, payload).encode() for i, (r, payload) in enumerate(requests))
    if len(data) > BYTES_MAX:
        raise LpuError(f"{image.label}: {len(data)} boot bytes; the boot memory holds {BYTES_MAX}: shorten the prompt")
    return data


def demo_stream(image: Image) -> bytes:
    """:func:`boot_stream` of the run that a board makes unless told otherwise: DEMO_PROMPT, or the model's first id
    where that would take much of its context, continued until the model ends the text or the context is full. The
    same text each time."""
    tokenizer = image_tokenizer(image)
    prompt = tokenizer.encode(DEMO_PROMPT) if tokenizer.available else []
    if not 0 < len(prompt) <= image.context // 4:
        prompt = [int(image.meta.get("begin") or 0)]
    return boot_stream(image, prompt, image.context, stop_ids=image.stop_ids[:STOP_IDS_MAX])


def write_hex(folder: Path, top: str, contents: Mapping[str, Sequence[int]]) -> str:
    """Writes contents for a simulation of a BoardCore, as the banks in ``hdl/verilog/`` read them.

    ``top``: path of the BoardCore from the top module on. Returns the plusarg that makes the banks read them.
    """
    for path, words in contents.items():
        (folder / f"{top}.{path}.{ARRAY}.hex").write_text("".join(f"{word:x}\n" for word in words))
    return f"+contents={folder}"
