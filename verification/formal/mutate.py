"""Seeded bugs: the HDL with one text replaced, for as long as a design is elaborated.

A proof that still passes with such a bug proves nothing of the lines it is in.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import inspect
import types
from collections.abc import Iterator
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Mutant:
    """In the source of ``module``, ``old`` (which must be there once) becomes ``new``.

    ``depth``: cycles from reset in which the bug must show; 0: the proof as it is must fail, in its base case or in
    its induction (where the way to the bug is too long to search).
    """

    module: str
    old: str
    new: str
    depth: int = 0


class MutantError(ValueError):
    """The text to replace is not there, or not once, or changes no function."""


def _functions(module: types.ModuleType) -> dict[str, types.FunctionType]:
    """Functions of a module and methods of its classes, by qualified name."""
    found = {}
    for thing in vars(module).values():
        if isinstance(thing, types.FunctionType) and thing.__module__ == module.__name__:
            found[thing.__qualname__] = thing
        elif inspect.isclass(thing) and thing.__module__ == module.__name__:
            for method in vars(thing).values():
                if isinstance(method, types.FunctionType):
                    found[method.__qualname__] = method
    return found


@contextlib.contextmanager
def seeded(mutant: Mutant | None) -> Iterator[None]:
    """With the bug in place. The code objects of the real functions are swapped, so that whoever imported them
    before has the bug, too. What the module keeps of earlier results (``functools.cache``) is forgotten on the way in
    and out: a design has the bug in all of its parts, or in none. Raises MutantError."""
    if mutant is None:
        yield
        return
    module = importlib.import_module(mutant.module)
    assert module.__file__ is not None
    text = Path(module.__file__).read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise MutantError(f"{mutant.module}: {text.count(mutant.old)} times {mutant.old!r}: must be there once")
    copy = types.ModuleType(mutant.module)
    copy.__package__ = module.__package__
    copy.__file__ = module.__file__
    exec(compile(text.replace(mutant.old, mutant.new), module.__file__, "exec"), vars(copy))
    real, wrong = _functions(module), _functions(copy)
    changed = [name for name, f in real.items() if f.__code__ != wrong[name].__code__]
    if not changed:
        raise MutantError(f"{mutant.module}: {mutant.old!r} is in no function")
    kept = {name: real[name].__code__ for name in changed}
    caches = [thing for thing in vars(module).values() if isinstance(thing, functools._lru_cache_wrapper)]
    try:
        for name in changed:
            real[name].__code__ = wrong[name].__code__
        for cache in caches:
            cache.cache_clear()
        yield
    finally:
        for name, code in kept.items():
            real[name].__code__ = code
        for cache in caches:
            cache.cache_clear()
