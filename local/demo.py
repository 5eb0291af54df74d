"""The demo: 200 questions about Python's standard library, answered as one batch on the local stack.

`make demo` starts the stack and runs this. It does what a user would do: write a JSONL file, run it with
`nightshift run`, read the answers, and receive the signed webhook at the end of the batch.
"""

import ast
import http.server
import json
import os
import queue
import subprocess
import sys
import sysconfig
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from openai import APIConnectionError, InvalidWebhookSignatureError, OpenAI
from openai.types import Batch

from local.settings import MODEL, ROOT
from local.stack import Stack

LINES = 200
BATCH_MODEL = "demo-batch-model"
WEBHOOK_SECONDS = 30
# Modules written in Python with good docstrings. They are read as text, not imported.
MODULES = (
    *("json", "pathlib", "statistics", "textwrap", "shutil", "random", "heapq", "functools", "tempfile", "zipfile"),
    *("datetime", "argparse", "inspect", "threading", "subprocess", "difflib", "fractions", "calendar", "collections"),
    *("csv", "configparser", "contextlib", "http.client", "urllib.parse", "logging", "tarfile", "uuid", "ast", "os"),
)

Webhook = tuple[dict[str, str], str]  # headers and body


class DemoError(Exception):
    """The demo failed; the message has what to check."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """A webhook receiver at ``url``, which puts what arrives into ``received``."""

    url: str
    received: "queue.Queue[Webhook]"


def docstrings() -> Iterator[tuple[str, str]]:
    """The name and the docstring of public functions and classes, such as ``json.loads``; "" without a docstring."""
    library = Path(sysconfig.get_path("stdlib"))
    for module in MODULES:
        path = library.joinpath(*module.split("."))
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        for node in ast.parse(source.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                yield f"{module}.{node.name}", " ".join((ast.get_docstring(node) or "").split())


def write_requests(path: Path) -> dict[str, str]:
    """Write the input file, and return the question of each line by its custom_id."""
    documented = {name: text for name, text in docstrings() if text}
    texts = dict(islice(documented.items(), LINES))
    questions = {name: f"Summarise in one sentence what {name} does.\n\n{text}" for name, text in texts.items()}
    with path.open("w") as file:
        for name, question in questions.items():
            body = {"model": MODEL, "messages": [{"role": "user", "content": question}]}
            line = {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    return questions


@contextmanager
def webhook_receiver() -> Iterator[Receiver]:
    """A receiver on a free port of this machine that accepts every webhook."""
    received: queue.Queue[Webhook] = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.send_response(204)
            self.end_headers()
            received.put((dict(self.headers), body))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield Receiver(f"http://127.0.0.1:{server.server_port}/webhook", received)
        finally:
            server.shutdown()


def rotate_secret(client: OpenAI) -> str:
    """The account's new signing secret."""
    # The SDK has no method for the account's webhook, but its HTTP methods reach every path.
    try:
        secret: str = client.post("/webhook/rotate", cast_to=dict)["secret"]
    except APIConnectionError:
        raise DemoError("The local stack does not answer. Start it again with `make demo`.") from None
    return secret


def run_batch(stack: Stack, client: OpenAI, requests: Path, answers: Path, callback_url: str) -> Batch:
    """Run the file with `nightshift run`, and return the batch."""
    run_id = uuid.uuid4().hex
    command = [
        *(sys.executable, "-m", "nightshift_cli", "run", str(requests), "--output", str(answers), "--local"),
        *("--callback-url", callback_url, "--metadata", f"demo={run_id}"),
    ]
    print(f"$ nightshift {' '.join(command[3:])}", flush=True)
    environment = {**os.environ, "NIGHTSHIFT_LOCAL_DIR": str(stack.folder)}
    exit_code = subprocess.run(command, env=environment, check=False).returncode
    batch = next((batch for batch in client.batches.list() if batch.metadata == {"demo": run_id}), None)
    if exit_code != 0 or batch is None:
        raise DemoError("The batch failed. Check that the stack was started with NIGHTSHIFT_ALLOW_LOCAL_WEBHOOKS=1.")
    print(f"\nThe batch:\n{batch.to_json()}\n")
    return batch


