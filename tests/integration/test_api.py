"""The HTTP API: authentication, errors, and each endpoint except create batch."""

import base64
import gc
import json
import urllib.parse
from typing import Any, get_args

import pytest
from nightshift.accounts import store as accounts
from nightshift.batches import store as batches
from nightshift.batches.status import Status
from nightshift.core import aws, settings
from nightshift.files import store as files

from tests.integration.support import (
    MODEL,
    Caller,
    Reply,
    apply_route,
    gateway,
    http_event,
    input_lines,
    move,
    object_keys,
    put_batch,
    sample,
    table_size,
)
from tests.unit.webhooks.test_addresses import HOSTILE

ROUTES = [
    ("POST", "/files"),
    ("GET", "/files/file_1"),
    ("GET", "/files/file_1/content"),
    ("POST", "/batches"),
    ("GET", "/batches"),
    ("GET", "/batches/batch_1"),
    ("POST", "/batches/batch_1/cancel"),
    ("GET", "/batches/batch_1/visits"),
    ("GET", "/batches/batch_1/webhook_deliveries"),
    ("POST", "/batches/batch_1/webhook_deliveries/whd_1/redeliver"),
    ("GET", "/models"),
    ("GET", f"/models/{MODEL}"),
    ("GET", "/webhook"),
    ("PUT", "/webhook"),
    ("DELETE", "/webhook"),
    ("POST", "/webhook/rotate"),
]

# --- authentication and errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), [*ROUTES, ("GET", "/nowhere"), ("GET", "/")])
def test_nothing_is_answered_without_a_key(method: str, path: str) -> None:
    reply = gateway(http_event(method, path))
    assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer sk-ns-unknown",
        "Basic {key}",
        "{key}",
        "Bearer {key}x",
        "Bearer {key} {key}",
        "Bearer " + "x" * 300,
        "Bearer sk-\u00e9",
        "Bearer \ud800",
    ],
)
def test_a_header_without_a_valid_key_is_401(alice: Caller, header: str) -> None:
    reply = gateway(http_event("GET", "/models", headers={"Authorization": header.format(key=alice.api_key)}))
    assert (reply.status, reply.error["type"]) == (401, "invalid_request_error")
    assert alice.api_key not in reply.body


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
def test_authorization_ignores_case(alice: Caller, name: str, scheme: str) -> None:
    assert gateway(http_event("GET", "/models", headers={name: f"{scheme} {alice.api_key}"})).status == 200


def test_an_event_without_any_headers_is_refused() -> None:
    event = {**http_event("GET", "/models"), "headers": None, "multiValueHeaders": None}
    assert gateway(event).status == 401


@pytest.mark.parametrize("function", ["api", "create_batch"])
def test_a_sample_event_without_a_key_is_401(function: str) -> None:
    assert gateway(sample(function)).status == 401


def test_a_revoked_key_is_refused(alice: Caller) -> None:
    [key] = accounts.list_keys(alice.account_id)
    accounts.revoke_key(alice.account_id, key.id)
    assert alice("GET", "/models").status == 401


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/models", 200), (f"/v1/models/{MODEL}", 200), ("/v1/openapi.json", 200), ("/v1", 404), ("/v1/v1/files", 404)],
)
def test_a_domain_with_a_base_path_has_the_same_routes(alice: Caller, path: str, status: int) -> None:
    apply_route()
    event = http_event("GET", path, headers={"Authorization": f"Bearer {alice.api_key}"})
    event["requestContext"]["path"] = path
    assert gateway(event).status == status


@pytest.mark.parametrize("path", ["/nowhere", "/", "/batches/batch_1/nowhere", "/v1/batches"])
def test_an_unknown_path_has_the_error_envelope(alice: Caller, path: str) -> None:
    reply = alice("GET", path)
    assert (reply.status, reply.error["code"]) == (404, "unknown_url")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/batches/batch_1", "GET"),
        ("PUT", "/models", "GET"),
        ("PATCH", "/webhook", "DELETE, GET, PUT"),
        ("GET", "/batches/batch_1/cancel", "POST"),
    ],
)
def test_a_wrong_method_lists_the_allowed_ones(alice: Caller, method: str, path: str, allowed: str) -> None:
    reply = alice(method, path)
    assert (reply.status, reply.error["code"], reply.headers["allow"]) == (405, "method_not_allowed", allowed)


