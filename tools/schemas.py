"""JSON Schemas of the response shapes, which are msgspec Structs."""

from collections.abc import Collection
from typing import Any

import msgspec

REF_TEMPLATE = "#/components/schemas/{name}"


def components(types: Collection[Any], *, closed: bool, ref_template: str = REF_TEMPLATE) -> dict[str, Any]:
    """The schemas of ``types`` and of all that they hold, by name. ``closed`` ones allow no other fields."""
    _, schemas = msgspec.json.schema_components(sorted(types, key=str), ref_template=ref_template)
    for schema in schemas.values():
        # msgspec takes a field with a default for optional, and yet encodes it always.
        schema["required"] = list(schema["properties"])
        for field in schema["properties"].values():
            field.pop("default", None)
        if closed:
            schema["additionalProperties"] = False
    return schemas


def reference(shape: Any) -> dict[str, Any]:
    """A reference to the schema of one of the response shapes."""
    (found,), _ = msgspec.json.schema_components([shape], ref_template=REF_TEMPLATE)
    return found
