"""run_chunk on a batch-capable route: real stores, a real HTTP client, and the simulator's batch API."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from nightshift.accounts import store as accounts
from nightshift.accounts.spend import DOLLAR
from nightshift.batches import executions, planning
from nightshift.batches import store as batches
from nightshift.batches.charges import spent
from nightshift.chunks.chunk import SliceResult
from nightshift.core import aws, settings
from nightshift.engine import visit as engine_visit
from nightshift.files import store as files
from nightshift.input import layout, plan
from nightshift.routes.route import Auth, Route, Sku
from nightshift.routes.state import RouteState
from nightshift.submissions import client as provider_client
from nightshift.submissions import decision, steps
from nightshift.submissions.client import BatchClient
from nightshift.submissions.provider import ProviderError
from nightshift.submissions.record import Submission
from nightshift.submissions.store import CLAIM_SECONDS, ClaimLostError, SubmissionStore, load

from tests.integration.simulator import Simulator
from tests.integration.support import Caller, apply_route, input_lines, invoke, route, run_chunk, sample, set_batch

SECRET = "nightshift/provider"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is looked at with short pauses."""
    monkeypatch.setattr(decision, "POLL_SHARE", 0.0)
    monkeypatch.setattr(decision, "FIRST_POLL_SECONDS", 0.5)
    monkeypatch.setattr(steps, "FIRST_POLL_SECONDS", 0.5)


@pytest.fixture
def provider(simulator: Simulator) -> Simulator:
    """The simulator behind a batch-capable route with a key."""
    aws.client("secretsmanager").create_secret(Name=SECRET, SecretString="sk-provider")
    apply_route(simulator.url, mode="batch", auth=Auth(secret=SECRET))
    return simulator


def begun(alice: Caller, lines: int = 5) -> str:
    """A batch whose chunk is ready for its provider."""
    batch_id = alice.create(input_lines(lines))
    invoke("validate_batch", alice.start(batch_id))
    return batch_id


def visit(alice: Caller, batch_id: str, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Visit the only chunk until the answer is as wanted."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        [answer] = alice.run_chunks(batch_id)
        if until(answer):
            return answer
        time.sleep(0.01)
    raise AssertionError(f"it never comes to that: {load(batch_id, 0)}")


def to_the_end(alice: Caller, batch_id: str) -> dict[str, Any]:
    visit(alice, batch_id, lambda answer: answer["state"] == "done")
    return alice.finalize(batch_id)


def ids(alice: Caller, batch: dict[str, Any]) -> list[str]:
    return [line["custom_id"] for line in alice.lines(batch["output_file_id"])]


# --- run_chunk --------------------------------------------------------------------------------------------------------


def test_a_chunk_is_answered_by_the_providers_batch(alice: Caller, provider: Simulator) -> None:
    held = provider.report()["files_held"]
    batch_id = begun(alice)
    assert alice.batch(batch_id)["status"] == "validating", "until the provider starts"
    batch = to_the_end(alice, batch_id)
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 5, "completed": 5, "failed": 0}
    assert ids(alice, batch) == [f"r{number}" for number in range(5)]
    report = provider.report()
    assert (report["batches_created"], report["received"], report["files_held"]) == (1, 0, held)


def test_a_cancel_reaches_the_provider(alice: Caller, provider: Simulator) -> None:
    provider.set(batch_seconds=3600)
    batch_id = begun(alice)
    visit(alice, batch_id, lambda _: alice.batch(batch_id)["status"] == "in_progress")
    newest, *_ = alice("GET", f"/batches/{batch_id}/visits").json["data"]
    assert (newest["outcome"], newest["waits_for"]) == ("waits", "provider")
    assert alice("POST", f"/batches/{batch_id}/cancel").json["status"] == "cancelling"
    batch = to_the_end(alice, batch_id)
    assert batch["status"] == "cancelled"
    assert provider.report()["cancels"] == 1


def test_what_would_be_late_goes_in_real_time(alice: Caller, provider: Simulator) -> None:
    provider.set(batch_seconds=3600)
    apply_route(provider.url, mode="batch", auth=Auth(secret=SECRET), rescue_before_seconds=7200)
    batch_id = begun(alice)
    visit(alice, batch_id, lambda _: alice.batch(batch_id)["status"] == "in_progress")
    set_batch(alice, batch_id, created_at=alice.batch(batch_id)["created_at"] - 84_000)
    set_batch(alice, batch_id, expires_at=alice.batch(batch_id)["expires_at"] - 84_000)
    batch = to_the_end(alice, batch_id)
    assert batch["status"] == "completed"
    assert ids(alice, batch) == [f"r{number}" for number in range(5)]
    report = provider.report()
    assert (report["cancels"], report["received"]) == (1, 5)


