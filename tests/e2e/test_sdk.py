"""The unmodified OpenAI SDK for Python, endpoint by endpoint."""

import hashlib
import itertools
import json
import random
import time
from collections.abc import Callable
from functools import partial
from secrets import token_urlsafe
from typing import Any

import httpx
import pytest
from nightshift.accounts import store as accounts
from nightshift.core.ids import new_id
from nightshift.core.table import decode, encode
from nightshift.routes import store as routes
from nightshift.routes.route import Route, Sku
from openai import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InvalidWebhookSignatureError,
    NotFoundError,
    OpenAI,
    RateLimitError,
)

from tests.e2e.conftest import Account, Local, Receiver, batch_file, request_line, wait_for


def refused(kind: type[APIStatusError], call: Callable[[], Any], code: str, param: str | None) -> APIStatusError:
    """Check that the call is refused with this status and code, and return the SDK's error."""
    with pytest.raises(kind) as refusal:
        call()
    error = refusal.value
    assert (error.code, error.param) == (code, param)
    assert str(error.request_id).startswith("req_")
    assert error.message
    return error


def no_file(call: Callable[[], Any], param: str = "file_id") -> None:
    refused(NotFoundError, call, "file_not_found", param)


def post(account: Account, path: str, body: dict[str, Any] | None = None) -> Any:
    """A call for which the SDK has no method."""
    return account.client.post(path, body=body, cast_to=httpx.Response).json()


def table(local: Local, name: str) -> str:
    (found,) = [each for each in local.aws("dynamodb").list_tables()["TableNames"] if f"-{name}-" in each]
    return str(found)


def change_file(local: Local, account: Account, file_id: str, **fields: Any) -> None:
    """Change a file's record directly in the table."""
    local.aws("dynamodb").update_item(
        TableName=table(local, "Files"),
        Key=encode({"pk": account.id, "sk": file_id}),
        UpdateExpression="SET " + ", ".join(f"{name} = :{name}" for name in fields),
        ExpressionAttributeValues=encode({f":{name}": value for name, value in fields.items()}),
    )


def has_bytes(local: Local, file_id: str) -> bool:
    s3 = local.aws("s3")
    buckets = [each["Name"] for each in s3.list_buckets()["Buckets"]]
    pages = [page for name in buckets for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name)]
    return any(found["Key"].endswith(f"/{file_id}") for page in pages for found in page.get("Contents", []))


def copies_of(local: Local, account: Account, batch_id: str, statuses: list[str]) -> list[str]:
    """Write older copies of ``batch_id``, a second apart, one for each status. Returns their ids, newest first.

    No execution stands behind them, so they are cheap; those that have not ended have no webhook either.
    """
    dynamodb = local.aws("dynamodb")
    name = table(local, "Batches")
    key = encode({"pk": account.id, "sk": batch_id})
    original = decode(dynamodb.get_item(TableName=name, Key=key, ConsistentRead=True)["Item"])
    now = time.time() - 60
    made = [
        {
            **original,
            "sk": new_id("batch", now - age),
            "created_at": int(now - age),
            "status": status,
            f"{status}_at": int(now),
        }
        for age, status in enumerate(statuses)
    ]
    for start in range(0, len(made), 25):
        requests = [{"PutRequest": {"Item": encode(each)}} for each in made[start : start + 25]]
        assert not dynamodb.batch_write_item(RequestItems={name: requests}).get("UnprocessedItems")
    return [each["sk"] for each in made]


# --- files ---------------------------------------------------------------------------------------------------------


def test_files_list_by_age_purpose_and_page(account: Account) -> None:
    files = account.client.files
    ids = [account.upload() for _ in range(5)]

    assert [file.id for file in files.list()] == ids[::-1]
    assert [file.id for file in files.list(order="asc")] == ids
    assert [file.id for file in files.list(order="asc", limit=2)] == ids  # page by page
    first = files.list(limit=2)
    assert ([file.id for file in first.data], first.has_more) == ([ids[4], ids[3]], True)
    assert [file.id for file in files.list(after=ids[1])] == [ids[0]]
    assert [file.id for file in files.list(after=ids[3], order="asc")] == [ids[4]]
    assert [file.id for file in files.list(purpose="batch", limit=1)] == ids[::-1]
    assert list(files.list(purpose="batch_output")) == []
    for wrong in (0, 10_001):
        refused(BadRequestError, partial(files.list, limit=wrong), "invalid_value", "limit")


