import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from nightshift_cli.client import WATCH_RETRY_SECONDS, Client
from nightshift_cli.connection import Connection
from nightshift_cli.errors import ApiError, CliError, UnreachableError

Handler = Callable[[httpx.Request], httpx.Response]


class Api:
    """Answers with ``answers`` in turn, then always the last one, and records the requests."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def client(api: Handler, base_url: str = "https://api.test/v1/") -> Client:
    return Client(Connection(base_url, "sk-test"), httpx.MockTransport(api))


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every wait, recorded and not waited."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def test_upload_form_has_purpose_and_file(tmp_path: Path) -> None:
    api = Api(httpx.Response(200, json={"id": "file_1"}))
    source = tmp_path / "requests.jsonl"
    source.write_text('{"a":1}\n')

    with client(api) as calls:
        assert dict(calls.upload(source)) == {"id": "file_1"}

    (request,) = api.requests
    assert (request.method, str(request.url)) == ("POST", "https://api.test/v1/files")
    assert request.headers["Authorization"] == "Bearer sk-test"
    assert b'name="purpose"\r\n\r\nbatch\r\n' in request.content
    assert b'name="file"; filename="requests.jsonl"' in request.content
    assert b'\r\n\r\n{"a":1}\n\r\n' in request.content


@pytest.mark.parametrize("trouble", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.Response(503)])
def test_get_is_retried(trouble: httpx.Response | Exception, waits: list[float]) -> None:
    api = Api(trouble, trouble, httpx.Response(200, json={"id": "batch_1"}))
    notices: list[str] = []

    with client(api) as calls:
        assert dict(calls.batch("batch_1", notice=notices.append)) == {"id": "batch_1"}

    assert len(waits) == len(notices) == 2


def test_watching_is_retried_for_an_hour(waits: list[float]) -> None:
    with client(Api(httpx.ConnectError("refused"))) as calls, pytest.raises(UnreachableError, match="refused"):
        calls.batch("batch_1", retry_seconds=WATCH_RETRY_SECONDS)

    assert 3600 <= sum(waits) < 3700
    assert 0.5 <= waits[0] <= 1
    assert max(waits) <= 30


def test_retry_after_is_honoured(waits: list[float]) -> None:
    api = Api(httpx.Response(429, headers={"Retry-After": "7"}), httpx.Response(200, json={}))

    with client(api) as calls:
        calls.batches()

    assert waits == [7]


def test_refusal_is_not_retried() -> None:
    api = Api(httpx.Response(404, json={"error": {"message": "No such batch.", "code": "batch_not_found"}}))

    with client(api) as calls, pytest.raises(ApiError, match=r"No such batch\.") as refused:
        calls.batch("batch_1")

    assert (refused.value.status, refused.value.code, len(api.requests)) == (404, "batch_not_found", 1)


@pytest.mark.parametrize("trouble", [httpx.ReadTimeout("slow"), httpx.Response(503)])
def test_unsafe_post_is_not_retried(trouble: httpx.Response | Exception) -> None:
    api = Api(trouble)

    with client(api) as calls, pytest.raises((UnreachableError, ApiError)):
        calls.rotate_webhook()

    assert len(api.requests) == 1


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.ReadTimeout("slow"),
        httpx.Response(504),
        httpx.Response(409, json={"error": {"message": "Still at work.", "code": "idempotency_in_progress"}}),
    ],
)
def test_create_is_retried_with_one_key(trouble: httpx.Response | Exception) -> None:
    api = Api(trouble, trouble, httpx.Response(200, json={"id": "batch_1"}))

    with client(api) as calls:
        assert dict(calls.create_batch({"input_file_id": "file_1"}, key="once")) == {"id": "batch_1"}

    assert [request.headers["Idempotency-Key"] for request in api.requests] == ["once"] * 3
    assert len({request.content for request in api.requests}) == 1


@pytest.mark.parametrize(("status", "code"), [(429, "quota_exceeded"), (503, "batch_routing_unavailable")])
def test_final_refusal_is_not_retried(status: int, code: str) -> None:
    api = Api(httpx.Response(status, json={"error": {"message": "No.", "code": code}}, headers={"Retry-After": "60"}))

    with client(api) as calls, pytest.raises(ApiError):
        calls.create_batch({}, key="once")

    assert len(api.requests) == 1


def test_create_gives_up_after_a_minute(waits: list[float]) -> None:
    with client(Api(httpx.ConnectError("refused"))) as calls, pytest.raises(UnreachableError, match="refused"):
        calls.create_batch({}, key="once")

    assert 60 <= sum(waits) < 90


def test_unknown_error_shows_its_status() -> None:
    page = httpx.Response(403, text="<html>Forbidden</html>")

    with client(Api(page)) as calls, pytest.raises(ApiError, match=r"^api.test answered HTTP 403\.$"):
        calls.batches()


@pytest.mark.parametrize("page", ["<html>Hello</html>", "[]"])
def test_non_json_answer_names_the_base_url(page: str) -> None:
    with client(Api(httpx.Response(200, text=page))) as calls, pytest.raises(CliError, match="base URL"):
        calls.batches()


def test_id_is_quoted_in_the_path() -> None:
    api = Api(httpx.Response(200, json={}))

    with client(api) as calls:
        calls.cancel_batch("../files?x")

    assert api.requests[0].url.raw_path == b"/v1/batches/..%2Ffiles%3Fx/cancel"


@pytest.mark.parametrize("location", ["https://bucket.s3.test/key?signed=1", "/key?signed=1"])
def test_download_redirect_drops_the_key(tmp_path: Path, location: str) -> None:
    api = Api(httpx.Response(302, headers={"Location": location}), httpx.Response(200, content=b"line\n"))

    with client(api) as calls:
        calls.download("file_1", tmp_path / "out.jsonl")

    first, second = api.requests
    assert str(first.url) == "https://api.test/v1/files/file_1/content"
    assert first.headers["Authorization"] == "Bearer sk-test"
    assert second.url == first.url.join(location)
    assert "Authorization" not in second.headers
    assert (tmp_path / "out.jsonl").read_bytes() == b"line\n"


def test_interrupted_download_starts_again(tmp_path: Path, waits: list[float]) -> None:
    class CutOff(httpx.SyncByteStream):
        def __iter__(self):  # type: ignore[no-untyped-def]
            yield b"half of a li"
            # Nobody can take half of the file for all of it.
            assert not (tmp_path / "out.jsonl").exists()
            raise httpx.ReadError("cut off")

    answers = iter([httpx.Response(200, stream=CutOff()), httpx.Response(200, content=b"line\n")])

    with client(lambda _: next(answers)) as calls:
        calls.download("file_1", tmp_path / "out.jsonl")

    assert len(waits) == 1
    assert (tmp_path / "out.jsonl").read_bytes() == b"line\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_failed_download_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("earlier")

    with client(Api(httpx.Response(404))) as calls, pytest.raises(ApiError):
        calls.download("file_1", target)

    assert target.read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize("base_url", ["api.test/v1", "ftp://api.test/v1", "https://", "https://api.test:x/v1"])
def test_invalid_base_url_is_refused(base_url: str) -> None:
    with pytest.raises(CliError, match="base URL"):
        client(Api(httpx.Response(200)), base_url)


def test_invalid_key_is_refused_and_not_shown() -> None:
    with pytest.raises(CliError) as refused:
        Client(Connection("https://api.test/v1", "sk-\nx"))

    assert "sk-" not in str(refused.value)
