"""Checkpoint folder -> image: reads, calibrates, quantises, lowers, schedules, packs. Never runs a simulator.

A second run takes what the first one left in ``build/images``: files named after a hash of everything that
the result depends on (the model's files, these sources, numpy, the configuration, the weights' width). The
quantised model is kept beside its image rather than made again: the last bit of a float sum may depend on how
many threads summed it, and the reference must compute with the very integers that are in the image.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import math
import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hdl.config import ACT_RANGE, COEF_FRAC, KV_RANGE, LOGIT_FRAC, PROB_BITS, SCALE_BITS, SCORE_FRAC, Config
from hdl.isa import Queue
from sim.qmodel import QLayer, QLinear, QModel, QShape, QShifts

from .calibrate import Calibration, calibrate, calibration_size
from .checkpoint import Checkpoint, ModelShape
from .errors import LpuError
from .image_file import Image, atomic_file, program_notes, read_image, section, write_image
from .layout import Layout, Need
from .lower import Compiled, lower
from .quantise import ROUTER_WIDTH, TensorReport, quantise
from .tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "build" / "images"
CACHE_BYTES = 1 << 30
"""The cache drops its oldest files beyond this."""
CALIBRATION_BYTES = 256 << 20
"""Calibrations larger than this are not kept."""

_CALIBRATION_SOURCES = ("firmware/calibrate.py", "firmware/checkpoint.py", "sim/float_model.py")
_SOURCES = (
    *_CALIBRATION_SOURCES,
    *(f"hdl/{n}.py" for n in ("config", "isa", "timing", "image", "contract", "link")),
    *(f"firmware/{n}.py" for n in ("quantise", "ptq", "gptq", "scalar", "layout", "limits", "schedule", "chains")),
    *(f"firmware/{n}.py" for n in ("attention", "experts", "program", "lower", "image_file", "compiler", "tokenizer")),
    *(f"sim/{n}.py" for n in ("qmodel", "numerics")),
    "hdl/tables.py",
)
# What the quantised integers depend on; of the configuration the formats alone, not the memories or the schedule.
_FORMATS = (ACT_RANGE, COEF_FRAC, KV_RANGE, LOGIT_FRAC, PROB_BITS, SCALE_BITS, SCORE_FRAC)
_QUANTISE_SOURCES = (
    *_CALIBRATION_SOURCES,
    *(f"firmware/{n}.py" for n in ("quantise", "ptq", "gptq", "scalar")),
    *(f"sim/{n}.py" for n in ("qmodel", "numerics")),
)
_MODEL_FILES = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    "model.safetensors.index.json",
)

Progress = Callable[..., None]
"""Called at the beginning of each stage with what it does, in one of many steps again with (stage, done, total)."""


def _silent(_: str, done: int = 0, total: int = 1) -> None:
    """No progress."""


@dataclasses.dataclass(frozen=True)
class Quantised:
    """A quantised model and its error per tensor."""

    model: QModel
    report: tuple[TensorReport, ...]


@dataclasses.dataclass(frozen=True)
class Compilation:
    """A compiled model: its image, and on demand what the image was made of."""

    image: Image
    cfg: Config
    shape: ModelShape
    weights: int
    qmodel: QModel
    """The integers in the image, for ``sim/reference.py``."""
    report: tuple[TensorReport, ...]
    cached: bool
    """Taken from the cache."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """Words needed of each memory, and what there is."""
        return tuple(Need(**need) for need in self.image.meta["needs"])

    @cached_property
    def compiled(self) -> Compiled:
        """Layout, program with notes, and sections."""
        return lower(self.qmodel, self.cfg, self.image.sequences)


def parse_weights(text: str) -> int:
    """4 or 8 from ``4``, ``8``, ``int4`` or ``int8``. Raises LpuError for anything else."""
    widths = {"4": 4, "8": 8, "int4": 4, "int8": 8}
    if text.lower() not in widths:
        raise LpuError(f"weights {text!r}: int4 or int8")
    return widths[text.lower()]


def compile_model(
    model_dir: str | Path,
    cfg: Config,
    weights: int | None = None,
    progress: Progress | None = None,
    cache: Path | None = CACHE,
    context: int | None = None,
    sequences: int = 1,
) -> Compilation:
    """Compile a checkpoint folder for a configuration.

    weights: 4 or 8 bits, None: the configuration's; progress: told each stage; cache: folder of earlier
    results, None: do not keep any; context: positions the program can reach, None: as many as checkpoint and
    configuration allow; sequences: that are worked on in turn, in an equal part of the context each. Raises
    LpuError for a checkpoint that cannot be read, is not supported, or does not fit (before the long stages: the
    message lists what is needed and what there is).
    """
    progress = progress or _silent
    weights = cfg.weight_bits if weights is None else weights
    if weights not in (4, 8):
        raise LpuError(f"weights of {weights} bits: 4 or 8")
    progress("read the checkpoint")
    most = cfg.context_max // max(1, sequences)
    if context is not None and not 2 <= context <= most:
        raise LpuError(f"context of {context} positions: config {cfg.name} holds 2..{most}")
    ckpt = Checkpoint(model_dir, context or most)
    tokenizer = Tokenizer(ckpt.path, ckpt.shape.vocab)
    memory_needs(ckpt.shape, cfg, weights, sequences)  # what does not fit is told before the long stages
    store = _Cache(cache)
    key = _key(ckpt, _SOURCES, cfg.name, cfg.hash(), weights, sequences)
    stem = f"{ckpt.path.resolve().name}-{cfg.name}-int{weights}-{key}"
    image_path, model_path = store.path(f"{stem}.lpu"), _quantised_path(ckpt, cfg, weights, store)
    fits = True
    if image_path is not None and model_path is not None and image_path.exists() and model_path.exists():
        # A damaged cache is no reason to fail.
        with contextlib.suppress(LpuError, OSError):
            image, quantised = read_image(image_path, cfg), load_quantised(model_path)
            if image.meta.get("qmodel") == model_digest(quantised.model):
                store.touch(image_path, model_path)
                return Compilation(image, cfg, ckpt.shape, weights, quantised.model, quantised.report, True)
            fits = False
    quantised = _quantise(ckpt, cfg, weights, progress, store, known=fits)
    progress("lower and schedule")
    compiled = lower(quantised.model, cfg, sequences)
    image = _make_image(ckpt, tokenizer, quantised, compiled, weights)
    if image_path is not None and model_path is not None:
        with contextlib.suppress(LpuError):  # a full disk: the result is good all the same
            write_image(image_path, image)
            store.trim(image_path, model_path)
    return Compilation(image, cfg, ckpt.shape, weights, quantised.model, quantised.report, False)


def quantise_model(
    model_dir: str | Path,
    cfg: Config,
    weights: int,
    progress: Progress | None = None,
    cache: Path | None = CACHE,
    context: int | None = None,
) -> Quantised:
    """Quantise only: the model need not fit the configuration's memories. Errors as compile_model's."""
    ckpt = Checkpoint(model_dir, context or cfg.context_max)
    return _quantise(ckpt, cfg, weights, progress or _silent, _Cache(cache))


def memory_needs(shape: ModelShape, cfg: Config, weights: int, sequences: int = 1) -> tuple[Need, ...]:
    """Words a model needs of each memory. Raises LpuError with the table when one is too small."""
    return tuple(Layout(outline(shape, weights), cfg, sequences=sequences).needs)


def outline(shape: ModelShape, weights: int) -> QModel:
    """A quantised model without values: enough to lay it out."""
    s = shape
    none = np.zeros((0, 0), np.int8)

    def linear(width: int = weights) -> QLinear:
        return QLinear(none.copy(), width, np.zeros(0, np.int64), 0)

    experts = tuple(linear() for _ in range(s.experts))
    router = linear(ROUTER_WIDTH) if s.has_router else None
    layer = QLayer(linear(), linear(), linear(), linear(), router, experts, experts, experts)
    embed = linear()
    keys = min(s.context, s.window or s.context)
    return QModel(
        shape=QShape(s.vocab, s.d, s.layers, s.heads, s.kv_heads, s.head_dim, s.experts, s.top_k, s.ffn,
                     s.context, keys),
        shifts=QShifts(*[0] * len(dataclasses.fields(QShifts))),
        embed=embed,
        lm_head=embed if s.tied else linear(),
        layers=(layer,) * s.layers,
        final_gain=None,
        rope=np.zeros((0, 0, 2), np.int64),
        eps=0,
        lm_scalar=(0, 0),
    )  # fmt: skip


def _program_needs(compiled: Compiled) -> tuple[Need, ...]:
    """Instruction words of the fullest queue, and phases."""
    cfg = compiled.cfg
    fullest = max(Queue, key=lambda q: compiled.program.words(cfg, q)[0])
    return (
        Need(f"program words ({fullest.name})", *compiled.program.words(cfg, fullest)),
        Need("program phases", len(compiled.program.phases), cfg.phase_depth),
    )


def _make_image(
    ckpt: Checkpoint,
    tokenizer: Tokenizer,
    quantised: Quantised,
    compiled: Compiled,
    weights: int,
) -> Image:
    shape = ckpt.shape
    needs = [*compiled.layout.needs, *_program_needs(compiled)]
    text = ckpt.path / "tokenizer.json"
    sections = tuple(section(s.space, s.sub, s.address, s.rows) for s in compiled.sections)
    meta: dict[str, Any] = {
        "model": ckpt.path.resolve().name,
        "architecture": ckpt.architecture,
        "weights": weights,
        "shape": dataclasses.asdict(shape),
        "vocabulary": shape.vocab,
        "parameters_total": shape.parameters_total,
        "parameters_active": shape.parameters_active,
        "stop_ids": sorted(tokenizer.stop_ids),
        # The id that every text begins with, where the tokenizer asks for one.
        "begin": next(iter(tokenizer.encode("")), None) if tokenizer.available else None,
        "quantisation": report_summary(quantised.report),
        "qmodel": model_digest(quantised.model),
        "needs": [dataclasses.asdict(n) for n in needs],
        "notes": program_notes(compiled.program),
    }
    image = Image(compiled.cfg, meta, sections, text.read_bytes() if text.exists() else None)
    # For readers of the file that do not run this program; `Image.cycles` computes them anew.
    meta["cycles"] = {str(p): image.cycles(p) for p in sample_positions(shape.context)}
    return image


def sample_positions(context: int) -> list[int]:
    """Positions worth stating: the first, 64 (the figure of merit's), the last."""
    return sorted({0, min(64, context - 1), context - 1})


def report_summary(report: Iterable[TensorReport]) -> dict[str, Any]:
    """Tensors per width, worst and mean signal-to-error ratio in dB; null where every tensor is exact."""
    report = list(report)
    noisy = [r for r in report if math.isfinite(r.snr_db)]
    widths = [r.width for r in report]
    worst = min(noisy, key=lambda r: r.snr_db, default=None)
    return {
        "tensors": len(report),
        "int4": widths.count(4),
        "int8": widths.count(8),
        "worst": None if worst is None else worst.name,
        "worst_snr_db": None if worst is None else round(worst.snr_db, 2),
        "mean_snr_db": round(sum(r.snr_db for r in noisy) / len(noisy), 2) if noisy else None,
    }


def _quantised_path(ckpt: Checkpoint, cfg: Config, weights: int, store: _Cache) -> Path | None:
    key = _key(ckpt, _QUANTISE_SOURCES, _FORMATS, cfg.acc_bits, weights)
    return store.path(f"{ckpt.path.resolve().name}-{cfg.name}-int{weights}-{key}.npz")


def _quantise(
    ckpt: Checkpoint, cfg: Config, weights: int, progress: Progress, store: _Cache, known: bool = True
) -> Quantised:
    """The quantised model, from the cache where it is there and, with ``known``, may be taken."""
    path = _quantised_path(ckpt, cfg, weights, store)
    if known and path is not None and path.exists():
        with contextlib.suppress(LpuError, OSError, KeyError):  # a damaged cache is no reason to fail
            found = load_quantised(path)
            store.touch(path)
            return found
    calibration = _calibration(ckpt, progress, store)
    stage = f"quantise to int{weights}"
    model, report = quantise(ckpt, cfg, weights, calibration, lambda done, total: progress(stage, done, total))
    made = Quantised(model, tuple(report))
    if path is not None:
        with contextlib.suppress(LpuError):  # a full disk: the result is good all the same
            save_quantised(path, made)
            store.trim(path)
    return made


# --------------------------------------------------------------------------------------------------- caching


class _Cache:
    """A folder of results; without one, nothing is kept."""

    def __init__(self, folder: Path | None):
        self.folder = folder
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError:
                self.folder = None

    def path(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / name

    def touch(self, *paths: Path) -> None:
        """Mark as used."""
        for path in paths:
            with contextlib.suppress(OSError):
                path.touch()

    def trim(self, *keep: Path) -> None:
        """Drop the files unused for longest until the folder is below its limit."""
        assert self.folder is not None
        with contextlib.suppress(OSError):
            files = sorted(self.folder.glob("[!.]*"), key=lambda f: f.stat().st_mtime, reverse=True)
            total = 0
            for file in files:
                total += file.stat().st_size
                if total > CACHE_BYTES and file not in keep:
                    file.unlink(missing_ok=True)


@functools.cache
def _sources_hash(sources: tuple[str, ...]) -> str:
    digest = hashlib.blake2b(np.__version__.encode())
    for name in sources:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def _key(ckpt: Checkpoint, sources: tuple[str, ...], *more: object) -> str:
    """Hash of all that a result depends on."""
    digest = hashlib.blake2b(repr((_sources_hash(sources), ckpt.shape.context, *more)).encode(), digest_size=10)
    files = [ckpt.path / name for name in _MODEL_FILES]
    for file in [*files, *ckpt.files]:
        if file.exists():
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "blake2b").digest())
        digest.update(file.name.encode())
    return digest.hexdigest()


