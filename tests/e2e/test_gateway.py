"""Calls of any HTTP client, also hostile ones: every refusal has the error envelope."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Local, batch_file, wait_for

KEYS = {"message", "type", "param", "code"}
JSON = "application/json"
FORM = "multipart/form-data; boundary=frontier"


@pytest.fixture
def http(local: Local) -> Iterator[httpx.Client]:
    """The API with a valid key."""
    headers = {"Authorization": f"Bearer {local.description['api_key']}"}
    with local.http(headers=headers, timeout=60) as client:
        yield client


def error_of(answer: httpx.Response, status: int, code: str | None) -> dict[str, Any]:
    """The error in the envelope of a refusal."""
    assert answer.status_code == status, answer.text
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["content-type"] == JSON
    assert answer.json().keys() == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() >= KEYS
    assert error["code"] == code
    assert error["message"]
    return error


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer sk-nobody", "Basic c2s6", "sk-ns-a", "Bearer \xff\xfe"])
@pytest.mark.parametrize("path", ["/batches", "/files/file_a/content", "/nope", "/"])
def test_missing_or_wrong_key_is_401(local: Local, header: str | None, path: str) -> None:
    headers = [] if header is None else [(b"Authorization", header.encode("latin-1"))]
    with local.http() as http:
        error = error_of(http.get(path, headers=headers), 401, "invalid_api_key")
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/console"])
def test_public_paths_need_no_key(local: Local, path: str) -> None:
    answer = httpx.get(local.description["base_url"] + path)
    assert answer.status_code == 200
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/nope", "/chat/completions", "/batches/a/b/c", "/files/a/content/b", "/a//b"])
def test_unknown_path_is_404(http: httpx.Client, method: str, path: str) -> None:
    error = error_of(http.request(method, path), 404, "unknown_url")
    assert method in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/batches", "GET, POST"),
        ("DELETE", "/batches", "GET, POST"),
        ("PATCH", "/files", "GET, POST"),
        ("POST", "/files/file_a", "DELETE, GET"),
        ("GET", "/batches/batch_a/cancel", "POST"),
        ("DELETE", "/models/demo-model", "GET"),
        ("POST", "/webhook", "DELETE, GET, PUT"),
        ("GET", "/uploads", "POST"),
        ("OPTIONS", "/files", "GET, POST"),
    ],
)
def test_unknown_method_is_405(http: httpx.Client, method: str, path: str, allowed: str) -> None:
    answer = http.request(method, path)
    error_of(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/files", "/batches", "/uploads"])
def test_too_large_body_names_the_alternatives(http: httpx.Client, path: str) -> None:
    error = error_of(http.post(path, content=b" " * 4_600_000, headers={"Content-Type": JSON}), 413, "file_too_large")
    assert "/v1/uploads" in error["message"]
    assert "upload_url" in error["message"]


def test_form_just_under_the_limit_is_accepted(http: httpx.Client) -> None:
    form = {"data": {"purpose": "batch"}, "files": {"file": ("a.jsonl", b"\n" * 4_499_000)}}
    answer = http.post("/files", **form)  # type: ignore[arg-type]
    assert answer.status_code == 200
    assert http.delete(f"/files/{answer.json()['id']}").status_code == 200


BODIES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"0" * 5000,
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"\x00\x01\x02\xff\xfe\xfd",
    b'{"input_file_id": "\xff\xfe"}',
    b'{"input_file_id": "\\ud800"}',
    b'{"input_file_id": "file_\\u0000", "purpose": "batch\\u0000"}',
    b'{"input_file_id": "file_a", "input_file_id": "file_b"}',
    b'{"input_file_id": "' + b"a" * 1_000_000 + b'"}',
    b'{"bytes": 1e400, "purpose": "batch", "filename": "a.jsonl", "mime_type": "a"}',
    b'{"bytes": NaN, "url": Infinity}',
    b'{"bytes": 99999999999999999999999999, "purpose": "batch", "filename": "a.jsonl", "mime_type": "a"}',
    b'{"metadata": {"a": {"b": []}}, "input_file_id": ["x"], "url": {}, "part_ids": {}}',
    b"--frontier\r\n",
    b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="\xff.jsonl"\r\n\r\n\xff\r\n--frontier--\r\n',
    b'--frontier\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n\xff\r\n--frontier--\r\n',
    b"--frontier\r\nContent-Disposition: form-data\r\n\r\nx\r\n--frontier--\r\n",
    b"--frontier\r\n: \r\n\r\nx\r\n--frontier--\r\n",
    '{"input_file_id": "file_a"}'.encode("utf-16"),
]
TYPES = [JSON, FORM]
FORM_TYPES = [*TYPES, "multipart/form-data", "multipart/form-data; boundary=", None]


@pytest.mark.parametrize(
    ("method", "path", "content_types"),
    [
        ("POST", "/batches", TYPES),
        ("POST", "/files", FORM_TYPES),
        ("POST", "/uploads", TYPES),
        ("POST", "/uploads/{upload_id}/parts", FORM_TYPES),
        ("POST", "/uploads/{upload_id}/complete", TYPES),
        ("PUT", "/webhook", TYPES),
    ],
    ids=str,
)
def test_hostile_body_is_refused(
    local: Local, http: httpx.Client, method: str, path: str, content_types: list[str | None]
) -> None:
    upload = local.client.uploads.create(bytes=9, filename="a.jsonl", mime_type="a", purpose="batch")
    path = path.format(upload_id=upload.id)
    for content_type in content_types:
        for body in BODIES:
            headers = {} if content_type is None else {"Content-Type": content_type}
            answer = http.request(method, path, content=body, headers=headers)
            what = f"{answer.status_code} to {content_type} {body[:60]!r}: {answer.text[:300]}"
            assert answer.status_code in (400, 404), what
            assert answer.json()["error"].keys() >= KEYS, what
            assert answer.headers["x-request-id"], what


@pytest.mark.parametrize(
    "path",
    [
        *("/files/%ff", "/files/%00", "/files/..", "/files/%2e%2e%2f", "/files/file_%0a", "/files/file_" + "a" * 2000),
        *("/batches/%ff", "/batches/batch_%F0%9F%98%80", "/batches/batch_' OR 1=1", "/models/%00", "/models/%ff%fe"),
        *("/batches/batch_" + "a" * 57, "/batches/chunk%230000", "/batches/batch_a%23b", "/files/upload_a"),
        "/batches/batch_a/webhook_deliveries",
    ],
)
def test_impossible_id_is_404(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    error_of(answer, 404, answer.json()["error"]["code"])


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/batches?limit=", "limit"),
        ("/batches?limit=ten", "limit"),
        ("/batches?limit=1e1", "limit"),
        ("/batches?limit=-1", "limit"),
        ("/batches?limit=99999999999999999999999", "limit"),
        ("/batches?limit=%ff", "limit"),
        ("/batches?after=batch_", "after"),
        ("/batches?after=file_a", "after"),
        ("/batches?after=batch_%00", "after"),
        ("/batches?after=" + "a" * 3000, "after"),
        ("/batches?status=", "status"),
        ("/batches?status=%F0%9F%98%80", "status"),
        ("/files?order=up", "order"),
        ("/files?after=batch_a", "after"),
        ("/files?limit=0", "limit"),
        ("/files?purpose=" + "a" * 65, "purpose"),
    ],
)
def test_invalid_query_is_400(http: httpx.Client, path: str, param: str) -> None:
    assert error_of(http.get(path), 400, "invalid_value")["param"] == param


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Big": "a" * 9000},
        {"Authorization": "Bearer " + "a" * 9000},
        {"Idempotency-Key": "a" * 256},
        {"Idempotency-Key": "é".encode()},
        {"Content-Type": "multipart/form-data; boundary=" + "a" * 5000},
        {"Content-Type": "\xff/\xfe".encode("latin-1")},
        {"Content-Encoding": "gzip"},
        {"X-Forwarded-For": "'; DROP TABLE batches; --"},
        {"X-HTTP-Method-Override": "DELETE"},
    ],
    ids=str,
)
def test_hostile_header_is_harmless(http: httpx.Client, headers: dict[str, Any]) -> None:
    for method, path in (("POST", "/batches"), ("POST", "/files"), ("GET", "/files")):
        content = b'{"input_file_id": "file_a"}' if method == "POST" else None
        answer = http.request(method, path, headers=headers, content=content)
        assert answer.status_code < 500, answer.text
        assert answer.headers["x-request-id"].startswith("req_")


def log_lines(local: Local, request_id: str, since: float) -> list[dict[str, Any]]:
    """The log lines of the functions with this ``request_id``."""
    logs = local.aws("logs")
    found = []
    for group in logs.describe_log_groups()["logGroups"]:
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName=group["logGroupName"], startTime=int(since * 1000)
        )
        found += [event["message"] for page in pages for event in page["events"] if request_id in event["message"]]
    return [json.loads(message) for message in found]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/files", {}, 200),
        ("GET", "/files", {"Authorization": "Bearer sk-nobody"}, 401),
        ("GET", "/batches/batch_nope", {}, 404),
        ("GET", "/nope", {}, 404),
        ("PUT", "/batches", {}, 405),
        ("POST", "/batches", {}, 400),
        ("POST", "/files", {"Content-Type": JSON, "X-Size": "4600000"}, 413),
    ],
)
def test_log_line_has_the_request_id(
    local: Local, http: httpx.Client, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    since = time.time() - 1
    answer = http.request(method, path, headers=headers, content=b" " * int(headers.get("X-Size", 0)))
    assert answer.status_code == status
    request_id = answer.headers["x-request-id"]

    lines = wait_for(lambda: log_lines(local, request_id, since), seconds=20)

    assert all(line["request_id"] == request_id for line in lines)
    logged = json.dumps(lines)
    assert local.description["api_key"] not in logged
    assert "Bearer" not in logged


def test_client_cannot_choose_the_request_id(http: httpx.Client) -> None:
    first, second = (http.get("/models", headers={"x-request-id": "mine"}).headers["x-request-id"] for _ in range(2))
    assert first != second
    assert "mine" not in (first, second)


def test_form_fields_in_any_order(http: httpx.Client) -> None:
    content = batch_file(1)
    file = (
        b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n"
    )
    purpose = b'--frontier\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    for body in (file + purpose, purpose + file):
        answer = http.post("/files", content=body + b"--frontier--\r\n", headers={"Content-Type": FORM})
        assert answer.status_code == 200, answer.text
        assert answer.json()["bytes"] == len(content)


def test_download_redirects_without_the_key(http: httpx.Client) -> None:
    large = batch_file(1) * (2**21 // len(batch_file(1)) + 1)
    made = http.post("/files", data={"purpose": "batch"}, files={"file": ("mine.jsonl", large)}).json()

    answer = http.get(f"/files/{made['id']}/content")

    assert answer.status_code == 302
    assert answer.json()["location"] == answer.headers["location"]
    content = httpx.get(answer.headers["location"], timeout=30)
    assert content.content == large
    assert content.headers["content-type"] == "application/jsonl"
    assert 'filename="mine.jsonl"' in content.headers["content-disposition"]


def test_download_has_ranges_and_etags(http: httpx.Client) -> None:
    made = http.post("/files", data={"purpose": "batch"}, files={"file": ("mine.jsonl", batch_file(1))}).json()
    path = f"/files/{made['id']}/content"

    whole = http.get(path)
    part = http.get(path, headers={"Range": "bytes=5-9"})
    head = http.head(path)

    assert (whole.status_code, whole.content) == (200, batch_file(1))
    assert (part.status_code, part.content) == (206, batch_file(1)[5:10])
    assert part.headers["content-range"] == f"bytes 5-9/{len(batch_file(1))}"
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", whole.headers["etag"])
    assert http.get(path, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
    assert http.get(path, headers={"Range": "bytes=999999-"}).status_code == 416
