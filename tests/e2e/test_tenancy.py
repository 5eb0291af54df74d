"""The things of one account do not exist for another: the answer is, byte for byte, that for an unknown id.

The operations come from the table that the OpenAPI document is made of, so a new one is tried too, or fails here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Account, Local, Receiver, batch_file, request_line, wait_for
from tools.operations import OPERATIONS

# These differ between any two answers.
VARYING = {"date", "x-request-id", "x-amzn-requestid", "x-amz-request-id", "x-amzn-trace-id"}

# Models and the console's files belong to no account.
OF_NOBODY = {("get", "/models/{model}"), ("get", "/console/assets/{name}")}
WITH_IDS = [key for key in OPERATIONS if "{" in key[1] and key not in OF_NOBODY]

Owned = dict[str, str]


class Caller:
    """HTTP calls of an account. Redirects are not followed."""

    def __init__(self, local: Local, account: Account) -> None:
        self._http = local.http(headers={"Authorization": f"Bearer {account.key}"}, timeout=30)

    def __call__(self, method: str, path: str, **content: Any) -> httpx.Response:
        return self._http.request(method, path, **content)

    def close(self) -> None:
        self._http.close()


@dataclass(frozen=True)
class Parties:
    owner: Account
    as_owner: Caller
    as_stranger: Caller


@pytest.fixture
def parties(local: Local, account: Account) -> Any:
    """An account that owns things, and another that tries to read them."""
    callers = Caller(local, account), Caller(local, Account(local))
    yield Parties(account, *callers)
    for caller in callers:
        caller.close()


def unknown(known: str) -> str:
    """An unknown id that sorts next to ``known``."""
    return known[:-1] + ("0" if known[-1] != "0" else "1")


def seen(answer: httpx.Response, *ids: str) -> tuple[int, dict[str, str], bytes]:
    """Everything of an answer that a client can see, with the requested ids replaced."""
    body = answer.content
    for each in ids:
        body = body.replace(each.encode(), b"<id>")
    return answer.status_code, {name: value for name, value in answer.headers.items() if name not in VARYING}, body


def upload(owner: Account) -> Owned:
    content = batch_file(1)
    made = owner.client.uploads.create(
        bytes=len(content), filename="input.jsonl", mime_type="application/jsonl", purpose="batch"
    )
    return {"upload_id": made.id, "part_id": owner.client.uploads.parts.create(made.id, data=content).id}


def running_batch(local: Local, owner: Account) -> Owned:
    local.upstream.set(held=True)
    return {"batch_id": owner.create().id}


def delivered_batch(owner: Account, receiver: Receiver) -> Owned:
    batch = owner.ended(owner.create(callback_url=receiver.url))

    def delivered() -> str | None:
        found = owner.client.get(f"/batches/{batch.id}/webhook_deliveries", cast_to=httpx.Response).json()["data"]
        return found[0]["id"] if found and found[0]["status"] != "pending" else None

    return {"batch_id": batch.id, "delivery_id": wait_for(delivered)}


def failed_batch(local: Local, owner: Account) -> Owned:
    """An ended batch with a line to retry."""
    local.upstream.set(error_rate={"400": 1.0})
    batch = owner.ended(owner.create())
    assert batch.error_file_id
    return {"batch_id": batch.id}


def owned(local: Local, owner: Account, names: list[str], path: str, receive: Callable[..., Receiver]) -> Owned:
    """One of the owner's ids for each parameter of the path."""
    if names == ["file_id"]:
        return {"file_id": owner.upload()}
    if names == ["upload_id"]:
        return upload(owner)
    if "webhook_deliveries" in path and set(names) <= {"batch_id", "delivery_id"}:
        return delivered_batch(owner, receive())
    if path.endswith("/retry"):
        return failed_batch(local, owner)
    if names == ["batch_id"]:
        return running_batch(local, owner)
    raise AssertionError(f"say here how to make what {path} names")


def contents(operation_id: str, ids: Owned) -> dict[str, Any]:
    """A valid body, so that the call reaches the check of the id."""
    if operation_id == "addUploadPart":
        return {"files": {"data": ("data", b"bytes", "application/octet-stream")}}
    if operation_id == "completeUpload":
        return {"json": {"part_ids": [ids["part_id"]]}}
    if operation_id == "retryBatch":
        return {"json": {}}
    operation = next(each for each in OPERATIONS.values() if each.id == operation_id)
    assert operation.body is None, f"say here what to send to {operation_id}"
    assert operation.form is None, f"say here what to send to {operation_id}"
    return {}


