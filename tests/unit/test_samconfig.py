"""samconfig.toml: how the stacks are deployed."""

import tomllib
from pathlib import Path

import pytest

CONFIG = tomllib.loads((Path(__file__).parents[2] / "samconfig.toml").read_text())
STACKS = [name for name in CONFIG if name not in ("version", "local")]


@pytest.mark.parametrize("name", STACKS)
def test_a_stack_has_its_own_place_in_sams_bucket(name: str) -> None:
    """`sam delete` deletes there what a stack was deployed from; another stack may have the same files."""
    deploy = CONFIG[name].get("global", {}).get("parameters", {}) | CONFIG[name]["deploy"]["parameters"]
    assert deploy["s3_prefix"] == deploy["stack_name"]


def test_stacks_have_names_of_their_own() -> None:
    assert len({CONFIG[name]["deploy"]["parameters"]["s3_prefix"] for name in STACKS}) == len(STACKS) == 3
