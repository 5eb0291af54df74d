"""Which package may import which, who may reach AWS, and what an import may cost."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYER = ROOT / "layers/nightshift"
PACKAGE = LAYER / "nightshift"
FUNCTIONS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/app.py"))

# From the ground up: a package imports from those named before it, and from itself.
PACKAGES = (
    *("core", "accounts", "files", "routes", "input", "upstream", "results", "batches", "webhooks", "chunks"),
    *("submissions", "engine", "api"),
)
# A module that reaches AWS or another server has one of these names; every other module is rules or a use case.
EDGES = frozenset(
    {
        *("aws", "bucket", "table", "concat", "log", "store", "plan", "uploads", "client"),
        *("executions", "bus", "receivers", "deliveries", "sender", "queue", "app", "content", "site", "state"),
    }
)
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}
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
    """The modules of the package that a file imports, such as ``batches.store``."""
    return {name.removeprefix("nightshift.") for name in imported(path)} & MODULES.keys()


def test_every_package_has_its_place() -> None:
    assert {name.partition(".")[0] for name in MODULES} == set(PACKAGES)
    assert all(not path.read_text() for path in PACKAGE.glob("*/__init__.py"))


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    package = module.partition(".")[0]
    lower = PACKAGES[: PACKAGES.index(package) + 1]
    assert {name.partition(".")[0] for name in ours(MODULES[module])} <= set(lower)


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.partition(".")[2] not in EDGES))
def test_only_edges_reach_aws_or_http(module: str) -> None:
    names = set(imported(MODULES[module]))
    assert not {name.split(".")[0] for name in names} & AWS_AND_HTTP
    assert "nightshift.core.aws" not in names


@pytest.mark.parametrize("module", MODULES)
def test_the_package_imports_nothing_above_it(module: str) -> None:
    above = {"functions", "cli", "nightshift_cli", "local", "tests", "bench", "tools"}
    assert not {name.split(".")[0] for name in imported(MODULES[module])} & above


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_is_over_a_fifth_of_the_code(package: str) -> None:
    lines = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    own = sum(count for name, count in lines.items() if name.startswith(f"{package}."))
    assert own <= sum(lines.values()) / 5


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_is_one_file_of_its_own(function: str) -> None:
    folder = ROOT / "functions" / function
    built = {"__pycache__", "site"}  # the API carries the pages that `make` builds from console/
    assert [path.name for path in folder.iterdir() if path.name not in built] == ["app.py"]
    assert not {name.split(".")[0] for name in imported(folder / "app.py")} & {
        "functions",
        "local",
        "tests",
        "nightshift_cli",
    }
    assert callable(importlib.import_module(f"functions.{function}.app").handler)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_handler_calls_no_aws(function: str) -> None:
    """Clients are made ahead for SnapStart in ``prepare``; every call is the package's."""
    tree = ast.parse((ROOT / "functions" / function / "app.py").read_text())
    handlers = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name == "prepare")]
    used = {
        part.value.id
        for node in handlers
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name)
    }
    assert "aws" not in used
    assert "botocore" not in ast.unparse(tree)


def test_imports_have_no_circles() -> None:
    left = {module: ours(path) for module, path in MODULES.items()}
    while free := {module for module, needs in left.items() if not needs & left.keys()}:
        left = {module: needs for module, needs in left.items() if module not in free}
    assert left == {}


def test_only_core_aws_imports_botocore_lazily() -> None:
    users = {
        module
        for module, path in MODULES.items()
        for name in imported(path)
        if name.split(".")[0] in ("boto3", "botocore")
    }
    assert users == {"core.aws"}
    path = MODULES["core.aws"]
    assert not {name.split(".")[0] for name in imported(path, at_import=True)} & {"boto3", "botocore"}


@pytest.mark.parametrize("module", MODULES)
def test_records_are_structs_of_msgspec(module: str) -> None:
    """A cold start makes each class: a dataclass takes 70 times as long as a Struct, and a worker has 20 of them."""
    assert "dataclasses" not in set(imported(MODULES[module]))


def test_only_what_workers_send_uses_aiohttp() -> None:
    users = {module for module, path in MODULES.items() if "aiohttp" in {name.split(".")[0] for name in imported(path)}}
    assert users == {"upstream.client", "submissions.client"}


@pytest.mark.parametrize(
    "path",
    [*MODULES.values(), *sorted((ROOT / "functions").glob("*/app.py"))],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_only_settings_reads_the_environment(path: Path) -> None:
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
def test_only_http_functions_import_the_router(function: str, loaded: dict[str, set[str]]) -> None:
    assert not loaded[function] & {
        "aws_lambda_powertools.event_handler",
        "pydantic",
        "nightshift.api.app",
        "nightshift.api.bodies",
    }


@pytest.mark.parametrize("function", sorted(set(FUNCTIONS) - {"run_chunk"}))
def test_only_the_worker_imports_aiohttp(function: str, loaded: dict[str, set[str]]) -> None:
    assert "aiohttp" not in loaded[function]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_function_imports_tracer_or_test_tool(function: str, loaded: dict[str, set[str]]) -> None:
    assert not loaded[function] & {"aws_xray_sdk", "moto", "pytest", "hypothesis", "openai", "httpx"}
