"""Create a batch: check the input file, lock a route, record the batch, start its execution."""

import hashlib
import time
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec.structs import replace

from nightshift.batches import executions, idempotency_keys, planning, quota
from nightshift.batches import store as batches
from nightshift.batches.record import FORMAT, Batch
from nightshift.core import settings
from nightshift.core.errors import BadRequestError, ConflictError, NotFoundError
from nightshift.core.ids import new_id
from nightshift.core.log import logger
from nightshift.files import store as files
from nightshift.files.record import File
from nightshift.input import inspection, plan
from nightshift.input.plan import Task
from nightshift.routes import store as routes
from nightshift.routes.endpoint import DEFAULT, EndpointPath
from nightshift.routes.route import endpoints_of

# How long after its deadline a batch may need its input, because finalizing reads the ids of unanswered lines.
HOLD_SECONDS = 24 * 3600


class NewBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller gives to create a batch; ``output_expires_seconds`` counts from the output file's creation."""

    input_file_id: str
    endpoint: EndpointPath
    completion_window: Literal["24h"]
    callback_url: str | None = None
    metadata: dict[str, str] | None = None
    output_expires_seconds: int | None = None

    def digest(self) -> str:
        """A digest that is the same for equal requests and differs for all others."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()


def create(account_id: str, new: NewBatch, idempotency_key: str | None = None) -> Batch:
    """Make the batch that ``new`` describes, or find the one that ``idempotency_key`` has made already.

    Raises:
        ConflictError: the key was used with another request.
        Others: as ``record``.
    """
    batch_id, existing = find_by_key(account_id, idempotency_key)
    if existing is not None:
        return started(existing, new.digest())
    return record(account_id, batch_id, new, new.digest(), settings.sync_validation_seconds())


def find_by_key(account_id: str, idempotency_key: str | None) -> tuple[str, Batch | None]:
    """The id for a batch that is to be made, and the batch if a call with the same key has made it already."""
    if idempotency_key is None:
        return new_id("batch"), None
    batch_id = idempotency_keys.batch_id_for(account_id, idempotency_key)
    return batch_id, batches.find(account_id, batch_id)


def record(
    account_id: str, batch_id: str, new: NewBatch, digest: str, seconds: float, *, retry_of: str | None = None
) -> Batch:
    """Check, record and start a batch. What cannot be checked within ``seconds`` is left to the state machine.

    ``digest`` identifies the request; ``retry_of`` is the batch whose failed lines these are.

    Raises:
        BadRequestError: the file is not one for batches, or no route offers the endpoint.
        InvalidFileError: the file's lines cannot become a batch; see ``inspection.inspect``.
        NotFoundError: there is no such file, or its bytes have not arrived.
        LimitExceededError: the account is at a quota.
        UnavailableError: no route of the model is active.
        ConflictError: another call with the same idempotency key made a batch of another request meanwhile.
    """
    batch, tasks = _validate(account_id, batch_id, new, seconds)
    batch = replace(batch, request_digest=digest, retry_of=retry_of)
    if not batches.put(batch):
        # Another call with the same key recorded the batch first, maybe with another route, and so with other tasks.
        batch, tasks = batches.get(account_id, batch_id), []
    lines = batch.plan.lines if batch.plan else None
    logger.info("batch created", batch_id=batch_id, lines=lines, validated=batch.plan is not None)
    return started(batch, digest, tasks)


def started(batch: Batch, digest: str, tasks: Sequence[Task] = ()) -> Batch:
    """Write the batch's plan and start its execution, if it has none. If this fails, the batch stays, and the sweep
    starts it. The batch is returned as it was.

    ``tasks`` are the plan, if it is to be written: a single one is run at once, and the batch is in progress then.

    Raises:
        ConflictError: the batch was made by a request with another ``digest``.
    """
    if batch.request_digest not in (None, digest):
        message = "Conflict: this Idempotency-Key was used with another body. Use a new key for a new request."
        raise ConflictError(message, code="idempotency_key_reused", param="Idempotency-Key")
    if batch.status == "validating":
        try:
            if tasks:
                plan.write(batch.id, tasks)
            executions.start(batch.account_id, batch.id, only_task=tasks[0] if len(tasks) == 1 else None)
            if len(tasks) == 1 and not batch.is_open_to_work:
                batches.transition(batch, "in_progress")  # if this is lost, the worker does it
        except Exception:
            logger.exception("batch not started", batch_id=batch.id)
    return batch


def _validate(account_id: str, batch_id: str, new: NewBatch, seconds: float) -> tuple[Batch, list[Task]]:
    """The batch to record, and its tasks. Its plan is None where the file needs more time than the call has."""
    _check_endpoint(new.endpoint)
    file = _input_file(account_id, new.input_file_id)
    quota.check(account_id, None)
    inspected = inspection.inspect(file, new.endpoint, seconds)
    if inspected is not None:
        quota.check(account_id, inspected.lines)
    created_at = int(time.time())
    expires_at = created_at + settings.completion_window_seconds()
    files.hold(file, expires_at + HOLD_SECONDS)
    planned, tasks = planning.planned(account_id, batch_id, inspected) if inspected else (None, [])
    batch = Batch(
        account_id=account_id,
        id=batch_id,
        status="validating",
        input_file_id=new.input_file_id,
        endpoint=new.endpoint,
        completion_window=new.completion_window,
        created_at=created_at,
        expires_at=expires_at,
        metadata=new.metadata,
        callback_url=new.callback_url,
        output_expires_seconds=new.output_expires_seconds,
        plan=planned,
        format=FORMAT,
    )
    return batch, tasks


def _check_endpoint(endpoint: EndpointPath) -> None:
    """Check that a route offers the endpoint. Routes offer the default one unless their operator says otherwise, so a
    model without it is the file's error."""
    if endpoint == DEFAULT:
        return
    offered = endpoints_of(route for route in routes.all_routes() if route.is_usable)
    if endpoint not in offered:
        supported = " and ".join(repr(path) for path in offered) or "none"
        message = f"endpoint: no model is served at '{endpoint}' here. Supported values are: {supported}."
        raise BadRequestError(message, code="invalid_value", param="endpoint")


def _input_file(account_id: str, file_id: str) -> File:
    file = files.get(account_id, file_id, param="input_file_id")
    if file.status != "processed":
        message = "The file's bytes have not arrived yet: upload them to its upload_url first."
        raise NotFoundError(message, code="file_not_found", param="input_file_id")
    if file.purpose != "batch":
        message = f"The file's purpose is {file.purpose!a}; the purpose of an input file is 'batch'."
        raise BadRequestError(message, code="invalid_purpose", param="input_file_id")
    return file
