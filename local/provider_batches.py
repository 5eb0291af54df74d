"""The life of a provider's batch: validating, in_progress, finalizing, completed, and the ways it may end instead."""

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from local.provider_files import File, Files
from local.provider_lines import CANCELLED, EXPIRED, Answer, CheckedInput, Problem, check, output_and_errors
from local.simulation import Settings, Simulation

WINDOW = "24h"
WINDOW_SECONDS = 24 * 3600
# How often a batch looks whether it may go on.
TICK_SECONDS = 0.02
ENDED = ("completed", "failed", "expired", "cancelled")
TIMED = ("in_progress", "finalizing", *ENDED, "cancelling")

DEFAULT_LIMIT = 2_000_000
TOKEN_LIMIT = (
    "Enqueued token limit reached for {} in organization org-simulated. Limit: {:,} enqueued tokens. "
    "Please try again once some in_progress batches have been completed."
)


@dataclass
class Batch:
    id: str
    input_file_id: str
    endpoint: str
    metadata: dict[str, str] | None
    created_at: float
    status: str = "validating"
    # When each status began, in seconds since 1970.
    began: dict[str, float] = field(default_factory=dict)
    model: str | None = None
    problems: list[Problem] = field(default_factory=list)
    queued_tokens: int = 0
    # In the order of answering, which is not the input's. The first ``answered`` of them are known.
    answers: list[Answer] = field(default_factory=list)
    answered: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None
    is_hurried: bool = False
    has_ended: asyncio.Event = field(default_factory=asyncio.Event)

    def enter(self, status: str) -> None:
        self.status = status
        self.began[status] = time.time()
        if status in ENDED:
            self.has_ended.set()

    def advance(self, share: float) -> None:
        """Answer lines up to ``share`` of them all. Progress never goes back."""
        self.answered = max(self.answered, int(min(share, 1) * len(self.answers)))

    def as_json(self, files_late_seconds: float = 0) -> dict[str, Any]:
        """The batch as callers see it. Its files' ids are hidden for half of the time that the files are late."""
        known = self.answers[: self.answered]
        completed = sum(each.is_success for each in known)
        problems = {"object": "list", "data": [asdict(each) for each in self.problems]}
        is_late = time.time() < self.began.get(self.status, 0) + files_late_seconds / 2
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "errors": problems if self.problems else None,
            "input_file_id": self.input_file_id,
            "completion_window": WINDOW,
            "status": self.status,
            "output_file_id": None if is_late else self.output_file_id,
            "error_file_id": None if is_late else self.error_file_id,
            "created_at": int(self.created_at),
            "expires_at": int(self.created_at) + WINDOW_SECONDS,
            **{f"{status}_at": _whole(self.began.get(status)) for status in TIMED},
            "request_counts": {"total": len(self.answers), "completed": completed, "failed": len(known) - completed},
            "usage": _usage(known),
            "metadata": self.metadata,
        }


