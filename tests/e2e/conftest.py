"""One local stack for all end-to-end tests: the real template on the emulator, with IAM enforced."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Set
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest
from openai import OpenAI
from openai.types import Batch

from local.deployment import admin_environment
from local.processes import free_port, workers
from local.settings import ROOT, ROOT_CREDENTIALS, SECRET

T = TypeVar("T")
MODEL = "demo-model"
ENDED = ("completed", "failed", "expired", "cancelled")


def wait_for(what: Callable[[], T | None], seconds: float = 60) -> T:
    """The first true value that ``what`` returns."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if value := what():
            return value
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s")


def request_line(custom_id: str, text: str = "Hello.", model: str = MODEL, **body: Any) -> str:
    messages = [{"role": "user", "content": text}]
    request = {"model": model, "messages": messages, **body}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": request})


# Each prompt of these tests ends so, and no log or table may hold it.
PROMPT_END = "And more."


def batch_file(count: int, model: str = MODEL) -> bytes:
    lines = (request_line(f"request-{number}", f"Sentence {number}. {PROMPT_END}", model) for number in range(count))
    return "\n".join(lines).encode()


class Upstream:
    """The simulator's control."""

    def __init__(self, url: str) -> None:
        self._url = url

    def set(self, **settings: Any) -> None:
        self._call("PUT", settings)

    def counters(self) -> dict[str, Any]:
        return self._call("GET")

    def reset(self) -> None:
        self._call("DELETE")

    def _call(self, method: str, body: Any = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
        return answer


class Local:
    """The running stack, as tests use it."""

    def __init__(self, folder: Path, description: dict[str, Any]) -> None:
        self.folder = folder
        self.description = description
        self._opened: list[OpenAI] = []
        self._keys: list[str] = []
        self.client = self.openai(description["api_key"], max_retries=2)
        self.other = self.openai(description["other_api_key"], max_retries=2)
        self.upstream = Upstream(description["upstream_control_url"])

    def openai(self, api_key: str, max_retries: int = 0) -> OpenAI:
        """A client of the stack, whose connections ``close`` closes."""
        client = OpenAI(base_url=self.description["base_url"], api_key=api_key, max_retries=max_retries)
        self._opened.append(client)
        self._keys.append(api_key)
        return client

    def stored(self) -> str:
        """All items of the stack's tables, and all keys of its bucket, as text."""
        stacks = self.aws("cloudformation").describe_stacks(StackName=self.description["stack_name"])["Stacks"]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in stacks[0]["Outputs"]}
        found: list[object] = []
        for name in (value for key, value in outputs.items() if key.endswith("Table")):
            found += [page["Items"] for page in self.aws("dynamodb").get_paginator("scan").paginate(TableName=name)]
        for page in self.aws("s3").get_paginator("list_objects_v2").paginate(Bucket=outputs["BucketName"]):
            found += [each["Key"] for each in page.get("Contents", [])]
        return str(found)

    def told(self) -> str:
        """Every line that a function has logged, its metrics among them."""
        logs = self.aws("logs")
        pages = logs.get_paginator("filter_log_events")
        return "\n".join(
            event["message"]
            for group in logs.describe_log_groups()["logGroups"]
            for page in pages.paginate(logGroupName=group["logGroupName"])
            for event in page["events"]
        )

    def assert_secrets_were_kept(self) -> None:
        """No prompt, no API key and no provider's key is in a log, a metric, an error or a table."""
        secret = self.aws("secretsmanager").get_secret_value(SecretId=SECRET)["SecretString"]
        kept = {"a prompt": PROMPT_END, "the provider's key": secret}
        kept |= {f"the API key {key[:12]}…": key for key in self._keys if key.startswith("sk-ns-") and len(key) > 40}
        told, stored = self.told(), self.stored()
        assert "call answered" in told
        assert not [name for name, text in kept.items() if text in told]
        assert not [name for name, text in kept.items() if text in stored]

    def close(self) -> None:
        for client in self._opened:
            client.close()

    def aws(self, service: str) -> Any:
        """A boto3 client with the operator's permissions."""
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.description["aws_endpoint_url"],
            region_name=self.description["region"],
            aws_access_key_id=ROOT_CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=ROOT_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )

    def admin(self, *arguments: str, check: bool = True, seconds: float = 60) -> "subprocess.CompletedProcess[str]":
        """`nightshift admin` with these arguments, on this stack."""
        return subprocess.run(
            [str(Path(sys.executable).with_name("nightshift")), "admin", *arguments, "--local"],
            env=os.environ | {"NIGHTSHIFT_LOCAL_DIR": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=check,
        )

    def bucket(self) -> str:
        stacks = self.aws("cloudformation").describe_stacks(StackName=self.description["stack_name"])["Stacks"]
        return next(str(each["OutputValue"]) for each in stacks[0]["Outputs"] if each["OutputKey"] == "BucketName")

    def create(self, content: bytes, **extra: Any) -> Batch:
        """Upload ``content`` and create a batch of it, with ``extra`` fields in the body."""
        file = self.client.files.create(file=("input.jsonl", content), purpose="batch")
        return self.client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", extra_body=extra
        )

    def ended(self, batch: Batch, seconds: float = 120) -> Batch:
        def look() -> Batch | None:
            found = self.client.batches.retrieve(batch.id)
            return found if found.status in ENDED else None

        return wait_for(look, seconds)

    def lines(self, file_id: str | None) -> list[dict[str, Any]]:
        """The parsed lines of an output file; empty if there is none."""
        if file_id is None:
            return []
        return [json.loads(line) for line in self.client.files.content(file_id).text.splitlines()]

    @contextlib.contextmanager
    def environment(self, function: str, **variables: str) -> Iterator[None]:
        """Set environment variables of a function, as a stack parameter would, and restore them."""
        functions = self.aws("lambda")
        names = [found["FunctionName"] for found in functions.list_functions()["Functions"]]
        (name,) = [each for each in names if each.startswith(f"{self.description['stack_name']}-{function}-")]
        aliases = functions.list_aliases(FunctionName=name)["Aliases"]
        before = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        functions.update_function_configuration(FunctionName=name, Environment={"Variables": before | variables})
        if aliases:
            changed = functions.publish_version(FunctionName=name)["Version"]
        for alias in aliases:
            functions.update_alias(FunctionName=name, Name=alias["Name"], FunctionVersion=changed)
        try:
            yield
        finally:
            functions.update_function_configuration(FunctionName=name, Environment={"Variables": before})
            for alias in aliases:
                version = alias["FunctionVersion"]
                functions.update_alias(FunctionName=name, Name=alias["Name"], FunctionVersion=version)


