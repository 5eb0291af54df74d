"""`nightshift admin routes`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightshift_cli import show
from nightshift_cli.admin.route_diff import route_diff, without_secrets
from nightshift_cli.admin.stack import (
    AsJson,
    Operator,
    account_names,
    operator_options,
    print_outcome,
    print_table,
    records,
)
from nightshift_cli.errors import CliError
from nightshift_cli.options import with_options

if TYPE_CHECKING:
    from nightshift.routes.health import Control
    from nightshift.routes.route import Route
    from nightshift.routes.state import View

app = typer.Typer(help="Which upstream answers which model.", no_args_is_help=True)

_SHARE = ("ACCOUNT", "WEIGHT", "IN USE", "GRANTED", "WANTED", "WAITING")

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model that callers name.")]
Provider = Annotated[str | None, typer.Option(help="Only the route of this provider.")]
SkuId = Annotated[str | None, typer.Option("--sku", help="Only the route of this SKU.")]


@app.command("apply")
@with_options(operator_options)
def apply_routes(
    operator: Operator,
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", exists=True, dir_okay=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Replace all routes of the models that the file names, and show what that changes. Other models keep theirs."""
    given = read_routes(file)
    with operator as stack:
        from nightshift.routes import store as routes

        changes = route_diff(routes.all_routes(), given)
        lines = [line for change in changes for line in change.lines()]
        for line in lines:
            typer.echo(show.plain(line), err=as_json)
        for warning in unreadable_secrets(given, stack.outputs.get("SecretsPrefix")):
            typer.echo(show.plain(warning), err=True)
        written = deleted = 0
        words = "Nothing was changed."
        if not dry_run:
            stack.entry.add(changes="; ".join(lines))
            written, deleted = routes.apply(given)
            words = f"Routes written: {written}; deleted: {deleted}."
    outcome = {"changes": [change.as_dict() for change in changes], "written": written, "deleted": deleted}
    print_outcome(outcome, words, as_json)


@app.command("list")
@with_options(operator_options)
def list_routes(operator: Operator, as_json: AsJson = False) -> None:
    """List every route, those of a model in order of preference."""
    head = (
        "MODEL",
        "PROVIDER",
        "UPSTREAM MODEL",
        "BASE URL",
        "MODE",
        "NEW BATCHES",
        "SKU",
        "PRIORITY",
        "WEIGHT",
        "MAX",
    )
    with operator:
        from nightshift.routes import state
        from nightshift.routes import store as routes

        found = routes.all_routes()
        said = state.controls(route.id for route in found)
    rows = [
        (
            *(one.model, one.provider, one.upstream_model, one.base_url, one.mode),
            *(_new_batches(one, said.get(one.id, "open")), one.sku.id, one.priority, one.weight, one.max_concurrency),
        )
        for one in found
    ]
    if as_json:
        whole = [{"route": without_secrets(one)} for one in found]
        typer.echo(show.as_json([row | more for row, more in zip(records(head, rows), whole, strict=True)]))
        return
    print_table(head, rows)


@app.command("status")
@with_options(operator_options)
def route_status(operator: Operator, as_json: AsJson = False) -> None:
    """Show how each route is, in the provider's own words, and who has how much of it."""
    with operator:
        from nightshift.routes import store as routes
        from nightshift.routes.state import RouteState

        now = time.time()
        found = [(route, RouteState(route.id).read()) for route in routes.all_routes()]
        names = account_names()
    head = ("MODEL", "PROVIDER", "SKU", "STATE", "SINCE", "LEVEL", "IN USE", "GRANTED", "MAX", "RUNNING", "WAITING")
    rows = [_status(route, view, now) for route, view in found]
    if as_json:
        details = [{"words": _words(view), "accounts": records(_SHARE, _shares(view, names, now))} for _, view in found]
        typer.echo(show.as_json([row | more for row, more in zip(records(head, rows), details, strict=True)]))
        return
    print_table(head, rows)
    for route, view in found:
        for line in _details(route, view, names, now):
            typer.echo(line)


@app.command("pause")
@with_options(operator_options)
def pause_route(
    operator: Operator, model: Model, provider: Provider = None, sku: SkuId = None, as_json: AsJson = False
) -> None:
    """Send nothing more to a route. Requests in flight may end; batches wait, at most until their deadline."""
    _control(operator, model, provider, sku, "paused", as_json)


@app.command("drain")
@with_options(operator_options)
def drain_route(
    operator: Operator, model: Model, provider: Provider = None, sku: SkuId = None, as_json: AsJson = False
) -> None:
    """Lock no new batches to a route. Those that it has go on."""
    _control(operator, model, provider, sku, "draining", as_json)


@app.command("resume")
@with_options(operator_options)
def resume_route(
    operator: Operator, model: Model, provider: Provider = None, sku: SkuId = None, as_json: AsJson = False
) -> None:
    """Undo pause and drain."""
    _control(operator, model, provider, sku, "open", as_json)


