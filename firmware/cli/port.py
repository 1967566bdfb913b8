"""What the commands for boards share: options, the way to the board, the image it should hold."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from hdl.config import Config, get_config

from .. import board_sim
from ..compiler import CACHE, compile_model
from ..connect import TIMEOUT, connect
from ..driver import Driver
from ..errors import LpuError
from ..image_file import Image, ImageError, read_image
from ..link import hash_text
from ..pty_bridge import PtyBridge
from ..serial_port import BAUD, SerialTransport
from ..simulate import resolve_model
from ..transport import TransportError
from .bars import Bars

SHIPPED_MODEL = "stories-500k"
SIM = "sim"
"""``--port sim`` or ``--port sim:CONFIG``: a simulated board in this process."""
SIM_CONFIG = "ulx3s-85f"
SIM_TIMEOUT = 20.0
"""Seconds of silence that mean nothing yet: a simulation is hundreds of times slower than a board."""

ImageFor = Callable[[Config], Image]


def port_options(required: bool = True) -> Callable[[Any], Any]:
    """``--port`` and ``--baud``."""

    def add(command: Any) -> Any:
        command = click.option(
            "--baud", type=click.IntRange(1), default=BAUD, show_default=True, help="Speed the board was built for."
        )(command)
        return click.option(
            "--port", metavar="PORT", required=required,
            help=f"Serial port of the board, as /dev/ttyUSB0; {SIM}: a simulated board.",
        )(command)  # fmt: skip

    return add


def image_options(default: str | None = SHIPPED_MODEL) -> Callable[[Any], Any]:
    """``--model`` and ``--image``."""

    def add(command: Any) -> Any:
        command = click.option(
            "--image", "image_path", metavar="FILE", type=click.Path(path_type=Path),
            help="Image file, instead of a model.",
        )(command)  # fmt: skip
        return click.option(
            "--model", "model_name", metavar="NAME", default=default, show_default=default is not None,
            help="Hugging Face folder, or a shipped model's name.",
        )(command)  # fmt: skip

    return add


def image_for(model_name: str | None, image_path: Path | None) -> ImageFor:
    """The image that a user names, for the configuration of the board; compiled when needed."""

    def image(cfg: Config) -> Image:
        if image_path is not None:
            return read_image(image_path, cfg)
        folder = resolve_model(model_name or SHIPPED_MODEL)
        with Bars(Console(stderr=True)) as bars:
            return compile_model(folder, cfg, None, bars.stage, CACHE).image

    return image


def known_image(identity: int, cfg: Config) -> Image | None:
    """The image with this identity among those compiled here, None where it is not known."""
    for path in sorted(CACHE.glob("*.lpu")):
        with contextlib.suppress(ImageError):
            image = read_image(path, cfg)
            if image.identity == identity:
                return image
    return None


def held_image(identity: int, cfg: Config, wanted: ImageFor) -> Image | None:
    """The image that a board holds: ``wanted`` if it is that, else one compiled here before."""
    if not identity:
        return None
    image = known_image(identity, cfg)
    if image is None:
        with contextlib.suppress(LpuError):  # a model that does not fit this board is not on it
            image = wanted(cfg)
    return image if image is not None and image.identity == identity else None


@contextlib.contextmanager
def board(port: str, baud: int, boot: ImageFor, *, check: bool = True) -> Iterator[Driver]:
    """A driver for the board on ``port``; ``boot``: what a simulated one holds at power-on.

    ``check``: refuse a board that this program's images do not run on. Raises LpuError for all that is wrong.
    """
    if port.partition(":")[0] == SIM:
        cfg = get_config(port.partition(":")[2] or SIM_CONFIG)
        image = boot(cfg)
        with Bars(Console(stderr=True)) as bars:
            transport = board_sim.open_board(cfg.name, image, bars)
        with PtyBridge(transport) as bridge:
            try:
                with _connected(bridge.path, baud, SIM_TIMEOUT, check) as driver:
                    yield driver
            except TransportError:
                if bridge.error is not None:
                    raise bridge.error from None
                raise
        return
    with _connected(port, baud, TIMEOUT, check) as driver:
        yield driver


@contextlib.contextmanager
def _connected(port: str, baud: int, timeout: float, check: bool) -> Iterator[Driver]:
    with contextlib.closing(connect(port, baud, timeout=timeout, check=check)) as driver:
        assert isinstance(driver.transport, SerialTransport)
        if driver.transport.hint:
            click.echo(f"hint: {driver.transport.hint}", err=True)
        yield driver


def use_image(driver: Driver, image: Image) -> bool:
    """Sees to it that the board holds an image, with a bar while it is loaded; returns whether it was."""
    with Bars(Console(stderr=True)) as bars:
        return driver.use_image(image, lambda done, total: bars("load the image", done, total))


def image_name(image: Image) -> str:
    """An image in a few words."""
    what = f"{image.meta['model']}, int{image.weights}" if "model" in image.meta else "a program without a model"
    return f"{what} ({hash_text(image.identity)})"


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Ids of a prompt; a model without a tokenizer takes ids. Raises LpuError for neither."""
    if tokenizer.available:
        return list(tokenizer.encode(prompt))
    try:
        return [int(part) for part in prompt.split(",")]
    except ValueError:
        raise LpuError(f"{tokenizer.path}: no tokenizer, so the prompt takes ids such as 1,2,3") from None