@pytest.fixture(scope="session")
def local_stack() -> Iterator[Local]:
    folder = Path(os.environ.get("NIGHTSHIFT_E2E_DIR") or ROOT / ".local" / "e2e").resolve()
    ours = ("NIGHTSHIFT_", "UPSTREAM_", "AWS_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {
        "NIGHTSHIFT_LOCAL_DIR": str(folder),
        "NIGHTSHIFT_PORT": str(free_port()),
        "NIGHTSHIFT_ALLOW_LOCAL_WEBHOOKS": "1",
        "NIGHTSHIFT_WEBHOOK_DELAYS": "1,1,1,1,1,1,1,1",
    }

    def stack(command: str) -> None:
        subprocess.run([sys.executable, "-m", "local.stack", command], cwd=ROOT, env=environment, check=True)

    stack("up")
    try:
        made = Local(folder, json.loads((folder / "stack.json").read_text()))
        yield made
        made.assert_secrets_were_kept()
        made.close()
    finally:
        stack("down")


@pytest.fixture
def local(local_stack: Local) -> Iterator[Local]:
    """The stack, with an upstream that answers at once."""
    local_stack.upstream.reset()
    yield local_stack
    local_stack.upstream.reset()


def assert_every_line_once(local: Local, batch_id: str, count: int, codes: Set[str] = frozenset()) -> None:
    """Each custom_id is in exactly one file, both files are in input order, the counts match the files, and lines
    without a response have an error code of ``codes``."""
    batch = local.client.batches.retrieve(batch_id)
    answered, failed = local.lines(batch.output_file_id), local.lines(batch.error_file_id)
    numbers = [[int(line["custom_id"].removeprefix("request-")) for line in lines] for lines in (answered, failed)]
    assert all(each == sorted(each) for each in numbers)
    assert sorted(numbers[0] + numbers[1]) == list(range(count))
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": count, "completed": len(answered), "failed": len(failed)}
    assert {line["error"]["code"] for line in failed if line["response"] is None} <= codes


