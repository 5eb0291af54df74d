"""A DynamoDB table with plain values: the stores' one way to read and write items.

In an expression ``#name`` stands for the attribute ``name`` and ``:value`` for ``values["value"]``, so no store writes
a table of names. A condition that fails is an answer (False or None), not an error.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from nightshift.core import aws, settings

# An item's attributes as plain values: str, int, float, bool, None, lists or tuples, and dicts of these.
Item: TypeAlias = dict[str, Any]

TableName = Literal["accounts", "batches", "files", "idempotency_keys", "route_state", "routes"]

_NAME = re.compile(r"#(\w+)")


class Table(Struct, frozen=True):
    """One table of the stack; ``keys`` are the names of its key attributes.

    Example:
        Table("files").get("acct_1", "file_1")
        Table("files").update("acct_1", "file_1", {"status": "processed"}, condition="#status = :old", old="uploaded")
    """

    name: TableName
    keys: Sequence[str] = ("pk", "sk")

    def get(self, *key: str, consistent: bool = False) -> Item | None:
        """The item with this key; None where there is none."""
        found = aws.client("dynamodb").get_item(
            TableName=self._table, Key=encode(self._key(key)), ConsistentRead=consistent
        )
        return decode(found["Item"]) if "Item" in found else None

    def put(self, item: Item, condition: str | None = None, **values: Any) -> bool:
        """Write the whole item. Returns whether ``condition`` held; without one it always does."""
        dynamodb = aws.client("dynamodb")
        request = {"Item": encode(item), **_expressions(values, ConditionExpression=condition)}
        try:
            dynamodb.put_item(TableName=self._table, **request)
        except dynamodb.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def update(
        self,
        *key: str,
        set: Mapping[str, Any] | None = None,  # noqa: A002 (DynamoDB's word)
        remove: Sequence[str] = (),
        expression: str | None = None,
        condition: str | None = None,
        returns: Literal["ALL_NEW", "ALL_OLD"] = "ALL_NEW",
        **values: Any,
    ) -> Item | None:
        """Set and remove attributes. Returns the new item, or the one before; None where ``condition`` did not hold.

        ``set`` leaves out values that are None. ``expression`` is an update expression to use in place of both.
        """
        given = {name: value for name, value in (set or {}).items() if value is not None}
        clauses = [
            "SET " + ", ".join(f"#{name} = :{name}" for name in given) if given else "",
            "REMOVE " + ", ".join(f"#{name}" for name in remove) if remove else "",
        ]
        update = expression or " ".join(filter(None, clauses))
        dynamodb = aws.client("dynamodb")
        try:
            written = dynamodb.update_item(
                TableName=self._table,
                Key=encode(self._key(key)),
                ReturnValues=returns,
                **_expressions(given | values, UpdateExpression=update, ConditionExpression=condition),
            )
        except dynamodb.exceptions.ConditionalCheckFailedException:
            return None
        return decode(written.get("Attributes", {}))

    def delete(self, *key: str, condition: str | None = None, **values: Any) -> bool:
        """Delete the item with this key, where there is one. Returns whether ``condition`` held."""
        dynamodb = aws.client("dynamodb")
        request = _expressions(values, ConditionExpression=condition)
        try:
            dynamodb.delete_item(TableName=self._table, Key=encode(self._key(key)), **request)
        except dynamodb.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def delete_all(self, keys: Iterable[Sequence[str]]) -> int:
        """Delete the items with these keys. Returns how many keys there were."""
        dynamodb = aws.client("dynamodb")
        count = 0
        for some in _batched(keys, 25):
            count += len(some)
            requests: Any = {self._table: [{"DeleteRequest": {"Key": encode(self._key(key))}} for key in some]}
            while requests:
                requests = dynamodb.batch_write_item(RequestItems=requests).get("UnprocessedItems")
        return count

    def query(
        self,
        condition: str,
        *,
        index: str | None = None,
        filter: str | None = None,  # noqa: A002 (DynamoDB's word)
        consistent: bool = False,
        **values: Any,
    ) -> Iterator[Item]:
        """Every item whose key meets ``condition``, in the order of the sort key."""
        request = _expressions(values, KeyConditionExpression=condition, FilterExpression=filter)
        if consistent:
            request["ConsistentRead"] = True
        if index is not None:
            request["IndexName"] = index
        for page in aws.client("dynamodb").get_paginator("query").paginate(TableName=self._table, **request):
            yield from map(decode, page["Items"])

    def scan(
        self,
        *,
        index: str | None = None,
        filter: str | None = None,  # noqa: A002 (DynamoDB's word)
        **values: Any,
    ) -> Iterator[Item]:
        """Every item of the table, or of ``index``, in no order."""
        request = _expressions(values, FilterExpression=filter)
        if index is not None:
            request["IndexName"] = index
        for page in aws.client("dynamodb").get_paginator("scan").paginate(TableName=self._table, **request):
            yield from map(decode, page["Items"])

    def page(
        self,
        condition: str,
        *,
        limit: int,
        after: Sequence[str] | None,
        ascending: bool,
        filter: str | None = None,  # noqa: A002 (DynamoDB's word)
        **values: Any,
    ) -> tuple[list[Item], bool]:
        """The first ``limit`` items after the key ``after``, and whether there are more."""
        request = _expressions(values, KeyConditionExpression=condition, FilterExpression=filter)
        request |= {"TableName": self._table, "ScanIndexForward": ascending}
        if filter is None:
            request["Limit"] = limit + 1
        if after is not None:
            request["ExclusiveStartKey"] = encode(self._key(after))
        found: list[Item] = []
        while True:
            answer = aws.client("dynamodb").query(**request)
            found += map(decode, answer["Items"])
            if len(found) > limit or "LastEvaluatedKey" not in answer:
                return found[:limit], len(found) > limit
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    @property
    def _table(self) -> str:
        return settings.table(self.name)

    def _key(self, key: Sequence[str]) -> Item:
        return dict(zip(self.keys, key, strict=True))


def _batched(values: Iterable[Sequence[str]], size: int) -> Iterator[list[Sequence[str]]]:
    """``values`` in lists of at most ``size``."""
    left = iter(values)
    while some := list(islice(left, size)):
        yield some


def transact(*writes: tuple[Literal["Put", "Delete"], Table, Item]) -> None:
    """Put or delete several items, all or none. A delete takes the item's key."""
    field = {"Put": "Item", "Delete": "Key"}
    actions: list[Any] = [
        {kind: {"TableName": settings.table(table.name), field[kind]: encode(item)}} for kind, table, item in writes
    ]
    aws.client("dynamodb").transact_write_items(TransactItems=actions)


