"""Where a plan's model comes from: a folder, its ``config.json``, or a public model whose sizes are kept here."""

from __future__ import annotations

from pathlib import Path

from ..checkpoint import ModelShape, read_shape
from ..errors import LpuError
from ..simulate import SHIPPED, shipped_models

PUBLIC = Path(__file__).parent / "models"
"""Sizes of public models: their ``config.json`` without what does not change the arithmetic's shape. No weights."""


def public_models() -> list[str]:
    """Names of the models whose sizes are kept here."""
    return sorted(p.parent.name for p in PUBLIC.glob("*/config.json"))


def find(model: str) -> tuple[str, ModelShape]:
    """Name and shape. Raises :class:`LpuError` naming the file and its field, or listing the known names."""
    path = Path(model)
    if path.is_file():
        if path.name != "config.json":
            raise LpuError(f"{path}: a model's config.json, or the folder it is in, is needed")
        return path.absolute().parent.name, read_shape(path.parent)
    for folder in (path, PUBLIC / model, SHIPPED / model):
        if (folder / "config.json").is_file():
            return folder.resolve().name, read_shape(folder)
    names = ", ".join([*public_models(), *shipped_models()])
    raise LpuError(f"{model}: no folder with a config.json, and no model of that name is known ({names})")
