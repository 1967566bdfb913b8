"""Sizes that cannot be built are refused: each check of a configuration, just beyond its limit and at it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap

import pytest

from hdl.config import CONFIGS, TINY, Config, ConfigError, get_config

BEYOND: tuple[tuple[str, dict[str, int], str], ...] = (
    ("lanes", {"lanes": 24}, "power of two"),
    ("lanes", {"lanes": 4}, "multiple of the block"),
    ("columns", {"columns": 6}, "power of two"),
    ("columns", {"columns": 2}, "at least one column"),
    ("vlanes", {"vlanes": 3}, "power of two"),
    ("vlanes", {"vlanes": 0}, "power of two"),
    ("vlanes", {"vlanes": 16, "columns": 16}, "within one block"),
    ("accs", {"accs": 6}, "power of two"),
    ("accs", {"accs": 2}, "two accumulators each"),
    ("square_lanes", {"square_lanes": 6}, "power of two from vlanes"),
    ("square_lanes", {"square_lanes": 2}, "power of two from vlanes"),
    ("square_lanes", {"square_lanes": 16}, "power of two from vlanes"),
    ("expert_rows", {"expert_rows": 0}, "at most 3 experts"),
    ("expert_rows", {"expert_rows": 2}, "at most 3 experts"),
    ("acc_bits", {"acc_bits": 47}, "within 63 bits"),
    ("weight_bits", {"weight_bits": 6}, "int4 or int8"),
    ("weight_bits", {"weight_bits": 4, "int4": False}, "without int4"),
    ("sequences", {"sequences": 3}, "one token or two"),
    ("topk_max", {"topk_max": 2}, "the router"),
    ("value_depth", {"value_depth": -1}, "number of words"),
    ("head_max", {"head_max": 4}, "power of two of at least"),
    ("head_max", {"head_max": 12}, "power of two of at least"),
)
"""The field that the message names, what is changed of the tiny size, and words of the reason."""
AT = (
    {"lanes": 16}, {"vlanes": 2}, {"vlanes": 1, "expert_rows": 3}, {"vlanes": 8, "columns": 8},
    {"columns": 4}, {"accs": 4}, {"square_lanes": 4},
    {"square_lanes": 8}, {"acc_bits": 46}, {"weight_bits": 4}, {"weight_bits": 8}, {"topk_max": 3},
    {"int4": False, "weight_bits": 8}, {"sequences": 1}, {"value_depth": 0}, {"head_max": 8}, {"head_max": 256},
)  # fmt: skip
"""Changes of the tiny size that are legal still."""


def changed(values: dict[str, int]) -> Config:
    return dataclasses.replace(TINY, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("field", "values", "reason"), BEYOND, ids=[str(values) for _, values, _ in BEYOND])
def test_a_size_beyond_its_limit_is_refused(field: str, values: dict[str, int], reason: str) -> None:
    """The message names the configuration, the field with its value, and the reason."""
    with pytest.raises(ConfigError, match=reason) as refused:
        changed(values)
    assert str(refused.value).startswith(f"config 'tiny': {field} = {values[field]}: ")


@pytest.mark.parametrize("values", AT, ids=map(str, AT))
def test_a_size_at_its_limit_is_taken(values: dict[str, int]) -> None:
    cfg = changed(values)
    assert {name: getattr(cfg, name) for name in values} == values


def test_every_check_has_a_case() -> None:
    """As many reasons are seen above as ``Config`` has, each for the fields that it is about."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(Config.__post_init__)))
    calls = [c for c in ast.walk(tree) if isinstance(c, ast.Call) and isinstance(c.func, ast.Name)]
    checks = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "need"]
    seen = set()
    for field, values, _ in BEYOND:
        with pytest.raises(ConfigError) as refused:
            changed(values)
        seen.add((field, str(refused.value).split(": ", 2)[2]))
    # One of them is in a loop, over four fields.
    assert len(seen) == len(checks) - 1 + len(("lanes", "columns", "vlanes", "accs"))


def test_an_option_counts_only_where_it_is_used() -> None:
    """The identity of a size from before an option is still that of the size without it."""
    options = [f for f in dataclasses.fields(Config) if f.metadata.get("option")]
    assert options
    assert (TINY.hash(), get_config("large").hash()) == ("888c009ab7394cd3", "70f679cff44e2afa")
    assert changed({"vlanes": 1}).hash() != changed({"vlanes": 1, "expert_rows": 2}).hash()


def test_named_sizes() -> None:
    assert all(get_config(name) is cfg and cfg.name == name for name, cfg in CONFIGS.items())
    with pytest.raises(ConfigError, match=r"unknown config 'huge'; known: tiny"):
        get_config("huge")
