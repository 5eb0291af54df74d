"""`nightshift admin accounts purge` leaves no trace of an account, and everything of the others."""

import json
import time

import boto3
import msgspec
import pytest
from moto import mock_aws  # noqa: F401 (test_admin's fixture uses it)
from nightshift.accounts import store as accounts
from nightshift.batches import charges, executions, idempotency_keys
from nightshift.batches import store as batches
from nightshift.core import bucket
from nightshift.core.table import Table
from nightshift.files import store as files
from nightshift.routes.lease import Lease
from nightshift.routes.state import RouteState
from nightshift.webhooks import deliveries, receivers
from nightshift.webhooks.message import Event
from nightshift_cli.progress import Steps

from tests.unit.cli.test_admin import OUTPUTS, admin, ended_batch, stack  # noqa: F401 (a fixture)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def tenant(name: str) -> str:
    """An account with something of every kind."""
    account_id = admin("accounts", "create", name).stdout.strip()
    admin("keys", "create", "--account", name)
    receivers.set_url(account_id, "https://receiver.test/hook")
    batch_id = f"batch_{account_id}"
    batches.put(ended_batch(account_id, id=batch_id))
    Table("batches").update(account_id, batch_id, remove=["open"])  # as its end does
    batches.put_progress(batch_id, 0, completed=1, failed=0)
    batches.put_carry(batch_id, 0, "{}")
    charges.ChunkCharges(account_id, batch_id, 0).charge(0, 5)
    batch = {"id": batch_id, "status": "completed", "callback_url": None}
    event = Event(id=f"evt_{account_id}", account_id=account_id, created_at=1, batch=batch)
    deliveries.begin(event, "https://receiver.test/hook")
    letter = json.dumps({"detail": msgspec.to_builtins(event), "dead_letter": True})
    sqs = boto3.client("sqs", region_name="eu-west-1")
    sqs.send_message(QueueUrl=OUTPUTS["WebhookDeadLettersUrl"], MessageBody=letter)
    files.record(account_id, f"file_{account_id}", filename="a", purpose="batch", size=1, expires_at=None)
    for key in (f"files/{account_id}/file_1", f"uploads/{account_id}/upload_1/part_1", f"work/{batch_id}/plan.json"):
        bucket.put(key, b"x")
    idempotency_keys.batch_id_for(account_id, "k")
    state = RouteState("m\np\ns")
    state.begin_turn(account_id, time.time())
    lease = Lease(
        worker="run_1",
        account_id=account_id,
        weight=1,
        batch_id=batch_id,
        batch_created_at=1,
        chunk=0,
        wanted=0,
        since=0.0,
        expires_at=0.0,
    )
    assert state.put(lease, None)
    return account_id


def everything() -> str:
    """All that the stack stores, as text."""
    dynamodb = boto3.client("dynamodb", region_name="eu-west-1")
    s3 = boto3.client("s3", region_name="eu-west-1")
    tables = [name for key, name in OUTPUTS.items() if key.endswith("Table")]
    items = [dynamodb.scan(TableName=name)["Items"] for name in tables]
    objects = s3.list_objects_v2(Bucket=OUTPUTS["BucketName"]).get("Contents", [])
    return json.dumps([items, [found["Key"] for found in objects]])


def letters() -> int:
    """How many dead letters there are, with those that were just read."""
    sqs = boto3.client("sqs", region_name="eu-west-1")
    found = sqs.get_queue_attributes(QueueUrl=OUTPUTS["WebhookDeadLettersUrl"], AttributeNames=["All"])
    counts = found["Attributes"]
    return int(counts["ApproximateNumberOfMessages"]) + int(counts["ApproximateNumberOfMessagesNotVisible"])


def test_no_trace_is_left_and_others_keep_theirs() -> None:
    gone, other = tenant("gone"), tenant("other")
    before = everything()
    assert before.count(gone) == before.count(other) > 15

    report = admin("accounts", "purge", "gone", "--yes", "--json")

    assert report.exit_code == 0, report.output
    after = everything()
    assert gone not in after
    assert after.count(other) == before.count(other)
    assert letters() == 1
    rows = json.loads(report.stdout)
    assert all(row["deleted"] > 0 for row in rows), rows
    assert report.stderr.startswith("What remains: ids in the logs"), "a pipe sees no progress"
    assert report.stderr.count("\n") == 1
    assert admin("accounts", "purge", "gone", "--yes").exit_code == 2


def test_open_batches_are_cancelled_and_waited_for(monkeypatch: pytest.MonkeyPatch, no_pauses: list[float]) -> None:
    account_id = admin("accounts", "create", "acme").stdout.strip()
    batches.put(ended_batch(account_id, status="in_progress"))
    monkeypatch.setattr(executions, "wake", lambda _: True)
    times = iter(range(int(time.time()), int(time.time()) + 100_000, 400))
    monkeypatch.setattr(time, "time", lambda: float(next(times)))

    still_open = admin("accounts", "purge", "acme", "--yes")

    assert still_open.exit_code == 2
    assert "1 batches have not ended yet. Nothing was deleted" in still_open.stderr
    assert accounts.get(account_id).disabled_at
    assert batches.list_page(account_id, limit=5, after=None)[0][0].status == "cancelling"
    assert no_pauses


def test_a_terminal_shows_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    tenant("gone")
    shown: list[str] = []
    monkeypatch.setattr(Steps, "describe", lambda _, step: shown.append(step))

    rows = json.loads(admin("accounts", "purge", "gone", "--yes", "--json").stdout)

    assert shown[:2] == ["waiting until its keys have stopped working", "ending its batches"]
    assert shown[2:] == [f"deleting {row['what']}" for row in rows]


def test_purge_asks_first() -> None:
    account_id = admin("accounts", "create", "acme").stdout.strip()
    assert admin("accounts", "purge", "acme").exit_code == 1
    assert accounts.get(account_id).disabled_at is None
