"""What a run of a chunk works on, what it hands to the next run, and where it stores its results.

These types belong to the chunk and not to one way of answering it. A run that sends requests one by one uses them; so
can a run that sends the chunk to a provider's own batch API.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

import msgspec

from nightshift.batches.progress import AnswerSeconds
from nightshift.batches.visit import WaitsFor
from nightshift.chunks.line_queue import CarriedLine
from nightshift.input.layout import Segment
from nightshift.results.completion import replace_model, set_fields
from nightshift.results.line import OutputLine
from nightshift.results.seals import SealSummary
from nightshift.routes.level import Level
from nightshift.upstream.answer import Answer


class InputGoneError(Exception):
    """The bytes of the input file were deleted."""


class ChunkStore(Protocol):
    """Where a run reads its lines and stores its results. Every method may block, so runs call them in threads."""

    def read(self, segment: Segment) -> bytes:
        """The segment's lines as the input file has them.

        Raises:
            InputGoneError: the input file was deleted.
        """
        ...

    def seals(self, segments: list[Segment]) -> list[SealSummary | None]:
        """The seal of each segment; None for a segment that is not sealed."""
        ...

    def result_parts(self, first_line: int, end_line: int) -> Iterable[list[OutputLine]]:
        """The stored lines from ``first_line`` up to but not including ``end_line``, one list for each result part."""
        ...

    def write_result_part(self, lines: list[OutputLine]) -> None:
        """Store finished lines, in any order."""
        ...

    def seal(self, segment: Segment, lines: list[OutputLine]) -> SealSummary:
        """Seal a segment with ``lines``, which are all of its lines."""
        ...

    def seal_from_parts(self, segment: Segment) -> SealSummary:
        """Seal a segment whose lines are all in result parts."""
        ...

    def record_progress(self, completed: int, failed: int, answer_seconds: AnswerSeconds | None = None) -> None:
        """Record how many lines of the chunk are stored, sealed ones included, and how long recent answers took."""
        ...

    def in_progress(self) -> bool:
        """Whether the run is to go on: the batch is neither cancelled nor ended, and no newer run has its chunk."""
        ...


class Upstream(Protocol):
    async def send(self, body: bytes, idempotency_key: str) -> Answer:
        """Post one request. Failures of the upstream and of the network are answers and not exceptions."""
        ...


class Chunk(msgspec.Struct, frozen=True):
    """A share of a batch. ``model`` is the name that the caller uses, ``upstream_model`` the provider's name for it.

    ``concurrency`` is the highest number of requests in flight. ``extra_body`` has the fields, each as its JSON, that
    the route sets in every request.
    """

    batch_id: str
    model: str
    upstream_model: str
    segments: list[Segment]
    concurrency: int
    extra_body: Mapping[str, msgspec.Raw] = msgspec.field(default_factory=dict)

    def upstream_body(self, body: bytes) -> bytes:
        """The body of a line as the upstream gets it: with its name of the model, and the route's ``extra_body``."""
        body = replace_model(body, self.upstream_model)
        return set_fields(body, self.extra_body) if self.extra_body else body


class Deadlines(msgspec.Struct, frozen=True):
    """When the invocation ends and when the batch expires, as seconds on the run's clock; and the longest time that one
    request may take, in seconds."""

    slice_ends_at: float
    batch_expires_at: float
    request_seconds: float


class Carry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one slice hands to the next. Step Functions holds it as JSON between the two.

    ``lines`` has the lines that were tried or are delayed, by number, ``level`` what the slice's pacer has learned,
    with the time before which nothing is sent, and ``latencies`` what ``tail.Latencies`` has counted.
    """

    lines: dict[int, CarriedLine] = {}
    level: Level = Level()
    latencies: dict[int, int] = {}


NO_CARRY = Carry()


class Statistics(msgspec.Struct):
    """What a run did: how many requests it sent, sent again after a failure, and had refused; the sum of the seconds
    that its answers took."""

    sent: int = 0
    retried: int = 0
    refused: int = 0
    upstream_seconds: float = 0.0


class SliceResult(msgspec.Struct, frozen=True):
    """How a slice ended, and what it hands to the next slice.

    ``done``: no work is left for this chunk. ``more``: start the next slice now. ``wait``: start it after
    ``wait_seconds``, at most 20. ``park``: the chunk has nothing to do for ``wait_seconds``, perhaps minutes, so its
    execution may end meanwhile; 0 seconds: it is to end, and the chunk goes on in another one. With ``look_seconds``,
    the sweep looks after so long whether the wait is over. ``waits_for`` says what is waited for, and ``did`` what the
    slice's requests were.
    """

    state: Literal["done", "more", "wait", "park"]
    wait_seconds: int = 0
    carry: Carry = NO_CARRY
    waits_for: WaitsFor | None = None
    did: Statistics | None = None
    look_seconds: int | None = None


# A longer wait is not worth staying in the execution for.
SHORT_WAIT_SECONDS = 20


def waiting(seconds: int, waits_for: WaitsFor, carry: Carry = NO_CARRY) -> SliceResult:
    """The end of a slice whose chunk has nothing to do for so long."""
    return SliceResult("wait" if seconds <= SHORT_WAIT_SECONDS else "park", seconds, carry, waits_for)