def test_file_object_has_the_sent_values(account: Account) -> None:
    content = batch_file(2)
    name = "naïve file, 文.jsonl"
    file = account.client.files.create(
        file=(name, content),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
        extra_body={"asset_group": "nightly"},
    )

    assert (file.filename, file.bytes, file.status, file.purpose) == (name, len(content), "processed", "batch")
    assert file.expires_at == file.created_at + 3600
    assert file.to_dict()["asset_group"] == "nightly"
    assert account.client.files.retrieve(file.id) == file
    answer = account.client.files.content(file.id)
    assert answer.content == content
    disposition = answer.response.headers["content-disposition"]
    assert "filename*=UTF-8''na%C3%AFve%20file%2C%20%E6%96%87.jsonl" in disposition
    by_ttl = account.client.files.create(file=("a.jsonl", content), purpose="batch", extra_body={"ttl_seconds": 7200})
    assert by_ttl.expires_at == by_ttl.created_at + 7200


def test_invalid_input_file_is_refused(account: Account) -> None:
    create = account.client.files.create
    for name in ("input.json", "input.jsonl.txt", "input.csv", "x" * 600 + ".jsonl"):
        refused(BadRequestError, partial(create, file=(name, b"{}"), purpose="batch"), "invalid_filename", "file")
    refused(BadRequestError, lambda: create(file=("a.jsonl", b"{}"), purpose="assistants"), "invalid_value", "purpose")
    for seconds in (3599, 2_592_001):
        refused(
            BadRequestError,
            partial(account.upload, expires_after={"anchor": "created_at", "seconds": seconds}),
            "invalid_value",
            "expires_after.seconds",
        )


def test_file_in_use_is_not_deleted(local: Local, account: Account) -> None:
    local.upstream.set(held=True)
    file_id = account.upload()
    batch = account.create(file_id)

    refused(ConflictError, lambda: account.client.files.delete(file_id), "file_in_use", "file_id")

    local.upstream.reset()
    account.ended(batch)
    assert account.client.files.delete(file_id).to_dict() == {"id": file_id, "object": "file", "deleted": True}


def test_deleted_file_loses_its_bytes(local: Local, account: Account) -> None:
    files = account.client.files
    kept, file_id = account.upload(), account.upload()
    assert has_bytes(local, file_id)

    files.delete(file_id)

    no_file(lambda: files.retrieve(file_id))
    no_file(lambda: files.content(file_id))
    no_file(lambda: files.delete(file_id))
    no_file(lambda: account.create(file_id), param="input_file_id")
    assert [file.id for file in files.list()] == [kept]
    wait_for(lambda: not has_bytes(local, file_id))
    assert has_bytes(local, kept)


def test_expired_file_is_not_found(local: Local, account: Account) -> None:
    files = account.client.files
    kept, file_id = account.upload(), account.upload()
    change_file(local, account, file_id, expires_at=int(time.time()) - 1)

    no_file(lambda: files.retrieve(file_id))
    no_file(lambda: files.content(file_id))
    no_file(lambda: files.delete(file_id))
    no_file(lambda: account.create(file_id), param="input_file_id")
    assert [file.id for file in files.list()] == [kept]


def test_ttl_deletes_the_bytes_too(local: Local, account: Account) -> None:
    file_id = account.upload()
    # Deleted by the test, because the emulator's TTL writes nothing to the stream. That of AWS does.
    key = encode({"pk": account.id, "sk": file_id})
    local.aws("dynamodb").delete_item(TableName=table(local, "Files"), Key=key)

    wait_for(lambda: not has_bytes(local, file_id))


def test_stored_bytes_have_a_quota(account: Account) -> None:
    content = batch_file(1)
    accounts.set_quotas(account.id, {"stored_bytes": 2 * len(content)})
    upload = {"filename": "a.jsonl", "bytes": 2 * len(content), "purpose": "batch"}
    first = account.upload(content)

    error = refused(RateLimitError, lambda: account.upload(content * 2), "quota_exceeded", None)
    assert int(error.response.headers["retry-after"]) > 0
    refused(RateLimitError, lambda: post(account, "/files", upload), "quota_exceeded", None)
    refused(
        RateLimitError,
        lambda: post(account, "/uploads", {**upload, "mime_type": "application/jsonl"}),
        "quota_exceeded",
        None,
    )

    account.client.files.delete(first)
    made = upload_in_parts(account, [content])
    account.client.uploads.complete(**made)
    # The parts are one file now, and count once.
    account.upload(content)


