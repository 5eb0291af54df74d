"""One local stack for all end-to-end tests: the real template on the emulator, with IAM enforced."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Set
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import boto3
import httpx
import pytest
from nightshift.core import aws
from nightshift_cli.main import app
from openai import DefaultHttpxClient, OpenAI
from openai.types import Batch
from typer.testing import CliRunner

from local.deployment import admin_environment
from local.processes import free_port
from local.settings import ROOT, ROOT_CREDENTIALS, SECRET
from tests.e2e.killer import Killer as Killer
from tests.e2e.receivers import Answer as Answer
from tests.e2e.receivers import Receiver as Receiver
from tests.e2e.simulator import Upstream
from tests.e2e.surfaces import PROMPT_END, Bus, Heard, Secrets, items, object_keys, surfaces

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


def request_line(custom_id: str, text: str = f"Hello. {PROMPT_END}", model: str = MODEL, **body: Any) -> str:
    messages = [{"role": "user", "content": text}]
    request = {"model": model, "messages": messages, **body}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": request})


def batch_file(count: int, model: str = MODEL) -> bytes:
    lines = (request_line(f"request-{number}", f"Sentence {number}. {PROMPT_END}", model) for number in range(count))
    return "\n".join(lines).encode()


def _forget_clients() -> None:
    """The next clients of AWS follow the environment."""
    aws._client.cache_clear()
    boto3.DEFAULT_SESSION = None


class Local:
    """The running stack, as tests use it."""

    def __init__(self, folder: Path, description: dict[str, Any]) -> None:
        self.folder = folder
        self.description = description
        self.secrets = Secrets()
        self.heard = Heard(self.secrets)
        self._opened: list[OpenAI] = []
        self.client = self.openai(description["api_key"], max_retries=2)
        self.other = self.openai(description["other_api_key"], max_retries=2)
        self.upstream = Upstream(description["upstream_control_url"])

    def openai(self, api_key: str, max_retries: int = 0) -> OpenAI:
        """A client of the stack, whose connections ``close`` closes."""
        client = OpenAI(
            base_url=self.description["base_url"],
            api_key=api_key,
            max_retries=max_retries,
            http_client=DefaultHttpxClient(event_hooks={"response": [self.heard.answer]}),
        )
        self._opened.append(client)
        self.secrets.add_key(api_key)
        return client

    def http(self, **options: Any) -> httpx.Client:
        """A client of the stack's API without an SDK."""
        return httpx.Client(
            base_url=self.description["base_url"], event_hooks={"response": [self.heard.answer]}, **options
        )

    @cached_property
    def outputs(self) -> dict[str, str]:
        """The outputs of the stack."""
        stacks = self.aws("cloudformation").describe_stacks(StackName=self.description["stack_name"])["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in stacks[0]["Outputs"]}

    def stored(self) -> str:
        """All items of the stack's tables, and all keys of its bucket, as text."""
        return "\n".join([*items(self.aws, self.outputs), *object_keys(self.aws, self.outputs["BucketName"])])

    def assert_secrets_were_kept(self, bus: Bus, since: float) -> None:
        """No prompt, no key and no other secret is in a log, an event, an error, a metric or a table."""
        self.secrets.nowhere["the provider's key"] = self.aws("secretsmanager").get_secret_value(SecretId=SECRET)[
            "SecretString"
        ]
        found = dict(surfaces(self.aws, self.outputs, self.heard, bus, since))
        assert "call answered" in found["logs"]
        assert not {place: leaks for place, text in found.items() if (leaks := self.secrets.found_in(place, text))}

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

    def admin(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """`nightshift admin` on this stack. In this process, because it starts in a tenth of the time."""
        words = ("admin", *arguments, "--local")
        before = dict(os.environ)
        os.environ["NIGHTSHIFT_LOCAL_DIR"] = str(self.folder)
        _forget_clients()
        try:
            said = CliRunner().invoke(app, words)
        finally:
            os.environ.clear()
            os.environ.update(before)
            _forget_clients()
        done = subprocess.CompletedProcess(words, said.exit_code, said.stdout, said.stderr)
        self.heard.command(words, done)
        if check:
            done.check_returncode()
        return done

    def nightshift(self, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """`nightshift` with these words, and these environment variables."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("nightshift")), *words],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.heard.command(words, done)
        return done

    def bucket(self) -> str:
        return self.outputs["BucketName"]

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

    def invoke(self, function: str, event: Mapping[str, Any]) -> Any:
        """What a function answers."""
        answer = self.aws("lambda").invoke(FunctionName=self._function(function), Payload=json.dumps(event))
        assert "FunctionError" not in answer, answer["Payload"].read()
        return json.load(answer["Payload"])

    def _function(self, logical_id: str) -> str:
        names = [found["FunctionName"] for found in self.aws("lambda").list_functions()["Functions"]]
        [name] = [str(each) for each in names if each.startswith(f"{self.description['stack_name']}-{logical_id}-")]
        return name

    @contextlib.contextmanager
    def environment(self, function: str, **variables: str) -> Iterator[None]:
        """Set environment variables of a function, as a stack parameter would, and restore them."""
        functions = self.aws("lambda")
        name = self._function(function)
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

    since = time.time()
    stack("up")
    try:
        with contextlib.closing(Local(folder, json.loads((folder / "stack.json").read_text()))) as made:
            bus = Bus(made.aws, made.description["stack_name"])
            bus.open()
            yield made
            made.assert_secrets_were_kept(bus, since)
            bus.close()
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
    for name, value in admin_environment(local.description["aws_endpoint_url"], local.outputs).items():
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
