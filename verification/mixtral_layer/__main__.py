"""``python -m verification.mixtral_layer``: a Mixtral-8x7B decoder layer at full size through the RTL, checked."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from firmware.cli import EXIT_BAD_INPUT, EXIT_INTERRUPTED
from firmware.cli.bars import Bars
from firmware.errors import LpuError
from firmware.image_file import atomic_file, make_parent
from firmware.lower import lower
from firmware.rtl import build_core
from hdl.config import WORD, ConfigError, get_config
from hdl.export import MAPPED_BITS

from .compare import cosines, differences, expect, layer_utilisation, quantise_layer
from .rtl import LayerRtl
from .weights import SeededCheckpoint, cut_shape, layer_shape

REPORT = Path("build/mixtral-layer/report.json")
STATES = 64
"""Hidden states that tokens may name."""
LEAST_COSINE = {8: 0.99, 4: 0.9}
"""Of the layer's change of the residual stream, RTL against float32, by width of the weights."""
LEAST_UTILISATION = 0.9
"""At full size."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "config_name", default="large", show_default=True, help="Size of the LPU.")
@click.option("--weights", type=click.Choice(["int4", "int8"]), default="int8", show_default=True)
@click.option("--tokens", type=click.IntRange(1, STATES), default=4, show_default=True, help="Length of the sequence.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of weights and hidden states.")
@click.option("--cut", is_flag=True, help="The layer cut to the width of one tile, for a quick look.")
@click.option("--oracle/--no-oracle", default=True, show_default=True, help="Compare with transformers.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), default=REPORT, show_default=True)
def main(**options: Any) -> None:
    """A decoder layer of Mixtral-8x7B (d 4096, 32 heads, 8 key/value heads, 8 experts of 14,336, top 2) on the RTL.

    Weights and hidden states are seeded. The RTL's residual stream must be the integer reference's bit for bit, its
    cycles the schedule's, and the change of the residual stream close to MixtralDecoderLayer's in transformers. Exit
    code 1 when something is not so.
    """
    try:
        sys.exit(run(**options))
    except (LpuError, ConfigError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)


def run(config_name: str, weights: str, tokens: int, seed: int, cut: bool, oracle: bool, report: Path) -> int:
    """The command; returns the exit code."""
    cfg, bits = get_config(config_name), int(weights.removeprefix("int"))
    if oracle and not all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        raise LpuError("transformers is not installed: `make mixtral-layer` installs it, --no-oracle goes without")
    if cfg.vector_depth * cfg.vlanes * WORD < MAPPED_BITS:
        raise LpuError(f"--config {cfg.name}: its vector memory is too small to be read from outside; large has it")
    make_parent(report)
    positions = max(16, tokens)
    shape = cut_shape(cfg.lanes, STATES, positions) if cut else layer_shape(STATES, positions)
    ids = np.random.default_rng([seed, 30]).permutation(STATES)[:tokens]
    ckpt = SeededCheckpoint(shape, seed)
    clock = _Clock()
    with Bars(Console(stderr=True)) as bars:
        library = build_core(cfg, progress=bars)
        clock("build")
        bars.stage("calibrate")
        model = quantise_layer(ckpt, cfg, bits, ids, lambda done, total: bars("quantise", done, total))
        clock("quantise")
        bars.stage("lower and schedule")
        compiled = lower(model, cfg)
        clock("lower")
        bars.stage("reference")
        expected = expect(model, compiled, ids)
        clock("reference")
        rtl = LayerRtl(library, compiled, model).run(
            [int(i) for i in ids], lambda done, total: bars("RTL: tokens", done, total)
        )
        clock("RTL")
        change, chosen = None, None
        if oracle:
            from .oracle import decoder_layer

            output, chosen = decoder_layer(ckpt, ids, lambda done, total: bars("transformers: weights", done, total))
            change = output.astype(np.float64) - ckpt.embed[ids]
            clock("transformers")
    wrong = differences(rtl, expected)
    unsampled = expected.prompt_cycles[0] if tokens > 1 else None
    used = layer_utilisation(shape, cfg, bits, 0, unsampled) if unsampled else None
    if used is not None and not cut and used < LEAST_UTILISATION:
        wrong.append(f"MAC utilisation {used:.1%}, not {LEAST_UTILISATION:.0%}")
    result: dict[str, Any] = {
        "config": cfg.name, "weights": weights, "seed": seed, "ids": ids.tolist(), "tokens": tokens,
        "shape": {"d": shape.d, "heads": shape.heads, "kv_heads": shape.kv_heads, "head_dim": shape.head_dim,
                  "experts": shape.experts, "top_k": shape.top_k, "ffn": shape.ffn, "rope_theta": shape.rope_theta},
        "parameters": shape.parameters_total - 2 * shape.vocab * shape.d,
        "cycles": rtl.cycles, "predicted_cycles": expected.cycles,
        "prompt_cycles": rtl.prompt_cycles, "predicted_prompt_cycles": expected.prompt_cycles,
        "mac_utilisation": used, "macs_per_cycle": cfg.macs_per_cycle(bits),
        "seconds_per_token": rtl.seconds, "sim_khz": rtl.khz, "seconds": clock.seconds,
    }  # fmt: skip
    if change is not None and chosen is not None:
        agree = np.array([set(a) == set(b) for a, b in zip(chosen, expected.experts, strict=True)])
        cosine = cosines(expected.change, change)
        result |= {
            "experts_agree": int(agree.sum()),
            "cosine": cosine.tolist(),
            "least_cosine": float(cosine[agree].min()) if agree.any() else None,
        }
        if not agree.any():
            wrong.append("no token chooses the experts that it does in float32")
        elif cosine[agree].min() < LEAST_COSINE[bits]:
            wrong.append(f"cosine {cosine[agree].min():.5f} with float32, not {LEAST_COSINE[bits]}")
    result["differences"] = wrong
    with atomic_file(report) as out:
        out.write((json.dumps(result, indent=2) + "\n").encode())
    _table(result)
    for line in wrong:
        print(f"WRONG: {line}", file=sys.stderr)
    return 1 if wrong else 0


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def __call__(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage], self.last = round(now - self.last, 1), now


def _table(r: dict[str, Any]) -> None:
    shape = r["shape"]
    size = f"d {shape['d']}, {shape['experts']} experts of {shape['ffn']}"
    title = f"Mixtral layer ({size}, {r['weights']}) on {r['config']}"
    table = Table(title=title, show_header=False, title_justify="left")
    equal = "yes" if not r["differences"] else "; ".join(r["differences"])
    rows = {
        "parameters": f"{r['parameters']:,}",
        "tokens": f"{r['tokens']}, seed {r['seed']}",
        "RTL = reference and schedule": f"{equal} (RTL simulation)",
        "cycles of a token": f"{_span(r['cycles'])} with LM head and sampling; "
        f"{_span(r['prompt_cycles'][:-1])} embedding and layer alone",
    }
    if r["mac_utilisation"] is not None:
        rows["MAC utilisation of the layer"] = f"{r['mac_utilisation']:.1%} of {r['macs_per_cycle']} a cycle"
    if "cosine" in r:
        rows["top-2 experts as in float32"] = f"{r['experts_agree']} of {r['tokens']} tokens"
        least = r["least_cosine"]
        rows["cosine of the change with transformers"] = "-" if least is None else f"{least:.5f} at least, over those"
    rows["seconds a token"] = f"{float(np.mean(r['seconds_per_token'])):.1f}, {r['sim_khz']:.0f} kHz"
    rows["seconds"] = ", ".join(f"{stage} {seconds:g}" for stage, seconds in r["seconds"].items())
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)


def _span(values: list[int]) -> str:
    if not values:
        return "-"
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


if __name__ == "__main__":
    main()