# --- big files -----------------------------------------------------------------------------------------------------


def upload_in_parts(account: Account, parts: list[bytes]) -> dict[str, Any]:
    """A pending upload with ``parts``: the upload's id and the part ids."""
    uploads = account.client.uploads
    upload = uploads.create(
        bytes=sum(map(len, parts)), filename="a.jsonl", mime_type="application/jsonl", purpose="batch"
    )
    ids = [uploads.parts.create(upload.id, data=part).id for part in parts]
    return {"upload_id": upload.id, "part_ids": ids}


def test_30_mb_in_parts(account: Account) -> None:
    content = random.Random(3).randbytes(30_000_000)

    upload = account.client.uploads.upload_file_chunked(
        file=content,
        filename="big.jsonl",
        bytes=len(content),
        mime_type="application/jsonl",
        purpose="batch",
        part_size=4 * 1024 * 1024,
        md5=hashlib.md5(content, usedforsecurity=False).hexdigest(),
    )

    assert upload.status == "completed"
    assert upload.file is not None
    assert (upload.file.bytes, upload.file.filename, upload.file.status) == (len(content), "big.jsonl", "processed")
    assert account.client.files.content(upload.file.id).content == content
    account.client.files.delete(upload.file.id)


def test_batch_of_lines_cut_across_parts(account: Account) -> None:
    content = batch_file(40)
    cuts = [0, 7, 1111, 4000, len(content)]
    parts = [content[start:end] for start, end in itertools.pairwise(cuts)]
    upload = account.client.uploads.complete(**upload_in_parts(account, parts))

    assert upload.file is not None
    batch = account.ended(account.create(upload.file.id))
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 40, "completed": 40, "failed": 0}


def test_wrong_parts_make_no_file(account: Account) -> None:
    uploads = account.client.uploads
    made = upload_in_parts(account, [b"one", b"two"])
    upload_id, (one, two) = made["upload_id"], made["part_ids"]

    def complete(part_ids: list[str], **extra: Any) -> Any:
        return lambda: uploads.complete(upload_id, part_ids=part_ids, **extra)

    refused(BadRequestError, complete([one]), "upload_bytes_mismatch", "bytes")
    refused(BadRequestError, complete([one, one]), "invalid_value", "part_ids")
    refused(BadRequestError, complete([one, "part_nope"]), "part_not_found", "part_ids")
    refused(BadRequestError, complete([one, two], md5="0" * 32), "upload_md5_mismatch", "md5")
    refused(BadRequestError, complete([]), "invalid_value", "part_ids")
    assert list(account.client.files.list()) == []

    done = uploads.complete(upload_id, part_ids=[two, one])
    assert done.file is not None
    assert account.client.files.content(done.file.id).content == b"twoone"
    assert uploads.complete(upload_id, part_ids=[two, one]) == done  # as after a lost answer
    refused(BadRequestError, lambda: uploads.cancel(upload_id), "upload_not_pending", "upload_id")
    refused(BadRequestError, lambda: uploads.parts.create(upload_id, data=b"x"), "upload_not_pending", "upload_id")


def test_upload_expires(local: Local, account: Account) -> None:
    made = upload_in_parts(account, [b"{}"])
    upload_id = made["upload_id"]
    change_file(local, account, upload_id, expires_at=int(time.time()) - 1)

    uploads = account.client.uploads
    for call in (
        lambda: uploads.parts.create(upload_id, data=b"{}"),
        lambda: uploads.complete(**made),
        lambda: uploads.cancel(upload_id),
    ):
        refused(BadRequestError, call, "upload_not_pending", "upload_id")


def test_presigned_upload_becomes_processed(account: Account) -> None:
    content = batch_file(3)
    made = post(account, "/files", {"purpose": "batch", "filename": "a.jsonl", "bytes": len(content)})
    file_id, url, headers = made["id"], made["upload_url"], made["upload_headers"]
    assert (made["status"], made["bytes"]) == ("uploaded", len(content))
    assert made["upload_expires_at"] > time.time() + 60
    no_file(lambda: account.client.files.content(file_id))
    no_file(lambda: account.create(file_id), param="input_file_id")
    longer = {**headers, "Content-Length": str(len(content) + 1)}
    assert httpx.put(url, content=content + b" ", headers=longer).status_code == 403
    assert account.client.files.retrieve(file_id).status == "uploaded"

    assert httpx.put(url, content=content, headers=headers).status_code == 200

    assert httpx.put(url, content=content[::-1], headers=headers).status_code == 412
    file = account.client.files.retrieve(file_id)
    assert (file.status, file.bytes, file.expires_at) == ("processed", len(content), None)
    assert account.client.files.content(file_id).content == content
    assert account.ended(account.create(file_id)).status == "completed"


