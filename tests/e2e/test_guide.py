"""Every command of docs/tasks.md, in the order of the page, on one account, one route and one stack."""

import json
import shlex
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from nightshift.accounts import store as accounts
from nightshift.core.table import Table
from openai import OpenAI
from openai.types import Batch

from tests.e2e.conftest import Local, Receiver, batch_file, wait_for
from tests.e2e.tasks import blocks

# They build and deploy, as the end-to-end tests do before they begin.
NOT_RUN = ("make build", ".venv/bin/sam deploy")
# Run by tests/upgrade, because other tests use the stack that it would take down.
NOT_HERE = "Take it all down"
TRIES = 9


def commands() -> Iterator[str]:
    for block in (block for title, block in blocks() if title != NOT_HERE):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.partition(" #")[0].strip()


class Operator:
    """Runs commands as the page writes them, with the names that this stack has."""

    def __init__(self, local: Local, folder: Path, receiver: Receiver) -> None:
        self._local = local
        unique = uuid.uuid4().hex[:8]
        self.account, self.model, self._secret = f"team-{unique}", f"guide-{unique}", f"nightshift/{unique}"
        self._client: OpenAI | None = None
        self._receiver = receiver
        self._refused: Batch | None = None
        keys = {f"a provider's key {number}": uuid.uuid4().hex for number in range(2)}
        local.secrets.nowhere |= keys
        first, second = keys.values()
        routes = folder / "routes.json"
        routes.write_text(json.dumps([self._route()]))
        self._names = {
            "my-team": self.account,
            "gpt-4o-mini": self.model,
            "openai": "simulator",
            "docs/routes.example.yaml": str(routes),
            "nightshift/openai": self._secret,
            "nightshift-restored": f"restored-{unique}",
            "$YOUR_PROVIDERS_KEY": first,
            "$YOUR_PROVIDERS_NEW_KEY": second,
            "$ACCOUNTS_TABLE": local.outputs["AccountsTable"],
        }

    def _route(self) -> dict[str, Any]:
        own = {field: {"key": uuid.uuid4().hex} for field in ("headers", "query", "extra_body")}
        self._local.secrets.in_tables |= {f"a route's {field}": each["key"] for field, each in own.items()}
        return own | {
            "model": self.model,
            "provider": "simulator",
            "base_url": self._local.description["upstream_url"],
            "upstream_model": "simulated-model",
            "sku": {"id": "guide", "input_per_million": 1, "output_per_million": 2},
            "api_key_secret": self._secret,
        }

    def run(self, command: str) -> str:
        """Run one command. Returns what it says; a command that fails is an AssertionError."""
        words = [self._names.get(word, word) for word in shlex.split(command)]
        if "batch_…" in words:
            words[words.index("batch_…")] = self._batch_for(words).id
        if "key_…" in words:
            words[words.index("key_…")] = self._key()
        if "dead-letters" in words:
            wait_for(lambda: self._delivery()["status"] == "failed")
        if words[0] == "aws":
            return self._aws(words[1], words[2], words[3:])
        assert words[:3] == ["uv", "run", "nightshift"], command
        said = self._nightshift(words[3:])
        self._local.upstream.set(held=False)
        return said

    def _nightshift(self, words: list[str]) -> str:
        if words[:2] == ["admin", "doctor"]:
            words += ["--model", self.model]  # and not the broken ones of other tests
        if words[:3] == ["admin", "accounts", "purge"]:
            words += ["--yes"]
            # Long enough ago that no function remembers its keys, for which the command waits a minute.
            Table("accounts").update(
                accounts.find(self.account).id, "account", set={"disabled_at": int(time.time()) - 100}
            )
        if words[0] == "admin":
            done = self._local.admin(*words[1:], check=False)
        else:
            client = self._api()
            done = self._local.nightshift(*words, OPENAI_BASE_URL=str(client.base_url), OPENAI_API_KEY=client.api_key)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        if words[1:3] in (["keys", "create"], ["keys", "rotate"]):
            self._client = self._local.openai(done.stdout.strip())
            # Early, because it is refused nine times until it is a dead letter.
            self._refused = self._refused or self._created(callback_url=self._receiver.url)
        if words[1:3] == ["keys", "revoke"]:
            self._client = None
        return done.stdout

    def _key(self) -> str:
        """The id of a key of the account, which has one."""
        self._api()
        return accounts.list_keys(accounts.find(self.account).id)[0].id

    def _api(self) -> OpenAI:
        """The API with a key of the account."""
        if self._client is None:
            self._nightshift(["admin", "keys", "create", "--account", self.account])
        assert self._client is not None
        return self._client

    def _batch_for(self, words: list[str]) -> Batch:
        """A batch of the account, in a state that the command is for: running, with failed lines, or completed."""
        running, failing = "cancel" in words, "retry" in words
        self._local.upstream.set(held=running, error_rate={"400": 1.0} if failing else {})
        batch = self._created()
        if not running:
            wait_for(lambda: self._api().batches.retrieve(batch.id).status == "completed")
        return batch

    def _created(self, **extra: Any) -> Batch:
        client = self._api()
        file = client.files.create(file=("input.jsonl", batch_file(3, self.model)), purpose="batch")
        return client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", extra_body=extra
        )

    def _delivery(self) -> dict[str, Any]:
        """The webhook that is refused at first."""
        assert self._refused is not None
        path = f"/batches/{self._refused.id}/webhook_deliveries"
        found: list[dict[str, Any]] = self._api().get(path, cast_to=httpx.Response).json()["data"]
        return found[0]

    def assert_redriven(self) -> None:
        """The dead letter has left its queue, and its receiver has taken it."""
        wait_for(lambda: self._delivery()["status"] == "succeeded")
        assert len(self._receiver.received) == TRIES + 1
        assert self.account not in self._local.admin("dead-letters", "list").stdout

    def _aws(self, service: str, operation: str, words: list[str]) -> str:
        """A call of the AWS command line, whose options are the fields of the API's request in another spelling."""
        fields = {
            "".join(part.capitalize() for part in name.removeprefix("--").split("-")): value
            for name, value in zip(words[::2], words[1::2], strict=True)
        }
        client = self._local.aws(service)
        if operation == "restore-table-to-point-in-time":
            # Which the emulator does not have: the table is copied as it is now, and then loses the account.
            client.meta.service_model.operation_model("RestoreTableToPointInTime")
            assert fields.keys() == {"SourceTableName", "TargetTableName", "RestoreDateTime"}
            self._copy(client, fields["SourceTableName"], fields["TargetTableName"])
            return ""
        return str(getattr(client, operation.replace("-", "_"))(**fields))

    def _copy(self, dynamodb: Any, source: str, target: str) -> None:
        table = dynamodb.describe_table(TableName=source)["Table"]
        dynamodb.create_table(
            TableName=target,
            KeySchema=table["KeySchema"],
            AttributeDefinitions=table["AttributeDefinitions"],
            BillingMode="PAY_PER_REQUEST",
        )
        for page in dynamodb.get_paginator("scan").paginate(TableName=source):
            for item in page["Items"]:
                dynamodb.put_item(TableName=target, Item=item)
                if item.get("name") == {"S": self.account}:
                    dynamodb.delete_item(TableName=source, Key={key: item[key] for key in ("pk", "sk")})
        assert self.account not in self._local.admin("accounts", "list").stdout


@pytest.mark.usefixtures("operator")
@pytest.mark.timeout(400)
def test_the_guide_does_what_it_says(local: Local, tmp_path: Path, receive: Callable[..., Receiver]) -> None:
    operator = Operator(local, tmp_path, receive([500] * TRIES))
    said = {}
    for command in commands():
        if not command.startswith(NOT_RUN):
            said[command.removeprefix("uv run nightshift ")] = operator.run(command)
        if "dead-letters list" in command:
            assert operator.account in said["admin dead-letters list"]
        if "redrive" in command:
            assert said["admin dead-letters redrive --account my-team"] == "Dead letters sent again: 1.\n"
            operator.assert_redriven()
    assert operator.account not in local.admin("accounts", "list").stdout, "the account was purged at the end"
    assert operator.model in said["admin doctor --spend"]
    assert said["status batch_… --watch --timeline"]
    assert "batch_" in said["admin batches list --account my-team --open"] or said["admin batches cancel batch_…"]
    assert said["admin restore accounts --from nightshift-restored"]
