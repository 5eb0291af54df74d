"""What to do next with a submission, from what is stored of it and what the provider says. Nothing here reads a clock.

Times are seconds since 1970.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from nightshift.routes.health import Trouble, plain, trouble_of
from nightshift.routes.route import BatchApi
from nightshift.submissions.provider import LineError, ProviderBatch, ProviderError
from nightshift.submissions.record import Submission

# How often a line is sent through the batch API.
MAX_ROUNDS = 3
# The first and the longest pause between two looks at a batch. In between, a pause is the batch's age, up to
# DOUBLING_SECONDS, until a share of the age is more: an end is noticed with little delay compared to the wait so far.
FIRST_POLL_SECONDS, LONGEST_POLL_SECONDS, POLL_SHARE, DOUBLING_SECONDS = 5.0, 1800.0, 0.5, 300.0
# A provider's batch is not expected to answer more lines a second: it is not looked at before.
LINES_PER_SECOND = 250
# A pause that the batch's own progress shortens is at least so long, and such a part of its age: a batch may stop just
# before its end, for hours.
LEAST_BY_PROGRESS_SECONDS, LEAST_BY_PROGRESS_SHARE = 60.0, 0.05
# A look that is due in SWEPT_FROM_SECONDS or more is the sweep's, because one of an execution costs three state
# transitions. An execution that nothing wakes meanwhile looks by itself after UNSWEPT_SECONDS at the latest.
SWEPT_FROM_SECONDS, UNSWEPT_SECONDS = 150, 6 * 3600
# How long a batch that may have been created is looked for before its file is given up.
LOOKUP_SECONDS = 120.0
# How long a batch that was created may be unknown to its provider before it is taken for lost.
GONE_SECONDS = 3600.0
# How long the files of an ended batch are waited for: providers announce them before they can be read.
LATE_FILES_SECONDS = 900.0
# How long the provider may take to confirm a cancel. OpenAI: "up to 10 minutes".
CANCEL_SECONDS = 660.0
# Pauses after failed calls and refused batches double from the first up to the longest.
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 5.0, 300.0
# The share of the completion window, and the most seconds, that cancelling and collecting take before the deadline.
CLOSING_SHARE, CLOSING_SECONDS = 0.1, 900.0

# Words in the code of a batch that was refused because too much is queued at the moment.
_FOR_THE_MOMENT = ("token_limit", "rate_limit", "too_many", "queue", "quota")


class Times(Struct, frozen=True):
    """When the provider's batch of a chunk is to be ended: ``rescue_at`` to send the rest in real time, None for never;
    ``close_at`` to store what there is before the deadline."""

    close_at: float
    rescue_at: float | None = None

    @classmethod
    def of(cls, created_at: float, expires_at: float, rescue_before_seconds: int | None) -> "Times":
        window = expires_at - created_at
        if rescue_before_seconds is not None:
            # A shorter window than the route's keeps half of it for the batch API.
            rescue_at = expires_at - min(rescue_before_seconds, window / 2)
            return cls(rescue_at, rescue_at)
        return cls(expires_at - min(CLOSING_SECONDS, window * CLOSING_SHARE))

    def stop_due(self, now: float) -> bool:
        return now >= self.close_at


class RouteHealth(Protocol):
    """See ``chunks.route_watch.RouteWatch``."""

    def pause(self, *, starts: bool) -> int: ...
    def answers(self) -> None: ...
    def report(self, trouble: Trouble) -> int: ...


class Visit(Struct, frozen=True):
    """What a visit is bound by: the end of its invocation and of the provider's time, what one batch may hold; the
    provider's name of the ``endpoint``; the ``route``'s health; a ``folder`` of its own; whether the caller has
    ``cancelled``, and whom to tell that the provider has ``started``; whether the sweep looks after long pauses
    (``swept``). Both functions, and the route's, block."""

    chunk_number: int
    ends_at: float
    times: Times
    api: BatchApi
    endpoint: str
    route: RouteHealth
    folder: Path
    cancelled: Callable[[], bool]
    started: Callable[[], None]
    swept: bool


def poll_pause(lines: int, age: float, left: float | None = None) -> float:
    """Seconds until the next look at a batch of ``lines`` lines that was created ``age`` seconds ago.

    ``left`` is when it will end, in seconds from now, by its own progress so far.
    """
    pause = min(LONGEST_POLL_SECONDS, max(closing_pause(age), lines / LINES_PER_SECOND, min(age, DOUBLING_SECONDS)))
    return pause if left is None else min(pause, max(LEAST_BY_PROGRESS_SECONDS, LEAST_BY_PROGRESS_SHARE * age, left))


