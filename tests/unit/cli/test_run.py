import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from nightshift_cli import client, progress, run
from nightshift_cli.main import app
from typer.testing import CliRunner, Result

BUCKET = "https://bucket.test"


def batch(status: str, completed: int = 0, failed: int = 0, **fields: Any) -> Any:
    counts = {"total": 2, "completed": completed, "failed": failed}
    files = {"output_file_id": None, "error_file_id": None}
    return {"id": "batch_1", "status": status, "request_counts": counts, "errors": None, **files, **fields}


COMPLETED = batch("completed", completed=2, output_file_id="file_out")


class FakeApi:
    """An API whose batch goes through ``states``, one at each read."""

    def __init__(self) -> None:
        self.states: list[httpx.Response | dict[str, Any] | BaseException] = [COMPLETED]
        self.create: httpx.Response | Exception = httpx.Response(200, json=batch("validating"))
        self.files = {"file_out": b'{"custom_id":"a"}\n', "file_err": b'{"custom_id":"b"}\n'}
        self.created: dict[str, Any] = {}
        self.keys: list[str] = []
        self.calls: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/v1")
        self.calls.append(f"{request.method} {path}")
        if request.url.host == "bucket.test":
            return httpx.Response(200, content=self.files[path.removeprefix("/")])
        if path == "/files":
            return httpx.Response(200, json={"id": "file_in"})
        if path.endswith("/content"):
            return httpx.Response(302, headers={"Location": f"{BUCKET}/{path.split('/')[2]}"})
        if request.method == "POST":
            self.created = json.loads(request.content)
            self.keys.append(request.headers["Idempotency-Key"])
            return _answer(self.create)
        return _answer(self.states.pop(0) if len(self.states) > 1 else self.states[0])


