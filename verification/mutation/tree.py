"""The scratch copy in which mutants live and tests run."""

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

TREE = ROOT / "build" / "mutation" / "tree"
FOLDERS = ("hdl", "sim", "firmware", "fpga", "verification", "tests", "docs")
FILES = ("pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile")


def refresh() -> None:
    """Makes the copy what the sources are now. What was built in it stays, so that a simulator compiles a bench
    only once where a mutant does not change it."""
    TREE.mkdir(parents=True, exist_ok=True)
    wanted = {p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.is_file()}
    wanted |= {ROOT / name for name in FILES}
    wanted = {p for p in wanted if "__pycache__" not in p.parts and not p.name.endswith(".new")}
    names = {p.relative_to(ROOT) for p in wanted}
    for folder in FOLDERS:
        for old in list((TREE / folder).rglob("*")):
            if old.is_file() and "__pycache__" not in old.parts and old.relative_to(TREE) not in names:
                old.unlink()
    for name in sorted(names):
        to = TREE / name
        if not to.exists() or to.read_bytes() != (ROOT / name).read_bytes():
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, to)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One run at a time in the copy. Raises BlockingIOError."""
    TREE.parent.mkdir(parents=True, exist_ok=True)
    with open(TREE.parent / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@contextlib.contextmanager
def mutated(path: str, text: bytes) -> Iterator[None]:
    """With another text in one file. Its compiled form is removed, which has a time of whole seconds only."""
    file = TREE / path
    kept = file.read_bytes()
    try:
        file.write_bytes(text)
        _forget(file)
        yield
    finally:
        file.write_bytes(kept)
        _forget(file)


def _forget(file: Path) -> None:
    for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
        compiled.unlink()


def environment() -> dict[str, str]:
    """For processes in the copy: its own modules, and no compiled forms."""
    return {**os.environ, "PYTHONPATH": str(TREE), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}


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
