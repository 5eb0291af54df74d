import json
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from nightshift_cli import client, run, show
from nightshift_cli.main import app
from nightshift_cli.timeline import timeline
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


@pytest.mark.parametrize("command", ["status", "cancel", "retry"])
def test_json_is_the_unchanged_object(command: str) -> None:
    assert json.loads(invoke(command, "batch_1", "--json").stdout) == BATCH


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


def test_the_seconds_of_answers_are_words() -> None:
    found: Any = {"id": "batch_1", "answer_seconds": {"p50": 1.25, "p90": 9.0}}
    assert "half of the recent answers within 1.2 s, nine of ten within 9.0 s" in show.batch(found)[1]


@pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "OPENAI_API_KEY"])
def test_missing_connection_is_wrong_usage(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name)

    result = invoke("status")

    assert result.exit_code == 2
    assert name in result.stderr


ENDED = {
    "id": "batch_1",
    "status": "completed",
    "created_at": 1000,
    "in_progress_at": 1010,
    "finalizing_at": 1090,
    "completed_at": 1100,
}


def test_a_timeline_has_each_step_on_one_scale() -> None:
    attempts = [
        {"attempted_at": 1105, "status_code": 500, "error": None},
        {"attempted_at": 1160, "status_code": None, "error": "timeout"},
    ]
    lines = timeline(ENDED, [], [{"attempts": attempts, "next_attempt_at": 1200}], now=9_999)
    steps = [line.split("  ")[0] for line in lines]
    assert steps == [
        *("STEP", "validating", "in_progress", "finalizing", "completed"),
        *("webhook, try 1", "webhook, try 2", "webhook, next try"),
    ]
    assert ["10 s" in lines[1], "1 min 20 s" in lines[2], "500" in lines[5], "timeout" in lines[6]] == [True] * 4
    bars = [line.count("█") for line in lines[1:4]]
    assert sum(bars) == 25  # 100 of the 160 seconds
    assert bars[1] == max(bars)
    assert [line.count("●") for line in lines[4:7]] == [1, 1, 1]


def test_steps_of_one_second_are_in_the_order_of_a_life() -> None:
    at_once = ENDED | {"in_progress_at": 1000, "finalizing_at": 1000, "completed_at": 1000}
    steps = [line.split("  ")[0] for line in timeline(at_once, [], [], now=9_999)]
    assert steps == ["STEP", "validating", "in_progress", "finalizing", "completed"]


def test_a_step_that_goes_on_lasts_until_now() -> None:
    running = {"id": "batch_1", "status": "in_progress", "created_at": 1000, "in_progress_at": 1000, "expires_at": 8200}
    lines = timeline(running, [], [], now=1000 + 3600)
    assert "1 h 00 min" in lines[2]
    assert lines[2].count("█") == 40
    assert lines[3].split("  ")[0] == "expires"
    assert "in 1 h 00 min" in lines[3]


def visit(chunk: int, began_at: float, ended_at: float | None, outcome: str, **fields: Any) -> dict[str, Any]:
    requests = {"requests_sent": 0, "requests_retried": 0, "requests_refused": 0}
    known = {"chunk": chunk, "attempt": 1, "began_at": began_at, "ended_at": ended_at, "outcome": outcome}
    return known | {"waits_until": None, "waits_for": None} | requests | fields


VISITS = [
    visit(1, 1080, 1090, "done", requests_sent=5),
    visit(0, 1050.5, 1080, "done", attempt=2),
    visit(1, 1040, 1041, "failed", waits_until=1060),
    visit(0, 1012, 1020, "waits", waits_until=1900, waits_for="route", requests_sent=9, requests_refused=4),
    visit(0, 1010, 1012, "more", requests_sent=20, requests_retried=3),
]


def test_a_timeline_has_visits_with_their_retries_and_waits() -> None:
    lines = timeline(ENDED, VISITS, [], now=9_999)
    shown = [(line[:18].rstrip(), line.split("  ")[-1]) for line in lines if line.startswith("chunk")]
    assert [name for name, _ in shown] == ["chunk 0", "chunk 0", "chunk 1", "chunk 0, attempt 2", "chunk 1"]
    words = [words for _, words in shown]
    assert words[0].endswith("20 sent, 3 sent again, goes on")
    assert "9 sent, 4 refused, waits for its route until" in words[1]
    assert "failed in every attempt, goes on at" in words[2]
    assert words[4].endswith("5 sent, done")
    (waiting,) = (line for line in lines if "its route" in line)
    assert waiting.count("░") == 12, "from 1020 to 1050, where the next visit began, of 100 seconds"


