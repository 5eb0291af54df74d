"""One event for each status that a batch enters."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from nightshift.batches.events import SOURCE, VERSION, detail_type, status_event
from nightshift.batches.resources import BatchResource, batch_object
from nightshift.batches.status import EDGES, STATUSES, Status, sources, timestamp_field
from nightshift.core.ids import derived_id

from tests.unit.samples import batch
from tools.event_schema import EVENT_SCHEMA, Event, event_schema


@pytest.mark.parametrize("status", STATUSES)
def test_an_event_names_account_batch_and_time(status: Status) -> None:
    field = timestamp_field(status)
    entered = batch(status=status, **({field: 1_700_000_777} if field else {}))
    event = status_event(entered)
    assert (event.version, event.account_id) == ("1", "acct_1")
    assert event.id.startswith("evt_")
    assert event.created_at == (1_700_000_777 if field else 1_700_000_000)
    assert event.batch == batch_object(entered)
    assert detail_type(status) == f"batch.{status}"


def test_an_event_always_has_the_same_id() -> None:
    ended = batch(status="completed", completed_at=5)
    assert status_event(ended) == status_event(batch(status="completed", completed_at=5))
    assert status_event(ended).id == status_event(batch(status="completed", completed_at=6, metadata={})).id


def test_each_status_and_batch_has_its_own_id() -> None:
    events = [status_event(batch(id=name, status=status)) for name in ("batch_1", "batch_2") for status in STATUSES]
    assert all(one.id != other.id for one, other in permutations(events, 2))


# --- the documented shape -------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[3]
SCHEMA: dict[str, Any] = json.loads(EVENT_SCHEMA.read_text())
EXAMPLES = {path.stem: json.loads(path.read_text()) for path in (ROOT / "events" / "bus").glob("*.json")}


def test_the_committed_schema_matches_the_code() -> None:
    assert ROOT / "docs" / "event.schema.json" == EVENT_SCHEMA
    assert event_schema() == SCHEMA, "run `make openapi`"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_schema_has_statuses_and_version() -> None:
    properties, detail = SCHEMA["properties"], SCHEMA["$defs"]["StatusEvent"]["properties"]
    assert set(properties["detail-type"]["enum"]) == {detail_type(status) for status in STATUSES}
    assert (properties["source"]["const"], detail["version"]["const"]) == (SOURCE, VERSION)


def test_fields_are_required_and_extra_allowed() -> None:
    for model in (SCHEMA, *SCHEMA["$defs"].values()):
        assert set(model["required"]) == set(model["properties"])
        assert "additionalProperties" not in model
    jsonschema.validate({**EXAMPLES["batch.completed"], "new": 1}, SCHEMA)


def test_there_is_an_example_of_each_event() -> None:
    assert set(EXAMPLES) == {detail_type(status) for status in STATUSES}


@pytest.mark.parametrize("status", STATUSES)
def test_each_example_is_a_valid_event(status: Status) -> None:
    event = EXAMPLES[detail_type(status)]
    jsonschema.validate(event, SCHEMA)
    assert msgspec.to_builtins(msgspec.convert(event, Event)) == event
    detail = event["detail"]
    batch = detail["batch"]
    assert (event["detail-type"], event["resources"]) == (detail_type(status), [batch["id"]])
    assert batch["status"] == status
    assert list(batch) == list(BatchResource.__struct_fields__)
    assert detail["id"] == derived_id("evt", batch["id"], status)
    assert detail["created_at"] == batch[timestamp_field(status) or "created_at"]
    entered = [each for each in STATUSES if (field := timestamp_field(each)) and batch[field] is not None]
    assert status == "validating" or status in entered
    assert all(sources(each) & {"validating", *entered} for each in entered)
    assert (batch["errors"] is not None) == (status == "failed")
    assert (batch["request_counts"] is None) == (status == "validating")
    assert (batch["usage"] is not None) == (not EDGES[status] and status != "failed")


@pytest.mark.parametrize("field", ["version", "id", "account_id", "created_at", "batch"])
def test_the_schema_refuses_a_missing_field(field: str) -> None:
    event = json.loads(json.dumps(EXAMPLES["batch.completed"]))
    del event["detail"][field]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(event, SCHEMA)
