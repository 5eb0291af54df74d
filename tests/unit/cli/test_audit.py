"""`nightshift admin audit` has each change, with its author, and no secret."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
from nightshift_cli.admin import journal

from tests.unit.cli.test_admin import OUTPUTS, ROUTE, admin, stack  # noqa: F401 (a fixture)


def audit() -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(admin("audit", "--json").stdout)
    return found


def test_changes_are_recorded_with_their_author_and_reads_are_not() -> None:
    admin("accounts", "create", "acme")
    key = admin("keys", "create", "--account", "acme").stdout.strip()
    admin("accounts", "list")
    admin("accounts", "quotas", "acme")
    admin("accounts", "quotas", "acme", "--dollars-a-day", "5")
    admin("accounts", "quotas", "acme", "--active-batches", "0")

    found = audit()

    assert [(one["command"], one["arguments"]) for one in found] == [
        ("accounts create", "name=acme"),
        ("keys create", "account=acme"),
        ("accounts quotas", "dollars_a_day=5.0 name=acme"),
        ("accounts quotas", "active_batches=0 name=acme"),
    ]
    assert all(one["caller"].startswith("arn:aws:") for one in found)
    assert key not in json.dumps(found)


def test_a_change_that_fails_is_recorded_with_its_error() -> None:
    assert admin("accounts", "disable", "nobody").exit_code == 2
    admin("accounts", "create", "acme")
    assert [(one["command"], one["error"]) for one in audit()] == [
        ("accounts disable", "Account not found: nobody."),
        ("accounts create", None),
    ]


def test_a_receivers_token_is_not_recorded() -> None:
    context: Any = SimpleNamespace(
        info_name="doctor",
        command_path="nightshift admin doctor",
        params={"webhook": "https://up.test/hook?token=secret", "spend": True},
    )
    assert journal.change(context) == {"command": "doctor", "arguments": "spend=True webhook=https://up.test/hook"}


def test_lines_of_older_versions_are_shown() -> None:
    admin("accounts", "create", "acme")
    group = OUTPUTS["LogGroupName"]
    logs = boto3.client("logs", region_name="eu-west-1")
    logs.create_log_stream(logGroupName=group, logStreamName="admin/old")
    for at in (1, 2):
        line = json.dumps({"at": at, "caller": "arn:aws:x", "command": "keys revoke", "arguments": ""})
        event: Any = {"timestamp": int(time.time() * 1000), "message": line}
        logs.put_log_events(logGroupName=group, logStreamName="admin/old", logEvents=[event])
    assert [one["command"] for one in audit()] == ["keys revoke", "keys revoke", "accounts create"]


def test_routes_are_recorded_with_what_changes(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(f"[{ROUTE}]")
    admin("routes", "apply", str(file))
    file.write_text(f"[{ROUTE.replace('u,', 'v,')}]")
    admin("routes", "apply", str(file))
    file.write_text(f"[{ROUTE.replace('u,', 'v, headers: {x-key: hunter2secret},')}]")
    admin("routes", "apply", str(file))
    assert [one["changes"] for one in audit()] == [
        "+ m, p, s",
        "~ m, p, s: upstream_model u -> v",
        "~ m, p, s: headers.x-key changed",
    ]
