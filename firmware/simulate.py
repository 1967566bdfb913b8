"""A run of the RTL, token by token, checked against the reference and the predicted cycles."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hdl.config import Config
from hdl.image import Param, Reason, Space
from sim.qmodel import QModel
from sim.reference import Reference, Sampling
from sim.verilator import Library, VerilatorModel

from .checkpoint import ModelShape
from .driver import Driver, Part, run_parts
from .errors import LpuError
from .image_file import Image
from .public_models import PUBLIC, public_folder
from .scalar import scalar
from .sim_transport import SimTransport

SHIPPED = Path(__file__).parent / "models"
REPORT_POSITION = 64
"""Position at which utilisation is stated."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What to generate."""

    prompt: Sequence[int]
    tokens: int
    temperature: float = 0.0
    topk: int = 0
    seed: int = 0
    stop_ids: Sequence[int] = ()
    second: Sequence[int] | None = None
    """Prompt of a second sequence, for an image of two; the seed of its noise is one higher."""

    @property
    def prompts(self) -> list[Sequence[int]]:
        """Of all sequences."""
        return [self.prompt] if self.second is None else [self.prompt, self.second]

    def of(self, sequence: int) -> Request:
        """The same for one of the sequences alone."""
        seed = (self.seed + sequence) % (1 << 32)
        return dataclasses.replace(self, prompt=self.prompts[sequence], seed=seed, second=None)

    @property
    def driven(self) -> tuple[tuple[Sequence[int], int], ...]:
        """What :meth:`Driver.run` takes as ``second``, if anything."""
        return () if self.second is None else ((self.second, self.of(1).seed),)


@dataclasses.dataclass(frozen=True)
class Waves:
    """Waveform of the cycles [first, last] of the run (counted from the run's start), written to ``path``."""

    path: Path
    first: int
    last: int


@dataclasses.dataclass
class Outcome:
    """What a run gave. Cycle lists have an entry for every position processed, prompt tokens first."""

    ids: list[list[int]]
    """Tokens sampled, of each sequence."""
    reference_ids: list[list[int]]
    cycles: list[int]
    predicted: list[int]
    reason: Reason
    fault: bool
    run_cycles: int
    run_seconds: float
    run_cpu_seconds: float
    """Of all threads; less than ``run_seconds`` where the machine does something else, too."""

    @property
    def matches(self) -> bool:
        """Every token and every cycle count as predicted."""
        return self.ids == self.reference_ids and self.cycles == self.predicted and not self.fault

    @property
    def khz(self) -> float:
        """Simulated clock rate."""
        return self.run_cycles / self.run_seconds / 1e3 if self.run_seconds else 0.0

    @property
    def cpu_khz(self) -> float:
        """Simulated cycles a millisecond of processor time."""
        return self.run_cycles / self.run_cpu_seconds / 1e3 if self.run_cpu_seconds else 0.0


def simulate(
    library: Library,
    image: Image,
    model: QModel,
    cfg: Config,
    request: Request,
    on_token: Callable[[int, int], None] = lambda sequence, token: None,
    on_load: Callable[[int, int], None] = lambda done, total: None,
    waves: Waves | None = None,
) -> Outcome:
    """Load the image into the simulated LPU over its byte stream, run it, and compare.

    Raises :class:`LpuError` for a request the LPU would not take, before anything is simulated.
    """
    check_request(cfg, model, request)
    with VerilatorModel(library) as simulator:
        transport = SimTransport(simulator)
        driver = Driver(transport)
        driver.load_image(image, on_load, lambda section: transport.place(cfg, section))
        if waves:
            simulator.record(waves.path, simulator.cycles + waves.first, simulator.cycles + waves.last)
        before, start, cpu_start = simulator.cycles, time.perf_counter(), time.process_time()
        run = driver.run(
            list(request.prompt), request.tokens, request.temperature, request.topk, request.seed,
            list(request.stop_ids), True, *request.driven,
        )  # fmt: skip
        each, cycles, predicted = len(request.prompts), [], []
        ids: list[list[int]] = [[] for _ in request.prompts]
        first_sampled = min(len(prompt) for prompt in request.prompts) - 1
        for index, record in enumerate(run):
            position, sequence = divmod(index, each)
            if sequence == 0:
                cycles.append(record.cycles)
                predicted.append(image.cycles(position, position >= first_sampled))
            if record.sampled:
                ids[sequence].append(record.token)
                on_token(sequence, record.token)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        assert run.reason is not None
        reference = []
        for one in map(request.of, range(each)):
            sampling = sampling_of(cfg, model, one)
            reference.append(Reference(model).generate(list(one.prompt), one.tokens, sampling, tuple(one.stop_ids)))
        return Outcome(
            ids, reference, cycles, predicted, run.reason, bool(simulator.get("fault")),
            simulator.cycles - before, seconds, cpu_seconds,
        )  # fmt: skip


def check_request(cfg: Config, model: QModel, request: Request) -> list[Part]:
    """What the driver would load for this request; raises :class:`LpuError` for a bad one."""
    return run_parts(
        cfg, list(request.prompt), request.tokens, request.temperature, request.topk, request.seed,
        list(request.stop_ids), True, *request.driven, context=model.shape.context, vocab=model.shape.vocab,
    )  # fmt: skip


def sampling_of(cfg: Config, model: QModel, request: Request) -> Sampling:
    """The registers a request sets, for the reference: read back from what the driver loads."""
    values: dict[Param, int] = {}
    for space, _, address, data in check_request(cfg, model, request):
        if space == Space.PARAM:
            for i in range(0, len(data), 8):
                values[Param(address + i // 8)] = int.from_bytes(data[i : i + 8], "little")
    inverse = 1.0 if values[Param.NOISE] == 0 else 1 / request.temperature
    return Sampling(scalar(inverse), values[Param.NOISE], values[Param.TOPK], values[Param.SEED])


def floor_cycles(kinds: Mapping[str, int], cfg: Config, weights: int) -> float:
    """Cycles of so many MACs of each kind (:meth:`ModelShape.macs_by_kind`) at the peak of their operands' width."""
    return kinds["weight"] / cfg.macs_per_cycle(weights) + (kinds["router"] + kinds["kv"]) / cfg.macs_per_cycle(8)


def utilisation(shape: ModelShape, cfg: Config, weights: int, position: int, cycles: float) -> tuple[float, float]:
    """MAC utilisation of one token: (weighted by operand width, unweighted).

    Useful MACs of each operation over the peak at its operands' width, summed, over the token's cycles;
    unweighted: all MACs over the peak at the weights' width. Keys and values are int8, and so is the router.
    """
    floor = floor_cycles(shape.macs_by_kind(position), cfg, weights)
    return floor / cycles, shape.macs(position) / cfg.macs_per_cycle(weights) / cycles


def resolve_model(name: str) -> Path:
    """A model folder by path, by the name of a shipped one, or by that of a public one, which is fetched.

    Raises :class:`LpuError` listing the names.
    """
    if name in PUBLIC and not (Path(name) / "config.json").is_file():
        return public_folder(name)
    for path in (Path(name), SHIPPED / name):
        if (path / "config.json").is_file():
            return path
    names = ", ".join([*shipped_models(), *PUBLIC])
    raise LpuError(f"{name}: no folder with a config.json, and no known model of that name ({names})")


def shipped_models() -> list[str]:
    """Names of the checkpoints that come with the project."""
    return sorted(p.parent.name for p in SHIPPED.glob("*/config.json"))
