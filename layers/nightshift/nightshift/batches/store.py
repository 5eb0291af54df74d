"""Batches in the table ``Batches``: one item for the batch, one for each chunk's progress.

| pk          | sk               | holds                                                                  |
| ----------- | ---------------- | ---------------------------------------------------------------------- |
| ``acct_…``  | ``batch_…``      | the batch, see ``record.Batch``                                        |
| ``batch_…`` | ``chunk#0007``   | completed and failed lines of one chunk so far, absolute; its last run |
| ``batch_…`` | ``carry#0007``   | what a chunk's last slice handed on, as JSON, if its chunk was parked  |
| ``batch_…`` | ``problem#0007`` | why a chunk could not be worked on                                     |

A status changes by ``transition`` alone: one conditional write that names the status it expects. The table's stream
turns each such write into an event, so every change has exactly one event (ADR 3). While a batch has not ended, its
attributes ``open`` (the account) and ``created_at`` put it into the index ``OpenBatches``: for quotas, for files in
use, and for the sweep. What its record says of its executions is in ``executions``.
"""

import time

import msgspec

from nightshift.batches.progress import AnswerSeconds, ChunkProgress, Progress, summed
from nightshift.batches.record import (
    Batch,
    OpenBatch,
    Outcome,
    Planned,
    RequestCounts,
    batch_of,
    item_of,
    open_batch_of,
    plan_attributes,
    readable,
)
from nightshift.batches.status import TERMINAL, Status, sources, timestamp_field
from nightshift.core.errors import Fault, NotFoundError
from nightshift.core.table import Item, Table
from nightshift.routes.route import Route

OPEN_INDEX = "OpenBatches"
# How long the items of chunks are kept: far longer than a batch may take.
CHUNK_ITEM_SECONDS = 7 * 24 * 3600

_TABLE = Table("batches")


def put(batch: Batch) -> bool:
    """Record a new batch; False if another call has recorded one with the same id."""
    return _TABLE.put({**item_of(batch), "open": batch.account_id}, "attribute_not_exists(#pk)")


def get(account_id: str, batch_id: str) -> Batch:
    """The batch, read consistently.

    Raises:
        NotFoundError: there is no such batch, or it is another account's.
        UnavailableError: it has a later version's format.
    """
    batch = find(account_id, batch_id)
    if batch is None:
        raise NotFoundError("Batch not found.", code="batch_not_found", param="batch_id")
    return readable(batch)


def find(account_id: str, batch_id: str) -> Batch | None:
    """The batch, read consistently; None where the account has no such batch."""
    if not batch_id.startswith("batch_") or len(batch_id) >= 64:
        return None
    item = _TABLE.get(account_id, batch_id, consistent=True)
    return batch_of(item) if item else None


def list_page(
    account_id: str, *, limit: int, after: str | None, status: Status | None = None
) -> tuple[list[Batch], bool]:
    """The account's batches, newest first, after the id ``after``; then whether there are more.

    ``after`` need not exist any more: ids sort by time, so the page starts where that id would be.
    """
    items, more = _TABLE.page(
        "#pk = :pk AND begins_with(#sk, :prefix)",
        limit=limit,
        after=(account_id, after) if after else None,
        ascending=False,
        filter="#status = :status" if status else None,
        pk=account_id,
        prefix="batch_",
        **({"status": status} if status else {}),
    )
    return [batch_of(item) for item in items], more


def transition(
    batch: Batch,
    target: Status,
    *,
    plan: Planned | None = None,
    errors: tuple[Fault, ...] = (),
    counts: RequestCounts | None = None,
    outcome: Outcome | None = None,
) -> Batch | None:
    """Move ``batch`` from its status to ``target`` in one conditional write, which also sets what is given.

    Returns the batch as it is then. None means that it has left its status meanwhile, or that it is overdue and
    ``target`` is another end: read it again.

    Raises:
        ValueError: there is no such edge.
    """
    if batch.status not in sources(target):
        raise ValueError(f"a batch cannot go from {batch.status} to {target}")
    changes: Item = {"status": target, **plan_attributes(plan), **(msgspec.to_builtins(outcome) if outcome else {})}
    faults = errors or (outcome.errors if outcome else ())
    changes["errors"] = msgspec.to_builtins(list(faults)) or None
    if counts is not None:
        changes["request_counts"] = msgspec.to_builtins(counts)
    if field := timestamp_field(target):
        changes[field] = int(time.time())
    item = _TABLE.update(
        batch.account_id,
        batch.id,
        set=changes,
        remove=["open"] if target in TERMINAL else [],
        condition="#status = :expected" + (" AND attribute_not_exists(#overdue)" if target == "finalizing" else ""),
        expected=batch.status,
    )
    return batch_of(item) if item else None


def put_plan(batch: Batch, plan: Planned) -> Batch | None:
    """Record the plan of a batch that stays ``validating``; None if it has left that status meanwhile."""
    item = _TABLE.update(
        batch.account_id,
        batch.id,
        set=plan_attributes(plan),
        condition="#status = :validating",
        validating="validating",
    )
    return batch_of(item) if item else None


