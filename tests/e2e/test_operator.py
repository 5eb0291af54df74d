"""What an operator does with `nightshift admin`, and what callers notice of it."""

import json
import time
import uuid

import pytest
from nightshift.batches import store as batches
from nightshift.core.table import Table
from nightshift.routes import form
from nightshift.routes import store as routes
from nightshift.routes.endpoint import ENDPOINTS
from openai import AuthenticationError, RateLimitError

from local.settings import SECRET
from tests.e2e.conftest import Account, Local, Receiver, batch_file, wait_for


def test_from_an_account_to_its_end(local: Local) -> None:
    name = f"team-{uuid.uuid4().hex[:8]}"
    local.admin("accounts", "create", name)
    first = local.admin("keys", "create", "--account", name).stdout.strip()
    (key,) = json.loads(local.admin("keys", "list", "--account", name, "--json").stdout)

    file = local.openai(first).files.create(file=("input.jsonl", batch_file(2)), purpose="batch")
    batch = local.openai(first).batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    wait_for(lambda: local.openai(first).batches.retrieve(batch.id).status == "completed")

    (listed,) = json.loads(local.admin("batches", "list", "--account", name, "--json").stdout)
    assert (listed["id"], listed["status"], listed["lines"]) == (batch.id, "completed", 2)
    (spent,) = json.loads(local.admin("cost", "--account", name, "--by", "model", "--json").stdout)
    assert (spent["model"], spent["batches"], spent["lines"]) == ("demo-model", 1, 2)

    second = local.admin("keys", "rotate", key["id"], "--account", name, "--overlap", "1h").stdout.strip()
    assert local.openai(first).batches.retrieve(batch.id).id == batch.id
    assert local.openai(second).batches.retrieve(batch.id).id == batch.id

    local.upstream.set(held=True)
    running = local.openai(second).batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    unused = local.admin("keys", "create", "--account", name).stdout.strip()
    assert "Batches cancelled: 1." in local.admin("accounts", "disable", name).stdout
    local.upstream.set(held=False)
    # One that no function has looked up: others are known for a minute.
    with pytest.raises(AuthenticationError):
        local.openai(unused).models.list()
    local.admin("accounts", "enable", name)
    assert local.openai(unused).models.list().data
    wait_for(lambda: local.openai(unused).batches.retrieve(running.id).status == "cancelled")


# Enough for two workers: each has up to 500 requests in flight, and 4,000 lines.
LINES, IN_FLIGHT = 8_000, 1_000
# Of a line of ``batch_file``, which has four words and two in its answer. It is a cent.
CENTS_PER_MILLION = {"input_per_million": 1_250, "output_per_million": 2_500}
LIMIT_CENTS = 2_000


@pytest.mark.usefixtures("operator")
def test_a_spend_limit_holds_a_batch_until_it_is_raised(local: Local) -> None:
    """Two workers of one batch spend the limit, to the cent, and no more than what they have in flight then."""
    model = f"priced-{uuid.uuid4().hex[:8]}"
    entry = {
        "model": model,
        "provider": "simulator",
        "base_url": local.description["upstream_url"],
        "upstream_model": "simulated-model",
        "sku": {"id": "priced", **CENTS_PER_MILLION},
        "api_key_secret": SECRET,
        "max_concurrency": IN_FLIGHT + 1,
    }
    routes.apply([form.parse(entry)])
    account = Account(local)
    local.admin("accounts", "quotas", account.id, "--dollars-a-day", str(LIMIT_CENTS / 100))
    local.upstream.set(latency_ms=200)
    batch = account.create(account.upload(batch_file(LINES, model=model)))

    def spent_cents() -> float:
        rows = json.loads(local.admin("accounts", "quotas", account.id, "--json").stdout)
        return round(100 * float(next(row["used"] for row in rows if row["limit"] == "dollars-a-day")), 6)

    wait_for(lambda: batches.get(account.id, batch.id).parked_until)
    plan = batches.get(account.id, batch.id).plan
    assert plan is not None
    assert plan.chunks == 2
    counts = account.client.batches.retrieve(batch.id).request_counts
    assert counts is not None
    assert spent_cents() == counts.completed
    assert LIMIT_CENTS <= spent_cents() <= LIMIT_CENTS + IN_FLIGHT
    with pytest.raises(RateLimitError, match=r"spent its limit of \$20.00 a day"):
        account.create(account.upload(batch_file(1, model=model)))

    local.upstream.set(latency_ms=0)
    local.admin("accounts", "quotas", account.id, "--reset", "dollars-a-day")
    ended = account.ended(batch)
    assert ended.status == "completed"
    assert ended.output_file_id is not None
    lines = [json.loads(line) for line in account.client.files.content(ended.output_file_id).text.splitlines()]
    assert [line["custom_id"] for line in lines] == [f"request-{number}" for number in range(LINES)]
    usages = [line["response"]["body"]["usage"] for line in lines]
    dollars = (
        sum(
            usage["prompt_tokens"] * CENTS_PER_MILLION["input_per_million"]
            + usage["completion_tokens"] * CENTS_PER_MILLION["output_per_million"]
            for usage in usages
        )
        / 1_000_000
    )
    assert spent_cents() == round(100 * dollars, 6) == LINES
    (row,) = json.loads(local.admin("cost", "--account", account.id, "--by", "account", "--json").stdout)
    assert row["dollars"] == f"{dollars:.6f}"


@pytest.mark.usefixtures("operator")
def test_a_purged_account_leaves_no_trace(local: Local) -> None:
    gone, other = Account(local), Account(local)
    receiver = Receiver([])
    try:
        done = [one.ended(one.create(callback_url=receiver.url)) for one in (gone, other)]
        wait_for(lambda: len(receiver.received) == 2)
    finally:
        receiver.close()
    running = gone.create(gone.upload(batch_file(50)))
    # Long enough ago that no function remembers its keys.
    Table("accounts").update(gone.id, "account", set={"disabled_at": int(time.time()) - 100})

    report = json.loads(local.admin("accounts", "purge", gone.id, "--yes", "--json").stdout)

    assert {row["what"] for row in report if row["deleted"]} >= {"files", "batches, chunks and deliveries"}
    stored = local.stored()
    assert not [name for name in (gone.id, done[0].id, running.id) if name in stored]
    assert other.id in stored
    assert other.client.batches.retrieve(done[1].id).status == "completed"
    assert gone.id not in local.admin("accounts", "list").stdout


def test_the_doctor_tries_everything_and_leaves_nothing(local: Local) -> None:
    receiver = Receiver([])
    try:
        report = local.admin(
            "doctor", "--spend", "--model", "demo-model", "--webhook", receiver.url, "--json", check=False
        )
    finally:
        receiver.close()
    assert report.stdout, report.stderr
    found = {(row["check"], row["state"]): row["what"] for row in json.loads(report.stdout)}
    names = {check for check, _ in found}
    assert names >= {"stack", "functions", "concurrency", "alarms", "dead letters", "dns", "api", "clock"}
    assert names >= {"storage", "large bodies", "purge", "engine", "webhook"}
    assert not {check for check, state in found if state == "fail"}, found
    assert found["webhook", "ok"]
    assert {check for check, _ in found if check.startswith("route demo-model")}
    tried = [row["what"] for row in json.loads(report.stdout) if "It answered a line of" in row["what"]]
    assert len(tried) == len(ENDPOINTS)
    assert "doctor-" not in local.admin("accounts", "list").stdout + local.admin("routes", "list").stdout