# --- batches -------------------------------------------------------------------------------------------------------


def test_paging_while_batches_are_created(local: Local, account: Account) -> None:
    first = account.ended(account.create()).id
    expected = [first, *copies_of(local, account, first, ["in_progress"] * 120)]
    created: list[str] = []
    seen: list[str] = []
    file_id = account.upload()

    for batch in account.client.batches.list():
        seen.append(batch.id)
        if len(seen) % 20 == 10:
            created.append(account.create(file_id).id)

    assert seen == expected
    assert len(created) == 6
    assert [batch.id for batch in account.client.batches.list(limit=100)] == created[::-1] + expected
    page = account.client.batches.list(limit=100)
    assert (len(page.data), page.has_more) == (100, True)


def test_batches_are_listed_by_status(local: Local, account: Account) -> None:
    first = account.ended(account.create()).id
    copies = copies_of(local, account, first, ["validating", "in_progress", "finalizing"] * 9)

    def listed(status: str) -> list[str]:
        return [batch.id for batch in account.client.batches.list(limit=2, extra_query={"status": status})]

    assert listed("validating") == copies[0::3]
    assert listed("finalizing") == copies[2::3]
    assert listed("completed") == [first]
    assert listed("expired") == []
    refused(BadRequestError, lambda: listed("done"), "invalid_value", "status")


def test_page_size_has_limits(account: Account) -> None:
    for wrong in (0, 101):
        refused(BadRequestError, partial(account.client.batches.list, limit=wrong), "invalid_value", "limit")


ALL_FIELDS = {
    *("id", "object", "endpoint", "model", "errors", "input_file_id", "completion_window", "status", "output_file_id"),
    *("error_file_id", "created_at", "in_progress_at", "expires_at", "finalizing_at", "completed_at", "failed_at"),
    *(
        "expired_at",
        "cancelling_at",
        "cancelled_at",
        "request_counts",
        "answer_seconds",
        "usage",
        "metadata",
        "callback_url",
        "retry_of",
    ),
}


def test_batch_always_has_every_field(account: Account) -> None:
    expires = {"anchor": "created_at", "seconds": 3600}
    batch = account.create(metadata={"a": "b"}, output_expires_after=expires)
    ended = account.ended(batch)

    for each in (batch, ended):
        assert each.to_dict().keys() == ALL_FIELDS
        assert each.expires_at == each.created_at + 24 * 3600
    assert ended.completed_at is not None
    assert ended.in_progress_at is not None
    assert ended.finalizing_at is not None
    assert batch.created_at <= ended.in_progress_at <= ended.finalizing_at <= ended.completed_at
    assert ended.output_file_id is not None
    output = account.client.files.retrieve(ended.output_file_id)
    assert (output.purpose, output.expires_at) == ("batch_output", output.created_at + 3600)
    assert [file.id for file in account.client.files.list(purpose="batch_output")] == [output.id]
    refused(BadRequestError, lambda: account.create(output.id), "invalid_purpose", "input_file_id")


def test_idempotency_key_makes_one_batch(account: Account) -> None:
    file_id = account.upload()

    def create(**extra: Any) -> str:
        return account.client.batches.create(
            input_file_id=file_id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            extra_headers={"Idempotency-Key": "key of a test"},
            **extra,
        ).id

    first = create()
    assert create() == first
    refused(ConflictError, lambda: create(metadata={"other": "body"}), "idempotency_key_reused", "Idempotency-Key")
    assert [batch.id for batch in account.client.batches.list()] == [first]
    assert account.create(file_id).id != first


def test_idempotency_key_of_a_refusal_is_free(account: Account) -> None:
    def create(file_id: str) -> str:
        return account.client.batches.create(
            input_file_id=file_id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            extra_headers={"Idempotency-Key": "again"},
        ).id

    no_file(lambda: create("file_nope"), param="input_file_id")
    assert create(account.upload()).startswith("batch_")


