import hashlib
import json
import os
import time
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from nightshift_cli import client, progress, uploads
from nightshift_cli.main import app
from python_multipart import parse_form
from typer.testing import CliRunner, Result

PART = 8  # bytes
CONTENT = b'{"a":1}\n{"a":2}\n{"a":3}\n{}\n'  # four parts, the last one short
NOW = 1_700_000_000


class FakeApi:
    """An API with uploads; ``trouble`` may answer or fail each request first."""

    def __init__(self) -> None:
        self.trouble: Callable[[str, str], httpx.Response | None] = lambda *_: None
        self.uploads: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.calls: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        path = request.url.path.removeprefix("/v1")
        self.calls.append(f"{request.method} {path}")
        if answer := self.trouble(request.method, path):
            return answer
        return self._answer(request, path)

    def _answer(self, request: httpx.Request, path: str) -> httpx.Response:
        if path == "/uploads":
            upload_id = f"upload_{len(self.uploads) + 1}"
            self.uploads[upload_id] = {**json.loads(request.content), "parts": {}, "status": "pending"}
            return httpx.Response(200, json={"id": upload_id, "created_at": 50, "expires_at": 3650})
        if path == "/files":
            self.files["file_small"] = request.content
            return httpx.Response(200, json={"id": "file_small"})
        if path == "/batches":
            return httpx.Response(200, json=ENDED | {"input": json.loads(request.content)["input_file_id"]})
        upload = self.uploads.get(path.split("/")[2])
        if upload is None:
            return refusal(404, "upload_not_found")
        if path.endswith("/parts"):
            if upload["status"] != "pending":
                return refusal(400, "upload_not_pending")
            part_id = f"part_{len(upload['parts']) + 1}"
            upload["parts"][part_id] = form(request)["data"]
            return httpx.Response(200, json={"id": part_id})
        wanted = json.loads(request.content)
        whole = b"".join(upload["parts"][part_id] for part_id in wanted["part_ids"])
        if (len(whole), hashlib.md5(whole).hexdigest()) != (upload["bytes"], wanted["md5"]):  # noqa: S324
            return refusal(400, "upload_md5_mismatch")
        upload["status"] = "completed"
        self.files[f"file_of_{path.split('/')[2]}"] = whole
        return httpx.Response(200, json={"file": {"id": f"file_of_{path.split('/')[2]}"}})

    def parts(self) -> int:
        return sum(call.endswith("/parts") for call in self.calls)


ENDED: dict[str, Any] = {
    "id": "batch_1",
    "status": "completed",
    "errors": None,
    "output_file_id": None,
    "error_file_id": None,
    "request_counts": {"total": 4, "completed": 4, "failed": 0},
}


def refusal(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": f"Refused: {code}.", "code": code}})


def form(request: httpx.Request) -> dict[str, bytes]:
    found: dict[str, bytes] = {}

    def on_file(part: Any) -> None:
        part.file_object.seek(0)
        found[part.field_name.decode()] = part.file_object.read()
        part.close()

    headers = {"Content-Type": request.headers["Content-Type"].encode()}
    parse_form(headers, BytesIO(request.content), lambda _: None, on_file)
    return found


def at(number: int, trouble: httpx.Response | BaseException) -> Callable[[str, str], httpx.Response | None]:
    """Trouble with the part of this number and all later ones."""
    seen = 0

    def look(_: str, path: str) -> httpx.Response | None:
        nonlocal seen
        seen += path.endswith("/parts")
        if seen < number or not path.endswith("/parts"):
            return None
        if isinstance(trouble, BaseException):
            raise trouble
        return httpx.Response(trouble.status_code, content=trouble.content)

    return look


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setattr(client, "Client", partial(client.Client, transport=httpx.MockTransport(fake)))
    return fake


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.test/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(uploads, "PART_BYTES", PART)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "in.jsonl").write_bytes(CONTENT)
    return work


def invoke(*options: str) -> Result:
    return CliRunner().invoke(app, ["run", "in.jsonl", "-o", "out.jsonl", *options], catch_exceptions=False)


def bookmarks(folder: Path) -> list[Path]:
    found = folder.parent / "cache" / "nightshift" / "uploads"
    return list(found.iterdir()) if found.exists() else []


def stop_after(api: FakeApi, parts: int) -> None:
    """Stop a run by Ctrl-C after this many parts; the next run has no trouble."""
    api.trouble = at(parts + 1, KeyboardInterrupt())
    assert invoke().exit_code == 130
    api.trouble = lambda *_: None
    api.calls.clear()


