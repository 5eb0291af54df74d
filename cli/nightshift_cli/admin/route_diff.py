"""What applying routes would change."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from nightshift.routes.route import Route


# What operators may have put a key into, also as a part of another field. Its values are neither shown nor recorded.
_MAY_BE_SECRET = frozenset({"headers", "query", "extra_body"})


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one route. ``fields`` are those that differ, with the value ``before`` and ``after``, or
    ``hidden``."""

    model: str
    provider: str
    sku: str
    change: Literal["added", "changed", "removed"]
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """A line for a route that is added (+) or removed (-), and one for each field that is changed (~)."""
        name = f"{self.model}, {self.provider}, {self.sku}"
        if self.change != "changed":
            return [f"{'+' if self.change == 'added' else '-'} {name}"]
        return [f"~ {name}: {_words(field, values)}" for field, values in self.fields.items()]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def without_secrets(route: "Route") -> dict[str, Any]:
    """Every field of the route, without the values that may be secret."""
    import msgspec

    def shown(name: str, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if name in _MAY_BE_SECRET:
            return {key: {"hidden": True} for key in value}
        return {key: shown(key, each) for key, each in value.items()}

    return {name: shown(name, value) for name, value in msgspec.to_builtins(route).items()}


def route_diff(stored: "Iterable[Route]", given: "Iterable[Route]") -> list[Change]:
    """The routes that differ.

    ``stored`` are all routes that there are. Those of models that ``given`` does not name stay as they are.
    """
    after = {route.id: route for route in given}
    models = {route.model for route in after.values()}
    before = {route.id: route for route in stored if route.model in models}
    changes = []
    for id_ in sorted(before.keys() | after.keys()):
        model, provider, sku = id_.split("\n")
        if id_ not in before:
            changes.append(Change(model, provider, sku, "added"))
        elif id_ not in after:
            changes.append(Change(model, provider, sku, "removed"))
        elif fields := dict(_differences(before[id_], after[id_])):
            changes.append(Change(model, provider, sku, "changed", fields))
    return changes


def _differences(before: "Route", after: "Route") -> Iterator[tuple[str, dict[str, Any]]]:
    import msgspec

    old, new = (_flat(msgspec.to_builtins(route)) for route in (before, after))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) == new.get(name):
            continue
        if _MAY_BE_SECRET & set(name.split(".")):
            yield name, {"hidden": True}
        else:
            yield name, {"before": old.get(name), "after": new.get(name)}


def _words(name: str, values: dict[str, Any]) -> str:
    return f"{name} changed" if "hidden" in values else f"{name} {values['before']} -> {values['after']}"


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields with the names of nested ones joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        elif value not in (None, {}):
            flat[prefix + name] = value
    return flat
