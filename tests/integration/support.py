"""Helpers of the integration tests: the template's tables, sample events, callers, and a server on loopback."""

import importlib
import json
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import yaml
from aws_lambda_powertools.utilities.typing import LambdaContext
from msgspec.structs import replace
from nightshift.accounts import store as accounts
from nightshift.batches import store as batches
from nightshift.batches.record import Batch, Planned
from nightshift.batches.status import Status
from nightshift.core import aws, settings
from nightshift.core.table import Table
from nightshift.files import store as files
from nightshift.files.create import NewFile, create_file
from nightshift.input import plan
from nightshift.routes import store as routes
from nightshift.routes.route import Route, Sku

ROOT = Path(__file__).parents[2]
MODEL = "demo-model"
REGION = "eu-central-1"


# --- the template -----------------------------------------------------------------------------------------------


class KilledError(BaseException):
    """The process was killed. Not an ``Exception``, so that no code of the process can catch it."""


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short functions, each read as its plain argument."""


def _argument(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.ScalarNode)
    return loader.construct_scalar(node)


_Loader.add_multi_constructor("!", _argument)
TEMPLATE: dict[str, Any] = yaml.load((ROOT / "template.yaml").read_text(), _Loader)  # noqa: S506 (it is a SafeLoader)


def template_tables() -> dict[str, dict[str, Any]]:
    """The arguments of CreateTable for each table of the template, by logical id."""
    kept = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
    tables = {}
    for name, resource in TEMPLATE["Resources"].items():
        if resource["Type"] == "AWS::DynamoDB::Table":
            properties = resource["Properties"]
            tables[name] = {key: properties[key] for key in kept if key in properties}
            if stream := properties.get("StreamSpecification"):
                tables[name]["StreamSpecification"] = {"StreamEnabled": True, **stream}
    return tables


# --- calls ------------------------------------------------------------------------------------------------------


def sample(function: str) -> dict[str, Any]:
    """The sample payload of a function, from ``events/``."""
    event: dict[str, Any] = json.loads((ROOT / "events" / f"{function}.json").read_text())
    return event


class Context(LambdaContext):
    """A Lambda context with so many seconds left."""

    def __init__(self, seconds: float = 900) -> None:
        self._function_name = "function"
        self._memory_limit_in_mb = 512
        self._invoked_function_arn = f"arn:aws:lambda:{REGION}:123456789012:function:function"
        self._aws_request_id = "5f0c7a52-3a1d-4d0e-9f57-8f2b8a3c1d10"
        self._seconds = seconds

    def get_remaining_time_in_millis(self) -> int:  # type: ignore[override]  # a static method in the base class
        return int(self._seconds * 1000)


def invoke(function: str, event: dict[str, Any], seconds: float = 900) -> dict[str, Any]:
    """What the function ``functions/<function>`` answers; like Lambda, only JSON goes in and comes out."""
    handler = importlib.import_module(f"functions.{function}.app").handler
    answer: dict[str, Any] = json.loads(json.dumps(handler(json.loads(json.dumps(event)), Context(seconds))))
    return answer


def run_chunk(task: dict[str, Any], seconds: float = 900, retries: int = 0) -> dict[str, Any]:
    """One visit of RunChunk at the chunk of ``task``."""
    return invoke("run_chunk", {"task": task, "retries": retries}, seconds)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.body)
        return content

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        return error


def http_event(
    method: str,
    path: str,
    *,
    body: str | None = None,
    base64: bool = False,
    headers: dict[str, str] | None = None,
    query: dict[str, str] | None = None,
) -> dict[str, Any]:
    """An API Gateway REST proxy event, made from ``events/api.json``."""
    event = sample("api")
    given = {name: value for name, value in event["headers"].items() if name != "Authorization"} | (headers or {})
    changes: dict[str, Any] = {
        "httpMethod": method,
        "path": path,
        "headers": given,
        "multiValueHeaders": {name: [text] for name, text in given.items()},
        "queryStringParameters": query,
        "multiValueQueryStringParameters": query and {name: [text] for name, text in query.items()},
        "body": body,
        "isBase64Encoded": base64,
    }
    event |= changes
    event["requestContext"] |= {"httpMethod": method, "path": f"/v1{path}"}
    return event


def gateway(event: dict[str, Any]) -> Reply:
    """Route an event as the template does, and check what docs/contract.md promises of every response."""
    makes_batch = event["httpMethod"] == "POST" and re.fullmatch(r"/batches(/[^/]+/retry)?", event["path"])
    function = "create_batch" if makes_batch else "api"
    answer = invoke(function, event)
    headers = {name.lower(): values[0] for name, values in answer["multiValueHeaders"].items()}
    reply = Reply(answer["statusCode"], headers, answer["body"])
    assert reply.headers["x-request-id"].startswith("req_")
    if reply.status >= 400 and reply.status != 416:
        assert headers["content-type"] == "application/json"
        assert {"message", "type", "param", "code"} <= reply.error.keys()
        assert "Traceback" not in reply.body
        assert "arn:aws" not in reply.body
    return reply


class Caller:
    """A client with a key: ``caller("GET", "/models")``."""

    def __init__(self, account_id: str, api_key: str) -> None:
        self.account_id = account_id
        self.api_key = api_key

    def __call__(self, method: str, path: str, *, json_body: Any = None, **event: Any) -> Reply:
        event["headers"] = {"Authorization": f"Bearer {self.api_key}", **(event.get("headers") or {})}
        if json_body is not None:
            event["body"] = json.dumps(json_body)
            event["headers"].setdefault("Content-Type", "application/json")
        return gateway(http_event(method, path, **event))

    def upload(self, content: bytes | list[str]) -> str:
        """The id of a new input file."""
        whole = content if isinstance(content, bytes) else "".join(line + "\n" for line in content).encode()
        return create_file(self.account_id, NewFile(filename="in.jsonl", purpose="batch"), whole).id

    def create(self, lines: list[str] | bytes, **body: Any) -> str:
        """The id of a new batch of these lines."""
        reply = self("POST", "/batches", json_body={"input_file_id": self.upload(lines), **body})
        assert reply.status == 200, reply.body
        return str(reply.json["id"])

    def begin(self, lines: list[str] | bytes, **body: Any) -> str:
        """The id of a new batch that is in progress."""
        batch_id = self.create(lines, **body)
        assert invoke("validate_batch", self.start(batch_id))["status"] == "in_progress"
        return batch_id

    def task(self, batch_id: str) -> dict[str, Any]:
        return {"account_id": self.account_id, "batch_id": batch_id}

    def batch(self, batch_id: str) -> dict[str, Any]:
        return self("GET", f"/batches/{batch_id}").json

    def start(self, batch_id: str) -> dict[str, Any]:
        """The input of the batch's first execution."""
        return self.task(batch_id) | {"execution": 0, "wait_seconds": 0, "failures": 0, "events": 0}

    def round(self, batch_id: str, *chunks: str, **changes: Any) -> dict[str, Any]:
        """What FinalizeBatch is told after a round in which the chunks ended so."""
        wait_seconds = changes.pop("wait_seconds", 0)
        ends = [{"state": state, "wait_seconds": wait_seconds} for state in chunks]
        only = {"state": None, "wait_seconds": 0, "events": 0}
        return self.task(batch_id) | {"execution": 0, "failures": 0, "only_chunk": only, "chunks": ends} | changes

    def run_chunks(self, batch_id: str, seconds: float = 900) -> list[dict[str, Any]]:
        """One invocation of ``run_chunk`` for each chunk of the plan, as the Distributed Map makes them."""
        tasks = msgspec.to_builtins(plan.read(batch_id))
        return [run_chunk(task, seconds) for task in tasks]

    def finalize(self, batch_id: str) -> dict[str, Any]:
        """Finalize, then the batch as the API shows it."""
        chunks = batches.get(self.account_id, batch_id).plan
        invoke("finalize_batch", self.round(batch_id, *["done"] * (chunks.chunks if chunks else 0)))
        return self.batch(batch_id)

    def lines(self, file_id: str) -> list[dict[str, Any]]:
        """The lines of an output file."""
        assert files.get(self.account_id, file_id)
        content = aws.client("s3").get_object(Bucket=settings.bucket(), Key=files.key(self.account_id, file_id))
        return [json.loads(line) for line in content["Body"].read().decode().splitlines()]


