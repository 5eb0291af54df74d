"""The shared state of a route, against moto."""

import msgspec
import pytest
from nightshift.accounts import store as accounts
from nightshift.chunks.place import Place
from nightshift.core.errors import NotFoundError
from nightshift.routes import health as healths
from nightshift.routes import state as states
from nightshift.routes import store as routes
from nightshift.routes.health import Health, trouble_of
from nightshift.routes.lease import Lease
from nightshift.routes.level import Level
from nightshift.routes.state import RouteState

from tests.integration.support import route

STATE = RouteState("m\np\ns")


def lease(worker: str = "w", *, batch: str = "b", granted: int = 0, expires_at: float = 1010.25) -> Lease:
    return Lease(
        worker=worker,
        account_id="a",
        batch_id=batch,
        batch_created_at=1,
        chunk=0,
        wanted=64,
        granted=granted,
        since=1000.5,
        expires_at=expires_at,
    )


def test_a_new_route_is_healthy_and_free() -> None:
    view = STATE.read()
    assert (view.leases, view.turns, view.version) == ([], {}, 0)
    assert (view.health, view.control, view.level) == (Health(), "open", Level())


def test_what_was_written_is_read() -> None:
    assert STATE.grow(lease(granted=32), None, 0)
    STATE.begin_turn("a", 1000.0)
    STATE.put_control("draining")
    STATE.put_level(Level(limit=0.5, at=1000.0))
    reported = healths.reported(Health(), trouble_of(401, "no"), "w", 1000.0)
    assert STATE.put_health(reported)

    view = STATE.read()
    assert (view.leases, view.turns, view.version) == ([lease(granted=32)], {"a": 1000.0}, 1)
    assert (view.health, view.control, view.level) == (reported, "draining", Level(limit=0.5, at=1000.0))
    assert states.controls([STATE.route_id, "other"]) == {STATE.route_id: "draining"}


def test_two_leases_never_grow_at_once() -> None:
    assert STATE.grow(lease("w1", batch="b1", granted=32), None, 0)
    assert not STATE.grow(lease("w2", batch="b2", granted=64), None, 0)
    assert STATE.grow(lease("w2", batch="b2", granted=32), None, 1)
    assert not STATE.grow(lease("w1", batch="b1", granted=64), lease("w1", batch="b1", granted=32), 1)
    assert STATE.read().version == 2


def test_a_lease_changes_only_as_it_was_read() -> None:
    first = lease("w1")
    assert STATE.put(first, None)
    assert not STATE.put(first, None)
    second = lease("w2", expires_at=1020.0)
    assert STATE.put(second, first)
    assert not STATE.put(lease("w1", expires_at=1030.0), first)
    STATE.drop(first)
    assert STATE.read().leases == [second]
    STATE.drop(second)
    assert STATE.read().leases == []


def test_an_ended_batch_leaves_the_queue() -> None:
    holding, waiting = lease("w1", batch="b1", granted=32), lease("w2", batch="b2")
    assert STATE.grow(holding, None, 0)
    assert STATE.put(waiting, None)
    STATE.drop_waiting("b")
    STATE.drop_waiting("b1")
    assert STATE.read().leases == [holding, waiting]
    STATE.drop_waiting("b2")
    assert STATE.read().leases == [holding]


def test_one_of_two_probers_wins() -> None:
    suspect = healths.reported(Health(), trouble_of(401, "no"), "w", 1000.0)
    assert STATE.put_health(suspect)
    assert STATE.put_health(healths.claimed(suspect, "w1", 1010.0, 60.0))
    assert not STATE.put_health(healths.claimed(suspect, "w2", 1010.0, 60.0))
    assert STATE.read().health.prober == "w1"


def test_older_news_of_the_level_is_dropped() -> None:
    STATE.put_level(Level(limit=0.5, at=1000.0))
    STATE.put_level(Level(limit=0.9, at=999.0))
    assert STATE.read().level.limit == 0.5


def test_a_worker_takes_its_place_in_the_table() -> None:
    known = route("http://up.test")
    workers = [Place(known, lease(f"w{n}", batch=f"b{n}"), RouteState(known.id), lambda _: None) for n in range(3)]
    assert [worker.take(100).ceiling for worker in workers[:2]] == [100, 100]
    assert workers[2].take(100).ceiling == known.max_concurrency - 200
    workers[0].leave("done")
    assert workers[2].take(100).ceiling == 100


def test_a_locked_route_is_read_anew() -> None:
    locked = route("http://old.test")
    assert routes.current(locked) == locked  # deleted: as it was
    changed = msgspec.structs.replace(
        locked, base_url="http://new.test", max_concurrency=7, sku=msgspec.structs.replace(locked.sku, active=False)
    )
    routes.apply([changed])
    now = routes.current(locked)
    assert (now.base_url, now.max_concurrency, now.sku) == ("http://new.test", 7, locked.sku)


def test_an_account_has_a_weight() -> None:
    account_id = accounts.create_account("heavy")
    assert accounts.get(account_id).weight == 1
    accounts.set_weight(account_id, 3)
    assert accounts.get(account_id).weight == 3
    with pytest.raises(NotFoundError):
        accounts.set_weight("acct_unknown", 3)