def test_an_unexpected_error_hides_its_cause(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("arn:aws:secret")

    monkeypatch.setattr(batches, "get", fail)
    reply = alice("GET", "/batches/batch_1")
    assert (reply.status, reply.error["type"], reply.error["code"]) == (500, "server_error", "internal_error")


def test_each_answer_has_a_request_id_of_its_own(alice: Caller) -> None:
    assert len({alice("GET", "/models").headers["x-request-id"] for _ in range(3)}) == 3


# --- files ----------------------------------------------------------------------------------------------------------

CONTENT = b'{"a": 1}\n'
BOUNDARY = "b1946ac92492d2347c6235b4d2611184"


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    named = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename is not None else "")
    return f"--{BOUNDARY}\r\nContent-Disposition: {named}\r\n\r\n".encode() + content + b"\r\n"


def with_header(form: bytes, header: bytes) -> bytes:
    return form.replace(b"\r\n\r\n", b"\r\n" + header + b"\r\n\r\n", 1)


PURPOSE = part("purpose", b"batch")
FILE = part("file", CONTENT, "in.jsonl")
END = f"--{BOUNDARY}--\r\n".encode()


def upload(caller: Caller, form: bytes, content_type: str = f"multipart/form-data; boundary={BOUNDARY}") -> Reply:
    body = base64.b64encode(form).decode()
    return caller("POST", "/files", body=body, base64=True, headers={"Content-Type": content_type})


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([PURPOSE, FILE], id="purpose first"),
        pytest.param([FILE, PURPOSE], id="file first"),
        pytest.param([part("asset_group", b"x"), FILE, PURPOSE], id="more fields"),
    ],
)
def test_the_parts_of_a_form_have_any_order(alice: Caller, parts: list[bytes]) -> None:
    reply = upload(alice, b"".join(parts) + END)
    assert reply.status == 200
    file = reply.json
    assert file.pop("id").startswith("file_")
    assert file.pop("created_at")
    assert file == {
        "object": "file",
        "bytes": len(CONTENT),
        "expires_at": None,
        "filename": "in.jsonl",
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
        "asset_group": "x" if len(parts) == 3 else None,
    }
    assert alice("GET", f"/files/{reply.json['id']}").json == reply.json
    [key] = object_keys("files/")
    assert aws.client("s3").get_object(Bucket=settings.bucket(), Key=key)["Body"].read() == CONTENT


def test_a_plain_body_is_accepted(alice: Caller) -> None:
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    assert alice("POST", "/files", body=(PURPOSE + FILE + END).decode(), headers=headers).status == 200


def test_every_byte_arrives_as_it_was_sent(alice: Caller) -> None:
    content = bytes(range(256)) * 5_000 + b"\r\n--not-the-boundary\r\n"
    file_id = upload(alice, PURPOSE + part("file", content, "x.jsonl") + END).json["id"]
    gc.collect()  # a file that the parser left open becomes a ResourceWarning here
    assert files.read_range(alice.account_id, file_id, 0, len(content)) == content