def new_caller(name: str) -> Caller:
    account_id = accounts.create_account(name)
    return Caller(account_id, accounts.create_key(account_id)[0])


def request_line(custom_id: str, text: str = "Hello.", model: str = MODEL, **body: Any) -> str:
    request = {"model": model, "messages": [{"role": "user", "content": text}], **body}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": request})


def input_lines(count: int) -> list[str]:
    return [request_line(f"r{number}", f"Text {number}.") for number in range(count)]


def route(base_url: str = "http://127.0.0.1:9", **fields: Any) -> Route:
    sku = fields.pop("sku", None) or Sku("demo-sku", active=fields.pop("active", True))
    named: dict[str, Any] = {
        "model": MODEL,
        "provider": "demo",
        "upstream_model": "upstream-model",
        "sku": sku,
        **fields,
    }
    return Route(base_url=base_url, **named)


def apply_route(base_url: str = "http://127.0.0.1:9", **fields: Any) -> None:
    routes.apply([route(base_url, **fields)])


def set_batch(caller: Caller, batch_id: str, **fields: Any) -> None:
    """Change a batch's item directly in the table, for example its times."""
    Table("batches").update(caller.account_id, batch_id, set=fields)


def put_batch(caller: Caller, batch_id: str, *, lines: int | None = None, **fields: Any) -> Batch:
    """A batch without an execution; with ``lines`` it is validated, though it has no plan in the bucket."""
    given: dict[str, Any] = {
        "account_id": caller.account_id,
        "id": batch_id,
        "status": "validating",
        "input_file_id": "file_0",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "created_at": 1_000,
        "expires_at": 2_000_000_000,
        "plan": None if lines is None else Planned(MODEL, lines, 1, route()),
    }
    batches.put(Batch(**given | fields))
    return batches.get(caller.account_id, batch_id)


