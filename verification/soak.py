"""Many prompts on a simulated board that is reset, interrupted, loaded anew and connected by a bad line.

    python -m verification.soak --tokens 10000 --seed 1

Each token, its cycle count and each run's end are compared with the integer reference and the schedule. Time is the
simulated clock's alone, so a seed gives the same bytes in the same cycles each time.
"""

from __future__ import annotations

import collections
import random
import time

import click
import numpy as np
from rich.progress import Progress

from firmware.compiler import compile_model
from firmware.driver import Driver, Run
from firmware.errors import LpuError
from firmware.image_file import Image, section
from firmware.link import LinkError
from firmware.lower import lower
from firmware.simulate import resolve_model
from fpga.board_sim import BoardSimTransport, build_board
from fpga.contents import boot_stream, power_on
from hdl.config import Config, get_config
from hdl.image import Reason
from sim.reference import Reference, Sampling, choose
from verification.evidence import Record, begin, write
from verification.models import GREEDY, Subject, sampling_of
from verification.noisy_line import NoisyLine
from verification.random_model import make_model, quantised, random_shape

TIMEOUT_S = 0.012
"""Of the driver, in simulated seconds: longer than a window of the longest frames takes."""
RATES = (0.0, 0.0, 1e-5, 1e-4, 2e-4)
PRESS_CYCLES = 3000
BOOT_PROMPT, BOOT_LIMIT = (1,), 12
BOOT_CYCLES = 20_000
"""Enough for the boot memory's bytes."""


class Mismatch(AssertionError):
    """The board did something else than the reference."""


class Model:
    """An image with the reference that follows the board's context."""

    def __init__(self, name: str, subject: Subject, image: Image) -> None:
        self.name, self.subject, self.image = name, subject, image
        self.reference = Reference(subject.model)

    @property
    def context(self) -> int:
        """Positions."""
        return self.subject.model.shape.context


def random_models(cfg: Config, rng: np.random.Generator, count: int) -> list[Model]:
    """A shipped model, and random ones of any shape."""
    compiled = compile_model(resolve_model("names-4k"), cfg)
    models = [Model("names-4k", Subject(compiled.qmodel, compiled.compiled), compiled.image)]
    while len(models) < count:
        shape = random_shape(rng, cfg)
        if shape.context < 8:
            continue
        model = quantised(make_model(shape, rng, str(rng.choice(["unit", "hf", "big"]))), cfg, int(rng.choice([4, 8])))
        try:
            subject = Subject(model, lower(model, cfg))
        except LpuError:  # its program is too long for the config
            continue
        sections = tuple(section(s.space, s.sub, s.address, s.data) for s in subject.compiled.sections)
        models.append(Model(f"random {len(models)}", subject, Image(cfg, {}, sections)))
    return models


