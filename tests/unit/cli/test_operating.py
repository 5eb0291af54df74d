"""What an operator relies on: names and keys that work, numbers that are true, and routes that can be deleted."""

import json
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from nightshift.accounts import store as accounts
from nightshift.batches import store as batches
from nightshift.batches.record import Planned
from nightshift.files import store as files
from nightshift.routes import form
from nightshift.routes import store as routes
from nightshift.routes.lease import Lease
from nightshift.routes.level import Level
from nightshift.routes.state import RouteState
from nightshift.upstream.client import NoApiKeyError, api_key
from nightshift_cli.main import app
from typer.testing import CliRunner

from tests.unit.cli.test_admin import (  # noqa: F401 (a fixture)
    ROUTE,
    admin,
    ended_batch,
    give_up,
    stack,
    three_batches,
    waits_for,
)
from tests.unit.cli.test_audit import audit


def applied(tmp_path: Path, *entries: str) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text("".join(f"- {entry}\n" for entry in entries))
    assert admin("routes", "apply", str(file)).exit_code == 0


def of_provider(name: str) -> str:
    return ROUTE.replace("provider: p", f"provider: {name}")


def locked(**fields: Any) -> None:
    """A batch that runs, locked to the route."""
    account_id = admin("accounts", "create", "acme").stdout.strip()
    plan = Planned("m", 4, 1, form.parse(yaml.safe_load(ROUTE)))
    batches.put(ended_batch(account_id, status="in_progress", plan=plan, **fields))


# --- routes ---


def test_a_route_is_deleted_and_the_others_stay(tmp_path: Path) -> None:
    applied(tmp_path, of_provider("p"), of_provider("q"), ROUTE.replace("model: m", "model: n"))
    RouteState("m\nq\ns").put_control("draining")

    deleted = admin("routes", "delete", "m", "--provider", "q", "--yes")

    assert (deleted.exit_code, deleted.stdout) == (0, "m, q, s: deleted\n")
    assert [route.id for route in routes.all_routes()] == ["m\np\ns", "n\np\ns"]
    assert RouteState("m\nq\ns").read().control == "open", "nothing is left of it"
    assert (audit()[-1]["command"], audit()[-1]["arguments"]) == ("routes delete", "model=m provider=q")
    assert audit()[-1]["changes"] == "- m, q, s"


def test_a_deletion_is_json(tmp_path: Path) -> None:
    applied(tmp_path, of_provider("p"), of_provider("q"))
    deleted = admin("routes", "delete", "m", "--yes", "--json")
    assert json.loads(deleted.stdout) == [
        {"model": "m", "provider": name, "sku": "s", "state": "deleted", "open_batches": 0} for name in ("p", "q")
    ]
    assert routes.all_routes() == []


@pytest.mark.parametrize(("answer", "left"), [("n\n", 1), ("y\n", 0)])
def test_a_deletion_is_asked_for(tmp_path: Path, answer: str, left: int) -> None:
    applied(tmp_path, ROUTE)
    arguments = ["admin", "routes", "delete", "m", "--region", "eu-west-1"]
    asked = CliRunner().invoke(app, arguments, input=answer)
    assert "Delete m, p, s?" in asked.stderr
    assert (len(routes.all_routes()), asked.exit_code) == (left, left)


def test_an_unknown_route_is_not_deleted(tmp_path: Path) -> None:
    applied(tmp_path, ROUTE)
    paused, deleted = (admin("routes", command, "m", "--sku", "other") for command in ("pause", "delete"))
    assert (deleted.exit_code, deleted.stderr) == (2, paused.stderr)
    assert len(routes.all_routes()) == 1


@pytest.mark.parametrize("rescued", [False, True])
def test_the_batches_of_a_deleted_route_keep_its_state(tmp_path: Path, rescued: bool) -> None:
    applied(tmp_path, of_provider("r" if rescued else "p"))
    (route,) = routes.all_routes()
    locked(rescue_route=route if rescued else None)
    RouteState(route.id).put_control("paused")

    deleted = admin("routes", "delete", "m", "--yes")

    assert RouteState(route.id).read().control == "paused", "its batches must not begin to send"
    assert deleted.stderr.splitlines() == [
        f"Open batches that go on with their copy of m, {route.provider}, s: 1.",
        "It is paused, so they wait: apply the route again and resume it, or cancel them.",
    ]


def test_routes_are_listed_with_their_modes_and_whether_they_take_batches(tmp_path: Path) -> None:
    entries = [ROUTE.replace("model: m", f"model: {name}") for name in "abcde"]
    entries[1] = entries[1][:-1] + ", mode: batch}"
    entries[2] = entries[2].replace("id: s", "id: s, active: false")
    entries[3] = entries[3][:-1] + ", batch: false}"
    applied(tmp_path, *entries)
    admin("routes", "drain", "e")
    admin("routes", "pause", "a")

    found = json.loads(admin("routes", "list", "--json").stdout)

    assert [(one["mode"], one["new_batches"]) for one in found] == [
        ("realtime", "wait (paused)"),
        ("batch", "yes"),
        ("realtime", "no (SKU inactive)"),
        ("realtime", "no (not for batches)"),
        ("realtime", "no (draining)"),
    ]


def test_the_whole_route_is_listed_without_what_may_be_secret(tmp_path: Path) -> None:
    secret = "headers: {x-key: hunter2}, query: {k: hunter2}, extra_body: {a: {b: hunter2}}"
    more = f"{secret}, realtime: {{extra_body: {{token: hunter2}}}}, endpoints: [/v1/embeddings]"
    applied(tmp_path, ROUTE[:-1].replace("id: s", "id: s, input_per_million: 2") + f", {more}}}")

    shown = admin("routes", "list", "--json").stdout

    (route,) = [one["route"] for one in json.loads(shown)]
    assert "hunter2" not in shown
    assert route["headers"] == {"x-key": {"hidden": True}}
    assert route["realtime"]["extra_body"] == {"token": {"hidden": True}}
    assert (route["endpoints"], route["sku"]["input_per_million"]) == (["/v1/embeddings"], 2.0)


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
