"""How large functions and modules may be, how deep they may nest, and how much data may have no type."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("layers/nightshift", "functions", "cli", "tools", "local")
MODULES = {str(path.relative_to(ROOT)): path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))}
PRODUCT = [name for name in MODULES if name.startswith(("layers/", "functions/"))]

MAX_FUNCTION_LINES = 50
MAX_NESTING = 3
MAX_MODULE_LINES = 300
# What comes from AWS or leaves for it as JSON, and the items of the tables.
MAX_UNTYPED_DICTS = 30

FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
COMPOUND = ast.If | ast.For | ast.AsyncFor | ast.While | ast.With | ast.AsyncWith | ast.Try | ast.TryStar | ast.Match


def functions(tree: ast.AST) -> Iterator[FUNCTION]:
    return (node for node in ast.walk(tree) if isinstance(node, FUNCTION))


def lines(function: FUNCTION) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


def nesting(statement: ast.AST) -> int:
    """How many compound statements stand inside each other in ``statement``.

    An ``elif`` is as deep as its ``if``. A definition is no level, because its own body is counted.
    """
    deepest = 0
    for child in ast.iter_child_nodes(statement):
        is_elif = isinstance(statement, ast.If) and statement.orelse == [child] and isinstance(child, ast.If)
        deepest = max(deepest, nesting(child) + (isinstance(child, COMPOUND) and not is_elif))
    return deepest


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    long = {function.name: lines(function) for function in functions(tree) if lines(function) > MAX_FUNCTION_LINES}
    assert long == {}


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_flat(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    deep = {function.name: nesting(function) for function in functions(tree) if nesting(function) > MAX_NESTING}
    assert deep == {}


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_short(module: str) -> None:
    assert len(MODULES[module].read_text().splitlines()) <= MAX_MODULE_LINES


def test_most_data_has_a_type() -> None:
    assert sum(MODULES[module].read_text().count("dict[str, Any]") for module in PRODUCT) <= MAX_UNTYPED_DICTS


def test_nesting_counts_blocks_but_not_elif() -> None:
    code = "for x in y:\n    if a:\n        b()\n    elif c:\n        with d:\n            e()\n"
    assert nesting(ast.parse(code)) == 3
