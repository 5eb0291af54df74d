"""The cost of a cold start: import and first request of each function in a new interpreter, with the shipped layers.

The layers are built by their own Makefiles for this Python. As on Lambda, a compiled boto3 is beside them, and nothing
else can be imported. AWS, the upstream and the webhook receiver are canned answers on loopback, so that clients are
created and used, and no other server's time is measured. The peer is the usual handler from Powertools' documentation,
with its packages compiled in the same way. The lower bounds are plain botocore with one client and one call.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from nightshift.batches import events, planning
from nightshift.batches.record import batch_of, plan_attributes
from nightshift.core import aws
from nightshift.core.table import decode, encode
from nightshift.files import store as files
from nightshift.input import inspection, layout
from nightshift.routes.route import Route, Sku

from bench import report
from local.settings import ROOT, ROOT_CREDENTIALS, emulator_python

USUAL = "usual_handler"
# The target of each function's cold start, as a share of the usual handler's.
TARGETS = {
    **dict.fromkeys(("api", "create_batch"), 0.45),
    **dict.fromkeys(("validate_batch", "run_chunk", "finalize_batch", "close_abandoned"), 0.6),
    **dict.fromkeys(("sweep", "publish_events", "deliver_webhook", "purge_file"), 0.6),
}
# What was published on 2026-11-25, as shares of the usual handler's, and the target of each as a share of that.
BEFORE = {
    "api": (0.638, 0.8),
    "create_batch": (0.898, 0.7),
    "run_chunk": (0.985, 0.8),
    "deliver_webhook": (0.85, 0.8),
}
# Also measured without bytecode, to show its effect.
UNCOMPILED = (USUAL, "api", "create_batch", "run_chunk")

# The packages of Lambda's Python runtime.
RUNTIME_PACKAGES = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six.py")
# The peer's packages: with the versions of our lock file, and those that only the peer needs.
PEER_PACKAGES = (
    *("aws-lambda-powertools", "pydantic", "pydantic-core", "annotated-types"),
    *("typing-extensions", "typing-inspection"),
)
PEER_ONLY = ("aws-xray-sdk==2.15.0", "wrapt==2.5.2")
PEER = """\
import os

import boto3
from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.metrics import MetricUnit
from pydantic import BaseModel

logger = Logger(service="usual")
tracer = Tracer(service="usual")
metrics = Metrics(namespace="Usual", service="usual")
app = APIGatewayRestResolver(enable_validation=True)
dynamodb = boto3.client("dynamodb")
s3 = boto3.client("s3")
stepfunctions = boto3.client("stepfunctions")


class Batch(BaseModel):
    id: str
    status: str


@app.get("/batches/<batch_id>")
@tracer.capture_method
def retrieve_batch(batch_id: str) -> Batch:
    key = {"pk": {"S": "acct_bench"}, "sk": {"S": batch_id}}
    found = dynamodb.get_item(TableName=os.environ["BATCHES_TABLE"], Key=key)["Item"]
    metrics.add_metric(name="BatchesRetrieved", unit=MetricUnit.Count, value=1)
    logger.info("batch retrieved")
    return Batch(id=batch_id, status=found["status"]["S"])


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_REST)
@tracer.capture_lambda_handler
@metrics.log_metrics(capture_cold_start_metric=True)
def handler(event, context):
    return app.resolve(event, context)
"""
BOUND = """\
import botocore.session

def handler(event, context):
    session = botocore.session.get_session()
    clients = [session.create_client(name) for name in SERVICES]
    clients[0].get_item(TableName="batches", Key={"pk": {"S": "acct_bench"}, "sk": {"S": "batch_in_progress"}})
    return {"statusCode": 200}
"""
WRITTEN_HERE = {
    USUAL: PEER,
    "only_botocore": 'SERVICES = ["dynamodb"]\n' + BOUND,
    "only_botocore_2_clients": 'SERVICES = ["dynamodb", "s3"]\n' + BOUND,
    "only_botocore_2_clients_aiohttp": 'import aiohttp\nSERVICES = ["dynamodb", "s3"]\n' + BOUND,
}

# The new interpreter runs this: import and one call. The last line has the seconds of each, and the answer.
RUN = """\
import json, sys, time
sys.path[:0], event = json.loads(sys.argv[1])

class Context:
    function_name = "bench"
    memory_limit_in_mb = 1024
    invoked_function_arn = "arn:aws:lambda:us-east-1:000000000000:function:bench"
    aws_request_id = "00000000-0000-0000-0000-000000000000"
    get_remaining_time_in_millis = staticmethod(lambda: 900_000)

