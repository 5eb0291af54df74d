"""From an input file to a batch that can be planned: the same work inside the create call and after it."""

import time

from msgspec import Struct

from nightshift.core.errors import Fault, InvalidFileError
from nightshift.files import store as files
from nightshift.files.record import File
from nightshift.input import layout
from nightshift.input.file_check import MAX_FILE_BYTES, FileCheck
from nightshift.input.layout import Caps, Segment
from nightshift.routes import route as routing
from nightshift.routes import state
from nightshift.routes import store as routes
from nightshift.routes.endpoint import EndpointPath
from nightshift.routes.route import Route


class Inspected(Struct, frozen=True):
    """A file that can become a batch: its one model, the route that it is locked to, and its segments."""

    model: str
    route: Route
    segments: list[Segment]

    @property
    def lines(self) -> int:
        return sum(segment.lines for segment in self.segments)


def inspect(file: File, endpoint: EndpointPath, seconds: float, check: FileCheck | None = None) -> Inspected | None:
    """Check every line of ``file`` and choose its route; None where that would take more than ``seconds``.

    ``check`` is a new ``FileCheck`` for callers that need what it has found by the time of an error.

    Raises:
        InvalidFileError: ``batch_invalid_jsonl``, ``batch_multiple_models`` or ``batch_model_not_supported``.
        UnavailableError: ``batch_routing_unavailable``.
        NotFoundError: the file's bytes are gone.
    """
    give_up_at = time.monotonic() + seconds
    size = file.size
    if size > MAX_FILE_BYTES:
        raise InvalidFileError(
            f"The input file has {size} bytes; the limit is {MAX_FILE_BYTES}.",
            code="batch_invalid_jsonl",
            details=[Fault("invalid_request", "The file is too large.")],
        )
    if seconds <= 0:
        return None
    check = check or FileCheck(endpoint)
    for block in files.read_blocks(file.account_id, file.id, size):
        check.feed(block)
        if time.monotonic() > give_up_at:
            return None
        if check.stopped:
            break
    check.finish()
    model = check.verdict()
    offered = routes.for_model(model)
    controls = state.controls(route.id for route in offered)
    route = routing.choose(offered, model, endpoint, line=check.model_line, controls=controls)
    segment = layout.segment_of(route, layout.segment_lines(route))
    return Inspected(model, route, layout.segments(check.ends, segment))


def segments_of(file: File, endpoint: EndpointPath, segment: Caps) -> list[Segment]:
    """The segments of a file that was inspected before, for the same endpoint.

    Raises:
        NotFoundError: the file's bytes are gone.
    """
    check = FileCheck(endpoint)
    for block in files.read_blocks(file.account_id, file.id, file.size):
        check.feed(block)
    check.finish()
    return layout.segments(check.ends, segment)
