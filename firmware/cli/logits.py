"""``lpu logits``: logits of the integer model for given ids."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from hdl.config import get_config
from sim.reference import Reference, logits_float

from ..checkpoint import Checkpoint
from ..compiler import parse_weights, quantise_model
from ..errors import LpuError
from ..image_file import atomic_file
from ..simulate import resolve_model


@click.command("logits", epilog="Example: lpu logits --model stories-500k --ids 1,2,3 --weights int8 -o logits.npy")
@click.option("--model", "model_name", required=True, help="Hugging Face folder, or a shipped model's name.")
@click.option("--ids", required=True, help="Token ids, separated by commas.")
@click.option("--weights", type=click.Choice(["int4", "int8"]), default="int8", show_default=True)
@click.option("--config", "config_name", default="ulx3s-85f", show_default=True, help="Size whose accumulators count.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help=".npy, float32 [ids, vocab]."
)
def command(model_name: str, ids: str, weights: str, config_name: str, output: Path) -> None:
    """Dequantised float32 logits of the exact integer model, one row per position."""
    ckpt = Checkpoint(resolve_model(model_name))
    try:
        values = [int(part) for part in ids.split(",")]
    except ValueError:
        raise LpuError(f"--ids {ids!r}: give integers separated by commas, as 1,2,3") from None
    for i, token in enumerate(values):
        if not 0 <= token < ckpt.shape.vocab:
            raise LpuError(f"--ids: id {i} is {token}, outside 0..{ckpt.shape.vocab - 1}")
    if len(values) > ckpt.shape.context:
        raise LpuError(f"--ids: {len(values)} ids, the context holds {ckpt.shape.context}")
    if output.suffix != ".npy":
        raise LpuError(f"{output}: the output is a .npy file")
    cfg = get_config(config_name)
    quantised = quantise_model(ckpt.path, cfg, parse_weights(weights), context=max(len(values), cfg.context_max))
    rows = logits_float(Reference(quantised.model).forward(values))
    with atomic_file(output) as file:
        np.save(file, rows)
