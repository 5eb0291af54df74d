"""The JSON Schema of the events on the stack's EventBridge bus, from the code."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from nightshift.batches.events import SOURCE, VERSION, StatusEvent, detail_type
from nightshift.batches.status import STATUSES

from tools.schemas import components

EVENT_SCHEMA = Path(__file__).parents[1] / "docs/event.schema.json"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event on the stack's EventBridge bus. Fields without a description are EventBridge's own."""

    version: str
    id: Annotated[str, Meta(description="EventBridge's own, new each time the event comes: see `detail.id`.")]
    source: Annotated[str, Meta(description="Who sends the event.", extra_json_schema={"const": SOURCE})]
    detail_type: Annotated[
        str,
        Meta(
            description="The status that the batch entered.",
            extra_json_schema={"enum": [detail_type(status) for status in STATUSES]},
        ),
    ] = msgspec.field(name="detail-type")
    account: str
    time: str
    region: str
    resources: Annotated[list[str], Meta(description="The batch's id.", min_length=1, max_length=1)]
    detail: Annotated[StatusEvent, Meta(description="What happened.")]


def event_schema() -> dict[str, Any]:
    """The schema of a whole event. Fields may be added without a new version, so it lets unknown ones pass."""
    definitions = components({Event}, closed=False, ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **definitions.pop("Event"),
        "title": f"Nightshift events, version {VERSION}",
        "$defs": definitions,
    }
