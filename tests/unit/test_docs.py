"""The documentation links only to existing files and make targets, and docs/contract.md has every endpoint."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.core
import typer.main
from nightshift_cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for folder in (".", "docs", "docs/adr", "bench") for path in (ROOT / folder).glob("*.md"))
CONTRACT = (ROOT / "docs/contract.md").read_text()
OPENAPI = ROOT / "layers/nightshift/nightshift/api/openapi.json"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if target.startswith(("http", "../../actions")):
            continue
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    targets |= {f"bench-{path.stem}" for path in (ROOT / "bench").glob("*.py")}
    code = re.findall(r"`([^`\n]+)`|^(make .*)$", page.read_text(), re.MULTILINE)
    for command in (one or other for one, other in code):
        for target in re.findall(r"^(?:\w+=\S+ )*make ([a-z_0-9-]+)(?!<)", command):
            assert target in targets or target == "bench-", command


COMMANDS = sorted(
    {
        (page.name, command.partition("#")[0].strip())
        for page in PAGES
        for command in re.findall(r"nightshift (admin [a-z][^\n`|;]*)", page.read_text())
    }
)


def parse_admin_command(words: list[str]) -> None:
    """Parse ``words`` as arguments of `nightshift`, and run nothing."""
    words = words.copy()
    found: Any = typer.main.get_command(app)
    context = None
    while isinstance(found, typer.core.TyperGroup):
        assert words, "the rest of the command is missing"
        context = typer.Context(found, parent=context)
        name = words.pop(0)
        sub = found.get_command(context, name)
        if sub is None and not words:
            return  # the name of a group in a sentence
        assert sub is not None, f"no command {name}"
        found = sub
    if words:
        found.make_context("nightshift", words, parent=context)


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=lambda value: value)
def test_commands_of_the_docs_are_ones_that_exist(page: str, command: str) -> None:
    """Each is parsed as it is written, and not run."""
    words = shlex.split(command)
    if words[-1] in ("…", "...") or "FILE.yaml" in words:
        words = [word for word in words if word not in ("…", "...", "FILE.yaml")]
    parse_admin_command(words)


@pytest.mark.parametrize("path", json.loads(OPENAPI.read_text())["paths"])
def test_contract_names_every_endpoint(path: str) -> None:
    def without_names(text: str) -> str:
        return re.sub(r"\{\w+\}", "{}", text)

    assert f"/v1{without_names(path)}`" in without_names(CONTRACT)


def test_architecture_names_modules_that_exist() -> None:
    package = ROOT / "layers/nightshift/nightshift"
    rows = re.findall(
        r"^\| \[(\w+)\]\(\.\./layers\S+ \| (.*) \|$", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE
    )
    assert {name for name, _ in rows} == {path.parent.name for path in package.glob("*/__init__.py")}
    for name, holds in rows:
        for module in re.findall(r"`(\w+)`", holds):
            assert (package / name / f"{module}.py").exists(), f"{name}/{module}"
