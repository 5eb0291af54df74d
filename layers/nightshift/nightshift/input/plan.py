"""A batch's plan in the bucket, ``work/<batch>/plan.json``: one task a chunk, for the Distributed Map."""

from collections.abc import Sequence
from typing import Any

import msgspec

from nightshift.core import aws, settings
from nightshift.input.layout import Segment


class Task(msgspec.Struct, frozen=True):
    """What a worker is asked to do: one chunk of one batch. ``slice`` is what its last invocation said."""

    account_id: str
    batch_id: str
    chunk: int
    segments: list[tuple[int, int, int, int]]
    slice: dict[str, Any] = {}

    def spans(self) -> list[Segment]:
        return [Segment(*span) for span in self.segments]


def write(batch_id: str, tasks: Sequence[Task]) -> None:
    aws.client("s3").put_object(Bucket=settings.bucket(), Key=key(batch_id), Body=msgspec.json.encode(tasks))


def read(batch_id: str) -> list[Task] | None:
    """The batch's tasks; None where there is no plan, never written or deleted from the bucket."""
    s3 = aws.client("s3")
    try:
        content = aws.read_object(settings.bucket(), key(batch_id))
    except s3.exceptions.NoSuchKey:
        return None
    return msgspec.json.decode(content, type=list[Task])


def key(batch_id: str) -> str:
    return f"work/{batch_id}/plan.json"
