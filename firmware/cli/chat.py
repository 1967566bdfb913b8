"""``lpu chat``: a board continues what is typed, line after line, in one context."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

from hdl.image import Reason

from ..driver import STOP_IDS_MAX, Driver, run_parts
from ..errors import LpuError
from ..image_file import Image
from ..image_text import image_tokenizer
from ..link import LinkError
from .interrupt import Interrupt
from .port import board, image_for, image_name, image_options, port_options, prompt_ids, use_image
from .writer import Writer

HELP = """\
The model continues your text: type the beginning of a story. It was trained to complete text, not to answer
questions or follow instructions. What you type next goes on behind what it wrote.
  /reset        begin a new text
  /temp T [K]   temperature (0: always the likeliest token), and sample among the K likeliest (0: all)
  /help         this
  /quit         leave (or Ctrl-D)
Ctrl-C ends the text in work and keeps the context."""


@click.command("chat", epilog="Example: lpu chat --port /dev/ttyUSB0 --temperature 0.8")
@port_options()
@image_options()
@click.option("--tokens", type=click.IntRange(1), default=128, show_default=True, help="Tokens for a line at most.")
@click.option("--temperature", type=float, default=0.8, show_default=True, help="0: greedy.")
@click.option("--topk", type=click.IntRange(0), default=0, show_default=True, help="Sample among the k best; 0: all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the first line; each adds one.")
def command(
    port: str, baud: int, model_name: str, image_path: Path | None,
    tokens: int, temperature: float, topk: int, seed: int,
) -> None:  # fmt: skip
    """Write a text together with a board: it continues each line, and the context is kept.

    The shipped models complete text; they do not answer questions. /help lists what can be typed.
    """
    wanted = image_for(model_name, image_path)
    with board(port, baud, wanted) as driver:
        image = wanted(driver.config)
        use_image(driver, image)
        conversation = Conversation(driver, image, tokens, temperature, topk, seed)
        conversation.check(temperature, topk)
        click.echo(f"{image_name(image)}; /help", err=True)
        converse(conversation)


def converse(conversation: Conversation) -> None:
    """Lines from standard input until /quit or its end."""
    interactive = sys.stdin.isatty()
    if interactive:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (makes input() edit lines)
    while True:
        try:
            line = input("> " if interactive else "")
        except EOFError:
            return
        except KeyboardInterrupt:
            click.echo("\n/quit leaves", err=True)
            continue
        name, *arguments = line.split() or [""]
        try:
            match name:
                case "":
                    pass
                case "/quit":
                    return
                case "/help":
                    click.echo(HELP, err=True)
                case "/reset":
                    conversation.reset()
                    click.echo("a new text begins", err=True)
                case "/temp":
                    conversation.set_temperature(arguments)
                case _ if name.startswith("/"):
                    click.echo(f"unknown: {name}; /help", err=True)
                case _:
                    conversation.say(line)
        except LinkError as error:
            click.echo(f"error: {error}", err=True)
            conversation.recover()
            click.echo("the context is lost; a new text begins", err=True)


class Conversation:
    """A text in a board's context. ``used``: positions of the context that are taken."""

    def __init__(
        self, driver: Driver, image: Image, tokens: int, temperature: float = 0.0, topk: int = 0, seed: int = 0
    ):
        self.driver = driver
        self.image = image
        self.tokenizer = image_tokenizer(image)
        self.tokens = tokens
        self.temperature = temperature
        self.topk = topk
        self.seed = seed
        self.reset()

    def reset(self) -> None:
        """The next line begins a text."""
        self.used = 0
        self._text = ""
        # The last token sampled: the context holds a token only once it has been worked on.
        self._pending: list[int] = []

    def recover(self) -> None:
        """After an error of the link: the board's state is unknown, and so is its context."""
        self.reset()
        use_image(self.driver, self.image)

    def check(self, temperature: float, topk: int) -> None:
        """Raises LpuError for sampling that the board cannot do."""
        image = self.image
        run_parts(image.cfg, [0], 1, temperature, topk, self.seed, context=image.context, vocab=image.vocab)

    def set_temperature(self, arguments: list[str]) -> None:
        """``/temp T [K]``; tells what is wrong with it, or what it is."""
        try:
            temperature, topk = float(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 0
            self.check(temperature, topk)
            self.temperature, self.topk = temperature, topk
        except (IndexError, ValueError):
            click.echo("give a number: /temp 0.8, or with top-k: /temp 0.8 4", err=True)
        except LpuError as error:
            click.echo(f"error: {error}", err=True)
        click.echo(f"temperature {self.temperature:g}, top-k {self.topk or 'off'}", err=True)

    def say(self, line: str) -> None:
        """Continues ``line`` on stdout; a context that is full, or too full for it, is told."""
        try:
            ids = self._pending + self._encode(line)
        except LpuError as error:
            click.echo(f"error: {error}", err=True)
            return
        context = self.image.context
        if self.used + len(ids) >= context:
            click.echo(
                f"the context is full: {self.used} of {context} positions are used, this line needs {len(ids)} and "
                "one more; /reset begins a new text",
                err=True,
            )
            return
        writer = Writer(self.tokenizer)
        stops = sorted(self.image.stop_ids)[:STOP_IDS_MAX]
        last: list[int] = []
        with Interrupt() as interrupt:
            run = self.driver.run(
                ids, self.tokens, self.temperature, self.topk, self.seed, stops, clear=not self.used
            )  # fmt: skip
            self.seed = (self.seed + 1) % (1 << 32)
            aborted = False
            for record in run:
                self.used += 1
                if record.sampled:
                    last = [record.token]
                    writer.token(record.token)
                if interrupt.seen and not aborted:
                    aborted = True
                    run.abort()
        writer.finish()
        self._text = line + writer.text
        # A token that ended the text does not belong to it: the next line goes on where the story stood.
        self._pending = [] if run.reason is Reason.STOP_TOKEN else last
        if run.reason is Reason.CONTEXT:
            click.echo(f"the context is full ({context} positions); /reset begins a new text", err=True)
        elif run.reason is Reason.ABORT:
            click.echo("stopped", err=True)

    def _encode(self, line: str) -> list[int]:
        """Ids of a line: those of a text's beginning, or of its continuation."""
        if not self.tokenizer.available:
            return prompt_ids(self.tokenizer, line)
        if not self.used:
            return self.tokenizer.encode(line)
        if line[0].isalnum() and not self._text.endswith((" ", "\n")):
            spaced = self.tokenizer.encode(" " + line, special=False)
            # Some tokenizers know no space, or put one before a text by themselves.
            if self.tokenizer.decode(spaced) == " " + line:
                return spaced
        return self.tokenizer.encode(line, special=False)
