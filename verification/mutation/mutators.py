"""The mistakes: each looks at one node of a syntax tree and says what could stand there instead.

=========== ===================================================================================
kind        mistake
=========== ===================================================================================
operator    another arithmetic or logic operator; a ``~`` or ``-`` lost; any/all, min/max mixed up
comparison  ``==``/``!=``, ``<``/``<=``, ``>``/``>=`` mixed up
constant    an integer one more or one less; a flag inverted
latency     the same in ``hdl/timing.py``, stage numbers, uses of a latency; a register left out
reset       ``init=`` lost, a register without reset
swap        operands of ``-``, shifts, comparisons, ``Mux``, ``Cat``, ``less`` exchanged
condition   an ``If`` inverted, in hardware or in what builds it
statement   an assignment lost
=========== ===================================================================================
"""

from __future__ import annotations

import ast
import bisect
from collections.abc import Iterator
from typing import Any

BINARY: dict[type[ast.operator], tuple[str, ...]] = {
    ast.Add: ("-",), ast.Sub: ("+",), ast.Mult: ("+",), ast.FloorDiv: ("*",), ast.Mod: ("//",),
    ast.BitAnd: ("|", "^"), ast.BitOr: ("&", "^"), ast.BitXor: ("|", "&"), ast.LShift: (">>",), ast.RShift: ("<<",),
}  # fmt: skip
COMPARE: dict[type[ast.cmpop], str] = {
    ast.Eq: "!=", ast.NotEq: "==", ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
SYMBOL: dict[type, str] = {
    ast.Sub: "-", ast.LShift: "<<", ast.RShift: ">>", ast.FloorDiv: "//", ast.Mod: "%",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip
RENAMED = {"any": "all", "all": "any", "min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum"}
STAGES = {
    "MULTIPLY", "READ", "PACK", "PRODUCT", "SUM", "SHIFT", "FINE", "ROUND", "COLLECT", "EXPONENT", "REDUCE",
    "QUANTISE", "LATENCY", "FORWARD",
}  # fmt: skip
"""Module constants that number the stages of a pipeline."""
WAITS = {"latency", "stages", "cycles"}
"""Arguments that are a number of cycles."""

Found = tuple[str, ast.AST, str]
"""Kind, node, and what stands there instead."""


class Mutators:
    """Finds the mistakes of one file."""

    def __init__(self, path: str, source: bytes) -> None:
        self.path = path
        self._source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def span(self, node: ast.AST) -> tuple[int, int]:
        """First byte of a node, and the one behind its last."""
        begin: Any = node
        return (
            self._starts[begin.lineno - 1] + begin.col_offset,
            self._starts[begin.end_lineno - 1] + begin.end_col_offset,
        )

    def lines(self, start: int, end: int) -> tuple[int, int]:
        """The same of the lines that a span is in."""
        first, behind = bisect.bisect_right(self._starts, start) - 1, bisect.bisect_left(self._starts, end)
        return self._starts[first], self._starts[behind]

    def text(self, node: ast.AST) -> str:
        """The text of a node."""
        return self._source[slice(*self.span(node))].decode()

    def source(self, node: ast.AST) -> str:
        """The text of an expression, in brackets where it needs them beside an operator."""
        found = self.text(node)
        plain = isinstance(node, (ast.Name, ast.Constant, ast.Call, ast.Attribute, ast.Subscript))
        return found if plain else f"({found})"

    def at(self, node: ast.AST, parents: list[ast.AST]) -> Iterator[Found]:
        """Mistakes in one node; ``parents`` from the module down."""
        kind = type(node).__name__
        method = getattr(self, f"_{kind}", None)
        if method is not None:
            yield from method(node, parents)

    # -- expressions -----------------------------------------------------------------------------------

    def _BinOp(self, node: ast.BinOp, parents: list[ast.AST]) -> Iterator[Found]:
        left, right = self.source(node.left), self.source(node.right)
        for symbol in BINARY.get(type(node.op), ()):
            yield "operator", node, f"({left} {symbol} {right})"
        if type(node.op) in SYMBOL:
            yield "swap", node, f"({right} {SYMBOL[type(node.op)]} {left})"

    def _BoolOp(self, node: ast.BoolOp, parents: list[ast.AST]) -> Iterator[Found]:
        symbol = "or" if isinstance(node.op, ast.And) else "and"
        yield "operator", node, f"({f' {symbol} '.join(map(self.source, node.values))})"

    def _UnaryOp(self, node: ast.UnaryOp, parents: list[ast.AST]) -> Iterator[Found]:
        if isinstance(node.op, (ast.Invert, ast.USub, ast.Not)) and not isinstance(node.operand, ast.Constant):
            yield "operator", node, self.source(node.operand)

    def _Compare(self, node: ast.Compare, parents: list[ast.AST]) -> Iterator[Found]:
        if len(node.ops) != 1:
            return
        left, right = self.source(node.left), self.source(node.comparators[0])
        yield "comparison", node, f"({left} {COMPARE[type(node.ops[0])]} {right})"
        if type(node.ops[0]) in SYMBOL:
            yield "swap", node, f"({right} {SYMBOL[type(node.ops[0])]} {left})"

    def _Constant(self, node: ast.Constant, parents: list[ast.AST]) -> Iterator[Found]:
        if isinstance(node.value, bool):
            if not (isinstance(parents[-1], ast.keyword) and parents[-1].arg in ("reset", "reset_less")):
                yield "constant", node, str(not node.value)
        elif isinstance(node.value, int):
            kind = "latency" if self._is_latency(parents) else "constant"
            for value in (node.value + 1, node.value - 1):
                yield kind, node, str(value) if value >= 0 else f"({value})"

    def _is_latency(self, parents: list[ast.AST]) -> bool:
        if self.path == "hdl/timing.py":
            return True
        for parent in parents:
            if isinstance(parent, ast.Assign) and any(_name(t) in STAGES for t in parent.targets):
                return True
        last = parents[-1]
        return isinstance(last, ast.keyword) and last.arg in WAITS

    def _Attribute(self, node: ast.Attribute, parents: list[ast.AST]) -> Iterator[Found]:
        if isinstance(node.ctx, ast.Load) and isinstance(parents[-1], ast.Call) and parents[-1].func is node:
            if node.attr in RENAMED:
                yield "operator", node, f"{self.source(node.value)}.{RENAMED[node.attr]}"
        elif isinstance(node.ctx, ast.Load) and _ends_in(node.value, ("timing", "t", "get_timing")):
            for symbol in "+-":
                yield "latency", node, f"({self.source(node)} {symbol} 1)"

    def _Name(self, node: ast.Name, parents: list[ast.AST]) -> Iterator[Found]:
        if node.id in RENAMED and isinstance(parents[-1], ast.Call) and parents[-1].func is node:
            yield "operator", node, RENAMED[node.id]

    def _Call(self, node: ast.Call, parents: list[ast.AST]) -> Iterator[Found]:
        name = _name(node.func)
        args = node.args
        if name in ("Mux", "where") and len(args) == 3:
            yield "swap", node, self._with(node, [args[0], args[2], args[1]])
        elif name in ("Cat", "less") and len(args) >= 2 and not any(isinstance(a, ast.Starred) for a in args[:2]):
            yield "swap", node, self._with(node, [args[1], args[0], *args[2:]])
        elif name == "delayed" and len(args) == 3:
            for symbol in "+-":
                yield "latency", args[2], f"{self.source(args[2])} {symbol} 1"
        if name in ("If", "Elif") and _name_of_module(node.func):
            yield "condition", args[0], f"{self.source(args[0])} == 0"
        is_signal = name == "Signal" or (name == "like" and _ends_in(node.func, ("Signal",)))
        for keyword in node.keywords:
            if keyword.arg == "reset" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True:
                yield "reset", keyword.value, "False"
            elif keyword.arg == "init" and is_signal:
                yield "reset", keyword.value, "0"
        if is_signal and not any(k.arg == "reset_less" for k in node.keywords):
            body = self.text(node)[:-1].rstrip().rstrip(",")
            yield "reset", node, f"{body}{', ' if node.args or node.keywords else ''}reset_less=True)"

    def _with(self, node: ast.Call, args: list[ast.expr]) -> str:
        parts = [self.text(part) for part in (*args, *node.keywords)]
        return f"{self.source(node.func)}({', '.join(parts)})"

    def _IfExp(self, node: ast.IfExp, parents: list[ast.AST]) -> Iterator[Found]:
        yield "condition", node.test, f"(not {self.source(node.test)})"

    # -- statements ------------------------------------------------------------------------------------

    def _If(self, node: ast.If, parents: list[ast.AST]) -> Iterator[Found]:
        yield "condition", node.test, f"not {self.source(node.test)}"

    def _AugAssign(self, node: ast.AugAssign, parents: list[ast.AST]) -> Iterator[Found]:
        if isinstance(node.value, (ast.List, ast.Tuple)) and len(node.value.elts) > 1:
            for element in node.value.elts:
                yield "statement", element, "*()"
        else:
            yield "statement", node, "pass"
        if isinstance(node.target, ast.Attribute) and node.target.attr == "sync":
            yield "latency", node.target, f"{self.source(node.target.value)}.comb"

    def _Assign(self, node: ast.Assign, parents: list[ast.AST]) -> Iterator[Found]:
        target = node.targets[0]
        if isinstance(target, ast.Attribute) and target.attr == "next":
            yield "statement", node, "pass"


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _ends_in(node: ast.AST, names: tuple[str, ...]) -> bool:
    """Whether an expression is one of these names, an attribute of one, or a call of one."""
    if isinstance(node, ast.Call):
        return _name(node.func) in names
    if isinstance(node, ast.Attribute) and _name(node.value) in names and "Signal" in names:
        return True
    return _name(node) in names


def _name_of_module(node: ast.AST) -> bool:
    """Whether it is a method of ``m``."""
    return isinstance(node, ast.Attribute) and _name(node.value) == "m"
