"""``lpu generate``: a board continues a text."""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import click

from ..driver import STOP_IDS_MAX
from ..image_text import image_tokenizer
from ..link import Record, hash_text
from .interrupt import Interrupt
from .port import board, image_for, image_options, port_options, prompt_ids, use_image
from .writer import Writer


@click.command("generate", epilog='Example: lpu generate --port /dev/ttyUSB0 --temperature 0.8 "One day, a frog"')
@click.argument("prompt")
@port_options()
@image_options()
@click.option("--second", help="Another text, for an image of two sequences (lpu compile --sequences 2).")
@click.option("--tokens", type=click.IntRange(1), default=128, show_default=True, help="Tokens to generate at most.")
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0: greedy.")
@click.option("--topk", type=click.IntRange(0), default=0, show_default=True, help="Sample among the k best; 0: all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sampling noise.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the text as it comes.")
def command(
    prompt: str, port: str, baud: int, model_name: str, image_path: Path | None,
    second: str | None, tokens: int, temperature: float, topk: int, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Continue PROMPT on a board (token ids separated by commas for a model without a tokenizer).

    The model's image is loaded first where the board holds another one. The text is on stdout, figures are on
    stderr. Ctrl-C ends the run after the token in work.
    """
    wanted = image_for(model_name, image_path)
    with board(port, baud, wanted) as driver:
        cfg = driver.config
        image = wanted(cfg)
        tokenizer = image_tokenizer(image)
        ids = prompt_ids(tokenizer, prompt)
        other = () if second is None else ((prompt_ids(tokenizer, second), (seed + 1) % (1 << 32)),)
        loaded = use_image(driver, image)
        resent = driver.resent
        writer = Writer(tokenizer, silent=as_json)
        records: list[Record] = []
        later: list[int] = []
        """Tokens of the second sequence, which would get between the words of the first."""
        start = time.perf_counter()
        with Interrupt() as interrupt:
            run = driver.run(ids, tokens, temperature, topk, seed, sorted(image.stop_ids)[:STOP_IDS_MAX], True, *other)
            writer.prompt(ids)
            aborted = False
            try:
                for index, record in enumerate(run):
                    records.append(record)
                    if index % (1 + len(other)):
                        later += [record.token] * record.sampled
                    elif record.sampled:
                        writer.token(record.token)
                    if interrupt.seen and not aborted:
                        aborted = True
                        run.abort()
            finally:  # what the board wrote before an error is right, and the message has a line of its own
                writer.finish()
        seconds = time.perf_counter() - start
        resent = driver.resent - resent
    assert run.reason is not None
    text = None
    if other:
        more = Writer(tokenizer, silent=as_json)
        more.prompt(other[0][0])
        for token in later:
            more.token(token)
        more.finish()
        text = more.text
    # Records of two sequences come in pairs, with the cycles of both.
    made = [r for r in records if r.sampled]
    steps = records[:: 1 + len(other)]
    written = [r for r in steps if r.sampled]
    result = {
        "text": writer.text,
        "ids": [r.token for r in written],
        "second": None if text is None else {"text": text, "ids": later},
        "prompt_tokens": len(ids),
        "tokens": len(made),
        "ended": run.reason.name,
        "cycles_per_token": [r.cycles for r in steps],
        "config": cfg.name,
        "clock_hz": cfg.clock_hz,
        "image": hash_text(image.identity),
        "loaded": loaded,
        "link_seconds": seconds,
        "link_tokens_per_second": len(made) / seconds,
        "link_repeats": resent,
        **latency([r.cycles for r in written], cfg.clock_hz, 1 + len(other)),
    }
    click.echo(json.dumps(result) if as_json else figures(result), err=not as_json)
    if aborted:
        sys.exit(130)


def latency(cycles: list[int], clock_hz: float, sequences: int = 1) -> dict[str, Any]:
    """Rate of the core and latency of the tokens sampled, at the configuration's clock; ``cycles``: of a token of each
    sequence."""
    if not cycles:
        return {"core_tokens_per_second": 0.0, "latency_cycles": [], "latency_us": []}
    spread = [min(cycles), statistics.median(cycles), max(cycles)]
    return {
        "core_tokens_per_second": sequences * clock_hz * len(cycles) / sum(cycles),
        "latency_cycles": spread,
        "latency_us": [1e6 * c / clock_hz for c in spread],
    }


def figures(r: dict[str, Any]) -> str:
    """The line after the text."""
    rate = f"{r['core_tokens_per_second']:,.0f} tokens/s in the core at {r['clock_hz'] / 1e6:g} MHz"
    spread = ""
    if r["latency_cycles"]:
        cycles = "/".join(f"{c:,.0f}" for c in r["latency_cycles"])
        times = "/".join(f"{t:.1f}" for t in r["latency_us"])
        spread = f"; a token (min/median/max): {cycles} cycles, {times} us"
    return (
        f"{r['tokens']} tokens, ended by {r['ended']}; {rate}, "
        f"{r['link_tokens_per_second']:,.0f} tokens/s over the link{spread}; link repeats: {r['link_repeats']}"
    )
