"""Every command prints JSON if it is asked to, and then nothing else on stdout."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import typer.core
import typer.main
from nightshift.accounts import store as accounts
from nightshift_cli.main import app

from tests.unit.cli.test_admin import OUTPUTS, ROUTE, admin, give_up, stack, three_batches  # noqa: F401 (a fixture)

# They show something to a person, or serve one, until Ctrl-C.
FOR_PEOPLE = {"console", "webhooks listen"}


def commands(group: Any, *path: str) -> Iterator[tuple[str, Any]]:
    """Every command below a group, with its words."""
    for name, found in group.commands.items():
        if isinstance(found, typer.core.TyperGroup):
            yield from commands(found, *path, name)
        else:
            yield " ".join((*path, name)), found


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_the_commands_are_found() -> None:
    assert COMMANDS.keys() >= {"run", "admin accounts purge", "admin routes apply", "admin restore", *FOR_PEOPLE}


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - FOR_PEOPLE))
def test_every_command_has_json(command: str) -> None:
    assert "--json" in {option for parameter in COMMANDS[command].params for option in parameter.opts}


def printed(*arguments: str) -> Any:
    """What the command prints on stdout, which is JSON alone."""
    done = admin(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_changed_account_is_printed_as_it_is_listed() -> None:
    created = printed("accounts", "create", "acme")
    (listed,) = printed("accounts", "list")
    assert created == {name: listed[name] for name in ("id", "name")}
    assert printed("accounts", "set", "acme", "--weight", "3") == listed | {"weight": 3}
    disabled = printed("accounts", "disable", "acme")
    assert disabled == listed | {"weight": 3, "state": "disabled", "cancelled": []}
    assert printed("accounts", "enable", "acme") == listed | {"weight": 3} == printed("accounts", "list")[0]


def test_a_disabled_account_names_its_cancelled_batches() -> None:
    three_batches()
    assert printed("accounts", "disable", "other", "--keep-batches")["cancelled"] == []
    assert printed("accounts", "disable", "other")["cancelled"] == ["batch_3"]


def test_a_new_key_is_in_the_json_once() -> None:
    admin("accounts", "create", "acme")
    done = admin("keys", "create", "--account", "acme", "--expires-in", "30d", "--json")
    created = json.loads(done.stdout)
    (listed,) = printed("keys", "list", "--account", "acme")

    assert accounts.authenticate(created["key"]) == accounts.find("acme").id
    assert created == listed | {"key": created["key"], "account": "acme"}
    assert created["key"] not in done.stderr
    rotated = printed("keys", "rotate", created["id"], "--account", "acme")
    assert accounts.authenticate(rotated["key"]) == accounts.find("acme").id
    assert (rotated["replaces"], rotated["account"]) == (created["id"], "acme")
    assert printed("keys", "revoke", created["id"], "--account", "acme") == {"id": created["id"], "account": "acme"}


def test_changes_of_routes_are_fields_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(f"- {ROUTE}\n- {ROUTE.replace('provider: p', 'provider: q')}\n")
    added = printed("routes", "apply", str(file))
    changed = ROUTE.replace("up.test", "new.test").replace("u,", "u, headers: {x-key: hunter2}, max_concurrency: 9,")
    changed = changed.replace("u,", "u, realtime: {extra_body: {token: hunter2}},")
    file.write_text(f"- {changed}\n")

    planned = printed("routes", "apply", str(file), "--dry-run")
    applied = printed("routes", "apply", str(file))

    assert added == {
        "changes": [
            {"model": "m", "provider": "p", "sku": "s", "change": "added", "fields": {}},
            {"model": "m", "provider": "q", "sku": "s", "change": "added", "fields": {}},
        ],
        "written": 2,
        "deleted": 0,
    }
    fields = {
        "base_url": {"before": "https://up.test/v1", "after": "https://new.test/v1"},
        "headers.x-key": {"hidden": True},
        "max_concurrency": {"before": 256, "after": 9},
        "realtime.extra_body.token": {"hidden": True},
    }
    assert applied == {
        "changes": [
            {"model": "m", "provider": "p", "sku": "s", "change": "changed", "fields": fields},
            {"model": "m", "provider": "q", "sku": "s", "change": "removed", "fields": {}},
        ],
        "written": 1,
        "deleted": 1,
    }
    assert planned == applied | {"written": 0, "deleted": 0}


def test_a_controlled_route_has_the_state_that_status_shows(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(f"[{ROUTE}]")
    admin("routes", "apply", str(file))
    for command, state in (("pause", "paused, healthy"), ("drain", "draining, healthy"), ("resume", "healthy")):
        assert printed("routes", command, "m") == [{"model": "m", "provider": "p", "sku": "s", "state": state}]
        assert printed("routes", "status")[0]["state"] == state


def test_a_cancelled_batch_is_printed_as_it_is_listed() -> None:
    three_batches()
    cancelled = printed("batches", "cancel", "batch_3")
    assert cancelled["status"] == "cancelling"
    assert cancelled in printed("batches", "list")


def test_redriven_letters_are_printed_as_they_are_listed() -> None:
    give_up(admin("accounts", "create", "acme").stdout.strip(), "batch_1")
    listed = printed("dead-letters", "list")
    assert printed("dead-letters", "redrive") == listed
    assert listed[0]["account"] == "acme"
    assert printed("dead-letters", "redrive") == []


def test_a_restore_is_counted() -> None:
    admin("accounts", "create", "acme")
    dynamodb = boto3.client("dynamodb", region_name="eu-west-1")
    keys = (("pk", "HASH"), ("sk", "RANGE"))
    dynamodb.create_table(
        TableName="yesterday",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys],  # type: ignore[typeddict-item]
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in keys],
    )
    for item in dynamodb.scan(TableName=OUTPUTS["AccountsTable"])["Items"]:
        dynamodb.put_item(TableName="yesterday", Item=item)
    assert printed("restore", "accounts", "--from", "yesterday") == {
        "table": "accounts",
        "from": "yesterday",
        "restored": 0,
        "kept": 1,
        "keys_left_out": 0,
    }


def test_words_for_people_are_on_stderr() -> None:
    done = admin("accounts", "create", "acme"), admin("accounts", "disable", "acme", "--json")
    assert done[0].stdout.startswith("acct_")
    assert "acme is disabled" in done[1].stderr