@pytest.mark.parametrize(("method", "path"), WITH_IDS, ids=[OPERATIONS[key].id for key in WITH_IDS])
def test_ids_of_another_account_are_not_found(
    local: Local, parties: Parties, receive: Callable[..., Receiver], method: str, path: str
) -> None:
    names = re.findall(r"{(\w+)}", path)
    ids = owned(local, parties.owner, names, path, receive)
    content = contents(OPERATIONS[method, path].id, ids)
    # Each id in turn is foreign, from the left; the ids to its right then have no effect.
    unknowns = {name: unknown(ids[name]) for name in names}

    theirs = parties.as_stranger(method, path.format(**ids), **content)
    nobodys = parties.as_stranger(method, path.format(**unknowns), **content)

    assert theirs.status_code == 404
    assert seen(theirs, *ids.values()) == seen(nobodys, *unknowns.values())
    # The ids were valid, and the owner's things are unchanged.
    mine = parties.as_owner(method, path.format(**ids), **content)
    assert mine.status_code in (200, 302), mine.text


def test_delivery_is_found_under_its_batch_only(parties: Parties, receive: Callable[..., Receiver]) -> None:
    mine, other = (delivered_batch(parties.owner, receive()) for _ in range(2))

    def redeliver(delivery_id: str) -> httpx.Response:
        return parties.as_owner("POST", f"/batches/{mine['batch_id']}/webhook_deliveries/{delivery_id}/redeliver")

    elsewhere, nobodys = redeliver(other["delivery_id"]), redeliver(unknown(mine["delivery_id"]))
    assert elsewhere.status_code == 404
    assert seen(elsewhere, other["delivery_id"]) == seen(nobodys, unknown(mine["delivery_id"]))


def test_batch_of_a_foreign_file_is_refused(parties: Parties) -> None:
    file_id = parties.owner.upload()

    def create(input_file_id: str) -> httpx.Response:
        return parties.as_stranger("POST", "/batches", json={"input_file_id": input_file_id})

    theirs, nobodys = create(file_id), create(unknown(file_id))
    assert theirs.status_code == 404
    assert seen(theirs, file_id) == seen(nobodys, unknown(file_id))


def test_foreign_upload_part_is_refused(parties: Parties) -> None:
    theirs = upload(parties.owner)
    made = parties.as_stranger(
        "POST",
        "/uploads",
        json={"bytes": 5, "filename": "a.jsonl", "mime_type": "application/jsonl", "purpose": "batch"},
    ).json()

    def complete(part_id: str) -> httpx.Response:
        return parties.as_stranger("POST", f"/uploads/{made['id']}/complete", json={"part_ids": [part_id]})

    taken, nobodys = complete(theirs["part_id"]), complete(unknown(theirs["part_id"]))
    assert taken.status_code == 400
    assert seen(taken, theirs["part_id"]) == seen(nobodys, unknown(theirs["part_id"]))


@pytest.mark.parametrize("path", ["/files", "/batches"])
def test_lists_hold_own_items_only(local: Local, parties: Parties, path: str) -> None:
    mine = parties.owner.upload() if path == "/files" else running_batch(local, parties.owner)["batch_id"]

    assert [each["id"] for each in parties.as_owner("GET", path).json()["data"] if each["id"] == mine] == [mine]
    assert parties.as_stranger("GET", path).json()["data"] == []
    after = parties.as_stranger("GET", path, params={"after": mine})
    assert seen(after) == seen(parties.as_stranger("GET", path, params={"after": unknown(mine)}))


def test_webhook_is_visible_to_its_account_only(parties: Parties) -> None:
    url = "https://example.com/hook"
    before = parties.as_stranger("GET", "/webhook")
    assert parties.as_owner("PUT", "/webhook", json={"url": url}).status_code == 200

    assert before.status_code == 404
    assert seen(parties.as_stranger("GET", "/webhook")) == seen(before)
    assert parties.as_stranger("DELETE", "/webhook").status_code == 200
    assert parties.as_owner("GET", "/webhook").json()["url"] == url


def test_idempotency_keys_are_per_account(local: Local, parties: Parties) -> None:
    stranger = Account(local)
    key = {"Idempotency-Key": "the-same"}
    batches = [
        account.client.batches.create(
            input_file_id=account.upload(request_line(name).encode()),
            endpoint="/v1/chat/completions",
            completion_window="24h",
            extra_headers=key,
        )
        for name, account in (("a", parties.owner), ("b", stranger))
    ]
    assert batches[0].id != batches[1].id
    assert [batch.id for batch in stranger.client.batches.list()] == [batches[1].id]