def closing_pause(age: float) -> float:
    """Seconds until the next look at a batch that has ended, or was asked to end, ``age`` seconds ago."""
    return min(LONGEST_POLL_SECONDS, max(FIRST_POLL_SECONDS, POLL_SHARE * age))


def execution_pause(pause: int, close_in: float) -> int | None:
    """How long an execution sleeps of which the sweep looks after ``pause`` seconds; None where it looks by itself.

    ``close_in`` seconds are left until the submission is to be ended, which is not left to the sweep.
    """
    if pause < SWEPT_FROM_SECONDS:
        return None
    return max(pause, min(UNSWEPT_SECONDS, math.ceil(close_in)))


def seconds_left(submission: Submission, now: float) -> float | None:
    """When the provider's batch will end, in seconds, if it goes on as it has; None before its first answers."""
    if submission.started_at is None or not submission.answered:
        return None
    to_answer = submission.lines - submission.answered
    return (now - submission.started_at) * to_answer / submission.answered


def retry_pause(failures: int, retry_after: float | None = None) -> float:
    """Seconds until the next try after ``failures`` in a row; at least the provider's ``retry_after`` (at most 900)."""
    own = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(max(0, failures - 1), 20))
    return max(own, min(retry_after or 0.0, 900.0))


def seen(submission: Submission, batch: ProviderBatch, now: float) -> Submission:
    """The submission after a look at its batch."""
    started_at = submission.started_at
    if started_at is None and (batch.in_progress_at or batch.status in ("running", "completed", "expired")):
        started_at = min(now, float(batch.in_progress_at or now))
    after = replace(
        submission,
        started_at=started_at,
        answered=max(submission.answered, min(batch.completed, submission.lines)),
        failed_calls=0,
    )
    if not batch.ended:
        return after
    after = replace(after, ended_at=submission.ended_at or now)
    if batch.status == "failed" or (_files_are_late(batch) and now < (after.ended_at or now) + LATE_FILES_SECONDS):
        return after
    return replace(
        after, step="collecting", since=now, output_file_id=batch.output_file_id, error_file_id=batch.error_file_id
    )


def _files_are_late(batch: ProviderBatch) -> bool:
    """Whether the batch counts answers that are in none of the files that it names."""
    named = batch.output_file_id or batch.error_file_id
    if batch.status == "completed" and not named:
        return True
    return bool((batch.completed and not batch.output_file_id) or (batch.failed and not named))


Refusal = Literal["lines", "moment", "route"]


def refusal_of(errors: Sequence[LineError]) -> Refusal:
    """Why a batch was refused as a whole: for some of its ``lines``, the ``moment``, or because of the ``route``."""
    if any(word in (error.code or "").lower() for error in errors for word in _FOR_THE_MOMENT):
        return "moment"
    if any(error.line for error in errors):
        return "lines"
    return "moment" if any("enqueued" in (error.message or "").lower() for error in errors) else "route"


def trouble_in(error: ProviderError) -> Trouble | None:
    """What the failure of a call says of the route: no key, or no credit. All other failures may be of the call."""
    codes = " ".join(each.code or "" for each in error.errors)
    kind = trouble_of(error.status, f"{error.message} {codes}").kind
    return Trouble(kind, error.status, plain(error.message)) if kind in ("key", "quota") else None


Move = Literal["done", "submit", "realtime", "give_up"]


def next_move(last: Submission | None, first_fresh: int | None, open_lines: int, times: Times, now: float) -> Move:
    """What follows when no submission is under way, for a batch that is in progress.

    ``first_fresh`` is the first open line that was not sent in this round. ``give_up`` ends the open lines with an
    error, because the provider did not answer them in all rounds.
    """
    if not open_lines:
        return "done"
    if times.rescue_at is not None and now >= times.rescue_at:
        return "realtime"
    if times.stop_due(now):
        return "done"
    if last is None or first_fresh is not None or last.round < MAX_ROUNDS:
        return "submit"
    return "give_up" if times.rescue_at is None else "realtime"


def round_of(last: Submission | None, first_fresh: int | None) -> int:
    """The round of the next submission."""
    if last is None:
        return 1
    return last.round if first_fresh is not None else last.round + 1
