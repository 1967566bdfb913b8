"""``lpu eval``: perplexity of the float and the integer model on a text."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from hdl.config import get_config

from ..checkpoint import Checkpoint
from ..evaluate import evaluate, text_ids
from ..public_models import default_config, default_context
from ..simulate import resolve_model
from .bars import Bars


@click.command("eval", epilog="Example: lpu eval --model stories-500k --text heldout.txt --tokens 4096 --json")
@click.option("--model", "model_name", required=True, help="Hugging Face folder, or a shipped model's name.")
@click.option("--text", type=click.Path(path_type=Path), required=True, help="UTF-8 text file.")
@click.option("--tokens", type=click.IntRange(2), help="Use the first so many tokens  [default: all].")
@click.option("--config", "config_name", help="Size whose accumulators count  [default: ulx3s-85f, or what it needs].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(model_name: str, text: Path, tokens: int | None, config_name: str | None, as_json: bool) -> None:
    """Perplexity and top-1 agreement of the exact integer model, int8 and int4, against float.

    The text is tokenised as a whole and cut into windows of the model's context; the first token of each
    window is not predicted. Windows are of 512 tokens at most.
    """
    cfg = get_config(config_name or default_config(model_name, "ulx3s-85f"))
    ckpt = Checkpoint(resolve_model(model_name), default_context(model_name, cfg) or cfg.context_max)
    ids = text_ids(ckpt, text, tokens)
    bars = Bars(Console(stderr=True))
    with bars:
        result = evaluate(ckpt, cfg, ids, progress=bars)
    if as_json:
        print(json.dumps(dataclasses.asdict(result)))
        return
    title = f"{ckpt.path.name}: {result.tokens} tokens"
    table = Table("", "perplexity", "against float", "top-1 agreement", title=title)
    table.add_row("float", f"{result.ppl_float:.4f}", "", "")
    for name, ppl, top in (("int8", result.ppl_int8, result.top1_int8), ("int4", result.ppl_int4, result.top1_int4)):
        table.add_row(name, f"{ppl:.4f}", f"{ppl / result.ppl_float - 1:+.2%}", f"{top:.2%}")
    Console().print(table)