class Soak:
    """A board, what it holds, and what was counted. ``step`` does one thing to it and checks what comes of it."""

    def __init__(self, cfg: Config, seed: int, models: int = 5) -> None:
        self.cfg = cfg
        self.rng = np.random.default_rng(seed)
        random.seed(seed)  # of the driver's first sequence number
        self.models = random_models(cfg, self.rng, models)
        self.counts: collections.Counter[str] = collections.Counter()
        self.library = build_board(cfg)
        self.line = NoisyLine(self._power_on(), self.rng)
        self.driver = self._driver()

    def _power_on(self) -> BoardSimTransport:
        """A board that writes the first model's text by itself."""
        first = self.models[0].image
        boot = boot_stream(first, list(BOOT_PROMPT), BOOT_LIMIT)
        self.board = BoardSimTransport(self.library, power_on(first, self.cfg, boot))
        self.held: Model | None = None
        """Whose context the board keeps; None: nobody knows."""
        self.boots = True
        """The boot memory is played at a reset."""
        return self.board

    def _driver(self, credit: int | None = None) -> Driver:
        return Driver(self.line, timeout=TIMEOUT_S, credit=credit, clock=self.board.now)

    def _require(self, condition: bool, message: str) -> None:
        if not condition:
            raise Mismatch(message)

    def step(self) -> None:
        """One run, or one accident."""
        rng = self.rng
        self.line.rate = float(rng.choice(RATES))
        if rng.random() < 0.1:
            self.line.burst(int(rng.choice([1, 40, 3000])))
            self.counts["bursts of random bytes"] += 1
        if rng.random() < 0.02:
            self._count_cycles()
            self.board.close()
            self.line.transport = self._power_on()
            self.counts["power cycles"] += 1
            self._session()
        if rng.random() < 0.2:
            self._session()
        if self.held is None and self.boots and rng.random() < 0.5:
            self._demo()
        model = self.models[int(rng.integers(len(self.models)))] if rng.random() < 0.15 else self.held
        model = model or self.models[int(rng.choice([0, int(rng.integers(len(self.models)))]))]
        for _ in range(int(rng.integers(1, 5))):
            if not self._hold(model):
                return
            self._run(model)

    def _session(self) -> None:
        """Another host program takes the port."""
        self.counts["requests repeated"] += self.driver.resent
        self.driver = self._driver(credit=[None, 2, 5][int(self.rng.integers(3))])
        self.counts["host sessions"] += 1

    def _count_cycles(self) -> None:
        self.counts["simulated cycles"] += self.board.model.cycles

    def _demo(self) -> None:
        """The run that the board makes by itself, from its first token on."""
        self.board.model.run(BOOT_CYCLES)
        self.driver.info()
        run = self.driver.attach()
        self._require(run is not None, "no run after power-on")
        assert run is not None
        expected = self.models[0].subject.generate(list(BOOT_PROMPT), BOOT_LIMIT, GREEDY)
        found = list(run.ids)
        self._require(found == expected, f"power-on: {found}, expected {expected}")
        self.counts["tokens"] += len(found)
        self.counts["runs of the boot memory"] += 1

    def _hold(self, model: Model) -> bool:
        """Have an image loaded, unless something comes between."""
        interrupt = self.rng.random() < 0.15
        after = int(self.rng.integers(1, 4000))

        def progress(done: int, total: int) -> None:
            if interrupt and done > after:
                raise InterruptedError

        try:
            loaded = self.driver.use_image(model.image, progress)
        except InterruptedError:
            self.counts["loads interrupted"] += 1
            self.held, self.boots = None, False
            if self.rng.random() < 0.5:
                self._press()
            return False
        if loaded:
            self.counts["images loaded"] += 1
            self.held, self.boots = None, False
        self._require(self.driver.info().image == model.image.identity, f"{model.name}: another image is told")
        if self.held is not model:
            model.reference.reset()
            self.held = model
        return True

    def _run(self, model: Model) -> None:
        """A run with what it should write; it may be aborted, or end in a reset."""
        rng, cfg, reference = self.rng, self.cfg, model.reference
        vocab = model.subject.model.shape.vocab
        clear = reference.position == 0 or reference.position >= model.context - 1 or rng.random() < 0.7
        if clear:
            reference.reset()
        room = model.context - reference.position
        prompt = [int(x) for x in rng.integers(0, vocab, int(rng.integers(1, max(2, room // 2))))]
        limit = int(rng.choice([1, 3, int(rng.integers(1, model.context + 1)), 1000]))
        stops = tuple(int(x) for x in rng.integers(0, vocab, int(rng.choice([0, 0, 1, 2]))))
        temperature, topk = 0.0, 0
        if rng.random() < 0.6:
            temperature, topk = float(rng.uniform(0.3, 2)), int(rng.integers(cfg.topk_max + 1))
        seed = int(rng.integers(1 << 32))
        chance = rng.random()
        accident = "abort" if chance < 0.15 else "press" if chance < 0.25 else ""
        at = int(rng.integers(room + 1))
        run = self.driver.run(prompt, limit, temperature, topk, seed, stops, clear=bool(clear))
        how = sampling_of(temperature, topk, seed)
        try:
            reason = self._compare(model, run, prompt, limit, how, stops, accident, at)
        except LinkError as error:
            # Only a reset may end it so, and it must be told.
            self._require(accident == "press" and "reset" in str(error), f"{model.name}: {error}")
            self.driver.info()
            return
        self.counts[f"runs ended by {reason.name}"] += 1

    def _compare(
        self, model: Model, run: Run, prompt: list[int], limit: int, sampling: Sampling, stops: tuple[int, ...],
        accident: str, at: int,
    ) -> Reason:  # fmt: skip
        """Each record against the reference; returns why the run ended."""
        reference, subject = model.reference, model.subject
        todo, made, expected = list(prompt), 0, None
        if accident and at == 0:
            self._happen(accident, run)
        for index, record in enumerate(run):
            where = f"{model.name}, position {reference.position}"
            self._require(expected is None, f"{where}: a token behind the end")
            position = reference.position
            logits = reference.forward([todo.pop(0)], sampling.inverse)[0]
            sampled = not todo
            self._require(record.sampled == sampled, f"{where}: sampled is {record.sampled}")
            cycles = subject.cycles(position, sampled)
            self._require(record.cycles == cycles, f"{where}: {record.cycles} cycles, {cycles} predicted")
            self.counts["tokens"] += 1
            if sampled:
                token = choose(logits, position, sampling)
                self._require(record.token == token, f"{where}: token {record.token}, expected {token}")
                made += 1
                todo.append(token)
                if token in stops:
                    expected = Reason.STOP_TOKEN
                elif made >= limit:
                    expected = Reason.LIMIT
                elif reference.position >= model.context:
                    expected = Reason.CONTEXT
            if accident and index + 1 == at:
                self._happen(accident, run)
        reason = run.reason
        # An abort that comes with the last token changes nothing, or is the reason.
        aborted = accident == "abort" and reason is Reason.ABORT
        self._require(reason == expected or aborted, f"{model.name}: ended by {reason!r}, expected {expected!r}")
        assert reason is not None
        return reason

    def _happen(self, accident: str, run: Run) -> None:
        if accident == "abort":
            run.abort()
            self.counts["aborts asked for"] += 1
        else:
            self._press()

    def _press(self) -> None:
        """The board's button: what it does next is known only where it plays its boot memory."""
        self.board.press(PRESS_CYCLES)
        self.counts["resets"] += 1
        self.held = None

    def totals(self) -> dict[str, int | float | str]:
        """What was done, in words. To be asked once."""
        self._session()
        self._count_cycles()
        line = self.line
        return {
            "tokens compared": self.counts["tokens"],
            "differences": 0,
            "hangs": 0,
            **{key: count for key, count in sorted(self.counts.items()) if key != "tokens"},
            "bytes lost, damaged, added on the line": f"{line.lost:,}, {line.damaged:,}, {line.added:,}",
        }


def run(cfg: Config, seed: int, tokens: int, seconds: float) -> Record:
    """At least so many tokens, unless time is up before. Raises Mismatch, or LinkError where the board hangs."""
    date, commit = begin()
    started = time.monotonic()
    soak = Soak(cfg, seed)
    steps = 0
    with Progress(transient=True) as progress:
        task = progress.add_task("soak", total=tokens)
        while soak.counts["tokens"] < tokens and time.monotonic() - started < seconds:
            steps += 1
            try:
                soak.step()
            except (AssertionError, LinkError) as error:
                raise Mismatch(f"step {steps} of seed {seed}: {error}") from error
            progress.update(task, completed=soak.counts["tokens"])
    return Record(
        part="soak", title="Soak: a simulated board through accidents",
        command=f"python -m verification.soak --config {cfg.name} --tokens {tokens} --seed {seed}", config=cfg.name,
        seeds=str(seed), evidence="RTL simulation", figures={"steps": steps, **soak.totals()}, date=date,
        commit=commit, seconds=round(time.monotonic() - started),
    )  # fmt: skip


@click.command()
@click.option("--config", default="tiny", show_default=True, help="Sizes of the board's LPU.")
@click.option("--seed", default=1, show_default=True, help="Of everything: models, prompts, noise, accidents.")
@click.option("--tokens", default=10_000, show_default=True, help="Tokens to compare.")
@click.option("--minutes", default=30.0, show_default=True, help="Stop earlier when they are over.")
def main(config: str, seed: int, tokens: int, minutes: float) -> None:
    """Run the soak and leave its record in build/regress/."""
    try:
        record = run(get_config(config), seed, tokens, 60 * minutes)
    except Mismatch as error:
        again = f"python -m verification.soak --config {config} --seed {seed} --tokens {tokens}"
        raise click.ClickException(f"{error}\nrepeat with: {again}") from None
    for label, value in record.figures.items():
        click.echo(f"{label:45} {value}")
    click.echo(f"kept in {write(record)}")


if __name__ == "__main__":
    main()
