"""What `nightshift admin doctor` tries with an account of its own: what no emulator can prove of an AWS account."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nightshift_cli.admin.checks import Finding, aws_client, name_of
from nightshift_cli.admin.tenant import Tenant, wait_until
from nightshift_cli.show import plain

if TYPE_CHECKING:
    from nightshift.routes.health import Trouble
    from nightshift.routes.route import Route

# A part of an upload that S3 copies by itself has at least so many bytes.
_PART_BYTES = 5 * 1024 * 1024
# More than Lambda takes, and less than API Gateway does.
_TOO_MANY_BYTES = 7 * 1024 * 1024
# Streams, queues and the bus hand things on within seconds.
_HANDED_ON_SECONDS = 120
_CHUNKS = 2
_PARKED_SECONDS = 10
_BODIES: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Say hello."}]},
    "/v1/responses": {"input": "Say hello."},
    "/v1/embeddings": {"input": "hello"},
    "/v1/completions": {"prompt": "Say hello."},
    "/v1/moderations": {"input": "hello"},
}


# --- files ----------------------------------------------------------------------------------------------------------


def try_storage(tenant: Tenant) -> Iterator[Finding]:
    """Presigned and conditional writes, checksums of parts, ranges, and the end of a deleted file's bytes."""
    content = b'{"a": 1}\n' * 100
    made = tenant.call("POST", "/files", json=_file("doctor.jsonl") | {"bytes": len(content)})
    puts = [
        tenant.http.put(made["upload_url"], content=content, headers=made["upload_headers"]).status_code
        for _ in range(2)
    ]
    if puts != [200, 412]:
        yield Finding("storage", "fail", f"S3 answered a presigned PUT and its repetition with {puts}.")
        return
    size, parts = _size_of_two_parts(tenant)
    if size != parts:
        yield Finding("storage", "fail", f"Two parts of {parts // 2} bytes became {size} bytes.")
        return
    url = f"{tenant.base_url}/files/{made['id']}/content"
    piece = tenant.http.get(url, headers=tenant.headers | {"Range": "bytes=0-8"})
    if piece.content != content[:9]:
        yield Finding("storage", "fail", f"A range of a file was answered with {piece.status_code}.")
        return
    yield Finding("storage", "ok", "Presigned, conditional and parted uploads work, and so do ranges.")
    yield _purged(tenant, made["id"])


def _size_of_two_parts(tenant: Tenant) -> tuple[int, int]:
    """The bytes of a file that is uploaded in two parts, and those of the parts."""
    part = b"x" * _PART_BYTES + b"\n"
    upload = tenant.call("POST", "/uploads", json=_file("parts.jsonl") | _parted(2 * len(part)))
    ids = []
    for _ in range(2):
        one = tenant.call("POST", f"/uploads/{upload['id']}/parts", json={"bytes": len(part)})
        tenant.http.put(one["upload_url"], content=part, headers=one["upload_headers"]).raise_for_status()
        ids.append(one["id"])
    whole = tenant.call("POST", f"/uploads/{upload['id']}/complete", json={"part_ids": ids})["file"]
    return whole["bytes"], 2 * len(part)


def try_large_body(tenant: Tenant) -> Iterator[Finding]:
    """A body that Lambda does not take is refused by the gateway, with an error that says how to send it."""
    file = {"file": ("doctor.jsonl", b"x" * _TOO_MANY_BYTES)}
    answer = tenant.http.post(f"{tenant.base_url}/files", headers=tenant.headers, data={"purpose": "batch"}, files=file)
    words = f"One of 7 MiB was answered with {answer.status_code}"
    if answer.status_code == 413 and "uploads" in answer.text:
        yield Finding("large bodies", "ok", f"{words}, which names /v1/uploads.")
    elif answer.status_code == 503 and "uploads" in answer.text:
        yield Finding("large bodies", "ok", f"{words}, which names /v1/uploads. It may raise ApiErrorsAlarm.")
    else:
        yield Finding("large bodies", "fail", f"{words}: {answer.text[:200]}")


def _purged(tenant: Tenant, file_id: str) -> Finding:
    """The stream of the files' table leads to PurgeFile, which deletes a deleted file's bytes."""
    from nightshift.core import bucket
    from nightshift.files import store as files

    tenant.call("DELETE", f"/files/{file_id}")
    key = files.key(tenant.account_id, file_id)
    if wait_until(lambda: True if bucket.head(key) is None else None, _HANDED_ON_SECONDS):
        return Finding("purge", "ok", "The bytes of a deleted file go.")
    words = f"The bytes of a deleted file are still there after {_HANDED_ON_SECONDS} s. Look at PurgeFile's log."
    return Finding("purge", "fail", words)


# --- the engine -----------------------------------------------------------------------------------------------------


def try_engine(tenant: Tenant, webhook: str | None, wait: int) -> Iterator[Finding]:
    """A batch goes through every state, on a route that is paused, and is cancelled: nothing is sent or paid.

    In batch mode a route's ``max_requests`` divides a batch, so that two lines are two chunks and need the Map.
    """
    from nightshift.batches import store as batches
    from nightshift.routes.route import BatchApi, Route, Sku

    route = Route(
        model="doctor",
        provider="doctor",
        base_url="https://doctor.invalid/v1",
        upstream_model="doctor",
        sku=Sku("doctor"),
        mode="batch",
        batch_api=BatchApi(max_requests=1),
    )
    endpoint = "/v1/chat/completions"
    with tenant.only_route(route, paused=True) as paused:
        batch = tenant.begin(paused.model, endpoint, [_BODIES[endpoint]] * _CHUNKS, webhook)
        ran = wait_until(lambda: _map_ran(tenant, batch["id"]), wait)
        # Once it is parked, the cancel wakes it; just before, it would come late.
        wait_until(lambda: batches.get(tenant.account_id, batch["id"]).parked_until, _PARKED_SECONDS if ran else 0)
        batch = tenant.ended(batch, time.time())
        yield _engine_verdict(tenant, batch, ran)
        if webhook:
            yield _delivered(tenant, batch["id"])


