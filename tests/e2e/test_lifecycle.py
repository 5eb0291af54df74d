"""How a batch ends other than completed: cancelled, expired, failed; and its events."""

import json
from collections.abc import Callable

from nightshift.routes import store as routes
from nightshift.routes.route import Route, Sku
from nightshift.routes.state import RouteState

from local.settings import SECRET
from tests.e2e.conftest import Local, Receiver, assert_every_line_once, batch_file, request_line, wait_for


def test_cancel_keeps_finished_lines(local: Local, receive: Callable[..., Receiver]) -> None:
    local.upstream.set(latency_ms=1500, jitter_ms=1000)
    receiver = receive()
    batch = local.create(batch_file(2000), callback_url=receiver.url)
    wait_for(lambda: (counts := local.client.batches.retrieve(batch.id).request_counts) and counts.completed)

    assert local.client.batches.cancel(batch.id).status == "cancelling"
    batch = local.ended(batch)

    assert batch.status == "cancelled"
    assert_every_line_once(local, batch.id, 2000, {"batch_cancelled"})
    wait_for(lambda: receiver.received)
    assert local.client.batches.cancel(batch.id).status == "cancelled"


def test_expiry_keeps_finished_lines(local: Local) -> None:
    local.upstream.set(latency_ms=1500, jitter_ms=1000)
    with local.environment("CreateBatch", COMPLETION_WINDOW_SECONDS="6"):
        batch = local.create(batch_file(2000))

    batch = local.ended(batch)

    assert batch.status == "expired"
    assert_every_line_once(local, batch.id, 2000, {"batch_expired"})


def test_later_validation_has_the_same_errors(local: Local) -> None:
    lines = [request_line("a"), "{", request_line("a")]
    with local.environment("CreateBatch", SYNC_VALIDATION_SECONDS="0"):
        batch = local.create("\n".join(lines).encode())
        good = local.create(batch_file(5))
    assert batch.status == "validating"
    assert batch.request_counts is None

    batch = local.ended(batch)

    assert batch.status == "failed"
    assert batch.errors is not None
    assert [(error.line, error.code) for error in batch.errors.data or []] == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
    ]
    assert local.ended(good).status == "completed"


def test_status_change_is_one_event(local: Local) -> None:
    sqs, events = local.aws("sqs"), local.aws("events")
    queue = sqs.create_queue(QueueName="third-party")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    bus = local.description["stack_name"]
    events.put_rule(Name="third-party", EventBusName=bus, EventPattern='{"source": ["nightshift"]}')
    events.put_targets(Rule="third-party", EventBusName=bus, Targets=[{"Id": "queue", "Arn": arn}])

    batch = local.ended(local.create(batch_file(3)))

    seen: list[str] = []

    def all_seen() -> bool:
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        told = [json.loads(message["Body"]) for message in messages]
        seen.extend(event["detail-type"] for event in told if event["detail"]["batch"]["id"] == batch.id)
        return len(seen) >= 4

    try:
        wait_for(all_seen)
    finally:
        events.remove_targets(Rule="third-party", EventBusName=bus, Ids=["queue"])
        events.delete_rule(Name="third-party", EventBusName=bus)
        sqs.delete_queue(QueueUrl=queue)
    assert sorted(seen) == ["batch.completed", "batch.finalizing", "batch.in_progress", "batch.validating"]


def test_full_history_continues_elsewhere(local: Local) -> None:
    # A copy of a batch whose first execution has no room left in its history.
    first = local.ended(local.create(batch_file(5)))
    dynamodb, s3, stepfunctions = (local.aws(name) for name in ("dynamodb", "s3", "stepfunctions"))
    (table,) = [name for name in dynamodb.list_tables()["TableNames"] if "-Batches-" in name]
    found = dynamodb.scan(
        TableName=table, FilterExpression="sk = :sk", ExpressionAttributeValues={":sk": {"S": first.id}}
    )["Items"][0]
    kept = ("pk", "input_file_id", "endpoint", "completion_window", "created_at", "expires_at")
    item = {name: found[name] for name in (*kept, "model", "lines", "chunks", "route")}
    copy = f"{first.id[:-1]}{'0' if first.id[-1] != '0' else '1'}"
    item |= {"sk": {"S": copy}, "status": {"S": "validating"}, "open": item["pk"]}
    plan = json.loads(s3.get_object(Bucket=local.bucket(), Key=f"work/{first.id}/plan.json")["Body"].read())
    plan[0]["batch_id"] = copy
    s3.put_object(Bucket=local.bucket(), Key=f"work/{copy}/plan.json", Body=json.dumps(plan))
    dynamodb.put_item(TableName=table, Item=item)

    machine = stepfunctions.list_state_machines()["stateMachines"][0]["stateMachineArn"]
    task = {"account_id": item["pk"]["S"], "batch_id": copy, "execution": 0, "wait_seconds": 0, "failures": 0}
    start = json.dumps(task | {"events": 1_000_000})
    arn = stepfunctions.start_execution(stateMachineArn=machine, name=copy, input=start)["executionArn"]
    batch = local.ended(local.client.batches.retrieve(copy))

    assert batch.status == "completed"
    assert_every_line_once(local, copy, 5)
    wait_for(lambda: stepfunctions.describe_execution(executionArn=f"{arn}-1")["status"] == "SUCCEEDED")
    assert stepfunctions.describe_execution(executionArn=arn)["status"] == "SUCCEEDED"


def test_cancel_wakes_a_waiting_batch(local: Local, operator: None) -> None:
    route = Route(
        model="paused",
        provider="p",
        base_url=local.description["upstream_url"],
        upstream_model="m",
        sku=Sku("paused"),
        api_key_secret=SECRET,
    )
    routes.apply([route])
    RouteState(route.id).put_control("paused")
    batch = local.create(batch_file(5, model="paused"))
    stepfunctions = local.aws("stepfunctions")
    machine = stepfunctions.list_state_machines()["stateMachines"][0]["stateMachineArn"]
    arn = f"{machine.replace(':stateMachine:', ':execution:')}:{batch.id}"

    def waits() -> bool:
        events = stepfunctions.get_execution_history(executionArn=arn)["events"]
        return bool(events[-1].get("stateEnteredEventDetails", {}).get("name") == "WaitForOnlyChunk")

    wait_for(waits)
    assert local.client.batches.cancel(batch.id).status == "cancelling"
    batch = local.ended(batch, 25)

    assert batch.status == "cancelled"
    assert_every_line_once(local, batch.id, 5, {"batch_cancelled"})
    assert stepfunctions.describe_execution(executionArn=arn)["status"] == "ABORTED"
