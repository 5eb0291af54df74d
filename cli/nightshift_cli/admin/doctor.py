"""`nightshift admin doctor`: whether a deployment works from end to end, and what to do where it does not."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from nightshift_cli.admin import checks, trials
from nightshift_cli.admin.checks import Finding, name_of
from nightshift_cli.admin.stack import AsJson, Deployment, Operator, operator_options, print_table
from nightshift_cli.admin.tenant import Tenant, UnexpectedAnswerError
from nightshift_cli.options import with_options
from nightshift_cli.progress import Steps

if TYPE_CHECKING:
    import httpx

_TIMEOUT_SECONDS = 30
# A check, and what it is of.
Look = tuple[str, Callable[[], Iterator[Finding]]]


@with_options(operator_options)
def run_doctor(
    operator: Operator,
    spend: Annotated[
        bool, typer.Option("--spend", help="Also send a line of each endpoint through every route: paid for.")
    ] = False,
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Where the trial batch's webhook goes.")] = None,
    model: Annotated[str | None, typer.Option(help="Only the routes of this model.")] = None,
    wait: Annotated[
        int, typer.Option(min=1, help="Seconds until a trial is cancelled, which may take minutes more.")
    ] = 600,
    as_json: AsJson = False,
) -> None:
    """Check a deployment from end to end, and say what to do.

    It makes an account named doctor-… for its calls, with a few small files and a batch that is cancelled before
    anything is sent, and deletes all of it at the end.

    Exit code 0: nothing failed. 1: something did.
    """
    found: list[Finding] = []
    with operator as stack, _http() as http, Tenant(stack, http) as tenant:
        looks = _looks(stack, http, tenant, model, webhook, wait)
        if spend:
            looks.append(("large bodies", partial(trials.try_large_body, tenant)))
            routes = checks.routes_of(model)
            looks += [(name_of(route), partial(trials.try_route, tenant, route, wait)) for route in routes]
        with Steps(len(looks)) as steps:
            for name, look in looks:
                steps.begin(name)
                found += _looked(name, look)
    print_table(("CHECK", "STATE", "WHAT"), [(one.check, one.state, one.words) for one in found], as_json)
    if any(one.state == "fail" for one in found):
        raise typer.Exit(1)


def _http() -> "httpx.Client":
    """A client that uses the environment's proxies, but for this machine."""
    import httpx

    direct = {f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")}
    return httpx.Client(timeout=_TIMEOUT_SECONDS, mounts=direct)


def _looks(
    stack: Deployment, http: "httpx.Client", tenant: Tenant, model: str | None, webhook: str | None, wait: int
) -> list[Look]:
    """What costs nothing, in the order in which it is to work."""
    return [
        ("stack", partial(checks.check_stack, stack)),
        ("functions", partial(checks.check_functions, stack)),
        ("concurrency", partial(checks.check_concurrency, stack)),
        ("alarms", partial(checks.check_alarms, stack)),
        ("dead letters", partial(checks.check_dead_letters, stack)),
        ("dns", partial(checks.check_dns, stack)),
        ("api", partial(checks.check_api, stack, http)),
        ("storage", partial(trials.try_storage, tenant)),
        ("engine", partial(trials.try_engine, tenant, webhook, wait)),
        ("routes", partial(checks.check_routes, http, model)),
    ]


def _looked(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What the check finds. Its own failure, whatever it is, is a finding too, and the others go on."""
    import httpx
    from botocore.exceptions import BotoCoreError, ClientError
    from nightshift.core.errors import NightshiftError

    try:
        yield from check()
    except (BotoCoreError, ClientError) as error:
        yield Finding(name, "fail", f"AWS: {error}")
    except httpx.HTTPError as error:
        yield Finding(name, "fail", f"Not answered: {error or type(error).__name__}")
    except (NightshiftError, UnexpectedAnswerError) as error:
        yield Finding(name, "fail", str(error))
    except Exception as error:  # such as an answer without the field that is looked for
        yield Finding(name, "fail", f"The check itself failed: {type(error).__name__}: {error}")