Answer = int | Callable[[BaseHTTPRequestHandler], None]


class Receiver:
    """A webhook receiver on loopback. It answers with ``answers``, statuses or functions, in turn, then with 200."""

    def __init__(self, answers: list[Answer], port: int = 0) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
                answer = answers.pop(0) if answers else 200
                if not isinstance(answer, int):
                    with contextlib.suppress(OSError):  # the caller has disconnected
                        answer(self)
                    return
                self.send_response(answer)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    """Start receivers that stop with the test."""
    receivers: list[Receiver] = []

    def start(answers: list[Answer] | None = None, port: int = 0) -> Receiver:
        receivers.append(Receiver(answers or [], port))
        return receivers[-1]

    yield start
    for receiver in receivers:
        receiver.close()


@pytest.fixture
def operator(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test call the package's stores as an operator does."""
    from nightshift.core import aws

    description = local.description
    stacks = local.aws("cloudformation").describe_stacks(StackName=description["stack_name"])["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stacks[0]["Outputs"]}
    for name, value in admin_environment(description["aws_endpoint_url"], outputs).items():
        monkeypatch.setenv(name, value)
    aws._client.cache_clear()


class Account:
    """A new account for one test, so that its lists and quotas hold nothing else."""

    def __init__(self, local: Local) -> None:
        from nightshift.accounts import store as accounts

        self.id = accounts.create_account("of a test")
        self.key = accounts.create_key(self.id)[0]
        self.client = local.openai(self.key)

    def upload(self, content: bytes | None = None, **extra: Any) -> str:
        """The id of a new input file; by default with one valid line."""
        file = ("input.jsonl", batch_file(1) if content is None else content)
        return self.client.files.create(file=file, purpose="batch", **extra).id

    def create(self, file_id: str | None = None, **extra: Any) -> Batch:
        return self.client.batches.create(
            input_file_id=file_id or self.upload(),
            endpoint="/v1/chat/completions",
            completion_window="24h",
            extra_body=extra,
        )

    def ended(self, batch: Batch, seconds: float = 60) -> Batch:
        def look() -> Batch | None:
            found = self.client.batches.retrieve(batch.id)
            return found if found.status in ENDED else None

        return wait_for(look, seconds)


@pytest.fixture
def account(local: Local, operator: None) -> Account:
    return Account(local)


class Killer(threading.Thread):
    """Kills every worker of ``function`` with SIGKILL at intervals, at most ``times`` times, until it is stopped."""

    def __init__(self, folder: Path, function: str, every: tuple[float, float], times: int = sys.maxsize) -> None:
        super().__init__(daemon=True)
        self.kills = 0
        self._folder, self._function = folder, function
        self._every = every
        self._times = times
        self._over = threading.Event()

    def run(self) -> None:
        while self.kills < self._times and not self._over.wait(random.uniform(*self._every)):
            for pid in [pid for pid, function in workers(self._folder) if function == self._function]:
                with contextlib.suppress(ProcessLookupError):  # the process has ended
                    os.kill(pid, signal.SIGKILL)
                    self.kills += 1

    def stop(self) -> None:
        self._over.set()
        self.join()


@pytest.fixture
def killing(local: Local) -> Iterator[Callable[..., Killer]]:
    """Start killers that stop with the test."""
    killers: list[Killer] = []

    def start(function: str, every: tuple[float, float], times: int = sys.maxsize) -> Killer:
        killers.append(Killer(local.folder, function, every, times))
        killers[-1].start()
        return killers[-1]

    yield start
    for killer in killers:
        killer.stop()