def test_metadata_has_limits(account: Account) -> None:
    file_id = account.upload()
    most = {"k" * 62 + f"{number:02}": "v" * 512 for number in range(16)}
    assert account.create(file_id, metadata=most).metadata == most

    for wrong, param in (
        ({f"key {number}": "v" for number in range(17)}, "metadata"),
        ({"k" * 65: "v"}, "metadata." + "k" * 65),
        ({"k": "v" * 513}, "metadata.k"),
        ({"k": 1}, "metadata.k"),
        ({"k": None}, "metadata.k"),
        ({"k": {"l": "m"}}, "metadata.k"),
        (["k"], "metadata"),
        ("k", "metadata"),
    ):
        refused(BadRequestError, partial(account.create, file_id, metadata=wrong), "invalid_value", param)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_required_parameter", "input_file_id"),
        ({"input_file_id": None}, "invalid_value", "input_file_id"),
        ({"input_file_id": 7}, "invalid_value", "input_file_id"),
        ({"input_file_id": "file_a", "endpoint": "/v1/rerank"}, "invalid_value", "endpoint"),
        ({"input_file_id": "file_a", "completion_window": "1h"}, "invalid_value", "completion_window"),
        ({"input_file_id": "file_a", "callback_url": "http://example.com"}, "invalid_callback_url", "callback_url"),
        ({"input_file_id": "file_a", "callback_url": "https://10.0.0.1/"}, "invalid_callback_url", "callback_url"),
        ({"input_file_id": "file_a", "surprise": 1}, "unknown_parameter", "surprise"),
        (
            {"input_file_id": "file_a", "output_expires_after": {"anchor": "created_at", "seconds": 1}},
            "invalid_value",
            "output_expires_after.seconds",
        ),
        (
            {"input_file_id": "file_a", "output_expires_after": {"seconds": 3600}},
            "missing_required_parameter",
            "output_expires_after.anchor",
        ),
    ],
)
def test_invalid_field_is_named(account: Account, body: dict[str, Any], code: str, param: str) -> None:
    refused(BadRequestError, lambda: post(account, "/batches", body), code, param)


def test_active_batches_have_a_quota(local: Local, account: Account) -> None:
    local.upstream.set(held=True)
    accounts.set_quotas(account.id, {"active_batches": 1})
    file_id = account.upload()
    first = account.create(file_id)

    error = refused(RateLimitError, lambda: account.create(file_id), "quota_exceeded", None)
    assert int(error.response.headers["retry-after"]) > 0
    assert len(list(account.client.batches.list())) == 1

    local.upstream.reset()
    account.ended(first)
    assert account.ended(account.create(file_id)).status == "completed"


def test_queued_requests_have_a_quota(local: Local, account: Account) -> None:
    local.upstream.set(held=True)
    accounts.set_quotas(account.id, {"queued_requests": 3})
    first = account.create(account.upload(batch_file(3)))

    refused(RateLimitError, lambda: account.create(), "quota_exceeded", None)

    local.upstream.reset()
    account.ended(first)
    assert account.ended(account.create()).status == "completed"


def test_cancel_works_in_every_status(local: Local, account: Account) -> None:
    batches = account.client.batches
    first = account.ended(account.create()).id
    statuses = ["validating", "in_progress", "finalizing", "cancelling", "completed", "failed", "expired", "cancelled"]
    copies = dict(zip(statuses, copies_of(local, account, first, statuses), strict=True))

    for status in ("validating", "in_progress", "finalizing"):
        cancelled = batches.cancel(copies[status])
        assert (cancelled.status, cancelled.cancelling_at is None) == ("cancelling", False)
        assert batches.cancel(copies[status]) == cancelled
    for status in ("cancelling", "completed", "failed", "expired", "cancelled"):
        before = batches.retrieve(copies[status])
        assert batches.cancel(copies[status]) == before
        assert batches.retrieve(copies[status]) == before
    refused(NotFoundError, lambda: batches.cancel("batch_nope"), "batch_not_found", "batch_id")


def test_cancel_before_validation_ends_the_batch(local: Local, account: Account) -> None:
    local.upstream.set(held=True)
    with local.environment("CreateBatch", SYNC_VALIDATION_SECONDS="0"):
        batch = account.create(account.upload(batch_file(3000)))
    assert (batch.model, batch.request_counts) == (None, None)

    assert account.client.batches.cancel(batch.id).status == "cancelling"
    assert account.ended(batch).status == "cancelled"


