"""Everything that a stack has stored, as one JSON file: the items of its tables and the objects of its bucket."""

import base64
import json
import re
from pathlib import Path
from typing import Any

from nightshift.core import aws, settings

from tests.integration.support import template_tables


def save(path: Path) -> None:
    """Write what is stored now."""
    dynamodb, s3 = aws.client("dynamodb"), aws.client("s3")
    tables = {name: dynamodb.scan(TableName=f"nightshift-{name}")["Items"] for name in template_tables()}
    objects = {}
    for listed in s3.list_objects_v2(Bucket=settings.bucket()).get("Contents", []):
        found = s3.get_object(Bucket=settings.bucket(), Key=listed["Key"])
        content = base64.b64encode(found["Body"].read()).decode()
        objects[listed["Key"]] = {"body": content, "metadata": found["Metadata"]}
    path.write_text(json.dumps({"tables": tables, "objects": objects}, indent=1, sort_keys=True) + "\n")


def fields(path: Path) -> set[tuple[str, ...]]:
    """The fields of each kind of item, and the metadata of each kind of object."""
    stored: dict[str, Any] = json.loads(path.read_text())
    found: set[tuple[str, ...]] = {
        (table, _kind(item["sk"]["S"]) if "sk" in item else "", _kind(field))
        for table, items in stored["tables"].items()
        for item in items
        for field in item
    }
    for key, value in stored["objects"].items():
        found |= {(_kind(key), field) for field in ["body", *value["metadata"]]}
    return found


def _kind(name: str) -> str:
    """The name of an item, object or field without ids and numbers: a field may be named by its day."""
    return re.sub(r"(?<=_)[0-9a-z]{26}|[0-9]+", "…", name)


def load(path: Path) -> None:
    """Store what ``save`` has written."""
    stored: dict[str, Any] = json.loads(path.read_text())
    for name, items in stored["tables"].items():
        for item in items:
            aws.client("dynamodb").put_item(TableName=f"nightshift-{name}", Item=item)
    for key, value in stored["objects"].items():
        body = base64.b64decode(value["body"])
        aws.client("s3").put_object(Bucket=settings.bucket(), Key=key, Body=body, Metadata=value["metadata"])
