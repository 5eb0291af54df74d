"""Routes with `mode: batch`, on the deployed template: the provider is the simulator, or Nightshift itself.

`make test` runs this small; RELAY_LINES runs Nightshift behind Nightshift with more lines.
"""

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from nightshift.batches import store as batches
from nightshift.routes import form
from nightshift.routes import store as routes

from local.settings import MODEL, SECRET
from tests.e2e.conftest import Account, Killer, Local, Receiver, assert_every_line_once, batch_file, wait_for
from tests.e2e.looks import change_submission, record_of, sweep_looks

LINES = int(os.environ.get("RELAY_LINES", "1000"))
RELAY_SECRET = f"{SECRET}-relay"


@pytest.fixture
def route(local: Local, operator: None) -> Callable[..., str]:
    """Apply a route in batch mode; returns its model."""

    def apply(model: str, **fields: Any) -> str:
        entry = {
            "model": model,
            "provider": "simulator",
            "base_url": local.description["upstream_url"],
            "upstream_model": "simulated-model",
            "mode": "batch",
            "sku": {"id": "half", "input_per_million": 0.5, "output_per_million": 1.0},
            "api_key_secret": SECRET,
        }
        routes.apply([form.parse(entry | fields)])
        return model

    return apply


def submitted_twice(local: Local) -> int:
    twice: int = local.upstream.counters()["submitted_twice_or_more"]
    return twice


def test_a_batch_goes_through_the_providers_batch_api(local: Local, route: Callable[..., str]) -> None:
    local.upstream.set(batch_start_seconds=2, batch_seconds=3)
    batch = local.create(batch_file(500, route("half-price")))
    ended = local.ended(batch)
    assert ended.status == "completed"
    assert_every_line_once(local, batch.id, 500)
    assert ended.in_progress_at is not None
    assert ended.in_progress_at >= ended.created_at + 2
    counters = local.upstream.counters()
    assert (counters["received"], counters["batches_created"], submitted_twice(local)) == (0, 1, 0)
    assert counters["files_held"] == 0
    lines = local.lines(ended.output_file_id)
    assert {line["response"]["body"]["model"] for line in lines} == {"half-price"}
    assert "provider_batch" not in ended.to_json()


def test_a_cancel_reaches_the_provider(local: Local, route: Callable[..., str]) -> None:
    local.upstream.set(batch_seconds=600)
    batch = local.create(batch_file(200, route("half-price")))
    wait_for(lambda: local.client.batches.retrieve(batch.id).status == "in_progress")
    local.client.batches.cancel(batch.id)
    assert local.ended(batch, 60).status == "cancelled"
    assert local.upstream.counters()["cancels"] == 1
    assert_every_line_once(local, batch.id, 200, {"batch_cancelled"})


def test_the_sweep_wakes_a_batch_that_has_ended_at_its_provider(
    local: Local, operator: None, route: Callable[..., str]
) -> None:
    local.upstream.set(batch_seconds=3600)
    batch = local.create(batch_file(200, route("half-price")))
    wait_for(lambda: local.client.batches.retrieve(batch.id).status == "in_progress")
    # As if the provider had worked for an hour, and a look were due.
    change_submission(batch.id, since=time.time() - 3600)
    wait_for(lambda: (record_of(batch.id).parked_until or 0) > time.time() + 3600)
    sleeping = record_of(batch.id)
    assert sleeping.look_at is not None
    assert sleeping.look_at < time.time() + 1900
    local.upstream.set(batch_seconds=0)
    sweep_looks(local, batch.id)

    assert local.ended(batch, 60).status == "completed"
    assert_every_line_once(local, batch.id, 200)
    assert batches.get(sleeping.account_id, batch.id).execution == sleeping.execution + 1
    assert submitted_twice(local) == 0


def test_killed_workers_submit_nothing_twice(
    local: Local, route: Callable[..., str], killing: Callable[..., Killer]
) -> None:
    local.upstream.set(batch_start_seconds=1, batch_seconds=5, files_late_seconds=2)
    batch = local.create(batch_file(300, route("half-price", batch={"max_requests": 150})))
    killer = killing("RunChunk", (0.3, 1.5), times=4)
    ended = local.ended(batch, 240)
    killer.stop()
    assert ended.status == "completed"
    assert_every_line_once(local, batch.id, 300)
    assert submitted_twice(local) == 0


def test_nightshift_behind_nightshift(
    local: Local, account: Account, route: Callable[..., str], receive: Callable[..., Receiver]
) -> None:
    """One stack is its own upstream: another account's key is the provider's, and both ends have a callback."""
    secrets = local.aws("secretsmanager")
    try:
        secrets.create_secret(Name=RELAY_SECRET, SecretString=account.key)
    except secrets.exceptions.ResourceExistsException:
        secrets.put_secret_value(SecretId=RELAY_SECRET, SecretString=account.key)
    outer, inner = receive(), receive()
    account.client.put("/webhook", body={"url": inner.url}, cast_to=object)
    base_url = local.description["base_url"]
    model = route(
        "relayed", base_url=base_url, provider="nightshift", upstream_model=MODEL, api_key_secret=RELAY_SECRET
    )

    batch = local.create(batch_file(LINES, model), callback_url=outer.url)
    ended = local.ended(batch, 120 + LINES / 20)

    assert ended.status == "completed"
    assert_every_line_once(local, batch.id, LINES)
    for line in local.lines(ended.output_file_id):
        body = line["response"]["body"]
        assert body["choices"][0]["message"]["content"] == f"Sentence {line['custom_id'].removeprefix('request-')}."
        assert body["model"] == model
    [behind] = account.client.batches.list().data
    assert behind.status == "completed"
    for receiver in (outer, inner):
        wait_for(lambda: receiver.received)  # noqa: B023 (it is called at once)
        assert [json.loads(body)["type"] for _, body in receiver.received] == ["batch.completed"]
    assert account.client.files.list().data == [], "the provider's copies are deleted"