def test_a_secret_without_a_key_waits_and_marks_the_route(
    alice: Caller, provider: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.client("secretsmanager").put_secret_value(SecretId=SECRET, SecretString=" ")
    batch_id = begun(alice)
    [answer] = alice.run_chunks(batch_id)
    assert answer["state"] in ("wait", "park")
    trouble = RouteState(route(provider.url).id).read().health.trouble
    assert trouble is not None
    assert (trouble.kind, provider.report()["files_uploaded"]) == ("key", 0)

    alice("POST", f"/batches/{batch_id}/cancel")
    monkeypatch.setattr(steps, "DELETE_TRIES", 1)
    assert alice.run_chunks(batch_id)[0]["state"] == "done", "nothing is at the provider"


def test_a_plan_that_is_made_again_has_the_segments_of_the_first(
    alice: Caller, provider: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "BATCH_SEGMENT_LINES", 2)
    batch_id = begun(alice)
    planned = plan.read(batch_id)
    assert planned is not None
    assert [segment.lines for segment in planned[0].segments] == [2, 2, 1]
    aws.client("s3").delete_object(Bucket=settings.bucket(), Key=plan.key(batch_id))
    monkeypatch.setattr(layout, "BATCH_SEGMENT_LINES", 3)  # of a later version
    assert planning.tasks_of(batches.get(alice.account_id, batch_id)) == planned


def test_an_input_that_is_deleted_holds_no_batch(alice: Caller, provider: Simulator) -> None:
    batch_id = begun(alice)
    batch = batches.get(alice.account_id, batch_id)
    aws.client("s3").delete_object(Bucket=settings.bucket(), Key=files.key(alice.account_id, batch.input_file_id))
    ended = to_the_end(alice, batch_id)
    assert ended["status"] in ("failed", "completed", "expired")
    assert "deleted" in json.dumps(ended["errors"])
    assert provider.report()["files_uploaded"] == 0


# --- a spend limit ----------------------------------------------------------------------------------------------------

# An answer's tokens cost a dollar each.
PRICED = Sku("demo-sku", input_per_million=1_000_000, output_per_million=1_000_000)


def test_who_has_spent_the_limit_submits_nothing(alice: Caller, provider: Simulator) -> None:
    apply_route(provider.url, mode="batch", auth=Auth(secret=SECRET), sku=PRICED)
    batch_id = begun(alice)
    accounts.set_quotas(alice.account_id, {"dollars_a_day": 0})
    [answer] = alice.run_chunks(batch_id)
    assert answer["state"] in ("wait", "park")
    assert provider.report()["files_uploaded"] == 0
    accounts.set_quotas(alice.account_id, {"dollars_a_day": 1000})
    visit(alice, batch_id, lambda answer: answer["state"] == "done")
    charged = spent(alice.account_id).day
    assert charged > 5 * DOLLAR, "charged when the chunk is done"
    batch = alice.finalize(batch_id)
    assert (batch["status"], ids(alice, batch)) == ("completed", [f"r{number}" for number in range(5)])
    usage = batch["usage"]
    assert spent(alice.account_id).day == charged == (usage["input_tokens"] + usage["output_tokens"]) * DOLLAR


# --- the sweep looks --------------------------------------------------------------------------------------------------


def execution_names() -> list[tuple[str, str]]:
    found = aws.client("stepfunctions").list_executions(stateMachineArn=settings.state_machine())
    return sorted((execution["name"], execution["status"]) for execution in found["executions"])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the sweep has called RunChunk with."""
    called: list[dict[str, Any]] = []

    def call(*, FunctionName: str, InvocationType: str, Payload: str) -> None:  # noqa: N803 (Lambda's names)
        assert (FunctionName, InvocationType) == ("run-chunk", "Event")
        called.append(json.loads(Payload))

    monkeypatch.setenv("RUN_CHUNK", "run-chunk")
    monkeypatch.setattr(aws.client("lambda"), "invoke", call)
    return called


@pytest.fixture
def asleep(alice: Caller, provider: Simulator, monkeypatch: pytest.MonkeyPatch) -> str:
    """A batch whose execution sleeps, because its provider works."""
    provider.set(batch_seconds=3600)
    batch_id = begun(alice)
    visit(alice, batch_id, lambda _: alice.batch(batch_id)["status"] == "in_progress")
    set_batch(alice, batch_id, created_at=int(time.time()) - 200)
    monkeypatch.setattr(decision, "FIRST_POLL_SECONDS", 200.0)
    time_passes(alice, batch_id)
    [task] = msgspec.to_builtins(plan.read(batch_id))
    answer = run_chunk(task | {"execution": 0})
    assert (answer["state"], answer["wait_seconds"]) == ("park", decision.UNSWEPT_SECONDS)
    newest, *_ = alice("GET", f"/batches/{batch_id}/visits").json["data"]
    assert newest["waits_until"] - time.time() < 210
    return batch_id


def time_passes(alice: Caller, batch_id: str, **changes: Any) -> None:
    """Let the next look be due, with ``changes`` of the submission."""
    submissions = SubmissionStore(batch_id, 0, "test")
    submission = submissions.load()
    assert submission is not None
    assert submissions.claim(time.time())
    submissions.save(replace(submission, not_before=0.0, **changes))
    submissions.release()
    if batches.get(alice.account_id, batch_id).look_at is not None:
        set_batch(alice, batch_id, look_at=int(time.time()) - 1)


def ends(provider: Simulator) -> None:
    """Let the provider's batch end."""
    provider.set(batch_seconds=0)
    while provider.client.batches.list().data[0].status != "completed":
        time.sleep(0.01)


def sweep() -> int:
    """How many looks a sweep has started."""
    swept = invoke("sweep", sample("sweep"))
    assert (swept["started"], swept["ended"], swept["failed"]) == (0, 0, 0)
    looked: int = swept["looked"]
    return looked


def test_a_look_before_its_time_is_not_made(asleep: str, calls: list[dict[str, Any]]) -> None:
    assert sweep() == 0
    assert calls == []


def test_while_the_provider_works_the_execution_sleeps_on(
    alice: Caller, asleep: str, calls: list[dict[str, Any]]
) -> None:
    time_passes(alice, asleep)
    assert sweep() == 1
    before = batches.get(alice.account_id, asleep)
    assert invoke("run_chunk", calls[0]) == {}
    after = batches.get(alice.account_id, asleep)
    assert execution_names() == [(asleep, "RUNNING")]
    assert (after.execution, after.parked_until) == (0, before.parked_until)
    assert after.look_at is not None
    assert after.look_at > time.time() + 100
    assert sweep() == 0


def test_a_batch_that_has_ended_at_the_provider_wakes(
    alice: Caller, provider: Simulator, asleep: str, calls: list[dict[str, Any]]
) -> None:
    ends(provider)
    time_passes(alice, asleep)
    assert sweep() == 1
    assert invoke("run_chunk", calls[0]) == {}
    assert execution_names() == [(asleep, "ABORTED"), (f"{asleep}-1", "RUNNING")]
    arn = executions.arn_of(asleep, 1)
    given = json.loads(aws.client("stepfunctions").describe_execution(executionArn=arn)["input"])
    assert (given["run"], given["task"]["execution"], given["task"]["slice"]["state"]) == ("end", 1, "done")
    invoke("finalize_batch", alice.round(asleep, "done", execution=1))
    assert ids(alice, alice.batch(asleep)) == [f"r{number}" for number in range(5)]
    assert provider.report()["batches_created"] == 1


def test_a_look_that_comes_twice_or_late_does_nothing(
    alice: Caller, provider: Simulator, asleep: str, calls: list[dict[str, Any]]
) -> None:
    time_passes(alice, asleep)
    assert (sweep(), sweep()) == (1, 0), "the first look is on its way"
    invoke("run_chunk", calls[0])
    after = batches.get(alice.account_id, asleep)
    invoke("run_chunk", calls[0])
    assert abs((batches.get(alice.account_id, asleep).look_at or 0) - (after.look_at or 0)) <= 10
    assert execution_names() == [(asleep, "RUNNING")]
    assert alice("POST", f"/batches/{asleep}/cancel").json["status"] == "cancelling"
    before = provider.report()
    invoke("run_chunk", calls[0])
    assert provider.report() == before
    assert execution_names() == [(asleep, "ABORTED"), (f"{asleep}-1", "RUNNING")], "woken by the cancel"


def test_a_look_without_the_claim_leaves_the_batch_to_who_has_it(
    alice: Caller, asleep: str, calls: list[dict[str, Any]]
) -> None:
    time_passes(alice, asleep)
    assert sweep() == 1
    assert SubmissionStore(asleep, 0, "another look").claim(time.time())
    invoke("run_chunk", calls[0])
    assert execution_names() == [(asleep, "RUNNING")]
    look_at = batches.get(alice.account_id, asleep).look_at
    assert look_at is not None
    assert look_at < time.time() + CLAIM_SECONDS, "a later sweep looks again"


def test_a_visit_that_is_made_again_does_not_sleep(alice: Caller, asleep: str) -> None:
    """Step Functions had no answer of the one that recorded the sleep."""
    [task] = msgspec.to_builtins(plan.read(asleep))
    seen: list[bool] = []

    def work(*_: Any) -> SliceResult:
        seen.append(batches.get(alice.account_id, asleep).is_asleep(time.time()))
        return SliceResult("more")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_visit, "run_slice", work)
        run_chunk(task | {"execution": 0}, retries=1)
    assert seen == [False]