def run_in_batch_mode(stack: Stack, requests: Path) -> None:
    """Run the file once more, on a route that uses the provider's own batch API."""
    description = stack.read() or {}
    routes = stack.folder / "demo" / "routes.yaml"
    upstream = f"provider: simulator, base_url: {description['upstream_url']}, upstream_model: simulated-model"
    price = "sku: {id: half-price, input_per_million: 0.075, output_per_million: 0.30}"
    routes.write_text(f"- {{model: {BATCH_MODEL}, {upstream}, {price}, mode: batch}}\n")
    print(
        f"\nA provider's own batch API, at its price, is one line of a routes file ({routes}):\n  {routes.read_text()}"
    )
    renamed = requests.with_name("requests-batch-mode.jsonl")
    renamed.write_text(requests.read_text().replace(f'"{MODEL}"', f'"{BATCH_MODEL}"'))
    answers = requests.with_name("answers-batch-mode.jsonl")
    for command in (
        ("admin", "routes", "apply", str(routes), "--local"),
        ("run", str(renamed), "--output", str(answers), "--local"),
    ):
        print(f"$ nightshift {' '.join(command)}", flush=True)
        environment = {**os.environ, "NIGHTSHIFT_LOCAL_DIR": str(stack.folder)}
        done = subprocess.run((sys.executable, "-m", "nightshift_cli", *command), env=environment, check=False)
        if done.returncode:
            raise DemoError("The batch in batch mode failed.")
    if len(answers.read_text().splitlines()) != LINES:
        raise DemoError(f"Not all {LINES} lines were answered in batch mode.")


def show_answers(answers: Path, questions: dict[str, str]) -> int:
    """Print the first answers, and return how many there are."""
    print("Some of its answers (from a simulator, unless UPSTREAM_BASE_URL is set to a real provider):\n")
    lines: list[dict[str, Any]] = [json.loads(line) for line in answers.read_text().splitlines()]
    for line in lines[:3]:
        print(f"  {line['custom_id']}")
        print(f"    question: {' '.join(questions[line['custom_id']].split())[:90]}...")
        print(f"    answer:   {line['response']['body']['choices'][0]['message']['content']}")
    return len(lines)


def check_webhook(client: OpenAI, receiver: Receiver, secret: str, batch: Batch) -> None:
    """Wait for the webhook, and verify it with the OpenAI SDK."""
    try:
        headers, body = receiver.received.get(timeout=WEBHOOK_SECONDS)
        event = client.webhooks.unwrap(body, headers, secret=secret)
    except queue.Empty:
        raise DemoError(f"No webhook arrived within {WEBHOOK_SECONDS} s.") from None
    except InvalidWebhookSignatureError as error:
        raise DemoError(f"A webhook arrived, but its signature is wrong: {error}") from None
    batch_id = json.loads(body)["data"]["id"]
    print(f"\nThe webhook, with its signature verified by the OpenAI SDK:\n  {event.id} {event.type} {batch_id}")
    if batch_id != batch.id:
        raise DemoError("The webhook is about another batch.")


def check_counts(batch: Batch, answered: int) -> None:
    counts = batch.request_counts
    if batch.status != "completed" or counts is None or not counts.completed == counts.total == answered == LINES:
        raise DemoError(f"Not all {LINES} lines were answered.")


def demo(stack: Stack) -> None:
    """Run the demo.

    Raises:
        DemoError: a step failed.
    """
    description = stack.read()
    if description is None or "base_url" not in description:
        raise DemoError("The local stack is not running. Start it with `make demo`.")
    folder = stack.folder / "demo"
    folder.mkdir(exist_ok=True)
    requests, answers = folder / "requests.jsonl", folder / "answers.jsonl"
    questions = write_requests(requests)
    print(f"Wrote {len(questions)} questions to {requests}.\n")

    client = OpenAI(base_url=description["base_url"], api_key=description["api_key"])
    secret = rotate_secret(client)
    with webhook_receiver() as receiver:
        batch = run_batch(stack, client, requests, answers, receiver.url)
        answered = show_answers(answers, questions)
        check_webhook(client, receiver, secret, batch)
    check_counts(batch, answered)
    if "UPSTREAM_BASE_URL" not in os.environ:
        run_in_batch_mode(stack, requests)
    print(f"""
All {LINES} of {LINES} lines were answered. Next steps:
  nightshift run --local your.jsonl -o answers.jsonl    run your own batch (model {MODEL})
  nightshift console --local                            see the batches in the browser
  README.md, docs/                                      how it works, and how to deploy it to AWS
  make logs                                             follow the functions' logs
  make down                                             stop the local stack""")


def main() -> int:
    try:
        demo(Stack(Path(os.environ.get("NIGHTSHIFT_LOCAL_DIR") or ROOT / ".local")))
    except DemoError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
