"""Batches under random sequences of events: every step is repeated, interrupted or killed at any place, or run twice.

At each store call a step may be killed, before or after the call's effect, or another event may happen in full: a
second copy of the step, a cancel, the deadline. Hypothesis chooses the sequence, so that a failure can be repeated.
`make test` runs a few fixed sequences; STATE_EXAMPLES=1000 runs a thousand new ones.
"""

import asyncio
import contextvars
import itertools
import json
import os
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from nightshift.batches import executions
from nightshift.batches import store as batches
from nightshift.batches.record import Batch
from nightshift.batches.status import EDGES, TERMINAL, Status
from nightshift.chunks.run_limits import RunLimits
from nightshift.core import aws, concat, table
from nightshift.core import settings as stack_settings
from nightshift.core.ids import request_line_id
from nightshift.core.log import logger
from nightshift.core.table import Table
from nightshift.engine import slice as chunk_slice
from nightshift.files import store as files
from nightshift.input import layout, plan
from nightshift.results import store as results
from nightshift.results.parts import decode_part
from nightshift.routes.route import Route
from nightshift.upstream.answer import Answer
from nightshift.upstream.byte_budget import ByteBudget
from nightshift.upstream.pacing import Backoff

from tests.integration.support import (
    MODEL,
    Caller,
    KilledError,
    apply_route,
    invoke,
    request_line,
    run_chunk,
    sample,
    set_batch,
)

EXAMPLES = int(os.environ.get("STATE_EXAMPLES", "0"))
LEFTOVERS = {"batch_cancelled", "batch_expired", "internal_error"}


# --- processes that may be interrupted ------------------------------------------------------------------------------


@dataclass
class Process:
    """One invocation. At its call number ``at`` to a store or the upstream, before or ``after`` the call's effect, it
    is killed, or ``meanwhile`` happens."""

    at: int = 0
    after: bool = False
    meanwhile: Callable[[], None] | None = None
    dead: bool = False
    _calls: Iterable[int] = field(default_factory=lambda: itertools.count(1))

    def is_now(self) -> bool:
        """Count a call, and return whether it is number ``at``."""
        if self.dead:
            raise KilledError
        return next(iter(self._calls)) == self.at

    def interrupt(self) -> None:
        if self.meanwhile is None:
            self.dead = True
            raise KilledError
        contextvars.Context().run(self.meanwhile)


PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("PROCESS", default=None)


