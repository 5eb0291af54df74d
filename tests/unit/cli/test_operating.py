"""What an operator relies on: names and keys that work, numbers that are true, and routes that can be deleted."""

import json
import time

import boto3
import pytest
import yaml
from nightshift.accounts import store as accounts
from nightshift.batches import store as batches
from nightshift.files import store as files
from nightshift.routes import form
from nightshift.upstream.client import NoApiKeyError, api_key

from tests.unit.cli.test_admin import (  # noqa: F401 (a fixture)
    ROUTE,
    admin,
    ended_batch,
    give_up,
    stack,
    three_batches,
    waits_for,
)

# --- accounts, keys, batches, dead letters ---


@pytest.mark.parametrize("name", ["", " ", " a", "a ", "a\nb", "a\x1b[2J", "a\u2028b", "a" * 101])
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    refused = admin("accounts", "create", name)
    assert refused.exit_code == 2
    assert "1 to 100 printable characters" in " ".join(refused.stderr.replace("│", " ").split())
    assert json.loads(admin("accounts", "list", "--json").stdout) == []


@pytest.mark.parametrize("name", ["a", "Ünï team 7", "a" * 100])
def test_a_printable_name_is_an_accounts(name: str) -> None:
    assert admin("accounts", "create", name).exit_code == 0
    assert accounts.find(name).name == name


def test_quotas_show_what_is_used() -> None:
    three_batches()
    account_id = accounts.find("other").id
    batches.put_progress("batch_3", 0, completed=1, failed=0)
    files.record(account_id, "file_1", filename="a", purpose="batch", size=7, expires_at=None)

    rows = json.loads(admin("accounts", "quotas", "other", "--json").stdout)

    assert {row["limit"]: row["used"] for row in rows} == {
        "active-batches": 1,
        "queued-requests": 3,
        "stored-bytes": 7,
        "dollars-a-day": 0.0,
        "dollars-a-month": 0.0,
    }


def test_a_key_that_would_be_dead_is_refused() -> None:
    admin("accounts", "create", "acme")
    assert admin("keys", "create", "--account", "acme", "--expires-in", "0m").exit_code == 2
    assert accounts.list_keys(accounts.find("acme").id) == []


def test_expired_keys_are_marked() -> None:
    account_id = admin("accounts", "create", "acme").stdout.strip()
    accounts.create_key(account_id, int(time.time()) - 1)
    accounts.create_key(account_id, int(time.time()) + 100)
    accounts.create_key(account_id)
    listed = json.loads(admin("keys", "list", "--account", "acme", "--json").stdout)
    assert sorted(one["state"] for one in listed) == ["active", "active", "expired"]


@pytest.mark.parametrize("value", [None, "", "k\u00e9y"])
def test_a_missing_key_is_told_in_a_sentence(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    if value is not None:
        boto3.client("secretsmanager").create_secret(Name="nightshift/p", SecretString=value or " ")
    route = form.parse(yaml.safe_load(ROUTE) | {"api_key_secret": "nightshift/p"})
    with pytest.raises(NoApiKeyError, match=r"^The API key of the route [a-zA-Z ]+\.$"):
        api_key(route)
