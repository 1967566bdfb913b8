"""What is not mutated, and why: lines that are neither hardware nor arithmetic of the tiny core."""

from __future__ import annotations

FILES = {
    "hdl/contract.py": "an identity that both ends compute with the same lines: any other one is as good",
}
"""Whole files."""

NAMES = {
    ("hdl/config.py", "Config.__post_init__"): "checks of sizes; each refusal has a test of its own in test_config",
    ("hdl/config.py", "Config.hash"): "an identity: any other one is as good",
    ("hdl/config.py", "ULX3S_85F"): "sizes of another configuration",
    ("hdl/config.py", "ULX3S_45F"): "sizes of another configuration",
    ("hdl/config.py", "ULX3S_25F"): "sizes of another configuration",
    ("hdl/config.py", "ULX3S_12F"): "sizes of another configuration",
    ("hdl/config.py", "LEAN"): "sizes of another configuration",
    ("hdl/config.py", "LARGE"): "sizes of another configuration",
    ("hdl/config.py", "TINY"): "a choice of sizes: any legal one has to work, so none is a mistake",
    ("hdl/config.py", "Config.weight_bits"): "a default of the compiler",
    ("hdl/config.py", "Config.clock_hz"): "stated, not built: nothing in the core depends on it",
    ("hdl/isa.py", "Field.check"): "checks: each refusal has a test in tests/test_isa.py",
    ("hdl/isa.py", "_check_loops"): "checks: each refusal has a test in tests/test_isa.py",
    ("hdl/tables.py", "_CONTEXT"): "digits of a decimal calculation, far more than the tables keep",
}
"""Functions, classes' members and module constants, by file."""

KEYWORDS = {"name", "doc"}
"""Arguments of calls: names of signals and text."""

REASONS = {
    "text": "docstrings, messages, names of signals",
    "type": "annotations and decorators",
    "check": "assertions, raise statements and what only decides whether to raise",
}
"""What is left out everywhere."""