class Pool(ThreadPoolExecutor):
    """Threads that belong to the process that started them."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(contextvars.copy_context().run, fn, *args, **kwargs)


class Client:
    """A boto3 client whose calls may be interrupted. What it writes is recorded in ``history``."""

    def __init__(self, real: Any, history: "History") -> None:
        self._real = real
        self._history = history

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._real, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            process = PROCESS.get()
            met = process if process and process.is_now() else None
            if met and not met.after:
                met.interrupt()
            answer = self._history.noted(name, lambda: attribute(*args, **kwargs), kwargs)
            if met and met.after:
                met.interrupt()
            return answer

        return call


class History:
    """Every write and every event. ``real`` returns the clients that are not interrupted."""

    def __init__(self, real: Callable[[str], Any]) -> None:
        self.real = real
        self.clear()

    def clear(self) -> None:
        self.changes: list[tuple[dict[str, Any] | None, dict[str, Any]]] = []  # of batches, in order
        self.told: list[Any] = []  # entries put on the bus
        self.kept: defaultdict[str, set[int]] = defaultdict(set)  # by batch: the lines in parts
        self.starts_are_lost = False
        self._lock = threading.Lock()

    def noted(self, name: str, call: Callable[[], Any], kwargs: dict[str, Any]) -> Any:
        if name == "put_events":
            self.told += kwargs["Entries"]
            return {"Entries": [{"EventId": "-"} for _ in kwargs["Entries"]]}
        if name == "start_execution" and self.starts_are_lost:
            return {}
        key = kwargs.get("Key")
        if name == "put_object" and "/parts/" in kwargs["Key"]:
            answer = call()
            self.kept[kwargs["Key"].split("/")[1]] |= {line.number for _, line in decode_part(kwargs["Body"])}
            return answer
        if name in ("put_item", "update_item") and kwargs["TableName"] == stack_settings.table("batches"):
            key = key or {name: kwargs["Item"][name] for name in ("pk", "sk")}
            if key["sk"]["S"].startswith("batch_"):
                with self._lock:
                    old = self._item(key)
                    answer = call()
                    new = self._item(key)
                    assert new is not None
                    if old != new:
                        self.changes.append((old, new))
                    return answer
        return call()

    def _item(self, key: dict[str, Any]) -> dict[str, Any] | None:
        found = self.real("dynamodb").get_item(TableName=stack_settings.table("batches"), Key=key)
        return table.decode(found["Item"]) if "Item" in found else None


# --- an upstream ----------------------------------------------------------------------------------------------------


class Upstream:
    """Takes the place of ``nightshift.upstream.Upstream``. How it answers depends on its mood, the line and the try."""

    mood = "good"
    seed = 0
    tries: ClassVar[Counter[str]] = Counter()
    MOODS: ClassVar[dict[str, str]] = {  # each letter is an outcome, as likely as it is frequent
        "good": "y",
        "mixed": "yyyyyyyy4577rb",
        "bad": "577rbt",
        "refusing": "r",
        "away": "c",
        "long pause": "w",
        "hanging": "ht",
    }

    def __init__(
        self,
        _route: Route,
        _api_key: str | None,
        concurrency: int,
        _budget: ByteBudget,
        *,
        endpoint: str,
        timeout_seconds: float,
    ) -> None:
        assert timeout_seconds > 0
        assert endpoint == "/v1/chat/completions"
        self._free = concurrency

    async def __aenter__(self) -> "Upstream":
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def send(self, body: bytes, key: str) -> Answer:
        process = PROCESS.get()
        if process and process.is_now():
            await asyncio.to_thread(process.interrupt)
        assert self._free > 0, "more in flight than the route's share"
        self._free -= 1
        try:
            return await self._answer(json.loads(body), key)
        finally:
            self._free += 1

    async def _answer(self, wanted: dict[str, Any], key: str) -> Answer:
        Upstream.tries[key] += 1
        chance = random.Random(f"{self.seed} {key} {self.tries[key]}")
        outcome = chance.choice(self.MOODS[self.mood])
        await asyncio.sleep(0.01 if outcome in "ht" else 0.001 * chance.random())
        tokens = int(wanted["messages"][0]["content"]) + 1
        answer = {"model": wanted["model"], "said": wanted["messages"][0]["content"], "usage": {"total_tokens": tokens}}
        match outcome:
            case "y":
                return Answer(200, json.dumps(answer).encode())
            case "4":
                return Answer(400, json.dumps(answer | {"error": {}}).encode())
            case "5" | "7":
                return Answer(500, b'{"error":{}}')
            case "r":
                return Answer(429, b'{"error":{}}', retry_after=chance.choice([None, 0.01]))
            case "w":
                return Answer(503, b'{"error":{}}', retry_after=30.0)
            case "c":
                return Answer(failure="connect")
            case "b":
                return Answer(failure="broken")
            case "h":
                await asyncio.sleep(0.05)  # as long as requests may take here
        return Answer(failure="timeout")


# --- the machine ----------------------------------------------------------------------------------------------------

CHUNKS = st.integers(0, 2)
STEPS = (
    *("validate", "run_chunk", "finalize", "old finalize", "execution fails", "old execution stops", "sweep"),
    *("cancel", "park", "wake", "operator stops", "expire", "expire long ago", "fail"),
)
FAULTS = st.one_of(
    st.just(("", 0, 0, None)),
    st.tuples(st.just("killed"), st.integers(1, 40), st.booleans(), st.none()),
    st.tuples(
        st.sampled_from(STEPS),
        st.integers(1, 40),
        st.booleans(),
        # The event in between may be killed too; 0: it is not.
        st.integers(0, 15),
    ),
)


@dataclass
class Life:
    """The test's own record of one batch."""

    lines: int
    legal: bool
    given_up: set[int] = field(default_factory=set)  # in this round
    stopped: bool = False  # by the operator
    slices: dict[int, dict[str, Any]] = field(default_factory=dict)
    kept: set[int] | None = None  # the lines in parts at the first attempt to end the batch
    highest: int = 0


