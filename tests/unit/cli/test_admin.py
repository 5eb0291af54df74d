import json
import os
import re
import time
from collections.abc import Iterator
from datetime import datetime, tzinfo
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
import yaml
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws
from nightshift.accounts import store as accounts
from nightshift.accounts.quotas import Quotas
from nightshift.batches import charges, executions
from nightshift.batches import store as batches
from nightshift.batches.record import Batch, BatchUsage, Planned, RequestCounts
from nightshift.core import aws
from nightshift.results.usage import Usage
from nightshift.routes import form
from nightshift.routes import store as routes
from nightshift.routes.health import Health, reported, trouble_of
from nightshift.routes.lease import Lease
from nightshift.routes.state import RouteState
from nightshift.submissions.record import Submission
from nightshift.submissions.store import SubmissionStore
from nightshift_cli.admin import cost
from nightshift_cli.admin import stack as cli_stack
from nightshift_cli.main import app
from typer.testing import CliRunner, Result

OUTPUTS = {
    "AccountsTable": "accounts-of-the-stack",
    "BatchesTable": "batches-of-the-stack",
    "FilesTable": "files-of-the-stack",
    "IdempotencyKeysTable": "idempotency-keys-of-the-stack",
    "BucketName": "bucket-of-the-stack",
    "LogGroupName": "/nightshift/of-the-stack",
    "RoutesTable": "routes-of-the-stack",
    "RouteStateTable": "route-state-of-the-stack",
    "StateMachineArn": "arn:aws:states:eu-west-1:123456789012:stateMachine:of-the-stack",
    "WebhookQueueUrl": "https://sqs.eu-west-1.amazonaws.com/123456789012/webhooks",
    "WebhookDeadLettersUrl": "https://sqs.eu-west-1.amazonaws.com/123456789012/dead-letters",
}
stack_outputs = cli_stack.stack_outputs
ROUTE = "{model: m, provider: p, base_url: 'https://up.test/v1', upstream_model: u, sku: {id: s}}"


_boto3_client = boto3.client


def client(service: str, **arguments: Any) -> Any:
    """A client of boto3, made once for all tests: making it takes longer than a test, and moto's state is not in it."""
    return _made(service, os.environ.get("AWS_DEFAULT_REGION"), os.environ.get("AWS_ENDPOINT_URL"), **arguments)


@cache
def _made(service: str, _region: str | None, _endpoint: str | None, **arguments: Any) -> Any:
    return _boto3_client(service, **arguments)  # type: ignore[call-overload]