def _calibration(ckpt: Checkpoint, progress: Progress, store: _Cache) -> Calibration:
    """Calibration statistics, the same for every configuration and width."""
    path = store.path(f"{ckpt.path.resolve().name}-calibration-{_key(ckpt, _CALIBRATION_SOURCES)}.npz")
    if path is not None and path.exists():
        with contextlib.suppress(LpuError, OSError):
            found = _load_calibration(path)
            store.touch(path)
            return found
    # The second moments of the other inputs are those of the quantised layers before them: firmware.ptq forms them.
    size = calibration_size(ckpt.shape.parameters_active)
    made = calibrate(ckpt, *size, inputs={"lm_head_in"}, progress=progress)
    if path is not None and sum(m.nbytes for m in made.moments.values()) <= CALIBRATION_BYTES:
        with contextlib.suppress(LpuError):
            _save_calibration(path, made)
    return made


def _save_calibration(path: Path, c: Calibration) -> None:
    keys = list(c.moments)
    header = {
        "moments": [list(k) for k in keys],
        "counts": [[*k, n] for k, n in c.counts.items()],
        "lanes": [list(k) for k in c.lanes],
    }
    arrays: dict[str, np.ndarray] = {"ids": c.ids, "final_gain": c.final_gain}
    arrays |= {f"moment{i}": c.moments[k] for i, k in enumerate(keys)}
    arrays |= {f"lane{i}": lanes for i, lanes in enumerate(c.lanes.values())}
    _save_arrays(path, header, arrays)


