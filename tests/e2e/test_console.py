"""The console in Chromium against the stack: fills some accounts and runs console/tests/browser."""

import json
import os
import shutil
import subprocess
from typing import Any

import pytest
from nightshift.accounts import store as accounts
from nightshift.core.ids import derived_id

from local.settings import ROOT
from tests.e2e.conftest import Account, Local, Receiver, batch_file

CONSOLE = ROOT / "console"
SCREENSHOTS = ROOT / ".local" / "screenshots"
MANY = 3_000


def fill(local: Local, account: Account) -> None:
    """Give the account ``MANY`` batches: copies of a real one, some of them failed."""
    made = account.ended(account.create(account.upload(batch_file(3))))
    stacks = local.aws("cloudformation").describe_stacks(StackName=local.description["stack_name"])["Stacks"]
    outputs = {each["OutputKey"]: each["OutputValue"] for each in stacks[0]["Outputs"]}
    dynamodb = local.aws("dynamodb")
    key = {"pk": {"S": account.id}, "sk": {"S": made.id}}
    item: dict[str, Any] = dynamodb.get_item(TableName=outputs["BatchesTable"], Key=key)["Item"]
    copies = [_copy(item, number) for number in range(MANY - 1)]
    _announce_nothing_of(local, account)
    for first in range(0, len(copies), 25):
        puts = [{"PutRequest": {"Item": copy}} for copy in copies[first : first + 25]]
        dynamodb.batch_write_item(RequestItems={outputs["BatchesTable"]: puts})


def _announce_nothing_of(local: Local, account: Account) -> None:
    """The copies never ran, so they send no events: thousands would keep the emulator busy for minutes."""
    functions = local.aws("lambda")
    mappings = functions.list_event_source_mappings()["EventSourceMappings"]
    (stream,) = [each for each in mappings if "-PublishEvents-" in each["FunctionArn"]]
    filters = [json.loads(each["Pattern"]) for each in stream["FilterCriteria"]["Filters"]]
    for each in filters:
        each["dynamodb"].setdefault("Keys", {})["pk"] = {"S": [{"anything-but": [account.id]}]}
    criteria = {"Filters": [{"Pattern": json.dumps(each)} for each in filters]}
    functions.update_event_source_mapping(UUID=stream["UUID"], FilterCriteria=criteria)


def _copy(item: dict[str, Any], number: int) -> dict[str, Any]:
    """A batch that is ``number`` minutes older."""
    created = int(item["created_at"]["N"]) - 60 * (number + 1)
    return item | {
        "sk": {"S": derived_id("batch", str(number), at=created)},
        "created_at": {"N": str(created)},
        "metadata": {"M": {"number": {"S": str(number)}}},
        "status": {"S": "completed" if number % 7 else "failed"},
    }


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("operator")
def test_the_console(local: Local) -> None:
    npx = shutil.which("npx")
    assert npx is not None, "Node 20 or later is needed"
    work, empty, full, revocable = (Account(local) for _ in range(4))
    revoked, key = accounts.create_key(work.id)
    accounts.revoke_key(work.id, key.id)
    fill(local, full)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    receiver = Receiver([])
    stack = {
        "base_url": local.description["base_url"],
        "control_url": local.description["upstream_control_url"],
        "keys": {
            "work": work.key,
            "empty": empty.key,
            "full": full.key,
            "revoked": revoked,
            "revocable": revocable.key,
        },
        "receiver_url": receiver.url,
        "screenshots": str(SCREENSHOTS),
    }
    try:
        done = subprocess.run(
            [npx, "playwright", "test"],
            cwd=CONSOLE,
            env=os.environ | {"CONSOLE_STACK": json.dumps(stack)},
            capture_output=True,
            text=True,
            timeout=880,
            check=False,
        )
    finally:
        receiver.close()
    assert done.returncode == 0, done.stdout + done.stderr
