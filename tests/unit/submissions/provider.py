"""A provider with a batch API, and where submissions are recorded, in memory and on one clock."""

import asyncio
import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from msgspec.structs import replace
from nightshift.chunks.chunk import Chunk, SliceResult
from nightshift.chunks.route_watch import RouteWatch
from nightshift.routes.route import BatchApi
from nightshift.submissions.decision import Times, Visit
from nightshift.submissions.provider import LineError, ProviderBatch, ProviderError
from nightshift.submissions.record import Submission
from nightshift.submissions.run import SubmissionRun
from nightshift.submissions.store import CLAIM_SECONDS, ClaimLostError

from bench.fairness import MemoryState, simulated_route
from tests.unit.chunks.fakes import Clock, Store

# What a provider answers to a line: its number and how often it was sent; None for no line at all.
Script = Callable[[int, int], dict[str, Any] | None]


def answered(number: int, status: int = 200) -> dict[str, Any]:
    body = {"model": "sent", "choices": [{"n": number}], "usage": {"prompt_tokens": 2, "completion_tokens": 3}}
    if status != 200:
        body = {"error": {"message": f"status {status}"}}
    response = {"status_code": status, "request_id": f"r{number}", "body": body}
    return {"id": f"x{number}", "custom_id": str(number), "response": response, "error": None}


@dataclass
class Job:
    """A batch of the provider. ``plan`` is what each look at it changes, one entry a look."""

    batch: ProviderBatch
    lines: list[dict[str, Any]]
    looks: int = 0


