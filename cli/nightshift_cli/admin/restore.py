"""`nightshift admin restore`: put back what a table has lost, from a copy of it."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightshift_cli.admin.stack import AsJson, Operator, operator_options, print_outcome
from nightshift_cli.errors import CliError
from nightshift_cli.options import with_options

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import KeySchemaElementTypeDef


class Lost(StrEnum):
    ACCOUNTS = "accounts"
    BATCHES = "batches"
    FILES = "files"
    ROUTES = "routes"


# How the sort keys of each table begin. Those of a route name its provider and its offer.
_SORT_KEYS = {
    Lost.ACCOUNTS: ("account", "key", "webhook"),
    Lost.BATCHES: ("batch_", "carry#", "chunk#", "delivery#", "problem#", "spend#", "submission#", "visit_"),
    Lost.FILES: ("file_", "upload_"),
}


@with_options(operator_options)
def restore_table(
    operator: Operator,
    table: Annotated[Lost, typer.Argument(help="The stack's table that gets the items.")],
    source: Annotated[
        str, typer.Option("--from", metavar="TABLE_NAME", help="The copy, such as one restored to a point in time.")
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also replace items that are there.")] = False,
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Also API keys, those among them that were revoked since.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy the items that one of the stack's tables lacks from another table, which is a copy of it.

    API keys stay away, because one that the table lacks may have been revoked. A batch that comes back is announced
    again, with the id that its event had. The bytes of a deleted file do not.
    """
    with operator:
        import boto3
        from nightshift.core import settings

        dynamodb = boto3.client("dynamodb")
        target = settings.table(table)
        keys = [_keys(dynamodb.describe_table(TableName=name)["Table"]["KeySchema"]) for name in (source, target)]
        if keys[0] != keys[1]:
            raise CliError(f"{source} has other keys than {target}: it is no copy of it.")
        condition: Any = {} if overwrite else {"ConditionExpression": f"attribute_not_exists({keys[1][0]})"}
        restored = kept = left_out = 0
        pages = dynamodb.get_paginator("scan").paginate(TableName=source)
        for item in chain.from_iterable(page["Items"] for page in pages):
            if not belongs(item, table):
                raise CliError(f"{source} holds items of another kind: it is no copy of {target}. {restored} restored.")
            if table == Lost.ACCOUNTS and item["sk"]["S"].startswith("key") and not with_keys:
                left_out += 1
                continue
            try:
                dynamodb.put_item(TableName=target, Item=item, **condition)
            except dynamodb.exceptions.ConditionalCheckFailedException:
                kept += 1
            else:
                restored += 1
    outcome = {"table": table, "from": source, "restored": restored, "kept": kept, "keys_left_out": left_out}
    words = f"Items restored: {restored}; kept as they are: {kept}."
    if left_out:
        words += f" Items of API keys left out: {left_out}."
    print_outcome(outcome, words, as_json)


def belongs(item: "Mapping[str, Any]", table: Lost) -> bool:
    """Whether such an item, as DynamoDB returns it, can be one of the table's."""
    if table == Lost.ROUTES:
        return "route" in item and "status" not in item  # a batch has its route too
    return str(item["sk"]["S"]).startswith(_SORT_KEYS[table])


def _keys(schema: "Sequence[KeySchemaElementTypeDef]") -> list[str]:
    return [key["AttributeName"] for key in schema]