def test_a_look_that_is_lost_is_made_again(alice: Caller, asleep: str, calls: list[dict[str, Any]]) -> None:
    time_passes(alice, asleep)
    assert sweep() == 1
    set_batch(alice, asleep, look_at=int(time.time()) - 1)  # a quarter of an hour later
    assert sweep() == 1
    assert calls[0] == calls[1]


@pytest.mark.parametrize("parked_seconds", [-10, 7200])
def test_a_look_that_outlasts_the_sleep_changes_nothing(
    alice: Caller,
    provider: Simulator,
    asleep: str,
    calls: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    parked_seconds: int,
) -> None:
    """The execution has woken by itself; perhaps it sleeps again."""
    until = int(time.time()) + parked_seconds
    monkeypatch.setattr(engine_visit, "_record", lambda *_: set_batch(alice, asleep, parked_until=until))
    for ended in (False, True):
        set_batch(alice, asleep, parked_until=int(time.time()) + 100)
        time_passes(alice, asleep)
        if ended:
            ends(provider)
        assert sweep() == 1
        before = batches.get(alice.account_id, asleep)
        invoke("run_chunk", calls[-1])
        assert batches.get(alice.account_id, asleep) == replace(before, parked_until=until)
        assert execution_names() == [(asleep, "RUNNING")]


