"""The scratch copies in which mutants live and tests run."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .sites import ROOT

HOME = ROOT / "build" / "mutation"
FOLDERS = ("hdl", "sim", "firmware", "fpga", "verification", "tests", "docs")
FILES = ("pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile")


class Tree:
    """A copy, for one mutant at a time."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def result(self) -> Path:
        """Where a worker in the copy writes what came out."""
        return self.path.with_name(f"{self.path.name}.jsonl")

    @property
    def log(self) -> Path:
        """What a worker in the copy printed."""
        return self.path.with_name(f"{self.path.name}.log")

    def refresh(self) -> None:
        """Makes the copy what the sources are now. What was built in it stays, so that a simulator compiles a bench
        only once where a mutant does not change it."""
        self.path.mkdir(parents=True, exist_ok=True)
        wanted = {p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.is_file()}
        wanted |= {ROOT / name for name in FILES}
        wanted = {p for p in wanted if "__pycache__" not in p.parts and not p.name.endswith(".new")}
        names = {p.relative_to(ROOT) for p in wanted}
        for folder in FOLDERS:
            for old in list((self.path / folder).rglob("*")):
                if old.is_file() and "__pycache__" not in old.parts and old.relative_to(self.path) not in names:
                    old.unlink()
        for name in sorted(names):
            to = self.path / name
            if not to.exists() or to.read_bytes() != (ROOT / name).read_bytes():
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, to)

    @contextlib.contextmanager
    def mutated(self, path: str, text: bytes) -> Iterator[None]:
        """With another text in one file. Its compiled form is removed, which has a time of whole seconds only."""
        file = self.path / path
        kept = file.read_bytes()
        try:
            file.write_bytes(text)
            _forget(file)
            yield
        finally:
            file.write_bytes(kept)
            _forget(file)

    def environment(self) -> dict[str, str]:
        """For processes in the copy: its own modules, and no compiled forms."""
        return {**os.environ, "PYTHONPATH": str(self.path), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}


def trees(jobs: int) -> list[Tree]:
    """As many copies as mutants are tried at once."""
    return [Tree(HOME / ("tree" if i == 0 else f"tree-{i + 1}")) for i in range(jobs)]


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One run at a time in the copies. Raises BlockingIOError."""
    HOME.mkdir(parents=True, exist_ok=True)
    with open(HOME / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _forget(file: Path) -> None:
    for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
        compiled.unlink()


MUTATED = ("hdl", "sim")
"""Folders of what is tested."""
JUDGING = (*MUTATED, "firmware", "fpga", "verification", "tests")
"""Folders of everything that decides a result. Documents do not."""


def sources_hash(folders: tuple[str, ...] = JUDGING) -> str:
    """Of the sources in some folders."""
    digest = hashlib.sha256()
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *folders],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for name in sorted(set(listed)):
        if (ROOT / name).is_file() and not name.startswith(("verification/mutation/", "verification/evidence/")):
            digest.update(name.encode() + b"\0" + (ROOT / name).read_bytes())
    return digest.hexdigest()[:16]