def test_small_file_is_one_call(api: FakeApi, folder: Path) -> None:
    (folder / "in.jsonl").write_bytes(b"x" * PART)

    assert invoke().exit_code == 0

    assert api.calls == ["POST /files", "POST /batches"]
    assert bookmarks(folder) == []


def test_large_file_is_sent_in_parts(api: FakeApi, folder: Path) -> None:
    result = invoke()

    assert result.exit_code == 0
    assert api.calls == [
        "POST /uploads",
        *["POST /uploads/upload_1/parts"] * 4,
        *("POST /uploads/upload_1/complete", "POST /batches"),
    ]
    assert api.files == {"file_of_upload_1": CONTENT}
    wanted = {name: api.uploads["upload_1"][name] for name in ("purpose", "filename", "bytes", "mime_type")}
    assert wanted == {
        "purpose": "batch",
        "filename": "in.jsonl",
        "bytes": len(CONTENT),
        "mime_type": "application/jsonl",
    }
    assert result.stdout.splitlines()[0] == f"Uploading in.jsonl ({len(CONTENT)} bytes)."
    assert "Uploaded 0.0 of 0.0 MB." in result.stdout.splitlines()
    assert bookmarks(folder) == []
    assert sorted(path.name for path in folder.iterdir()) == ["in.jsonl", "out.jsonl"]


@pytest.mark.parametrize("trouble", [httpx.ReadError("cut off"), httpx.Response(503), httpx.Response(429)])
@pytest.mark.parametrize("where", ["/uploads", "/uploads/upload_1/parts", "/uploads/upload_1/complete"])
def test_failed_calls_are_retried(api: FakeApi, trouble: httpx.Response | Exception, where: str) -> None:
    failures = iter([trouble, trouble])

    def fail(_: str, path: str) -> httpx.Response | None:
        failure = next(failures, None) if path == where else None
        if isinstance(failure, Exception):
            raise failure
        return failure

    api.trouble = fail

    result = invoke()

    assert result.exit_code == 0
    assert result.stdout.count("retrying") == 2
    assert api.files == {"file_of_upload_1": CONTENT}