@pytest.mark.parametrize(
    ("form", "code", "param"),
    [
        pytest.param(PURPOSE + END, "missing_required_parameter", "file", id="no file"),
        pytest.param(PURPOSE + part("other", CONTENT, "x") + END, "missing_required_parameter", "file", id="misnamed"),
        pytest.param(FILE + END, "missing_required_parameter", "purpose", id="no purpose"),
        pytest.param(part("purpose", b"fine-tune") + FILE + END, "invalid_value", "purpose", id="wrong purpose"),
        pytest.param(PURPOSE + part("file", CONTENT, "x.txt") + END, "invalid_filename", "file", id="no .jsonl"),
        pytest.param(PURPOSE + part("file", CONTENT, "x.jsonl.gz") + END, "invalid_filename", "file", id="gzip"),
        pytest.param(
            PURPOSE + part("file", CONTENT, "=?utf-8?q?x=2Ecsv?=") + END, "invalid_filename", "file", id="word"
        ),
        pytest.param(PURPOSE + part("file", CONTENT, "a" * 513) + END, "invalid_filename", "file", id="long name"),
    ],
)
def test_an_incomplete_form_is_refused(alice: Caller, form: bytes, code: str, param: str) -> None:
    reply = upload(alice, form)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, code, param)
    assert table_size("files") == 0


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"garbage", id="garbage"),
        pytest.param((PURPOSE + FILE + END)[:-50], id="cut in the file's end"),
        pytest.param((PURPOSE + FILE + END)[:-8], id="cut in the last boundary"),
        pytest.param(PURPOSE + FILE, id="no last boundary"),
        pytest.param(PURPOSE + FILE[:-4], id="cut in the file"),
        pytest.param(FILE.replace(b"\r\n", b"\n") + END, id="no CR"),
        pytest.param(PURPOSE + FILE.replace(b' name="file";', b"") + END, id="file without a name"),
        pytest.param(PURPOSE.replace(b' name="purpose"', b"") + FILE + END, id="field without a name"),
        pytest.param(PURPOSE + FILE.replace(b"Content-Disposition", b"X-Other") + END, id="no disposition"),
        pytest.param(PURPOSE + with_header(FILE, b"Content-Transfer-Encoding: base64") + END, id="no base64"),
        pytest.param(PURPOSE + with_header(FILE, b"\r\n".join([b"A: b"] * 100)) + END, id="many headers"),
    ],
)
def test_a_malformed_form_is_refused(alice: Caller, form: bytes) -> None:
    assert upload(alice, form).status == 400
    assert table_size("files") == 0
    assert not object_keys()


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "multipart/form-data",
        "multipart/form-data; boundary=other",
        "application/octet-stream",
        "text/plain",
        "\u00e9",
        "multipart/form-data; boundary*=undefined''b",
        "multipart/form-data; boundary*=a; boundary*0=b",
        "multipart/form-data; boundary=\udcff",
    ],
)
def test_another_content_type_is_refused(alice: Caller, content_type: str) -> None:
    assert upload(alice, PURPOSE + FILE + END, content_type).status == 400


def test_a_body_over_the_limit_is_refused(alice: Caller) -> None:
    reply = upload(alice, PURPOSE + part("file", b"a" * 4_500_000, "x") + END)
    assert (reply.status, reply.error["code"]) == (413, "file_too_large")
    assert "/v1/uploads" in reply.error["message"]
    assert "upload_url" in reply.error["message"]
    assert table_size("files") == 0


def test_a_body_at_the_limit_is_accepted(alice: Caller) -> None:
    rest = len(PURPOSE + part("file", b"", "x.jsonl") + END)
    assert upload(alice, PURPOSE + part("file", b"a" * (4_500_000 - rest), "x.jsonl") + END).status == 200
    gc.collect()  # a file that the parser left open becomes a ResourceWarning here


@pytest.mark.parametrize(
    "name", ["r\u00e9sum\u00e9 \U0001f600.jsonl", "a" * 500 + ".jsonl", "../../etc/.jsonl", "\xa0.jsonl"]
)
def test_any_file_name_is_kept(alice: Caller, name: str) -> None:
    reply = upload(alice, PURPOSE + part("file", CONTENT, name) + END)
    assert reply.status == 200
    assert reply.json["filename"] == name
    assert alice("GET", f"/files/{reply.json['id']}/content").status == 200


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('form-data; name="file"; filename="upload"', "upload"),
        ('form-data; name="file"; filename=""', "upload"),
        ('form-data; name="file"', "upload"),
        ("form-data; name=file; filename=in.jsonl", "in.jsonl"),
        ('form-data; filename="in.JSONL"; name="file"', "in.JSONL"),
        ("form-data; name=file; filename*=UTF-8''r%C3%A9sum%C3%A9.jsonl", "r\u00e9sum\u00e9.jsonl"),
        ('form-data; name="file"; filename="=?utf-8?B?aW4uanNvbmw=?="', "in.jsonl"),
        ('form-data; name="file"; filename="/data/a.b/requests"', "/data/a.b/requests"),
    ],
)
def test_a_file_may_have_any_name_or_none(alice: Caller, disposition: str, name: str) -> None:
    body = f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + CONTENT + b"\r\n"
    reply = upload(alice, PURPOSE + body + END)
    assert (reply.status, reply.json["filename"], reply.json["bytes"]) == (200, name, len(CONTENT))


@pytest.mark.parametrize("preamble", [b"a preamble\r\n", b"a preamble\n", b"\r\n" * 9])
def test_a_preamble_and_other_fields_are_ignored(alice: Caller, preamble: bytes) -> None:
    form = preamble + PURPOSE + part("custom_llm_provider", b"openai") + FILE + END + b"an epilogue"
    assert upload(alice, form).json["bytes"] == len(CONTENT)


