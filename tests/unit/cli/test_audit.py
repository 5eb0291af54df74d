"""`nightshift admin audit` has each change, with its author, and no secret."""

import json

from tests.unit.cli.test_admin import admin, stack  # noqa: F401 (a fixture)


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


def test_a_change_that_fails_was_recorded_before() -> None:
    assert admin("accounts", "disable", "nobody").exit_code == 2
    assert [one["command"] for one in audit()] == ["accounts disable"]
