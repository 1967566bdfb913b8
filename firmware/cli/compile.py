"""``lpu compile``: checkpoint folder -> image file."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from hdl.config import get_config

from ..compiler import CACHE, Compilation, compile_model, parse_weights, sample_positions
from ..errors import LpuError
from ..image_file import write_image
from ..layout import SEQUENCES_MAX
from ..public_models import default_config, default_context
from ..quantise import TensorReport
from ..simulate import resolve_model
from . import tables
from .bars import Bars


@click.command(
    "compile", epilog="Example: lpu compile stories-500k -o stories.lpu --config ulx3s-85f --weights int4"
)
@click.argument("model")
@click.option(
    "-o", "--output", metavar="IMAGE", type=click.Path(path_type=Path), required=True, help="Image to write."
)
@tables.config_option(None)
@click.option("--weights", metavar="WIDTH", help="int4 or int8  [default: the config's].")
@click.option("--context", type=click.IntRange(2), help="Positions  [default: all that model and config allow].")
@click.option("--sequences", type=click.IntRange(1, SEQUENCES_MAX), default=1, show_default=True,
              help="Texts to work on in turn, in an equal part of the context each.")
@click.option("--report", is_flag=True, help="Print the error of every tensor, not a line per kind.")
@click.option("--no-cache", is_flag=True, help="Neither use nor keep earlier results in build/images.")
def command(
    model: str,
    output: Path,
    config_name: str | None,
    weights: str | None,
    context: int | None,
    sequences: int,
    report: bool,
    no_cache: bool,
) -> None:
    """Compile MODEL, a Hugging Face folder or a shipped model's name, into an image file.

    Prints the quantisation error, what the model needs of each memory, and the exact cycle count of a token.
    Nothing is simulated: the schedule is static.
    """
    cfg = get_config(config_name or default_config(model, "ulx3s-85f"))
    context = context or (default_context(model, cfg) if sequences == 1 else None)
    bits = parse_weights(weights) if weights else cfg.weight_bits
    folder = resolve_model(model)
    if not output.absolute().parent.is_dir() or output.is_dir():
        raise LpuError(f"{output}: cannot be written: no such folder, or a folder itself")
    with Bars(Console(stderr=True)) as bars:
        result = compile_model(folder, cfg, bits, bars.stage, None if no_cache else CACHE, context, sequences)
        bars.stage("write the image")
        write_image(output, result.image)
    _print(result, output, report)


def _print(result: Compilation, output: Path, every: bool) -> None:
    out, shape = tables.console(), result.shape
    out.print(tensor_table(result.report) if every else kind_table(result.report))
    out.print(tables.needs_table(result.needs))
    out.print(tables.cycles_table(result.image, sample_positions(shape.context)))
    size = output.stat().st_size
    active = f", {shape.parameters_active:,} active per token" if shape.experts > 1 else ""
    out.print(
        f"{output}: {result.image.meta['model']}, int{result.weights}, for {result.cfg.name}; "
        f"{shape.parameters_total:,} parameters{active}; {size:,} bytes",
        soft_wrap=True,
    )


def snr(value: float) -> str:
    """Signal-to-error ratio in dB."""
    return "exact" if math.isinf(value) else f"{value:.1f}"


def tensor_table(report: Iterable[TensorReport]) -> Table:
    """The quantisation error of every tensor."""
    made = tables.table("Quantisation", "tensor", ">weights", ">signal / error, dB")
    for r in report:
        made.add_row(r.name, f"int{r.width}", snr(r.snr_db))
    return made


def kind_table(report: Iterable[TensorReport]) -> Table:
    """The quantisation error by kind of tensor: worst and mean."""
    kinds: dict[str, list[TensorReport]] = defaultdict(list)
    for r in report:
        kinds[re.sub(r"^layers\.\d+\.|\.\d+$", "", r.name)].append(r)
    made = tables.table(
        "Quantisation (--report lists every tensor)",
        "kind", ">tensors", ">weights", ">signal / error, dB: worst", ">mean", "worst tensor",
    )  # fmt: skip
    for kind, group in kinds.items():
        worst = min(group, key=lambda r: r.snr_db)
        mean = sum(r.snr_db for r in group) / len(group)
        name = "" if math.isinf(worst.snr_db) else worst.name
        made.add_row(kind, str(len(group)), f"int{group[0].width}", snr(worst.snr_db), snr(mean), name)
    return made
