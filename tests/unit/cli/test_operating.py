"""What an operator relies on: names and keys that work, numbers that are true, and routes that can be deleted."""

import json
import time
from typing import Any

import boto3
import pytest
import yaml
from nightshift.accounts import store as accounts
from nightshift.batches import store as batches
from nightshift.batches.record import Planned
from nightshift.files import store as files
from nightshift.routes import form
from nightshift.routes.lease import Lease
from nightshift.routes.level import Level
from nightshift.routes.state import RouteState
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


def locked(**fields: Any) -> None:
    """A batch that runs, locked to the route."""
    account_id = admin("accounts", "create", "acme").stdout.strip()
    plan = Planned("m", 4, 1, form.parse(yaml.safe_load(ROUTE)))
    batches.put(ended_batch(account_id, status="in_progress", plan=plan, **fields))


def lease(batch_id: str, granted: int) -> Lease:
    given: dict[str, Any] = {"account_id": "acct_1", "batch_id": batch_id, "batch_created_at": 1, "chunk": 0}
    return Lease(worker=batch_id, wanted=4, granted=granted, since=1.0, expires_at=time.time() + 100, **given)


def test_a_batch_that_waits_alone_blames_no_other() -> None:
    locked()
    state = RouteState("m\np\ns")
    state.put(lease("batch_1", 0), None)
    state.put(lease("batch_2", 0), None)

    (batch,) = batches.list_page(accounts.find("acme").id, limit=1, after=None)[0]
    assert waits_for(batch) == "its route has no room at the moment: `admin routes status` shows more"
    state.put_level(Level(limit=0.25, at=time.time()))
    assert "has no room at the moment, at a level of 25%: `admin" in (waits_for(batch) or "")
    state.put(lease("batch_3", 2), None)
    assert waits_for(batch) == "others have all of its route: `admin routes status` shows who"


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


def test_the_limit_of_a_list_is_of_all_accounts() -> None:
    three_batches()
    listed = json.loads(admin("batches", "list", "--limit", "2", "--json").stdout)
    assert [one["id"] for one in listed] == ["batch_3", "batch_2"]


def test_open_batches_are_found_behind_newer_ones() -> None:
    locked(id="batch_0")
    for number in (1, 2):
        batches.put(ended_batch(accounts.find("acme").id, id=f"batch_{number}"))
    (listed,) = json.loads(admin("batches", "list", "--open", "--limit", "1", "--json").stdout)
    assert listed["id"] == "batch_0"


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


def test_a_letter_that_is_not_there_is_not_sent_again() -> None:
    give_up(admin("accounts", "create", "acme").stdout.strip(), "batch_1")

    redriven = admin("dead-letters", "redrive", "--batch", "batch_x")

    assert (redriven.exit_code, redriven.stderr) == (1, "There is no such dead letter.\n")
    assert admin("dead-letters", "redrive").stdout == "Dead letters sent again: 1.\n"
    none = admin("dead-letters", "redrive")
    assert (none.exit_code, none.stdout) == (0, "Dead letters sent again: 0.\n")
    of_acme = admin("dead-letters", "redrive", "--account", "acme", "--json")
    assert (of_acme.exit_code, of_acme.stdout) == (1, "[]\n")


@pytest.mark.parametrize("value", [None, "", "k\u00e9y"])
def test_a_missing_key_is_told_in_a_sentence(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    if value is not None:
        boto3.client("secretsmanager").create_secret(Name="nightshift/p", SecretString=value or " ")
    route = form.parse(yaml.safe_load(ROUTE) | {"api_key_secret": "nightshift/p"})
    with pytest.raises(NoApiKeyError, match=r"^The API key of the route [a-zA-Z ]+\.$"):
        api_key(route)
