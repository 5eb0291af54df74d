"""What an operator does with `nightshift admin`, and what callers notice of it."""

import json
import uuid

import pytest
from openai import AuthenticationError, OpenAI

from tests.e2e.conftest import Local, batch_file, wait_for


def client(local: Local, api_key: str) -> OpenAI:
    return OpenAI(base_url=local.description["base_url"], api_key=api_key, max_retries=0)


def test_from_an_account_to_its_end(local: Local) -> None:
    name = f"team-{uuid.uuid4().hex[:8]}"
    local.admin("accounts", "create", name)
    first = local.admin("keys", "create", "--account", name).stdout.strip()
    (key,) = json.loads(local.admin("keys", "list", "--account", name, "--json").stdout)

    file = client(local, first).files.create(file=("input.jsonl", batch_file(2)), purpose="batch")
    batch = client(local, first).batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    wait_for(lambda: client(local, first).batches.retrieve(batch.id).status == "completed")

    (listed,) = json.loads(local.admin("batches", "list", "--account", name, "--json").stdout)
    assert (listed["id"], listed["status"], listed["lines"]) == (batch.id, "completed", 2)
    (spent,) = json.loads(local.admin("cost", "--account", name, "--by", "model", "--json").stdout)
    assert (spent["model"], spent["batches"], spent["lines"]) == ("demo-model", 1, 2)

    second = local.admin("keys", "rotate", key["id"], "--account", name, "--overlap", "1h").stdout.strip()
    assert client(local, first).batches.retrieve(batch.id).id == batch.id
    assert client(local, second).batches.retrieve(batch.id).id == batch.id

    local.upstream.set(latency_ms=5_000)
    running = client(local, second).batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    unused = local.admin("keys", "create", "--account", name).stdout.strip()
    assert "Batches cancelled: 1." in local.admin("accounts", "disable", name).stdout
    # One that no function has looked up: others are known for a minute.
    with pytest.raises(AuthenticationError):
        client(local, unused).models.list()
    local.admin("accounts", "enable", name)
    assert client(local, unused).models.list().data
    wait_for(lambda: client(local, unused).batches.retrieve(running.id).status == "cancelled")