def _control(
    operator: Operator, model: str, provider: str | None, sku: str | None, control: "Control", as_json: bool
) -> None:
    with operator:
        from nightshift.chunks import seats
        from nightshift.routes.state import RouteState

        outcome = []
        for route in chosen_routes(model, provider, sku):
            state = RouteState(route.id)
            state.put_control(control)
            if control == "open":
                seats.wake_first(route)
            typer.echo(show.plain(f"{route.model}, {route.provider}, {route.sku.id}: {control}"), err=as_json)
            row = (route.model, route.provider, route.sku.id, _state(state.read()))
            outcome += records(("MODEL", "PROVIDER", "SKU", "STATE"), [row])
    if as_json:
        typer.echo(show.as_json(outcome))


def chosen_routes(model: str, provider: str | None, sku: str | None) -> "list[Route]":
    """The routes of the model, of one provider or SKU if they are given.

    Raises:
        CliError: there is none.
    """
    from nightshift.routes import store as routes

    of_model = routes.for_model(model)
    chosen = [route for route in of_model if provider in (None, route.provider) and sku in (None, route.sku.id)]
    if not chosen:
        raise CliError(f"No such route of the model {model}.")
    return chosen


def _new_batches(route: "Route", control: "Control") -> str:
    """Whether the route takes new batches, and why not."""
    if not route.batch:
        return "no (not for batches)"
    if not route.sku.active:
        return "no (SKU inactive)"
    return {"open": "yes", "draining": "no (draining)", "paused": "wait (paused)"}[control]


def _status(route: "Route", view: "View", now: float) -> tuple[object, ...]:
    from nightshift.routes.lease import live

    leases = live(view.leases, now)
    running = [lease for lease in leases if lease.granted]
    return (
        *(route.model, route.provider, route.sku.id, _state(view)),
        show.moment(int(view.health.since)) if view.health.since else None,
        f"{view.level.limit:.0%}",
        sum(lease.in_use for lease in running),
        sum(lease.granted for lease in running),
        *(route.max_concurrency, len(running), len(leases) - len(running)),
    )


def _state(view: "View") -> str:
    trouble = view.health.trouble
    words = [*([] if view.control == "open" else [view.control]), view.health.state]
    return ", ".join(words) + (f" ({trouble.kind})" if trouble else "")


def _details(route: "Route", view: "View", names: dict[str, str], now: float) -> list[str]:
    """The provider's words, and a row for each account that has or wants a part of the route."""
    lines = []
    if words := _words(view):
        lines.append(show.plain(f"{route.model}, {route.provider}: {words}"))
    if rows := _shares(view, names, now):
        title = show.plain(f"{route.model}, {route.provider}, {route.sku.id}:")
        lines += [title, *show.table((f"  {first}", *others) for first, *others in [_SHARE, *rows])]
    return lines


def _words(view: "View") -> str | None:
    """What the provider said of the route's trouble."""
    trouble = view.health.trouble
    return f"{trouble.status or 'no answer'}: {trouble.words}" if trouble else None


def _shares(view: "View", names: dict[str, str], now: float) -> list[tuple[object, ...]]:
    """A row for each account that has or wants a part of the route."""
    from nightshift.routes.lease import live

    leases = live(view.leases, now)
    rows = []
    for account_id in sorted({lease.account_id for lease in leases}):
        own = [lease for lease in leases if lease.account_id == account_id]
        sums = [sum(getattr(lease, field) for lease in own) for field in ("in_use", "granted", "wanted")]
        name = names.get(account_id, account_id)
        rows.append((name, own[0].weight, *sums, sum(not lease.granted for lease in own)))
    return rows


def unreadable_secrets(given: "list[Route]", prefix: str | None) -> list[str]:
    """A warning for each secret that workers may not read. ``prefix`` is None for a stack older than its output."""
    secrets = sorted({route.credentials.secret for route in given if route.credentials})
    names = {secret: secret.rpartition(":secret:")[2] for secret in secrets}  # of an ARN too
    return [
        f"Warning: workers may only read secrets whose names begin with {prefix}, and {secret} does not."
        for secret, name in names.items()
        if prefix and not name.startswith(prefix)
    ]


def read_routes(file: Path) -> "list[Route]":
    """The routes in a YAML file.

    Raises:
        CliError: the file is not a list of valid routes. The notes name every wrong entry and its first wrong field.
    """
    import msgspec
    import yaml
    from nightshift.routes import form

    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CliError(f"{file} is not valid YAML.", notes=str(error).splitlines()) from None
    if not isinstance(entries, list) or not entries:
        raise CliError(f"{file} is not a YAML list of routes.")
    found: dict[tuple[str, str, str], Route] = {}
    wrong = []
    for number, entry in enumerate(entries, 1):
        name = f"entry {number}"
        if isinstance(entry, dict) and "model" in entry:
            name += f" (model {entry['model']})"
        try:
            route = form.parse(entry)
        except msgspec.ValidationError as error:
            wrong.append(f"{name}: {error}")
            continue
        identity = (route.model, route.provider, route.sku.id)
        if identity in found:
            wrong.append(f"{name}: an earlier entry has the same model, provider and sku.id")
        found[identity] = route
    if wrong:
        raise CliError(f"{file} has invalid routes. Nothing was changed.", notes=wrong)
    return list(found.values())
