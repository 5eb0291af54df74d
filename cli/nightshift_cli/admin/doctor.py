"""`nightshift admin doctor`: whether a deployment works from end to end, and what to do where it does not."""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightshift_cli.admin import checks
from nightshift_cli.admin.checks import Finding, name_of
from nightshift_cli.admin.purge import forget
from nightshift_cli.admin.stack import AsJson, Deployment, Operator, operator_options, print_table
from nightshift_cli.options import with_options

if TYPE_CHECKING:
    import httpx
    from nightshift.routes.route import Route

_TIMEOUT_SECONDS = 30
_POLL_SECONDS = 1.0
# How long a cancelled trial may take to end.
_END_SECONDS = 300
# A part of an upload that S3 copies by itself has at least so many bytes.
_PART_BYTES = 5 * 1024 * 1024
_BODIES: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Say hello."}]},
    "/v1/responses": {"input": "Say hello."},
    "/v1/embeddings": {"input": "hello"},
    "/v1/completions": {"prompt": "Say hello."},
    "/v1/moderations": {"input": "hello"},
}


@with_options(operator_options)
def run_doctor(
    operator: Operator,
    spend: Annotated[bool, typer.Option("--spend", help="Send one line through every route. It is paid for.")] = False,
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="With --spend: where the trials' webhooks go.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only the routes of this model.")] = None,
    wait: Annotated[int, typer.Option(min=1, help="Seconds that a trial may take; then it is cancelled.")] = 600,
    as_json: AsJson = False,
) -> None:
    """Check a deployment from end to end, and say what to do.

    It makes an account named doctor-… for its calls, with a few small files, and deletes all of it at the end.

    Exit code 0: nothing failed. 1: something did.
    """
    with operator as stack, _http() as http:
        found = list(_findings(stack, http, model))
        with Tenant(stack, http) as tenant:
            found += _looked("storage", tenant.check_storage)
            for route in checks.routes_of(model) if spend else ():
                typer.echo(f"Trying the {name_of(route)} …", err=True)
                found += _looked(name_of(route), partial(tenant.check_route, route, webhook, wait))
    print_table(("CHECK", "STATE", "WHAT"), [(one.check, one.state, one.words) for one in found], as_json)
    if any(one.state == "fail" for one in found):
        raise typer.Exit(1)


