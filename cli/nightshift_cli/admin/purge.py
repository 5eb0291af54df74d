"""`nightshift admin accounts purge`: every trace of an account deleted, with a report."""

import time
from collections.abc import Callable
from typing import Annotated

import typer

from nightshift_cli import show
from nightshift_cli.admin.stack import AsJson, Operator, operator_options, print_table
from nightshift_cli.errors import CliError
from nightshift_cli.options import with_options
from nightshift_cli.progress import Steps

# A cancelled batch ends within minutes, one at a provider's batch API within a quarter of an hour.
_ENDS_WITHIN_SECONDS = 1200
_LOOK_SECONDS = 5
_REMAINS = (
    "What remains: ids in the logs (30 days) and in Step Functions' histories (90 days), backups of the tables "
    "(35 days), webhooks between two tries (7 days), messages in the event dead-letter queue (14 days), and what "
    "providers and receivers of webhooks keep."
)


@with_options(operator_options)
def purge_account(
    operator: Operator,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The account's name or id.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete an account with all that it has: files, batches, results, keys, webhooks. This cannot be undone.

    Its keys stop working and its batches are cancelled first. If this is interrupted, repeat it with the account's id.
    """
    if not yes:
        typer.confirm(f"Delete {show.plain(name)} with all its files, batches and results?", abort=True, err=True)
    with operator:
        from nightshift.accounts import store as accounts

        account_id = accounts.find(name).id
        with Steps(total=2 + len(_kinds())) as steps:
            _bring_to_rest(account_id, steps)
            rows = forget(account_id, steps)
    print_table(("WHAT", "DELETED"), rows, as_json)
    typer.echo(_REMAINS, err=True)


def forget(account_id: str, steps: Steps | None = None) -> list[tuple[str, int]]:
    """Delete all of an account that nothing works for any more. Returns what and how much that was."""
    deleted = []
    for what, delete in _kinds().items():
        if steps:
            steps.begin(f"deleting {what}")
        deleted.append((what, delete(account_id)))
    return deleted


def _bring_to_rest(account_id: str, steps: Steps) -> None:
    """Disable the account and end its batches, so that nothing of it is written any more. These are two steps."""
    from nightshift.accounts import store as accounts
    from nightshift.batches import store as batches
    from nightshift.batches.cancel import cancel

    steps.begin("waiting until its keys have stopped working")
    if accounts.get(account_id).disabled_at is None:
        accounts.disable(account_id)
    disabled_at = accounts.get(account_id).disabled_at or 0
    time.sleep(max(0.0, disabled_at + accounts.KEY_CACHE_SECONDS + 1 - time.time()))
    steps.begin("ending its batches")
    give_up_at = time.time() + _ENDS_WITHIN_SECONDS
    while still_open := [cancel(account_id, batch.id) for batch in batches.open_of(account_id)]:
        if time.time() > give_up_at:
            raise CliError(f"{len(still_open)} batches have not ended yet. Nothing was deleted; try again later.")
        steps.describe(f"waiting for the ends of {len(still_open)} batches")
        time.sleep(_LOOK_SECONDS)


def _kinds() -> dict[str, Callable[[str], int]]:
    """What there is of an account, and how it is deleted, in this order: the account itself is last."""
    from nightshift.accounts import store as accounts
    from nightshift.core import bucket

    return {
        "intermediate results": _results,
        "batches, chunks and deliveries": _batches,
        "files": lambda account_id: bucket.erase(f"files/{account_id}/"),
        "uploaded parts": lambda account_id: bucket.erase(f"uploads/{account_id}/"),
        "file and upload records": _file_records,
        "idempotency keys": _idempotency_keys,
        "places at routes": _places,
        "dead letters": _dead_letters,
        "keys, webhook and account": accounts.forget,
    }


def _batch_ids(account_id: str) -> list[str]:
    from nightshift.core.table import Table

    found = Table("batches").query("#pk = :pk AND begins_with(#sk, :prefix)", pk=account_id, prefix="batch_")
    return [item["sk"] for item in found]


def _results(account_id: str) -> int:
    from nightshift.core import bucket

    return sum(bucket.erase(f"work/{batch_id}/") for batch_id in _batch_ids(account_id))


def _batches(account_id: str) -> int:
    """The batches' own partitions first, because the account's partition leads to them."""
    from nightshift.core.table import Table

    table = Table("batches")
    partitions = [*_batch_ids(account_id), account_id]
    return sum(table.delete_all((pk, item["sk"]) for item in table.query("#pk = :pk", pk=pk)) for pk in partitions)


def _file_records(account_id: str) -> int:
    from nightshift.core.table import Table

    table = Table("files")
    return table.delete_all((account_id, item["sk"]) for item in table.query("#pk = :pk", pk=account_id))


def _idempotency_keys(account_id: str) -> int:
    from nightshift.batches import idempotency_keys

    return idempotency_keys.forget(account_id)


def _places(account_id: str) -> int:
    from nightshift.routes import state

    return state.forget(account_id)


def _dead_letters(account_id: str) -> int:
    from nightshift.webhooks import queue

    found = queue.dead_letters()
    letters = [letter for letter in found if letter.event.account_id == account_id]
    for letter in letters:
        queue.forget(letter)
    queue.give_back(letter for letter in found if letter not in letters)
    return len(letters)