class BatchStates(RuleBasedStateMachine):
    caller: Caller
    history: History
    monkeypatch: pytest.MonkeyPatch
    created = Bundle("created")

    def __init__(self) -> None:
        super().__init__()
        self.lives: dict[str, Life] = {}
        self.history.clear()
        Upstream.mood, Upstream.tries = "good", Counter()

    # --- events

    @rule(
        target=created,
        lines=st.integers(1, 9),
        sync=st.booleans(),
        legal=st.sampled_from([True, True, True, False]),
        lost=st.booleans(),
    )
    def create(self, lines: int, sync: bool, legal: bool, lost: bool) -> str:
        if len(self.lives) == 2:
            return next(iter(self.lives))
        self.monkeypatch.setenv("SYNC_VALIDATION_SECONDS", "20" if sync and legal else "0")
        content = [request_line(f"r{number}", str(number)) for number in range(lines)]
        self.history.starts_are_lost = lost
        batch_id = self.caller.create(content if legal else [*content, "{"])
        self.history.starts_are_lost = False
        set_batch(self.caller, batch_id, created_at=int(time.time()) - 200)
        self.lives[batch_id] = Life(lines, legal)
        return batch_id

    @rule(mood=st.sampled_from(sorted(Upstream.MOODS)), seed=st.integers(0, 3))
    def upstream_changes(self, mood: str, seed: int) -> None:
        Upstream.mood, Upstream.seed = mood, seed

    @rule(batch=created, fault=FAULTS)
    def validate(self, batch: str, fault: tuple[str, int, bool, int | None]) -> None:
        self.process(batch, "validate", 0, fault)

    @rule(batch=created, number=CHUNKS, fault=FAULTS)
    def run_chunk(self, batch: str, number: int, fault: tuple[str, int, bool, int | None]) -> None:
        self.process(batch, "run_chunk", number, fault)

    @rule(batch=created, number=CHUNKS)
    def run_chunk_twice_at_once(self, batch: str, number: int) -> None:
        with Pool(2) as pool:
            for copy in [pool.submit(self.step, batch, "run_chunk", number) for _ in range(2)]:
                copy.result()

    @rule(batch=created, number=CHUNKS)
    def map_gives_a_chunk_up(self, batch: str, number: int) -> None:
        self.lives[batch].given_up.add(number)

    @rule(
        batch=created,
        fault=FAULTS,
        step=st.sampled_from(
            ["finalize", "finalize", "old finalize", "execution fails", "old execution stops", "sweep"]
        ),
    )
    def end(self, batch: str, step: str, fault: tuple[str, int, bool, int | None]) -> None:
        self.process(batch, step, 0, fault)

    @rule(batch=created)
    def finalize_twice_at_once(self, batch: str) -> None:
        with Pool(2) as pool:
            for copy in [pool.submit(self.step, batch, "finalize", 0) for _ in range(2)]:
                copy.result()

    @rule(batch=created, step=st.sampled_from(["cancel", "park", "wake"]), fault=FAULTS)
    def park_or_cancel(self, batch: str, step: str, fault: tuple[str, int, bool, int | None]) -> None:
        self.process(batch, step, 0, fault)

    @rule(batch=created, fault=FAULTS)
    def park_and_cancel(self, batch: str, fault: tuple[str, int, bool, int | None]) -> None:
        self.step(batch, "park", 0)
        self.process(batch, "cancel", 0, fault)

    @rule(batch=created, sure=st.sampled_from([False, False, True]))
    def operator_stops(self, batch: str, sure: bool) -> None:
        if sure:
            self.step(batch, "operator stops", 0)

    @rule(batch=created, how=st.sampled_from(["expire", "expire long ago"]))
    def expire(self, batch: str, how: str) -> None:
        self.step(batch, how, 0)

    @rule(start=st.integers(0, 30), count=st.integers(1, 10))
    def publish(self, start: int, count: int) -> None:
        records = []
        for number, (old, new) in enumerate(self.history.changes[start : start + count]):
            record = json.loads(json.dumps(sample("publish_events")["Records"][1]))
            images = {"NewImage": table.encode(new), "SequenceNumber": str(number)}
            record["dynamodb"] = images | ({"OldImage": table.encode(old)} if old else {})
            records.append(record)
        assert invoke("publish_events", {"Records": records}) == {"batchItemFailures": []}

    # --- steps

    def process(self, batch: str, step: str, number: int, fault: tuple[str, int, bool, int | None]) -> None:
        """Run a step in a process of its own, with the fault."""
        what, at, after, killed_at = fault
        process = Process(at, bool(after))
        if what and what != "killed":
            inner = ("killed", killed_at, False, None) if killed_at else ("", 0, False, None)
            process.meanwhile = lambda: self.process(batch, what, number, inner)

        def run() -> None:
            PROCESS.set(process)
            self.step(batch, step, number)

        try:
            contextvars.Context().run(run)
        except BaseException:
            if not process.dead:
                raise

    def step(self, batch: str, step: str, number: int) -> None:
        life = self.lives[batch]
        execution = self.stored(batch).execution
        ends = {"finalize", "old finalize", "execution fails", "operator stops", "sweep"}
        if step in ends and life.kept is None:
            life.kept = set(self.history.kept[batch])
        match step:
            case "validate":
                invoke("validate_batch", self.caller.start(batch) | {"execution": execution})
            case "finalize":
                self._finalize(batch, execution)
            case "old finalize":
                assert not self._finalize(batch, execution - 1)
            case "run_chunk":
                self._run_chunk(batch, number)
            case "execution fails":
                self._execution_ends(batch, execution, "FAILED")
            case "old execution stops":
                self._execution_ends(batch, execution - 1, "ABORTED")
            case "operator stops":
                life.stopped = True
                self._execution_ends(batch, execution, "ABORTED")
            case "park":
                if self.stored(batch).status not in TERMINAL:
                    executions.park(self.stored(batch), int(time.time()) + 600)
            case "wake":
                executions.wake(self.stored(batch))
            case "sweep":
                assert invoke("sweep", sample("sweep"))["failed"] == 0
            case "cancel":
                self.caller("POST", f"/batches/{batch}/cancel")
            case "expire" | "expire long ago":
                if self.stored(batch).status not in TERMINAL:
                    set_batch(self.caller, batch, expires_at=int(time.time()) - (1 if step == "expire" else 4000))
            case "fail":
                life.given_up.add(number)

    def _finalize(self, batch: str, execution: int) -> bool:
        """Tell FinalizeBatch how the chunks ended, and return whether there is another round."""
        life = self.lives[batch]
        planned = self.stored(batch).plan
        ends = [
            "failed" if number in life.given_up else life.slices.get(number, {}).get("state", "failed")
            for number in range(planned.chunks if planned else 0)
        ]
        done = self.caller.round(batch, *(end if end == "done" else "failed" for end in ends), execution=execution)
        answer = invoke("finalize_batch", done)
        if answer["goes_on"]:
            life.given_up, life.slices = set(), {}
        return bool(answer["goes_on"])

    def _execution_ends(self, batch: str, number: int, status: str) -> None:
        event = sample("close_abandoned")
        task = self.caller.start(batch) | {"execution": number}
        event["detail"] |= {"input": json.dumps(task), "name": batch, "status": status}
        invoke("close_abandoned", event)

    def _run_chunk(self, batch: str, number: int) -> None:
        tasks = msgspec.to_builtins(plan.read(batch) or [])
        life = self.lives[batch]
        if number >= len(tasks) or number in life.given_up:
            return
        task = tasks[number] | {"slice": life.slices.get(number, {})}
        # The route's timeout is one second, so this slice starts requests for 0.1 s.
        answer = run_chunk(task, 1 + chunk_slice.LIMITS.slice_margin_seconds + 0.1)
        assert answer["state"] in ("done", "more", "wait", "park")
        assert (answer["wait_seconds"] > 0) == (answer["state"] in ("wait", "park"))
        if answer["wait_seconds"]:  # Step Functions waits; here the wait is over at once
            lines = {number: [tries, 0.0] for number, (tries, _) in answer["carry"].get("lines", {}).items()}
            answer["carry"] |= {"level": {}, "lines": lines}
        life.slices[number] = answer

    def stored(self, batch: str) -> Batch:
        return batches.get(self.caller.account_id, batch)

    # --- invariants

    @invariant()
    def only_legal_edges_were_taken_and_ends_are_final(self) -> None:
        for old, new in self.history.changes:
            if old is None:
                assert new["status"] == "validating"
            else:
                assert new["status"] == old["status"] or new["status"] in EDGES[old["status"]]
                assert old["status"] not in TERMINAL

    @invariant()
    def counts_are_never_more_than_there_is_and_never_go_back(self) -> None:
        for batch_id, life in self.lives.items():
            batch = self.caller.batch(batch_id)
            counts = batch["request_counts"]
            if counts is None or self.stored(batch_id).plan is None:
                continue
            done = counts["completed"] + counts["failed"]
            assert counts["total"] == life.lines
            assert done <= life.lines
            if batch["status"] in ("in_progress", "finalizing"):
                assert done >= life.highest
                life.highest = done

    @invariant()
    def a_batch_has_one_end_and_one_event_of_it(self) -> None:
        ends: defaultdict[str, set[str]] = defaultdict(set)
        told: dict[str, Any] = {}
        for entry in self.history.told:
            detail = json.loads(entry["Detail"])
            assert told.setdefault(detail["id"], detail) == detail
            if detail["batch"]["status"] in TERMINAL:
                ends[detail["batch"]["id"]].add(detail["id"])
        assert all(len(ids) == 1 for ids in ends.values())

    @invariant()
    def what_has_ended_is_whole(self) -> None:
        for batch_id, life in self.lives.items():
            if self.stored(batch_id).status in TERMINAL:
                self.check_end(batch_id, life)

    def check_end(self, batch_id: str, life: Life) -> None:
        batch = self.caller.batch(batch_id)
        written = [self.lines(batch[f"{kind}_file_id"]) for kind in ("output", "error")]
        numbers = [[int(line["custom_id"][1:]) for line in lines] for lines in written]
        status: Status = batch["status"]
        if self.stored(batch_id).plan is None:
            assert status in ("failed", "cancelled")
            assert batch["request_counts"]["completed"] == batch["request_counts"]["failed"] == 0
            assert numbers == [[], []]
            assert status != "failed" or batch["errors"]
            return
        if status == "failed":  # validated, and never begun
            assert batch["errors"]
            assert numbers == [[], []]
            return
        assert life.legal
        assert [sorted(each) for each in numbers] == numbers
        assert sorted(numbers[0] + numbers[1]) == list(range(life.lines))
        assert batch["request_counts"] == {
            "total": life.lines,
            "completed": len(numbers[0]),
            "failed": len(numbers[1]),
        }
        tokens = 0
        for line, number in zip(written[0] + written[1], numbers[0] + numbers[1], strict=True):
            assert line["id"] == request_line_id(batch_id, number)
            if line["response"] is not None and "said" in line["response"]["body"]:
                assert line["response"]["body"]["said"] == str(number)
                assert line["response"]["body"]["model"] == MODEL
                tokens += number + 1
        assert all(line["response"]["status_code"] == 200 and line["error"] is None for line in written[0])
        assert batch["usage"]["total_tokens"] == tokens
        left_over = {
            int(line["custom_id"][1:]): line["error"]["code"]
            for line in written[1]
            if line["error"] and line["error"]["code"] in LEFTOVERS
        }
        ours = {"internal_error"} if life.stopped else set()  # nothing but its operator ends a batch early
        assert set(left_over.values()) <= {
            "completed": ours,
            "expired": {"batch_expired"},
            "cancelled": {"batch_cancelled", "batch_expired", *ours},
        }.get(status, set())
        assert not left_over.keys() & (life.kept or set()), "a line that was answered and kept was not used"
        if status != "cancelled":
            assert (batch["errors"] is not None) == ("internal_error" in left_over.values())

    def lines(self, file_id: str | None) -> list[dict[str, Any]]:
        if file_id is None:
            return []
        key = files.key(self.caller.account_id, file_id)
        size = aws.client("s3").head_object(Bucket=stack_settings.bucket(), Key=key)["ContentLength"]
        assert files.get(self.caller.account_id, file_id).size == size > 0
        return self.caller.lines(file_id)

    # --- the end

    def teardown(self) -> None:
        """Run every batch to its end as the state machine does, without further faults."""
        Upstream.mood = "good"
        try:
            for batch in self.lives:
                self._to_the_end(batch)
            self.step(next(iter(self.lives), ""), "sweep", 0) if self.lives else None
            self.publish(0, len(self.history.changes))
            self.only_legal_edges_were_taken_and_ends_are_final()
            self.what_has_ended_is_whole()
            self.a_batch_has_one_end_and_one_event_of_it()
            told = {json.loads(entry["Detail"])["batch"]["id"] for entry in self.history.told}
            assert told == self.lives.keys()
        finally:
            for left in batches.open_of_all(created_before=2**40):
                Table("batches").delete(left.account_id, left.id)

    def _to_the_end(self, batch: str) -> None:
        for _ in range(5):
            execution = self.stored(batch).execution
            invoke("validate_batch", self.caller.start(batch) | {"execution": execution})
            for number in range(3):
                self._run_to_its_end(batch, number)
            if not self._finalize(batch, execution):
                break
        batch_object = self.caller.batch(batch)
        assert batch_object["status"] in TERMINAL
        if batch_object["status"] == "completed" and not self.lives[batch].stopped:
            assert batch_object["errors"] is None

    def _run_to_its_end(self, batch: str, number: int) -> None:
        life = self.lives[batch]
        for _ in range(30):
            self._run_chunk(batch, number)
            if number in life.given_up or life.slices.get(number, {}).get("state", "done") == "done":
                return
        raise AssertionError("the chunk goes on for ever")


