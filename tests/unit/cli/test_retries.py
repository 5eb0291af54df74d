"""`nightshift retry`, `run --retry-failed` and `run --endpoint`, against a fake API."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nightshift_cli import client, retries, run
from nightshift_cli.errors import CliError
from nightshift_cli.main import app
from typer.testing import CliRunner, Result


def line(custom_id: str, url: str = "/v1/chat/completions") -> bytes:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": {}}).encode() + b"\n"


def answer(custom_id: str, text: str = "ok") -> bytes:
    return json.dumps({"custom_id": custom_id, "text": text}).encode() + b"\n"


class FakeApi:
    """An API whose batches have ended at once: batch ``n`` answered ``answered[n]`` and failed ``failed[n]``."""

    def __init__(self) -> None:
        self.answered: list[str] = ["a"]
        self.failed: list[str] = [""]
        self.status = "completed"
        self.retry_status = 200
        self.calls: list[str] = []
        self.created: dict[str, Any] = {}

    def batch(self, number: int) -> dict[str, Any]:
        done, lost = self.answered[number], self.failed[number]
        return {
            "id": f"batch_{number}",
            "status": self.status,
            "request_counts": {"total": len(done + lost), "completed": len(done), "failed": len(lost)},
            "errors": None,
            "output_file_id": f"out{number}" if done else None,
            "error_file_id": f"err{number}" if lost else None,
        }

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/v1/")
        self.calls.append(f"{request.method} {path}")
        if path == "files":
            return httpx.Response(200, json={"id": "file_in"})
        if path.startswith("files/"):
            kind, number = path.split("/")[1][:3], int(path.split("/")[1][3:])
            ids = (self.answered if kind == "out" else self.failed)[number]
            return httpx.Response(200, content=b"".join(answer(each, f"{kind}{number}") for each in ids))
        if path == "batches":
            self.created = json.loads(request.content)
            return httpx.Response(200, json=self.batch(0))
        number = int(path.split("/")[1].removeprefix("batch_"))
        if path.endswith("/retry"):
            assert request.headers["Idempotency-Key"]
            if self.retry_status != 200:
                error = {"message": "gone", "code": "input_file_gone", "param": "batch_id"}
                return httpx.Response(self.retry_status, json={"error": error})
            return httpx.Response(200, json=self.batch(number + 1))
        return httpx.Response(200, json=self.batch(number))


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setattr(client, "Client", partial(client.Client, transport=httpx.MockTransport(fake)))
    return fake


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.test/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_bytes(b"".join(map(line, "abcdef")))
    return tmp_path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def ids(path: Path) -> str:
    return "".join(json.loads(each)["custom_id"] for each in path.read_text().splitlines())


def test_failed_lines_are_retried_and_merged(api: FakeApi, folder: Path) -> None:
    api.answered, api.failed = ["bdf", "ac", "e"], ["ace", "e", ""]
    result = invoke("run", "in.jsonl", "-o", "out.jsonl", "--retry-failed", "5", "-q")
    assert (result.exit_code, result.output) == (0, "")
    assert ids(folder / "out.jsonl") == "abcdef"
    assert [call for call in api.calls if call.endswith("/retry")] == [
        "POST batches/batch_0/retry",
        "POST batches/batch_1/retry",
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_lines_that_fail_each_time_are_the_last_ones(api: FakeApi, folder: Path) -> None:
    api.answered, api.failed = ["bdf", "c"], ["ace", "ae"]
    result = invoke("run", "in.jsonl", "-o", "out.jsonl", "--retry-failed", "1")
    assert (result.exit_code, result.stderr) == (1, "2 of 3 lines failed.\n")
    assert (ids(folder / "out.jsonl"), ids(folder / "out.errors.jsonl")) == ("bcdf", "ae")
    assert sorted(path.name for path in folder.iterdir()) == ["in.jsonl", "out.errors.jsonl", "out.jsonl"]
    assert result.stdout.splitlines()[-1] == f"{folder / 'out.jsonl'} has the answered lines of all runs now."


def test_nothing_is_retried_without_the_option(api: FakeApi) -> None:
    api.failed = ["b"]
    assert invoke("run", "in.jsonl", "-o", "out.jsonl", "-q").exit_code == 1
    assert not any(call.endswith("/retry") for call in api.calls)


def test_a_cancelled_batch_is_not_retried(api: FakeApi) -> None:
    api.failed, api.status = ["b"], "cancelled"
    assert invoke("run", "in.jsonl", "-o", "out.jsonl", "-q", "--retry-failed", "1").exit_code == 1
    assert not any(call.endswith("/retry") for call in api.calls)


def test_a_refused_retry_keeps_the_first_results(api: FakeApi, folder: Path) -> None:
    api.answered, api.failed, api.retry_status = ["bdf"], ["ace"], 409
    result = invoke("run", "in.jsonl", "-o", "out.jsonl", "--retry-failed", "1")
    assert result.exit_code == 2
    assert "Error: gone" in result.stderr
    assert (ids(folder / "out.jsonl"), ids(folder / "out.errors.jsonl")) == ("bdf", "ace")


def test_the_input_is_not_overwritten(api: FakeApi, folder: Path) -> None:
    (folder / "out.retry.jsonl").write_bytes(line("a"))
    result = invoke("run", "out.retry.jsonl", "-o", "out.jsonl", "--retry-failed", "1")
    assert (result.exit_code, api.calls) == (2, [])


def test_retry_shows_the_new_batch(api: FakeApi) -> None:
    api.answered, api.failed = ["a", "b"], ["b", ""]
    result = invoke("retry", "batch_0")
    assert result.exit_code == 0
    assert "batch_1" in result.stdout


def test_a_refused_retry_says_why(api: FakeApi) -> None:
    api.retry_status = 409
    result = invoke("retry", "batch_0")
    assert result.exit_code == 2
    assert "input_file_gone" in result.stderr


# --- the endpoint ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "endpoint"),
    [
        (line("a", "/v1/embeddings") + line("b"), "/v1/embeddings"),
        (line("a", "/v1/responses").replace(b'"a"', b'"\\ud83d"'), "/v1/responses"),
        (line("a", "/v1/unknown"), "/v1/chat/completions"),
        (b"{", "/v1/chat/completions"),
        (b"", "/v1/chat/completions"),
        (b"\xff", "/v1/chat/completions"),
    ],
)
def test_the_endpoint_is_the_first_lines_url(api: FakeApi, folder: Path, content: bytes, endpoint: str) -> None:
    (folder / "in.jsonl").write_bytes(content)
    invoke("run", "in.jsonl", "-o", "out.jsonl", "-q")
    assert api.created["endpoint"] == endpoint


def test_the_endpoint_may_be_given(api: FakeApi) -> None:
    invoke("run", "in.jsonl", "-o", "out.jsonl", "-q", "--endpoint", "/v1/completions")
    assert api.created["endpoint"] == "/v1/completions"
    assert run.BatchSettings().body("file_1")["endpoint"] == "/v1/chat/completions"


# --- merging --------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["first", "second", "neither"]), max_size=20))
def test_merging_keeps_the_order_of_the_input(tmp_path_factory: pytest.TempPathFactory, places: list[str]) -> None:
    folder = tmp_path_factory.mktemp("merge")
    named = [(f"r{number}", place) for number, place in enumerate(places)]
    source, first, second = folder / "in", folder / "first", folder / "second"
    source.write_bytes(b"".join(line(name) for name, _ in named) + b"\n\n")
    for path in (first, second):
        path.write_bytes(b"".join(answer(name) for name, place in named if place == path.name))
    retries.merge(source, first, second)
    assert first.read_bytes() == b"".join(answer(name) for name, place in named if place != "neither")


def test_an_input_that_has_changed_merges_nothing(folder: Path) -> None:
    (folder / "out").write_bytes(answer("b"))
    (folder / "again").write_bytes(answer("z"))
    with pytest.raises(CliError, match="has changed"):
        retries.merge(folder / "in.jsonl", folder / "out", folder / "again")
    assert (folder / "out").read_bytes() == answer("b")
    assert sorted(path.name for path in folder.iterdir()) == ["again", "in.jsonl", "out"]