def lock_rescue(batch: Batch, route: Route) -> Route:
    """The route by which the batch's lines go in real time: ``route``, or the one that an earlier call has locked."""
    item = _TABLE.update(
        batch.account_id,
        batch.id,
        expression="SET #rescue_route = if_not_exists(#rescue_route, :route)",
        route=msgspec.json.encode(route).decode(),
    )
    assert item is not None  # noqa: S101 (an update without a condition always gives an item)
    return msgspec.json.decode(item["rescue_route"], type=Route)


def mark_overdue(batch: Batch) -> None:
    """Record that the batch in progress will end as ``expired`` unless it is cancelled.

    From then on it cannot become ``finalizing``: of several finalizers, none may complete a batch whose lines another
    one has marked as expired.
    """
    _TABLE.update(
        batch.account_id,
        batch.id,
        set={"overdue": True},
        condition="#status = :in_progress",
        in_progress="in_progress",
    )


def files_written_at(batch: Batch) -> int:
    """When the batch's files are written: the time of the first call, at every call."""
    item = _TABLE.update(
        batch.account_id,
        batch.id,
        expression="SET #files_written_at = if_not_exists(#files_written_at, :now)",
        now=int(time.time()),
    )
    assert item is not None  # noqa: S101 (an update without a condition always gives an item)
    return int(item["files_written_at"])


# --- what the chunks record -------------------------------------------------------------------------------------


def put_progress(
    batch_id: str, chunk: int, *, completed: int, failed: int, answer_seconds: AnswerSeconds | None = None
) -> None:
    """Record how many lines of a chunk have ended, as totals that never fall.

    A worker that runs twice counts nothing twice, and a slower copy of it takes nothing back.
    """
    done = completed + failed
    times = {"answer_seconds": answer_seconds and msgspec.to_builtins(answer_seconds)}
    _TABLE.update(
        batch_id,
        f"chunk#{chunk:04d}",
        set={"completed": completed, "failed": failed, "done": done} | times | _expiring(),
        condition="attribute_not_exists(#done) OR #done <= :done",
    )


def begin_run(batch_id: str, chunk: int, run_id: str) -> bool:
    """Record the run that works on the chunk from now on. An older one finds this and stops; True for the first."""
    before = _TABLE.update(batch_id, f"chunk#{chunk:04d}", set={"run": run_id} | _expiring(), returns="ALL_OLD")
    return not before


def is_last_run(batch_id: str, chunk: int, run_id: str) -> bool:
    """Whether no other run has begun on the chunk since ``run_id`` did."""
    item = _TABLE.get(batch_id, f"chunk#{chunk:04d}", consistent=True)
    return item is None or item.get("run") == run_id


def put_carry(batch_id: str, chunk: int, carry: str) -> None:
    """Keep what the chunk's last slice hands on, as JSON, because its execution may end."""
    _TABLE.put({"pk": batch_id, "sk": f"carry#{chunk:04d}", "carry": carry} | _expiring())


def carry(batch_id: str, chunk: int) -> str | None:
    """What the chunk's last parked slice handed on, as JSON; None where there was none."""
    item = _TABLE.get(batch_id, f"carry#{chunk:04d}")
    return item["carry"] if item else None


def put_problem(batch_id: str, chunk: int, problem: str) -> None:
    """Record why a chunk could not be worked on, for the batch's ``errors``. Callers see it: no secrets."""
    _TABLE.put({"pk": batch_id, "sk": f"problem#{chunk:04d}", "problem": problem} | _expiring())


def _expiring() -> Item:
    """The attribute by which the table deletes what only a batch under way needs."""
    return {"ttl": int(time.time()) + CHUNK_ITEM_SECONDS}


def problems(batch_id: str) -> list[str]:
    """Why chunks could not be worked on, each reason once."""
    items = _TABLE.query("#pk = :pk AND begins_with(#sk, :prefix)", pk=batch_id, prefix="problem#")
    return list(dict.fromkeys(item["problem"] for item in items))


def answered(batch_id: str) -> int:
    """How many lines of the batch have ended, by what its chunks have recorded."""
    return sum(chunk.completed + chunk.failed for chunk in _progress(batch_id))


def _progress(batch_id: str) -> list[ChunkProgress]:
    items = _TABLE.query("#pk = :pk AND begins_with(#sk, :prefix)", pk=batch_id, prefix="chunk#")
    return [msgspec.convert(item, ChunkProgress) for item in items]


def progress(batch: Batch) -> Progress:
    """How far the batch is now: the stored counts at its end, the sum over its chunks before."""
    if batch.request_counts is not None or batch.plan is None:
        return Progress(batch.request_counts)
    if batch.status == "validating":
        return Progress(RequestCounts(batch.plan.lines))
    return summed(batch.plan.lines, _progress(batch.id))


# --- batches that have not ended --------------------------------------------------------------------------------


def open_of(account_id: str) -> list[OpenBatch]:
    """The account's batches that have not ended, oldest first."""
    items = _TABLE.query("#open = :account", index=OPEN_INDEX, account=account_id)
    return [open_batch_of(item) for item in items]


def open_of_all(*, created_before: int) -> list[OpenBatch]:
    """Every account's batches that have not ended and were created before then."""
    items = _TABLE.scan(index=OPEN_INDEX, filter="#created_at < :before", before=created_before)
    return [open_batch_of(item) for item in items]
