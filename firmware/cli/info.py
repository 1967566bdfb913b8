"""``lpu info``: what an image file is."""

from __future__ import annotations

from pathlib import Path

import click

from hdl.contract import contract_hash

from ..compiler import sample_positions
from ..driver import Driver
from ..image_file import Image, describe_sections, read_image
from ..layout import Need
from ..link import hash_text
from . import tables
from .port import SHIPPED_MODEL, board, image_for, image_name, known_image, port_options


@click.command("info", epilog="Example: lpu info stories.lpu, or: lpu info --port /dev/ttyUSB0")
@click.argument("image", required=False, type=click.Path(path_type=Path))
@port_options(required=False)
def command(image: Path | None, port: str | None, baud: int) -> None:
    """Check IMAGE and print what it holds: model, configuration, sections, cycles per token.

    With --port instead: who is there, what it holds, what it counted.
    """
    if (image is None) == (port is None):
        raise click.UsageError("give an IMAGE or --port PORT")
    if image is not None:
        _print_image(read_image(image))
    elif port is not None:
        with board(port, baud, image_for(SHIPPED_MODEL, None), check=False) as driver:
            lines = board_facts(driver)
        out = tables.console()
        for name, value in [("port", port), *lines]:
            out.print(f"{name:<14}{value}", soft_wrap=True)


def board_facts(driver: Driver) -> list[tuple[str, str]]:
    """(name, value) of what a board says of itself."""
    info, status = driver.info(), driver.status()
    cfg = info.config
    same = cfg is not None and info.contract_hash == contract_hash(cfg)
    held = known_image(info.image, cfg) if cfg is not None and info.image else None
    fault = f", the last one {status.fault.name}" if status.frames_bad else ""
    return [
        ("protocol", f"version {info.version}"),
        ("config", tables.config_text(cfg) if cfg else f"unknown to this program: {info.columns} columns x "
                   f"{info.lanes} lanes, {info.vlanes} vector lanes"),
        ("config hash", info.config_hash),
        ("contract", f"{info.contract_hash}, {'as' if same else 'NOT as'} this program's"
                     f"{'' if same else ': program the board again (lpu program)'}"),
        ("limits", f"{info.context_max} positions, {info.vocab_max} token ids, top-k up to {info.topk_max}"),
        ("image", image_name(held) if held else f"{hash_text(info.image)}, not known here" if info.image else "none"),
        ("state", "a run is in progress" if status.busy else "idle"),
        ("run", f"{status.records} tokens processed in the present or last run"
                f"{'; records were LOST on the chip' if status.lost else ''}"),
        ("since reset", f"{status.tokens:,} tokens sampled, {status.cycles:,} cycles in runs"),
        ("weight words", f"{status.corrected:,} used with one wrong bit, which was corrected; "
                         f"{status.uncorrectable:,} with more"),
        ("frames", f"{status.frames_ok:,} good, {status.frames_bad:,} refused{fault}"),
    ]  # fmt: skip


def _print_image(found: Image) -> None:
    out = tables.console()
    for name, value in facts(found):
        out.print(f"{name:<14}{value}", soft_wrap=True)
    if "shape" in found.meta:
        out.print(tables.cycles_table(found, sample_positions(found.context)))
    needs = [Need(**need) for need in found.meta.get("needs", [])]
    if needs:
        out.print(tables.needs_table(needs))
    sections = tables.table("Sections (checksums are right)", "memory", ">banks", ">rows", ">bytes")
    for row in describe_sections(found.sections, found.cfg):
        sections.add_row(row[0], *(f"{n:,}" for n in row[1:]))
    if found.tokenizer is not None:
        sections.add_row("TOKENIZER", "", "", f"{len(found.tokenizer):,}")
    out.print(sections)


def facts(image: Image) -> list[tuple[str, str]]:
    """(name, value) of what there is to say in a line each."""
    cfg, meta = image.cfg, image.meta
    lines = [("image", str(image.path)), ("config", tables.config_text(cfg)), ("config hash", cfg.hash()),
             ("identity", hash_text(image.identity))]  # fmt: skip
    if "shape" not in meta:
        return [*lines, ("holds", f"a program without a model, from {meta.get('source', 'an unknown text')}")]
    s, q = image.shape, meta["quantisation"]
    worst = "all exact" if q["worst"] is None else f"worst tensor {q['worst']}: {q['worst_snr_db']} dB"
    window = "" if s.window is None else f", sliding window {s.window}"
    experts = f", {s.experts} experts, top {s.top_k}" if s.has_router else ""
    return [
        *lines,
        ("model", f"{meta['model']} ({meta['architecture']})"),
        ("shape", f"d {s.d}, {s.layers} layers, {s.heads} heads of {s.head_dim} on {s.kv_heads} KV heads"
                  f"{experts}, ffn {s.ffn}"),
        ("context", f"{s.context} positions{window}"),
        ("vocabulary", f"{s.vocab} ids{', tied embeddings' if s.tied else ''}"),
        ("stop ids", ", ".join(map(str, image.stop_ids)) or "none"),
        ("parameters", f"{s.parameters_total:,} in all, {s.parameters_active:,} active per token"),
        ("weights", f"int{image.weights}: {q['int4']} tensors int4, {q['int8']} int8; {worst}"),
    ]  # fmt: skip