def _execution(batch_id: str) -> str:
    from nightshift.batches import executions

    return executions.arn_of(batch_id, 0)


def _map_ran(tenant: Tenant, batch_id: str) -> bool | None:
    """Whether the Map has run every chunk, and a worker has visited each; None while it goes on."""
    stepfunctions = aws_client("stepfunctions")
    execution = _execution(batch_id)
    for found in stepfunctions.list_map_runs(executionArn=execution)["mapRuns"]:
        run = stepfunctions.describe_map_run(mapRunArn=found["mapRunArn"])
        if run["status"] != "RUNNING":
            visits = tenant.call("GET", f"/batches/{batch_id}/visits")["data"]
            waiting = {visit["chunk"] for visit in visits if visit["outcome"] == "waits"}
            return bool(run["itemCounts"]["succeeded"] == _CHUNKS == len(waiting))
    ended = stepfunctions.describe_execution(executionArn=execution)["status"] != "RUNNING"
    return False if ended else None


def _engine_verdict(tenant: Tenant, batch: dict[str, Any], ran: bool | None) -> Finding:
    if not ran:
        return Finding("engine", "fail", f"The Map did not run a batch's chunks. {_trouble(batch['id'])}")
    if batch["status"] != "cancelled":
        words = f"A cancelled batch is {batch['status']}. {_trouble(batch['id'])}"
        return Finding("engine", "fail", words)
    answer = tenant.http.get(f"{tenant.base_url}/files/{batch['error_file_id']}/content", headers=tenant.headers)
    lines = answer.text.splitlines() if answer.status_code == 200 else []
    if len(lines) != _CHUNKS:
        return Finding("engine", "fail", f"{_CHUNKS} lines went in, and {len(lines)} came out.")
    words = "A batch of two chunks was validated, run by the Map, cancelled and joined: two lines in, two lines out."
    return Finding("engine", "ok", words)


def _trouble(batch_id: str) -> str:
    """The last failure in the history of the batch's first execution, in Step Functions' words."""
    execution = _execution(batch_id)
    history = aws_client("stepfunctions").get_execution_history(executionArn=execution, reverseOrder=True)
    for event in history["events"]:
        details: dict[str, Any] = next((value for name, value in event.items() if name.endswith("EventDetails")), {})
        if "error" in details or "cause" in details:
            return f"{event['type']}: {details.get('error')}: {str(details.get('cause'))[:300]}"
    return f"Look at the execution {execution}."


def _delivered(tenant: Tenant, batch_id: str) -> Finding:
    def look() -> dict[str, Any] | None:
        found = tenant.call("GET", f"/batches/{batch_id}/webhook_deliveries")["data"]
        return found[0] if found and (found[0]["status"] == "succeeded" or found[0]["attempts"]) else None

    delivery = wait_until(look, _HANDED_ON_SECONDS)
    if delivery is None:
        return Finding("webhook", "fail", "No delivery has begun. Look at the alarms of events and streams.")
    if delivery["status"] == "succeeded":
        return Finding("webhook", "ok", "The receiver took it.")
    tries = [one["status_code"] or one["error"] for one in delivery["attempts"]]
    return Finding("webhook", "fail", f"The receiver did not take it: {tries}. Its address must be public HTTPS.")


# --- routes ---------------------------------------------------------------------------------------------------------


def try_route(tenant: Tenant, route: "Route", wait: int) -> Iterator[Finding]:
    """A line for each endpoint of the route, answered through it and no other."""
    from nightshift.routes.state import RouteState

    if not route.is_usable:
        yield Finding(name_of(route), "warn", "Not tried: it takes no new batches (batch or sku.active is false).")
        return
    with tenant.only_route(route) as trial:
        begun = {
            endpoint: tenant.begin(trial.model, endpoint, [_BODIES[endpoint]], None) for endpoint in trial.endpoints
        }
        cancel_at, state = time.time() + wait, RouteState(trial.id)
        for endpoint, batch in begun.items():
            ended = tenant.ended(batch, cancel_at, lambda: state.read().health.confirmed)
            yield _route_verdict(route, endpoint, ended, state.read().health.trouble)


def _route_verdict(route: "Route", endpoint: str, batch: dict[str, Any], trouble: "Trouble | None") -> Finding:
    status, counts = batch["status"], batch["request_counts"] or {}
    if status == "completed" and counts["completed"] == 1:
        return Finding(name_of(route), "ok", f"It answered a line of {endpoint}, mode {route.mode}.")
    if status == "completed":
        words = f"The provider refused a line of {endpoint}: check upstream_model, path and endpoints."
        return Finding(name_of(route), "fail", words)
    errors = [error["message"] for error in (batch["errors"] or {}).get("data", [])]
    words = errors[0] if errors else plain(trouble.words) if trouble else "no answer in time; --wait gives it more."
    return Finding(name_of(route), "fail", f"The trial of {endpoint} ended as {status}: {words}")


def _file(name: str) -> dict[str, object]:
    return {"purpose": "batch", "filename": name}


def _parted(size: int) -> dict[str, object]:
    return {"bytes": size, "mime_type": "application/jsonl"}