def test_what_is_to_go_on_in_seconds_wakes(
    alice: Caller, asleep: str, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision, "FIRST_POLL_SECONDS", 0.5)
    monkeypatch.setattr(decision, "DOUBLING_SECONDS", 0.0)
    time_passes(alice, asleep)
    assert sweep() == 1
    invoke("run_chunk", calls[0])
    assert execution_names() == [(asleep, "ABORTED"), (f"{asleep}-1", "RUNNING")]


def test_lines_for_real_time_are_left_to_the_execution(
    alice: Caller, provider: Simulator, asleep: str, calls: list[dict[str, Any]]
) -> None:
    time_passes(alice, asleep, step="realtime")
    sweep()
    invoke("run_chunk", calls[0])
    assert execution_names() == [(asleep, "ABORTED"), (f"{asleep}-1", "RUNNING")]
    assert provider.report()["received"] == 0
    given = aws.client("stepfunctions").describe_execution(executionArn=executions.arn_of(asleep, 1))["input"]
    assert json.loads(given)["run"] == "chunk"
    assert run_chunk(json.loads(given)["task"])["state"] == "done"
    assert provider.report()["received"] == 5


# --- the claims -------------------------------------------------------------------------------------------------------


def test_one_worker_has_the_claim() -> None:
    first, second = SubmissionStore("batch_1", 0, "first"), SubmissionStore("batch_1", 0, "second")
    one = Submission(number=1, step="uploading", since=0.0)
    assert first.claim(1000.0)
    assert first.claim(1001.0), "it is its own"
    assert not second.claim(1001.0)
    first.save(one)
    with pytest.raises(ClaimLostError):
        second.save(one)
    assert second.claim(1001.0 + CLAIM_SECONDS + 1)
    with pytest.raises(ClaimLostError):
        first.save(one)
    with pytest.raises(ClaimLostError):
        first.renew(2000.0)
    first.release()
    assert not first.claim(1001.0 + CLAIM_SECONDS + 2), "it cannot give back what another has"
    second.release()
    assert first.claim(1001.0 + CLAIM_SECONDS + 3)
    assert first.load() == one