@pytest.fixture(autouse=True)
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A deployed stack: its tables, and outputs that name them."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    # Set first, so that monkeypatch also undoes what the commands set.
    for name in (*cli_stack.OUTPUTS, "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    with mock_aws():
        client("dynamodb", region_name="eu-west-1").create_table(
            TableName=OUTPUTS["IdempotencyKeysTable"],
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        )
        for name in (output for key, output in OUTPUTS.items() if key.endswith("Table") and "Idempotency" not in key):
            client("dynamodb", region_name="eu-west-1").create_table(
                TableName=name,
                BillingMode="PAY_PER_REQUEST",
                KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in ("pk", "sk", "open")],
                GlobalSecondaryIndexes=[
                    {
                        "IndexName": batches.OPEN_INDEX,
                        "KeySchema": [{"AttributeName": "open", "KeyType": "HASH"}],
                        "Projection": {"ProjectionType": "ALL"},
                    }
                ],
            )
        client("logs", region_name="eu-west-1").create_log_group(logGroupName=OUTPUTS["LogGroupName"])
        client("s3", region_name="eu-west-1").create_bucket(
            Bucket=OUTPUTS["BucketName"], CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
        for name in ("webhooks", "dead-letters"):
            client("sqs", region_name="eu-west-1").create_queue(QueueName=name)
        monkeypatch.setattr(boto3, "client", client)
        monkeypatch.setattr(cli_stack, "stack_outputs", lambda _: OUTPUTS)
        aws._client.cache_clear()
        yield
    aws._client.cache_clear()


def admin(*arguments: str, region: str | None = "eu-west-1") -> Result:
    options = ["--region", region] if region else []
    return CliRunner().invoke(app, ["admin", *arguments, *options], catch_exceptions=False)


def test_account_is_created_and_listed() -> None:
    created = admin("accounts", "create", "acme")
    head, line = admin("accounts", "list").stdout.splitlines()

    assert created.stdout.startswith("acct_")
    assert head.split() == ["ID", "NAME", "WEIGHT", "STATE", "CREATED"]
    assert line.split()[:4] == [created.stdout.strip(), "acme", "1", "active"]


def test_account_name_is_unique() -> None:
    admin("accounts", "create", "acme")

    again = admin("accounts", "create", "acme")

    assert (again.exit_code, again.stderr) == (2, "Error: An account named acme already exists.\n")
    assert len(accounts.list_accounts()) == 1


def quotas(*arguments: str) -> dict[str, list[str]]:
    lines = admin("accounts", "quotas", "acme", *arguments).stdout.splitlines()
    return {name: rest for name, *rest in (line.split() for line in lines)}


def test_quotas_have_defaults() -> None:
    account_id = admin("accounts", "create", "acme").stdout.strip()

    assert quotas() == {
        "LIMIT": ["VALUE", "SET", "BY", "USED"],
        "active-batches": ["100", "default", "0"],
        "queued-requests": ["5000000", "default", "0"],
        "stored-bytes": ["107374182400", "default", "0"],
        "dollars-a-day": ["-", "default", "0.0"],
        "dollars-a-month": ["-", "default", "0.0"],
    }
    assert quotas("--active-batches", "0")["active-batches"][:2] == ["0", "account"]
    assert accounts.get(account_id).own_quotas == {"active_batches": 0}


def test_setting_a_quota_keeps_the_others() -> None:
    account_id = admin("accounts", "create", "acme").stdout.strip()
    quotas("--active-batches", "5", "--stored-bytes", "100")

    shown = quotas("--active-batches", "7", "--queued-requests", "8")

    assert [shown[name][0] for name in ("active-batches", "queued-requests", "stored-bytes")] == ["7", "8", "100"]
    assert shown == quotas()
    assert accounts.get(account_id).quotas == Quotas(active_batches=7, queued_requests=8, stored_bytes=100)


def test_spend_limit_is_set_shown_and_reset() -> None:
    account_id = admin("accounts", "create", "acme").stdout.strip()
    assert charges.ChunkCharges(account_id, "batch_1", 0).charge(0, 1_250_000_000)

    shown = quotas("--dollars-a-day", "2.5")

    assert shown["dollars-a-day"] == ["2.5", "account", "1.25"]
    assert accounts.get(account_id).quotas.dollars_a_day == 2.5
    assert quotas("--reset", "dollars-a-day")["dollars-a-day"] == ["-", "default", "1.25"]
    assert accounts.get(account_id).own_quotas == {}
    wrong = admin("accounts", "quotas", "acme", "--reset", "dollars")
    words = "There is no limit dollars. There are: active-batches, queued-requests, stored-bytes, dollars-a-day"
    assert (wrong.exit_code, wrong.stderr) == (2, f"Error: {words}, dollars-a-month.\n")


def test_new_limit_wakes_batches_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    account_id = admin("accounts", "create", "acme").stdout.strip()
    batches.put(ended_batch(account_id, status="in_progress"))
    woken: list[tuple[str, str]] = []
    monkeypatch.setattr(executions, "wake_parked", lambda *batch: woken.append(batch))

    quotas("--dollars-a-month", "100")
    quotas("--dollars-a-month", "100")

    assert [account for account, _ in woken] == [account_id]


def test_negative_quota_is_wrong_usage() -> None:
    admin("accounts", "create", "acme")

    assert admin("accounts", "quotas", "acme", "--stored-bytes=-1").exit_code == 2
    assert quotas()["stored-bytes"][1] == "default"


@pytest.mark.parametrize("by", ["name", "id"])
def test_key_is_printed_once(by: str) -> None:
    account_id = admin("accounts", "create", "acme").stdout.strip()
    account = "acme" if by == "name" else account_id

    created = admin("keys", "create", "--account", account)
    listed = admin("keys", "list", "--account", account)

    api_key = created.stdout.removesuffix("\n")
    assert accounts.authenticate(api_key) == account_id
    assert api_key not in created.stderr
    assert api_key not in listed.output
    assert listed.stdout.splitlines()[1].split()[0] in created.stderr


def test_revoked_key_is_deleted() -> None:
    admin("accounts", "create", "acme")
    api_key = admin("keys", "create", "--account", "acme").stdout.strip()
    key_id = admin("keys", "list", "--account", "acme").stdout.splitlines()[1].split()[0]

    revoked = admin("keys", "revoke", key_id, "--account", "acme")

    assert (revoked.exit_code, accounts.authenticate(api_key)) == (0, None)
    assert len(admin("keys", "list", "--account", "acme").stdout.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("accounts", "quotas", "nobody", "--active-batches", "1"),
        ("keys", "create", "--account", "nobody"),
        ("keys", "revoke", "key_1", "--account", "acme"),
    ],
)
def test_unknown_account_or_key_is_an_error(arguments: tuple[str, ...]) -> None:
    admin("accounts", "create", "acme")

    result = admin(*arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")


def test_routes_are_applied_and_listed(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(f"- {ROUTE}\n")

    applied = admin("routes", "apply", str(file))
    again = admin("routes", "apply", str(file))

    assert applied.stdout == "+ m, p, s\nRoutes written: 1; deleted: 0.\n"
    assert again.stdout == "Routes written: 1; deleted: 0.\n"
    assert admin("routes", "list").stdout.splitlines()[1].split()[:4] == ["m", "p", "u", "https://up.test/v1"]


@pytest.mark.parametrize(
    ("secret", "is_readable"),
    [("mine/key", True), ("arn:aws:secretsmanager:eu-west-1:123456789012:secret:mine/key-a1", True), ("key", False)],
)
def test_a_secret_that_workers_may_not_read_is_said(
    secret: str, is_readable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_stack, "stack_outputs", lambda _: OUTPUTS | {"SecretsPrefix": "mine/"})
    file = tmp_path / "routes.yaml"
    file.write_text(f"- {ROUTE[:-1]}, api_key_secret: '{secret}'}}\n")

    applied = admin("routes", "apply", str(file))

    assert applied.exit_code == 0
    assert ("begin with mine/, and key does not" in applied.stderr) is not is_readable


def test_a_change_of_routes_is_shown_before_it_is_made(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(f"- {ROUTE}\n- {ROUTE.replace('provider: p', 'provider: q')}\n")
    admin("routes", "apply", str(file))
    before = routes.all_routes()
    changed = ROUTE.replace("up.test", "new.test").replace("{id: s}", "{id: s, input_per_million: 2}")
    file.write_text(f"- {changed[:-1]}, max_concurrency: 9}}\n- {ROUTE.replace('model: m', 'model: n')}\n")

    shown = admin("routes", "apply", str(file), "--dry-run")

    assert shown.stdout.splitlines() == [
        "~ m, p, s: base_url https://up.test/v1 -> https://new.test/v1",
        "~ m, p, s: max_concurrency 256 -> 9",
        "~ m, p, s: sku.input_per_million None -> 2.0",
        "- m, q, s",
        "+ n, p, s",
        "Nothing was changed.",
    ]
    assert routes.all_routes() == before
    applied = admin("routes", "apply", str(file)).stdout.splitlines()
    assert applied == [*shown.stdout.splitlines()[:-1], "Routes written: 2; deleted: 1."]


def test_invalid_routes_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(f"- {ROUTE}\n")
    admin("routes", "apply", str(file))
    before = routes.all_routes()
    file.write_text(
        f"- {ROUTE.replace('up.test', 'new.test')}\n"
        f"- {ROUTE.replace('model: m', 'model: n, priority: high')}\n"
        f"- {ROUTE.replace('https:', 'ftp:')}\n"
        f"- {ROUTE.replace('id: s', 'id: s, prize: 3')}\n"
        f"- {ROUTE}\n"
        "- m\n"
    )

    result = admin("routes", "apply", str(file))

    assert result.exit_code == 2
    assert result.stderr.splitlines()[1:] == [
        "  entry 2 (model n): Expected `int`, got `str` - at `$.priority`",
        "  entry 3 (model m): base_url must be an http:// or https:// URL",
        "  entry 4 (model m): Object contains unknown field `prize` - at `$.sku`",
        "  entry 5 (model m): an earlier entry has the same model, provider and sku.id",
        "  entry 6: Expected `object`, got `str`",
    ]
    assert routes.all_routes() == before


@pytest.mark.parametrize("content", [b"", b"[]", b"model: m", b"- {model: m", b"\xff\xfe\xff"])
def test_file_without_a_list_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "routes.yaml"
    file.write_bytes(content)

    result = admin("routes", "apply", str(file))

    assert result.exit_code == 2
    assert str(file) in result.stderr


def test_tables_come_from_the_stack_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    cloudformation = boto3.client("cloudformation", region_name="eu-west-1")
    monkeypatch.setattr(boto3, "client", lambda _: cloudformation)
    stack = {"StackName": "mine", "CreationTime": "2026-01-01", "StackStatus": "CREATE_COMPLETE"}
    outputs = [{"OutputKey": name, "OutputValue": value} for name, value in OUTPUTS.items()]
    with Stubber(cloudformation) as stub:
        stub.add_response("describe_stacks", {"Stacks": [{**stack, "Outputs": outputs}]}, {"StackName": "mine"})

        assert stack_outputs("mine") == OUTPUTS


def test_unknown_stack_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(stack_name: str) -> dict[str, str]:
        error = {"Code": "ValidationError", "Message": f"Stack with id {stack_name} does not exist"}
        raise ClientError({"Error": error}, "DescribeStacks")  # type: ignore[typeddict-item]

    monkeypatch.setattr(cli_stack, "stack_outputs", refuse)

    result = admin("accounts", "list", "--stack-name", "nowhere")

    assert result.exit_code == 2
    assert "Stack with id nowhere does not exist" in result.stderr


def test_another_kind_of_stack_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_stack, "stack_outputs", lambda _: {})

    result = admin("accounts", "list", "--stack-name", "other")

    assert result.exit_code == 2
    assert "The stack other has no output AccountsTable" in result.stderr


def test_missing_region_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(cli_stack, "stack_outputs", stack_outputs)

    result = admin("accounts", "list", region=None)

    assert (result.exit_code, result.stderr) == (2, "Error: AWS: You must specify a region.\n")


def test_local_removes_aws_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of production")
    monkeypatch.setenv("NIGHTSHIFT_LOCAL_DIR", str(tmp_path))
    endpoint = "https://dynamodb.eu-west-1.amazonaws.com"
    description = {"base_url": "http://localhost/v1", "region": "eu-west-1", "stack_name": "nightshift"}
    (tmp_path / "stack.json").write_text(json.dumps({**description, "aws_endpoint_url": endpoint}))

    admin("accounts", "list", "--local", region=None)

    assert {name: value for name, value in os.environ.items() if name.startswith("AWS_")} == {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "eu-west-1",
    }


def test_weight_is_set() -> None:
    admin("accounts", "create", "acme")
    assert admin("accounts", "set", "acme", "--weight", "3").exit_code == 0
    assert admin("accounts", "list").stdout.splitlines()[1].split()[2] == "3"


def test_route_is_paused_drained_and_resumed(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(f"[{ROUTE}]")
    admin("routes", "apply", str(file))
    for command, shown in (("pause", "paused, healthy"), ("drain", "draining, healthy"), ("resume", "healthy")):
        assert admin("routes", command, "m").exit_code == 0
        assert shown in re.split(r"  +", admin("routes", "status").stdout.splitlines()[1])
    assert admin("routes", "pause", "m", "--provider", "other").exit_code != 0


def test_status_shows_the_providers_words_and_who_waits(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(f"[{ROUTE}]")
    admin("routes", "apply", str(file))
    state = RouteState("m\np\ns")
    now = time.time()
    for worker, granted in (("w1", 32), ("w2", 0)):
        lease = Lease(
            worker=worker,
            account_id="acct_1",
            batch_id=worker,
            batch_created_at=1,
            chunk=0,
            wanted=64,
            granted=granted,
            in_use=granted,
            since=now,
            expires_at=now + 100,
        )
        assert state.put(lease, None)
    assert state.put_health(reported(Health(), trouble_of(401, "Incorrect API key"), "w1", now))

    shown = admin("routes", "status").stdout.splitlines()

    assert "suspect (key)" in shown[1]
    assert shown[2] == "m, p: 401: Incorrect API key"
    assert shown[4].split() == ["ACCOUNT", "WEIGHT", "IN", "USE", "GRANTED", "WANTED", "WAITING"]
    assert shown[5].split() == ["acct_1", "1", "32", "32", "128", "1"]
    (route,) = json.loads(admin("routes", "status", "--json").stdout)
    assert (route["state"], route["words"]) == ("suspect (key)", "401: Incorrect API key")
    assert [(one["account"], one["granted"], one["waiting"]) for one in route["accounts"]] == [("acct_1", 32, 1)]


def ended_batch(account_id: str, **fields: Any) -> Batch:
    usage = msgspec.convert(Usage(10, 0, 4, 0, 14).as_dict(), BatchUsage)
    half = msgspec.convert(Usage(5, 0, 2, 0, 7).as_dict(), BatchUsage)
    route = form.parse(yaml.safe_load(ROUTE) | {"mode": "batch", "sku": {"id": "s", "input_per_million": 100_000.0}})
    given: dict[str, Any] = {
        "account_id": account_id,
        "id": "batch_1",
        "status": "completed",
        "input_file_id": "file_1",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "created_at": 1,
        "expires_at": 2,
        "plan": Planned("m", 4, 1, route),
        "request_counts": RequestCounts(4, 3, 1),
        "usage": usage,
        "batch_lines": 2,
        "batch_usage": half,
    }
    return Batch(**given | fields)


def test_a_batch_shows_its_ways_and_the_providers_ids() -> None:
    account_id = admin("accounts", "create", "acme").stdout.strip()
    batches.put(ended_batch(account_id))
    submissions = SubmissionStore("batch_1", 0, "run_1")
    submissions.claim(1.0)
    submissions.save(Submission(number=1, step="ended", since=5.0, lines=2, batch_ids=["batch-of-the-provider"]))

    shown = admin("batches", "show", "batch_1").stdout

    rows = [line.split() for line in shown.splitlines()]
    assert ["account", "acme"] in rows
    assert ["cost", "unknown", "price"] in rows
    assert ["batch", "API", "2", "5", "2", "unknown", "price"] in rows
    assert ["real", "time", "2", "5", "2", "unknown", "price"] in rows
    assert "batch-of-the-provider" in shown


def waits_for(batch: Batch) -> str | None:
    words: str | None = json.loads(admin("batches", "show", batch.id, "--json").stdout)["waits_for"]
    return words


def test_a_batch_says_why_it_waits() -> None:
    account_id = admin("accounts", "create", "acme").stdout.strip()
    batch = ended_batch(account_id, status="in_progress", plan=Planned("m", 4, 1, form.parse(yaml.safe_load(ROUTE))))
    batches.put(batch)
    assert waits_for(batch) is None

    charges.charge(charges.Source(account_id, "batch_0", "chunk#0000"), 0, 1_120_000_000)
    quotas = admin("accounts", "quotas", "acme", "--dollars-a-day", "1")

    assert quotas.stderr == "It has spent $1.12 of $1.00 a day, so its batches wait.\n"
    assert "the account has spent $1.12 of $1.00 a day" in (waits_for(batch) or "")
    state = RouteState("m\np\ns")
    state.put_control("paused")
    assert "; the route is paused: `admin routes resume m`" in (waits_for(batch) or "")
    state.put_control("open")
    admin("accounts", "quotas", "acme", "--reset", "dollars-a-day")
    assert state.put_health(reported(Health(), trouble_of(401, "Incorrect API key"), "w1", 1.0))
    assert waits_for(batch) == "the route is suspect (key): Incorrect API key"


def test_a_rescued_batch_waits_for_its_other_route_alone() -> None:
    account_id = admin("accounts", "create", "acme").stdout.strip()
    first, other = (form.parse(yaml.safe_load(ROUTE) | {"provider": name}) for name in ("p", "r"))
    plan = Planned("m", 4, 1, first)
    batch = ended_batch(account_id, status="in_progress", plan=plan, rescue_route=other)
    batches.put(batch)
    RouteState(first.id).put_control("paused")
    assert waits_for(batch) is None
    RouteState(other.id).put_control("paused")
    assert "the route is paused" in (waits_for(batch) or "")


def test_a_batch_behind_others_says_so() -> None:
    account_id = admin("accounts", "create", "acme").stdout.strip()
    batch = ended_batch(account_id, status="in_progress", plan=Planned("m", 4, 1, form.parse(yaml.safe_load(ROUTE))))
    batches.put(batch)
    given = {"account_id": account_id, "batch_id": batch.id, "batch_created_at": 1, "chunk": 0}
    lease = Lease(worker="w", wanted=4, since=1.0, expires_at=time.time() + 100, **given)  # type: ignore[arg-type]
    state = RouteState("m\np\ns")
    state.put(lease, None)
    state.put(msgspec.structs.replace(lease, worker="v", batch_id="batch_0", granted=4), None)

    assert waits_for(batch) == "others have all of its route: `admin routes status` shows who"


def test_an_unknown_batch_is_an_error() -> None:
    admin("accounts", "create", "acme")
    result = admin("batches", "show", "batch_2")
    assert result.exit_code != 0
    assert "There is no batch batch_2" in result.stderr


def priced() -> Planned:
    """A plan on a route whose tokens cost a dollar each."""
    sku = {"id": "s", "input_per_million": 1e6, "output_per_million": 1e6}
    return Planned("n", 4, 1, form.parse(yaml.safe_load(ROUTE) | {"sku": sku}))


def three_batches() -> None:
    """Two batches of acme, one of them without a price, and one of other, which has not ended."""
    acme, other = (admin("accounts", "create", name).stdout.strip() for name in ("acme", "other"))
    day = 86_400
    batches.put(ended_batch(acme, created_at=19_000 * day))
    batches.put(
        ended_batch(acme, id="batch_2", created_at=19_001 * day, plan=priced(), batch_lines=0, batch_usage=None)
    )
    batches.put(ended_batch(other, id="batch_3", created_at=19_001 * day, status="in_progress", usage=None))


def test_every_accounts_batches_are_listed() -> None:
    three_batches()

    everyone = json.loads(admin("batches", "list", "--json").stdout)
    running = json.loads(admin("batches", "list", "--open", "--json").stdout)
    of_acme = admin("batches", "list", "--account", "acme").stdout.splitlines()

    assert [(one["id"], one["account"], one["cost"]) for one in everyone] == [
        ("batch_3", "other", None),
        ("batch_2", "acme", "$14.000000"),
        ("batch_1", "acme", "unknown price"),
    ]
    assert [one["id"] for one in running] == ["batch_3"]
    assert [line.split()[0] for line in of_acme] == ["ID", "batch_2", "batch_1"]


def test_an_operator_cancels_any_batch() -> None:
    three_batches()

    assert admin("batches", "cancel", "batch_3").stdout == "batch_3 is cancelling.\n"
    assert admin("batches", "cancel", "batch_2").stdout == "batch_2 is completed.\n"


def test_a_disabled_account_stops() -> None:
    three_batches()
    api_key = admin("keys", "create", "--account", "other").stdout.strip()

    disabled = admin("accounts", "disable", "other")

    assert "Batches cancelled: 1." in disabled.stdout
    assert accounts.authenticate(api_key) is None
    assert "disabled" in admin("accounts", "list").stdout
    assert batches.get(accounts.find("other").id, "batch_3").status == "cancelling"
    assert admin("accounts", "enable", "other").exit_code == 0
    assert accounts.authenticate(api_key) is not None


def test_its_batches_may_run_to_their_ends() -> None:
    three_batches()
    admin("accounts", "disable", "other", "--keep-batches")
    assert batches.get(accounts.find("other").id, "batch_3").status == "in_progress"


def test_costs_are_summed() -> None:
    three_batches()
    range_ = ("--since", "2022-01-08", "--until", "2022-01-09")

    whole = json.loads(admin("cost", *range_, "--json").stdout)
    by_account = admin("cost", *range_, "--by", "account", "--csv")
    one_day = json.loads(
        admin("cost", "--since", "2022-01-09", "--until", "2022-01-09", "--by", "day", "--json").stdout
    )

    assert [(row["account"], row["model"], row["day"], row["dollars"]) for row in whole] == [
        ("acme", "m", "2022-01-08", "0.000000"),
        ("acme", "n", "2022-01-09", "14.000000"),
    ]
    assert by_account.stdout.splitlines() == [
        "account,batches,lines,input_tokens,output_tokens,dollars",
        "acme,2,8,20,8,14.000000",
    ]
    assert by_account.stderr == "Not in the dollars, because their routes have no prices: m by p.\n"
    assert [row["day"] for row in one_day] == ["2022-01-09"]
    assert "exclude each other" in admin("cost", "--csv", "--json").stderr


def test_costs_end_with_the_day_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    class AfterMidnight(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "AfterMidnight":
            return cls(2022, 1, 9, 1) if tz else cls(2022, 1, 8, 17)

    three_batches()
    monkeypatch.setattr(cost, "datetime", AfterMidnight)

    assert [row["day"] for row in json.loads(admin("cost", "--json").stdout)] == ["2022-01-08", "2022-01-09"]


@pytest.mark.parametrize(("options", "seconds"), [(["--overlap", "2h"], 7200), (["--overlap", "0m"], 0), ([], 86_400)])
def test_a_key_is_rotated_with_an_overlap(options: list[str], seconds: int) -> None:
    admin("accounts", "create", "acme")
    old = admin("keys", "create", "--account", "acme").stdout.strip()
    (listed,) = json.loads(admin("keys", "list", "--account", "acme", "--json").stdout)

    rotated = admin("keys", "rotate", listed["id"], "--account", "acme", *options)

    new = rotated.stdout.strip()
    assert accounts.authenticate(new) == accounts.find("acme").id
    assert accounts.authenticate(old) == (accounts.find("acme").id if seconds else None)
    assert new not in rotated.stderr
    first, second = accounts.list_keys(accounts.find("acme").id)
    assert abs((first.expires_at or 0) - time.time() - seconds) < 60
    assert second.expires_at is None


def test_a_key_has_an_end() -> None:
    admin("accounts", "create", "acme")
    admin("keys", "create", "--account", "acme", "--expires-in", "30d")
    (key,) = accounts.list_keys(accounts.find("acme").id)
    assert abs((key.expires_at or 0) - time.time() - 30 * 86_400) < 60
    assert admin("keys", "create", "--account", "acme", "--expires-in", "soon").exit_code == 2


def give_up(account_id: str, batch_id: str) -> None:
    """Put a dead letter into its queue."""
    batch = {"id": batch_id, "status": "completed", "callback_url": "https://up.test/hook"}
    detail = {"id": f"evt_{batch_id}", "account_id": account_id, "created_at": 1, "batch": batch}
    body = json.dumps({"detail": detail, "dead_letter": True})
    boto3.client("sqs", region_name="eu-west-1").send_message(
        QueueUrl=OUTPUTS["WebhookDeadLettersUrl"], MessageBody=body
    )


def test_dead_letters_are_redriven() -> None:
    sqs = boto3.client("sqs", region_name="eu-west-1")
    give_up(admin("accounts", "create", "acme").stdout.strip(), "batch_1")
    give_up("acct_other", "batch_2")

    redriven = admin("dead-letters", "redrive", "--account", "acme")

    assert redriven.stdout == "Dead letters sent again: 1.\n"
    (message,) = sqs.receive_message(QueueUrl=OUTPUTS["WebhookQueueUrl"])["Messages"]
    assert json.loads(message["Body"])["detail"]["batch"]["id"] == "batch_1"
    assert admin("dead-letters", "redrive").stdout == "Dead letters sent again: 1.\n", "the other is not hidden"


def test_dead_letters_are_listed() -> None:
    assert json.loads(admin("dead-letters", "list", "--json").stdout) == []
    give_up("acct_1", "batch_1")

    (letter,) = json.loads(admin("dead-letters", "list", "--json").stdout)

    assert (letter["batch"], letter["account"], letter["event"]) == ("batch_1", "acct_1", "batch.completed")
    assert admin("dead-letters", "redrive").stdout == "Dead letters sent again: 1.\n", "a look hides nothing"
    assert letter["callback_url"] == "https://up.test/hook"