def test_a_preamble_may_quote_the_boundary(alice: Caller) -> None:
    form = f"--{BOUNDARY}-ish text about --{BOUNDARY}\r\n".encode() + PURPOSE + FILE + END
    assert upload(alice, form).json["bytes"] == len(CONTENT)


@pytest.mark.parametrize(
    "name",
    [
        "filename*=undefined''a",
        "filename*=idna''a",
        "filename*=x\0y''a",
        "filename*=a; filename*0=b",
        "filename*1*=a; filename*=b",
    ],
)
def test_a_name_that_cannot_be_decoded_is_refused(alice: Caller, name: str) -> None:
    part_header = f"Content-Disposition: form-data; name=file; {name}".encode()
    reply = upload(alice, PURPOSE + f"--{BOUNDARY}\r\n".encode() + part_header + b"\r\n\r\nx\r\n" + END)
    assert (reply.status, reply.error["code"]) == (400, "invalid_body")


@pytest.mark.parametrize("name", ["filename*=utf-7''+2AA-", 'filename="=?utf-7?q?+2AA-?="'])
def test_half_a_character_is_no_file_name(alice: Caller, name: str) -> None:
    body = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=file; {name}\r\n\r\nx\r\n".encode()
    assert upload(alice, PURPOSE + body + END).json["filename"] == "?"


def test_a_form_of_a_thousand_parts_is_refused(alice: Caller) -> None:
    assert upload(alice, part("a", b"") * 998 + PURPOSE + FILE + END).status == 200
    assert upload(alice, part("a", b"") * 999 + PURPOSE + FILE + END).error["code"] == "invalid_body"


def test_a_boundary_is_as_long_as_the_parser_allows(alice: Caller) -> None:
    for length, status in ((70, 200), (5_000, 400)):
        boundary = "b" * length
        form = (PURPOSE + FILE + END).replace(BOUNDARY.encode(), boundary.encode())
        assert upload(alice, form, f"multipart/form-data; boundary={boundary}").status == status


def test_a_form_of_too_many_header_bytes_is_refused(alice: Caller) -> None:
    """A thousand headers of 4 KB took ten seconds."""
    form = with_header(part("a", b""), b"X: " + b";" * 3_900) * 100
    assert upload(alice, form + PURPOSE + FILE + END).error["code"] == "invalid_body"


def test_a_form_of_two_files_is_refused(alice: Caller) -> None:
    """Neither is dropped in silence."""
    reply = upload(alice, PURPOSE + FILE + part("file", b"{}", "b.jsonl") + END)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "invalid_body", "file")


def test_an_endless_number_of_seconds_is_refused(alice: Caller) -> None:
    expiry = part("expires_after[anchor]", b"created_at") + part("expires_after[seconds]", b"9" * 5_000)
    reply = upload(alice, PURPOSE + expiry + FILE + END)
    assert (reply.status, reply.error["param"]) == (400, "expires_after.seconds")


def test_a_transfer_encoding_is_decoded(alice: Caller) -> None:
    coded = with_header(part("file", base64.b64encode(CONTENT), "a"), b"Content-Transfer-Encoding: base64")
    assert upload(alice, PURPOSE + coded + END).json["bytes"] == len(CONTENT)


def test_a_missing_form_part_is_named(alice: Caller) -> None:
    message = upload(alice, PURPOSE + part("data", CONTENT) + END).error["message"]
    assert "'file'" in message
    assert "data, purpose" in message


# --- the content of a file --------------------------------------------------------------------------------------------

SMALL = b'{"a": "\xc3\xa9"}\n'


def content(caller: Caller, file_id: str, method: str = "GET", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return caller(method, f"/files/{file_id}/content", headers=named)


def test_a_small_file_comes_with_its_bytes(alice: Caller) -> None:
    reply = content(alice, alice.upload(SMALL))
    assert (reply.status, reply.body.encode()) == (200, SMALL)
    assert reply.headers["content-type"] == "application/jsonl"
    assert reply.headers["content-disposition"].startswith('attachment; filename="in.jsonl"')
    assert reply.headers["content-length"] == str(len(SMALL))


def test_a_head_has_no_body(alice: Caller) -> None:
    reply = content(alice, alice.upload(SMALL), "HEAD")
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, "", str(len(SMALL)))


