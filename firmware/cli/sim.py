"""``lpu sim``: a checkpoint writes text on the LPU's RTL."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from hdl.config import Config, get_config

from ..checkpoint import ModelShape
from ..compiler import compile_model
from ..errors import LpuError
from ..image_file import Image, atomic_file, make_parent
from ..public_models import default_config, default_context
from ..rtl import build_core
from ..simulate import REPORT_POSITION, Outcome, Request, Waves, resolve_model, simulate, utilisation
from ..tokenizer import Tokenizer
from .bars import Bars
from .port import SHIPPED_MODEL, prompt_ids
from .writer import Writer

REPORT = Path("build/sim/report.json")
DEFAULT_PROMPT = "Once upon a time, there was a little"
DEFAULT_QUESTION = "What is the capital of France?"
"""For a model with a chat template."""
DEFAULT_CONFIG = "ulx3s-85f"


@click.command("sim", epilog='Example: lpu sim --prompt "One day, a frog" --tokens 48 --temperature 0.8 --seed 3')
@click.option("--prompt", help="Text the model continues (token ids separated by commas without a tokenizer).")
@click.option("--second", help="A second text: the LPU works on both in turn, in half of the context each.")
@click.option("--raw", is_flag=True, help="Continue the prompt as it is, without the model's chat template.")
@click.option("--tokens", type=click.IntRange(1), default=64, show_default=True, help="Tokens to generate at most.")
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0: greedy.")
@click.option("--topk", type=click.IntRange(0), default=0, show_default=True, help="Sample among the k best; 0: all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sampling noise.")
@click.option("--config", "config_name", help=f"Size of the LPU  [default: {DEFAULT_CONFIG}, or what the model needs].")
@click.option("--model", "model_name", default=SHIPPED_MODEL, show_default=True, help="Folder or shipped model.")
@click.option("--weights", type=click.Choice(["int4", "int8"]), help="Width of the weights  [default: the config's].")
@click.option("--context", type=click.IntRange(2), help="Positions  [default: all that model and config allow].")
@click.option("--waves", is_flag=True, help="Write a waveform of a window of cycles.")
@click.option("--wave-window", default="0:20000", show_default=True, help="FIRST:LAST cycle of the run to record.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), default=REPORT, show_default=True)
def command(**options: Any) -> None:
    """Run a model on the simulated RTL and check it against the reference.

    Builds the Verilator model when needed, loads the compiled image through the host link's byte stream,
    streams the text as it is computed, and ends with exit code 1 if a token or a cycle count is not
    the predicted one.
    """
    sys.exit(run(**options))


def run(
    prompt: str | None, second: str | None, raw: bool, tokens: int, temperature: float, topk: int, seed: int,
    config_name: str | None, model_name: str, weights: str | None, context: int | None, waves: bool, wave_window: str,
    report: Path,
) -> int:  # fmt: skip
    """The command; returns the exit code."""
    cfg = get_config(config_name or default_config(model_name, DEFAULT_CONFIG))
    sequences = 1 if second is None else 2
    context = context or (default_context(model_name, cfg) if sequences == 1 else None)
    folder = resolve_model(model_name)
    bits = int(weights.removeprefix("int")) if weights else cfg.weight_bits
    window = _window(wave_window, report) if waves else None
    make_parent(report)
    errors = Console(stderr=True)
    bars = Bars(errors)
    with bars:
        compilation = compile_model(folder, cfg, bits, bars.stage, context=context, sequences=sequences)
        image, shape = compilation.image, compilation.shape
        tokenizer = Tokenizer(folder, shape.vocab)
        said, ids = _prompt(tokenizer, prompt, raw)
        more = None if second is None else _prompt(tokenizer, second, raw)
        stops = sorted(tokenizer.stop_ids)[:2]
        request = Request(ids, tokens, temperature, topk, seed, stops, more and more[1])
        library = build_core(cfg, waves, bars)
    if window:
        window = dataclasses.replace(window, path=window.path.with_suffix(f".{library.trace}"))
    text = Writer(tokenizer)
    if said is None:
        text.prompt(request.prompt)
    else:
        text.say(said)
    live = _streamed(text)
    outcome = simulate(library, image, compilation.qmodel, cfg, request, live, waves=window)
    text.finish()
    texts = [text.text]
    if more is not None:
        texts.append(_told(Writer(tokenizer), *more, outcome.ids[1]))
    if window:
        errors.print(f"waveform: {window.path}")
    result = _report(cfg, bits, folder, shape, request, outcome, texts, image)
    with atomic_file(report) as out:
        out.write((json.dumps(result, indent=2) + "\n").encode())
    _table(Console(), cfg, result, outcome)
    if not outcome.matches:
        errors.print("[red]the RTL differs from the reference or from the predicted cycles[/red]")
    return 0 if outcome.matches else 1


def _prompt(tokenizer: Tokenizer, prompt: str | None, raw: bool) -> tuple[str | None, list[int]]:
    """(what a user says to a chat model, or None; ids to start with)."""
    if tokenizer.available and not raw:
        said = DEFAULT_QUESTION if prompt is None else prompt
        chat = tokenizer.chat(said)
        if chat is not None:
            return said, chat
    default = DEFAULT_PROMPT if tokenizer.available else "1"
    return None, prompt_ids(tokenizer, default if prompt is None else prompt)


def _streamed(text: Writer) -> Callable[[int, int], None]:
    """Writes the first sequence as it comes; a second one would get between its words."""

    def token(sequence: int, number: int) -> None:
        if sequence == 0:
            text.token(number)

    return token


def _told(text: Writer, said: str | None, prompt: list[int], ids: list[int]) -> str:
    """A sequence written behind its end."""
    if said is None:
        text.prompt(prompt)
    else:
        text.say(said)
    for number in ids:
        text.token(number)
    text.finish()
    return text.text


def _window(text: str, report: Path) -> Waves:
    try:
        first, last = (int(part) for part in text.split(":"))
    except ValueError:
        raise LpuError(f"--wave-window {text!r}: give FIRST:LAST in cycles, as 0:20000") from None
    if not 0 <= first <= last:
        raise LpuError(f"--wave-window {text!r}: 0 <= FIRST <= LAST")
    return Waves(report.parent / "waves", first, last)


def _report(
    cfg: Config, bits: int, folder: Path, shape: ModelShape, request: Request, outcome: Outcome, texts: list[str],
    image: Image,
) -> dict[str, Any]:  # fmt: skip
    position = min(REPORT_POSITION, shape.context - 1)
    each = len(request.prompts)
    measured = position < len(outcome.cycles) and position >= min(map(len, request.prompts)) - 1
    cycles = outcome.cycles[position] if measured else image.cycles(position, True)
    weighted, plain = utilisation(shape, cfg, bits, position, cycles / each)
    return {
        "text": texts[0],
        "ids": outcome.ids[0],
        "prompt_tokens": len(request.prompt),
        "tokens": len(outcome.ids[0]),
        "sequences": each,
        "second": None
        if request.second is None
        else {
            "text": texts[1],
            "ids": outcome.ids[1],
            "prompt_tokens": len(request.second),
            "tokens": len(outcome.ids[1]),
        },
        "ended": outcome.reason.name,
        "cycles_per_token": outcome.cycles,
        "predicted_cycles_per_token": outcome.predicted,
        "macs_per_cycle": cfg.macs_per_cycle(bits),
        "mac_utilisation": weighted,
        "mac_utilisation_unweighted": plain,
        "mac_utilisation_position": position,
        "mac_utilisation_cycles": cycles,
        "mac_utilisation_evidence": "RTL simulation" if measured else "predicted cycles",
        "macs_per_token": shape.macs(position),
        "matches_reference": outcome.matches,
        "sim_khz": outcome.khz,
        "sim_seconds_per_token": outcome.run_seconds / len(outcome.cycles),
        "clock_hz": cfg.clock_hz,
        "tokens_per_second": each * cfg.clock_hz / cycles,
        "config": cfg.name,
        "model": folder.name,
        "weights": f"int{bits}",
        "temperature": request.temperature,
        "topk": request.topk,
        "seed": request.seed,
        "parameters_total": shape.parameters_total,
        "parameters_active": shape.parameters_active,
    }


def _table(console: Console, cfg: Config, r: dict[str, Any], outcome: Outcome) -> None:
    table = Table(title=f"{r['model']} ({r['weights']}) on {cfg.name}", show_header=False, title_justify="left")
    position = r["mac_utilisation_position"]
    written = [r] if r["second"] is None else [r, r["second"]]
    first = min(w["prompt_tokens"] for w in written) - 1
    sampled, wanted = outcome.cycles[first:], outcome.predicted[first:]
    told = "; ".join(f"{w['prompt_tokens']} of prompt, {w['tokens']} generated" for w in written)
    rows = {
        "tokens": f"{told} (ended by {r['ended']})",
        "equal to the reference": "yes, every token and every cycle count" if outcome.matches else "NO",
        f"cycles per token{' of both' if len(written) > 1 else ''}": f"{_span(sampled)} simulated, "
        f"{_span(wanted)} predicted",
        f"MAC utilisation at position {position}": f"{r['mac_utilisation']:.1%} of {r['macs_per_cycle']} per cycle, "
        f"{r['mac_utilisation_cycles']} cycles ({r['mac_utilisation_evidence']})",
        "tokens per second": f"{r['tokens_per_second']:,.0f} at {cfg.clock_hz / 1e6:g} MHz, a stated clock (estimate)",
        "simulated clock rate": f"{r['sim_khz']:.0f} kHz, {r['sim_seconds_per_token']:.2g} s a token",
        "parameters": f"{r['parameters_total']:,} in all, {r['parameters_active']:,} active",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def _span(values: list[int]) -> str:
    if not values:
        return "-"
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"
