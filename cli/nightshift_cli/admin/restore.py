"""`nightshift admin restore`: put back what a table has lost, from a copy of it."""

from collections.abc import Sequence
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


@with_options(operator_options)
def restore_table(
    operator: Operator,
    table: Annotated[Lost, typer.Argument(help="The stack's table that gets the items.")],
    source: Annotated[
        str, typer.Option("--from", metavar="TABLE_NAME", help="The copy, such as one restored to a point in time.")
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also replace items that are there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy the items that one of the stack's tables lacks from another table, which has the same keys.

    A batch that comes back is announced again, with the id that its event had. The bytes of a deleted file do not.
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
        restored = kept = 0
        pages = dynamodb.get_paginator("scan").paginate(TableName=source)
        for item in chain.from_iterable(page["Items"] for page in pages):
            try:
                dynamodb.put_item(TableName=target, Item=item, **condition)
            except dynamodb.exceptions.ConditionalCheckFailedException:
                kept += 1
            else:
                restored += 1
    outcome = {"table": table, "from": source, "restored": restored, "kept": kept}
    print_outcome(outcome, f"Items restored: {restored}; kept as they are: {kept}.", as_json)


def _keys(schema: "Sequence[KeySchemaElementTypeDef]") -> list[str]:
    return [key["AttributeName"] for key in schema]
