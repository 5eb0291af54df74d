"""The documentation links only to existing files and make targets, and docs/contract.md has every endpoint."""

import json
import re
from pathlib import Path

import pytest

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
