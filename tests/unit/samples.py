"""What several test modules need: request lines and stored items."""

import json
from typing import Any

from nightshift.batches.record import Batch, Planned
from nightshift.routes.route import Route, Sku

ENDPOINT = "/v1/chat/completions"
MODEL = "gpt-4o-mini"


def request(custom_id: str = "a", **changes: Any) -> dict[str, Any]:
    """A legal line as an object. Changes to ``body`` are merged into it; a change to ``...`` takes the field out."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello."}]} | changes.pop("body", {})
    line = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body} | changes
    line["body"] = {name: value for name, value in body.items() if value is not ...} if line["body"] is body else body
    return {name: value for name, value in line.items() if value is not ...}


def request_line(custom_id: str = "a", **changes: Any) -> bytes:
    return json.dumps(request(custom_id, **changes)).encode()


def batch(**changes: Any) -> Batch:
    """A batch that was just created, with ``changes``."""
    fields: dict[str, Any] = {
        "account_id": "acct_1",
        "id": "batch_1",
        "status": "validating",
        "input_file_id": "file_1",
        "endpoint": ENDPOINT,
        "completion_window": "24h",
        "created_at": 1_700_000_000,
        "expires_at": 1_700_086_400,
    }
    return Batch(**fields | changes)


def plan(lines: int = 3) -> Planned:
    route = Route(model=MODEL, provider="openai", base_url="https://u.example/v1", upstream_model=MODEL, sku=Sku("s"))
    return Planned(MODEL, lines, 1, route)
