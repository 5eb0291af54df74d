import json
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from nightshift_cli import client
from nightshift_cli.main import app
from typer.testing import CliRunner, Result

BATCH: dict[str, Any] = {
    "id": "batch_1",
    "object": "batch",
    "model": "demo-model",
    "status": "completed",
    "created_at": 1_700_000_000,
    "failed_at": None,
    "errors": None,
    "request_counts": {"total": 3, "completed": 2, "failed": 1},
    "usage": {"input_tokens": 20, "output_tokens": 10, "total_tokens": 30},
    "metadata": {"team": "a", "note": "\x1b[2J"},
}


class FakeApi:
    def __init__(self) -> None:
        self.content: dict[str, Any] = BATCH
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(200, json=self.content)


@pytest.fixture(autouse=True)
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setattr(client, "Client", partial(client.Client, transport=httpx.MockTransport(fake)))
    monkeypatch.setenv("OPENAI_BASE_URL", "https://env.test/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    monkeypatch.delenv("NIGHTSHIFT_LOCAL_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    return fake


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def write_stack(folder: Path, **content: str) -> None:
    folder.mkdir()
    (folder / "stack.json").write_text(json.dumps(content))


def test_batch_shows_the_fields_that_are_set() -> None:
    lines = invoke("status", "batch_1").stdout.splitlines()

    assert [line.split()[0] for line in lines] == [
        *("id", "model", "status", "created_at", "request_counts", "usage", "metadata")
    ]
    assert lines[4] == "request_counts  2 completed, 1 failed, 3 total"
    assert lines[5] == "usage           20 input tokens, 10 output tokens"
    assert lines[6] == "metadata        team=a, note=\N{REPLACEMENT CHARACTER}[2J"


def test_failed_batch_shows_file_errors(api: FakeApi) -> None:
    entry = {"code": "invalid_url", "message": "url is wrong.", "param": "url", "line": 2}
    api.content = BATCH | {"status": "failed", "errors": {"object": "list", "data": [entry]}}

    assert invoke("status", "batch_1").stdout.splitlines()[-1] == "  line 2: url is wrong. (invalid_url, url)"


def test_json_is_the_unchanged_object() -> None:
    assert json.loads(invoke("status", "batch_1", "--json").stdout) == BATCH


def test_no_id_lists_the_newest_batches(api: FakeApi) -> None:
    running = BATCH | {"id": "batch_2", "status": "validating", "model": None, "request_counts": None}
    api.content = {"object": "list", "data": [running, BATCH], "has_more": False}

    head, *lines = invoke("status").stdout.splitlines()

    assert head.split() == ["ID", "STATUS", "MODEL", "REQUESTS", "CREATED"]
    assert lines[0].split()[:4] == ["batch_2", "validating", "-", "-"]
    assert lines[1].split()[:3] == ["batch_1", "completed", "demo-model"]
    assert api.requests[0].url.path == "/v1/batches"


def test_no_batches_is_a_message(api: FakeApi) -> None:
    api.content = {"object": "list", "data": [], "has_more": False}

    assert invoke("status").stdout == "There are no batches yet.\n"


def test_cancel_shows_the_batch(api: FakeApi) -> None:
    api.content = BATCH | {"status": "cancelling"}

    result = invoke("cancel", "batch_1")

    assert (result.exit_code, api.requests[0].method) == (0, "POST")
    assert api.requests[0].url.path == "/v1/batches/batch_1/cancel"
    assert "cancelling" in result.stdout


def test_environment_selects_the_api(api: FakeApi) -> None:
    invoke("status", "batch_1")

    assert str(api.requests[0].url) == "https://env.test/v1/batches/batch_1"
    assert api.requests[0].headers["Authorization"] == "Bearer sk-env"


def test_options_override_the_environment(api: FakeApi) -> None:
    invoke("status", "batch_1", "--base-url", "https://option.test/v1", "--api-key", "sk-option")

    assert api.requests[0].url.host == "option.test"
    assert api.requests[0].headers["Authorization"] == "Bearer sk-option"


def test_local_overrides_the_environment_only(api: FakeApi, tmp_path: Path) -> None:
    write_stack(tmp_path / ".local", base_url="http://localhost:1/v1", api_key="sk-local")

    invoke("status", "batch_1", "--local")
    invoke("status", "batch_1", "--local", "--api-key", "sk-option")

    assert [request.url.host for request in api.requests] == ["localhost", "localhost"]
    assert [request.headers["Authorization"] for request in api.requests] == ["Bearer sk-local", "Bearer sk-option"]


def test_local_stack_in_another_folder(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stack(tmp_path / "elsewhere", base_url="http://localhost:2/v1", api_key="sk-local")
    monkeypatch.setenv("NIGHTSHIFT_LOCAL_DIR", str(tmp_path / "elsewhere"))

    invoke("status", "batch_1", "--local")

    assert api.requests[0].url.port == 2


def test_missing_local_stack_is_an_error(tmp_path: Path) -> None:
    missing = invoke("status", "--local")
    write_stack(tmp_path / ".local", aws_endpoint_url="http://127.0.0.1:4566")
    starting = invoke("status", "--local")

    assert missing.exit_code == starting.exit_code == 2
    assert "Start it with `make up`" in missing.stderr
    assert "still starting" in starting.stderr


@pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "OPENAI_API_KEY"])
def test_missing_connection_is_wrong_usage(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name)

    result = invoke("status")

    assert result.exit_code == 2
    assert name in result.stderr
