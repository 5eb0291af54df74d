"""Pages of lists."""

from collections.abc import Sequence
from typing import Generic, Literal, Protocol, TypeVar

import msgspec

# A Lambda function can return 6 MB.
MAX_PAGE_BYTES = 5 * 1024 * 1024


class Listed(Protocol):
    """What a page can list: anything with an id."""

    @property
    def id(self) -> str: ...


Resource = TypeVar("Resource", bound=Listed)


class Page(msgspec.Struct, Generic[Resource], frozen=True, kw_only=True):
    """A page of a list. With ``has_more``, ``after=<last_id>`` gets the next page."""

    object: Literal["list"] = "list"
    data: Sequence[Resource]
    first_id: str | None
    last_id: str | None
    has_more: bool


def list_object(found: Sequence[Resource], has_more: bool) -> Page[Resource]:
    """A page of what was found, cut where it would be over ``MAX_PAGE_BYTES``; the next page goes on from there."""
    data = found[: _fitting(found)]
    return Page(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=has_more or len(data) < len(found),
    )


def _fitting(found: Sequence[Resource]) -> int:
    """How many of ``found`` fit into one page: one at least, so that reading page after page comes to an end."""
    encode = msgspec.json.Encoder().encode
    size = 0
    for number, resource in enumerate(found):
        size += len(encode(resource))
        if number and size > MAX_PAGE_BYTES:
            return number
    return len(found)
