"""What applying routes would change, as lines of text."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nightshift.routes.route import Route


# Values that operators may have put a key into. They are neither shown nor recorded.
_MAY_BE_SECRET = ("headers.", "query.", "extra_body.")


def route_diff(stored: "Iterable[Route]", given: "Iterable[Route]") -> list[str]:
    """A line for each route that is added (+) or deleted (-), and for each field that is changed (~).

    ``stored`` are all routes that there are. Those of models that ``given`` does not name stay as they are.
    """
    after = {route.id: route for route in given}
    models = {route.model for route in after.values()}
    before = {route.id: route for route in stored if route.model in models}
    lines = []
    for id_ in sorted(before.keys() | after.keys()):
        name = ", ".join(id_.split("\n"))
        if id_ not in before:
            lines.append(f"+ {name}")
        elif id_ not in after:
            lines.append(f"- {name}")
        else:
            lines += [f"~ {name}: {change}" for change in _changes(before[id_], after[id_])]
    return lines


def _changes(before: "Route", after: "Route") -> Iterator[str]:
    import msgspec

    old, new = (_flat(msgspec.to_builtins(route)) for route in (before, after))
    for field in sorted(old.keys() | new.keys()):
        if old.get(field) == new.get(field):
            continue
        if field.startswith(_MAY_BE_SECRET):
            yield f"{field} changed"
        else:
            yield f"{field} {old.get(field)} -> {new.get(field)}"


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields with the names of nested ones joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        elif value not in (None, {}):
            flat[prefix + name] = value
    return flat
