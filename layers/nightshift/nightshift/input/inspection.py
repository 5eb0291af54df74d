"""From an input file to a plan: the same work inside the create call and, where that runs out of time, after it."""

import time
from dataclasses import dataclass
from typing import Any

import msgspec

from nightshift.core.errors import InvalidFileError, NotFoundError
from nightshift.files import store as files
from nightshift.files.record import File
from nightshift.input import layout, plan
from nightshift.input.file_check import MAX_FILE_BYTES, FileCheck
from nightshift.input.layout import Segment
from nightshift.input.plan import Task
from nightshift.routes import route as routing
from nightshift.routes import store as routes
from nightshift.routes.route import Route


@dataclass(frozen=True, slots=True)
class Intake:
    """A file that can become a batch: its one model, the route it is locked to, and how it is cut."""

    model: str
    route: Route
    segments: list[Segment]

    @property
    def lines(self) -> int:
        return sum(segment.lines for segment in self.segments)


def inspect(file: File, seconds: float) -> Intake | None:
    """Check ``file`` and choose its route; None when that would take over ``seconds``.

    Raises:
        InvalidFileError: ``batch_invalid_jsonl``, ``batch_multiple_models`` or ``batch_model_not_supported``.
        UnavailableError: ``batch_routing_unavailable``.
        NotFoundError: the file's bytes are gone.
    """
    give_up = time.monotonic() + seconds
    size = file.size
    if size > MAX_FILE_BYTES:
        raise InvalidFileError(
            f"The input file has {size} bytes; the limit is {MAX_FILE_BYTES}.",
            code="batch_invalid_jsonl",
            details=[{"code": "invalid_request", "message": "The file is too large.", "param": None, "line": None}],
        )
    check = FileCheck()
    if seconds <= 0:
        return None
    for block in files.read_blocks(file.account_id, file.id, size):
        check.feed(block)
        if time.monotonic() > give_up:
            return None
        if check.stopped:
            break
    check.finish()
    model = check.verdict()
    route = routing.choose(routes.for_model(model), model)
    return Intake(model, route, layout.segments(check.ends))


def plan_again(batch: dict[str, Any]) -> list[Task]:
    """The tasks of a batch whose plan was deleted from the bucket, from its input; none where that is gone too."""
    check = FileCheck()
    try:
        file = files.get(batch["pk"], batch["input_file_id"])
        for block in files.read_blocks(batch["pk"], batch["input_file_id"], file.size):
            check.feed(block)
    except NotFoundError:
        return []
    check.finish()
    route = msgspec.json.decode(batch["route"], type=Route)
    return _tasks(batch["pk"], batch["sk"], layout.segments(check.ends), route)


def _tasks(account_id: str, batch_id: str, segments: list[Segment], route: Route) -> list[Task]:
    return [
        Task(account_id, batch_id, chunk, [(part.start, part.end, part.first_line, part.lines) for part in share])
        for chunk, share in enumerate(layout.chunks(segments, route.max_concurrency))
    ]


def plan_fields(account_id: str, batch_id: str, intake: Intake) -> dict[str, Any]:
    """Write the tasks that the Distributed Map reads, and return what the batch's item has to say of them."""
    tasks = _tasks(account_id, batch_id, intake.segments, intake.route)
    plan.write(batch_id, tasks)
    return {
        "model": intake.model,
        "lines": intake.lines,
        "chunks": len(tasks),
        "route": msgspec.json.encode(intake.route).decode(),
    }
