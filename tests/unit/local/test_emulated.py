"""What the local stack changes of the template: this, and no more."""

from collections.abc import Iterator
from typing import Any

from samtranslator.yaml_helper import yaml_parse

from local.emulated import emulated, variables
from local.settings import ROOT

TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """The paths at which two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            yield from differences(one.get(name), other.get(name), f"{path}/{name}")
    elif one != other:
        yield path


def test_all_that_is_changed() -> None:
    told = {"NIGHTSHIFT_WEBHOOK_DELAYS": "1", "NIGHTSHIFT_ALLOW_LOCAL_WEBHOOKS": "", "HOME": "/home/ada"}
    changed = emulated(TEMPLATE, variables(told))

    assert list(differences(TEMPLATE, changed)) == [
        "/Globals/Function/Environment/Variables/S3_ADDRESSING_STYLE",
        "/Globals/Function/Environment/Variables/WEBHOOK_DELAYS",
        "/Resources/Bucket/Properties/CorsConfiguration/CorsRules",
        "/Resources/BucketTlsOnly",
        "/Resources/SpendByAccount",
    ]