def move(caller: Caller, batch_id: str, target: Status, *, source: Status | None = None) -> Batch | None:
    """Move a batch from the status that it has, or is taken to have, to ``target``."""
    batch = batches.get(caller.account_id, batch_id)
    return batches.transition(replace(batch, status=source or batch.status), target)


def object_keys(prefix: str = "") -> list[str]:
    """The keys of the bucket."""
    listed = aws.client("s3").list_objects_v2(Bucket=settings.bucket(), Prefix=prefix)
    return [found["Key"] for found in listed.get("Contents", [])]


def table_size(name: str) -> int:
    return aws.client("dynamodb").scan(TableName=settings.table(name), Select="COUNT")["Count"]


# --- a server on loopback -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.body)
        return content


Behave = Callable[["Exchange"], None]


@dataclass
class Exchange:
    """One call to the server, with the methods to answer it."""

    received: Received
    handler: BaseHTTPRequestHandler

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer; underscores in the names of headers stand for hyphens."""
        handler = self.handler
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    def complete(self, **extra: Any) -> None:
        """Answer as a chat model would."""
        request = self.received.json
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        message = {"role": "assistant", "content": request["messages"][-1]["content"]}
        completion = {"model": request["model"], "choices": [{"message": message}], "usage": usage, **extra}
        self.reply(200, json.dumps(completion).encode())

    def raw(self, content: bytes) -> None:
        """Send just these bytes and hang up."""
        self.handler.wfile.write(content)
        self.handler.wfile.flush()
        self.handler.close_connection = True

    def reset(self) -> None:
        """Break the connection with a TCP reset."""
        self.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.handler.connection.close()
        self.handler.close_connection = True


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing, because some tests break connections on purpose."""


@dataclass
class Server:
    """An HTTP server on loopback that records its requests; ``behave`` answers each of them."""

    url: str
    received: list[Received] = field(default_factory=list)
    behave: Behave = Exchange.complete
    closing: threading.Event = field(default_factory=threading.Event)

    def hang(self, _: Exchange) -> None:
        self.closing.wait(30)


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received = Received(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            server.received.append(received)
            server.behave(Exchange(received, self))

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
            """Print nothing."""

    with _Quiet(("127.0.0.1", 0), Handler) as http:
        server = Server(f"{'https' if tls else 'http'}://127.0.0.1:{http.server_address[1]}")
        if tls:  # A handshake in the thread of its connection holds up no other.
            http.socket = tls.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            http.shutdown()
            thread.join()