@pytest.mark.parametrize(("given", "start", "end"), [("bytes=0-3", 0, 4), ("bytes=-2", 10, 12), ("bytes=2-", 2, 12)])
def test_a_range_is_206(alice: Caller, given: str, start: int, end: int) -> None:
    whole = b"0123456789a\n"
    reply = content(alice, alice.upload(whole), range=given)
    assert (reply.status, reply.body.encode()) == (206, whole[start:end])
    assert reply.headers["content-range"] == f"bytes {start}-{end - 1}/12"


def test_an_impossible_range_is_416(alice: Caller) -> None:
    reply = alice("GET", f"/files/{alice.upload(CONTENT)}/content", headers={"Range": "bytes=99-"})
    assert (reply.status, reply.headers["content-range"]) == (416, "bytes */9")


def test_a_matching_etag_is_304(alice: Caller) -> None:
    file_id = alice.upload(SMALL)
    etag = content(alice, file_id).headers["etag"]
    for given in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        reply = content(alice, file_id, if_none_match=given)
        assert (reply.status, reply.body) == (304, "")
    assert content(alice, file_id, if_none_match='"other"').status == 200
    assert content(alice, file_id, range="bytes=0-0", if_range='"other"').status == 200


@pytest.mark.parametrize(
    "given", [b"a" * (2 * 1024 * 1024 + 1), b"\xff\n", b"\x01" * (1024 * 1024)], ids=["large", "bytes", "escapes"]
)
def test_content_over_the_limit_is_redirected(alice: Caller, given: bytes) -> None:
    reply = content(alice, alice.upload(given))
    assert reply.status == 302
    assert reply.json["location"] == reply.headers["location"]
    assert "without the Authorization header" in reply.json["message"]


def test_the_content_is_a_presigned_redirect(alice: Caller) -> None:
    file_id = alice.upload(b"\xff\n")
    reply = alice("GET", f"/files/{file_id}/content")
    assert reply.status == 302
    assert reply.headers["cache-control"] == "no-store"
    url = urllib.parse.urlsplit(reply.headers["location"])
    query = urllib.parse.parse_qs(url.query)
    assert url.path.endswith(files.key(alice.account_id, file_id))
    assert query["response-content-type"] == ["application/jsonl"]
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert int(query["X-Amz-Expires"][0]) <= 900


# --- batches --------------------------------------------------------------------------------------------------------


def page(caller: Caller, **query: str) -> dict[str, Any]:
    return caller("GET", "/batches", query=query).json


def test_batches_are_paged_newest_first(alice: Caller) -> None:
    for number in range(5):
        put_batch(alice, f"batch_{number}")
    first = page(alice, limit="2")
    assert [batch["id"] for batch in first["data"]] == ["batch_4", "batch_3"]
    assert (first["object"], first["has_more"]) == ("list", True)
    assert (first["first_id"], first["last_id"]) == ("batch_4", "batch_3")
    put_batch(alice, "batch_5")
    second = page(alice, limit="2", after="batch_3")
    assert [batch["id"] for batch in second["data"]] == ["batch_2", "batch_1"]
    last = page(alice, limit="2", after="batch_1")
    assert ([batch["id"] for batch in last["data"]], last["has_more"]) == (["batch_0"], False)


def test_an_empty_page_is_a_list_object(alice: Caller) -> None:
    assert page(alice) == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_a_page_has_twenty_by_default(alice: Caller) -> None:
    for number in range(21):
        put_batch(alice, f"batch_{number:02d}")
    assert (len(page(alice)["data"]), page(alice)["has_more"]) == (20, True)
    assert (len(page(alice, limit="100")["data"]), page(alice, limit="100")["has_more"]) == (21, False)


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "", "1.5"])
def test_a_bad_limit_is_refused(alice: Caller, limit: str) -> None:
    reply = alice("GET", "/batches", query={"limit": limit})
    assert (reply.status, reply.error["param"]) == (400, "limit")


@pytest.mark.parametrize("after", ["nonsense", "zzz", "file_1", "x" * 5_000, "\u00e9"], ids=ascii)
def test_a_malformed_cursor_is_refused(alice: Caller, after: str) -> None:
    """DynamoDB refuses a start key outside the query's range, so the cursor is checked before."""
    put_batch(alice, "batch_1")
    reply = alice("GET", "/batches", query={"after": after})
    assert (reply.status, reply.error["param"]) == (400, "after")