def test_a_claim_is_of_one_chunk() -> None:
    assert SubmissionStore("batch_1", 0, "first").claim(1000.0)
    assert SubmissionStore("batch_1", 1, "second").claim(1000.0)


def test_a_visit_without_the_claim_does_nothing(alice: Caller, provider: Simulator) -> None:
    batch_id = begun(alice)
    assert SubmissionStore(batch_id, 0, "another").claim(10_000_000_000.0)
    [answer] = alice.run_chunks(batch_id)
    assert answer == answer | {"state": "wait", "wait_seconds": round(CLAIM_SECONDS / 2)}
    assert provider.report()["files_uploaded"] == 0


# --- the client -------------------------------------------------------------------------------------------------------

Seen = list[tuple[str, str, str | None]]


@contextmanager
def answering(answer: Callable[[str, str], tuple[int, dict[str, str], bytes]]) -> Iterator[tuple[str, Seen]]:
    """A server, and the method, path and credentials of each call to it."""
    seen: Seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen.append((self.command, self.path, self.headers.get("Authorization")))
            status, headers, body = answer(self.command, self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 (the base class's name)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", seen
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def key() -> None:
    aws.client("secretsmanager").create_secret(Name=SECRET, SecretString="sk-provider")


def ask(target: Route, question: Callable[[BatchClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with BatchClient(target) as client:
            return await question(client)

    return asyncio.run(run())


async def lines_of(client: BatchClient) -> list[bytes]:
    return [line async for line in client.read_lines("file-1")]


@pytest.mark.usefixtures("key")
def test_a_redirect_gets_no_credentials() -> None:
    def answer(_: str, path: str) -> tuple[int, dict[str, str], bytes]:
        return (200, {}, b"one\ntwo\n") if path == "/stored" else (302, {"Location": "/stored"}, b"")

    with answering(answer) as (url, seen):
        assert ask(route(url, auth=Auth(secret=SECRET)), lines_of) == [b"one", b"two"]
    assert seen == [("GET", "/files/file-1/content", "Bearer sk-provider"), ("GET", "/stored", None)]


def test_a_circle_of_redirects_ends() -> None:
    with answering(lambda *_: (302, {"Location": "/again"}, b"")) as (url, seen), pytest.raises(ProviderError):
        ask(route(url), lines_of)
    assert len(seen) == 5


def test_a_file_too_large_for_one_call_goes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_client, "UPLOAD_PART_BYTES", 4)

    def answer(_: str, path: str) -> tuple[int, dict[str, str], bytes]:
        if path == "/files":
            return 413, {}, b'{"message": "Request Too Long"}'
        whole = {"id": "upload-1"} | ({"file": {"id": "file-1"}} if path.endswith("/complete") else {})
        return 200, {}, json.dumps(whole).encode()

    (tmp_path / "lines").write_bytes(b"123456789")
    with answering(answer) as (url, seen):
        assert ask(route(url), lambda client: client.upload("name", tmp_path / "lines")) == "file-1"
    paths = [path for _, path, _ in seen]
    assert paths == ["/files", "/uploads", *["/uploads/upload-1/parts"] * 3, "/uploads/upload-1/complete"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"id": "../x"}', b'{"id": 5}', b"\xff", b'{"id": "' * 50_000])
def test_an_answer_that_is_none_is_an_error_of_the_provider(body: bytes) -> None:
    with answering(lambda *_: (200, {}, body)) as (url, _), pytest.raises(ProviderError):
        ask(route(url), lambda client: client.get("batch-1"))


def test_a_long_line_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_client, "MAX_LINE_BYTES", 100_000)
    content = b"one\n" + b"x" * 500_000 + b"\ntwo"
    with answering(lambda *_: (200, {}, content)) as (url, _):
        assert ask(route(url), lines_of) == [b"one", b"two"]


def test_a_cancel_that_comes_too_late_is_no_error() -> None:
    with answering(lambda *_: (409, {}, b'{"error": {"message": "has ended"}}')) as (url, _):
        ask(route(url), lambda client: client.cancel("batch-1"))
        with pytest.raises(ProviderError, match="has ended"):
            ask(route(url), lambda client: client.get("batch-1"))