@dataclass
class Provider:
    """Answers a batch after ``looks`` looks. ``before`` and ``after`` surround each call by name, and may raise."""

    script: Script = lambda number, _: answered(number)
    looks: int = 2
    end: str = "completed"
    refuse: Callable[[list[dict[str, Any]]], list[LineError]] = lambda _: []
    before: Callable[[str], None] = lambda _: None
    after: Callable[[str], None] = lambda _: None
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    sent: Counter[int] = field(default_factory=Counter)
    cancels: int = 0
    confirms_cancel: bool = True

    def _add_file(self, name: str, content: bytes) -> str:
        file_id = f"file-{len(self.files) + len(self.jobs) * 100}-{name[-3:]}"
        while file_id in self.files:
            file_id += "x"
        self.files[file_id] = (name, content)
        return file_id

    async def upload(self, name: str, path: Path) -> str:
        self.before("upload")
        file_id = self._add_file(name, path.read_bytes())  # noqa: ASYNC240
        self.after("upload")
        return file_id

    async def find_files(self, name: str) -> list[str]:
        self.before("find_files")
        return [file_id for file_id, (given, _) in self.files.items() if given == name]

    async def delete_file(self, file_id: str) -> None:
        self.before("delete_file")
        self.files.pop(file_id, None)
        self.after("delete_file")

    async def read_lines(self, file_id: str) -> AsyncIterator[bytes]:
        self.before("read_lines")
        if file_id not in self.files:
            raise ProviderError(404, "no such file")
        for line in self.files[file_id][1].splitlines():
            self.before("line")
            yield line

    async def create(self, name: str, file_id: str, endpoint: str) -> ProviderBatch:
        self.before("create")
        assert endpoint == "/v1/chat/completions"
        lines = [json.loads(line) for line in self.files[file_id][1].splitlines()]
        batch_id = f"batch-{len(self.jobs) + 1}"
        job = Job(ProviderBatch(id=batch_id, status="validating", input_file_id=file_id, name=name), lines)
        if errors := self.refuse(lines):
            job.batch = replace(job.batch, status="failed", errors=errors)
        else:
            self.sent.update(int(line["custom_id"]) for line in lines)
        self.jobs[batch_id] = job
        self.after("create")
        return job.batch

    async def find(self, name: str, file_id: str) -> ProviderBatch | None:
        self.before("find")
        found = [
            job.batch for job in self.jobs.values() if file_id == job.batch.input_file_id or name == job.batch.name
        ]
        return found[-1] if found else None

    async def get(self, batch_id: str) -> ProviderBatch:
        self.before("get")
        job = self.jobs[batch_id]
        job.looks += 1
        if job.looks >= self.looks and not job.batch.ended:
            self._end(job, self.end)
        elif not job.batch.ended:
            job.batch = replace(job.batch, status="running", completed=len(job.lines) * job.looks // (self.looks + 1))
        return job.batch

    async def cancel(self, batch_id: str) -> None:
        self.before("cancel")
        self.cancels += 1
        job = self.jobs[batch_id]
        if not job.batch.ended and self.confirms_cancel:
            self._end(job, "cancelled")

    def _end(self, job: Job, status: str) -> None:
        results = []
        for line in job.lines:
            number = int(line["custom_id"])
            result = self.script(number, self.sent[number])
            if result is not None:
                results.append(result)
        halves: dict[str, list[str]] = {"output": [], "error": []}
        for result in reversed(results):
            good = result["response"] and result["response"]["status_code"] < 300
            halves["output" if good else "error"].append(json.dumps(result))
        ids = {
            f"{half}_file_id": self._add_file(half, "\n".join(texts).encode())
            for half, texts in halves.items()
            if texts
        }
        fields = {"status": status, "completed": len(halves["output"]), "failed": len(halves["error"]), **ids}
        job.batch = msgspec.convert(msgspec.to_builtins(job.batch) | fields, ProviderBatch)


@dataclass
class Submissions:
    """Submissions in memory, for one worker after another."""

    saved: bytes | None = None
    chosen: dict[int, list[int]] = field(default_factory=dict)
    claimed_by: object = None
    claimed_until: float = 0.0
    before: Callable[[str], None] = lambda _: None
    after: Callable[[str], None] = lambda _: None

    def worker(self) -> "Worker":
        return Worker(self)

    @property
    def submission(self) -> Submission | None:
        return msgspec.json.decode(self.saved, type=Submission) if self.saved else None


@dataclass
class Worker:
    shared: Submissions

    def claim(self, now: float) -> bool:
        if self.shared.claimed_until >= now and self.shared.claimed_by is not self:
            return False
        self.shared.claimed_by, self.shared.claimed_until = self, now + CLAIM_SECONDS
        return True

    def renew(self, now: float) -> None:
        if self.shared.claimed_by is not self:
            raise ClaimLostError
        self.shared.claimed_until = now + CLAIM_SECONDS

    def release(self) -> None:
        if self.shared.claimed_by is self:
            self.shared.claimed_until = 0.0

    def load(self) -> Submission | None:
        return self.shared.submission

    def save(self, submission: Submission) -> None:
        self.shared.before("save")
        if self.shared.claimed_by is not self:
            raise ClaimLostError
        self.shared.saved = msgspec.json.encode(submission)
        self.shared.after("save")

    def put_lines(self, number: int, lines: Sequence[int]) -> None:
        self.shared.before("put_lines")
        self.shared.chosen[number] = list(lines)

    def lines(self, number: int) -> list[int]:
        return self.shared.chosen.get(number, [])


@dataclass
class World:
    """A chunk, its provider, and the clock that both go by."""

    store: Store
    provider: Provider = field(default_factory=Provider)
    submissions: Submissions = field(default_factory=Submissions)
    clock: Clock = field(default_factory=lambda: Clock(0.001))
    api: BatchApi = field(default_factory=BatchApi)
    rescue_before: int | None = None
    window: float = 86_400.0
    cancelled: bool = False
    swept: bool = False
    started: int = 0
    visits: int = 0
    state: MemoryState = field(default_factory=MemoryState)

    def __post_init__(self) -> None:
        self.created_at = self.clock.now
        self.expires_at = self.created_at + self.window

    def visit(self) -> SliceResult | None:
        """One visit, by a worker of its own."""
        chunk = Chunk("batch_0123", "shown", "sent", self.store.segments, 0)
        times = Times.of(self.created_at, self.expires_at, self.rescue_before)
        self.visits += 1
        with TemporaryDirectory() as folder:
            visit = Visit(
                chunk_number=0,
                ends_at=self.clock.now + 900,
                times=times,
                api=self.api,
                endpoint="/v1/chat/completions",
                route=RouteWatch(simulated_route("m", 64), f"run-{self.visits}", self.state, self.clock),
                folder=Path(folder),
                cancelled=lambda: self.cancelled,
                started=self._start,
                swept=self.swept,
            )
            worker = self.submissions.worker()
            return asyncio.run(SubmissionRun(chunk, self.store, worker, self.provider, visit, clock=self.clock).run())

    def _start(self) -> None:
        self.started += 1

    def run(self, visits: int = 500) -> SliceResult | None:
        """Visit again and again, as the state machine does, until the chunk is done or goes on in real time."""
        for _ in range(visits):
            result = self.visit()
            if result is None or result.state == "done":
                return result
            if result.state in ("wait", "park"):
                self.clock.now += math.ceil(result.look_seconds or result.wait_seconds)
        raise AssertionError(f"the chunk does not end: {self.submissions.submission}")
