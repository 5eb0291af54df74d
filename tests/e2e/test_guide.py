"""Every command of docs/tasks.md, in the order of the page, on one account, one route and one stack."""

import json
import re
import shlex
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nightshift.accounts import store as accounts
from nightshift.core.table import Table
from openai import OpenAI
from openai.types import Batch

from local.settings import ROOT, SECRET
from tests.e2e.conftest import Local, batch_file, wait_for

# They build and deploy, as the end-to-end tests do before they begin; and take down the stack that other tests use.
NOT_RUN = ("make build", ".venv/bin/sam deploy", ".venv/bin/sam delete")


def commands() -> Iterator[str]:
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / "docs/tasks.md").read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.partition(" #")[0].strip()


class Operator:
    """Runs commands as the page writes them, with the names that this stack has."""

    def __init__(self, local: Local, folder: Path) -> None:
        self._local = local
        unique = uuid.uuid4().hex[:8]
        self.account, self.model = f"team-{unique}", f"guide-{unique}"
        self.client: OpenAI | None = None
        routes = folder / "routes.json"
        routes.write_text(json.dumps([self._route()]))
        self._names = {
            "my-team": self.account,
            "gpt-4o-mini": self.model,
            "openai": "simulator",
            "docs/routes.example.yaml": str(routes),
            "nightshift/openai": f"nightshift/{unique}",
            "nightshift-restored": f"restored-{unique}",
            "$YOUR_PROVIDERS_KEY": unique,
            "$ACCOUNTS_TABLE": local.outputs["AccountsTable"],
        }

    def _route(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "provider": "simulator",
            "base_url": self._local.description["upstream_url"],
            "upstream_model": "simulated-model",
            "sku": {"id": "guide", "input_per_million": 1, "output_per_million": 2},
            "api_key_secret": SECRET,
        }

    def run(self, command: str) -> str:
        """Run one command. Returns what it says; a command that fails is an AssertionError."""
        words = [self._names.get(word, word) for word in shlex.split(command)]
        if "batch_…" in words:
            words[words.index("batch_…")] = self._batch(running="cancel" in words).id
        if "key_…" in words:
            keys = json.loads(self._local.admin("keys", "list", "--account", self.account, "--json").stdout)
            words[words.index("key_…")] = keys[0]["id"]
        if words[0] == "aws":
            return self._aws(words[1], words[2], words[3:])
        assert words[:3] == ["uv", "run", "nightshift"], command
        return self._nightshift(words[3:])

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
            assert self.client is not None
            done = self._local.nightshift(
                *words, OPENAI_BASE_URL=str(self.client.base_url), OPENAI_API_KEY=self.client.api_key
            )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        if words[1:3] == ["keys", "create"]:
            self.client = self._local.openai(done.stdout.strip())
        return done.stdout

    def _batch(self, *, running: bool) -> Batch:
        """A batch of the account: one that runs, or one that has ended."""
        assert self.client is not None
        self._local.upstream.set(latency_ms=5_000 if running else 0)
        file = self.client.files.create(file=("input.jsonl", batch_file(3, self.model)), purpose="batch")
        batch = self.client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        if not running:
            client = self.client
            wait_for(lambda: client.batches.retrieve(batch.id).status == "completed")
        return batch

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
def test_the_guide_does_what_it_says(local: Local, tmp_path: Path) -> None:
    operator = Operator(local, tmp_path)
    said = {}
    for command in commands():
        if not command.startswith(NOT_RUN):
            said[command.removeprefix("uv run nightshift ")] = operator.run(command)
    assert operator.account not in local.admin("accounts", "list").stdout, "the account was purged at the end"
    assert operator.model in said["admin doctor --spend"]
    assert said["status batch_… --watch --timeline"]
    assert "batch_" in said["admin batches list --account my-team --open"] or said["admin batches cancel batch_…"]
    assert said["admin restore accounts --from nightshift-restored"]
