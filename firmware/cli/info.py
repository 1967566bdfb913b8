"""``lpu info``: what an image file is."""

from __future__ import annotations

from pathlib import Path

import click

from ..compiler import sample_positions
from ..image_file import Image, describe_sections, read_image
from ..layout import Need
from . import tables


@click.command("info", epilog="Example: lpu info stories.lpu")
@click.argument("image", type=click.Path(path_type=Path))
def command(image: Path) -> None:
    """Check IMAGE and print what it holds: model, configuration, sections, cycles per token."""
    found = read_image(image)
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
    lines = [("image", str(image.path)), ("config", tables.config_text(cfg)), ("config hash", cfg.hash())]
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
