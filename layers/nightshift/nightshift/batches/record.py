"""The stored record of a batch, and what each stage of its life adds."""

from typing import Literal

import msgspec

from nightshift.batches.status import Status, timestamp_field
from nightshift.core.errors import Fault, UnavailableError
from nightshift.core.table import Item
from nightshift.routes.endpoint import EndpointPath
from nightshift.routes.route import Route

# The format of a batch's item, and of all that its workers store for it: plan, result parts, seals, carries. It grows
# by one when the code before could not read what this one stores. Items without a format are of the first.
FORMAT = 1
# The segments of batches whose item does not say how many lines they have.
FIRST_SEGMENT_LINES = 1_000
# How long a batch may take to end after its cancel.
CANCELLING_SECONDS = 900


class RequestCounts(msgspec.Struct, frozen=True):
    """The lines of a batch, and how many of them have ended in each of its two files."""

    total: int
    completed: int = 0
    failed: int = 0


class InputTokensDetails(msgspec.Struct, frozen=True):
    cached_tokens: int = 0


class OutputTokensDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int = 0


class BatchUsage(msgspec.Struct, frozen=True):
    """Tokens in OpenAI's shape, summed over the lines of a batch."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class Planned(msgspec.Struct, frozen=True):
    """The result of validation: ``lines`` lines for ``model``, in ``chunks`` chunks, locked to ``route``; a segment has
    at most ``segment_lines``."""

    model: str
    lines: int
    chunks: int
    route: Route
    segment_lines: int = FIRST_SEGMENT_LINES


class Outcome(msgspec.Struct, frozen=True):
    """What the end of a batch adds to its record. A file's id is None where it would have no line."""

    request_counts: RequestCounts
    usage: BatchUsage
    errors: tuple[Fault, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None
    batch_lines: int = 0
    batch_usage: BatchUsage | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One batch. Times are seconds since 1970; ``plan`` is None until the input file is validated.

    ``overdue`` means that the batch will end as ``expired`` unless it is cancelled. ``rescue_route`` answers in real
    time what the provider's batch API has not; ``batch_lines`` and ``batch_usage`` count what that API has answered.
    ``request_digest`` identifies the request that made the batch; ``retry_of`` is the batch whose failed lines it has.
    ``execution`` is the number of its execution, counted from 0. Until ``parked_until``, the execution waits and does
    nothing else, unless another one has taken its place. From ``look_at`` on, the sweep has a worker ask the
    provider whether the wait is over.
    """

    account_id: str
    id: str
    status: Status
    input_file_id: str
    endpoint: EndpointPath
    completion_window: Literal["24h"]
    created_at: int
    expires_at: int
    plan: Planned | None = None
    metadata: dict[str, str] | None = None
    callback_url: str | None = None
    output_expires_seconds: int | None = None
    errors: tuple[Fault, ...] | None = None
    request_counts: RequestCounts | None = None
    usage: BatchUsage | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    overdue: bool = False
    rescue_route: Route | None = None
    batch_lines: int = 0
    batch_usage: BatchUsage | None = None
    request_digest: str | None = None
    retry_of: str | None = None
    execution: int = 0
    parked_until: int | None = None
    look_at: int | None = None
    format: int = 1

    @property
    def works_until(self) -> int:
        """Until when its chunks may be worked on: the deadline, or a while after a cancel."""
        return self.expires_at if self.cancelling_at is None else self.cancelling_at + CANCELLING_SECONDS

    @property
    def is_open_to_work(self) -> bool:
        """Whether its chunks are worked on now.

        Where a provider's batch API answers, they are so before the upstream has started, and after a cancel, because
        the provider's batches are to be cancelled too.
        """
        if self.plan is None:
            return False
        if self.plan.route.mode == "batch":
            return self.status in ("validating", "in_progress", "cancelling")
        return self.status == "in_progress"

    def is_asleep(self, now: float) -> bool:
        """Whether its execution only waits."""
        return self.parked_until is not None and now < self.parked_until

    def look_due(self, now: float) -> bool:
        """Whether the sweep is to have a worker ask the provider, because the execution sleeps."""
        return self.look_at is not None and self.look_at <= now and self.is_asleep(now)

    def entered_at(self, status: Status) -> int | None:
        """When the batch entered ``status``; None where it never has."""
        at: int | None = getattr(self, timestamp_field(status) or "created_at")
        return at


class OpenBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that has not ended, as the index ``OpenBatches`` holds it. ``lines`` is None until validation."""

    account_id: str
    id: str
    status: Status
    input_file_id: str
    created_at: int
    expires_at: int
    lines: int | None = None


def batch_of(item: Item) -> Batch:
    """The batch that an item of the table holds."""
    known: Item = {**item, "account_id": item["pk"], "id": item["sk"]}
    if "lines" in item:
        known["plan"] = {
            "model": item["model"],
            "lines": item["lines"],
            "chunks": item["chunks"],
            "route": msgspec.json.decode(item["route"]),
            "segment_lines": item.get("segment_lines", FIRST_SEGMENT_LINES),
        }
    if "rescue_route" in item:
        known["rescue_route"] = msgspec.json.decode(item["rescue_route"])
    return msgspec.convert(known, Batch)


def readable(batch: Batch) -> Batch:
    """The batch, if its format is known.

    Raises:
        UnavailableError: a later version has made it, which is no longer deployed. Its work waits until it is again.
    """
    if batch.format > FORMAT:
        raise UnavailableError("This batch was made by a later version of Nightshift than the one that runs here.")
    return batch


def open_batch_of(item: Item) -> OpenBatch:
    """The open batch that an item of the index holds."""
    return msgspec.convert({**item, "account_id": item["pk"], "id": item["sk"]}, OpenBatch)


def item_of(batch: Batch) -> Item:
    """The batch as an item of the table, without what is None."""
    plain: Item = msgspec.to_builtins(batch)
    keys = {"pk": plain.pop("account_id"), "sk": plain.pop("id")}
    plan = plain.pop("plan") and plan_attributes(batch.plan)
    if batch.rescue_route is not None:
        plain["rescue_route"] = msgspec.json.encode(batch.rescue_route).decode()
    return (
        keys | {name: value for name, value in plain.items() if value is not None and value is not False} | (plan or {})
    )


def plan_attributes(plan: Planned | None) -> Item:
    """The attributes that a plan adds to its batch's item. The route is stored as JSON text."""
    if plan is None:
        return {}
    return {
        "model": plan.model,
        "lines": plan.lines,
        "chunks": plan.chunks,
        "segment_lines": plan.segment_lines,
        "route": msgspec.json.encode(plan.route).decode(),
    }
