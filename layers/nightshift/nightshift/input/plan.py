"""A batch's plan in the bucket, ``work/<batch>/plan.json``: one task for each chunk, read by the Distributed Map."""

from collections.abc import Sequence
from typing import Any

import msgspec

from nightshift.core import bucket
from nightshift.input.layout import Segment


class Task(msgspec.Struct, frozen=True):
    """One worker's input: a chunk of a batch. ``slice`` is the result of the chunk's last slice, empty at first.

    ``execution`` is the number of the batch's execution if that waits for the chunk by itself, without the Map. A
    ``scout`` waits in place of all chunks of the batch, and looks when they can go on.
    """

    account_id: str
    batch_id: str
    chunk: int
    segments: list[Segment]
    slice: dict[str, Any] = {}
    execution: int | None = None
    scout: bool = False


def write(batch_id: str, tasks: Sequence[Task]) -> None:
    bucket.put(key(batch_id), msgspec.json.encode(tasks))


def read(batch_id: str) -> list[Task] | None:
    """The batch's tasks; None without a plan in the bucket."""
    content = bucket.read(key(batch_id))
    return None if content is None else msgspec.json.decode(content, type=list[Task])


def key(batch_id: str) -> str:
    return f"work/{batch_id}/plan.json"