def _load_calibration(path: Path) -> Calibration:
    header, arrays = _load_arrays(path)
    return Calibration(
        ids=arrays["ids"],
        moments={(n, i, e): arrays[f"moment{j}"] for j, (n, i, e) in enumerate(header["moments"])},
        counts={(n, i, e): count for n, i, e, count in header["counts"]},
        lanes={(n, i): arrays[f"lane{j}"] for j, (n, i) in enumerate(header["lanes"])},
        final_gain=arrays["final_gain"],
    )


def _save_arrays(path: Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """A header and arrays in one npz file, whole or not at all."""
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with atomic_file(path) as out:
        np.savez(out, allow_pickle=False, header=text, **dict(arrays))


def _load_arrays(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The inverse. Raises LpuError when the file is damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header: dict[str, Any] = json.loads(arrays.pop("header").tobytes())
        return header, arrays
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise LpuError(f"{path}: damaged: {error}") from None


# ----------------------------------------------------------------------------------- quantised model on disk


def _flatten(value: Any, arrays: list[np.ndarray], seen: dict[int, int]) -> Any:
    """Nested dataclasses and tuples as JSON; each array once, by its place in ``arrays``."""
    if isinstance(value, np.ndarray):
        if id(value) not in seen:
            seen[id(value)] = len(arrays)
            arrays.append(value)
        return {"array": seen[id(value)]}
    if dataclasses.is_dataclass(value):
        fields = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
        return {name: _flatten(v, arrays, seen) for name, v in fields}
    if isinstance(value, (tuple, list)):
        return [_flatten(v, arrays, seen) for v in value]
    return value


def model_digest(model: QModel) -> str:
    """Hash of everything a quantised model computes with."""
    arrays: list[np.ndarray] = []
    tree = _flatten(dataclasses.replace(model, meta={}), arrays, {})
    digest = hashlib.sha256(json.dumps(tree, sort_keys=True).encode())
    for a in arrays:
        digest.update(f"{a.dtype.str}{a.shape}".encode())
        digest.update(np.ascontiguousarray(a).data)
    return digest.hexdigest()[:32]


def save_quantised(path: str | Path, quantised: Quantised) -> None:
    """Write a quantised model, whole or not at all. Raises LpuError when it cannot be written."""
    arrays: list[np.ndarray] = []
    tree = _flatten(dataclasses.replace(quantised.model, meta={}), arrays, {})
    # JSON has no infinity: null is an exact tensor.
    report = [[r.name, r.width, r.snr_db if math.isfinite(r.snr_db) else None] for r in quantised.report]
    _save_arrays(Path(path), {"model": tree, "report": report}, {f"a{i}": a for i, a in enumerate(arrays)})


def load_quantised(path: str | Path) -> Quantised:
    """Read what :func:`save_quantised` wrote. Raises LpuError when the file is damaged."""
    header, arrays = _load_arrays(Path(path))

    def array(node: Mapping[str, int] | None) -> Any:
        return None if node is None else arrays[f"a{node['array']}"]

    def linear(node: Mapping[str, Any]) -> QLinear:
        return QLinear(array(node["weight"]), node["width"], array(node["scl"]), node["shift"])

    def layer(node: Mapping[str, Any]) -> QLayer:
        q, k, v, o = (linear(node[n]) for n in ("q", "k", "v", "o"))
        router = None if node["router"] is None else linear(node["router"])
        gate, up, down = (tuple(linear(e) for e in node[n]) for n in ("gate", "up", "down"))
        return QLayer(q, k, v, o, router, gate, up, down)

    tree = header["model"]
    model = QModel(
        shape=QShape(**tree["shape"]),
        shifts=QShifts(**tree["shifts"]),
        embed=linear(tree["embed"]),
        lm_head=linear(tree["lm_head"]),
        layers=tuple(layer(node) for node in tree["layers"]),
        final_gain=array(tree["final_gain"]),
        rope=array(tree["rope"]),
        eps=tree["eps"],
        lm_scalar=(tree["lm_scalar"][0], tree["lm_scalar"][1]),
    )
    report = (TensorReport(n, w, math.inf if snr is None else snr) for n, w, snr in header["report"])
    return Quantised(model, tuple(report))