def test_an_empty_cursor_is_ignored(alice: Caller) -> None:
    put_batch(alice, "batch_1")
    assert len(page(alice, after="", **{"api-version": "2024-10-21"})["data"]) == 1


def test_a_cursor_need_not_be_a_batch(alice: Caller) -> None:
    put_batch(alice, "batch_1")
    put_batch(alice, "batch_3")
    assert [batch["id"] for batch in page(alice, after="batch_2")["data"]] == ["batch_1"]


def test_a_listed_batch_shows_live_counts(alice: Caller) -> None:
    put_batch(alice, "batch_1", lines=5)
    move(alice, "batch_1", "in_progress")
    batches.put_progress("batch_1", 0, completed=2, failed=1)
    assert page(alice)["data"][0]["request_counts"] == {"total": 5, "completed": 2, "failed": 1}


PATHS: dict[Status, list[Status]] = {
    "validating": [],
    "in_progress": ["in_progress"],
    "finalizing": ["in_progress", "finalizing"],
    "cancelling": ["cancelling"],
    "completed": ["in_progress", "finalizing", "completed"],
    "failed": ["failed"],
    "expired": ["in_progress", "expired"],
    "cancelled": ["cancelling", "cancelled"],
}
CANCELLABLE: list[Status] = ["validating", "in_progress", "finalizing"]


def batch_in(caller: Caller, status: Status) -> str:
    batch_id = f"batch_{status}"
    put_batch(caller, batch_id)
    for source, target in zip(["validating", *PATHS[status]], PATHS[status], strict=False):
        assert move(caller, batch_id, target, source=source)
    return batch_id


@pytest.mark.parametrize("status", CANCELLABLE)
def test_an_open_batch_is_cancelled(alice: Caller, status: Status) -> None:
    batch_id = batch_in(alice, status)
    reply = alice("POST", f"/batches/{batch_id}/cancel")
    assert (reply.status, reply.json["status"]) == (200, "cancelling")
    assert reply.json["cancelling_at"]
    assert alice.batch(batch_id) == reply.json


@pytest.mark.parametrize("status", [status for status in get_args(Status) if status not in CANCELLABLE])
def test_cancelling_an_ended_batch_does_nothing(alice: Caller, status: Status) -> None:
    batch_id = batch_in(alice, status)
    before = alice.batch(batch_id)
    reply = alice("POST", f"/batches/{batch_id}/cancel")
    assert (reply.status, reply.json) == (200, before)


