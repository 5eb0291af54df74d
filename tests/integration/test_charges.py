"""What a batch charges to its account, and where its limit holds it up."""

import json
import time
from typing import Any

import msgspec
import pytest
from nightshift.accounts import store as accounts
from nightshift.accounts.quotas import Quotas
from nightshift.accounts.spend import DOLLAR, Spend
from nightshift.batches import charges
from nightshift.batches import store as batches
from nightshift.batches.charges import ChunkCharges, charge, spent
from nightshift.core.table import Table
from nightshift.input import plan
from nightshift.routes.route import Sku

from tests.integration.support import Caller, Exchange, Server, apply_route, input_lines, invoke, run_chunk

PRICED = Sku("priced", input_per_million=1_000_000, output_per_million=2_000_000)  # a token is a dollar, or two


@pytest.fixture(autouse=True)
def one_dollar_an_answer(upstream: Server) -> None:
    apply_route(upstream.url, sku=PRICED, max_concurrency=2)

    def answer(exchange: Exchange) -> None:
        usage = {"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 1}
        exchange.reply(200, json.dumps({"object": "chat.completion", "model": "m", "usage": usage}).encode())

    upstream.behave = answer


def limit(caller: Caller, **quotas: float) -> None:
    accounts.set_quotas(caller.account_id, quotas)


def dollars(amount: float) -> Spend:
    return Spend(round(amount * DOLLAR), round(amount * DOLLAR))


def test_the_end_of_a_batch_charges_its_cost_once(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(3))
    alice.run_chunks(batch_id)
    assert spent(alice.account_id) == Spend()  # without a limit nobody has to know before
    batch = batches.get(alice.account_id, batch_id)
    assert alice.finalize(batch_id)["status"] == "completed"
    assert spent(alice.account_id) == dollars(3)
    charges.settle(batch, 3 * DOLLAR)
    assert spent(alice.account_id) == dollars(3)


def test_a_batch_stops_at_the_limit_and_goes_on_when_it_is_raised(alice: Caller, upstream: Server) -> None:
    limit(alice, dollars_a_day=4)
    batch_id = alice.begin(input_lines(20))
    (waits,) = alice.run_chunks(batch_id)
    sent = len(upstream.received)
    assert 4 <= sent <= 5, "the limit, and what was in flight"
    assert waits["state"] in ("park", "wait")
    (visit,) = alice("GET", f"/batches/{batch_id}/visits").json["data"]
    assert (visit["outcome"], visit["waits_for"], visit["requests_sent"]) == ("waits", "spend_limit", sent)
    assert spent(alice.account_id) == dollars(sent)
    # Another visit sends nothing, and a new batch is refused.
    assert alice.run_chunks(batch_id)[0]["state"] in ("park", "wait")
    assert len(upstream.received) == sent
    refused = alice("POST", "/batches", json_body={"input_file_id": alice.upload(input_lines(1))})
    assert (refused.status, refused.error["code"]) == (429, "quota_exceeded")
    assert "$4.00 a day" in refused.error["message"]
    limit(alice, dollars_a_day=4, dollars_a_month=1000)
    assert alice.run_chunks(batch_id)[0]["state"] in ("park", "wait")
    limit(alice, dollars_a_day=100)
    assert alice.run_chunks(batch_id)[0]["state"] == "done"
    batch = alice.finalize(batch_id)
    assert [line["custom_id"] for line in alice.lines(batch["output_file_id"])] == [f"r{n}" for n in range(20)]
    assert len(upstream.received) == 20
    assert spent(alice.account_id) == dollars(20)


def test_a_cancelled_batch_gives_back_what_a_killed_worker_had_taken(alice: Caller) -> None:
    limit(alice, dollars_a_month=50)
    batch_id = alice.begin(input_lines(3))
    killed = ChunkCharges(alice.account_id, batch_id, 0)
    assert killed.charge(0, 7 * DOLLAR)
    assert spent(alice.account_id) == dollars(7)
    alice("POST", f"/batches/{batch_id}/cancel")
    assert alice.finalize(batch_id)["status"] == "cancelled"
    assert spent(alice.account_id) == Spend()


def test_a_charge_is_made_once_and_within_the_quotas(alice: Caller) -> None:
    own, other = (ChunkCharges(alice.account_id, "batch_1", chunk) for chunk in (0, 1))
    quotas = Quotas(dollars_a_day=10, dollars_a_month=100)
    assert own.charge(0, 6 * DOLLAR, quotas)
    assert not own.charge(0, 6 * DOLLAR, quotas), "it is charged already"
    assert not other.charge(0, 5 * DOLLAR, quotas), "the day has four left"
    assert other.charge(0, 4 * DOLLAR, quotas)
    assert other.charge(4 * DOLLAR, 9 * DOLLAR), "what was answered is charged whatever the limit"
    assert not own.charge(6 * DOLLAR, 6 * DOLLAR + 1, quotas)
    assert own.charge(6 * DOLLAR, 2 * DOLLAR)
    assert (own.charged(), other.charged(), spent(alice.account_id)) == (2 * DOLLAR, 9 * DOLLAR, dollars(11))


def test_months_and_days_are_apart(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1_795_780_800.0, 1_795_780_800.0 + 86_400, 1_795_780_800.0 + 10 * 86_400])
    for number in range(3):
        now = next(times)
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert ChunkCharges(alice.account_id, f"batch_{number}", 0).charge(0, DOLLAR, Quotas(dollars_a_day=1))
        expected = [Spend(DOLLAR, DOLLAR), Spend(DOLLAR, 2 * DOLLAR), Spend(DOLLAR, DOLLAR)]
        assert spent(alice.account_id) == expected[number]


def test_a_replaced_run_charges_nothing(alice: Caller) -> None:
    batches.begin_run("batch_1", 0, "run_1")
    batches.begin_run("batch_1", 0, "run_2")
    old, new = (ChunkCharges(alice.account_id, "batch_1", 0, run) for run in ("run_1", "run_2"))
    assert not old.charge(0, DOLLAR)
    assert new.charge(0, DOLLAR)


def test_a_batch_goes_on_when_its_account_is_gone(alice: Caller) -> None:
    batch_id = alice.begin(input_lines(2))
    Table("accounts").delete(alice.account_id, "account")
    assert alice.run_chunks(batch_id)[0]["state"] == "done"


def test_a_chunk_whose_charge_failed_is_charged_by_the_next_run(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(alice, dollars_a_day=100)
    batch_id = alice.begin(input_lines(2))
    task: dict[str, Any] = _only_task(batch_id)
    with monkeypatch.context() as patch:
        patch.setattr(charges, "charge", _fail)
        assert run_chunk(task, seconds=22)["state"] == "more"
    assert spent(alice.account_id) == Spend()
    assert run_chunk(task)["state"] == "done"
    assert spent(alice.account_id) == dollars(2)
    invoke("finalize_batch", alice.round(batch_id, "done"))
    assert spent(alice.account_id) == dollars(2)


def _fail(*_: object) -> bool:
    raise OSError("no table")


def _only_task(batch_id: str) -> dict[str, Any]:
    (task,) = msgspec.to_builtins(plan.read(batch_id))
    return dict(task)


def test_charge_is_nothing_where_nothing_changes(alice: Caller) -> None:
    source = charges.Source(alice.account_id, "batch_1", "charge#end")
    assert charge(source, 5, 5)
    assert Table("batches").get("batch_1", "charge#end") is None
