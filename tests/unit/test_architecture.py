"""The arrows between modules: handlers -> stores -> rules, never back; and what an import may cost."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "layers/nightshift/nightshift"
FUNCTIONS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/app.py"))

# Values in, values out: they know nothing of AWS, HTTP or the environment.
RULES = {
    *("errors", "ids", "status", "jsonl", "plan", "outputs", "answers", "pacing", "routing", "joining", "addresses"),
    *("objects", "events", "nesting", "quotas"),
}
# The worker's run is a rule too, with its keep and its upstream handed in.
PURE = RULES | {"chunk", "room"}
# What handlers of HTTP share; nothing below a handler needs it.
HANDLERS = {"http", "schemas"}
# Written by `make openapi` from what handlers say; no function imports it.
TOOLS = {"openapi"}
MODULES = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} - TOOLS
STORES = MODULES - PURE - HANDLERS

AWS_AND_HTTP = {"boto3", "botocore", "aiohttp", "socket", "ssl", "http", "requests", "httpx", "aws_lambda_powertools"}
HTTP_HANDLERS = {"api", "create_batch"}


def imported(path: Path, at_import: bool = False) -> Iterator[str]:
    """The modules that a file imports, by full name; those that only a type checker sees are left out."""
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        type_checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if type_checking or (at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            skipped.update(ast.walk(node))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)
            yield str(node.module)


def ours(path: Path) -> set[str]:
    """The modules of the package that a file imports."""
    return {name.split(".")[1] for name in imported(path) if name.startswith("nightshift.")} & MODULES


def test_the_modules_named_here_exist() -> None:
    assert PURE | HANDLERS <= MODULES


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_rule_knows_nothing_of_aws_or_http(module: str) -> None:
    path = PACKAGE / f"{module}.py"
    assert not {name.split(".")[0] for name in imported(path)} & (AWS_AND_HTTP | {"os"})
    assert ours(path) <= PURE


@pytest.mark.parametrize("module", sorted(STORES))
def test_a_store_knows_nothing_of_handlers(module: str) -> None:
    assert not ours(PACKAGE / f"{module}.py") & HANDLERS


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_in_the_layer_imports_what_is_above_it(module: str) -> None:
    above = {"functions", "cli", "nightshift_cli", "local", "tests", "bench"}
    assert not {name.split(".")[0] for name in imported(PACKAGE / f"{module}.py")} & above


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_is_one_file_that_imports_no_other_function(function: str) -> None:
    folder = ROOT / "functions" / function
    assert [path.name for path in folder.iterdir() if path.name != "__pycache__"] == ["app.py"]
    assert not {name.split(".")[0] for name in imported(folder / "app.py")} & {
        "functions",
        "local",
        "tests",
        "nightshift_cli",
    }
    assert callable(importlib.import_module(f"functions.{function}.app").handler)


def test_modules_do_not_import_each_other_in_circles() -> None:
    left = {module: ours(PACKAGE / f"{module}.py") for module in MODULES}
    while free := {module for module, needs in left.items() if not needs & left.keys()}:
        left = {module: needs for module, needs in left.items() if module not in free}
    assert left == {}


def test_boto3_is_imported_in_one_place_and_only_when_needed() -> None:
    users = {
        path.stem
        for path in PACKAGE.glob("*.py")
        for name in imported(path)
        if name.split(".")[0] in ("boto3", "botocore")
    }
    assert users == {"aws"}
    assert not {name.split(".")[0] for name in imported(PACKAGE / "aws.py", at_import=True)} & {"boto3", "botocore"}


@pytest.mark.parametrize(
    "path",
    [*sorted(PACKAGE.glob("*.py")), *sorted((ROOT / "functions").glob("*/app.py"))],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_the_environment_is_read_by_settings_alone_and_never_at_import(path: Path) -> None:
    tree = ast.parse(path.read_text())
    inside = {part for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for part in ast.walk(node)}
    reads = [
        node
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"))
        or (isinstance(node, ast.ImportFrom) and node.module == "os")
    ]
    assert all(node in inside for node in reads)
    assert not reads or path.stem == "settings"


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """What each function has imported when a cold start is over."""
    programs = {
        function: subprocess.Popen(
            [sys.executable, "-c", f"import sys, functions.{function}.app; print(*sys.modules)"],
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for function in FUNCTIONS
    }
    modules = {function: set(program.communicate(timeout=60)[0].split()) for function, program in programs.items()}
    assert all(program.returncode == 0 for program in programs.values())
    return modules


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_cold_start_does_not_import_boto3(function: str, loaded: dict[str, set[str]]) -> None:
    # Powertools looks at the bare package `botocore`; what costs is what is inside.
    assert not loaded[function] & {"boto3", "botocore.session", "botocore.client", "botocore.loaders"}


@pytest.mark.parametrize("function", sorted(set(FUNCTIONS) - HTTP_HANDLERS))
def test_a_function_without_http_does_not_import_the_router(function: str, loaded: dict[str, set[str]]) -> None:
    assert not loaded[function] & {
        "aws_lambda_powertools.event_handler",
        "pydantic",
        "nightshift.http",
        "nightshift.schemas",
    }


@pytest.mark.parametrize("function", sorted(set(FUNCTIONS) - {"run_chunk"}))
def test_only_the_worker_imports_the_http_client_at_its_start(function: str, loaded: dict[str, set[str]]) -> None:
    assert "aiohttp" not in loaded[function]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_function_imports_the_tracer_or_a_test_tool(function: str, loaded: dict[str, set[str]]) -> None:
    assert not loaded[function] & {"aws_xray_sdk", "moto", "pytest", "hypothesis", "openai", "httpx"}
