"""`nightshift admin cost`: what batches cost at their routes' prices."""

import csv
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from nightshift_cli import show
from nightshift_cli.admin.stack import AsJson, Operator, operator_options, print_table
from nightshift_cli.errors import CliError
from nightshift_cli.options import with_options

if TYPE_CHECKING:
    from nightshift.batches.record import Batch

_PAGE = 100
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD")]


class By(StrEnum):
    ACCOUNT = "account"
    MODEL = "model"
    DAY = "day"


@dataclass(slots=True)
class Spent:
    """The batches of one row. ``unpriced`` are the routes of tokens whose price is not known; they add no dollars."""

    batches: int = 0
    lines: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    dollars: float = 0.0
    unpriced: set[str] = field(default_factory=set)


@with_options(operator_options)
def show_cost(
    operator: Operator,
    since: Day = None,
    until: Day = None,
    by: Annotated[list[By] | None, typer.Option(help="May be repeated. Default: account, model and day.")] = None,
    account: Annotated[str | None, typer.Option(metavar="NAME", help="Only this account.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what batches cost, by the day (UTC) on which they were created. Default: the last 30 days, today included.

    The dollars are the tokens at the prices of the routes that answered them, and not the provider's bill.
    """
    columns = by or list(By)
    if as_csv and as_json:
        raise CliError("--csv and --json exclude each other.")
    last = (until or datetime.now(UTC)).date()
    first = since.date() if since else last - timedelta(days=29)
    with operator:
        found = list(_ended(first.isoformat(), last.isoformat(), account))
    spent = grouped(found, columns)
    head = (*(column.upper() for column in columns), "BATCHES", "LINES", "INPUT TOKENS", "OUTPUT TOKENS", "DOLLARS")
    rows = [
        (*key, row.batches, row.lines, row.input_tokens, row.output_tokens, f"{row.dollars:.6f}")
        for key, row in sorted(spent.items())
    ]
    if as_csv:
        csv.writer(sys.stdout).writerows([[name.lower().replace(" ", "_") for name in head], *rows])
    else:
        print_table(head, rows, as_json)
    if unpriced := sorted(set().union(*(row.unpriced for row in spent.values()))):
        words = f"Not in the dollars, because their routes have no prices: {', '.join(unpriced)}."
        typer.echo(show.plain(words), err=True)


def grouped(found: "Iterable[tuple[str, Batch]]", by: list[By]) -> dict[tuple[str, ...], Spent]:
    """The sums of batches, each given with its account's name, for each value of the columns ``by``."""
    from nightshift.batches.cost import cost_of

    spent: dict[tuple[str, ...], Spent] = {}
    for name, batch in found:
        values = {By.ACCOUNT: name, By.MODEL: batch.plan.model if batch.plan else "-", By.DAY: _day(batch)}
        row = spent.setdefault(tuple(values[column] for column in by), Spent())
        cost = cost_of(batch)
        row.batches += 1
        for way in (cost.batch, cost.realtime):
            row.lines += way.lines
            row.input_tokens += way.input_tokens
            row.output_tokens += way.output_tokens
            row.dollars += way.dollars or 0.0
        if cost.dollars is None and batch.plan:
            row.unpriced.add(f"{batch.plan.model} by {batch.plan.route.provider}")
    return spent


def _ended(first: str, last: str, account: str | None) -> "Iterator[tuple[str, Batch]]":
    """The batches with usage that were created on the days from ``first`` to ``last``, with their accounts' names."""
    from nightshift.accounts import store as accounts
    from nightshift.batches import store as batches

    for one in [accounts.find(account)] if account else accounts.list_accounts():
        after, more = None, True
        while more:
            page, more = batches.list_page(one.id, limit=_PAGE, after=after)
            after = page[-1].id if page else None
            yield from ((one.name, batch) for batch in page if batch.usage and first <= _day(batch) <= last)
            more = more and _day(page[-1]) >= first


def _day(batch: "Batch") -> str:
    return datetime.fromtimestamp(batch.created_at, UTC).date().isoformat()
