"""The request units of a call to DynamoDB, from what was sent and answered, by the rules of its developer guide.

Sources: "Read and write unit consumption", "Item sizes and formats", and for indexes "Using Global Secondary Indexes".
"""

import json
import math
from collections.abc import Mapping
from typing import Any

# What the template's one index has of an item; only a write that changes one of these is a write to the index too.
INDEXED = {"open", "status", "created_at", "expires_at", "input_file_id", "lines"}
WRITES = {"PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems"}

Item = Mapping[str, Mapping[str, Any]]


def units(operation: str, body: bytes, answer: bytes) -> float:
    """Write request units of one of ``WRITES``, read request units of any other call."""
    asked, told = json.loads(body or b"{}"), json.loads(answer or b"{}")
    if operation == "TransactWriteItems":
        return sum(2 * _write(action) for actions in asked["TransactItems"] for action in actions.values())
    if operation in WRITES:
        return _write(asked, told.get("Attributes"))
    items = [told["Item"]] if "Item" in told else told.get("Items", [])
    blocks = max(1, math.ceil(sum(map(size_of, items)) / 4096))
    return blocks if asked.get("ConsistentRead") else blocks / 2


def _write(asked: Mapping[str, Any], after: Item | None = None) -> float:
    """The units of one write; ``after`` is the item that an update has answered, if it has."""
    item = after or asked.get("Item") or asked.get("ExpressionAttributeValues") or {}
    update = str(asked.get("UpdateExpression"))
    names = asked.get("ExpressionAttributeNames", {}).values()
    changed = set(asked.get("Item", {})) | {name for name in names if f"#{name}" in update}
    indexed = changed & INDEXED and "open" in changed | item.keys()
    return max(1, math.ceil(size_of(item) / 1024)) + (1 if indexed else 0)


def size_of(item: Item) -> int:
    """The bytes of an item: names, and values by their types."""
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return len(content.encode())
        case "N":
            return math.ceil(len(content.strip("-").replace(".", "")) / 2) + 1
        case "L":
            return 3 + sum(1 + _value_size(each) for each in content)
        case "M":
            return 3 + sum(1 + len(name.encode()) + _value_size(each) for name, each in content.items())
        case "B":
            return len(content) * 3 // 4
    return 1