# --- models and webhook --------------------------------------------------------------------------------------------


def test_models_are_those_that_a_batch_can_use(local: Local, account: Account) -> None:
    url = local.description["upstream_url"]
    routes.apply(
        [
            Route(
                model=model, provider="p", base_url=url, upstream_model="simulated-model", sku=Sku("s", active=active)
            )
            for model, active in (("maker/family/m-1.5:free", True), ("maker/idle", False))
        ]
    )
    models = account.client.models
    names = [model.id for model in models.list()]

    assert {"demo-model", "maker/family/m-1.5:free"} <= set(names)
    assert "maker/idle" not in names
    assert models.retrieve("demo-model").object == "model"
    assert models.retrieve("maker/family/m-1.5:free").id == "maker/family/m-1.5:free"
    unescaped = httpx.get(
        f"{local.description['base_url']}/models/maker/family/m-1.5:free",
        headers={"Authorization": f"Bearer {account.key}"},
        timeout=30,
    )
    assert unescaped.json()["id"] == "maker/family/m-1.5:free"
    for model in ("maker/idle", "nobody", "maker"):
        refused(NotFoundError, partial(models.retrieve, model), "model_not_found", "model")

    batch = account.ended(account.create(account.upload(request_line("a", model="maker/family/m-1.5:free").encode())))
    assert batch.to_dict()["model"] == "maker/family/m-1.5:free"
    assert batch.output_file_id is not None
    (line,) = account.client.files.content(batch.output_file_id).text.splitlines()
    assert json.loads(line)["response"]["body"]["model"] == "maker/family/m-1.5:free"


class Webhook:
    """The account's webhook, for which the SDK has no methods."""

    def __init__(self, account: Account) -> None:
        self._client = account.client

    def get(self) -> Any:
        return self._client.get("/webhook", cast_to=httpx.Response).json()

    def put(self, url: Any) -> Any:
        return self._client.put("/webhook", body={"url": url}, cast_to=httpx.Response).json()

    def delete(self) -> Any:
        return self._client.delete("/webhook", cast_to=httpx.Response).json()

    def rotate(self) -> Any:
        return self._client.post("/webhook/rotate", cast_to=httpx.Response).json()


def test_default_webhook_is_set_and_deleted(account: Account) -> None:
    webhook = Webhook(account)
    refused(NotFoundError, webhook.get, "webhook_not_found", None)

    made = webhook.put("https://example.com/one")
    assert made["secret"].startswith("whsec_")
    again = webhook.put("https://example.com/two")
    assert (again["url"], again["secret"]) == ("https://example.com/two", None)
    assert webhook.get() == {"object": "webhook", "url": "https://example.com/two"}
    for wrong in ("", "nonsense", "ftp://example.com/", "http://example.com/", "https://", "https://192.168.0.1/"):
        refused(BadRequestError, partial(webhook.put, wrong), "invalid_callback_url", "url")
    refused(BadRequestError, lambda: webhook.put(None), "invalid_value", "url")
    assert webhook.get()["url"] == "https://example.com/two"

    assert webhook.delete() == {"object": "webhook", "deleted": True}
    refused(NotFoundError, webhook.get, "webhook_not_found", None)


def test_both_secrets_sign_the_default_webhook(account: Account, receive: Callable[..., Receiver]) -> None:
    receiver = receive()
    webhook = Webhook(account)
    old = webhook.put(receiver.url)["secret"]
    new = webhook.rotate()["secret"]
    assert new != old

    batch = account.create()
    wait_for(lambda: receiver.received)

    headers, body = receiver.received[0]
    for secret in (old, new):
        event: Any = OpenAI(api_key="unused", webhook_secret=secret).webhooks.unwrap(body, headers)
        assert (event.type, event.data.id) == ("batch.completed", batch.id)
    with pytest.raises(InvalidWebhookSignatureError):
        OpenAI(api_key="unused", webhook_secret="whsec_bm9ib2R5").webhooks.unwrap(body, headers)


def test_unknown_key_is_401(local: Local) -> None:
    for key in ("sk-nobody", "sk-ns-" + token_urlsafe(32), "x" * 5000):
        refused(AuthenticationError, local.openai(key).batches.list, "invalid_api_key", None)