def _answer(answer: httpx.Response | dict[str, Any] | BaseException) -> httpx.Response:
    if isinstance(answer, BaseException):
        raise answer
    return httpx.Response(200, json=answer) if isinstance(answer, dict) else answer


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setattr(client, "Client", partial(client.Client, transport=httpx.MockTransport(fake)))
    return fake


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every wait between two polls, recorded and not waited."""
    waited: list[float] = []
    monkeypatch.setattr(run, "sleep", waited.append)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return waited


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.test/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text("{}\n{}\n")
    return tmp_path


def invoke(*options: str, output: str = "out.jsonl") -> Result:
    return CliRunner().invoke(app, ["run", "in.jsonl", "-o", output, *options], catch_exceptions=False)


def test_answered_batch_exits_with_0(api: FakeApi, folder: Path) -> None:
    api.states = [batch("in_progress", completed=1), batch("finalizing", completed=2), COMPLETED]

    result = invoke()

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "Uploading in.jsonl (6 bytes).",
        "Created batch_1.",
        "validating: 0 completed, 0 failed, 2 total",
        "in_progress: 1 completed, 0 failed, 2 total",
        "finalizing: 2 completed, 0 failed, 2 total",
        "completed: 2 completed, 0 failed, 2 total",
        f"Answered lines are in {folder / 'out.jsonl'}.",
    ]
    assert (folder / "out.jsonl").read_bytes() == api.files["file_out"]
    assert sorted(path.name for path in folder.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_failed_lines_exit_with_1(api: FakeApi, folder: Path) -> None:
    api.states = [batch("completed", completed=1, failed=1, output_file_id="file_out", error_file_id="file_err")]

    result = invoke()

    assert (result.exit_code, result.stderr) == (1, "1 of 2 lines failed.\n")
    assert (folder / "out.jsonl").read_bytes() == api.files["file_out"]
    assert (folder / "out.errors.jsonl").read_bytes() == api.files["file_err"]


def test_files_of_an_earlier_run_are_removed(api: FakeApi, folder: Path) -> None:
    (folder / "out.errors.jsonl").write_text("of an earlier run")
    invoke()
    assert not (folder / "out.errors.jsonl").exists()

    api.states = [batch("completed", failed=2, error_file_id="file_err")]
    invoke()
    assert (folder / "out.jsonl").read_text() == ""


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_ended_early_keeps_answers_exits_with_1(api: FakeApi, folder: Path, status: str) -> None:
    api.states = [batch(status, completed=1, failed=1, output_file_id="file_out", error_file_id="file_err")]

    result = invoke()

    assert (result.exit_code, result.stderr) == (
        1,
        f"The batch batch_1 ended as {status} (1 completed, 1 failed, 2 total).\n",
    )
    assert (folder / "out.jsonl").exists()


def test_failed_batch_shows_errors_exits_with_1(api: FakeApi, folder: Path) -> None:
    entry = {"code": "invalid_method", "message": "method must be POST.", "param": "method", "line": 7}
    api.states = [batch("failed", request_counts=None, errors={"object": "list", "data": [entry]})]

    result = invoke()

    assert result.exit_code == 1
    assert "line 7: method must be POST. (invalid_method, method)" in result.stderr
    assert not (folder / "out.jsonl").exists()


def test_refusal_shows_wrong_lines_exits_with_2(api: FakeApi) -> None:
    details = [
        {"code": "invalid_json_line", "message": "The line is not valid JSON.", "param": None, "line": 3},
        {"code": "duplicate_custom_id", "message": "Used \x1b[2J before.", "param": "custom_id", "line": 4},
    ]
    error = {"message": "Not a batch file.", "code": "batch_invalid_jsonl", "param": "input_file_id"}
    api.create = httpx.Response(400, json={"error": {**error, "details": details}}, headers={"x-request-id": "req_1"})

    result = invoke()

    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "Error: Not a batch file.",
        "  (HTTP 400, code batch_invalid_jsonl, param input_file_id, request req_1)",
        "  line 3: The line is not valid JSON. (invalid_json_line)",
        "  line 4: Used \N{REPLACEMENT CHARACTER}[2J before. (duplicate_custom_id, custom_id)",
    ]


def test_create_is_retried_with_the_same_key(api: FakeApi) -> None:
    api.create = httpx.ReadTimeout("slow")

    result = invoke()

    assert result.exit_code == 2
    assert "may have been created" in result.stderr
    assert len(api.keys) > 1
    assert len(set(api.keys)) == 1


def test_each_run_creates_its_own_batch(api: FakeApi) -> None:
    invoke()
    invoke()

    assert len(set(api.keys)) == 2


def test_polling_survives_a_lost_connection(api: FakeApi) -> None:
    api.states = [httpx.ConnectError("refused"), httpx.ConnectError("refused"), COMPLETED]

    result = invoke()

    assert result.exit_code == 0
    assert result.stdout.count("The call failed (refused); retrying") == 2


def test_ctrl_c_shows_how_to_continue(api: FakeApi, folder: Path) -> None:
    api.states = [batch("in_progress"), KeyboardInterrupt()]

    result = invoke("--base-url", "https://api.test/v1")

    assert result.exit_code == 130
    assert "  nightshift status batch_1 --base-url https://api.test/v1\n" in result.stderr
    assert "  nightshift cancel batch_1 --base-url https://api.test/v1\n" in result.stderr
    assert f"  nightshift download batch_1 -o {folder}/out.jsonl --base-url https://api.test/v1\n" in result.stderr
    assert not (folder / "out.jsonl").exists()


def test_a_key_revoked_meanwhile_is_told(api: FakeApi) -> None:
    refusal = {"error": {"message": "Incorrect API key.", "type": "invalid_request_error", "code": "invalid_api_key"}}
    api.states = [batch("in_progress"), httpx.Response(401, json=refusal)]

    result = invoke()

    assert result.exit_code == 2
    assert "The key is no longer accepted. Ask your operator whether batch_1 goes on" in result.stderr
    assert "nightshift status" not in result.stderr


def test_ctrl_c_during_create_names_status(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(client.Client.func, "create_batch", interrupted)  # type: ignore[attr-defined]

    result = invoke()

    assert result.exit_code == 130
    assert "`nightshift status` lists it" in result.stderr


def test_lost_connection_shows_how_to_continue(api: FakeApi) -> None:
    api.states = [batch("in_progress"), httpx.ConnectError("refused")]

    result = invoke()

    assert result.exit_code == 2
    assert "nightshift status batch_1" in result.stderr
    assert "https://api.test/v1 cannot be reached: refused." in result.stderr


def test_too_large_file_is_not_sent(api: FakeApi, folder: Path) -> None:
    with (folder / "in.jsonl").open("wb") as file:
        file.truncate(200 * 1024 * 1024 + 1)  # a hole, which takes no space on the disk

    result = invoke()

    assert result.exit_code == 2
    assert "at most 209,715,200 (200 MB)" in result.stderr
    assert api.calls == []


@pytest.mark.parametrize("command", ["run", "download"])
def test_json_is_the_ended_batch_alone(api: FakeApi, folder: Path, command: str) -> None:
    ended = batch("completed", completed=1, failed=1, output_file_id="file_out", error_file_id="file_err")
    api.states = [ended]

    result = invoke("--json") if command == "run" else download("--json")

    assert (result.exit_code, json.loads(result.stdout)) == (1, ended)
    assert result.stderr == "1 of 2 lines failed.\n"
    assert (folder / "out.jsonl").read_bytes() == api.files["file_out"]


def download(*options: str) -> Result:
    return CliRunner().invoke(app, ["download", "batch_1", "-o", "out.jsonl", *options], catch_exceptions=False)


def test_download_writes_both_files(api: FakeApi, folder: Path) -> None:
    api.states = [batch("expired", completed=1, failed=1, output_file_id="file_out", error_file_id="file_err")]

    result = download()

    assert (result.exit_code, api.calls[0]) == (1, "GET /batches/batch_1")
    assert "ended as expired" in result.stderr
    assert (folder / "out.jsonl").read_bytes() == api.files["file_out"]
    assert (folder / "out.errors.jsonl").read_bytes() == api.files["file_err"]


def test_download_without_failures_exits_with_0(api: FakeApi, folder: Path) -> None:
    result = download("--quiet")

    assert (result.exit_code, result.output) == (0, "")
    assert sorted(path.name for path in folder.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_running_batch_is_not_downloaded(api: FakeApi, folder: Path) -> None:
    (folder / "out.jsonl").write_text("earlier")
    api.states = [batch("in_progress", completed=1)]

    result = download()

    assert result.exit_code == 2
    assert "has not ended yet (in_progress: 1 completed, 0 failed, 2 total)" in result.stderr
    assert (folder / "out.jsonl").read_text() == "earlier"


def test_failed_batch_is_not_downloaded(api: FakeApi, folder: Path) -> None:
    api.states = [batch("failed", request_counts=None)]

    result = download()

    assert (result.exit_code, result.stderr) == (1, "The batch batch_1 failed.\n")
    assert not (folder / "out.jsonl").exists()


def test_options_are_in_the_create_body(api: FakeApi) -> None:
    invoke("--callback-url", "https://hook.test/x", "--metadata", "team=a", "--metadata", "note=x=y")

    assert api.created == {
        "input_file_id": "file_in",
        "endpoint": "/v1/chat/completions",
        "callback_url": "https://hook.test/x",
        "metadata": {"team": "a", "note": "x=y"},
    }


def test_poll_interval_grows_to_5_seconds(api: FakeApi, waits: list[float]) -> None:
    api.states = [*[batch("in_progress")] * 30, COMPLETED]

    invoke()

    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (1, 5)


def test_poll_interval_keeps_its_minimum(api: FakeApi, waits: list[float]) -> None:
    api.states = [*[batch("in_progress")] * 3, COMPLETED]

    invoke("--poll-seconds", "60")

    assert set(waits) == {60}


def test_quiet_prints_problems_only(api: FakeApi) -> None:
    assert invoke("--quiet").output == ""

    api.states = [batch("expired", failed=2, error_file_id="file_err")]
    assert "expired" in invoke("--quiet").output


def test_log_has_a_line_every_ten_seconds(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api.states = [batch("in_progress", completed=number) for number in range(40)]
    api.states.append(COMPLETED)
    seconds = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))

    lines = [line for line in invoke().stdout.splitlines() if line.startswith("in_progress")]

    assert [int(line.split()[1]) for line in lines] == [0, 10, 20, 30]


def test_terminal_shows_a_bar(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    bar = progress.Bar()
    with bar:
        bar.update(batch("validating", request_counts=None))
        bar.update(batch("in_progress", completed=1))
        bar.say("No answer [bold] yet.")

    shown = capsys.readouterr().out
    assert "in_progress" in shown
    assert "1 completed, 0 failed, 2 total" in shown
    assert "No answer [bold] yet." in shown


@pytest.mark.parametrize(
    ("output", "why"),
    [("missing/out.jsonl", "does not exist"), ("in.jsonl", "is the input"), (".", "is not a regular file")],
)
def test_unwritable_output_sends_nothing(api: FakeApi, output: str, why: str) -> None:
    result = invoke(output=output)

    assert result.exit_code == 2
    assert why in result.stderr
    assert api.calls == []


@pytest.mark.parametrize("options", [("--metadata", "team"), ("--metadata", "=a"), ("--poll-seconds", "0")])
def test_wrong_usage_exits_with_2(api: FakeApi, options: tuple[str, ...]) -> None:
    result = invoke(*options)

    assert result.exit_code == 2
    assert options[0] in result.stderr
    assert api.calls == []


def test_full_disk_shows_no_traceback(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)

    result = invoke()

    assert result.exit_code == 2
    assert "No space left on device" in result.stderr
    assert "nightshift status batch_1" in result.stderr


def test_help_imports_no_slow_module() -> None:
    program = (
        "import sys; from nightshift_cli.main import app; app(['--help'], standalone_mode=False); "
        "print(sorted({'boto3', 'httpx', 'msgspec', 'rich', 'yaml'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
