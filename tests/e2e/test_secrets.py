"""Secrets in places where they could be quoted. The search at the session's end (surfaces.py) looks for them."""

import json
import uuid
from pathlib import Path

from local.settings import SECRET
from tests.e2e.conftest import Account, Local, batch_file, wait_for


def test_values_of_a_route_are_not_shown(local: Local, account: Account, tmp_path: Path) -> None:
    model, values = f"secretive-{uuid.uuid4().hex[:8]}", [uuid.uuid4().hex for _ in range(4)]
    local.secrets.in_tables |= {f"a value of a route {value}": value for value in values}
    route = {
        "model": model,
        "provider": "simulator",
        "base_url": local.description["upstream_url"],
        "upstream_model": "simulated-model",
        "sku": {"id": "one"},
        "api_key_secret": SECRET,
    }
    file = tmp_path / "routes.json"
    for value in values[:2]:  # applied, and then changed
        own = {"headers": {"x-token": value}, "query": {"token": values[2]}, "extra_body": {"token": values[3]}}
        file.write_text(json.dumps([route | own]))
        local.admin("routes", "apply", str(file))

    local.upstream.set(error_rate={"401": 1.0})
    batch = account.create(account.upload(batch_file(3, model)))
    words = "simulated 401"
    wait_for(lambda: words in local.admin("routes", "status").stdout)
    assert words in local.admin("batches", "show", batch.id).stdout
    account.client.batches.cancel(batch.id)
    assert model in local.admin("routes", "list", "--json").stdout
    assert str(file) in local.admin("audit").stdout