def _http() -> "httpx.Client":
    """A client that uses the environment's proxies, but for this machine."""
    import httpx

    direct = {f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")}
    return httpx.Client(timeout=_TIMEOUT_SECONDS, mounts=direct)


def _findings(stack: Deployment, http: "httpx.Client", model: str | None) -> Iterator[Finding]:
    yield from _looked("stack", lambda: checks.check_stack(stack))
    yield from _looked("concurrency", lambda: checks.check_concurrency(stack))
    yield from _looked("alarms", lambda: checks.check_alarms(stack))
    yield from _looked("dead letters", lambda: checks.check_dead_letters(stack))
    yield from _looked("api", lambda: checks.check_api(stack, http))
    yield from _looked("routes", lambda: checks.check_routes(http, model))


def _looked(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What the check finds. Its own failure is a finding too, and the others go on."""
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


class UnexpectedAnswerError(Exception):
    """The API answered with another status than it should."""


class Tenant:
    """An account for the checks that need a key. At its end everything of it is deleted."""

    def __init__(self, stack: Deployment, http: "httpx.Client") -> None:
        self._base_url = stack.base_url
        self._http = http

    def __enter__(self) -> "Tenant":
        from nightshift.accounts import store as accounts

        self._account_id = accounts.create_account(f"doctor-{secrets.token_hex(4)}")
        self._key, _ = accounts.create_key(self._account_id)
        return self

    def __exit__(self, *_: object) -> None:
        from nightshift.batches import store as batches

        if batches.open_of(self._account_id):
            typer.echo(f"A trial goes on. Later: nightshift admin accounts purge {self._account_id}", err=True)
        else:
            forget(self._account_id)

    # --- files -------------------------------------------------------------------------------------------------

    def check_storage(self) -> Iterator[Finding]:
        """What an emulator cannot prove of S3: presigned and conditional writes, checksums of parts, ranges."""
        content = b'{"a": 1}\n' * 100
        made = self._call("POST", "/files", json=_file("doctor.jsonl") | {"bytes": len(content)})
        puts = [
            self._http.put(made["upload_url"], content=content, headers=made["upload_headers"]).status_code
            for _ in range(2)
        ]
        if puts != [200, 412]:
            yield Finding("storage", "fail", f"S3 answered a presigned PUT and its repetition with {puts}.")
            return
        part = b"x" * _PART_BYTES + b"\n"
        upload = self._call("POST", "/uploads", json=_file("parts.jsonl") | _parted(2 * len(part)))
        ids = []
        for _ in range(2):
            one = self._call("POST", f"/uploads/{upload['id']}/parts", json={"bytes": len(part)})
            self._http.put(one["upload_url"], content=part, headers=one["upload_headers"]).raise_for_status()
            ids.append(one["id"])
        whole = self._call("POST", f"/uploads/{upload['id']}/complete", json={"part_ids": ids})["file"]
        if whole["bytes"] != 2 * len(part):
            yield Finding("storage", "fail", f"Two parts of {len(part)} bytes became {whole['bytes']} bytes.")
            return
        piece = self._http.get(
            f"{self._base_url}/files/{made['id']}/content", headers=self._headers | {"Range": "bytes=0-8"}
        )
        if piece.content != content[:9]:
            yield Finding("storage", "fail", f"A range of a file was answered with {piece.status_code}.")
            return
        yield Finding("storage", "ok", "Presigned, conditional and parted uploads work, and so do ranges.")

    # --- routes ------------------------------------------------------------------------------------------------

    def check_route(self, route: "Route", webhook: str | None, wait: int) -> Iterator[Finding]:
        """One line, answered through this route and no other: it is tried under a model name of its own."""
        import msgspec
        from nightshift.routes import store as routes
        from nightshift.routes.state import RouteState

        if not route.is_usable:
            yield Finding(name_of(route), "warn", "Not tried: it takes no new batches (batch or sku.active is false).")
            return
        trial = msgspec.structs.replace(route, model=f"doctor-{secrets.token_hex(8)}")
        routes.apply([trial])
        try:
            batch = self._ended(self._begin(trial, webhook), wait)
            yield _verdict(route, batch)
            if webhook and batch["status"] == "completed":
                yield self._delivered(batch["id"], wait)
        finally:
            routes.delete(trial)
            RouteState(trial.id).forget()

    def _begin(self, trial: "Route", webhook: str | None) -> dict[str, Any]:
        endpoint = trial.endpoints[0]
        body = {"model": trial.model, **_BODIES[endpoint]}
        line = json.dumps({"custom_id": "doctor", "method": "POST", "url": endpoint, "body": body})
        file = self._call("POST", "/files", data={"purpose": "batch"}, files={"file": ("doctor.jsonl", line.encode())})
        wanted = {"input_file_id": file["id"], "endpoint": endpoint, "completion_window": "24h"}
        return self._call("POST", "/batches", json=wanted | ({"callback_url": webhook} if webhook else {}))

    def _ended(self, batch: dict[str, Any], wait: int) -> dict[str, Any]:
        """The batch at its end; after ``wait`` seconds it is cancelled."""
        from nightshift.batches.status import TERMINAL

        cancel_at = time.time() + wait
        while batch["status"] not in TERMINAL:
            time.sleep(_POLL_SECONDS)
            batch = self._call("GET", f"/batches/{batch['id']}")
            if time.time() > cancel_at + _END_SECONDS:
                return batch
            if time.time() > cancel_at and batch["status"] != "cancelling":
                batch = self._call("POST", f"/batches/{batch['id']}/cancel")
        return batch

    def _delivered(self, batch_id: str, wait: int) -> Finding:
        give_up_at = time.time() + wait
        while True:
            found = self._call("GET", f"/batches/{batch_id}/webhook_deliveries")["data"]
            if found and (found[0]["status"] == "succeeded" or time.time() > give_up_at):
                break
            if time.time() > give_up_at:
                return Finding("webhook", "fail", "No delivery has begun. Look at the alarms of events and streams.")
            time.sleep(_POLL_SECONDS)
        if found[0]["status"] == "succeeded":
            return Finding("webhook", "ok", "The receiver took it.")
        tries = [one["status_code"] or one["error"] for one in found[0]["attempts"]]
        return Finding("webhook", "fail", f"The receiver did not take it: {tries}. Its address must be public HTTPS.")

    # --- calls -------------------------------------------------------------------------------------------------

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"}

    def _call(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        answer = self._http.request(method, self._base_url + path, headers=self._headers, **content)
        if answer.status_code != 200:
            raise UnexpectedAnswerError(f"{method} {path} was answered with {answer.status_code}: {answer.text[:300]}")
        found: dict[str, Any] = answer.json()
        return found


def _verdict(route: "Route", batch: dict[str, Any]) -> Finding:
    status, counts = batch["status"], batch["request_counts"] or {}
    if status == "completed" and counts["completed"] == 1:
        return Finding(name_of(route), "ok", f"It answered a line, mode {route.mode}.")
    if status == "completed":
        return Finding(name_of(route), "fail", "The provider refused the line: check upstream_model and path.")
    errors = [error["message"] for error in (batch["errors"] or {}).get("data", [])]
    words = errors[0] if errors else "nightshift admin routes status shows the provider's words."
    return Finding(name_of(route), "fail", f"The trial ended as {status}: {words}")


def _file(name: str) -> dict[str, object]:
    return {"purpose": "batch", "filename": name}


def _parted(size: int) -> dict[str, object]:
    return {"bytes": size, "mime_type": "application/jsonl"}
