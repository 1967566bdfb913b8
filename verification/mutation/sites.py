"""All places of the sources where a mistake can be made, always in the same order."""

from __future__ import annotations

import ast
import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from . import excluded
from .mutators import Mutators
from .site import Site

ROOT = Path(__file__).resolve().parent.parent.parent
ARITHMETIC = "sim/numerics.py"


def files(root: Path = ROOT) -> list[str]:
    """Files that are mutated, by their path from the root."""
    found = sorted(str(p.relative_to(root)) for p in (root / "hdl").rglob("*.py"))
    return [path for path in [*found, ARITHMETIC] if path not in excluded.FILES and (root / path).read_text().strip()]


def sites(path: str, source: bytes) -> list[Site]:
    """Places in one file; two that would give the same text count once."""
    tree = ast.parse(source)
    mutators = Mutators(path, source)
    found: list[Site] = []
    seen: set[tuple[int, int, bytes]] = set()
    numbers: Counter[str] = Counter()
    for node, parents in _walk(tree, []):
        name = _qualified(parents, node)
        if _is_excluded(path, name, node, parents):
            continue
        for kind, target, new in mutators.at(node, parents):
            start, end = mutators.span(target)
            spot = (start, end, new.encode())
            if spot in seen or source[start:end] == new.encode():
                continue
            seen.add(spot)
            around = mutators.lines(start, end)
            lines = source[slice(*around)], source[around[0] : start] + new.encode() + source[end : around[1]]
            before, after = (" ".join(line.decode().split()) for line in lines)
            line = target.lineno  # type: ignore[attr-defined]
            site = Site(path, kind, name, line, start, end, new.encode(), source[start:end], (before, after))
            found.append(dataclasses.replace(site, number=numbers[site.key]))
            numbers[site.key] += 1
    return found


def all_sites(root: Path = ROOT) -> dict[str, list[Site]]:
    """By file."""
    return {path: sites(path, (root / path).read_bytes()) for path in files(root)}


def _walk(node: ast.AST, parents: list[ast.AST]) -> Iterator[tuple[ast.AST, list[ast.AST]]]:
    for child in ast.iter_child_nodes(node):
        inside = [*parents, node]
        yield child, inside
        yield from _walk(child, inside)


def _qualified(parents: list[ast.AST], node: ast.AST) -> str:
    """Names of the classes and functions around a node, and of the constant it belongs to outside functions."""
    names = []
    for parent in [*parents, node]:
        target = parent.targets[0] if isinstance(parent, ast.Assign) else getattr(parent, "target", None)
        if isinstance(parent, (ast.ClassDef, ast.FunctionDef)):
            names.append(parent.name)
        elif isinstance(target, ast.Name) and not any(isinstance(p, ast.FunctionDef) for p in parents):
            names.append(target.id)
    return ".".join(names)


def _is_excluded(path: str, name: str, node: ast.AST, parents: list[ast.AST]) -> bool:
    if any(p == path and (name == n or name.startswith(f"{n}.")) for p, n in excluded.NAMES):
        return True
    chain = [*parents, node]
    for parent, child in itertools.pairwise(chain):
        if isinstance(child, (ast.Assert, ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)):
            return True
        if isinstance(child, ast.keyword) and child.arg in excluded.KEYWORDS:
            return True
        if isinstance(child, ast.If) and len(child.body) == 1 and isinstance(child.body[0], ast.Raise):
            return True
        if child in getattr(parent, "decorator_list", ()):
            return True
        if child is getattr(parent, "annotation", None) or child is getattr(parent, "returns", None):
            return True
    return False