started = time.perf_counter()
import app
imported = time.perf_counter()
answer = app.handler(event, Context())
ended = time.perf_counter()
print()
print(json.dumps([imported - started, ended - imported, answer]))
"""

ACCOUNT = "acct_bench"
FILE = "file_bench"
DELETED_FILE = "file_deleted"
BUCKET = "bench"
MESSAGES = [{"role": "user", "content": "Hello."}]
INPUT = "".join(
    json.dumps(
        {
            "custom_id": f"r{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "m", "messages": MESSAGES},
        }
    )
    + "\n"
    for number in range(10)
).encode()
COMPLETION = {
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


class Server(ThreadingHTTPServer):
    """Canned AWS: one account, file and route, a batch ``batch_<status>`` in each status, and a small S3.

    It is also the upstream and the webhook receiver.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.route = Route(model="m", provider="stub", base_url=f"{self.url}/v1", upstream_model="m", sku=Sku("s"))
        self.planned: dict[str, Any] = {}
        self.furniture: dict[str, bytes] = {}
        self.written: dict[str, bytes] = {}

    def furnish(self) -> None:
        """Let the package write the objects that it expects in the bucket."""
        aws.client("s3").put_object(Bucket=BUCKET, Key=files.key(ACCOUNT, FILE), Body=INPUT)
        inspected = inspection.Inspected("m", self.route, [layout.Segment(0, len(INPUT), 0, INPUT.count(b"\n"))])
        for status in ("in_progress", "finalizing"):
            self.planned = plan_attributes(planning.write_plan(ACCOUNT, f"batch_{status}", inspected))
        self.furniture = self.written

    def batch(self, batch_id: str) -> dict[str, Any]:
        status = batch_id.removeprefix("batch_")
        planned = self.planned if status in ("in_progress", "finalizing", "completed") else {}
        now = int(time.time())
        return {
            "pk": ACCOUNT,
            "sk": batch_id,
            "status": status if planned else "validating",
            "input_file_id": FILE,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "created_at": now,
            "completed_at": now,
            "expires_at": now + 86_400,
            "files_written_at": now,
            "callback_url": None,
            "retry_of": None,
            **planned,
        }

    def item(self, table: str, key: dict[str, Any]) -> dict[str, Any]:
        if table == "batches":
            return self.batch(key["sk"])
        if table == "files":
            described = {"filename": "input.jsonl", "purpose": "batch", "status": "processed", "bytes": len(INPUT)}
            return {"pk": ACCOUNT, "sk": FILE, "created_at": int(time.time()), **described}
        if table == "routes":
            return {**key, "route": msgspec.json.encode(self.route).decode()}
        named = {"name": "bench", "created_at": int(time.time())}
        return {**key, **named, "account_id": ACCOUNT, "url": f"{self.url}/v1/webhook", "secret": "whsec_" + 40 * "A"}

    def dynamodb(self, action: str, asked: dict[str, Any]) -> dict[str, Any]:
        if action in ("GetItem", "UpdateItem"):
            key = decode(asked["Key"])
            of_a_batch = asked["TableName"] == "batches" and key["pk"] != ACCOUNT
            if key.get("sk") == DELETED_FILE or (of_a_batch and action == "GetItem"):
                return {}
            found = encode(self.item(asked["TableName"], key))
            names, values = (asked.get(f"ExpressionAttribute{kind}", {}) for kind in ("Names", "Values"))
            changed = {field: values[f":{name[1:]}"] for name, field in names.items() if f":{name[1:]}" in values}
            return {"Item": found, "Attributes": found | changed}
        if action in ("Query", "Scan"):
            return {"Items": [encode(self.item("routes", {}))] if asked["TableName"] == "routes" else []}
        return {}