def put_together(table: Table, *puts: tuple[Item, str, Mapping[str, Any]]) -> bool:
    """Put several items, each with a condition and its values; all or none. Returns whether all were put.

    Two such calls for the same item at the same time may both put nothing.
    """
    actions: list[Any] = [
        {
            "Put": {
                "TableName": settings.table(table.name),
                "Item": encode(item),
                **_expressions(values, ConditionExpression=condition),
            }
        }
        for item, condition, values in puts
    ]
    return _write_together(actions)


def _write_together(actions: list[Any]) -> bool:
    dynamodb = aws.client("dynamodb")
    try:
        dynamodb.transact_write_items(TransactItems=actions)
    except dynamodb.exceptions.TransactionCanceledException as error:
        codes = {str(reason.get("Code")) for reason in error.response.get("CancellationReasons", [])}
        if not codes <= {"None", "ConditionalCheckFailed", "TransactionConflict"}:
            raise
        return False
    return True


class Update(Struct, frozen=True):
    """A change of one item by an update ``expression``, if ``condition`` holds."""

    table: Table
    key: Sequence[str]
    expression: str
    condition: str | None
    values: Mapping[str, Any]


def update_together(*updates: Update) -> bool:
    """Change several items, all or none. False where a condition did not hold, or another call changed one of them."""
    actions: list[Any] = [
        {
            "Update": {
                "TableName": settings.table(one.table.name),
                "Key": encode(dict(zip(one.table.keys, one.key, strict=True))),
                **_expressions(one.values, UpdateExpression=one.expression, ConditionExpression=one.condition),
            }
        }
        for one in updates
    ]
    return _write_together(actions)


def encode(item: Item) -> dict[str, Any]:
    """A DynamoDB item from plain values; attributes that are None are left out."""
    return {name: _attribute(value) for name, value in item.items() if value is not None}


def decode(item: Mapping[str, Any]) -> Item:
    """Plain values from a DynamoDB item: numbers as int, or as float where they have a fraction."""
    return {name: _value(attribute) for name, attribute in item.items()}


def _expressions(values: Mapping[str, Any], **expressions: str | None) -> dict[str, Any]:
    """The expressions that are given, with the names and values that they use."""
    request: dict[str, Any] = {field: expression for field, expression in expressions.items() if expression}
    names = {name for expression in request.values() for name in _NAME.findall(expression)}
    if names:
        request["ExpressionAttributeNames"] = {f"#{name}": name for name in sorted(names)}
    if values:
        request["ExpressionAttributeValues"] = {f":{name}": _attribute(value) for name, value in values.items()}
    return request


def _attribute(value: Any) -> dict[str, Any]:
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case int():
            return {"N": str(value)}
        case float():
            return {"N": repr(value)}
        case str():
            return {"S": value}
        case list() | tuple():
            return {"L": [_attribute(each) for each in value]}
        case dict():
            return {"M": {name: _attribute(each) for name, each in value.items()}}
    raise TypeError(f"a {type(value).__name__} cannot be stored")


def _value(attribute: Mapping[str, Any]) -> Any:
    ((kind, value),) = attribute.items()
    match kind:
        case "NULL":
            return None
        case "N":
            return int(value) if value.lstrip("-").isdigit() else float(value)
        case "L":
            return [_value(each) for each in value]
        case "M":
            return decode(value)
    return value
