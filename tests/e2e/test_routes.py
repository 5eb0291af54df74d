"""Many batches on one route, and a route that breaks, on the deployed template."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from nightshift.core import settings
from nightshift.routes import form
from nightshift.routes import store as routes
from nightshift.routes.route import Route
from nightshift.routes.state import RouteState

from local.settings import SECRET
from tests.e2e.conftest import Account, Killer, Local, assert_every_line_once, batch_file, wait_for

LIMIT = 64
BATCHES, LINES = 6, 300


@pytest.fixture
def route(local: Local, operator: None) -> Route:
    """A route of its own for each test, so that no other's leases and health count."""
    assert settings.table("route_state")
    entry = {
        "model": "shared-model",
        "provider": "simulator",
        "base_url": local.description["upstream_url"],
        "upstream_model": "simulated-model",
        "sku": {"id": "shared"},
        "api_key_secret": SECRET,
        "max_concurrency": LIMIT,
        "timeout_seconds": 60,
    }
    applied = form.parse(entry)
    routes.apply([applied])
    return applied


def assert_shared(local: Local, received: int) -> None:
    counters = local.upstream.counters()
    assert counters["most_in_flight"] <= LIMIT
    assert counters["received"] <= received


def test_the_batches_of_a_route_share_its_limit(local: Local, account: Account, route: Route) -> None:
    local.upstream.set(latency_ms=300, jitter_ms=100)
    content = batch_file(LINES, route.model)

    def create(number: int) -> str:
        if number == 0:
            return account.create(account.upload(content)).id
        return local.create(content).id

    with ThreadPoolExecutor(BATCHES) as pool:
        ids = list(pool.map(create, range(BATCHES)))
    for number, batch_id in enumerate(ids):
        client = account.client if number == 0 else local.client
        wait_for(lambda: client.batches.retrieve(batch_id).status == "completed", 240)  # noqa: B023 (called at once)
        counts = client.batches.retrieve(batch_id).request_counts
        assert counts is not None
        assert (counts.completed, counts.failed) == (LINES, 0)
    assert_shared(local, BATCHES * LINES)


def test_the_limit_holds_while_workers_are_killed(local: Local, route: Route, killing: Callable[..., Killer]) -> None:
    local.upstream.set(latency_ms=300, jitter_ms=100)
    batches = [local.create(batch_file(LINES, route.model)) for _ in range(3)]
    killer = killing("RunChunk", (2, 4), times=3)
    for batch in batches:
        assert local.ended(batch, 240).status == "completed"
        assert_every_line_once(local, batch.id, LINES)
    killer.stop()
    # What a killed worker had in flight still runs at the simulator until it notices.
    assert local.upstream.counters()["most_in_flight"] <= 2 * LIMIT


def test_a_key_that_is_revoked_burns_no_line(local: Local, route: Route) -> None:
    local.upstream.set(latency_ms=200)
    batch = local.create(batch_file(LINES, route.model))
    wait_for(lambda: local.upstream.counters()["by_status"].get("200", 0) > LIMIT)
    local.upstream.set(error_rate={"401": 1.0})
    wait_for(lambda: RouteState(route.id).read().health.trouble is not None)
    local.upstream.set(error_rate={})
    ended = local.ended(batch, 240)
    assert ended.status == "completed"
    assert_every_line_once(local, batch.id, LINES)
    assert ended.error_file_id is None
    assert RouteState(route.id).read().health.trouble is None


def test_a_secret_that_is_deleted_burns_no_line(local: Local, route: Route) -> None:
    secrets = local.aws("secretsmanager")
    value = secrets.get_secret_value(SecretId=SECRET)["SecretString"]
    own = msgspec.structs.replace(route, api_key_secret="nightshift/shared")
    routes.apply([own])
    batch = local.create(batch_file(LINES, route.model))
    wait_for(lambda: RouteState(own.id).read().health.trouble is not None)
    assert not local.upstream.counters()["received"]
    secrets.create_secret(Name="nightshift/shared", SecretString=value)
    assert local.ended(batch, 240).status == "completed"
    assert_every_line_once(local, batch.id, LINES)
    assert RouteState(own.id).read().health.trouble is None
    secrets.delete_secret(SecretId="nightshift/shared", ForceDeleteWithoutRecovery=True)


def test_a_host_that_does_not_resolve_burns_no_line(local: Local, route: Route) -> None:
    routes.apply([msgspec.structs.replace(route, base_url="https://nowhere.invalid/v1")])
    batch = local.create(batch_file(LINES, route.model))
    trouble = wait_for(lambda: RouteState(route.id).read().health.trouble)
    assert trouble.kind == "address", trouble
    routes.apply([route])
    assert local.ended(batch, 240).status == "completed"
    assert_every_line_once(local, batch.id, LINES)