def test_a_cancel_that_loses_a_race_is_repeated(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = batch_in(alice, "in_progress")
    transition = batches.transition

    def finalize_first(*arguments: Any, **named: Any) -> Any:
        monkeypatch.setattr(batches, "transition", transition)
        move(alice, batch_id, "finalizing")
        return transition(*arguments, **named)

    monkeypatch.setattr(batches, "transition", finalize_first)
    assert alice("POST", f"/batches/{batch_id}/cancel").json["status"] == "cancelling"
    assert alice.batch(batch_id)["finalizing_at"]


# --- models ---------------------------------------------------------------------------------------------------------


def test_the_models_are_those_a_batch_can_use(alice: Caller) -> None:
    apply_route(model="z-model")
    apply_route(model="a-model")
    apply_route(model="inactive", active=False)
    apply_route(model="interactive", batch=False)
    listed = alice("GET", "/models").json
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["a-model", "z-model"]
    assert alice("GET", "/models/a-model").json == listed["data"][0]
    for model in ("inactive", "interactive", "unknown", "x" * 3_000):
        reply = alice("GET", f"/models/{model}")
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("model", ["acme/large", "acme/large:free", "caf\u00e9", "a b"])
def test_a_model_is_found_by_its_quoted_name(alice: Caller, model: str) -> None:
    apply_route(model=model)
    assert alice("GET", f"/models/{urllib.parse.quote(model, safe='')}").json["id"] == model


# --- webhook --------------------------------------------------------------------------------------------------------

URL = "https://hooks.example.com/batches"


def test_a_new_secret_is_shown_once(alice: Caller) -> None:
    made = alice("PUT", "/webhook", json_body={"url": URL}).json
    assert (made["object"], made["url"]) == ("webhook", URL)
    assert len(base64.b64decode(made["secret"].removeprefix("whsec_"), validate=True)) == 32
    assert alice("PUT", "/webhook", json_body={"url": URL + "/2"}).json["secret"] is None
    assert alice("GET", "/webhook").json == {"object": "webhook", "url": URL + "/2"}


def test_rotating_shows_a_new_secret(alice: Caller) -> None:
    first = alice("PUT", "/webhook", json_body={"url": URL}).json["secret"]
    second = alice("POST", "/webhook/rotate").json
    assert second["secret"].startswith("whsec_")
    assert second["secret"] != first
    assert second["url"] == URL


def test_a_webhook_can_be_deleted_twice(alice: Caller) -> None:
    secret = alice("PUT", "/webhook", json_body={"url": URL}).json["secret"]
    for _ in range(2):
        assert alice("DELETE", "/webhook").json == {"object": "webhook", "deleted": True}
    reply = alice("GET", "/webhook")
    assert (reply.status, reply.error["code"]) == (404, "webhook_not_found")
    assert secret not in alice("PUT", "/webhook", json_body={"url": URL}).body


@pytest.mark.parametrize(
    "url", ["http://hooks.example.com", "https://10.0.0.1/", "https://localhost/", "", "x", "https://"]
)
def test_an_invalid_webhook_url_is_refused(alice: Caller, url: str) -> None:
    reply = alice("PUT", "/webhook", json_body={"url": url})
    assert (reply.status, reply.error["param"]) == (400, "url")
    assert alice("GET", "/webhook").status == 404


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_url_is_always_refused(alice: Caller, url: str) -> None:
    reply = alice("PUT", "/webhook", json_body={"url": url})
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "invalid_callback_url", "url")
    assert alice("GET", "/webhook").status == 404
    body = {"input_file_id": alice.upload(input_lines(1)), "callback_url": url}
    reply = alice("POST", "/batches", json_body=body)
    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "invalid_callback_url", "callback_url")
    assert alice("GET", "/batches").json["data"] == []


@pytest.mark.parametrize("body", ["", "[]", '{"url": 1}', f'{{"url": "{URL}", "secret": "x"}}'])
def test_a_bad_webhook_body_is_refused(alice: Caller, body: str) -> None:
    assert alice("PUT", "/webhook", body=body).status == 400


def test_a_webhook_belongs_to_one_account(alice: Caller, bob: Caller) -> None:
    alice("PUT", "/webhook", json_body={"url": URL})
    assert bob("GET", "/webhook").status == 404
    bob("DELETE", "/webhook")
    assert alice("GET", "/webhook").json["url"] == URL


# --- tenancy --------------------------------------------------------------------------------------------------------


def test_another_accounts_ids_are_not_found(alice: Caller, bob: Caller) -> None:
    apply_route()
    batch_id = alice.create(input_lines(1))
    file_id = alice.batch(batch_id)["input_file_id"]
    unknown_batch, unknown_file = "batch_" + "0" * 26, "file_" + "0" * 26
    for method, path, real, unknown in (
        ("GET", "/files/{}", file_id, unknown_file),
        ("GET", "/files/{}/content", file_id, unknown_file),
        ("GET", "/batches/{}", batch_id, unknown_batch),
        ("POST", "/batches/{}/cancel", batch_id, unknown_batch),
    ):
        theirs, nobodys = bob(method, path.format(real)), bob(method, path.format(unknown))
        assert theirs.status == 404
        assert theirs.body == nobodys.body
        assert theirs.headers.keys() == nobodys.headers.keys()
    theirs, nobodys = (
        bob("POST", "/batches", body=json.dumps({"input_file_id": given})) for given in (file_id, unknown_file)
    )
    assert (theirs.status, theirs.body) == (404, nobodys.body)
    assert bob("GET", "/batches").json["data"] == []
    assert alice.batch(batch_id)["status"] == "in_progress"


@pytest.mark.parametrize(
    "strange", ["batch_" + "x" * 100, "acct_1", "chunk%230000", "batch_%00", "..", "account", "key"]
)
def test_a_malformed_id_is_not_found(alice: Caller, strange: str) -> None:
    assert alice("GET", f"/batches/{strange}").status == 404
    assert alice("GET", f"/files/{strange}").status == 404