class Batches:
    """Every batch, and the tasks that move them. They go on while the provider is down."""

    def __init__(self, simulation: Simulation, files: Files) -> None:
        self._simulation, self._files = simulation, files
        self._batches: dict[str, Batch] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def _settings(self) -> Settings:
        return self._simulation.settings

    def newest_first(self) -> list[Batch]:
        return list(reversed(self._batches.values()))

    def find(self, batch_id: str) -> Batch | None:
        return self._batches.get(batch_id)

    def create(self, file: File, endpoint: str, metadata: dict[str, str] | None) -> Batch:
        batch = Batch(f"batch_{secrets.token_hex(12)}", file.id, endpoint, metadata, created_at=time.time())
        self._batches[batch.id] = batch
        self._simulation.counters.batches_created += 1
        task = asyncio.create_task(self._run(batch, file.content))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return batch

    def cancel(self, batch: Batch) -> None:
        self._simulation.counters.cancels += 1
        batch.enter("cancelling")

    async def hurry(self, batch: Batch) -> None:
        """Let the batch end now, as if its last line had just been answered."""
        batch.is_hurried = True
        await batch.has_ended.wait()

    async def _run(self, batch: Batch, content: bytes) -> None:
        checked = await asyncio.to_thread(check, content, batch.endpoint, self._settings)
        await self._until(batch, lambda: self._share(batch.created_at, self._settings.batch_start_seconds) >= 1)
        if batch.status == "validating":
            self._admit(batch, checked)
        if batch.status == "in_progress":
            await self._until(batch, lambda: self._is_answered(batch))
        if batch.status == "in_progress":
            await self._finish(batch)
        elif batch.status == "cancelling":
            await self._confirm_cancel(batch)

    async def _until(self, batch: Batch, is_time: Callable[[], bool]) -> None:
        """Wait until it is time, or the batch is cancelled or hurried. A batch that is stuck waits."""
        status = batch.status

        def goes_on() -> bool:
            is_free = batch.is_hurried or batch.status != status
            return is_free or (not self._settings.batch_stuck and is_time())

        await _wait_for(goes_on)

    @staticmethod
    def _share(start: float, seconds: float) -> float:
        """How much of ``seconds`` has passed since ``start``; 1 is all."""
        return (time.time() - start) / seconds if seconds > 0 else 1

    def _is_answered(self, batch: Batch) -> bool:
        """Advance the batch, and tell whether it has got as far as it will."""
        expire_after = self._settings.batch_expire_after
        last = 1 if expire_after is None else expire_after
        share = self._share(batch.began["in_progress"], self._settings.batch_seconds)
        batch.advance(min(share, last))
        return share >= last

    def _admit(self, batch: Batch, checked: CheckedInput) -> None:
        """End validation: the batch is ``in_progress``, or ``failed``."""
        batch.model = checked.model
        batch.problems = checked.problems or self._limit_problems(checked)
        if batch.problems:
            batch.enter("failed")
            return
        batch.queued_tokens = checked.queued_tokens
        batch.answers = random.sample(checked.answers, len(checked.answers))
        self._simulation.counters.submitted.update(each.digest for each in batch.answers)
        batch.enter("in_progress")

    def _limit_problems(self, checked: CheckedInput) -> list[Problem]:
        """Why no batch is taken now: the settings say so, or too many tokens are queued for the model."""
        limit, fail = self._settings.max_queued_tokens, self._settings.batch_fail
        code = "token_limit_exceeded"
        if fail.get("times", 0) > 0:
            fail["times"] -= 1
            code = fail.get("code", code)
        else:
            running = (batch for batch in self._batches.values() if batch.status not in ENDED)
            queued = sum(batch.queued_tokens for batch in running if batch.model == checked.model)
            if limit is None or queued + checked.queued_tokens <= limit:
                return []
        if code != "token_limit_exceeded":
            return [Problem(code, f"simulated failure: {code}")]
        return [Problem(code, TOKEN_LIMIT.format(checked.model, limit or DEFAULT_LIMIT))]

    async def _finish(self, batch: Batch) -> None:
        """Let an answered batch end: ``completed``, or ``expired`` if the settings have a share for that."""
        is_expired = self._settings.batch_expire_after is not None and not batch.is_hurried
        if not is_expired:
            batch.advance(1)
        batch.enter("finalizing")
        await self._write_files(batch, EXPIRED)
        batch.enter("expired" if is_expired else "completed")

    async def _confirm_cancel(self, batch: Batch) -> None:
        began = batch.began["cancelling"]
        await _wait_for(lambda: self._share(began, self._settings.batch_cancel_seconds) >= 1)
        await self._write_files(batch, CANCELLED)
        batch.enter("cancelled")

    async def _write_files(self, batch: Batch, reason: tuple[str, str]) -> None:
        """Write the files that have lines. The requests that are not answered end with ``reason``."""
        answered, unanswered = batch.answers[: batch.answered], batch.answers[batch.answered :]
        output, errors = await asyncio.to_thread(output_and_errors, answered, unanswered, reason, self._settings)
        visible_at = time.time() + self._settings.files_late_seconds
        if output:
            name = f"{batch.id}_output.jsonl"
            batch.output_file_id = self._files.add(output, name, "batch_output", visible_at).id
        if errors:
            name = f"{batch.id}_error.jsonl"
            batch.error_file_id = self._files.add(errors, name, "batch_output", visible_at).id
        for each in batch.answers:
            each.line = b""


async def _wait_for(is_true: Callable[[], bool]) -> None:
    # Settings and the clock have no event to wait for.
    while not is_true():  # noqa: ASYNC110
        await asyncio.sleep(TICK_SECONDS)


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


def _usage(answers: list[Answer]) -> dict[str, Any]:
    prompt = sum(each.prompt_tokens for each in answers)
    completion = sum(each.completion_tokens for each in answers)
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    }