def test_a_wait_that_goes_on_lasts_until_now() -> None:
    running = {"id": "batch_1", "status": "in_progress", "created_at": 1000, "in_progress_at": 1000}
    waits = visit(0, 1000, 1010, "waits", waits_until=5000, waits_for="provider")
    line = timeline(running, [waits], [], now=1100)[-1]
    assert "the provider's batch" in line
    assert (line.count("█"), line.count("░")) == (4, 36)


def test_a_killed_visit_and_one_that_runs_are_told() -> None:
    running = {"id": "batch_1", "status": "in_progress", "created_at": 1000, "in_progress_at": 1000}
    killed, runs = visit(0, 1010, None, "runs"), visit(0, 1050, None, "runs", attempt=2)
    lines = [line for line in timeline(running, [runs, killed], [], now=1100) if line.startswith("chunk")]
    assert [line.split("  ")[-1].strip() for line in lines] == ["killed, tried again later", "runs"]
    assert [line.count("█") for line in lines] == [0, 20], "until now"
    (last,) = (line for line in timeline(ENDED, [runs], [], now=9_999) if line.startswith("chunk"))
    assert "killed" in last


def test_within_a_second_visits_come_before_the_ends() -> None:
    at_once = ENDED | dict.fromkeys(("in_progress_at", "finalizing_at", "completed_at"), 1000)
    tries = [{"attempts": [{"attempted_at": 1000, "status_code": 200, "error": None}]}]
    lines = timeline(at_once, [visit(0, 1000.7, 1000.9, "done")], tries, now=9_999)
    steps = [line.split("  ")[0] for line in lines]
    assert steps[1:] == ["validating", "in_progress", "chunk 0", "finalizing", "completed", "webhook, try 1"]


def test_a_narrow_terminal_gets_a_short_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "width", lambda: 80)
    lines = timeline(ENDED, VISITS, [], now=9_999)
    assert max(line.count("█") for line in lines) <= 10


def test_waits_in_a_row_are_one_step() -> None:
    running = {"id": "batch_1", "status": "in_progress", "created_at": 1000, "in_progress_at": 1000}

    def waits(began_at: float, reason: str) -> dict[str, Any]:
        return visit(0, began_at, began_at + 1, "waits", waits_until=began_at + 100, waits_for=reason)

    queued = [waits(began_at, "route") for began_at in (1050, 1040, 1030)]
    lines = timeline(running, [waits(1090, "spend_limit"), *queued, waits(1020, "provider")], [], now=1100)
    steps = [line.split("  ")[0] for line in lines if line.startswith("chunk")]
    assert steps == ["chunk 0", "chunk 0, 3 visits", "chunk 0"]
    (row,) = (line for line in lines if "3 visits" in line)
    assert row.count("░") == 24, "from the first visit's end to the next one's beginning, 60 of 100 seconds"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_batch_without_visits_has_a_timeline(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    monkeypatch.setattr(show, "is_terminal", lambda _: is_terminal)
    assert any("completed" in line for line in timeline(ENDED, [], [], now=9_999))


def test_a_stack_that_tells_no_visits_has_a_timeline(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/visits"):
            return httpx.Response(404, json={"error": {"message": "Not found", "code": "unknown_url"}})
        return httpx.Response(200, json={"data": []} if "deliveries" in request.url.path else ENDED)

    monkeypatch.setattr(client, "Client", partial(client.Client, transport=httpx.MockTransport(answer)))
    assert "completed" in invoke("status", "batch_1", "--timeline").stdout


def test_a_timeline_reads_every_page(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/visits"):
            first = "after" not in request.url.params
            page = {"data": VISITS[:1] if first else VISITS[1:], "last_id": "visit_1", "has_more": first}
            return httpx.Response(200, json=page)
        return httpx.Response(200, json={"data": []} if "deliveries" in request.url.path else ENDED)

    monkeypatch.setattr(client, "Client", partial(client.Client, transport=httpx.MockTransport(answer)))
    assert invoke("status", "batch_1", "--timeline").stdout.count("chunk ") == 5
    found = json.loads(invoke("status", "batch_1", "--timeline", "--json").stdout)
    assert (found["batch"], found["visits"], found["webhook_deliveries"]) == (ENDED, VISITS, [])


def test_a_batch_is_watched_to_its_end(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "sleep", lambda _: None)
    statuses = iter(["in_progress", "in_progress"])

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=BATCH | {"status": next(statuses, "completed")})

    monkeypatch.setattr(client, "Client", partial(client.Client, transport=httpx.MockTransport(answer)))
    shown = invoke("status", "batch_1", "--watch").stdout
    assert shown.startswith("in_progress: ")
    assert "status          completed" in shown


@pytest.mark.parametrize("option", ["--watch", "--timeline"])
def test_a_list_has_no_timeline(option: str) -> None:
    refused = invoke("status", option)
    assert (refused.exit_code, refused.stderr) == (2, "Error: --watch and --timeline need a BATCH_ID.\n")
