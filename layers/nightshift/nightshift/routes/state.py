"""What the workers of a route share, in the table ``RouteState``: pk is the route's ``id``.

| sk                      | holds                                                                  |
| ----------------------- | ---------------------------------------------------------------------- |
| ``budget``              | version: grows whenever a lease grows                                  |
| ``health``              | health; control, the operator's word; level, and level_at              |
| ``lease#<batch>#<chunk>`` | a ``Lease``                                                          |
| ``turn#<account>``      | at: when the account's turn began                                      |

A query returns the items in this order. So the version is read before the leases, and a lease that grows after it was
read has changed the version.
"""

from collections.abc import Iterable

import msgspec

from nightshift.core.table import Item, Table, put_together
from nightshift.routes.health import Control, Health
from nightshift.routes.lease import Lease
from nightshift.routes.level import Level
from nightshift.routes.share import TURN_SECONDS

# Items outlive what they say by so much, because a chunk that comes back late keeps its place in the queue.
_KEPT_SECONDS = 3600

_TABLE = Table("route_state")


class View(msgspec.Struct, frozen=True):
    """The state of a route at one moment. ``leases`` has those that are over, too."""

    leases: list[Lease]
    turns: dict[str, float]
    version: int = 0
    health: Health = Health()
    control: Control = "open"
    level: Level = Level()


class RouteState(msgspec.Struct, frozen=True):
    """The shared state of one route. What is written with a condition returns whether it held."""

    route_id: str

    def read(self) -> View:
        """The state, no older than the call."""
        return _view(_TABLE.query("pk = :route", consistent=True, route=self.route_id))

    def put(self, lease: Lease, before: Lease | None) -> bool:
        """Write a lease that does not grow, if it is still as it was ``before``."""
        condition, values = _unchanged(before)
        return _TABLE.put(self._lease(lease), condition, **values)

    def grow(self, lease: Lease, before: Lease | None, version: int) -> bool:
        """Write a lease that grows, if no lease of the route has grown since ``version``."""
        budget: Item = {"pk": self.route_id, "sk": "budget", "version": version + 1}
        expected = ("#version = :version", {"version": version}) if version else ("attribute_not_exists(pk)", {})
        return put_together(_TABLE, (budget, *expected), (self._lease(lease), *_unchanged(before)))

    def drop(self, lease: Lease) -> None:
        """Delete the lease, unless another worker has taken it over."""
        _TABLE.delete(self.route_id, _lease_key(lease), condition="#worker = :worker", worker=lease.worker)

    def drop_waiting(self, batch_id: str) -> None:
        """Delete the batch's leases that wait. What a worker still holds ends with the worker."""
        prefix = f"lease#{batch_id}#"
        for item in _TABLE.query("pk = :route AND begins_with(sk, :prefix)", route=self.route_id, prefix=prefix):
            _TABLE.delete(self.route_id, item["sk"], condition="#granted = :nothing", nothing=0)

    def begin_turn(self, account_id: str, now: float) -> None:
        ttl = int(now + TURN_SECONDS * 100) + _KEPT_SECONDS
        _TABLE.put({"pk": self.route_id, "sk": f"turn#{account_id}", "at": now, "ttl": ttl})

    def put_health(self, health: Health) -> bool:
        """Write the successor of a health that was read, unless another one was written since."""
        condition = "#health.#revision = :seen"
        if health.revision == 1:
            condition = f"attribute_not_exists(#health) OR {condition}"
        new: Item = {"health": msgspec.to_builtins(health)}
        return (
            _TABLE.update(self.route_id, "health", set=new, condition=condition, seen=health.revision - 1) is not None
        )

    def put_level(self, level: Level) -> None:
        """Write what a worker has learned, unless a later one is known."""
        new: Item = {"level": msgspec.to_builtins(level), "level_at": level.at}
        condition = "attribute_not_exists(#level_at) OR #level_at < :level_at"
        _TABLE.update(self.route_id, "health", set=new, condition=condition)

    def put_control(self, control: Control) -> None:
        _TABLE.update(self.route_id, "health", set={"control": control})

    def forget(self) -> None:
        """Delete all of the state."""
        found = _TABLE.query("pk = :route", route=self.route_id)
        _TABLE.delete_all((self.route_id, item["sk"]) for item in found)

    def _lease(self, lease: Lease) -> Item:
        item: Item = msgspec.to_builtins(lease)
        return item | {"pk": self.route_id, "sk": _lease_key(lease), "ttl": int(lease.expires_at) + _KEPT_SECONDS}


def forget(account_id: str) -> int:
    """Delete an account's leases and turns at all routes. Returns how many there were."""
    found = _TABLE.scan(filter="#account_id = :account OR #sk = :turn", account=account_id, turn=f"turn#{account_id}")
    return _TABLE.delete_all((item["pk"], item["sk"]) for item in found)


def controls(route_ids: Iterable[str]) -> dict[str, Control]:
    """What the operator said of each route; a route that is missing is open."""
    found = {route_id: _TABLE.get(route_id, "health") for route_id in route_ids}
    return {route_id: item["control"] for route_id, item in found.items() if item and "control" in item}


def _lease_key(lease: Lease) -> str:
    return f"lease#{lease.batch_id}#{lease.chunk:04d}"


def _unchanged(before: Lease | None) -> tuple[str, Item]:
    if before is None:
        return "attribute_not_exists(pk)", {}
    condition = "#worker = :worker AND #granted = :granted AND #expires_at = :expires_at"
    return condition, {"worker": before.worker, "granted": before.granted, "expires_at": before.expires_at}


def _view(items: Iterable[Item]) -> View:
    by_kind: dict[str, list[Item]] = {}
    for item in items:
        by_kind.setdefault(item["sk"].partition("#")[0], []).append(item)
    budget = by_kind.get("budget", [{}])[0]
    health = by_kind.get("health", [{}])[0]
    return View(
        leases=[msgspec.convert(item, Lease) for item in by_kind.get("lease", [])],
        turns={item["sk"].removeprefix("turn#"): item["at"] for item in by_kind.get("turn", [])},
        version=budget.get("version", 0),
        health=msgspec.convert(health.get("health", {}), Health),
        control=health.get("control", "open"),
        level=msgspec.convert(health.get("level", {}), Level),
    )