def test_every_line_and_batch_ends_once(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    apply_route(max_concurrency=5, timeout_seconds=1)
    real: Callable[[str], Any] = aws._client
    history = History(real)
    clients = {service: Client(real(service), history) for service in ("dynamodb", "s3", "events", "stepfunctions")}
    monkeypatch.setattr(aws, "_client", lambda service: clients.get(service) or real(service))
    monkeypatch.setattr(results, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(concat, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(chunk_slice, "Upstream", Upstream)
    # Small, to be fast: segments of two lines, three chunks, two requests in flight for each.
    monkeypatch.setattr(layout, "SEGMENT_LINES", 2)
    monkeypatch.setattr(layout, "WORKER_CONCURRENCY", 2)
    monkeypatch.setattr(layout, "ROUNDS_PER_WORKER", 1)
    limits = RunLimits(
        first_store_seconds=0.002,
        store_seconds=0.005,
        long_pause_seconds=0.1,
        last_answers_seconds=0.02,
        slice_margin_seconds=0.1,
        # So small that lines are written as result parts, and sealed by reference.
        held_bytes=700,
        part_bytes=500,
        backoff=Backoff(base=0.002, longest=0.02),
    )
    monkeypatch.setattr(chunk_slice, "LIMITS", limits)
    monkeypatch.setattr(chunk_slice, "ANSWER_BYTES", 700)
    monkeypatch.setattr(results, "SEAL_BYTES", 450)
    monkeypatch.setattr(logger, "info", lambda *_, **__: None)

    class Machine(BatchStates):
        pass

    Machine.caller, Machine.history, Machine.monkeypatch = alice, history, monkeypatch
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES or 40,
            stateful_step_count=12,
            derandomize=not EXAMPLES,
            database=None,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


# --- sequences that once failed -------------------------------------------------------------------------------------


@pytest.fixture
def two_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    apply_route()
    monkeypatch.setattr(layout, "SEGMENT_LINES", 2)


def killed_at(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, step: Callable[[], Any]) -> None:
    """Run ``step``, and kill it where it calls ``name``."""

    def killed(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(module, name, killed)
        with pytest.raises(KilledError):
            step()


@pytest.mark.usefixtures("two_segments")
def test_a_begun_expiry_ends_as_expired(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = alice.begin([request_line(f"r{number}") for number in range(3)])
    set_batch(alice, batch_id, expires_at=1)
    killed_at(monkeypatch, concat, "resume", lambda: alice.finalize(batch_id))
    batch = alice.finalize(batch_id)
    assert batch["status"] == "expired"
    assert {line["error"]["code"] for line in alice.lines(batch["error_file_id"])} == {"batch_expired"}


@pytest.mark.usefixtures("two_segments")
def test_a_late_finalizer_completes_no_expiry(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = alice.begin([request_line(f"r{number}") for number in range(3)])
    transition = batches.transition

    def expire_first(*arguments: Any, **named: Any) -> Any:
        if arguments[1] == "finalizing":
            monkeypatch.setattr(batches, "transition", transition)
            set_batch(alice, batch_id, expires_at=1)
            killed_at(monkeypatch, concat, "resume", lambda: alice.finalize(batch_id))
        return transition(*arguments, **named)

    monkeypatch.setattr(batches, "transition", expire_first)
    batch = alice.finalize(batch_id)
    assert batch["status"] == "expired"
    assert {line["error"]["code"] for line in alice.lines(batch["error_file_id"])} == {"batch_expired"}


@pytest.mark.usefixtures("two_segments")
def test_a_killed_finalizer_keeps_the_reasons(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = alice.begin([request_line(f"r{number}") for number in range(3)])
    batches.put_problem(batch_id, 0, "The moon was in the way.")
    killed_at(monkeypatch, concat, "resume", lambda: alice.finalize(batch_id))
    batch = alice.finalize(batch_id)
    assert batch["status"] == "completed"
    assert [error["message"] for error in batch["errors"]["data"]] == ["The moon was in the way."]