def test_part_sent_twice_is_in_the_file_once(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = api._answer
    lost = iter([True])

    def lose(request: httpx.Request, path: str) -> httpx.Response:
        kept = answer(request, path)
        if path.endswith("/parts") and next(lost, False):
            raise httpx.ReadTimeout("slow")
        return kept

    monkeypatch.setattr(api, "_answer", lose)

    assert invoke().exit_code == 0
    assert len(api.uploads["upload_1"]["parts"]) == 5
    assert api.files == {"file_of_upload_1": CONTENT}


def test_run_after_ctrl_c_sends_the_rest(api: FakeApi, folder: Path) -> None:
    stop_after(api, 3)
    assert len(bookmarks(folder)) == 1
    assert b"sk-test" not in bookmarks(folder)[0].read_bytes()

    result = invoke()

    assert result.exit_code == 0
    assert "Resuming an earlier upload: 3 parts were already sent." in result.stdout
    assert api.calls == ["POST /uploads/upload_1/parts", "POST /uploads/upload_1/complete", "POST /batches"]
    assert api.files == {"file_of_upload_1": CONTENT}
    assert bookmarks(folder) == []


def test_run_after_an_outage_sends_the_rest(api: FakeApi, folder: Path) -> None:
    api.trouble = at(3, httpx.ConnectError("refused"))
    first = invoke()
    api.trouble = lambda *_: None
    api.calls.clear()

    assert first.exit_code == 2
    assert first.stderr.splitlines() == [
        "Error: https://api.test/v1 cannot be reached: refused.",
        "  Run the same command again within an hour: parts that were sent are not sent again.",
    ]
    assert (invoke().exit_code, api.parts()) == (0, 2)


def test_second_run_completes_the_upload(api: FakeApi, folder: Path) -> None:
    def stop(_: str, path: str) -> None:
        if path.endswith("/complete"):
            raise KeyboardInterrupt

    api.trouble = stop
    assert invoke().exit_code == 130
    api.trouble = lambda *_: None
    api.calls.clear()

    assert invoke().exit_code == 0
    assert api.calls == ["POST /uploads/upload_1/complete", "POST /batches"]


def test_upload_is_resumed_at_the_same_api_only(api: FakeApi) -> None:
    stop_after(api, 3)

    assert invoke("--base-url", "https://other.test/v1").exit_code == 0
    assert api.calls[0] == "POST /uploads"


@pytest.mark.parametrize("change", ["size", "time"])
def test_changed_file_is_sent_from_the_start(api: FakeApi, folder: Path, change: str) -> None:
    stop_after(api, 3)
    if change == "size":
        (folder / "in.jsonl").write_bytes(CONTENT + b"{}\n")
    else:
        os.utime(folder / "in.jsonl", ns=(1, 1))

    assert invoke().exit_code == 0
    assert (api.calls[0], api.parts()) == ("POST /uploads", 4)
    assert api.files == {"file_of_upload_2": (folder / "in.jsonl").read_bytes()}


def test_changed_bytes_are_sent_again(api: FakeApi, folder: Path) -> None:
    stop_after(api, 3)
    path = folder / "in.jsonl"
    before = path.stat()
    changed = CONTENT[:PART] + CONTENT[PART:].replace(b"2", b"9")
    path.write_bytes(changed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert invoke().exit_code == 0
    assert api.parts() == 3
    assert api.files == {"file_of_upload_1": changed}


@pytest.mark.parametrize("status", ["expired", "completed", "gone"])
def test_lost_upload_starts_over(api: FakeApi, folder: Path, status: str) -> None:
    stop_after(api, 3)
    api.uploads["upload_1"]["status"] = status
    if status == "gone":
        api.uploads = {"upload_of_somebody": {}}

    result = invoke()

    assert result.exit_code == 0
    assert "can no longer be resumed: " in result.stdout
    assert "Starting over." in result.stdout
    assert api.files == {"file_of_upload_2": CONTENT}
    assert bookmarks(folder) == []


def test_expired_upload_is_not_resumed(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(api, 3)
    then = time.time()
    monkeypatch.setattr(time, "time", lambda: then + 3601)

    assert invoke().exit_code == 0
    assert api.calls[0] == "POST /uploads"


def test_expired_bookmarks_are_deleted(api: FakeApi, folder: Path) -> None:
    stop_after(api, 3)
    (left,) = bookmarks(folder)
    os.utime(left, (NOW, NOW))
    (folder / "other.jsonl").write_bytes(CONTENT)

    CliRunner().invoke(app, ["run", "other.jsonl", "-o", "out.jsonl"], catch_exceptions=False)

    assert bookmarks(folder) == []


@pytest.mark.parametrize("content", [b"", b"[]", b'{"path":1}', b"\xff"])
def test_unreadable_bookmark_is_ignored(api: FakeApi, folder: Path, content: bytes) -> None:
    stop_after(api, 3)
    bookmarks(folder)[0].write_bytes(content)

    assert (invoke().exit_code, api.calls[0]) == (0, "POST /uploads")


def test_unwritable_cache_is_ignored(api: FakeApi, folder: Path) -> None:
    (folder.parent / "cache").write_text("a file, where the folder should be")

    assert invoke().exit_code == 0
    assert api.files == {"file_of_upload_1": CONTENT}


@pytest.mark.parametrize("cache", ["", "relative"])
def test_default_cache_is_in_the_home_folder(
    api: FakeApi, folder: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setenv("HOME", str(folder.parent))

    stop_after(api, 1)

    assert len(list((folder.parent / ".cache/nightshift/uploads").iterdir())) == 1


def test_file_changed_during_upload_is_an_error(api: FakeApi, folder: Path) -> None:
    def change(_: str, path: str) -> None:
        if path.endswith("/parts"):
            with (folder / "in.jsonl").open("ab") as file:
                file.write(b"{}\n")

    api.trouble = change

    result = invoke()

    assert result.exit_code == 2
    assert "changed while it was uploaded" in result.stderr
    assert (api.parts(), bookmarks(folder)) == (1, [])


def test_refused_upload_leaves_no_bookmark(api: FakeApi, folder: Path) -> None:
    api.trouble = at(2, refusal(400, "upload_not_pending"))

    result = invoke()

    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "Error: Refused: upload_not_pending.",
        "  (HTTP 400, code upload_not_pending)",
    ]
    assert bookmarks(folder) == []


def test_full_account_is_not_retried(api: FakeApi) -> None:
    api.trouble = lambda *_: refusal(429, "quota_exceeded")

    assert invoke().exit_code == 2
    assert api.calls == ["POST /uploads"]


def test_terminal_shows_a_bar_of_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.UploadBar() as bar:
        bar.say("Uploading [bold] in.jsonl.")
        assert "uploading" not in capsys.readouterr().out
        bar.sent(4_000_000, 12_000_000)
        bar.sent(12_000_000, 12_000_000)

    assert "12.0/12.0 MB" in capsys.readouterr().out


def test_log_has_a_line_every_ten_seconds(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 100, 4))
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    lines = progress.Lines()

    for done in range(0, 41, 4):
        lines.sent(done * 1_000_000, 40_000_000)

    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["4.0", "16.0", "28.0", "40.0"]