class Answers(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        asked = self._body()
        service, _, action = self.headers.get("x-amz-target", "").partition(".")
        if service.startswith("DynamoDB"):
            self._json(self.server.dynamodb(action, json.loads(asked)))
        elif service == "AWSEvents":
            self._json({"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]})
        elif service:
            self._json({"executionArn": "arn", "startDate": 0})
        else:
            self._json(COMPLETION)

    def do_GET(self) -> None:
        if "?" in self.path:
            self._answer(200, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
            return
        found = (self.server.furniture | self.server.written).get(self.path)
        if found is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        first, _, last = self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = found[int(first) : int(last) + 1 if last else None]
        self._answer(
            206 if last else 200, part, {"Content-Range": f"bytes {first}-{last}/{len(found)}"} if last else {}
        )

    def do_HEAD(self) -> None:
        self._answer(404, b"")

    def do_PUT(self) -> None:
        self.server.written[self.path] = self._body()
        self._answer(200, b"", {"ETag": '"0"'})

    def do_DELETE(self) -> None:
        self._answer(204, b"")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _json(self, answer: Any) -> None:
        self._answer(200, json.dumps(answer).encode())

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def environment(url: str) -> dict[str, str]:
    """The environment that Lambda and the template give the functions, as far as it matters here."""
    return {
        **ROOT_CREDENTIALS,
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_LAMBDA_FUNCTION_NAME": "bench",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        # Without these, Powertools' Tracer does nothing, because it does not detect Lambda.
        "LAMBDA_TASK_ROOT": "/var/task",
        "_X_AMZN_TRACE_ID": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
        "BUCKET": BUCKET,
        "S3_ADDRESSING_STYLE": "path",
        "ACCOUNTS_TABLE": "accounts",
        "BATCHES_TABLE": "batches",
        "FILES_TABLE": "files",
        "ROUTES_TABLE": "routes",
        "ROUTE_STATE_TABLE": "route_state",
        "STATE_MACHINE": "arn:aws:states:us-east-1:000000000000:stateMachine:bench",
        "SYNC_VALIDATION_SECONDS": "20",
        "EVENT_BUS": "bench",
        "WEBHOOK_DELAYS": "1",
        "ALLOW_LOCAL_WEBHOOKS": "1",
    }


@contextmanager
def canned() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        os.environ |= environment(server.url)
        aws._client.cache_clear()
        server.furnish()
        yield server
    finally:
        server.shutdown()
        server.server_close()


def call(method: str, path: str, resource: str, body: Any = None) -> dict[str, Any]:
    """An event of API Gateway."""
    return {
        "httpMethod": method,
        "path": path,
        "resource": resource,
        "headers": {"Authorization": f"Bearer sk-ns-{'b' * 43}", "Content-Type": "application/json"},
        "multiValueHeaders": {},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "requestContext": {"requestId": "r", "stage": "v1", "path": f"/v1{path}", "httpMethod": method},
        "body": None if body is None else json.dumps(body),
        "isBase64Encoded": False,
    }


def first_events(server: Server) -> dict[str, Any]:
    """An event for each function, as AWS sends it, that makes the function do its work."""
    wanted = {"input_file_id": FILE, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    ended = server.batch("batch_completed")
    retrieve = call("GET", "/batches/batch_in_progress", "/batches/{batch_id}")
    plan_key = f"/{BUCKET}/work/batch_in_progress/plan.json"

    def batch(status: str) -> dict[str, Any]:
        return {"account_id": ACCOUNT, "batch_id": f"batch_{status}"}

    def removed(key: dict[str, Any]) -> dict[str, Any]:
        return {"eventName": "REMOVE", "dynamodb": {"Keys": encode(key), "SequenceNumber": "1"}}

    first = {"execution": 0, "wait_seconds": 0, "failures": 0, "events": 0}
    return {
        **dict.fromkeys(WRITTEN_HERE, retrieve),
        "api": retrieve,
        "create_batch": call("POST", "/batches", "/batches", wanted),
        "validate_batch": batch("validating") | first,
        "run_chunk": {"task": json.loads(server.furniture[plan_key])[0], "retries": 0},
        "finalize_batch": batch("finalizing") | first | {"only_chunk": {"state": "done"}, "chunks": []},
        "close_abandoned": {
            "detail": {
                "name": "batch_finalizing",
                "input": json.dumps(batch("finalizing") | first),
                "status": "ABORTED",
            }
        },
        "sweep": {},
        "publish_events": {
            "Records": [{"dynamodb": {"NewImage": encode(ended), "SequenceNumber": "1"}, "eventName": "INSERT"}]
        },
        "deliver_webhook": {
            "Records": [
                {
                    "messageId": "1",
                    "receiptHandle": "1",
                    "body": msgspec.json.encode({"detail": events.status_event(batch_of(ended))}).decode(),
                }
            ]
        },
        "purge_file": {"Records": [removed({"pk": ACCOUNT, "sk": DELETED_FILE})]},
    }


def built(folder: Path) -> None:
    """Build the layers, the runtime's packages and the peer's into ``folder``, with and without bytecode."""
    uv = shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
    python = sys.executable
    settings = {"UV": uv, "RUNTIME": python, "LAYER_TARGET": f"--python {python}"}
    for layer, target in (("dependencies", "DependenciesLayer"), ("nightshift", "NightshiftLayer")):
        (folder / layer).mkdir()
        _run(
            ["make", f"build-{target}", f"ARTIFACTS_DIR={folder / layer}"],
            ROOT / "layers" / layer,
            os.environ | settings,
        )
    runtime = folder / "runtime" / "python"
    runtime.mkdir(parents=True)
    for path in emulator_python().parent.parent.glob("lib/python*/site-packages/*"):
        if path.name in RUNTIME_PACKAGES:
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, runtime / path.name)
    peer = folder / "peer" / "python"
    locked = [f"{name}=={version}" for name, version in report.versions(*PEER_PACKAGES).items()]
    _run([uv, "pip", "install", "--quiet", "--no-deps", "--python", python, "--target", str(peer), *locked, *PEER_ONLY])
    for packages in (runtime, peer):
        _run(["sh", str(ROOT / "layers" / "compile.sh"), str(packages)], variables=os.environ | settings)
    for name in ("dependencies", "nightshift", "peer"):
        shutil.copytree(folder / name, folder / f"{name}-source", ignore=shutil.ignore_patterns("__pycache__"))
    for name in TARGETS:
        (folder / name).mkdir()
        shutil.copy(ROOT / "functions" / name / "app.py", folder / name)
    for name, source in WRITTEN_HERE.items():
        (folder / name).mkdir()
        (folder / name / "app.py").write_text(source)


def _run(command: list[str], folder: Path = ROOT, variables: dict[str, str] | None = None) -> None:
    subprocess.run(command, cwd=folder, env=variables, check=True)


def cold_start(folder: Path, server: Server, name: str, event: Any, *, bytecode: bool = True) -> tuple[float, float]:
    """The milliseconds of the import and of the first request."""
    layers = ("peer",) if name == USUAL else ("nightshift", "dependencies")
    paths = [str(folder / name)]
    paths += [str(folder / (layer if bytecode else f"{layer}-source") / "python") for layer in layers]
    paths += [str(folder / "runtime" / "python")]
    server.written = {}
    done = subprocess.run(
        # Isolated, without site-packages, and without writing bytecode, because /opt and /var/task are read-only on
        # Lambda.
        [sys.executable, "-I", "-S", "-B", "-c", RUN, json.dumps([paths, event])],
        env=environment(server.url),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stdout}{done.stderr}")
    importing, asking, answer = json.loads(done.stdout.splitlines()[-1])
    assert did_its_work(answer), f"{name} answered {answer}\n{done.stdout}{done.stderr}"
    return 1000 * importing, 1000 * asking


def did_its_work(answer: dict[str, Any]) -> bool:
    well = {"statusCode": 200, "state": "done", "batchItemFailures": [], "status": "completed", "failed": 0}
    return any(answer.get(key) == value for key, value in well.items()) or answer.get("status") == "in_progress"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three runs instead of five")
    times = 3 if parser.parse_args().quick else 5
    imports: dict[str, list[float]] = {name: [] for name in (*WRITTEN_HERE, *TARGETS)}
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-") as temporary, canned() as server:
        folder = Path(temporary)
        built(folder)
        asked = first_events(server)

        def start(name: str) -> float:
            importing, asking = cold_start(folder, server, name, asked[name])
            imports[name].append(importing)
            return importing + asking

        def uncompiled(name: str) -> float:
            return sum(cold_start(folder, server, name, asked[name], bytecode=False))

        figures = report.repeat({name: partial(start, name) for name in imports}, times)
        sources = report.repeat({name: partial(uncompiled, name) for name in UNCOMPILED})
    usual = figures[USUAL]
    rows = [report.row(name, each, "ms", usual) for name, each in figures.items()]
    rows += [report.row(f"{name}: of it the import", each, "ms", figures[name]) for name, each in imports.items()]
    rows += [report.row(f"{name} without bytecode", each, "ms", figures[name]) for name, each in sources.items()]
    targets = [
        report.target(f"{name}: of the usual handler", median(figures[name]) / median(usual), wanted, at_least=False)
        for name, wanted in TARGETS.items()
    ]
    targets += [
        report.target(
            f"{name}: of its start on 2026-11-25", median(figures[name]) / median(usual) / then, wanted, at_least=False
        )
        for name, (then, wanted) in BEFORE.items()
    ]
    report.publish(
        "cold_start",
        rows,
        targets,
        report.versions(*PEER_PACKAGES, "aiohttp", "boto3", "msgspec") | dict(each.split("==") for each in PEER_ONLY),
    )


if __name__ == "__main__":
    main()
