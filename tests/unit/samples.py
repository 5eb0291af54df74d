"""What several test modules need: request lines and stored items."""

import json
from typing import Any

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


def batch_item(**changes: Any) -> dict[str, Any]:
    """A batch as ``Batches`` stores it."""
    return {
        "pk": "acct_1",
        "sk": "batch_1",
        "status": "validating",
        "input_file_id": "file_1",
        "endpoint": ENDPOINT,
        "completion_window": "24h",
        "created_at": 1_700_000_000,
        "expires_at": 1_700_086_400,
    } | changes
